//! Names of unsupported codecs and file formats, so that errors can name them.

use symphonia::core::codecs::audio::AudioCodecId;
use symphonia::core::codecs::audio::well_known::*;

/// Codecs for which no decoder can be created, in supported containers. FLAC is supported, but creating its decoder fails if the
/// header is invalid, and the error then names it.
const CODECS: [(AudioCodecId, &str); 14] = [
    (CODEC_ID_FLAC, "FLAC"),
    (CODEC_ID_AC3, "AC-3"),
    (CODEC_ID_EAC3, "E-AC-3"),
    (CODEC_ID_AC4, "AC-4"),
    (CODEC_ID_TRUEHD, "TrueHD"),
    (CODEC_ID_DCA, "DTS"),
    (CODEC_ID_WMA, "WMA"),
    (CODEC_ID_SPEEX, "Speex"),
    (CODEC_ID_WAVPACK, "WavPack"),
    (CODEC_ID_TTA, "True Audio"),
    (CODEC_ID_MONKEYS_AUDIO, "Monkey's Audio"),
    (CODEC_ID_MUSEPACK, "Musepack"),
    (CODEC_ID_ADPCM_G722, "G.722"),
    (CODEC_ID_ADPCM_G726, "G.726"),
];

/// (offset, magic number, name) of unsupported file formats.
const FILE_FORMATS: [(usize, &[u8], &str); 10] = [
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "WMA or another Windows Media file"),
    (0, b"#!AMR", "AMR"),
    (0, b"wvpk", "WavPack"),
    (0, b"TTA1", "True Audio"),
    (0, b"MAC ", "Monkey's Audio"),
    (0, b"caff", "CAF"),
    (0, b".snd", "AU"),
    (0, b"riff", "Wave64"),
    (8, b"AVI ", "AVI"),
    (0, b"FLV", "Flash Video"),
];

/// WAV format tags that Symphonia does not support.
const WAV_FORMATS: [(u16, &str); 3] = [(0x31, "GSM 6.10"), (0x42, "G.723"), (0x161, "WMA")];

/// The name of a codec, or its id if the table lacks it.
pub(crate) fn codec_name(id: AudioCodecId) -> String {
    CODECS.iter().find(|(known, _)| *known == id).map_or_else(|| id.to_string(), |(_, name)| name.to_string())
}

/// The name of an unsupported file format, recognized by its first bytes.
pub(crate) fn file_format(bytes: &[u8]) -> Option<String> {
    if bytes.get(8..16) == Some(b"WAVEfmt ") {
        let format = u16::from_le_bytes([*bytes.get(20)?, *bytes.get(21)?]);
        let (_, name) = WAV_FORMATS.iter().find(|(known, _)| *known == format)?;
        return Some(format!("{name} in WAV"));
    }
    let matches = |offset: usize, magic: &[u8]| bytes.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    FILE_FORMATS.iter().find(|(offset, magic, _)| matches(*offset, magic)).map(|(_, _, name)| name.to_string())
}
