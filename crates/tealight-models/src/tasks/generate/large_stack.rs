//! A thread with a large stack, for recursion as deep as its input: JSON schemas and chat templates.

use tealight_core::{Error, Result};

/// Stack size in bytes. Only pages that are touched use memory.
const STACK_SIZE: usize = 256 << 20;

/// Runs `f` on a thread with a stack of 256 MiB.
///
/// # Errors
/// The thread cannot be started, `f` panics, or `f` returns an error.
pub(super) fn on_large_stack<T: Send>(f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_SIZE).spawn_scoped(scope, f);
        let thread = thread.map_err(|e| Error::internal(format!("cannot start a thread: {e}")))?;
        thread.join().unwrap_or_else(|_| Err(Error::internal("a thread panicked; its message is on standard error")))
    })
}
