//! Searches through a graph of neighbours, which look at few of millions of rows and miss some of the best.
//!
//! A file that has a graph is as any other without it, and is searched exactly by a binary without the feature.

use super::file::Part;
use super::top_k::Hit;
use super::{Builder, Index};
use tealight_core::{Error, ErrorKind, Result};
use tealight_kernels::CpuContext;
use tealight_kernels::Isa;

#[cfg(feature = "graph")]
pub(super) use with::Place;

impl Index {
    /// Whether the file has a graph.
    pub fn has_graph(&self) -> bool {
        self.file.has(Part::Graph)
    }
}

#[cfg(not(feature = "graph"))]
mod without {
    use super::*;

    impl Index {
        pub(in super::super) fn by_graph(
            &self,
            _isa: Isa,
            _query: &[f32],
            _count: usize,
            _exact: bool,
            _takes: &dyn Fn(u32) -> Result<bool>,
        ) -> Result<Option<Vec<Hit>>> {
            Ok(None)
        }
    }

    impl Builder {
        /// Gives the index a graph, once all rows are added.
        ///
        /// # Errors
        /// This is a build without the feature `graph`.
        pub fn link(&mut self, _cpu: &CpuContext) -> Result<()> {
            Err(Error::new(ErrorKind::InvalidValue, "graphs are not in this tealight: build it with --features graph"))
        }
    }
}

#[cfg(feature = "graph")]
mod with {
    use super::*;
    use crate::Metric;
    use half::f16;
    use std::cell::{Cell, RefCell};
    use std::sync::OnceLock;
    use tealight_kernels::hnsw::{Distance as Measure, HnswGraph as Graph};
    use tealight_kernels::scoring::F16_ALIGN as HALVES;

    /// Rows that come from the graph to be scored in float, for each that is asked for, and at least.
    const OVERSAMPLE: usize = 4;
    const LEAST: usize = 384;
    /// One of so many rows is looked at for a filter before all are.
    const SHARE: usize = 16;
    /// The largest code.
    const LARGEST: f32 = 127.0;
    /// Before usearch's bytes.
    const HEAD: usize = 64;

    /// The file's graph, once it is open.
    #[derive(Debug, Default)]
    pub(in super::super) struct Place(OnceLock<Result<Opened>>);

    #[derive(Debug)]
    struct Opened {
        graph: Graph,
        /// What a code of a row stands for.
        step: f32,
    }

    fn measure(metric: Metric) -> Measure {
        match metric {
            Metric::Cosine | Metric::Dot => Measure::InnerProduct,
            Metric::L2 => Measure::L2,
        }
    }

    fn step(largest: f32) -> f32 {
        largest.max(f32::MIN_POSITIVE) / LARGEST
    }

    fn codes(values: impl Iterator<Item = f32>, step: f32) -> Vec<i8> {
        values.map(|v| (v / step).round_ties_even().clamp(-LARGEST, LARGEST) as i8).collect()
    }

    impl Index {
        /// About the best rows, in any order; `None` where all are to be gone through instead: there is no graph, it gives too few, or
        /// a filter takes so little that a graph is no help.
        pub(in super::super) fn by_graph(
            &self,
            isa: Isa,
            query: &[f32],
            count: usize,
            exact: bool,
            takes: &dyn Fn(u32) -> Result<bool>,
        ) -> Result<Option<Vec<Hit>>> {
            let wanted = (OVERSAMPLE * count).max(LEAST);
            if exact || wanted >= self.rows() || !self.has_graph() {
                return Ok(None);
            }
            let Opened { graph, step: of_rows } =
                self.graph.0.get_or_init(|| self.open_graph(isa)).as_ref().map_err(Error::clone)?;
            // A product may be in any unit, a distance in one only.
            let step = match self.metric() {
                Metric::Cosine | Metric::Dot => step(query.iter().fold(0.0, |m, v| v.abs().max(m))),
                Metric::L2 => *of_rows,
            };
            let (left, failed) = (Cell::new(self.rows() / SHARE), RefCell::new(None));
            let found = graph.search(&codes(query.iter().copied(), step), wanted, |row| match takes(row) {
                // What is left of the search ends soonest where all rows are taken.
                _ if left.get() == 0 => true,
                Ok(true) => true,
                Ok(false) => {
                    left.set(left.get() - 1);
                    false
                }
                Err(error) => {
                    failed.replace(Some(error));
                    false
                }
            });
            if let Some(error) = failed.into_inner() {
                return Err(error);
            }
            let Some(mut rows) = found.filter(|rows| left.get() > 0 && rows.len() >= count) else { return Ok(None) };
            rows.sort_unstable();
            rows.dedup();
            Ok(Some(rows.into_iter().map(|row| Hit { score: 0.0, row }).collect()))
        }

        /// Reads and checks all of the graph.
        fn open_graph(&self, isa: Isa) -> Result<Opened> {
            let damaged = || Error::new(ErrorKind::IndexLoad, "the index has a graph that cannot be read: it is cut");
            let mut bytes = self.file.shared(Part::Graph)?;
            let step = bytes.first_chunk().map(|step| f32::from_le_bytes(*step)).ok_or_else(damaged)?;
            if bytes.len() < HEAD {
                return Err(damaged());
            }
            let graph =
                Graph::from_bytes(isa, self.dimension(), measure(self.metric()), self.rows(), bytes.split_off(HEAD))?;
            Ok(Opened { graph, step })
        }
    }

    impl Builder {
        /// Gives the index a graph, once all rows are added: minutes for a million.
        ///
        /// # Errors
        /// There is not enough memory.
        pub fn link(&mut self, cpu: &CpuContext) -> Result<()> {
            let (rows, d) = (self.rows(), self.dimension);
            if rows == 0 {
                return Ok(());
            }
            let width = d.next_multiple_of(HALVES);
            let step = step(self.largest.iter().fold(0.0, |m, v| v.max(m)));
            let graph = Graph::new(cpu.isa, d, measure(self.metric), rows, cpu.threads())?;
            let add = |row: usize| {
                let halves = &self.halves[row * width..][..d];
                let values = halves.iter().map(|bits| f16::from_bits(*bits).to_f32() * self.largest[row]);
                graph.add(row as u32, &codes(values, step))
            };
            // Threads take every so many-th row each, so that none is behind in a part of its own.
            let shares: Vec<_> = (0..cpu.threads()).map(|first| (first..rows).step_by(cpu.threads())).collect();
            let added = cpu.par_map(&shares, |share| share.clone().try_for_each(add));
            added.into_iter().collect::<tealight_kernels::Result<Vec<()>>>()?;
            let mut bytes = step.to_le_bytes().to_vec();
            bytes.resize(HEAD, 0);
            bytes.extend(graph.to_bytes()?);
            self.graph = Some(bytes);
            Ok(())
        }
    }
}
