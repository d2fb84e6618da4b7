//! Turns a client that sends request bodies into a sink of points. A body that the store rejects because of one point is split in
//! half repeatedly until that point is found, so that the other points are written.

use super::traits::{MAX_PENDING, Rejections, Sink};
use crate::pipeline::format::{BodyBuilder, Format, VectorEncoding};
use crate::pipeline::point::Point;
use tealight_core::{Deadline, Error, ErrorKind, Result};

/// A body is sent when it reaches this size, because points are in memory several times.
const MAX_REQUEST_BYTES: usize = 8 << 20;
/// If this many points are rejected before any is accepted, the sink fails, because the cause is probably the same for all: a wrong
/// vector dimension, for example.
const MAX_REJECTIONS_BEFORE_FIRST_SUCCESS: usize = 8;

/// Result of one request.
#[derive(Debug)]
pub(super) enum WriteResult {
    /// All points are stored, except those at these positions in the body.
    Accepted(Vec<(usize, Error)>),
    /// Nothing is stored, because of the content of the body.
    Rejected(Error),
}

/// A store that accepts request bodies with points.
pub(super) trait StoreClient: Send {
    /// Sends a body with `count` points. Retries failures that may be temporary.
    fn send(&mut self, body: &[u8], count: usize, deadline: Deadline) -> Result<WriteResult>;
}

/// The format and encoding of points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PointFormat {
    pub format: Format,
    pub encoding: VectorEncoding,
}

impl PointFormat {
    pub fn body_builder(&self) -> Result<BodyBuilder> {
        BodyBuilder::new(self.format, self.encoding, None)
    }
}

/// Collects points into bodies and sends them.
pub(super) struct BatchingSink<C> {
    client: C,
    point_format: PointFormat,
    builder: BodyBuilder,
    /// The points in the builder, with their positions.
    pending: Vec<(usize, Point)>,
    /// Number of points ever passed to the sink.
    received: usize,
    has_accepted: bool,
    /// Points that were rejected since the last call.
    rejected: Vec<(usize, Error)>,
    /// Number of points rejected so far.
    rejections: usize,
}

impl<C: StoreClient> BatchingSink<C> {
    pub fn new(client: C, point_format: PointFormat) -> Result<Self> {
        let builder = point_format.body_builder()?;
        Ok(Self {
            client,
            point_format,
            builder,
            pending: vec![],
            received: 0,
            has_accepted: false,
            rejected: vec![],
            rejections: 0,
        })
    }

    fn push(&mut self, point: &Point, deadline: Deadline) -> Result<()> {
        let position = self.received;
        self.received += 1;
        match self.builder.encode(point) {
            Err(error) => self.rejected.push((position, error)),
            Ok(encoded) => {
                let full = self.builder.push(encoded);
                if let Some(body) = full {
                    let pending = std::mem::take(&mut self.pending);
                    self.send(&pending, &body, deadline)?;
                }
                self.pending.push((position, point.clone()));
                if self.pending.len() >= MAX_PENDING || self.builder.bytes() >= MAX_REQUEST_BYTES {
                    self.flush(deadline)?;
                }
            }
        }
        Ok(())
    }

    fn flush(&mut self, deadline: Deadline) -> Result<()> {
        let (pending, last) = (std::mem::take(&mut self.pending), self.builder.finish());
        last.map_or(Ok(()), |body| self.send(&pending, &body, deadline))
    }

    fn send(&mut self, points: &[(usize, Point)], body: &[u8], deadline: Deadline) -> Result<()> {
        match self.client.send(body, points.len(), deadline)? {
            WriteResult::Accepted(rejected_points) => {
                self.has_accepted |= rejected_points.len() < points.len();
                self.rejected
                    .extend(rejected_points.into_iter().filter_map(|(i, error)| Some((points.get(i)?.0, error))));
                Ok(())
            }
            WriteResult::Rejected(error) if points.len() <= 1 => self.reject(points, error),
            WriteResult::Rejected(_) => {
                let (left, right) = points.split_at(points.len() / 2);
                for half in [left, right] {
                    let body = self.build_body(half)?;
                    self.send(half, &body, deadline)?;
                }
                Ok(())
            }
        }
    }

    fn reject(&mut self, points: &[(usize, Point)], error: Error) -> Result<()> {
        self.rejections += points.len();
        if self.rejections >= MAX_REJECTIONS_BEFORE_FIRST_SUCCESS && !self.has_accepted {
            return Err(error.with_context(format_args!(
                "all of the first {MAX_REJECTIONS_BEFORE_FIRST_SUCCESS} points were rejected"
            )));
        }
        // A permanent rejection is caused by the point.
        let error = Error { kind: ErrorKind::InvalidValue, ..error };
        self.rejected.extend(points.iter().map(|(position, _)| (*position, error.clone())));
        Ok(())
    }

    fn build_body(&self, points: &[(usize, Point)]) -> Result<Vec<u8>> {
        let mut builder = self.point_format.body_builder()?;
        for (_, point) in points {
            let encoded = builder.encode(point)?;
            if builder.push(encoded).is_some() {
                return Err(Error::internal("a split request body exceeds the size limit"));
            }
        }
        builder.finish().ok_or_else(|| Error::internal("a split request body is empty"))
    }
}

impl<C: StoreClient> Sink for BatchingSink<C> {
    fn write(&mut self, points: &[Point], deadline: Deadline) -> Result<Rejections> {
        points.iter().try_for_each(|point| self.push(point, deadline))?;
        Ok(std::mem::take(&mut self.rejected))
    }

    fn finish(&mut self, deadline: Deadline) -> Result<Rejections> {
        self.flush(deadline)?;
        Ok(std::mem::take(&mut self.rejected))
    }
}
