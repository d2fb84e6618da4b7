//! Files of indexes: any bytes, and files of the library's own writing, whole and damaged. Nothing panics; what is whole gives back
//! what was put in, and finds what a search in float64 finds.
#![no_main]

mod damage;
mod given;
mod truth;

use arbitrary::{Arbitrary, Unstructured};
use given::Given;
use libfuzzer_sys::fuzz_target;
use std::path::{Path, PathBuf};
use tealight_index::{Builder, Index, Search};
use tealight_kernels::Isa;
use tealight_kernels::CpuContext;

fuzz_target!(|data: &[u8]| {
    let path = place();
    if data.starts_with(b"TLINDEX\n") {
        std::fs::write(&path, data).unwrap();
        any(&path, &[1.0, -1.0], "a b");
    } else if let Ok(given) = Given::arbitrary(&mut Unstructured::new(data)) {
        of_given(&given, &path);
    }
});

/// A file of this process.
fn place() -> PathBuf {
    std::env::temp_dir().join(format!("fuzz-{}.tlx", std::process::id()))
}

fn of_given(given: &Given, path: &Path) {
    let rows = given.write(path);
    if given.damage.is_empty() {
        truth::check(given, &rows, &Index::open(path).unwrap());
    } else {
        let whole = std::fs::read(path).unwrap();
        std::fs::write(path, damage::damaged(whole, &given.damage)).unwrap();
        any(path, &given.query(), &given.words);
    }
}

/// Does all that can be done with a file that may be damaged.
fn any(path: &Path, query: &[f32], words: &str) {
    let Ok(index) = Index::open(path) else { return };
    let mut query = query.to_vec();
    query.resize(index.dimension(), 0.5);
    for isa in Isa::available() {
        let filter = given::filter(3);
        for (vector, words, filter) in
            [(Some(&*query), None, None), (None, Some(words), None), (Some(&*query), Some(words), Some(filter))]
        {
            let _ = index.search(&CpuContext::new(isa, 1), &Search { vector, words, filter, count: 5, ..Search::default() });
        }
    }
    let mut builder = Builder::new(None, index.dimension(), index.metric(), index.precision()).unwrap();
    for row in 0..index.rows().min(20) {
        let _ = (index.document(row), index.vector(row), builder.copy(&index, row));
    }
    let _ = index.check();
}
