//! Approximate search with an HNSW graph, which visits a small part of the rows and may miss some of the nearest.
//!
//! Except for the section of the graph, a file with a graph is like any other; builds without the feature `graph` scan all
//! its rows.

use crate::file::{IndexFile, invalid_index};
use crate::format::{Metric, Section};
use half::f16;
use std::cell::{Cell, RefCell};
use std::sync::OnceLock;
use tealight_core::{Error, Result};
use tealight_kernels::hnsw::{Distance, HnswGraph};
use tealight_kernels::scoring::F16_ALIGN;
use tealight_kernels::{CpuContext, Isa};

/// Rows from the graph that are scored again in float16, for each row that is returned. `tests/index/graph.rs` checks the recall
/// that this and the next two values give. No comparison with other values is recorded.
const RESCORE_FACTOR: usize = 4;
/// Minimum number of rows that are scored again.
const MIN_CANDIDATES: usize = 384;
/// A graph search in which the filter has rejected this fraction of the rows of the index, 1/16, is given up: all rows are scanned.
const MAX_REJECTIONS_DIVISOR: usize = 16;
/// Largest magnitude of a quantized value.
const QMAX: f32 = 127.0;
/// Bytes of the section before usearch's bytes.
const HEADER_BYTES: usize = 64;

/// The graph of a file, opened by the first search that uses it.
#[derive(Debug, Default)]
pub(crate) struct LazyGraph(OnceLock<Result<OpenGraph>>);

#[derive(Debug)]
struct OpenGraph {
    graph: HnswGraph,
    /// The scale of the graph's int8 values.
    scale: f32,
}

impl OpenGraph {
    /// Reads and validates the whole graph.
    fn open(file: &IndexFile, isa: Isa) -> Result<Self> {
        let truncated = || invalid_index("has an invalid HNSW graph: it is truncated");
        let mut bytes = file.shared_bytes(Section::Graph)?;
        let scale = bytes.first_chunk().map(|scale| f32::from_le_bytes(*scale)).ok_or_else(truncated)?;
        if bytes.len() < HEADER_BYTES {
            return Err(truncated());
        }
        let (header, bytes) = (&file.header, bytes.split_off(HEADER_BYTES));
        let graph = HnswGraph::from_bytes(isa, header.dimension, distance(header.metric), header.rows, bytes)?;
        Ok(Self { graph, scale })
    }
}

fn distance(metric: Metric) -> Distance {
    match metric {
        Metric::Cosine | Metric::Dot => Distance::InnerProduct,
        Metric::L2 => Distance::L2,
    }
}

fn scale(max_abs: f32) -> f32 {
    max_abs.max(f32::MIN_POSITIVE) / QMAX
}

fn quantize(values: impl Iterator<Item = f32>, scale: f32) -> Vec<i8> {
    values.map(|v| (v / scale).round_ties_even().clamp(-QMAX, QMAX) as i8).collect()
}

impl LazyGraph {
    /// Candidates for a search for `top_k` rows, sorted by row. `None` if all rows must be scanned instead: there is no graph, the
    /// index is small, the graph returns too few rows, or the filter rejected a sixteenth of the rows during the search.
    ///
    /// # Errors
    /// The graph is corrupt, or an error of `accept`.
    pub(crate) fn candidates(
        &self,
        file: &IndexFile,
        isa: Isa,
        vector: &[f32],
        top_k: usize,
        accept: &dyn Fn(u32) -> Result<bool>,
    ) -> Result<Option<Vec<u32>>> {
        let (rows, num_candidates) = (file.header.rows, (RESCORE_FACTOR * top_k).max(MIN_CANDIDATES));
        if num_candidates >= rows || !file.has(Section::Graph) {
            return Ok(None);
        }
        let OpenGraph { graph, scale: graph_scale } =
            self.0.get_or_init(|| OpenGraph::open(file, isa)).as_ref().map_err(Error::clone)?;
        // The order by inner product does not depend on the scale of the query; the order by distance does, so the query gets the
        // scale of the rows.
        let scale = match file.header.metric {
            Metric::Cosine | Metric::Dot => scale(vector.iter().fold(0.0, |m, v| v.abs().max(m))),
            Metric::L2 => *graph_scale,
        };
        let (rejections_left, error) = (Cell::new(rows / MAX_REJECTIONS_DIVISOR), RefCell::new(None));
        let candidates =
            graph.search(&quantize(vector.iter().copied(), scale), num_candidates, |row| match accept(row) {
                // The result is discarded; the search ends soonest if every row is accepted.
                _ if rejections_left.get() == 0 => true,
                Ok(true) => true,
                Ok(false) => {
                    rejections_left.set(rejections_left.get() - 1);
                    false
                }
                Err(e) => {
                    error.replace(Some(e));
                    false
                }
            });
        if let Some(error) = error.into_inner() {
            return Err(error);
        }
        let candidates = candidates.filter(|rows| rejections_left.get() > 0 && rows.len() >= top_k);
        Ok(candidates.map(|mut rows| {
            rows.sort_unstable();
            rows.dedup();
            rows
        }))
    }
}

/// Builds the graph section from rows in float16 with their scales.
///
/// # Errors
/// Memory ran out.
pub(crate) fn build(
    cpu: &CpuContext,
    f16_rows: &[u16],
    f16_scales: &[f32],
    dimension: usize,
    metric: Metric,
) -> Result<Vec<u8>> {
    let (rows, row_len) = (f16_scales.len(), dimension.next_multiple_of(F16_ALIGN));
    let scale = scale(f16_scales.iter().fold(0.0, |m, v| v.max(m)));
    let graph = HnswGraph::new(cpu.isa, dimension, distance(metric), rows, cpu.threads())?;
    let add = |row: usize| {
        let halves = &f16_rows[row * row_len..][..dimension];
        let values = halves.iter().map(|bits| f16::from_bits(*bits).to_f32() * f16_scales[row]);
        graph.add(row as u32, &quantize(values, scale))
    };
    // Rows are dealt to the threads in turn, so that all parts of the graph grow evenly.
    let shares: Vec<_> = (0..cpu.threads()).map(|first| (first..rows).step_by(cpu.threads())).collect();
    let added = cpu.par_map(&shares, |share| share.clone().try_for_each(add));
    added.into_iter().collect::<tealight_kernels::Result<Vec<()>>>()?;
    let mut bytes = scale.to_le_bytes().to_vec();
    bytes.resize(HEADER_BYTES, 0);
    bytes.extend(graph.to_bytes()?);
    Ok(bytes)
}
