//! Where points go.

use crate::documents::Point;
use crate::engine::Deadline;
use crate::error::{Error, Result};

/// Where points go, as it is configured.
#[derive(Debug, Clone)]
pub struct Target;

/// What points are of.
#[derive(Debug, Clone)]
pub enum Source {
    /// An object, or a part of one.
    Object {
        /// Its bucket.
        bucket: String,
        /// Its key.
        key: String,
        /// Its version.
        etag: String,
        /// Which part.
        part: Option<String>,
    },
    /// A file.
    File(String),
    /// Documents under a name.
    Documents(String),
}

/// The sink that the environment names, if it names one.
///
/// # Errors
/// What is wrong with it.
pub fn configured(_: &crate::engine::Engine) -> Result<Option<Target>> {
    Ok(None)
}

impl Target {
    /// Begins to write points of a source.
    ///
    /// # Errors
    /// The sink cannot be reached.
    pub fn open(&self, _: &Source, _: Deadline) -> Result<Box<dyn Sink>> {
        Err(Error::internal("sinks are not here yet"))
    }

    /// Whether each source becomes an object of its own.
    pub fn is_by_source(&self) -> bool {
        false
    }
}

/// Where points of one source go.
pub trait Sink: Send {
    /// Writes points; gives those refused for good: position over all points ever given to this sink, and why.
    ///
    /// # Errors
    /// The sink fails, for all points.
    fn write(&mut self, points: &[Point], deadline: Deadline) -> Result<Vec<(usize, Error)>>;

    /// Writes what is left.
    ///
    /// # Errors
    /// The sink fails, for all points.
    fn finish(&mut self, deadline: Deadline) -> Result<Vec<(usize, Error)>>;
}
