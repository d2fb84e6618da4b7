//! The engine, and the jobs that it runs.

#[cfg(feature = "index")]
use super::lazy_index::LazyIndex;
use super::load_timer::LoadTimer;
use super::model_cache::LoadedModel;
use super::registry::{ModelAndWait, Registry};
use crate::aws::secrets::SecretCache;
use crate::config::Config;
use std::sync::Arc;
use tealight_core::{Deadline, Result};
use tealight_kernels::CpuContext;
use tealight_models::Embedder;

/// The models, the built-in index and the CPU that they run on. Creating an engine loads nothing.
#[derive(Debug)]
pub struct Engine {
    /// The configuration, usually from environment variables.
    pub config: Arc<Config>,
    /// Instruction set and thread pool.
    pub cpu: CpuContext,
    /// Models, loaded when they are first used.
    pub registry: Registry,
    /// Secrets that were read from AWS Secrets Manager.
    pub secrets: SecretCache,
    #[cfg(feature = "index")]
    pub(super) index: LazyIndex,
}

/// A validated request to a model or to the built-in index.
pub trait Job {
    /// The result of the job.
    type Output;

    /// Runs the job; called by [`Engine::run`].
    fn run(self, context: &JobContext) -> Result<Self::Output>;
}

impl Engine {
    /// An engine for this configuration.
    pub fn new(config: Config) -> Result<Self> {
        let config = Arc::new(config);
        let cpu = CpuContext::new(config.isa, config.threads);
        let registry = Registry::new(config.clone(), cpu.clone());
        Ok(Self {
            config,
            cpu,
            registry,
            secrets: SecretCache::default(),
            #[cfg(feature = "index")]
            index: LazyIndex::default(),
        })
    }

    /// Runs a job. Loads its model first if necessary.
    ///
    /// # Errors
    /// The model cannot be found or loaded, the input exceeds the model's limits, or the deadline passes.
    pub fn run<J: Job>(&self, job: J, deadline: Deadline) -> Result<J::Output> {
        JobContext { engine: self, deadline, load_timer: &LoadTimer::default() }.run(job)
    }

    /// Loads the default embedding model, so that the first request need not wait for it.
    pub fn preload(&self) -> Result<Arc<LoadedModel>> {
        self.registry.embedder(None).map(|(loaded, _)| loaded)
    }
}

/// The engine as one request sees it: with the request's deadline, and a timer for the models that it loads.
#[derive(Debug, Clone, Copy)]
pub struct JobContext<'a> {
    /// The engine that runs the jobs.
    pub engine: &'a Engine,
    /// The time by which the jobs must finish.
    pub deadline: Deadline,
    /// Adds up the time that jobs wait for models to be loaded.
    pub load_timer: &'a LoadTimer,
}

impl JobContext<'_> {
    /// Runs a job.
    ///
    /// # Errors
    /// As [`Engine::run`].
    pub fn run<J: Job>(&self, job: J) -> Result<J::Output> {
        job.run(self)
    }

    /// The embedding model of this name, or the default one.
    ///
    /// # Errors
    /// As [`Registry::embedder`].
    pub fn embedder(&self, name: Option<&str>) -> Result<Arc<LoadedModel<Embedder>>> {
        Ok(self.record_wait(self.engine.registry.embedder(name)?))
    }

    /// Adds the time that the caller waited for a model to the load timer, and returns the model.
    pub(super) fn record_wait<M>(&self, (loaded, waited): ModelAndWait<M>) -> Arc<LoadedModel<M>> {
        self.load_timer.add(waited);
        loaded
    }
}
