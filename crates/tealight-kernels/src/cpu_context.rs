//! What a forward pass runs on: an instruction set and a pool of threads.

use crate::Isa;
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::sync::{Arc, OnceLock};

/// An instruction set and a number of threads. Neither changes a result on one kind of CPU.
#[derive(Clone)]
pub struct CpuContext {
    /// What the kernels use.
    pub isa: Isa,
    threads: usize,
    pool: Arc<OnceLock<Option<ThreadPool>>>,
}

impl std::fmt::Debug for CpuContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} x{}", self.isa.as_str(), self.threads)
    }
}

impl CpuContext {
    /// A CPU of `threads` threads, which start when there is first work to share; one thread starts none.
    pub fn new(isa: Isa, threads: usize) -> Self {
        Self { isa, threads: threads.max(1), pool: Arc::default() }
    }

    /// How many threads a forward pass uses.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The same set on one thread: the one that calls.
    pub fn single_threaded(&self) -> Self {
        Self::new(self.isa, 1)
    }

    /// The threads for so many pieces of work; `None` where one is enough, or they cannot start.
    fn pool(&self, pieces: usize) -> Option<&ThreadPool> {
        if self.threads == 1 || pieces <= 1 {
            return None;
        }
        let start = || {
            let builder = ThreadPoolBuilder::new().num_threads(self.threads).thread_name(|i| format!("tealight-{i}"));
            builder.build().inspect_err(|e| tracing::error!("{} threads cannot start: {e}", self.threads)).ok()
        };
        self.pool.get_or_init(start).as_ref()
    }

    /// Calls `f(first_row, rows)` for pieces of `out`, which has rows of `width` values; pieces have whole rows and
    /// are worked on by several threads.
    pub fn par_rows(&self, out: &mut [f32], width: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
        let rows = out.len() / width;
        // Three pieces a thread even out the threads; below four rows a kernel has too little to share.
        let piece = rows.div_ceil(3 * self.threads()).max(4);
        match self.pool(rows.div_ceil(piece)) {
            Some(pool) => {
                pool.install(|| out.par_chunks_mut(piece * width).enumerate().for_each(|(i, out)| f(i * piece, out)));
            }
            _ => f(0, out),
        }
    }

    /// Calls `f` for every item, each by a thread of its own as far as there are threads.
    pub fn par_for_each<T: Send>(&self, items: Vec<T>, f: impl Fn(T) + Sync + Send) {
        match self.pool(items.len()) {
            Some(pool) => pool.install(|| items.into_par_iter().with_max_len(1).for_each(f)),
            _ => items.into_iter().for_each(f),
        }
    }

    /// Calls `f` on a thread of the pool: what it shares out is taken up at once, since no thread goes to sleep in between.
    pub fn install<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        match self.pool(self.threads) {
            Some(pool) => pool.install(f),
            None => f(),
        }
    }

    /// Maps items by several threads, keeping their order.
    pub fn par_map<T: Sync, R: Send>(&self, items: &[T], f: impl Fn(&T) -> R + Sync + Send) -> Vec<R> {
        match self.pool(items.len()) {
            Some(pool) => pool.install(|| items.par_iter().map(f).collect()),
            _ => items.iter().map(f).collect(),
        }
    }
}
