//! HNSW graphs over int8 vectors (Malkov and Yashunin 2016, arXiv 1603.09320), built and searched by usearch, a C++ library.
//! Distances are computed here, with the same result on all instruction sets.

use crate::error::{Error, Result};
use crate::graph_validate::{self, HNSW_M};
use crate::isa::Isa;
use bytes::Bytes;
use usearch::{Index as UsearchIndex, IndexOptions, MetricKind, ScalarKind};

/// `efConstruction` of the paper: the number of candidates that are examined when a row is added.
const EF_CONSTRUCTION: usize = 128;
/// usearch reserves memory for this many searches when a graph is opened; more at the same time fail.
const MAX_CONCURRENT_SEARCHES: usize = 256;

/// The distance between two vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distance {
    /// The negative inner product.
    InnerProduct,
    /// The squared Euclidean distance.
    L2,
}

/// A graph of rows, identified by their numbers.
pub struct HnswGraph {
    // Must be dropped before the bytes that it points into.
    native: UsearchIndex,
    dimension: usize,
    _bytes: Bytes,
}

impl std::fmt::Debug for HnswGraph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} x {}", self.native.size(), self.dimension)
    }
}

fn library_error(action: &str, error: impl std::fmt::Display) -> Error {
    Error::GraphLibrary(format!("cannot {action} the graph: {error}"))
}

fn native_index(dimension: usize) -> Result<UsearchIndex> {
    let options = IndexOptions {
        dimensions: dimension,
        metric: MetricKind::IP,
        quantization: ScalarKind::I8,
        connectivity: HNSW_M,
        expansion_add: EF_CONSTRUCTION,
        // usearch uses the larger of this and the requested count.
        expansion_search: 1,
        multi: false,
    };
    UsearchIndex::new(&options).map_err(|e| library_error("create", e))
}

/// Makes `native` compute distances with the kernels of this file.
fn set_distance(native: &mut UsearchIndex, isa: Isa, dimension: usize, distance: Distance) {
    native.change_metric::<i8>(Box::new(move |a: *const i8, b: *const i8| {
        // SAFETY: usearch passes rows of a graph of `dimension` values, or a query whose length it has compared with theirs.
        let (a, b) = unsafe { (std::slice::from_raw_parts(a, dimension), std::slice::from_raw_parts(b, dimension)) };
        match distance {
            Distance::InnerProduct => -(inner_product(isa, a, b) as f32),
            Distance::L2 => squared_l2(isa, a, b) as f32,
        }
    }));
}

impl HnswGraph {
    /// An empty graph for `rows` rows that `threads` threads add.
    ///
    /// # Errors
    /// Memory ran out.
    pub fn new(isa: Isa, dimension: usize, distance: Distance, rows: usize, threads: usize) -> Result<Self> {
        let mut native = native_index(dimension)?;
        set_distance(&mut native, isa, dimension, distance);
        native.reserve_capacity_and_threads(rows, threads).map_err(|e| library_error("create", e))?;
        Ok(Self { native, dimension, _bytes: Bytes::new() })
    }

    /// Adds a row. Threads may add rows at the same time.
    ///
    /// # Errors
    /// The length differs from the dimension, the row exists already, or more rows or threads add than [`HnswGraph::new`] was
    /// called for.
    pub fn add(&self, row: u32, vector: &[i8]) -> Result<()> {
        self.native.add(row.into(), vector).map_err(|e| library_error("add a row to", e))
    }

    /// Serializes the graph for [`HnswGraph::from_bytes`].
    ///
    /// # Errors
    /// usearch failed.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.native.serialized_length()];
        self.native.save_to_buffer(&mut bytes).map_err(|e| library_error("serialize", e))?;
        Ok(bytes)
    }

    /// Opens a serialized graph of `rows` rows. It is searched without copying the bytes.
    ///
    /// # Errors
    /// [`Error::InvalidGraph`]: the bytes are not such a graph, or links lead to rows that do not exist.
    pub fn from_bytes(isa: Isa, dimension: usize, distance: Distance, rows: usize, bytes: Bytes) -> Result<Self> {
        let invalid = |reason: &str| Error::InvalidGraph(format!("invalid HNSW graph: {reason}"));
        graph_validate::check(&bytes, dimension, rows).map_err(invalid)?;
        let mut native = native_index(dimension)?;
        native.reserve_capacity_and_threads(0, MAX_CONCURRENT_SEARCHES).map_err(|e| library_error("open", e))?;
        // SAFETY: the bytes are stored next to the index that points into them and dropped after it; nothing changes them; and all
        // offsets in them were checked to lie inside.
        unsafe { native.view_from_buffer(&bytes) }.map_err(|e| invalid(&e.to_string()))?;
        set_distance(&mut native, isa, dimension, distance);
        Ok(Self { native, dimension, _bytes: bytes })
    }

    /// Approximately the `count` nearest rows among those that `accept` accepts, in any order.
    ///
    /// `None` if usearch fails, for instance because more than `MAX_CONCURRENT_SEARCHES` searches run at the same time; the caller
    /// can then scan all rows.
    pub fn search(&self, query: &[i8], count: usize, accept: impl Fn(u32) -> bool) -> Option<Vec<u32>> {
        let found = self.native.filtered_search(query, count, |row| accept(row as u32));
        found.ok().map(|found| found.keys.into_iter().map(|row| row as u32).collect())
    }
}

/// Compiles a loop over two rows with the features of an instruction set, for the compiler to vectorize.
macro_rules! vectorized {
    ($name:ident, $loop:ident, $out:ty) => {
        fn $name(isa: Isa, a: &[i8], b: &[i8]) -> $out {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2")]
            fn avx2(a: &[i8], b: &[i8]) -> $out {
                $loop(a, b)
            }
            match isa {
                Isa::Scalar => $loop(a, b),
                // SAFETY: all other instruction sets of this target include AVX2.
                #[cfg(target_arch = "x86_64")]
                _ => unsafe { avx2(a, b) },
                #[cfg(not(target_arch = "x86_64"))]
                _ => $loop(a, b),
            }
        }
    };
}

vectorized!(inner_product, inner_product_loop, i32);
vectorized!(squared_l2, squared_l2_loop, u32);

/// The sum fits in 32 bits, because a row has at most 65,536 values.
#[inline(always)]
fn inner_product_loop(a: &[i8], b: &[i8]) -> i32 {
    a.iter().zip(b).map(|(a, b)| i32::from(*a) * i32::from(*b)).fold(0, i32::wrapping_add)
}

#[inline(always)]
fn squared_l2_loop(a: &[i8], b: &[i8]) -> u32 {
    let square = |(a, b): (&i8, &i8)| (i32::from(*a) - i32::from(*b)).pow(2);
    a.iter().zip(b).map(square).fold(0, i32::wrapping_add) as u32
}
