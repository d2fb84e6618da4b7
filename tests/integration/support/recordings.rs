//! Recordings and reference results, for speech-to-text tests of several packages.

use std::path::{Path, PathBuf};
use tealight_audio::Recording;

/// The `tests` folder of the workspace.
pub fn tests_folder() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let workspace = package.ancestors().find(|folder| folder.join("tests/fixtures").is_dir());
    workspace.unwrap().join("tests")
}

/// Folder of tiny.en in other formats and of a random model with the sizes of large-v3, both written by tests/whisper_formats.py.
pub fn converted_models_folder() -> PathBuf {
    tests_folder().join("../target/whisper")
}

/// The bytes of an audio file in the fixtures.
pub fn audio(name: &str) -> Vec<u8> {
    std::fs::read(tests_folder().join("fixtures/audio").join(name)).unwrap()
}

/// The samples of an audio file in the fixtures.
pub fn samples(name: &str) -> Vec<f32> {
    let recording = Recording::open(audio(name).into()).unwrap();
    recording.samples(tealight_kernels::Isa::detect()).unwrap().collect::<Result<Vec<_>, _>>().unwrap().concat()
}

/// A reference result in tests/goldens/whisper.
pub fn golden_json(name: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(tests_folder().join("goldens/whisper").join(name)).unwrap()).unwrap()
}

/// The integers of a JSON array.
pub fn integers<T: TryFrom<u64>>(value: &serde_json::Value) -> Vec<T> {
    value.as_array().unwrap().iter().filter_map(|v| T::try_from(v.as_u64()?).ok()).collect()
}

/// White noise, the same each time.
pub fn noise(count: usize, amplitude: f32) -> impl Iterator<Item = f32> {
    let mut state = 1u64;
    (0..count).map(move |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * amplitude
    })
}

/// 45 s: noise, speech from 5 s to 16 s, noise, silence, and the same speech from 34 s.
pub fn speech_in_noise() -> Vec<f32> {
    let speech = samples("jfk.flac");
    let mut all: Vec<f32> = noise(5 * 16_000, 0.05).collect();
    all.extend(&speech);
    all.extend(noise(8 * 16_000, 0.02));
    all.resize(34 * 16_000, 0.0);
    all.extend(&speech);
    all
}
