//! NumPy's `.npy` files: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

use super::encoding::{Encoded, VectorEncoding};
use std::io::Write;

/// NumPy's type of the values of an encoding.
fn descriptor(encoding: VectorEncoding) -> &'static str {
    match encoding {
        VectorEncoding::Float | VectorEncoding::Base64 => "<f4",
        VectorEncoding::Int8 | VectorEncoding::Binary => "|i1",
        VectorEncoding::Uint8 | VectorEncoding::Ubinary => "|u1",
    }
}

/// Writes a matrix `[rows, columns]` with one vector per row.
pub fn write(out: &mut dyn Write, rows: &[Encoded], columns: usize, encoding: VectorEncoding) -> std::io::Result<()> {
    let shape = format!("({}, {columns})", rows.len());
    let text = format!("{{'descr': '{}', 'fortran_order': False, 'shape': {shape}, }}", descriptor(encoding));
    // The header (magic, version, length, text) is padded to a multiple of 64 bytes and ends in a newline.
    let length = (10 + text.len() + 1).next_multiple_of(64) - 10;
    out.write_all(b"\x93NUMPY\x01\x00")?;
    out.write_all(&(length as u16).to_le_bytes())?;
    out.write_all(format!("{text:<width$}\n", width = length - 1).as_bytes())?;
    for row in rows {
        match row {
            Encoded::Floats(values) => values.iter().try_for_each(|v| out.write_all(&v.to_le_bytes()))?,
            Encoded::Integers(values) => values.iter().try_for_each(|v| out.write_all(&[*v as u8]))?,
            Encoded::Base64(_) => return Err(std::io::Error::other("base64 cannot be written as a matrix")),
        }
    }
    Ok(())
}
