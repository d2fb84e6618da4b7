//! Decodes the same speech in every format and compares it with the lossless original (tests/fixtures/make_audio.py); corrupt
//! files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use bytes::Bytes;
use std::f64::consts::TAU;
use std::path::Path;
use tealight_audio::{Recording, SAMPLE_RATE};
use tealight_core::{Error, ErrorKind};
use tealight_kernels::Isa;

/// Minimum correlation of speech in a lossy codec with the original.
const MIN_CORRELATION: f64 = 0.97;
/// Maximum difference of duration that a codec may cause, in seconds.
const MAX_DURATION_ERROR: f64 = 0.08;

fn fixture(name: &str) -> Bytes {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/audio").join(name)).unwrap().into()
}

fn samples(bytes: impl Into<Bytes>) -> Result<Vec<f32>, Error> {
    Ok(Recording::open(bytes.into())?.samples(Isa::detect())?.collect::<Result<Vec<_>, _>>()?.concat())
}

fn correlation(a: &[f32], b: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(a, b)| *a as f64 * *b as f64).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// A WAV file. Format 1 is integers, 3 floats, 6 A-law, 7 mu-law.
fn wav(format: u16, bits: u16, channels: u16, rate: u32, data: &[u8]) -> Vec<u8> {
    let frame = channels * bits / 8;
    let mut out = b"RIFF".to_vec();
    out.extend((38 + data.len() as u32).to_le_bytes());
    out.extend(b"WAVEfmt ");
    out.extend(18u32.to_le_bytes());
    [format, channels].iter().for_each(|v| out.extend(v.to_le_bytes()));
    [rate, rate.wrapping_mul(frame as u32)].iter().for_each(|v| out.extend(v.to_le_bytes()));
    [frame, bits, 0].iter().for_each(|v| out.extend(v.to_le_bytes()));
    out.extend(b"data");
    out.extend((data.len() as u32).to_le_bytes());
    out.extend(data);
    out
}

fn tone(hz: f64, rate: u32, seconds: f64) -> Vec<f32> {
    let count = (rate as f64 * seconds) as usize;
    (0..count).map(|i| 0.5 * (TAU * hz * i as f64 / rate as f64).sin() as f32).collect()
}

fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

#[test]
fn supported_codec_matches_lossless_speech_without_delay() {
    let speech = samples(fixture("speech.flac")).unwrap();
    assert_eq!(speech.len(), 24_000);
    // Name, and maximum shift in samples: Matroska rounds delays to milliseconds, and FFmpeg's Vorbis encoder does not
    // declare its delay of half a sample.
    let files = [
        ("speech.mp3", 1),
        ("speech.ogg", 1),
        ("speech.opus.ogg", 1),
        ("speech.opus.webm", 1),
        ("speech.live.webm", 1),
        ("speech.opus51.webm", 1),
        ("speech.opus.mp4", 1),
        ("speech.m4a", 1),
        ("speech.aac.mkv", 8),
        ("speech.aac51.m4a", 1),
        ("speech.ms.wav", 0),
        ("speech.ima.wav", 0),
        ("speech.aiff", 0),
    ];
    for (name, max_shift) in files {
        let found = samples(fixture(name)).unwrap();
        let seconds = (found.len() as f64 - 24_000.0) / SAMPLE_RATE as f64;
        assert!(seconds.abs() < MAX_DURATION_ERROR, "{name} is {seconds} s longer");
        let correlation_at_delay = |by: usize| correlation(&found[by..], &speech);
        let correlation_at_advance = |by: usize| correlation(&found, &speech[by..]);
        let best =
            (0..=max_shift).map(|by| correlation_at_delay(by).max(correlation_at_advance(by))).fold(0.0, f64::max);
        println!("{name}: {} samples, correlation {best:.4}", found.len());
        assert!(best > MIN_CORRELATION, "{name}: correlation {best}");
    }
}

#[test]
fn stream_without_declared_delay_is_at_most_3000_samples_late() {
    let speech = samples(fixture("speech.flac")).unwrap();
    for name in ["speech.aac", "speech.he.aac", "speech.he.m4a", "speech.he2.aac", "speech.mp2", "speech.mp3.wav"] {
        let found = samples(fixture(name)).unwrap();
        let correlation_at_delay = |by: usize| correlation(&found[by..(by + speech.len()).min(found.len())], &speech);
        let (by, best) = (0..3000).map(|by| (by, correlation_at_delay(by))).max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
        println!("{name}: {} samples, {by} late, correlation {best:.4}", found.len());
        assert!(best > MIN_CORRELATION && found.len() < speech.len() + 3000, "{name}: correlation {best}");
    }
}

#[test]
fn rf64_file_is_decoded_as_wav() {
    let tone = tone(440.0, 16_000, 0.5);
    let mut file = wav(3, 32, 1, 16_000, &f32_bytes(&tone));
    // EBU Tech 3306: 32-bit lengths of all ones, and 64-bit lengths in a `ds64` chunk.
    let data = file.len() - 4 * tone.len() - 4;
    file[data..data + 4].fill(0xff);
    file[..4].copy_from_slice(b"RF64");
    file[4..8].fill(0xff);
    let sizes = [&b"ds64"[..], &28u32.to_le_bytes(), &[0; 28]].concat();
    file.splice(12..12, sizes);
    assert_eq!(samples(file).unwrap(), tone);
}

#[test]
fn opus_header_gain_is_applied() {
    let intact = fixture("speech.opus.webm");
    let head = intact.windows(8).position(|w| w == b"OpusHead").unwrap();
    let mut half = intact.to_vec();
    half[head + 16..head + 18].copy_from_slice(&(-1541i16).to_le_bytes());
    let (intact, half) = (samples(intact).unwrap(), samples(half).unwrap());
    assert!(intact.iter().zip(&half).all(|(a, b)| (a - 2.0 * b).abs() < 1e-3));
}

#[test]
fn chained_ogg_streams_are_concatenated() {
    let (first, second) = (fixture("speech.opus.ogg"), fixture("speech.ogg"));
    let (a, b) = (samples(first.clone()).unwrap(), samples(second.clone()).unwrap());
    let both = samples([&first[..], &second[..]].concat()).unwrap();
    assert!(both.starts_with(&a) && both.ends_with(&b) && both.len() == a.len() + b.len());
}

#[test]
fn id3_tag_before_audio_is_skipped() {
    // A picture of 3 MiB that contains what looks like MP3 frames.
    let size = 3 << 20;
    let mut file = b"ID3\x03\0\0".to_vec();
    file.extend([21, 14, 7, 0].map(|shift| (size >> shift) as u8 & 0x7f));
    file.extend([0xff, 0xfb, 0x90, 0x64].repeat(size / 4));
    file.extend(fixture("speech.mp3"));
    assert!(samples(file).unwrap() == samples(fixture("speech.mp3")).unwrap());
}

#[test]
fn huge_and_nan_samples_are_clamped() {
    for extreme in [f32::MAX, f32::NEG_INFINITY, f32::NAN] {
        let mut values = tone(440.0, 44_100, 1.0);
        values.iter_mut().skip(10_000).step_by(5).take(500).for_each(|v| *v = extreme);
        let found = samples(wav(3, 32, 1, 44_100, &f32_bytes(&values))).unwrap();
        assert!(found.len() == SAMPLE_RATE && found.iter().all(|v| v.abs() < 1e5));
    }
}

#[test]
fn wav_sample_formats_decode_to_same_tone() {
    let expected = tone(440.0, 16_000, 0.5);
    let integers = |bits: u32| -> Vec<u8> {
        let scale = (1i64 << (bits - 1)) as f64;
        let bytes = |v: &f32| ((*v as f64 * scale) as i64).to_le_bytes()[..bits as usize / 8].to_vec();
        expected.iter().flat_map(bytes).collect()
    };
    let unsigned: Vec<u8> = expected.iter().map(|v| (v * 128.0 + 128.0) as u8).collect();
    let doubles: Vec<u8> = expected.iter().flat_map(|v| (*v as f64).to_le_bytes()).collect();
    let files = [
        (wav(1, 8, 1, 16_000, &unsigned), 1.0 / 64.0),
        (wav(1, 16, 1, 16_000, &integers(16)), 1e-4),
        (wav(1, 24, 1, 16_000, &integers(24)), 1e-6),
        (wav(1, 32, 1, 16_000, &integers(32)), 1e-6),
        (wav(3, 32, 1, 16_000, &f32_bytes(&expected)), 0.0),
        (wav(3, 64, 1, 16_000, &doubles), 1e-7),
    ];
    for (i, (file, tolerance)) in files.into_iter().enumerate() {
        let found = samples(file).unwrap();
        assert_eq!(found.len(), expected.len(), "file {i}");
        let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= tolerance, "file {i}: off by {worst}");
    }
    // G.711: the codes of the largest and smallest amplitude of each sign.
    let g711 = |format, codes: &[u8]| samples(wav(format, 8, 1, 16_000, &codes.repeat(100))).unwrap()[..4].to_vec();
    let assert_near = |found: Vec<f32>, expected: [f32; 4]| {
        found.iter().zip(expected).for_each(|(a, b)| assert!((a - b).abs() < 1e-3, "{found:?} {expected:?}"));
    };
    assert_near(g711(6, &[0xaa, 0x2a, 0xd5, 0x55]), [0.984, -0.984, 0.0002, -0.0002]);
    assert_near(g711(7, &[0x80, 0x00, 0xff, 0x7f]), [0.980, -0.980, 0.0, 0.0]);
}

#[test]
fn channels_are_averaged() {
    let (left, right) = (tone(300.0, 16_000, 0.2), tone(500.0, 16_000, 0.2));
    let both: Vec<f32> = left.iter().zip(&right).flat_map(|(l, r)| [*l, *r]).collect();
    let found = samples(wav(3, 32, 2, 16_000, &f32_bytes(&both))).unwrap();
    assert_eq!(found.len(), left.len());
    for ((found, l), r) in found.iter().zip(&left).zip(&right) {
        assert!((found - (l + r) / 2.0).abs() < 1e-6);
    }
}

#[test]
fn resampling_keeps_tones_below_8_khz_and_removes_those_above() {
    for rate in [8_000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000] {
        let found = samples(wav(3, 32, 1, rate, &f32_bytes(&tone(1000.0, rate, 1.0)))).unwrap();
        assert!(found.len().abs_diff(SAMPLE_RATE) <= 1, "{rate}: {} samples", found.len());
        let expected = tone(1000.0, SAMPLE_RATE as u32, 1.0);
        // Not at the ends, where the tone starts and stops abruptly.
        for (a, b) in found.iter().zip(&expected).skip(1000).take(14_000) {
            assert!((a - b).abs() < 1e-3 * 0.5, "{rate}: {a} {b}");
        }
    }
    for (rate, hz) in [(44_100, 10_000.0), (48_000, 9_000.0), (96_000, 30_000.0)] {
        let found = samples(wav(3, 32, 1, rate, &f32_bytes(&tone(hz, rate, 1.0)))).unwrap();
        let peak = found[1000..15_000].iter().fold(0.0f32, |m, v| m.max(v.abs()));
        assert!(peak < 0.5e-3, "{hz} Hz at {rate}: {peak}");
    }
}

#[test]
fn resampling_passes_speech_up_to_7600_hz_without_aliasing() {
    let peak = |rate: u32, hz: f64| {
        let found = samples(wav(3, 32, 1, rate, &f32_bytes(&tone(hz, rate, 1.0)))).unwrap();
        found[1000..15_000].iter().fold(0.0f32, |max, v| max.max(v.abs())) / 0.5
    };
    for rate in [22_050, 44_100, 48_000, 44_099] {
        for hz in [50.0, 3000.0, 7000.0, 7600.0] {
            let gain = peak(rate, hz);
            assert!((0.99..1.01).contains(&gain), "{hz} Hz at {rate}: gain {gain}");
        }
        // Above 8 kHz, attenuated by 75 dB at least.
        for hz in [8_010.0, 8_400.0, 10_500.0] {
            let gain = peak(rate, hz);
            assert!(gain < 1.8e-4, "{hz} Hz at {rate}: gain {gain}");
        }
    }
}

#[test]
fn samples_come_in_small_blocks_and_are_repeatable() {
    // Three hours, of which only one block is in memory.
    let seconds = 3 * 3600;
    let recording = Recording::open(wav(1, 8, 1, 8_000, &vec![128; seconds * 8_000]).into()).unwrap();
    let mut total = 0;
    for block in recording.samples(Isa::detect()).unwrap() {
        let block = block.unwrap();
        assert!(block.len() <= 1 << 16 && block.iter().all(|v| v.abs() < 1e-6));
        total += block.len();
    }
    assert_eq!(total, seconds * SAMPLE_RATE);
    let speech = Recording::open(fixture("speech.mp3")).unwrap();
    let all = || speech.samples(Isa::detect()).unwrap().collect::<Result<Vec<_>, _>>().unwrap().concat();
    assert_eq!(all(), all());
}

fn assert_rejected(bytes: impl Into<Bytes>, words: &[&str]) {
    let error = samples(bytes).unwrap_err();
    assert!(
        matches!(error.kind, ErrorKind::InvalidValue | ErrorKind::Empty) && error.param.as_deref() == Some("file"),
        "{error:?}"
    );
    for word in words {
        assert!(error.message.contains(word), "{error:?} does not contain {word:?}");
    }
}

#[test]
fn unsupported_file_is_rejected_by_name() {
    assert_rejected("", &["0 bytes"]);
    assert_rejected("this is text, regardless of the file name", &["not a supported audio file"]);
    assert_rejected(vec![0; 5000], &["not a supported audio file"]);
    assert_rejected(fixture("silent.mp4"), &["no audio track"]);
    assert_rejected(fixture("speech.ac3.mkv"), &["AC-3", "not supported"]);
    assert_rejected(wav(1, 16, 1, 16_000, &[]), &["no audio"]);
    assert_rejected(wav(1, 16, 65, 16_000, &[0; 13_000]), &["channel"]);
    assert_rejected(wav(1, 16, 1, 0, &[0; 2000]), &["file"]);
    assert_rejected(wav(0x31, 16, 1, 16_000, &[0; 2000]), &["GSM 6.10 in WAV"]);
    assert_rejected(wav(0x55, 16, 1, 16_000, &[0; 2000]), &["not a supported audio file"]);
    assert_rejected("#!AMR\n and more", &["AMR", "expected WAV"]);
    assert_rejected(fixture("silent.32.flac"), &["FLAC with 32 bits"]);
    assert_rejected(wav(1, 16, 1, 10, &[0; 2000]), &["sample rate of 10 Hz"]);
    assert_rejected(wav(3, 32, 1, 4_000_000_000, &[0; 2000]), &["sample rate"]);
}

#[test]
fn wrong_length_in_header_never_adds_samples() {
    let tone = tone(440.0, 16_000, 0.5);
    for length in [0u32, 7, 1 << 20, u32::MAX] {
        let mut file = wav(3, 32, 1, 16_000, &f32_bytes(&tone));
        file[42..46].copy_from_slice(&length.to_le_bytes());
        assert!(samples(file).map_or(0, |s| s.len()) <= tone.len(), "{length}");
    }
    let file = wav(3, 32, 1, 16_000, &f32_bytes(&tone));
    let half = samples(file[..file.len() / 2].to_vec()).unwrap();
    assert!(half.len() > tone.len() / 3 && tone.starts_with(&half));
}

#[test]
fn truncated_file_is_decoded_to_its_end() {
    for name in ["speech.mp3", "speech.flac", "speech.opus.ogg", "speech.aac.mkv", "speech.opus.webm", "speech.aac"] {
        let intact = fixture(name);
        let all = samples(intact.clone()).unwrap();
        let part = samples(intact.slice(..intact.len() * 2 / 3)).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        assert!(part.len() > all.len() / 3 && part.len() < all.len(), "{name}: {} of {}", part.len(), all.len());
    }
}

#[test]
fn corrupt_packets_are_skipped() {
    // Without Matroska and WebM, where a corrupt element length ends the stream.
    for name in ["speech.mp3", "speech.flac", "speech.m4a"] {
        let mut bytes = fixture(name).to_vec();
        let all = samples(bytes.clone()).unwrap();
        for at in [bytes.len() / 3, bytes.len() / 2, bytes.len() * 2 / 3] {
            bytes[at..at + 6].fill(0);
        }
        let part = samples(bytes).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        assert!(part.len() > all.len() * 3 / 4 && part.len() <= all.len() * 11 / 10, "{name}: {}", part.len());
    }
}

#[test]
fn corrupt_byte_never_panics() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/audio");
    let names = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    for name in names.filter(|name| name != "jfk.flac") {
        let name = &name;
        let intact = fixture(name);
        let headers = (0..300).step_by(7).chain((300..intact.len()).step_by(intact.len() / 40 + 1));
        for at in headers.filter(|at| *at < intact.len()) {
            let mut bytes = intact.to_vec();
            bytes[at] = !bytes[at];
            let limit = 200 * intact.len();
            assert!(samples(bytes).map_or(0, |s| s.len()) < limit, "{name}: byte {at}");
            let _ = samples(intact.slice(..at));
        }
    }
}
