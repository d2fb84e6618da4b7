//! Encodings of a vector, with the names of Cohere, OpenAI and sentence-transformers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// How a vector is represented in output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, schemars(rename = "Encoding"))]
pub enum VectorEncoding {
    /// A list of numbers.
    #[default]
    Float,
    /// Little-endian f32 in base64.
    Base64,
    /// `round(127 v / max|v|)`, -127 to 127. Each vector has its own scale, which does not change cosine similarities.
    Int8,
    /// The value of `int8` plus 128: 1 to 255.
    Uint8,
    /// One bit per value, 1 if it is positive, the first value in the most significant bit; each byte minus 128, as a signed
    /// number.
    Binary,
    /// The bytes of `binary` as unsigned numbers.
    Ubinary,
}

impl VectorEncoding {
    /// All encodings, in the order of docs/api.md.
    pub const ALL: [VectorEncoding; 6] = [
        VectorEncoding::Float,
        VectorEncoding::Base64,
        VectorEncoding::Int8,
        VectorEncoding::Uint8,
        VectorEncoding::Binary,
        VectorEncoding::Ubinary,
    ];

    /// The name in requests.
    pub fn as_str(self) -> &'static str {
        match self {
            VectorEncoding::Float => "float",
            VectorEncoding::Base64 => "base64",
            VectorEncoding::Int8 => "int8",
            VectorEncoding::Uint8 => "uint8",
            VectorEncoding::Binary => "binary",
            VectorEncoding::Ubinary => "ubinary",
        }
    }
}

/// A vector in one of the encodings, as JSON contains it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Encoded {
    /// `float`.
    Floats(Vec<f32>),
    /// `base64`.
    Base64(String),
    /// `int8`, `uint8`, `binary`, `ubinary`.
    Integers(Vec<i16>),
}

/// Encodes a vector. For `int8` and `uint8` also returns the scale for decoding:
/// `v = scale * code`, or `scale * (code - 128)` for `uint8`.
pub fn encode(vector: Vec<f32>, encoding: VectorEncoding) -> (Encoded, Option<f32>) {
    match encoding {
        VectorEncoding::Float => (Encoded::Floats(vector), None),
        VectorEncoding::Base64 => {
            let bytes: Vec<u8> = vector.iter().flat_map(|v| v.to_le_bytes()).collect();
            (Encoded::Base64(STANDARD.encode(bytes)), None)
        }
        VectorEncoding::Int8 => int8(&vector, 0),
        VectorEncoding::Uint8 => int8(&vector, 128),
        VectorEncoding::Binary => (bits(&vector, -128), None),
        VectorEncoding::Ubinary => (bits(&vector, 0), None),
    }
}

fn int8(vector: &[f32], offset: i16) -> (Encoded, Option<f32>) {
    let scale = vector.iter().fold(0.0f32, |m, v| m.max(v.abs())) / 127.0;
    let code = |v: &f32| if scale == 0.0 { 0 } else { (v / scale).round() as i16 };
    let codes = vector.iter().map(|v| code(v) + offset).collect();
    (Encoded::Integers(codes), Some(scale))
}

/// As `numpy.packbits(v > 0)`: the last byte is padded with zero bits.
fn bits(vector: &[f32], offset: i16) -> Encoded {
    let byte = |values: &[f32]| {
        let set = |(i, v): (usize, &f32)| if *v > 0.0 { 0x80 >> i } else { 0 };
        values.iter().enumerate().map(set).sum::<i16>()
    };
    Encoded::Integers(vector.chunks(8).map(|c| byte(c) + offset).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const VECTOR: [f32; 9] = [0.5, -1.0, 0.25, 0.0, 1e-9, -0.1, 0.3, 0.9, 0.2];

    #[test]
    fn int8_maps_largest_value_to_127_and_returns_scale() {
        let (codes, scale) = encode(VECTOR.to_vec(), VectorEncoding::Int8);
        assert_eq!(codes, Encoded::Integers(vec![64, -127, 32, 0, 0, -13, 38, 114, 25]));
        assert_eq!(scale, Some(1.0 / 127.0));
        let (codes, _) = encode(VECTOR.to_vec(), VectorEncoding::Uint8);
        assert_eq!(codes, Encoded::Integers(vec![192, 1, 160, 128, 128, 115, 166, 242, 153]));
        assert_eq!(encode(vec![0.0; 2], VectorEncoding::Int8).0, Encoded::Integers(vec![0, 0]));
    }

    /// Expected values are `numpy.packbits(v > 0)` and `numpy.packbits(v > 0) - 128`.
    #[test]
    fn bits_equal_numpy_packbits() {
        assert_eq!(
            encode(VECTOR.to_vec(), VectorEncoding::Ubinary).0,
            Encoded::Integers(vec![0b1010_1011, 0b1000_0000])
        );
        assert_eq!(encode(VECTOR.to_vec(), VectorEncoding::Binary).0, Encoded::Integers(vec![43, 0]));
    }

    #[test]
    fn base64_is_little_endian_f32() {
        assert_eq!(encode(vec![1.0, -2.5], VectorEncoding::Base64).0, Encoded::Base64("AACAPwAAIMA=".into()));
    }
}
