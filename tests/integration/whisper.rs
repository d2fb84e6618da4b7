//! Transcripts by the engine and the command line against independent implementations (tests/goldens/whisper/make.py).
//!
//! Tests that need weights are ignored by default; tests/check_speech downloads them and runs these tests.

use crate::support::recordings::{
    audio, converted_models_folder, golden_json, integers, noise, samples, speech_in_noise, tests_folder,
};
use crate::support::simd_isas;
use serde_json::Value;
use std::collections::BTreeSet;
use std::f32::consts::TAU;
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use tealight::config::Config;
use tealight::engine::Engine;
use tealight::engine::speech::{Transcribe, Transcription};
use tealight::{Error, ErrorKind};
use tealight_audio::VadOptions;
use tealight_core::Deadline;
use tealight_kernels::CpuContext;
use tealight_kernels::Isa;
use tealight_models::Architecture;
use tealight_models::families::whisper::{self, Whisper, language_code};
use tealight_models::pack::PackMetadata;
use tealight_models::tasks::transcribe::{Segment, Task, TranscribeOptions};

/// Maximum difference of the mean log probability of a text from float32.
const AVG_LOGPROB_ERROR: f64 = 0.1;
/// Maximum difference of a segment's timestamp from float32, in seconds: boundaries of segments are ambiguous.
const TIMESTAMP_ERROR: f64 = 0.6;

/// Maximum difference of a word's timestamp from float32, in seconds.
const WORD_ERROR: f64 = 0.1;
/// The same on AVX2, where activations have 7 bits; and the number of words that it may repeat at the end of a repetitive recording.
const AVX2_WORD_ERROR: f64 = 0.3;
const AVX2_MAX_EXTRA_WORDS: usize = 4;

#[test]
#[ignore = "needs weights, see tests/check_speech"]
fn vad_option_transcribes_speech_only() {
    let all = wav(speech_in_noise().into_iter());
    let options = TranscribeOptions { vad: Some(VadOptions::default()), ..greedy() };
    let found = transcribe(&engine("whisper-tiny.en", Isa::detect(), 2), all, options).unwrap().transcript;
    println!("{:?}", found.segments.iter().map(|s| (s.start, s.end, &s.text)).collect::<Vec<_>>());
    assert_eq!(words(&found.text()).iter().filter(|w| *w == "americans").count(), 2, "{}", found.text());
    let outside = |s: &Segment| !((4.4..16.6).contains(&s.start) || (33.4..45.1).contains(&s.start));
    assert!(!found.segments.iter().any(outside), "{:?}", found.segments);
}

fn engine(model: &str, isa: Isa, threads: usize) -> Engine {
    let config = Config::from_lookup(|_| None).unwrap();
    Engine::new(Config { isa, threads, speech_model: model.into(), ..config }).unwrap()
}

fn transcribe(engine: &Engine, audio: Vec<u8>, options: TranscribeOptions) -> Result<Transcription, Error> {
    let on_progress = &mut |_: &[_], _, _| Ok(());
    let job = Transcribe { model: None, audio: audio.into(), prompt: None, options, on_progress };
    engine.run(job, Deadline::NONE)
}

fn greedy() -> TranscribeOptions {
    TranscribeOptions { beam_size: 1, ..TranscribeOptions::default() }
}

#[test]
fn unsupported_file_is_rejected_before_model_is_resolved() {
    let engine = engine("no-such-model", Isa::detect(), 1);
    let error = |bytes: &[u8]| transcribe(&engine, bytes.to_vec(), greedy()).unwrap_err();
    assert_eq!(error(b"").kind, ErrorKind::Empty);
    assert_eq!(error(b"a text").kind, ErrorKind::InvalidValue);
    assert_eq!(error(&audio("speech.flac")).kind, ErrorKind::ModelNotFound);
}

#[test]
#[ignore = "needs weights, see tests/check_speech"]
fn every_model_format_gives_same_text() {
    let cpu = CpuContext::new(Isa::detect(), 2);
    let run =
        |model: &str| transcribe(&engine(model, Isa::detect(), 2), audio("jfk.flac"), greedy()).unwrap().transcript;
    let expected = run("whisper-tiny.en");
    let reference = golden_json("reference.json");
    let suppressed: BTreeSet<u32> = integers(&reference["whisper-tiny.en"]["suppressed"]).into_iter().collect();
    for name in ["f16.bin", "hf", "candle/model-tiny-en-q80.gguf", "q5_0.bin"] {
        let path = converted_models_folder().join(name);
        assert_eq!(Architecture::detect(&path).unwrap(), Architecture::Whisper, "{name}");
        let model = Whisper::load(&cpu, &path).unwrap();
        assert_eq!(model.tokenizer.languages.len(), 99, "{name}");
        assert!(suppressed.is_superset(&model.config.suppress_tokens.iter().copied().collect()), "{name}");
        let found = run(&path.display().to_string());
        println!("{name}: {:?}", found.text());
        assert_eq!(words(&found.text()), words(&expected.text()), "{name}");
        if name == "f16.bin" {
            // The same weights give the same transcript. The tokens to suppress are derived from the vocabulary.
            assert_eq!(found, expected);
            let eot = model.tokenizer.special.eot;
            let derived: BTreeSet<u32> = model.config.suppress_tokens.iter().copied().collect();
            assert!(suppressed.difference(&derived).all(|id| *id > eot), "{derived:?}");
        }
    }
    let packed = tempfile::tempdir().unwrap();
    let packed = packed.path().join("tiny.gguf");
    whisper::pack(&cpu, &converted_models_folder().join("f16.bin"), &PackMetadata::default(), &packed).unwrap();
    assert_eq!(run(&packed.display().to_string()), expected);
}

/// Transcripts by numpy: with a prompt, and of a recording longer than a window.
#[test]
#[ignore = "needs weights, see tests/check_speech"]
fn transcripts_with_prompt_or_several_windows_match_numpy_reference() {
    let reference = golden_json("reference.json");
    let speech = samples("jfk.flac");
    let repeated = wav(std::iter::repeat_n(speech, 4).flatten());
    for name in ["whisper-tiny.en", "whisper-base"] {
        let engine = engine(name, Isa::detect(), 2);
        let run = |audio: Vec<u8>, prompt: Option<&str>| {
            let (prompt, on_progress) = (prompt.map(String::from), &mut |_: &[_], _, _| Ok(()));
            let options = TranscribeOptions { language: Some("en".into()), temperatures: vec![0.0], ..greedy() };
            let job = Transcribe { model: None, audio: audio.into(), prompt, options, on_progress };
            engine.run(job, Deadline::NONE).unwrap().transcript
        };
        let expected = |case: &str| reference[name][case]["text"].as_str().unwrap().to_string();
        let prompted = run(audio("jfk.flac"), Some("A speech of 1961."));
        assert_eq!(prompted.text(), expected("prompted"), "{name}");
        let found = run(repeated.clone(), None);
        println!("{name}: {}", found.text());
        let (found, expected) = (words(&found.text()), words(&expected("repeated")));
        let extra = if is_avx2() { found.len().saturating_sub(expected.len()).min(AVX2_MAX_EXTRA_WORDS) } else { 0 };
        assert_eq!(found[..found.len() - extra], expected, "{name}");
    }
}

/// Whether AVX2 without VNNI is the best instruction set of this machine.
fn is_avx2() -> bool {
    Isa::detect().as_str() == "avx2"
}

fn words(text: &str) -> Vec<String> {
    let plain = |w: &str| w.chars().filter(|c| c.is_alphanumeric()).collect::<String>().to_lowercase();
    text.split_whitespace().map(plain).filter(|w| !w.is_empty()).collect()
}

#[test]
#[ignore = "needs weights, see tests/check_speech"]
fn text_and_statistics_match_float32() {
    let goldens = golden_json("transcripts.json");
    for (model, expected) in goldens.as_object().unwrap() {
        for isa in simd_isas() {
            let found = transcribe(&engine(model, isa, 2), audio("jfk.flac"), greedy()).unwrap().transcript;
            let segments = expected["segments"].as_array().unwrap();
            let text: String = segments.iter().map(|s| s["text"].as_str().unwrap()).collect();
            let label = format!("{model} on {}", isa.as_str());
            println!("{label}: {:?}", found.text());
            assert_eq!(words(&found.text()), words(&text), "{label}");
            assert_eq!(found.language, expected["language"].as_str().unwrap(), "{label}");
            assert_eq!(found.segments.len(), segments.len(), "{label}");
            for (found, expected) in found.segments.iter().zip(segments) {
                let error = |found: f32, name: &str| (found as f64 - expected[name].as_f64().unwrap()).abs();
                assert!(error(found.avg_logprob, "avg_logprob") < AVG_LOGPROB_ERROR, "{label}: {found:?}");
                assert!(error(found.no_speech_prob, "no_speech_prob") < 0.05, "{label}: {found:?}");
                let (start, end) = (error(found.start, "start"), error(found.end, "end"));
                assert!(start < TIMESTAMP_ERROR && end < TIMESTAMP_ERROR, "{found:?}");
            }
        }
    }
}

#[test]
#[ignore = "needs weights, see tests/check_speech"]
fn transcript_is_independent_of_threads_and_instruction_set() {
    let run = |isa, threads| {
        transcribe(&engine("whisper-tiny.en", isa, threads), audio("jfk.flac"), greedy()).unwrap().transcript
    };
    let expected = run(Isa::detect(), 1);
    for isa in simd_isas().into_iter().filter(|isa| isa.as_str() != "avx2") {
        assert_eq!(run(isa, 2), expected, "{}", isa.as_str());
    }
}

#[test]
#[ignore = "needs weights, see tests/check_speech"]
fn word_timestamps_match_float32() {
    let goldens = golden_json("transcripts.json");
    for (model, expected) in goldens.as_object().unwrap() {
        let run =
            |options| transcribe(&engine(model, Isa::detect(), 2), audio("jfk.flac"), options).unwrap().transcript;
        let found = run(TranscribeOptions { word_timestamps: true, ..greedy() });
        assert_eq!(found.text(), run(greedy()).text());
        let segments = found.segments.iter().map(|s| (&s.words, s.start, s.end));
        for (words, start, end) in segments.clone() {
            // The segment's own timestamps replace those of a word at its ends that is too long.
            assert!(words.first().is_some_and(|w| (w.start - start).abs() <= 0.5), "{words:?} {start}");
            assert!(words.last().is_some_and(|w| (w.end - end).abs() <= 0.5), "{words:?} {end}");
        }
        let words: Vec<_> =
            segments.flat_map(|(words, ..)| words.iter().enumerate().map(|(i, w)| (w, i + 1 == words.len()))).collect();
        let expected = expected["words"].as_array().unwrap();
        let word_error = if is_avx2() { AVX2_WORD_ERROR } else { WORD_ERROR };
        assert_eq!(words.len(), expected.len(), "{model}");
        for ((word, is_last), expected) in words.iter().zip(expected) {
            let error = |found: f32, name: &str| (found as f64 - expected[name].as_f64().unwrap()).abs();
            assert!(error(word.start, "start") <= word_error, "{model}: {word:?} {expected}");
            // The last word of a segment ends with it, at a timestamp token.
            assert!(
                error(word.end, "end") <= if *is_last { TIMESTAMP_ERROR.max(word_error) } else { word_error },
                "{model}: {word:?} {expected}"
            );
        }
        assert!(words.windows(2).all(|w| w[0].0.end <= w[1].0.start + 1e-6), "{words:?}");
    }
}

#[test]
#[ignore = "needs weights, see tests/check_speech"]
fn cli_embed_option_writes_documents_with_embeddings() {
    let file = tests_folder().join("fixtures/audio/jfk.flac").display().to_string();
    let run = |more: &[&str]| {
        let arguments = ["transcribe", "--model", "whisper-tiny.en", "--embed", &file];
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tealight"));
        command.args(arguments).args(more).output().unwrap()
    };
    let expect_success = |more: &[&str]| {
        let output = run(more);
        assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let lines = String::from_utf8(expect_success(&[])).unwrap();
    let documents: Vec<Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(documents.len(), 2);
    let times =
        |document: &Value| ["start_seconds", "end_seconds"].map(|name| document["metadata"][name].as_f64().unwrap());
    let [start, end] = times(&documents[1]);
    assert_eq!(documents[1]["id"], format!("{file}#t={start:.2},{end:.2}"));
    assert!(documents[0]["text"].as_str().unwrap().contains("fellow Americans"));
    assert!(times(&documents[0])[1] <= start);
    let vector: Vec<f64> = documents[0]["embedding"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    assert!(vector.len() == 384 && (vector.iter().map(|v| v * v).sum::<f64>() - 1.0).abs() < 1e-5);
    assert_eq!(serde_json::from_slice::<Vec<Value>>(&expect_success(&["--format", "json"])).unwrap(), documents);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vectors.npy").display().to_string();
    expect_success(&["--format", "npy", "--encoding", "int8", "--dimensions", "64", "--output", &path]);
    let bytes = std::fs::read(&path).unwrap();
    assert!(
        String::from_utf8_lossy(&bytes[..128]).contains("'descr': '|i1', 'fortran_order': False, 'shape': (2, 64)")
    );
    for (more, word) in [
        (&["--format", "srt"][..], "--embed"),
        (&["--dimensions", "999"], "dimensions"),
        (&["--format", "npy", "--encoding", "base64"], "base64"),
        (&["--embedding-model", "none"], "none"),
    ] {
        let output = run(more);
        assert!(!output.status.success() && output.stdout.is_empty(), "{more:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(word), "{output:?}");
    }
}

#[test]
#[ignore = "needs weights, see tests/check_speech"]
fn cli_skips_unreadable_file_and_exits_with_1() {
    let file = tests_folder().join("fixtures/audio/jfk.flac").display().to_string();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.jsonl").display().to_string();
    let run = |arguments: &[&str], input: &[u8]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tealight"));
        command.args(["transcribe", "--model", "whisper-tiny.en"]).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(input);
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, once, stderr) = run(&[&file], b"");
    assert!(code == Some(0) && once.contains("fellow Americans") && stderr.is_empty(), "{stderr}");
    let (code, twice, stderr) = run(&[&file, "nothing.wav", &file], b"");
    assert_eq!((code, twice), (Some(1), once.repeat(2)));
    assert!(
        stderr.contains("nothing.wav") && stderr.contains("1 of 3 files") && stderr.lines().count() == 2,
        "{stderr}"
    );
    let (code, _, stderr) = run(&["--embed", "--output", &path, "nothing.wav", &file], b"");
    assert_eq!((code, std::fs::read_to_string(&path).unwrap().lines().count()), (Some(1), 2), "{stderr}");
    let (code, _, stderr) = run(&["--output", &path, "nothing.wav"], b"");
    assert!(code == Some(1) && stderr.matches("nothing.wav").count() == 1, "{stderr}");
    assert_eq!(run(&["-"], &audio("jfk.flac")), (Some(0), once, String::new()));
    let (code, out, stderr) = run(&["--word-timestamps", &file], b"");
    assert!(code != Some(0) && out.is_empty() && stderr.contains("verbose_json"), "{stderr}");
}

fn hub_folder(name: &str) -> PathBuf {
    tealight::engine::model_path::resolve_any(&Config::from_lookup(|_| None).unwrap(), name).unwrap()
}

#[test]
#[ignore = "needs weights, see tests/check_speech"]
fn packed_model_gives_same_transcript_and_corrupt_one_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let (path, again) = (folder.path().join("tiny.gguf"), folder.path().join("again.gguf"));
    let source = hub_folder("whisper-tiny.en");
    let metadata = PackMetadata { name: Some("tiny".into()), ..PackMetadata::default() };
    for path in [&path, &again] {
        whisper::pack(&CpuContext::new(Isa::detect(), 2), &source, &metadata, path).unwrap();
    }
    let bytes = std::fs::read(&path).unwrap();
    assert!(bytes == std::fs::read(&again).unwrap(), "packing is reproducible");
    for path in [&path, &source] {
        assert_eq!(Architecture::detect(path).unwrap(), Architecture::Whisper);
    }
    assert!(Architecture::detect(folder.path()).is_err());
    let run = |model: &str| {
        let on_progress = &mut |_: &[_], _, _| Ok(());
        let prompt = Some("Ask not.".to_string());
        let job = Transcribe { model: None, audio: audio("jfk.flac").into(), prompt, options: greedy(), on_progress };
        engine(model, Isa::detect(), 2).run(job, Deadline::NONE).unwrap().transcript
    };
    assert_eq!(run(&path.display().to_string()), run("whisper-tiny.en"));
    assert!(
        whisper::pack(&CpuContext::new(Isa::detect(), 1), &path, &metadata, &again)
            .unwrap_err()
            .message
            .contains("packed already")
    );
    let damaged = folder.path().join("damaged.gguf");
    let assert_rejected = |bytes: &[u8]| {
        std::fs::write(&damaged, bytes).unwrap();
        let error = Whisper::load(&CpuContext::new(Isa::detect(), 1), &damaged).unwrap_err();
        assert!(error.kind == ErrorKind::ModelLoad && error.message.contains("damaged.gguf"), "{error:?}");
    };
    for length in [1, 100, 5_000, bytes.len() / 2, bytes.len() - 200] {
        assert_rejected(&bytes[..length]);
    }
    let find = |text: &str| bytes.windows(text.len()).position(|w| w == text.as_bytes()).unwrap();
    for (text, replacement) in
        [("\"width\":384", "\"width\":385"), ("\"heads\":6", "\"heads\":0"), ("\"end\":50256", "\"end\":99999")]
    {
        let mut bytes = bytes.clone();
        let at = find(text);
        bytes[at..at + text.len()].copy_from_slice(replacement.as_bytes());
        assert_rejected(&bytes);
    }
}

/// 16-bit mono WAV at 16 kHz.
fn wav(samples: impl Iterator<Item = f32>) -> Vec<u8> {
    let data: Vec<u8> = samples.flat_map(|v| ((v * 32767.0) as i16).to_le_bytes()).collect();
    let mut out = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x80\x3e\0\0\0\x7d\0\0\x02\0\x10\0data".to_vec();
    out[4..8].copy_from_slice(&(36 + data.len() as u32).to_le_bytes());
    out.extend((data.len() as u32).to_le_bytes());
    out.extend(data);
    out
}

#[test]
#[ignore = "needs weights, see tests/check_speech"]
fn silence_and_noise_give_little_or_no_text() {
    let engine = engine("whisper-tiny.en", Isa::detect(), 2);
    let tone = |hz: f32| (0..8 * 16_000).map(move |i| 0.3 * (i as f32 * hz * TAU / 16_000.0).sin());
    let chord = (0..20 * 16_000).map(|i| {
        let tone = |hz: f32| (i as f32 * hz * TAU / 16_000.0).sin();
        0.1 * [220.0, 277.2, 329.6].map(tone).iter().sum::<f32>()
    });
    let sounds: [(&str, Vec<u8>, usize); 7] = [
        ("silence", wav(std::iter::repeat_n(0.0, 45 * 16_000)), 0),
        ("50 ms", wav(noise(800, 0.1)), 40),
        ("faint noise", wav(noise(20 * 16_000, 1e-3)), 40),
        ("noise", wav(noise(20 * 16_000, 0.3)), 200),
        ("a tone", wav(tone(440.0)), 200),
        ("a chord", wav(chord), 200),
        ("three hours of zeros", wav(std::iter::repeat_n(0.0, 3 * 3600 * 16_000)), 0),
    ];
    for (name, bytes, max_len) in sounds {
        let found = transcribe(&engine, bytes, greedy()).unwrap().transcript;
        println!("{name}: {:?}", found.text());
        assert!(found.text().len() <= max_len, "{name}: {:?}", found.text());
        assert!(found.segments.iter().all(|s| s.start < s.end && s.end <= found.duration + 0.02), "{name}: {found:?}");
    }
}

/// A recording of three minutes.
#[test]
#[ignore = "needs weights, see tests/check_speech"]
fn timestamps_of_long_recording_increase_and_stay_within_it() {
    let speech = samples("jfk.flac");
    let duration = 16.0 * speech.len() as f32 / 16_000.0;
    let repeated = wav(std::iter::repeat_n(speech, 16).flatten());
    let engine = engine("whisper-tiny.en", Isa::detect(), 2);
    let (mut segments, mut last) = (vec![], 0.0);
    let job = Transcribe {
        model: None,
        audio: repeated.into(),
        prompt: Some("A speech.".into()),
        options: greedy(),
        on_progress: &mut |new_segments, done, total| {
            // During the first pass, nothing is transcribed.
            if total == 0.0 {
                return Ok(());
            }
            assert!(done > last && done <= total);
            last = done;
            segments.extend_from_slice(new_segments);
            Ok(())
        },
    };
    let transcription = engine.run(job, Deadline::NONE).unwrap();
    assert_eq!(transcription.transcript.segments, segments);
    assert!((transcription.transcript.duration - duration).abs() < 0.001, "{}", transcription.transcript.duration);
    assert!((last - duration).abs() < 0.01, "{last}");
    let timestamps: Vec<f32> = segments.iter().flat_map(|s| [s.start, s.end]).collect();
    assert!(timestamps.is_sorted() && timestamps.iter().all(|m| *m <= duration + 0.02), "{timestamps:?}");
    let count = words(&transcription.transcript.text()).iter().filter(|w| *w == "americans").count();
    assert!((14..=18).contains(&count), "{count} of 16: {}", transcription.transcript.text());
}

#[test]
#[ignore = "needs weights, see tests/check_speech"]
fn language_task_and_beam_options_are_applied() {
    let base = engine("whisper-base", Isa::detect(), 2);
    let run = |options: TranscribeOptions| transcribe(&base, audio("jfk.flac"), options);
    let unsupported = run(TranscribeOptions { language: Some("xx".into()), ..greedy() }).unwrap_err();
    assert!(unsupported.param.as_deref() == Some("language") && unsupported.message.contains("de"), "{unsupported:?}");
    let german = run(TranscribeOptions { language: Some("de".into()), ..greedy() }).unwrap().transcript;
    assert!(german.language == "de" && german.text() != run(greedy()).unwrap().transcript.text());
    let english = run(TranscribeOptions { task: Task::Translate, ..greedy() }).unwrap().transcript;
    assert!(words(&english.text()).contains(&"country".to_string()));
    let beams = run(TranscribeOptions { beam_size: 5, ..greedy() }).unwrap().transcript;
    let plain = run(greedy()).unwrap().transcript;
    let set = |t: &str| words(t).into_iter().collect::<BTreeSet<_>>();
    assert_eq!(set(&beams.text()), set(&plain.text()));
    let english_only = engine("whisper-tiny.en", Isa::detect(), 1);
    let error =
        transcribe(&english_only, audio("jfk.flac"), TranscribeOptions { language: Some("de".into()), ..greedy() });
    assert!(error.unwrap_err().message.contains("en only"));
    let error = transcribe(&english_only, audio("jfk.flac"), TranscribeOptions { task: Task::Translate, ..greedy() });
    assert!(error.unwrap_err().message.contains("multilingual"));
    // Sampled text is unlikely, but is returned because a temperature was requested.
    let sampled = TranscribeOptions { temperatures: vec![1.0], language: Some("en".into()), ..greedy() };
    let short = transcribe(&english_only, audio("speech.mp3"), sampled).unwrap().transcript;
    assert!(!short.text().is_empty());
    assert_eq!(["en-US", "German", "pt_br", "xx-YY"].map(language_code), ["en", "de", "pt", "xx-yy"]);
}
