//! Points into bodies, bodies into an index. A body that the index refuses because of one of its points is halved until that one is
//! alone, so that the others are not held back.

use super::{MOST_HELD, Sink};
use crate::pipeline::format::{Encoding, Format, Packer};
use crate::pipeline::point::Point;
use tealight_core::Deadline;
use tealight_core::{Error, ErrorKind, Result};

/// Bytes of a request, where points are large: they are in memory more than once.
const MOST_BYTES: usize = 8 << 20;
/// Points that are refused one after the other, and none taken before, until nothing more is expected: vectors of another length
/// than the index's, for instance.
const HOPELESS: usize = 8;

/// What an index says of a body.
#[derive(Debug)]
pub(super) enum Answer {
    /// It has all of it, but for the points at these places.
    Kept(Vec<(usize, Error)>),
    /// It has nothing of it, for what is in it.
    KernelError(Error),
}

/// An index that takes bodies of points.
pub(super) trait Index: Send {
    /// Writes a body of so many points; tries again what may pass.
    fn send(&mut self, body: &[u8], count: usize, deadline: Deadline) -> Result<Answer>;
}

/// How points are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    pub format: Format,
    pub encoding: Encoding,
}

impl Form {
    pub fn packer(&self) -> Result<Packer> {
        Packer::new(self.format, self.encoding, None)
    }
}

/// A sink of an index.
pub(super) struct Batches<I> {
    index: I,
    form: Form,
    packer: Packer,
    /// What is in the packer, by position.
    held: Vec<(usize, Point)>,
    /// Points ever given.
    given: usize,
    has_taken: bool,
    /// What the index refused for good, since it was last asked for.
    refused: Vec<(usize, Error)>,
    alone: usize,
}

impl<I: Index> Batches<I> {
    pub fn new(index: I, form: Form) -> Result<Self> {
        let packer = form.packer()?;
        Ok(Self { index, form, packer, held: vec![], given: 0, has_taken: false, refused: vec![], alone: 0 })
    }

    fn take(&mut self, point: &Point, deadline: Deadline) -> Result<()> {
        let position = self.given;
        self.given += 1;
        match self.packer.item(point) {
            Err(error) => self.refused.push((position, error)),
            Ok(item) => {
                let full = self.packer.push(item);
                if let Some(body) = full {
                    let held = std::mem::take(&mut self.held);
                    self.send(&held, &body, deadline)?;
                }
                self.held.push((position, point.clone()));
                if self.held.len() >= MOST_HELD || self.packer.bytes() >= MOST_BYTES {
                    self.flush(deadline)?;
                }
            }
        }
        Ok(())
    }

    fn flush(&mut self, deadline: Deadline) -> Result<()> {
        let (held, last) = (std::mem::take(&mut self.held), self.packer.finish());
        last.map_or(Ok(()), |body| self.send(&held, &body, deadline))
    }

    fn send(&mut self, points: &[(usize, Point)], body: &[u8], deadline: Deadline) -> Result<()> {
        match self.index.send(body, points.len(), deadline)? {
            Answer::Kept(but) => {
                self.has_taken |= but.len() < points.len();
                self.refused.extend(but.into_iter().filter_map(|(i, error)| Some((points.get(i)?.0, error))));
                Ok(())
            }
            Answer::KernelError(error) if points.len() <= 1 => self.refuse(points, error),
            Answer::KernelError(_) => {
                let (left, right) = points.split_at(points.len() / 2);
                for half in [left, right] {
                    let body = self.pack(half)?;
                    self.send(half, &body, deadline)?;
                }
                Ok(())
            }
        }
    }

    fn refuse(&mut self, points: &[(usize, Point)], error: Error) -> Result<()> {
        self.alone += points.len();
        if self.alone >= HOPELESS && !self.has_taken {
            return Err(error.with_context(format_args!("each of the first {HOPELESS} points is refused")));
        }
        // What is for good is the point's own fault.
        let error = Error { kind: ErrorKind::InvalidValue, ..error };
        self.refused.extend(points.iter().map(|(position, _)| (*position, error.clone())));
        Ok(())
    }

    fn pack(&self, points: &[(usize, Point)]) -> Result<Vec<u8>> {
        let mut packer = self.form.packer()?;
        for (_, point) in points {
            let item = packer.item(point)?;
            if packer.push(item).is_some() {
                return Err(Error::internal("half of a body is more than one"));
            }
        }
        packer.finish().ok_or_else(|| Error::internal("half of a body is empty"))
    }
}

impl<I: Index> Sink for Batches<I> {
    fn write(&mut self, points: &[Point], deadline: Deadline) -> Result<Vec<(usize, Error)>> {
        points.iter().try_for_each(|point| self.take(point, deadline))?;
        Ok(std::mem::take(&mut self.refused))
    }

    fn finish(&mut self, deadline: Deadline) -> Result<Vec<(usize, Error)>> {
        self.flush(deadline)?;
        Ok(std::mem::take(&mut self.refused))
    }
}
