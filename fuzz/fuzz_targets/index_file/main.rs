//! Index files: arbitrary bytes, and files that the library wrote, intact and damaged. Nothing panics; an intact file returns what was
//! added, and its searches agree with float64.
#![no_main]

mod damage;
mod input;
mod oracle;

use arbitrary::{Arbitrary, Unstructured};
use input::IndexInput;
use libfuzzer_sys::fuzz_target;
use std::path::{Path, PathBuf};
use tealight_index::{Index, IndexBuilder, SearchQuery};
use tealight_kernels::{CpuContext, Isa};

fuzz_target!(|data: &[u8]| {
    let path = temporary_file();
    if data.starts_with(b"TLINDEX\n") {
        std::fs::write(&path, data).unwrap();
        use_index(&path, &[1.0, -1.0], "a b");
    } else if let Ok(input) = IndexInput::arbitrary(&mut Unstructured::new(data)) {
        write_and_use(&input, &path);
    }
});

/// A path that only this process uses.
fn temporary_file() -> PathBuf {
    std::env::temp_dir().join(format!("fuzz-{}.tlx", std::process::id()))
}

fn write_and_use(input: &IndexInput, path: &Path) {
    let rows = input.write(path);
    if input.damage.is_empty() {
        oracle::check(input, &rows, &Index::open(path).unwrap());
    } else {
        let intact = std::fs::read(path).unwrap();
        std::fs::write(path, damage::apply(intact, &input.damage)).unwrap();
        use_index(path, &input.query(), &input.words);
    }
}

/// Calls everything that reads a file, which may be damaged.
fn use_index(path: &Path, query: &[f32], words: &str) {
    let Ok(index) = Index::open(path) else { return };
    let mut query = query.to_vec();
    query.resize(index.dimension(), 0.5);
    for isa in Isa::available() {
        let filter = input::filter(3);
        for (vector, lexical, filter) in
            [(Some(&*query), None, None), (None, Some(words), None), (Some(&*query), Some(words), Some(filter))]
        {
            let search = SearchQuery { vector, lexical, filter, top_k: 5, ..SearchQuery::default() };
            let _ = index.search(&CpuContext::new(isa, 1), &search);
        }
    }
    let mut builder = IndexBuilder::new(None, index.dimension(), index.metric(), index.encoding()).unwrap();
    for row in 0..index.rows().min(20) {
        let _ = (index.document(row), index.vector(row), builder.copy_row(&index, row));
    }
    let _ = index.verify();
}
