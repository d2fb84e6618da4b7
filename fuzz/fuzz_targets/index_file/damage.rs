//! Damage to a file, with checksums that show it or that fit it.

use arbitrary::Arbitrary;
use serde_json::Value;

const PREAMBLE: usize = 64;
const PIECE: usize = 1 << 16;

/// Places are taken modulo what there is.
#[derive(Debug, Arbitrary)]
pub enum Damage {
    /// A byte of the file.
    Byte(u32, u8),
    /// Four bytes of the body, and checksums that fit.
    Word(u32, u32),
    /// A number of the header, and checksums that fit.
    Number(u8, u64),
    /// A number of the header and one more or less, and checksums that fit.
    Step(u8, i8),
    /// The body's end cut off, and checksums that fit.
    ShortBody(u16),
    /// The file's end cut off.
    Cut(u16),
    /// More at the end.
    More(Vec<u8>),
}

pub fn damaged(mut file: Vec<u8>, damage: &[Damage]) -> Vec<u8> {
    for damage in damage {
        match damage {
            Damage::Byte(at, value) => put(&mut file, *at, &[*value]),
            Damage::Cut(count) => file.truncate(file.len().saturating_sub(usize::from(*count))),
            Damage::More(bytes) => file.extend(bytes),
            Damage::Word(at, value) => {
                inside(&mut file, |_, body| put(body, *at, &value.to_le_bytes()));
            }
            Damage::ShortBody(count) => {
                inside(&mut file, |_, body| body.truncate(body.len().saturating_sub(usize::from(*count))));
            }
            Damage::Number(which, value) => {
                inside(&mut file, |header, _| change(header, *which, |_| *value));
            }
            Damage::Step(which, by) => {
                inside(&mut file, |header, _| change(header, *which, |v| v.wrapping_add_signed((*by).into())));
            }
        }
    }
    file
}

fn put(bytes: &mut [u8], at: u32, value: &[u8]) {
    let at = at as usize % bytes.len().max(1);
    bytes.iter_mut().skip(at).zip(value).for_each(|(byte, value)| *byte = *value);
}

/// Changes header and body, and makes the file of them again; leaves it if it is no file any more.
fn inside(file: &mut Vec<u8>, change: impl FnOnce(&mut Value, &mut Vec<u8>)) -> Option<()> {
    let length = u32::from_le_bytes(*file.get(12..)?.first_chunk()?) as usize;
    let mut header: Value = serde_json::from_slice(file.get(PREAMBLE..PREAMBLE.checked_add(length)?)?).ok()?;
    let last = header["sections"].as_array()?.last()?;
    let end = usize::try_from(last[1].as_u64()?.checked_add(last[2].as_u64()?)?).ok()?;
    let mut body = file.split_off(file.len().checked_sub(end)?);
    change(&mut header, &mut body);
    let mut head = serde_json::to_vec(&header).ok()?;
    let length = head.len() as u32;
    head.extend(body.chunks(PIECE).flat_map(|piece| crc32fast::hash(piece).to_le_bytes()));
    file.truncate(12);
    file.extend(length.to_le_bytes());
    file.extend(crc32fast::hash(&head).to_le_bytes());
    file.resize(PREAMBLE, 0);
    file.extend(head);
    file.resize(file.len().next_multiple_of(PREAMBLE), 0);
    file.extend(body);
    Some(())
}

/// Changes one of the numbers of a header.
fn change(header: &mut Value, which: u8, to: impl FnOnce(u64) -> u64) {
    let mut numbers = vec![];
    collect(header, &mut numbers);
    let which = usize::from(which) % numbers.len().max(1);
    if let Some(number) = numbers.get_mut(which) {
        **number = to(number.as_u64().unwrap_or_default()).into();
    }
}

fn collect<'a>(value: &'a mut Value, numbers: &mut Vec<&'a mut Value>) {
    match value {
        Value::Number(_) => numbers.push(value),
        Value::Array(values) => values.iter_mut().for_each(|value| collect(value, numbers)),
        Value::Object(fields) => fields.values_mut().for_each(|value| collect(value, numbers)),
        _ => {}
    }
}
