//! Damage to a file, with checksums that reveal it or that match it.

use arbitrary::Arbitrary;
use serde_json::Value;

const PREAMBLE_BYTES: usize = 64;
const CHECKSUM_BLOCK: usize = 1 << 16;

/// Offsets and indices are taken modulo the available size.
#[derive(Debug, Arbitrary)]
pub enum Damage {
    /// Replaces a byte of the file.
    Byte(u32, u8),
    /// Replaces four bytes of the body, with matching checksums.
    Word(u32, u32),
    /// Replaces a number of the header, with matching checksums.
    Number(u8, u64),
    /// Adds to a number of the header, with matching checksums.
    Add(u8, i8),
    /// Truncates the body, with matching checksums.
    ShortBody(u16),
    /// Truncates the file.
    Truncate(u16),
    /// Appends bytes.
    Append(Vec<u8>),
}

pub fn apply(mut file: Vec<u8>, damage: &[Damage]) -> Vec<u8> {
    for damage in damage {
        match damage {
            Damage::Byte(offset, value) => write(&mut file, *offset, &[*value]),
            Damage::Truncate(count) => file.truncate(file.len().saturating_sub(usize::from(*count))),
            Damage::Append(bytes) => file.extend(bytes),
            Damage::Word(offset, value) => {
                edit(&mut file, |_, body| write(body, *offset, &value.to_le_bytes()));
            }
            Damage::ShortBody(count) => {
                edit(&mut file, |_, body| body.truncate(body.len().saturating_sub(usize::from(*count))));
            }
            Damage::Number(index, value) => {
                edit(&mut file, |header, _| edit_number(header, *index, |_| *value));
            }
            Damage::Add(index, summand) => {
                edit(&mut file, |header, _| edit_number(header, *index, |v| v.wrapping_add_signed((*summand).into())));
            }
        }
    }
    file
}

fn write(bytes: &mut [u8], offset: u32, value: &[u8]) {
    let offset = offset as usize % bytes.len().max(1);
    bytes.iter_mut().skip(offset).zip(value).for_each(|(byte, value)| *byte = *value);
}

/// Edits header and body and writes the file again. Does nothing if the file cannot be parsed any more.
fn edit(file: &mut Vec<u8>, edit: impl FnOnce(&mut Value, &mut Vec<u8>)) -> Option<()> {
    let length = u32::from_le_bytes(*file.get(12..)?.first_chunk()?) as usize;
    let header = file.get(PREAMBLE_BYTES..PREAMBLE_BYTES.checked_add(length)?)?;
    let mut header: Value = serde_json::from_slice(header).ok()?;
    let last = header["sections"].as_array()?.last()?;
    let end = usize::try_from(last[1].as_u64()?.checked_add(last[2].as_u64()?)?).ok()?;
    let mut body = file.split_off(file.len().checked_sub(end)?);
    edit(&mut header, &mut body);
    let mut header_and_checksums = serde_json::to_vec(&header).ok()?;
    let length = header_and_checksums.len() as u32;
    header_and_checksums.extend(body.chunks(CHECKSUM_BLOCK).flat_map(|block| crc32fast::hash(block).to_le_bytes()));
    file.truncate(12);
    file.extend(length.to_le_bytes());
    file.extend(crc32fast::hash(&header_and_checksums).to_le_bytes());
    file.resize(PREAMBLE_BYTES, 0);
    file.extend(header_and_checksums);
    file.resize(file.len().next_multiple_of(PREAMBLE_BYTES), 0);
    file.extend(body);
    Some(())
}

/// Edits one of the numbers of a header.
fn edit_number(header: &mut Value, index: u8, edit: impl FnOnce(u64) -> u64) {
    let mut numbers = vec![];
    collect_numbers(header, &mut numbers);
    let index = usize::from(index) % numbers.len().max(1);
    if let Some(number) = numbers.get_mut(index) {
        **number = edit(number.as_u64().unwrap_or_default()).into();
    }
}

fn collect_numbers<'a>(value: &'a mut Value, numbers: &mut Vec<&'a mut Value>) {
    match value {
        Value::Number(_) => numbers.push(value),
        Value::Array(values) => values.iter_mut().for_each(|value| collect_numbers(value, numbers)),
        Value::Object(fields) => fields.values_mut().for_each(|value| collect_numbers(value, numbers)),
        _ => {}
    }
}
