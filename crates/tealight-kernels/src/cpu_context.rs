//! The instruction set and the threads that a forward pass uses.

use crate::isa::Isa;
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::sync::{Arc, OnceLock};

/// An instruction set and a pool of threads, which clones share. The number of threads never changes a result.
#[derive(Clone)]
pub struct CpuContext {
    /// The instruction set of the kernels.
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
    /// A context with `threads` threads, at least one. They start with the first parallel call; a single thread is the caller's
    /// own.
    pub fn new(isa: Isa, threads: usize) -> Self {
        Self { isa, threads: threads.max(1), pool: Arc::default() }
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The same instruction set on the calling thread only.
    pub fn single_threaded(&self) -> Self {
        Self::new(self.isa, 1)
    }

    /// The pool for this number of tasks; `None` if one thread is enough or threads cannot be started.
    fn pool(&self, tasks: usize) -> Option<&ThreadPool> {
        if self.threads == 1 || tasks <= 1 {
            return None;
        }
        let start = || {
            let builder = ThreadPoolBuilder::new().num_threads(self.threads).thread_name(|i| format!("tealight-{i}"));
            builder.build().inspect_err(|e| tracing::error!("cannot start {} threads: {e}", self.threads)).ok()
        };
        self.pool.get_or_init(start).as_ref()
    }

    /// Calls `f(first_row, rows)` in parallel for chunks of `out [rows, row_len]`. A chunk has whole rows.
    pub fn par_rows(&self, out: &mut [f32], row_len: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
        let rows = out.len() / row_len;
        // Three chunks per thread, so that a slow thread delays the others less (not measured against two or four). At
        // least four rows, which LayerNorm normalizes together.
        let chunk = rows.div_ceil(3 * self.threads()).max(4);
        match self.pool(rows.div_ceil(chunk)) {
            Some(pool) => {
                pool.install(|| out.par_chunks_mut(chunk * row_len).enumerate().for_each(|(i, out)| f(i * chunk, out)));
            }
            _ => f(0, out),
        }
    }

    /// Calls `f` in parallel for each item. Items are not grouped, so that each may run on its own thread.
    pub fn par_for_each<T: Send>(&self, items: Vec<T>, f: impl Fn(T) + Sync + Send) {
        match self.pool(items.len()) {
            Some(pool) => pool.install(|| items.into_par_iter().with_max_len(1).for_each(f)),
            _ => items.into_iter().for_each(f),
        }
    }

    /// Runs `f` on a thread of the pool. This avoids the latency of entering the pool for each parallel call inside `f`.
    pub fn install<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        match self.pool(self.threads) {
            Some(pool) => pool.install(f),
            None => f(),
        }
    }

    /// Maps items in parallel and keeps their order.
    pub fn par_map<T: Sync, R: Send>(&self, items: &[T], f: impl Fn(&T) -> R + Sync + Send) -> Vec<R> {
        match self.pool(items.len()) {
            Some(pool) => pool.install(|| items.par_iter().map(f).collect()),
            _ => items.iter().map(f).collect(),
        }
    }
}
