//! A graph of neighbours over rows of int8 codes (Malkov and Yashunin 2016, arXiv 1603.09320), by usearch, which is C++: the safe
//! boundary of it. Distances are ours, and the same on every instruction set.

use super::{Isa, graph_validate};
use crate::{Error, Result};
use bytes::Bytes;
use usearch::{Index as Native, IndexOptions, MetricKind, ScalarKind};

/// Neighbours of a row above the lowest level; twice as many there.
pub(super) const NEIGHBOURS: usize = 16;
/// Rows that are looked at while a row is added.
const EXPANSION: usize = 128;
/// Searches at once at most.
const SEARCHES: usize = 256;

/// What is near.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// What has a large product.
    Product,
    /// What has a small distance.
    Distance,
}

/// Rows and their neighbours.
pub struct Graph {
    // Dropped before the bytes that it looks into.
    native: Native,
    dimension: usize,
    _bytes: Bytes,
}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} x {}", self.native.size(), self.dimension)
    }
}

fn failed(what: &'static str) -> impl Fn(String) -> Error {
    move |e| Error::GraphLibrary(format!("a graph cannot be {what}: {e}"))
}

fn native(dimension: usize) -> Result<Native> {
    let options = IndexOptions {
        dimensions: dimension,
        metric: MetricKind::IP,
        quantization: ScalarKind::I8,
        connectivity: NEIGHBOURS,
        expansion_add: EXPANSION,
        expansion_search: 1,
        multi: false,
    };
    Native::new(&options).map_err(|e| failed("made")(e.to_string()))
}

/// Has `native` measure by our kernels.
fn measured(native: &mut Native, isa: Isa, dimension: usize, measure: Measure) {
    native.change_metric::<i8>(Box::new(move |a: *const i8, b: *const i8| {
        // SAFETY: usearch hands rows of a graph of `dimension` values, or a query that it has compared with them in length.
        let (a, b) = unsafe { (std::slice::from_raw_parts(a, dimension), std::slice::from_raw_parts(b, dimension)) };
        match measure {
            Measure::Product => -(product(isa, a, b) as f32),
            Measure::Distance => distance(isa, a, b) as f32,
        }
    }));
}

impl Graph {
    /// An empty one, to which `threads` add so many rows.
    ///
    /// # Errors
    /// There is not enough memory.
    pub fn new(isa: Isa, dimension: usize, measure: Measure, rows: usize, threads: usize) -> Result<Self> {
        let mut native = native(dimension)?;
        measured(&mut native, isa, dimension, measure);
        native.reserve_capacity_and_threads(rows, threads).map_err(|e| failed("made")(e.to_string()))?;
        Ok(Self { native, dimension, _bytes: Bytes::new() })
    }

    /// Adds a row, beside others.
    ///
    /// # Errors
    /// It has another length, it is there, or more are added at once than was said.
    pub fn add(&self, row: u32, codes: &[i8]) -> Result<()> {
        self.native.add(row.into(), codes).map_err(|e| failed("added to")(e.to_string()))
    }

    /// What [`Graph::view`] takes.
    ///
    /// # Errors
    /// None that is known.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.native.serialized_length()];
        self.native.save_to_buffer(&mut bytes).map_err(|e| failed("written")(e.to_string()))?;
        Ok(bytes)
    }

    /// The graph of so many rows that bytes hold, read in place.
    ///
    /// # Errors
    /// [`Error::InvalidGraph`]: they hold none of these, or one that leads outside them.
    pub fn view(isa: Isa, dimension: usize, measure: Measure, rows: usize, bytes: Bytes) -> Result<Self> {
        let damaged = |what: &str| Error::InvalidGraph(format!("the index has a graph that cannot be read: {what}"));
        graph_validate::check(&bytes, dimension, rows).map_err(damaged)?;
        let mut native = native(dimension)?;
        native.reserve_capacity_and_threads(0, SEARCHES).map_err(|e| failed("read")(e.to_string()))?;
        // SAFETY: the bytes are kept beside what looks into them and dropped after it; nothing changes them; and all places that they
        // name are inside them.
        unsafe { native.view_from_buffer(&bytes) }.map_err(|e| damaged(&e.to_string()))?;
        measured(&mut native, isa, dimension, measure);
        Ok(Self { native, dimension, _bytes: bytes })
    }

    /// About the nearest rows, of those that `takes` takes; `None` where there are more searches at once than there can be.
    pub fn nearest(&self, codes: &[i8], count: usize, takes: impl Fn(u32) -> bool) -> Option<Vec<u32>> {
        let found = self.native.filtered_search(codes, count, |row| takes(row as u32));
        found.ok().map(|found| found.keys.into_iter().map(|row| row as u32).collect())
    }
}

/// Compiles a loop over two rows for sets whose vectors compilers use by themselves.
macro_rules! compiled {
    ($name:ident, $loop:ident, $out:ty) => {
        fn $name(isa: Isa, a: &[i8], b: &[i8]) -> $out {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2")]
            fn avx2(a: &[i8], b: &[i8]) -> $out {
                $loop(a, b)
            }
            match isa {
                Isa::Scalar => $loop(a, b),
                // SAFETY: every other set of this target has the features.
                #[cfg(target_arch = "x86_64")]
                _ => unsafe { avx2(a, b) },
                #[cfg(not(target_arch = "x86_64"))]
                _ => $loop(a, b),
            }
        }
    };
}

compiled!(product, product_of, i32);
compiled!(distance, distance_of, u32);

/// No sum is beyond 32 bits: a row has no more than 65,536 values.
#[inline(always)]
fn product_of(a: &[i8], b: &[i8]) -> i32 {
    a.iter().zip(b).map(|(a, b)| i32::from(*a) * i32::from(*b)).fold(0, i32::wrapping_add)
}

#[inline(always)]
fn distance_of(a: &[i8], b: &[i8]) -> u32 {
    let square = |(a, b): (&i8, &i8)| (i32::from(*a) - i32::from(*b)).pow(2);
    a.iter().zip(b).map(square).fold(0, i32::wrapping_add) as u32
}
