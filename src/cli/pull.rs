//! `tealight pull`: downloads a model, with a progress bar on a terminal.

use super::output::print;
use crate::engine::catalog;
use crate::engine::hub::{self, DownloadProgress};
use indicatif::{ProgressBar, ProgressStyle};
use tealight_core::Result;

struct Bar(ProgressBar);

impl DownloadProgress for Bar {
    fn start(&mut self, file: &str, bytes: u64) {
        self.0.reset();
        self.0.set_length(bytes);
        self.0.set_message(file.to_string());
    }
    fn advance(&mut self, bytes: u64) {
        self.0.inc(bytes);
    }
    fn finish(&mut self) {
        self.0.finish_and_clear();
    }
}

pub(super) fn run(model: &str) -> Result<()> {
    let repository = catalog::names(model).map_or(model, |(_, repository)| repository);
    let bar = ProgressBar::new(0);
    let template = "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    let path = hub::pull(repository, &mut Bar(bar))?;
    print(|out| writeln!(out, "{}", path.display()))
}
