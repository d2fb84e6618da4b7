//! `tealight embed --sink`: points of documents straight into an index, or to Amazon S3.

use super::embed::EmbedArgs;
use super::points::{Taker, convert};
use crate::documents::Point;
use crate::engine::{Deadline, Engine};
use crate::error::{Error, Kind, Result, shown};
use crate::sinks::{self, MOST_HELD, Sink, Source};
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::io::Write;
use std::path::Path;

pub(super) fn run(args: &EmbedArgs, engine: &Engine, url: &str) -> Result<()> {
    let target = sinks::named(url, engine).map_err(|e| e.context("--sink"))?;
    let sink = target.open(&source(args), Deadline::NONE)?;
    convert(args, engine, &mut Into { sink, names: VecDeque::new(), given: 0, refused: 0 })
}

fn source(args: &EmbedArgs) -> Source {
    if !args.texts.is_empty() {
        let hash: [u8; 32] = Sha256::digest(args.texts.join("\n")).into();
        return Source::Documents(hash[..16].iter().map(|byte| format!("{byte:02x}")).collect());
    }
    match args.input.as_deref().filter(|path| *path != Path::new("-")) {
        Some(path) => Source::File(path.to_string_lossy().into_owned()),
        None => Source::Documents("stdin".into()),
    }
}

/// A sink, and what its points are called.
struct Into {
    sink: Box<dyn Sink>,
    /// The documents of the last points that were given.
    names: VecDeque<String>,
    given: usize,
    refused: usize,
}

impl Into {
    /// Tells of points that are refused for good; the others go on.
    fn tell(&mut self, refused: Vec<(usize, Error)>) {
        self.refused += refused.len();
        let first = self.given - self.names.len();
        for (position, error) in refused {
            let name = position.checked_sub(first).and_then(|i| self.names.get(i)).map_or("", String::as_str);
            let _ = writeln!(std::io::stderr(), "tealight: document {:?}: {error}", shown(name));
        }
    }
}

impl Taker for Into {
    fn take(&mut self, points: Vec<Point>) -> Result<bool> {
        self.given += points.len();
        self.names.extend(points.iter().map(|point| point.origin.document_id.clone()));
        let refused = self.sink.write(&points, Deadline::NONE)?;
        self.tell(refused);
        self.names.drain(..self.names.len().saturating_sub(MOST_HELD));
        Ok(true)
    }

    fn finish(&mut self) -> Result<()> {
        let refused = self.sink.finish(Deadline::NONE)?;
        self.tell(refused);
        match self.refused {
            0 => Ok(()),
            n => Err(Error::new(Kind::InvalidValue, format!("{n} points were refused, all others are written"))),
        }
    }
}
