//! Recordings of every kind against the same speech without loss (tests/fixtures/make_audio.py), and damaged ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use bytes::Bytes;
use std::f64::consts::TAU;
use std::path::Path;
use tealight_audio::{RATE, Recording};
use tealight_core::{Error, ErrorKind};

/// The least correlation of speech in a lossy codec with the speech that went in.
const LOSSY: f64 = 0.97;
/// Seconds that a codec may add or take away at the ends.
const ENDS: f64 = 0.08;

fn fixture(name: &str) -> Bytes {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/audio").join(name)).unwrap().into()
}

fn samples(bytes: impl Into<Bytes>) -> Result<Vec<f32>, Error> {
    Ok(Recording::open(bytes.into())?.samples()?.collect::<Result<Vec<_>, _>>()?.concat())
}

fn correlation(a: &[f32], b: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(a, b)| *a as f64 * *b as f64).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// A WAV file: format 1 is whole numbers, 3 floats, 6 A-law, 7 mu-law.
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

fn tone(hertz: f64, rate: u32, seconds: f64) -> Vec<f32> {
    let count = (rate as f64 * seconds) as usize;
    (0..count).map(|i| 0.5 * (TAU * hertz * i as f64 / rate as f64).sin() as f32).collect()
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

#[test]
fn every_codec_gives_the_speech_at_its_place() {
    let speech = samples(fixture("speech.flac")).unwrap();
    assert_eq!(speech.len(), 24_000);
    // The name, and how many samples it may be early or late: Matroska tells delays in whole milliseconds, and
    // FFmpeg's Vorbis encoder does not tell the half sample of its own.
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
    for (name, most) in files {
        let found = samples(fixture(name)).unwrap();
        let seconds = (found.len() as f64 - 24_000.0) / RATE as f64;
        assert!(seconds.abs() < ENDS, "{name} is {seconds} s longer");
        let late = |by: usize| correlation(&found[by..], &speech);
        let early = |by: usize| correlation(&found, &speech[by..]);
        let best = (0..=most).map(|by| late(by).max(early(by))).fold(0.0, f64::max);
        println!("{name}: {} samples, correlation {best:.4}", found.len());
        assert!(best > LOSSY, "{name}: correlation {best}");
    }
}

#[test]
fn streams_that_say_nothing_of_their_delay_are_heard_a_little_later() {
    let speech = samples(fixture("speech.flac")).unwrap();
    for name in ["speech.aac", "speech.he.aac", "speech.he.m4a", "speech.he2.aac", "speech.mp2", "speech.mp3.wav"] {
        let found = samples(fixture(name)).unwrap();
        let late = |by: usize| correlation(&found[by..(by + speech.len()).min(found.len())], &speech);
        let (by, best) = (0..3000).map(|by| (by, late(by))).max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
        println!("{name}: {} samples, {by} late, correlation {best:.4}", found.len());
        assert!(best > LOSSY && found.len() < speech.len() + 3000, "{name}: correlation {best}");
    }
}

#[test]
fn a_wave_file_of_more_than_four_gigabytes_is_one_all_the_same() {
    let tone = tone(440.0, 16_000, 0.5);
    let mut file = wav(3, 32, 1, 16_000, &floats(&tone));
    // EBU Tech 3306: lengths of all ones, and the true ones in a chunk of their own.
    let data = file.len() - 4 * tone.len() - 4;
    file[data..data + 4].fill(0xff);
    file[..4].copy_from_slice(b"RF64");
    file[4..8].fill(0xff);
    let sizes = [&b"ds64"[..], &28u32.to_le_bytes(), &[0; 28]].concat();
    file.splice(12..12, sizes);
    assert_eq!(samples(file).unwrap(), tone);
}

#[test]
fn opus_has_the_gain_that_its_head_says() {
    let whole = fixture("speech.opus.webm");
    let head = whole.windows(8).position(|w| w == b"OpusHead").unwrap();
    let mut half = whole.to_vec();
    half[head + 16..head + 18].copy_from_slice(&(-1541i16).to_le_bytes());
    let (whole, half) = (samples(whole).unwrap(), samples(half).unwrap());
    assert!(whole.iter().zip(&half).all(|(a, b)| (a - 2.0 * b).abs() < 1e-3));
}

#[test]
fn streams_in_a_chain_follow_each_other() {
    let (first, second) = (fixture("speech.opus.ogg"), fixture("speech.ogg"));
    let (a, b) = (samples(first.clone()).unwrap(), samples(second.clone()).unwrap());
    let both = samples([&first[..], &second[..]].concat()).unwrap();
    assert!(both.starts_with(&a) && both.ends_with(&b) && both.len() == a.len() + b.len());
}

#[test]
fn tags_before_the_audio_are_passed_over() {
    // A picture of 3 MB, with what looks like frames of MP3 in it.
    let size = 3 << 20;
    let mut file = b"ID3\x03\0\0".to_vec();
    file.extend([21, 14, 7, 0].map(|shift| (size >> shift) as u8 & 0x7f));
    file.extend([0xff, 0xfb, 0x90, 0x64].repeat(size / 4));
    file.extend(fixture("speech.mp3"));
    assert!(samples(file).unwrap() == samples(fixture("speech.mp3")).unwrap());
}

#[test]
fn floats_out_of_all_bounds_do_no_harm() {
    for wild in [f32::MAX, f32::NEG_INFINITY, f32::NAN] {
        let mut values = tone(440.0, 44_100, 1.0);
        values.iter_mut().skip(10_000).step_by(5).take(500).for_each(|v| *v = wild);
        let found = samples(wav(3, 32, 1, 44_100, &floats(&values))).unwrap();
        assert!(found.len() == RATE && found.iter().all(|v| v.abs() < 1e5));
    }
}

#[test]
fn every_width_of_wav_gives_the_tone() {
    let expected = tone(440.0, 16_000, 0.5);
    let whole = |bits: u32| -> Vec<u8> {
        let scale = (1i64 << (bits - 1)) as f64;
        let bytes = |v: &f32| ((*v as f64 * scale) as i64).to_le_bytes()[..bits as usize / 8].to_vec();
        expected.iter().flat_map(bytes).collect()
    };
    let unsigned: Vec<u8> = expected.iter().map(|v| (v * 128.0 + 128.0) as u8).collect();
    let doubles: Vec<u8> = expected.iter().flat_map(|v| (*v as f64).to_le_bytes()).collect();
    let files = [
        (wav(1, 8, 1, 16_000, &unsigned), 1.0 / 64.0),
        (wav(1, 16, 1, 16_000, &whole(16)), 1e-4),
        (wav(1, 24, 1, 16_000, &whole(24)), 1e-6),
        (wav(1, 32, 1, 16_000, &whole(32)), 1e-6),
        (wav(3, 32, 1, 16_000, &floats(&expected)), 0.0),
        (wav(3, 64, 1, 16_000, &doubles), 1e-7),
    ];
    for (i, (file, tolerance)) in files.into_iter().enumerate() {
        let found = samples(file).unwrap();
        assert_eq!(found.len(), expected.len(), "file {i}");
        let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= tolerance, "file {i}: off by {worst}");
    }
    // G.711: the loudest and the quietest codes of each sign.
    let law = |format, codes: &[u8]| samples(wav(format, 8, 1, 16_000, &codes.repeat(100))).unwrap()[..4].to_vec();
    let near = |found: Vec<f32>, expected: [f32; 4]| {
        found.iter().zip(expected).for_each(|(a, b)| assert!((a - b).abs() < 1e-3, "{found:?} {expected:?}"));
    };
    near(law(6, &[0xaa, 0x2a, 0xd5, 0x55]), [0.984, -0.984, 0.0002, -0.0002]);
    near(law(7, &[0x80, 0x00, 0xff, 0x7f]), [0.980, -0.980, 0.0, 0.0]);
}

#[test]
fn channels_become_their_mean() {
    let (left, right) = (tone(300.0, 16_000, 0.2), tone(500.0, 16_000, 0.2));
    let both: Vec<f32> = left.iter().zip(&right).flat_map(|(l, r)| [*l, *r]).collect();
    let found = samples(wav(3, 32, 2, 16_000, &floats(&both))).unwrap();
    assert_eq!(found.len(), left.len());
    for ((found, l), r) in found.iter().zip(&left).zip(&right) {
        assert!((found - (l + r) / 2.0).abs() < 1e-6);
    }
}

#[test]
fn every_rate_keeps_what_is_heard_and_nothing_else() {
    for rate in [8_000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000] {
        let found = samples(wav(3, 32, 1, rate, &floats(&tone(1000.0, rate, 1.0)))).unwrap();
        assert!(found.len().abs_diff(RATE) <= 1, "{rate}: {} samples", found.len());
        let expected = tone(1000.0, RATE as u32, 1.0);
        // At the ends the tone begins and ends at once, which no filter can follow.
        for (a, b) in found.iter().zip(&expected).skip(1000).take(14_000) {
            assert!((a - b).abs() < 1e-3 * 0.5, "{rate}: {a} {b}");
        }
    }
    for (rate, hertz) in [(44_100, 10_000.0), (48_000, 9_000.0), (96_000, 30_000.0)] {
        let found = samples(wav(3, 32, 1, rate, &floats(&tone(hertz, rate, 1.0)))).unwrap();
        let loudest = found[1000..15_000].iter().fold(0.0f32, |m, v| m.max(v.abs()));
        assert!(loudest < 0.5e-3, "{hertz} Hz at {rate}: {loudest}");
    }
}

#[test]
fn samples_come_in_small_pieces_and_can_be_had_again() {
    // Three hours, of which no more than a piece is in memory.
    let seconds = 3 * 3600;
    let recording = Recording::open(wav(1, 8, 1, 8_000, &vec![128; seconds * 8_000]).into()).unwrap();
    let mut total = 0;
    for piece in recording.samples().unwrap() {
        let piece = piece.unwrap();
        assert!(piece.len() <= 1 << 16 && piece.iter().all(|v| v.abs() < 1e-6));
        total += piece.len();
    }
    assert_eq!(total, seconds * RATE);
    let speech = Recording::open(fixture("speech.mp3")).unwrap();
    let all = || speech.samples().unwrap().collect::<Result<Vec<_>, _>>().unwrap().concat();
    assert_eq!(all(), all());
}

fn refused(bytes: impl Into<Bytes>, words: &[&str]) {
    let error = samples(bytes).unwrap_err();
    assert!(
        matches!(error.kind, ErrorKind::InvalidValue | ErrorKind::Empty) && error.param.as_deref() == Some("file"),
        "{error:?}"
    );
    for word in words {
        assert!(error.message.contains(word), "{error:?} does not say {word:?}");
    }
}

#[test]
fn what_is_no_recording_is_refused() {
    refused("", &["0 bytes"]);
    refused("this is a text, whatever its file is called", &["no audio that is known"]);
    refused(vec![0; 5000], &["no audio that is known"]);
    refused(fixture("silent.mp4"), &["no audio track"]);
    refused(fixture("speech.ac3.mkv"), &["AC-3", "not decoded"]);
    refused(wav(1, 16, 1, 16_000, &[]), &["no audio"]);
    refused(wav(1, 16, 65, 16_000, &[0; 13_000]), &["channel"]);
    refused(wav(1, 16, 1, 0, &[0; 2000]), &["file"]);
    refused(wav(0x31, 16, 1, 16_000, &[0; 2000]), &["GSM 6.10 in WAV"]);
    refused(wav(0x55, 16, 1, 16_000, &[0; 2000]), &["no audio that is known"]);
    refused("#!AMR\n and more", &["AMR", "not read"]);
    refused(fixture("silent.32.flac"), &["FLAC of 32 bits"]);
    refused(wav(1, 16, 1, 10, &[0; 2000]), &["10 samples a second"]);
    refused(wav(3, 32, 1, 4_000_000_000, &[0; 2000]), &["samples a second"]);
}

#[test]
fn a_header_that_lies_about_its_length_costs_nothing() {
    let tone = tone(440.0, 16_000, 0.5);
    for length in [0u32, 7, 1 << 20, u32::MAX] {
        let mut file = wav(3, 32, 1, 16_000, &floats(&tone));
        file[42..46].copy_from_slice(&length.to_le_bytes());
        // There may be less than there is, and never more.
        assert!(samples(file).map_or(0, |s| s.len()) <= tone.len(), "{length}");
    }
    let file = wav(3, 32, 1, 16_000, &floats(&tone));
    let half = samples(file[..file.len() / 2].to_vec()).unwrap();
    assert!(half.len() > tone.len() / 3 && tone.starts_with(&half));
}

#[test]
fn a_recording_that_is_cut_short_gives_what_it_has() {
    for name in ["speech.mp3", "speech.flac", "speech.opus.ogg", "speech.aac.mkv", "speech.opus.webm", "speech.aac"] {
        let whole = fixture(name);
        let all = samples(whole.clone()).unwrap();
        let part = samples(whole.slice(..whole.len() * 2 / 3)).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        assert!(part.len() > all.len() / 3 && part.len() < all.len(), "{name}: {} of {}", part.len(), all.len());
    }
}

#[test]
fn damage_costs_what_it_hits_and_no_more() {
    // Not Matroska and WebM: what hits one of their lengths ends them.
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
fn no_byte_of_a_recording_makes_a_panic() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/audio");
    let names = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    for name in names.filter(|name| name != "jfk.flac") {
        let name = &name;
        let whole = fixture(name);
        let headers = (0..300).step_by(7).chain((300..whole.len()).step_by(whole.len() / 40 + 1));
        for at in headers.filter(|at| *at < whole.len()) {
            let mut bytes = whole.to_vec();
            bytes[at] = !bytes[at];
            let limit = 200 * whole.len();
            assert!(samples(bytes).map_or(0, |s| s.len()) < limit, "{name}: byte {at}");
            let _ = samples(whole.slice(..at));
        }
    }
}
