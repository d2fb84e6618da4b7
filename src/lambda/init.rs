//! Loading the default model before the first invocation.

use crate::engine::{Embed, EmbedInputs, Engine, Input};
use std::sync::Arc;
use std::time::Duration;
use tealight_core::{Deadline, Error};

/// Lambda stops an Init after 10 seconds and starts it again. A load that takes longer continues in the background, and the first
/// request waits for it.
const INIT_LIMIT: Duration = Duration::from_secs(9);

/// Loads the default model. A failure is only logged: the first request tries again and reports it.
pub async fn preload(engine: &Arc<Engine>) {
    let engine = engine.clone();
    let load = move || {
        if let Err(error) = engine.preload() {
            tracing::error!(code = error.kind.code(), "{error}");
        }
    };
    run_with_limit(load, INIT_LIMIT).await;
}

/// Embeds a text before SnapStart takes its snapshot, so that no environment needs to load the model. If it fails, the version is
/// not published.
///
/// # Errors
/// The model cannot be loaded.
pub async fn prime_for_snapshot(engine: &Arc<Engine>) -> Result<(), Error> {
    let engine = engine.clone();
    let inputs = EmbedInputs::new(vec![Input::Text("hello world".into())]);
    let embed = Embed { inputs, normalize: true, dimensions: None };
    let work = tokio::task::spawn_blocking(move || engine.run(embed, Deadline::NONE).map(drop));
    work.await.unwrap_or_else(|_| Err(Error::internal("embedding the first text failed")))
}

/// Starts work on another thread and waits for it, but no longer than `limit`; then the work continues.
async fn run_with_limit(work: impl FnOnce() + Send + 'static, limit: Duration) {
    let _ = tokio::time::timeout(limit, tokio::task::spawn_blocking(work)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_over_limit_continues_in_background() {
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let (done, outcome) = std::sync::mpsc::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let load = move || {
            gate.recv().unwrap();
            done.send("loaded").unwrap();
        };
        // `run_with_limit` must return before the work is released below.
        runtime.block_on(run_with_limit(load, Duration::from_millis(1)));
        release.send(()).unwrap();
        assert_eq!(outcome.recv().unwrap(), "loaded");
    }
}
