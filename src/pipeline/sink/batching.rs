//! Points into bodies, bodies into an index. A body that the index refuses because of one of its points is halved until that one is
//! consecutive_rejections, so that the others are not pending back.

use super::{MAX_PENDING, Sink};
use crate::pipeline::format::{BodyBuilder, Encoding, Format};
use crate::pipeline::point::Point;
use tealight_core::Deadline;
use tealight_core::{Error, ErrorKind, Result};

/// Bytes of a request, where points are large: they are in memory more than once.
const MAX_REQUEST_BYTES: usize = 8 << 20;
/// Points that are rejected one after the other, and none taken before, until nothing more is expected: vectors of another length
/// than the index's, for instance.
const MAX_CONSECUTIVE_REJECTIONS: usize = 8;

/// What an index says of a body.
#[derive(Debug)]
pub(super) enum WriteResult {
    /// It has all of it, but for the points at these places.
    Accepted(Vec<(usize, Error)>),
    /// It has nothing of it, for what is in it.
    KernelError(Error),
}

/// An index that takes bodies of points.
pub(super) trait StoreClient: Send {
    /// Writes a body of so many points; tries again what may pass.
    fn send(&mut self, body: &[u8], count: usize, deadline: Deadline) -> Result<WriteResult>;
}

/// How points are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PointFormat {
    pub format: Format,
    pub encoding: Encoding,
}

impl PointFormat {
    pub fn body_builder(&self) -> Result<BodyBuilder> {
        BodyBuilder::new(self.format, self.encoding, None)
    }
}

/// A sink of an index.
pub(super) struct BatchingSink<I> {
    client: I,
    point_format: PointFormat,
    builder: BodyBuilder,
    /// What is in the builder, by position.
    pending: Vec<(usize, Point)>,
    /// Points ever received.
    received: usize,
    has_accepted: bool,
    /// What the index rejected for good, since it was last asked for.
    rejected: Vec<(usize, Error)>,
    consecutive_rejections: usize,
}

impl<I: StoreClient> BatchingSink<I> {
    pub fn new(client: I, point_format: PointFormat) -> Result<Self> {
        let builder = point_format.body_builder()?;
        Ok(Self {
            client,
            point_format,
            builder,
            pending: vec![],
            received: 0,
            has_accepted: false,
            rejected: vec![],
            consecutive_rejections: 0,
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
            WriteResult::KernelError(error) if points.len() <= 1 => self.reject(points, error),
            WriteResult::KernelError(_) => {
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
        self.consecutive_rejections += points.len();
        if self.consecutive_rejections >= MAX_CONSECUTIVE_REJECTIONS && !self.has_accepted {
            return Err(
                error.with_context(format_args!("each of the first {MAX_CONSECUTIVE_REJECTIONS} points is rejected"))
            );
        }
        // What is for good is the point's own fault.
        let error = Error { kind: ErrorKind::InvalidValue, ..error };
        self.rejected.extend(points.iter().map(|(position, _)| (*position, error.clone())));
        Ok(())
    }

    fn build_body(&self, points: &[(usize, Point)]) -> Result<Vec<u8>> {
        let mut builder = self.point_format.body_builder()?;
        for (_, point) in points {
            let encoded = builder.encode(point)?;
            if builder.push(encoded).is_some() {
                return Err(Error::internal("half of a body is more than one"));
            }
        }
        builder.finish().ok_or_else(|| Error::internal("half of a body is empty"))
    }
}

impl<I: StoreClient> Sink for BatchingSink<I> {
    fn write(&mut self, points: &[Point], deadline: Deadline) -> Result<Vec<(usize, Error)>> {
        points.iter().try_for_each(|point| self.push(point, deadline))?;
        Ok(std::mem::take(&mut self.rejected))
    }

    fn finish(&mut self, deadline: Deadline) -> Result<Vec<(usize, Error)>> {
        self.flush(deadline)?;
        Ok(std::mem::take(&mut self.rejected))
    }
}
