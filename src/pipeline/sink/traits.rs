//! The interface of sinks.

use crate::pipeline::point::Point;
use tealight_core::{Deadline, Error, Result};

/// Maximum points that a sink buffers, and so the maximum per request: enough to amortize round trips, few enough to repeat a
/// request cheaply.
pub const MAX_PENDING: usize = 500;

/// Points that were permanently rejected, by position among all points ever passed to the sink.
pub type Rejections = Vec<(usize, Error)>;

/// A destination of points.
pub trait Sink: Send {
    /// Writes or buffers points. Returns the points that were rejected since the last call, which can include earlier ones.
    ///
    /// # Errors
    /// The sink failed, and it is unknown which points it has stored. Writing them again is harmless, because ids are stable.
    fn write(&mut self, points: &[Point], deadline: Deadline) -> Result<Rejections>;

    /// Writes what is buffered. When this returns, all points that were not rejected are stored.
    ///
    /// # Errors
    /// The same as [`Sink::write`].
    fn finish(&mut self, deadline: Deadline) -> Result<Rejections>;
}

/// The name of the input that points come from. A sink that writes objects derives their keys from it, so that the same input overwrites its object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputName {
    /// Points of an S3 object.
    Object {
        /// Name of the bucket that was read.
        bucket: String,
        /// Not URL-encoded.
        key: String,
        /// Part of the output key, so that each version of an object has its own output.
        etag: String,
    },
    /// Points of a local file, by its name.
    File(String),
    /// Documents of a request or message, under a deterministic name.
    Documents(String),
}
