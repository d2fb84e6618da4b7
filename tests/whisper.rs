//! Whisper against what independent implementations make of the same recordings (tests/goldens/whisper/make.py).
//!
//! What needs weights is left out by `cargo test`; `tests/run` gets them and asks for it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use serde_json::Value;
use std::collections::BTreeSet;
use std::f32::consts::TAU;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tealight::config::Config;
use tealight::engine::Engine;
use tealight::engine::speech::{Said, Transcribe};
use tealight::{Error, ErrorKind};
use tealight_audio::{Recording, VadOptions};
use tealight_core::Deadline;
use tealight_kernels::CpuContext;
use tealight_kernels::Isa;
use tealight_models::families::whisper::{self, FRAMES, Whisper, language_code};
use tealight_models::pack::PackMetadata;
use tealight_models::tasks::transcribe::{Listener, Options, Pieces, Segment, Task};
use tealight_models::tokenizer::Tokenizer;

/// The largest difference of a log-mel value to the reference in float64.
const MEL_ERROR: f32 = 1e-4;
/// The least cosine of a row of features to that in float64.
const FEATURES_COSINE: f64 = 0.99;
/// The largest root mean square difference of logits to those in float64, of the 20 highest at each step, but for their mean.
const LOGITS_ERROR: f64 = 0.2;
/// The least cosine of features and logits of random networks.
const RANDOM_COSINE: f64 = 0.999;
/// How far the mean logarithm of a text's probability may be from that in float32.
const LOG_PROBABILITY_ERROR: f64 = 0.1;
/// How far a moment may be from that of float32, in seconds: where one segment ends is often a matter of taste.
const MOMENT_ERROR: f64 = 0.6;

/// How far a word may begin from where float32 decoding finds it, in seconds.
const WORD_ERROR: f64 = 0.1;
/// The same on AVX2, whose activations have 7 bits, and words that it may hear again at the end of a recording that repeats itself.
const AVX2_WORD_ERROR: f64 = 0.3;
const AVX2_WORDS_AGAIN: usize = 4;

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn audio(name: &str) -> Vec<u8> {
    std::fs::read(tests().join("fixtures/audio").join(name)).unwrap()
}

fn samples(name: &str) -> Vec<f32> {
    let recording = Recording::open(audio(name).into()).unwrap();
    recording.samples().unwrap().collect::<Result<Vec<_>, _>>().unwrap().concat()
}

fn listener(bytes: Vec<u8>) -> Listener {
    let recording = Recording::open(bytes.into()).unwrap();
    Listener::new(80, None, || Ok(Box::new(recording.samples()?) as Pieces), || Ok(())).unwrap()
}

/// The rows of a version-1 `.npy` of float32.
fn matrix(path: &Path, width: usize) -> Vec<Vec<f32>> {
    let bytes = std::fs::read(path).unwrap();
    let header = u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
    let values: Vec<f32> = bytes[10 + header..].as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    values.chunks_exact(width).map(<[f32]>::to_vec).collect()
}

fn golden(name: &str, width: usize) -> Vec<Vec<f32>> {
    matrix(&tests().join("goldens/whisper").join(name), width)
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(tests().join("goldens/whisper").join(name)).unwrap()).unwrap()
}

fn numbers<T: TryFrom<u64>>(value: &Value) -> Vec<T> {
    value.as_array().unwrap().iter().filter_map(|v| T::try_from(v.as_u64()?).ok()).collect()
}

/// Models by name, and where they are.
fn models() -> [(&'static str, PathBuf); 2] {
    ["tiny.en", "base"].map(|name| (name, hub_folder(&format!("whisper-{name}"))))
}

/// tiny.en in other files, and a model of another layout: by tests/whisper_formats.py.
fn formats() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/whisper")
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| *a as f64 * *b as f64).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn the_spectrogram_is_that_of_the_equations() {
    for (name, golden_name, step, frames) in [("speech", "mel.npy", 10, 150), ("jfk", "jfk-mel.npy", 50, 1099)] {
        let mut recording = listener(audio(&format!("{name}.flac")));
        assert_eq!(recording.frames(), frames);
        let window = recording.window(0, FRAMES).unwrap().frames;
        for (i, expected) in golden(golden_name, 80).iter().enumerate().take(frames / step) {
            for (found, expected) in window[80 * step * i..].iter().zip(expected) {
                assert!((found - expected).abs() < MEL_ERROR, "{name}, frame {}: {found} {expected}", step * i);
            }
        }
        assert!(window[frames * 80..].iter().all(|v| *v == 0.0));
    }
}

/// Windows may begin anywhere, and what they hold does not depend on those before.
#[test]
fn windows_are_parts_of_one_spectrogram() {
    let whole = listener(audio("jfk.flac")).window(0, FRAMES).unwrap().frames;
    let mut recording = listener(audio("jfk.flac"));
    for seek in [0, 7, 500, 1099] {
        let window = recording.window(seek, FRAMES).unwrap().frames;
        let left = (1100 - seek) * 80;
        assert_eq!(window[..left], whole[seek * 80..][..left], "from {seek}");
        assert!(window[left..].iter().all(|v| *v == 0.0));
    }
    assert!(recording.window(3, FRAMES).is_err());
}

/// 45 s: noise, speech from 5 s to 16 s, noise, silence, and the speech once more from 34 s.
fn voices_among_other_sounds() -> Vec<f32> {
    let speech = samples("jfk.flac");
    let mut all: Vec<f32> = noise(5 * 16_000, 0.05).collect();
    all.extend(&speech);
    all.extend(noise(8 * 16_000, 0.02));
    all.resize(34 * 16_000, 0.0);
    all.extend(&speech);
    all
}

#[test]
fn voices_are_told_from_other_sounds() {
    let all = voices_among_other_sounds();
    let spans = |voices, samples: &[f32]| {
        let pieces = || {
            Ok(Box::new(samples.chunks(777).map(|piece| Ok(piece.to_vec())).collect::<Vec<_>>().into_iter()) as Pieces)
        };
        Listener::new(80, voices, pieces, || Ok(())).unwrap().parts()
    };
    let parts = spans(Some(VadOptions::default()), &all);
    println!("{parts:?}");
    // The network takes its time to forget a voice.
    let near = |at: usize, seconds: usize| at.abs_diff(seconds * 100) < 250;
    assert!(
        matches!(&parts[..], [a, b] if near(a.start, 5) && near(a.end, 16) && near(b.start, 34) && near(b.end, 45))
    );
    assert!(spans(None, &all).into_iter().eq(std::iter::once(0..all.len() / 160)));
    assert!(spans(Some(VadOptions::default()), &all[..4 * 16_000]).is_empty());
    // A part holds the voices of a window.
    let short = VadOptions { min_silence_duration: 0.1, speech_pad: 0.1, ..VadOptions::default() };
    assert_eq!(spans(Some(short), &all[..20 * 16_000]).len(), 1);
    assert!(spans(Some(VadOptions::default()), &[]).is_empty());
}

#[test]
#[ignore = "needs the weights that tests/run gets"]
fn voices_alone_are_transcribed_where_that_is_asked_for() {
    let all = wav(voices_among_other_sounds().into_iter());
    let options = Options { voices: Some(VadOptions::default()), ..greedy() };
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

fn transcribe(engine: &Engine, audio: Vec<u8>, options: Options) -> Result<Said, Error> {
    let progress = &mut |_: &[_], _, _| Ok(());
    let job = Transcribe { model: None, audio: audio.into(), prompt: None, options, progress };
    engine.run(job, Deadline::NONE)
}

fn greedy() -> Options {
    Options { beams: 1, ..Options::default() }
}

#[test]
fn what_is_no_recording_is_refused_before_a_model_is_looked_for() {
    let engine = engine("no-such-model", Isa::detect(), 1);
    let error = |bytes: &[u8]| transcribe(&engine, bytes.to_vec(), greedy()).unwrap_err();
    assert_eq!(error(b"").kind, ErrorKind::Empty);
    assert_eq!(error(b"a text").kind, ErrorKind::InvalidValue);
    assert_eq!(error(&audio("speech.flac")).kind, ErrorKind::ModelNotFound);
}

/// The spectrogram with what follows the recording, features and logits of jfk.flac against the equations in float64.
#[test]
#[ignore = "needs the weights that tests/run gets"]
fn features_and_logits_are_those_of_the_equations() {
    let reference = json("reference.json");
    for (name, path) in models() {
        for isa in sets() {
            let (cpu, what) = (CpuContext::new(isa, 2), format!("{name} on {}", isa.as_str()));
            let model = Whisper::load(&cpu, &path).unwrap();
            let frames = listener(audio("jfk.flac")).window(0, FRAMES).unwrap().frames;
            let features = model.features(&cpu, &frames).unwrap();
            let width = model.config.width;
            let expected = golden(&format!("features-{name}.npy"), width);
            let rows = features.chunks_exact(width).step_by(100);
            let least = rows.zip(&expected).map(|(row, expected)| cosine(row, expected)).fold(1.0, f64::min);
            let expected = &reference[format!("whisper-{name}")]["logits"];
            let logits = model.logits(&cpu, &features, &numbers::<u32>(&expected["tokens"])).unwrap();
            let (mut squares, mut count, mut firsts) = (0.0, 0, 0);
            for (row, step) in logits.iter().zip(expected["steps"].as_array().unwrap()) {
                let (ids, values) = (numbers::<usize>(&step["ids"]), step["values"].as_array().unwrap());
                // What all have in common makes no difference to any probability.
                let off = ids.iter().zip(values).map(|(id, v)| row[*id] as f64 - v.as_f64().unwrap());
                let mean = off.clone().sum::<f64>() / ids.len() as f64;
                squares += off.map(|v| (v - mean).powi(2)).sum::<f64>();
                count += ids.len();
                let best = (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b]));
                firsts += usize::from(best == ids.first().copied());
            }
            let root = (squares / count as f64).sqrt();
            println!("{what}: features {least:.5}, logits {root:.3}, {firsts} of {} first", logits.len());
            assert!(least > FEATURES_COSINE, "{what}: {least}");
            assert!(root < LOGITS_ERROR && firsts + 1 >= logits.len(), "{what}: {root} {firsts}");
        }
    }
}

/// A network of random numbers is the hardest to quantise: nothing in it is used to noise.
#[test]
#[ignore = "needs the weights that tests/run gets"]
fn the_layout_of_large_models_is_read() {
    let cpu = CpuContext::new(Isa::detect(), 2);
    let model = Whisper::load(&cpu, &formats().join("large.bin")).unwrap();
    let config = &model.config;
    assert_eq!((config.bands, config.encoder_layers, config.decoder_layers, config.vocabulary), (128, 2, 1, 51_866));
    let languages = &model.vocabulary.languages;
    assert_eq!((languages.len(), languages[0].as_str(), languages[99].as_str()), (100, "en", "yue"));
    let rows = |name: &str, width| matrix(&formats().join(name), width);
    let features = model.features(&cpu, &rows("large-mel.npy", 128).concat()).unwrap();
    let expected = rows("large-features.npy", 128);
    let cosines = features.chunks_exact(128).zip(&expected).map(|(row, expected)| cosine(row, expected));
    let least = cosines.fold(1.0, f64::min);
    let tokens = [50_258, 50_358, 50_360, 50_365, 400, 370];
    let logits = model.logits(&cpu, &features, &tokens).unwrap();
    let expected = rows("large-logits.npy", 51_866);
    let worst = logits.iter().zip(&expected).map(|(row, expected)| cosine(row, expected)).fold(1.0, f64::min);
    println!("random numbers: features {least:.5}, logits {worst:.5}");
    assert!(least > RANDOM_COSINE && worst > RANDOM_COSINE);
    assert_eq!(model.logits(&cpu, &features, &[51_866]).unwrap_err().param.as_deref(), Some("tokens"));
    assert!(model.logits(&cpu, &features, &[]).is_err() && model.features(&cpu, &[0.0; 80]).is_err());
}

#[test]
#[ignore = "needs the weights that tests/run gets"]
fn every_file_of_a_model_gives_its_text() {
    let cpu = CpuContext::new(Isa::detect(), 2);
    let run =
        |model: &str| transcribe(&engine(model, Isa::detect(), 2), audio("jfk.flac"), greedy()).unwrap().transcript;
    let expected = run("whisper-tiny.en");
    let reference = json("reference.json");
    let suppressed: BTreeSet<u32> = numbers(&reference["whisper-tiny.en"]["suppressed"]).into_iter().collect();
    for name in ["f16.bin", "hf", "candle/model-tiny-en-q80.gguf", "q5_0.bin"] {
        let path = formats().join(name);
        assert!(whisper::is_whisper(&path), "{name}");
        let model = Whisper::load(&cpu, &path).unwrap();
        assert_eq!(model.vocabulary.languages.len(), 99, "{name}");
        assert!(suppressed.is_superset(&model.config.suppressed.iter().copied().collect()), "{name}");
        let found = run(&path.display().to_string());
        println!("{name}: {:?}", found.text());
        assert_eq!(words(&found.text()), words(&expected.text()), "{name}");
        if name == "f16.bin" {
            // The same weights, so the same numbers; what is never text follows from the vocabulary.
            assert_eq!(found, expected);
            let end = model.vocabulary.special.end;
            let told: BTreeSet<u32> = model.config.suppressed.iter().copied().collect();
            assert!(suppressed.difference(&told).all(|id| *id > end), "{told:?}");
        }
    }
    let packed = tempfile::tempdir().unwrap();
    let packed = packed.path().join("tiny.gguf");
    whisper::pack(&cpu, &formats().join("f16.bin"), &PackMetadata::default(), &packed).unwrap();
    assert_eq!(run(&packed.display().to_string()), expected);
}

#[test]
#[ignore = "needs the weights that tests/run gets"]
fn a_damaged_file_of_whisper_cpp_is_refused() {
    let bytes = std::fs::read(formats().join("q5_0.bin")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.bin");
    let refused = |bytes: &[u8], word: &str| {
        std::fs::write(&path, bytes).unwrap();
        let error = Whisper::load(&CpuContext::new(Isa::detect(), 1), &path).unwrap_err();
        assert!(error.kind == ErrorKind::ModelLoad && error.message.contains(word), "{word}: {error:?}");
    };
    for length in [4, 20, 60, 5_000, 100_000, 1_000_000, bytes.len() - 7] {
        refused(&bytes[..length], "");
    }
    let with = |at: usize, value: u32| [&bytes[..at], &value.to_le_bytes(), &bytes[at + 4..]].concat();
    refused(&with(4, 51_863), "ids");
    refused(&with(16, 7), "heads");
    refused(&with(48, u32::MAX), "filters");
    let tokens = 12 * 4 + 8 + 80 * 201 * 4;
    refused(&with(tokens, u32::MAX), "tokens");
    refused(&with(tokens + 4, u32::MAX), "token");
}

/// What goes before a recording is cut into tokens as Hugging Face's tokenizers do it.
#[test]
#[ignore = "needs the weights that tests/run gets"]
fn prompts_have_the_tokens_of_their_tokenizer() {
    let texts = std::fs::read_to_string(tests().join("../crates/tealight-models/src/calibration.txt")).unwrap();
    let others =
        ["", "it's we're I'd  THEY'LL", "a\n\n b\t c   ", "Größe 漢字かな 🎙️ café\u{301} ٣٤ ½", "x=1;  y<<=2 // ..."];
    for (name, path) in models() {
        let model = Whisper::load(&CpuContext::new(Isa::detect(), 2), &path).unwrap();
        let tokenizer = Tokenizer::from_json(&std::fs::read(path.join("tokenizer.json")).unwrap()).unwrap();
        for text in texts.lines().chain(others) {
            let expected = tokenizer.encode(&format!(" {}", text.trim())).unwrap();
            assert_eq!(model.prompt(text).unwrap(), expected, "{name}: {text:?}");
        }
        // A word without end is cut, not waited for.
        assert!(model.prompt(&"a".repeat(1 << 20)).unwrap().len() <= 4096);
    }
}

/// Whole transcripts by numpy: of a prompted recording, and of one that goes on behind a window.
#[test]
#[ignore = "needs the weights that tests/run gets"]
fn prompts_and_windows_do_what_the_equations_do() {
    let reference = json("reference.json");
    let speech = samples("jfk.flac");
    let repeated = wav(std::iter::repeat_n(speech, 4).flatten());
    for name in ["whisper-tiny.en", "whisper-base"] {
        let engine = engine(name, Isa::detect(), 2);
        let run = |audio: Vec<u8>, prompt: Option<&str>| {
            let (prompt, progress) = (prompt.map(String::from), &mut |_: &[_], _, _| Ok(()));
            let options = Options { language: Some("en".into()), temperatures: vec![0.0], ..greedy() };
            let job = Transcribe { model: None, audio: audio.into(), prompt, options, progress };
            engine.run(job, Deadline::NONE).unwrap().transcript
        };
        let expected = |what: &str| reference[name][what]["text"].as_str().unwrap().to_string();
        let prompted = run(audio("jfk.flac"), Some("A speech of 1961."));
        assert_eq!(prompted.text(), expected("prompted"), "{name}");
        let found = run(repeated.clone(), None);
        println!("{name}: {}", found.text());
        let (found, expected) = (words(&found.text()), words(&expected("repeated")));
        let again = if is_avx2() { found.len().saturating_sub(expected.len()).min(AVX2_WORDS_AGAIN) } else { 0 };
        assert_eq!(found[..found.len() - again], expected, "{name}");
    }
}

/// Whether this machine has AVX2 and nothing after it.
fn is_avx2() -> bool {
    Isa::detect().as_str() == "avx2"
}

fn words(text: &str) -> Vec<String> {
    let plain = |w: &str| w.chars().filter(|c| c.is_alphanumeric()).collect::<String>().to_lowercase();
    text.split_whitespace().map(plain).filter(|w| !w.is_empty()).collect()
}

fn sets() -> Vec<Isa> {
    Isa::available().into_iter().filter(|isa| isa.as_str() != "scalar").collect()
}

#[test]
#[ignore = "needs the weights that tests/run gets"]
fn the_text_is_that_of_float32() {
    let goldens = json("transcripts.json");
    for (model, expected) in goldens.as_object().unwrap() {
        for isa in sets() {
            let found = transcribe(&engine(model, isa, 2), audio("jfk.flac"), greedy()).unwrap().transcript;
            let segments = expected["segments"].as_array().unwrap();
            let text: String = segments.iter().map(|s| s["text"].as_str().unwrap()).collect();
            let what = format!("{model} on {}", isa.as_str());
            println!("{what}: {:?}", found.text());
            assert_eq!(words(&found.text()), words(&text), "{what}");
            assert_eq!(found.language, expected["language"].as_str().unwrap(), "{what}");
            assert_eq!(found.segments.len(), segments.len(), "{what}");
            for (found, expected) in found.segments.iter().zip(segments) {
                let off = |found: f32, name: &str| (found as f64 - expected[name].as_f64().unwrap()).abs();
                assert!(off(found.log_probability, "avg_logprob") < LOG_PROBABILITY_ERROR, "{what}: {found:?}");
                assert!(off(found.no_speech, "no_speech_prob") < 0.05, "{what}: {found:?}");
                assert!(off(found.start, "start") < MOMENT_ERROR && off(found.end, "end") < MOMENT_ERROR, "{found:?}");
            }
        }
    }
}

#[test]
#[ignore = "needs the weights that tests/run gets"]
fn threads_and_sets_give_the_same_transcript() {
    let run = |isa, threads| {
        transcribe(&engine("whisper-tiny.en", isa, threads), audio("jfk.flac"), greedy()).unwrap().transcript
    };
    let expected = run(Isa::detect(), 1);
    for isa in sets().into_iter().filter(|isa| isa.as_str() != "avx2") {
        assert_eq!(run(isa, 2), expected, "{}", isa.as_str());
    }
}

/// Where words begin and end, by float32 decoding and openai/whisper's way of finding it.
#[test]
#[ignore = "needs the weights that tests/run gets"]
fn words_are_where_float32_finds_them() {
    let goldens = json("transcripts.json");
    for (model, expected) in goldens.as_object().unwrap() {
        let run =
            |options| transcribe(&engine(model, Isa::detect(), 2), audio("jfk.flac"), options).unwrap().transcript;
        let found = run(Options { words: true, ..greedy() });
        assert_eq!(found.text(), run(greedy()).text());
        let segments = found.segments.iter().map(|s| (&s.words, s.start, s.end));
        for (words, start, end) in segments.clone() {
            // A segment's own moments hold against a word at its end that is too long.
            assert!(words.first().is_some_and(|w| (w.start - start).abs() <= 0.5), "{words:?} {start}");
            assert!(words.last().is_some_and(|w| (w.end - end).abs() <= 0.5), "{words:?} {end}");
        }
        let words: Vec<_> =
            segments.flat_map(|(words, ..)| words.iter().enumerate().map(|(i, w)| (w, i + 1 == words.len()))).collect();
        let expected = expected["words"].as_array().unwrap();
        let word_error = if is_avx2() { AVX2_WORD_ERROR } else { WORD_ERROR };
        assert_eq!(words.len(), expected.len(), "{model}");
        for ((word, is_last), expected) in words.iter().zip(expected) {
            let off = |found: f32, name: &str| (found as f64 - expected[name].as_f64().unwrap()).abs();
            assert!(off(word.start, "start") <= word_error, "{model}: {word:?} {expected}");
            // The last word of a segment ends with it, at a moment that the model writes.
            assert!(
                off(word.end, "end") <= if *is_last { MOMENT_ERROR.max(word_error) } else { word_error },
                "{model}: {word:?} {expected}"
            );
        }
        assert!(words.windows(2).all(|w| w[0].0.end <= w[1].0.start + 1e-6), "{words:?}");
    }
}

/// From a recording to what an index takes, in one call.
#[test]
#[ignore = "needs the weights that tests/run gets"]
fn the_command_line_writes_documents_with_vectors() {
    let file = tests().join("fixtures/audio/jfk.flac").display().to_string();
    let run = |more: &[&str]| {
        let arguments = ["transcribe", "--model", "whisper-tiny.en", "--embed", &file];
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tealight"));
        command.args(arguments).args(more).output().unwrap()
    };
    let good = |more: &[&str]| {
        let output = run(more);
        assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let lines = String::from_utf8(good(&[])).unwrap();
    let documents: Vec<Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(documents.len(), 2);
    assert_eq!(documents[1]["id"], format!("{file}#1"));
    assert!(documents[0]["text"].as_str().unwrap().contains("fellow Americans"));
    assert!(documents[0]["metadata"]["end"].as_f64() <= documents[1]["metadata"]["start"].as_f64());
    let vector: Vec<f64> = documents[0]["embedding"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    assert!(vector.len() == 384 && (vector.iter().map(|v| v * v).sum::<f64>() - 1.0).abs() < 1e-5);
    assert_eq!(serde_json::from_slice::<Vec<Value>>(&good(&["--format", "json"])).unwrap(), documents);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vectors.npy").display().to_string();
    good(&["--format", "npy", "--encoding", "int8", "--dimensions", "64", "--output", &path]);
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
#[ignore = "needs the weights that tests/run gets"]
fn the_command_line_goes_on_behind_a_file_that_cannot_be_read() {
    let file = tests().join("fixtures/audio/jfk.flac").display().to_string();
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
    let (code, once, told) = run(&[&file], b"");
    assert!(code == Some(0) && once.contains("fellow Americans") && told.is_empty(), "{told}");
    let (code, twice, told) = run(&[&file, "nothing.wav", &file], b"");
    assert_eq!((code, twice), (Some(1), once.repeat(2)));
    assert!(told.contains("nothing.wav") && told.contains("1 of 3 files") && told.lines().count() == 2, "{told}");
    let (code, _, told) = run(&["--embed", "--output", &path, "nothing.wav", &file], b"");
    assert_eq!((code, std::fs::read_to_string(&path).unwrap().lines().count()), (Some(1), 2), "{told}");
    let (code, _, told) = run(&["--output", &path, "nothing.wav"], b"");
    assert!(code == Some(1) && told.matches("nothing.wav").count() == 1, "{told}");
    assert_eq!(run(&["-"], &audio("jfk.flac")), (Some(0), once, String::new()));
    let (code, out, told) = run(&["--word-timestamps", &file], b"");
    assert!(code != Some(0) && out.is_empty() && told.contains("verbose_json"), "{told}");
}

fn hub_folder(name: &str) -> PathBuf {
    tealight::engine::model_path::resolve_any(&Config::from_lookup(|_| None).unwrap(), name).unwrap()
}

#[test]
#[ignore = "needs the weights that tests/run gets"]
fn a_packed_model_hears_the_same_and_a_damaged_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (path, again) = (folder.path().join("tiny.gguf"), folder.path().join("again.gguf"));
    let source = hub_folder("whisper-tiny.en");
    let labels = PackMetadata { name: Some("tiny".into()), ..PackMetadata::default() };
    for path in [&path, &again] {
        whisper::pack(&CpuContext::new(Isa::detect(), 2), &source, &labels, path).unwrap();
    }
    let bytes = std::fs::read(&path).unwrap();
    assert!(bytes == std::fs::read(&again).unwrap(), "equal input, equal bytes");
    assert!(whisper::is_whisper(&path) && whisper::is_whisper(&source) && !whisper::is_whisper(folder.path()));
    let run = |model: &str| {
        let progress = &mut |_: &[_], _, _| Ok(());
        let prompt = Some("Ask not.".to_string());
        let job = Transcribe { model: None, audio: audio("jfk.flac").into(), prompt, options: greedy(), progress };
        engine(model, Isa::detect(), 2).run(job, Deadline::NONE).unwrap().transcript
    };
    assert_eq!(run(&path.display().to_string()), run("whisper-tiny.en"));
    assert!(
        whisper::pack(&CpuContext::new(Isa::detect(), 1), &path, &labels, &again)
            .unwrap_err()
            .message
            .contains("packed already")
    );
    let damaged = folder.path().join("damaged.gguf");
    let refused = |bytes: &[u8]| {
        std::fs::write(&damaged, bytes).unwrap();
        let error = Whisper::load(&CpuContext::new(Isa::detect(), 1), &damaged).unwrap_err();
        assert!(error.kind == ErrorKind::ModelLoad && error.message.contains("damaged.gguf"), "{error:?}");
    };
    for length in [1, 100, 5_000, bytes.len() / 2, bytes.len() - 200] {
        refused(&bytes[..length]);
    }
    let find = |text: &str| bytes.windows(text.len()).position(|w| w == text.as_bytes()).unwrap();
    for (text, instead) in
        [("\"width\":384", "\"width\":385"), ("\"heads\":6", "\"heads\":0"), ("\"end\":50256", "\"end\":99999")]
    {
        let mut bytes = bytes.clone();
        let at = find(text);
        bytes[at..at + text.len()].copy_from_slice(instead.as_bytes());
        refused(&bytes);
    }
}

#[test]
#[ignore = "needs the weights that tests/run gets"]
fn a_damaged_folder_is_refused() {
    let source = hub_folder("whisper-tiny.en");
    let folder = tempfile::tempdir().unwrap();
    let refused = |what: &str, word: &str| {
        let error = Whisper::load(&CpuContext::new(Isa::detect(), 1), folder.path()).unwrap_err();
        assert!(error.message.contains(word), "{what}: {error:?}");
    };
    refused("an empty folder", "config.json");
    std::fs::copy(source.join("config.json"), folder.path().join("config.json")).unwrap();
    refused("no weights", "model.bin");
    let weights = std::fs::read(source.join("model.bin")).unwrap();
    let write = |bytes: &[u8]| std::fs::write(folder.path().join("model.bin"), bytes).unwrap();
    for length in [3, 11, 30, 1000, weights.len() / 2] {
        write(&weights[..length]);
        refused("a part of the weights", "needs");
    }
    write(&[&7u32.to_le_bytes(), &weights[4..]].concat());
    refused("another version", "version 7");
    write(&weights);
    refused("no tokenizer", "tokenizer.json");
    std::fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    refused("no vocabulary", "tokenizer.json");
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

fn noise(count: usize, loudness: f32) -> impl Iterator<Item = f32> {
    let mut state = 1u64;
    (0..count).map(move |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * loudness
    })
}

#[test]
#[ignore = "needs the weights that tests/run gets"]
fn silence_has_no_text_and_nothing_loops() {
    let engine = engine("whisper-tiny.en", Isa::detect(), 2);
    let tone = |hertz: f32| (0..8 * 16_000).map(move |i| 0.3 * (i as f32 * hertz * TAU / 16_000.0).sin());
    let chord = (0..20 * 16_000).map(|i| {
        let tone = |hertz: f32| (i as f32 * hertz * TAU / 16_000.0).sin();
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
    for (what, bytes, longest) in sounds {
        let found = transcribe(&engine, bytes, greedy()).unwrap().transcript;
        println!("{what}: {:?}", found.text());
        assert!(found.text().len() <= longest, "{what}: {:?}", found.text());
        assert!(found.segments.iter().all(|s| s.start < s.end && s.end <= found.duration + 0.02), "{what}: {found:?}");
    }
}

/// Three minutes: windows follow one another, moments grow and stay inside the recording.
#[test]
#[ignore = "needs the weights that tests/run gets"]
fn a_long_recording_is_transcribed_window_by_window() {
    let speech = samples("jfk.flac");
    let length = 16.0 * speech.len() as f32 / 16_000.0;
    let repeated = wav(std::iter::repeat_n(speech, 16).flatten());
    let engine = engine("whisper-tiny.en", Isa::detect(), 2);
    let (mut heard, mut last) = (vec![], 0.0);
    let job = Transcribe {
        model: None,
        audio: repeated.into(),
        prompt: Some("A speech.".into()),
        options: greedy(),
        progress: &mut |segments, done, seconds| {
            // At first the recording is only gone through.
            if seconds == 0.0 {
                return Ok(());
            }
            assert!(done > last && done <= seconds);
            last = done;
            heard.extend_from_slice(segments);
            Ok(())
        },
    };
    let said = engine.run(job, Deadline::NONE).unwrap();
    assert_eq!(said.transcript.segments, heard);
    assert!((said.transcript.duration - length).abs() < 0.001, "{}", said.transcript.duration);
    assert!((last - length).abs() < 0.01, "{last}");
    let moments: Vec<f32> = heard.iter().flat_map(|s| [s.start, s.end]).collect();
    assert!(moments.is_sorted() && moments.iter().all(|m| *m <= length + 0.02), "{moments:?}");
    let count = words(&said.transcript.text()).iter().filter(|w| *w == "americans").count();
    assert!((14..=18).contains(&count), "{count} of 16: {}", said.transcript.text());
}

#[test]
#[ignore = "needs the weights that tests/run gets"]
fn languages_tasks_and_beams() {
    let base = engine("whisper-base", Isa::detect(), 2);
    let run = |options: Options| transcribe(&base, audio("jfk.flac"), options);
    let wrong = run(Options { language: Some("xx".into()), ..greedy() }).unwrap_err();
    assert!(wrong.param.as_deref() == Some("language") && wrong.message.contains("de"), "{wrong:?}");
    let german = run(Options { language: Some("de".into()), ..greedy() }).unwrap().transcript;
    assert!(german.language == "de" && german.text() != run(greedy()).unwrap().transcript.text());
    let english = run(Options { task: Task::Translate, ..greedy() }).unwrap().transcript;
    assert!(words(&english.text()).contains(&"country".to_string()));
    let beams = run(Options { beams: 5, ..greedy() }).unwrap().transcript;
    let plain = run(greedy()).unwrap().transcript;
    let set = |t: &str| words(t).into_iter().collect::<BTreeSet<_>>();
    assert_eq!(set(&beams.text()), set(&plain.text()));
    let english_only = engine("whisper-tiny.en", Isa::detect(), 1);
    let error = transcribe(&english_only, audio("jfk.flac"), Options { language: Some("de".into()), ..greedy() });
    assert!(error.unwrap_err().message.contains("en only"));
    let error = transcribe(&english_only, audio("jfk.flac"), Options { task: Task::Translate, ..greedy() });
    assert!(error.unwrap_err().message.contains("multilingual"));
    // Drawn at random it is less likely than what is heard, and is what was asked for.
    let hot = Options { temperatures: vec![1.0], language: Some("en".into()), ..greedy() };
    let short = transcribe(&english_only, audio("speech.mp3"), hot).unwrap().transcript;
    assert!(!short.text().is_empty());
    assert_eq!(["en-US", "German", "pt_br", "xx-YY"].map(language_code), ["en", "de", "pt", "xx-yy"]);
}
