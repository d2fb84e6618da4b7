//! Spectrograms, audio features, logits and tokens of Whisper against independent implementations (tests/goldens/whisper/make.py),
//! and corrupt model files.
//!
//! Tests that need weights are ignored by default; tests/check_speech downloads them to HF_HOME and runs these tests.

use crate::recordings::{audio, converted_models_folder, golden_json, integers, speech_in_noise, tests_folder};
use crate::support::simd_isas;
use std::path::{Path, PathBuf};
use tealight_audio::{Recording, VadOptions};
use tealight_core::ErrorKind;
use tealight_kernels::{CpuContext, Isa};
use tealight_models::families::whisper::{N_FRAMES, Whisper};
use tealight_models::tasks::transcribe::{SampleBlocks, WindowReader};
use tealight_models::tokenizer::EmbeddingTokenizer;

/// Maximum difference of a log-mel value from float64.
const MEL_ERROR: f32 = 1e-4;
/// Minimum cosine similarity of audio features to float64.
const FEATURES_COSINE: f64 = 0.99;
/// Maximum root mean square difference of logits from float64: of the 20 highest at each step, relative to their mean.
const LOGITS_ERROR: f64 = 0.2;
/// Minimum cosine similarity of features and logits of random networks.
const RANDOM_COSINE: f64 = 0.999;

fn windows(file: Vec<u8>) -> WindowReader {
    let recording = Recording::open(file.into()).unwrap();
    WindowReader::new(80, None, || Ok(Box::new(recording.samples(Isa::detect())?) as SampleBlocks), || Ok(())).unwrap()
}

/// The rows of a version-1 `.npy` file of float32.
fn read_npy(path: &Path, columns: usize) -> Vec<Vec<f32>> {
    let bytes = std::fs::read(path).unwrap();
    let header = u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
    let values: Vec<f32> = bytes[10 + header..].as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    values.chunks_exact(columns).map(<[f32]>::to_vec).collect()
}

fn golden(name: &str, columns: usize) -> Vec<Vec<f32>> {
    read_npy(&tests_folder().join("goldens/whisper").join(name), columns)
}

/// Folder of a model in the hub cache.
fn model_folder(name: &str) -> PathBuf {
    let cache = std::env::var_os("HF_HOME").map_or_else(|| tests_folder().join("../target/hf"), PathBuf::from);
    let repository = cache.join("hub").join(format!("models--Systran--faster-whisper-{name}"));
    let revision = std::fs::read_to_string(repository.join("refs/main")).unwrap();
    repository.join("snapshots").join(revision.trim())
}

fn models() -> [(&'static str, PathBuf); 2] {
    ["tiny.en", "base"].map(|name| (name, model_folder(name)))
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| *a as f64 * *b as f64).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn spectrogram_matches_float64_reference() {
    for (name, golden_name, step, frames) in [("speech", "mel.npy", 10, 150), ("jfk", "jfk-mel.npy", 50, 1099)] {
        let mut recording = windows(audio(&format!("{name}.flac")));
        assert_eq!(recording.frame_count(), frames);
        let window = recording.read_window(0, N_FRAMES).unwrap().mel;
        for (i, expected) in golden(golden_name, 80).iter().enumerate().take(frames / step) {
            for (found, expected) in window[80 * step * i..].iter().zip(expected) {
                assert!((found - expected).abs() < MEL_ERROR, "{name}, frame {}: {found} {expected}", step * i);
            }
        }
        assert!(window[frames * 80..].iter().all(|v| *v == 0.0));
    }
}

#[test]
fn window_is_independent_of_previous_windows() {
    let whole = windows(audio("jfk.flac")).read_window(0, N_FRAMES).unwrap().mel;
    let mut recording = windows(audio("jfk.flac"));
    for seek in [0, 7, 500, 1099] {
        let window = recording.read_window(seek, N_FRAMES).unwrap().mel;
        let remaining = (1100 - seek) * 80;
        assert_eq!(window[..remaining], whole[seek * 80..][..remaining], "from {seek}");
        assert!(window[remaining..].iter().all(|v| *v == 0.0));
    }
    assert!(recording.read_window(3, N_FRAMES).is_err());
}

#[test]
fn vad_finds_speech_between_noise_and_silence() {
    let samples = speech_in_noise();
    let speech_ranges = |vad, samples: &[f32]| {
        let decode = || {
            let blocks: Vec<_> = samples.chunks(777).map(|block| Ok(block.to_vec())).collect();
            Ok(Box::new(blocks.into_iter()) as SampleBlocks)
        };
        WindowReader::new(80, vad, decode, || Ok(())).unwrap().speech_ranges()
    };
    let ranges = speech_ranges(Some(VadOptions::default()), &samples);
    println!("{ranges:?}");
    // The detector reacts late to the end of speech.
    let near = |frame: usize, seconds: usize| frame.abs_diff(seconds * 100) < 250;
    assert!(
        matches!(&ranges[..], [a, b] if near(a.start, 5) && near(a.end, 16) && near(b.start, 34) && near(b.end, 45))
    );
    assert!(speech_ranges(None, &samples).into_iter().eq(std::iter::once(0..samples.len() / 160)));
    assert!(speech_ranges(Some(VadOptions::default()), &samples[..4 * 16_000]).is_empty());
    // Speech that fits into one window is one range.
    let short = VadOptions { min_silence_duration: 0.1, speech_pad: 0.1, ..VadOptions::default() };
    assert_eq!(speech_ranges(Some(short), &samples[..20 * 16_000]).len(), 1);
    assert!(speech_ranges(Some(VadOptions::default()), &[]).is_empty());
}

/// Features and logits of jfk.flac.
#[test]
#[ignore = "needs weights, see tests/check_speech"]
fn features_and_logits_match_float64_reference() {
    let reference = golden_json("reference.json");
    for (name, path) in models() {
        for isa in simd_isas() {
            let (cpu, label) = (CpuContext::new(isa, 2), format!("{name} on {}", isa.as_str()));
            let model = Whisper::load(&cpu, &path).unwrap();
            let mel = windows(audio("jfk.flac")).read_window(0, N_FRAMES).unwrap().mel;
            let features = model.encode(&cpu, &mel).unwrap();
            let d = model.config.d_model;
            let expected = golden(&format!("features-{name}.npy"), d);
            let rows = features.chunks_exact(d).step_by(100);
            let min_cosine = rows.zip(&expected).map(|(row, expected)| cosine(row, expected)).fold(1.0, f64::min);
            let expected = &reference[format!("whisper-{name}")]["logits"];
            let logits = model.logits(&cpu, &features, &integers::<u32>(&expected["tokens"])).unwrap();
            let (mut squares, mut count, mut first_matches) = (0.0, 0, 0);
            for (row, step) in logits.iter().zip(expected["steps"].as_array().unwrap()) {
                let (ids, values) = (integers::<usize>(&step["ids"]), step["values"].as_array().unwrap());
                // A common offset of all logits does not change probabilities.
                let errors = ids.iter().zip(values).map(|(id, v)| row[*id] as f64 - v.as_f64().unwrap());
                let mean = errors.clone().sum::<f64>() / ids.len() as f64;
                squares += errors.map(|v| (v - mean).powi(2)).sum::<f64>();
                count += ids.len();
                let best = (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b]));
                first_matches += usize::from(best == ids.first().copied());
            }
            let rms = (squares / count as f64).sqrt();
            println!("{label}: features {min_cosine:.5}, logits {rms:.3}, {first_matches} of {} first", logits.len());
            assert!(min_cosine > FEATURES_COSINE, "{label}: {min_cosine}");
            assert!(rms < LOGITS_ERROR && first_matches + 1 >= logits.len(), "{label}: {rms} {first_matches}");
        }
    }
}

/// A random network, which has no redundancy, is the hardest to quantize.
#[test]
#[ignore = "needs weights, see tests/check_speech"]
fn random_model_of_large_v3_layout_matches_float64_reference() {
    let cpu = CpuContext::new(Isa::detect(), 2);
    let model = Whisper::load(&cpu, &converted_models_folder().join("large.bin")).unwrap();
    let config = &model.config;
    let sizes = (config.num_mel_bins, config.encoder_layers, config.decoder_layers, config.vocab_size);
    assert_eq!(sizes, (128, 2, 1, 51_866));
    let languages = &model.tokenizer.languages;
    assert_eq!((languages.len(), languages[0].as_str(), languages[99].as_str()), (100, "en", "yue"));
    let rows = |name: &str, columns| read_npy(&converted_models_folder().join(name), columns);
    let features = model.encode(&cpu, &rows("large-mel.npy", 128).concat()).unwrap();
    let expected = rows("large-features.npy", 128);
    let cosines = features.chunks_exact(128).zip(&expected).map(|(row, expected)| cosine(row, expected));
    let min_features = cosines.fold(1.0, f64::min);
    let tokens = [50_258, 50_358, 50_360, 50_365, 400, 370];
    let logits = model.logits(&cpu, &features, &tokens).unwrap();
    let expected = rows("large-logits.npy", 51_866);
    let cosines = logits.iter().zip(&expected).map(|(row, expected)| cosine(row, expected));
    let min_logits = cosines.fold(1.0, f64::min);
    println!("random network: features {min_features:.5}, logits {min_logits:.5}");
    assert!(min_features > RANDOM_COSINE && min_logits > RANDOM_COSINE);
    assert_eq!(model.logits(&cpu, &features, &[51_866]).unwrap_err().param.as_deref(), Some("tokens"));
    assert!(model.logits(&cpu, &features, &[]).is_err() && model.encode(&cpu, &[0.0; 80]).is_err());
}

#[test]
#[ignore = "needs weights, see tests/check_speech"]
fn corrupt_whisper_cpp_file_is_rejected() {
    let bytes = std::fs::read(converted_models_folder().join("q5_0.bin")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.bin");
    let assert_rejected = |bytes: &[u8], word: &str| {
        std::fs::write(&path, bytes).unwrap();
        let error = Whisper::load(&CpuContext::new(Isa::detect(), 1), &path).unwrap_err();
        assert!(error.kind == ErrorKind::ModelLoad && error.message.contains(word), "{word}: {error:?}");
    };
    for length in [4, 20, 60, 5_000, 100_000, 1_000_000, bytes.len() - 7] {
        assert_rejected(&bytes[..length], "");
    }
    let with = |offset: usize, value: u32| [&bytes[..offset], &value.to_le_bytes(), &bytes[offset + 4..]].concat();
    assert_rejected(&with(4, 51_863), "ids");
    assert_rejected(&with(16, 7), "heads");
    assert_rejected(&with(48, u32::MAX), "filters");
    let token_count = 12 * 4 + 8 + 80 * 201 * 4;
    assert_rejected(&with(token_count, u32::MAX), "tokens");
    assert_rejected(&with(token_count + 4, u32::MAX), "token");
}

#[test]
#[ignore = "needs weights, see tests/check_speech"]
fn prompt_tokens_match_hugging_face_tokenizer() {
    let texts = std::fs::read_to_string(tests_folder().join("../crates/tealight-models/src/calibration.txt")).unwrap();
    let others =
        ["", "it's we're I'd  THEY'LL", "a\n\n b\t c   ", "Größe 漢字かな 🎙️ café\u{301} ٣٤ ½", "x=1;  y<<=2 // ..."];
    for (name, path) in models() {
        let model = Whisper::load(&CpuContext::new(Isa::detect(), 2), &path).unwrap();
        let tokenizer = EmbeddingTokenizer::from_json(&std::fs::read(path.join("tokenizer.json")).unwrap()).unwrap();
        for text in texts.lines().chain(others) {
            let expected = tokenizer.encode(&format!(" {}", text.trim())).unwrap();
            assert_eq!(model.encode_prompt(text).unwrap(), expected, "{name}: {text:?}");
        }
        // A very long word is truncated instead of taking quadratic time.
        assert!(model.encode_prompt(&"a".repeat(1 << 20)).unwrap().len() <= 4096);
    }
}

#[test]
#[ignore = "needs weights, see tests/check_speech"]
fn corrupt_model_folder_is_rejected() {
    let source = model_folder("tiny.en");
    let folder = tempfile::tempdir().unwrap();
    let assert_rejected = |case: &str, word: &str| {
        let error = Whisper::load(&CpuContext::new(Isa::detect(), 1), folder.path()).unwrap_err();
        assert!(error.message.contains(word), "{case}: {error:?}");
    };
    assert_rejected("an empty folder", "config.json");
    std::fs::copy(source.join("config.json"), folder.path().join("config.json")).unwrap();
    assert_rejected("no weights", "model.bin");
    let weights = std::fs::read(source.join("model.bin")).unwrap();
    let write = |bytes: &[u8]| std::fs::write(folder.path().join("model.bin"), bytes).unwrap();
    for length in [3, 11, 30, 1000, weights.len() / 2] {
        write(&weights[..length]);
        assert_rejected("truncated weights", "needs");
    }
    write(&[&7u32.to_le_bytes(), &weights[4..]].concat());
    assert_rejected("another version", "version 7");
    write(&weights);
    assert_rejected("no tokenizer", "tokenizer.json");
    std::fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    assert_rejected("no vocabulary", "tokenizer.json");
}
