//! Whether bytes are a graph in usearch's form, version 2, whose every link leads to a row: usearch follows them without a look.
//!
//! ```text
//! rows u32   values of a row u32   rows, row by row
//! "usearch"  version 3 u16   metric, codes, keys, slots u8   rows u64   rows that were taken out u64   values of a row u64 ...  (64)
//! rows u64   neighbours u64   neighbours in the lowest level u64   highest level u64   where searches begin u64
//! levels of the rows i16
//! for each row: key u64   level i16   for each level from the lowest: how many neighbours u32   neighbours u32
//! ```

use super::hnsw::NEIGHBOURS;

const HEAD: usize = 64;
const MAGIC: &[u8] = b"usearch";
/// Products, of int8, by keys u64, in slots u32.
const KINDS: [u8; 4] = [b'i', 23, 14, 15];

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], &'static str> {
        let (taken, left) = self.0.split_at_checked(count).ok_or("it is cut")?;
        self.0 = left;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<u64, &'static str> {
        let mut number = [0; 8];
        number[..N].copy_from_slice(self.take(N)?);
        Ok(u64::from_le_bytes(number))
    }

    fn is<const N: usize>(&mut self, expected: usize, otherwise: &'static str) -> Result<(), &'static str> {
        if self.number::<N>()? == expected as u64 { Ok(()) } else { Err(otherwise) }
    }
}

/// Checks bytes for a graph of so many rows.
pub(super) fn check(bytes: &[u8], dimension: usize, rows: usize) -> Result<(), &'static str> {
    let mut bytes = Bytes(bytes);
    bytes.is::<4>(rows, "it has other rows")?;
    bytes.is::<4>(dimension, "its rows have other values")?;
    bytes.take(rows.checked_mul(dimension).ok_or("it is cut")?)?;
    head(&mut Bytes(bytes.take(HEAD)?), dimension, rows)?;
    bytes.is::<8>(rows, "it has other rows")?;
    bytes.is::<8>(NEIGHBOURS, "it has other neighbours")?;
    bytes.is::<8>(2 * NEIGHBOURS, "it has other neighbours")?;
    let (highest, first) = (bytes.number::<8>()?, bytes.number::<8>()?);
    let levels = bytes.take(rows.checked_mul(2).ok_or("it is cut")?)?.as_chunks().0;
    let level = |row: u64| levels.get(usize::try_from(row).ok()?).map(|level| u64::from(u16::from_le_bytes(*level)));
    if level(first).is_none_or(|level| level < highest) || highest > i16::MAX as u64 {
        return Err("it begins nowhere");
    }
    for row in 0..rows as u64 {
        node(&mut bytes, level(row).unwrap_or_default(), rows as u64, level)?;
    }
    if bytes.0.is_empty() { Ok(()) } else { Err("something follows it") }
}

fn head(bytes: &mut Bytes, dimension: usize, rows: usize) -> Result<(), &'static str> {
    if bytes.take(MAGIC.len())? != MAGIC || bytes.number::<2>()? != 2 {
        return Err("it is of another version");
    }
    bytes.take(4)?;
    if bytes.take(KINDS.len())? != KINDS {
        return Err("it is of another kind");
    }
    bytes.is::<8>(rows, "it has other rows")?;
    bytes.is::<8>(0, "rows of it were taken out")?;
    bytes.is::<8>(dimension, "its rows have other values")?;
    bytes.is::<1>(0, "it is of another kind")
}

/// Checks a row: it is on the level that is said of it, and its neighbours on a level are there.
fn node(bytes: &mut Bytes, level: u64, rows: u64, level_of: impl Fn(u64) -> Option<u64>) -> Result<(), &'static str> {
    if bytes.number::<8>()? >= rows {
        return Err("it names rows that are not there");
    }
    bytes.is::<2>(level as usize, "levels of it disagree")?;
    if level > i16::MAX as u64 {
        return Err("levels of it disagree");
    }
    for at in 0..=level {
        let most = if at == 0 { 2 * NEIGHBOURS } else { NEIGHBOURS };
        let count = bytes.number::<4>()? as usize;
        let neighbours = bytes.take(4 * most)?.as_chunks().0.get(..count).ok_or("it has too many neighbours")?;
        let is_there = |slot: &[u8; 4]| level_of(u32::from_le_bytes(*slot).into()).is_some_and(|level| level >= at);
        if !neighbours.iter().all(is_there) {
            return Err("it leads to rows that are not there");
        }
    }
    Ok(())
}
