//! Validates a graph in usearch's format, major version 2, because usearch follows its links without checking them.
//!
//! ```text
//! rows u32   dimension u32   vectors, row by row
//! "usearch"  version [u16; 3]   kinds [u8; 4]: metric, scalar, key and slot   rows u64   deleted rows u64   dimension u64 ...  (64 bytes)
//! rows u64   links per level u64   links in the lowest level u64   highest level u64   entry point u64
//! levels of the rows i16
//! for each row: key u64   level i16   for each level from the lowest: number of links u32   links u32
//! ```

/// `M` of the paper: links of a row per level; twice as many in the lowest level.
pub(crate) const HNSW_M: usize = 16;
const HEADER_BYTES: usize = 64;
const MAGIC: &[u8] = b"usearch";
const VERSION: u64 = 2;
/// usearch's `metric_kind_t::ip_k`, and `scalar_kind_t::i8_k`, `u64_k` for keys and `u32_k` for slots, which are the row numbers in
/// links.
const KINDS: [u8; 4] = [b'i', 23, 14, 15];

const TRUNCATED: &str = "it is truncated";
const OTHER_ROWS: &str = "its number of rows differs from the index";
const OTHER_DIMENSION: &str = "its dimension differs from the index";
const OTHER_KIND: &str = "it is not an int8 graph";
const OTHER_LINKS: &str = "its number of links per row is unsupported";
const BAD_LEVELS: &str = "its levels are inconsistent";

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn read_bytes(&mut self, count: usize) -> Result<&'a [u8], &'static str> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or(TRUNCATED)?;
        self.0 = rest;
        Ok(bytes)
    }

    /// An unsigned number of `N` bytes.
    fn read_number<const N: usize>(&mut self) -> Result<u64, &'static str> {
        let mut number = [0; 8];
        number[..N].copy_from_slice(self.read_bytes(N)?);
        Ok(u64::from_le_bytes(number))
    }

    fn expect<const N: usize>(&mut self, expected: usize, error: &'static str) -> Result<(), &'static str> {
        if self.read_number::<N>()? == expected as u64 { Ok(()) } else { Err(error) }
    }
}

/// Checks that bytes are a graph of `rows` rows. The error is the reason in "invalid HNSW graph: REASON".
pub(crate) fn check(bytes: &[u8], dimension: usize, rows: usize) -> Result<(), &'static str> {
    let mut reader = Reader(bytes);
    reader.expect::<4>(rows, OTHER_ROWS)?;
    reader.expect::<4>(dimension, OTHER_DIMENSION)?;
    reader.read_bytes(rows.checked_mul(dimension).ok_or(TRUNCATED)?)?;
    check_header(&mut Reader(reader.read_bytes(HEADER_BYTES)?), dimension, rows)?;
    reader.expect::<8>(rows, OTHER_ROWS)?;
    reader.expect::<8>(HNSW_M, OTHER_LINKS)?;
    reader.expect::<8>(2 * HNSW_M, OTHER_LINKS)?;
    let (highest_level, entry_point) = (reader.read_number::<8>()?, reader.read_number::<8>()?);
    let levels = reader.read_bytes(rows.checked_mul(2).ok_or(TRUNCATED)?)?.as_chunks().0;
    let level_of = |row: u64| levels.get(usize::try_from(row).ok()?).map(|level| u64::from(u16::from_le_bytes(*level)));
    if level_of(entry_point).is_none_or(|level| level < highest_level) || highest_level > i16::MAX as u64 {
        return Err("its entry point does not exist");
    }
    for row in 0..rows as u64 {
        check_row(&mut reader, level_of(row).unwrap_or_default(), rows as u64, level_of)?;
    }
    if reader.0.is_empty() { Ok(()) } else { Err("it has extra bytes at its end") }
}

fn check_header(reader: &mut Reader, dimension: usize, rows: usize) -> Result<(), &'static str> {
    if reader.read_bytes(MAGIC.len())? != MAGIC || reader.read_number::<2>()? != VERSION {
        return Err("its version is unsupported");
    }
    reader.read_bytes(4)?;
    if reader.read_bytes(KINDS.len())? != KINDS {
        return Err(OTHER_KIND);
    }
    reader.expect::<8>(rows, OTHER_ROWS)?;
    reader.expect::<8>(0, "it has deleted rows")?;
    reader.expect::<8>(dimension, OTHER_DIMENSION)?;
    reader.expect::<1>(0, OTHER_KIND)
}

/// Checks that a row has the level from the table of levels, and that its links lead to rows that have the level of the link.
fn check_row(
    reader: &mut Reader,
    level: u64,
    rows: u64,
    level_of: impl Fn(u64) -> Option<u64>,
) -> Result<(), &'static str> {
    if reader.read_number::<8>()? >= rows {
        return Err("a key is not a row");
    }
    reader.expect::<2>(level as usize, BAD_LEVELS)?;
    if level > i16::MAX as u64 {
        return Err(BAD_LEVELS);
    }
    for link_level in 0..=level {
        let capacity = if link_level == 0 { 2 * HNSW_M } else { HNSW_M };
        let count = reader.read_number::<4>()? as usize;
        let links = reader.read_bytes(4 * capacity)?.as_chunks().0.get(..count).ok_or("a row has too many links")?;
        let exists =
            |slot: &[u8; 4]| level_of(u32::from_le_bytes(*slot).into()).is_some_and(|level| level >= link_level);
        if !links.iter().all(exists) {
            return Err("a link leads to a row that does not exist in its level");
        }
    }
    Ok(())
}
