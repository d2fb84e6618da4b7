//! How fast each kernel is on each instruction set of this machine, on one thread: `cargo bench --bench kernels [NAME...]`
//! measures all sets, or those that are named. int8 products check their answers against the scalar kernel, bit for bit.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::time::Instant;
use tealight_kernels::attention::{HeadSlice, Qkv, float, int8 as attention8};
use tealight_kernels::int8::{Epilogue, PackedRhs, gemm};
use tealight_kernels::quantize::QuantizedRows;
use tealight_kernels::scoring::{self, Terms};
use tealight_kernels::{Isa, binary, int4, roofline, rowwise};

/// Calls that are timed together, and how many of those.
const CALLS: usize = 8;
const SAMPLES: usize = 51;

fn values(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Median seconds of a call.
fn time(mut call: impl FnMut()) -> f64 {
    call();
    let mut times: Vec<f64> = (0..SAMPLES)
        .map(|_| {
            let start = Instant::now();
            (0..CALLS).for_each(|_| call());
            start.elapsed().as_secs_f64() / CALLS as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[SAMPLES / 2]
}

fn product_row(what: &str, shape: [usize; 3], seconds: f64, peak: f64) {
    let [m, k, n] = shape;
    let gops = 2.0 * (m * k * n) as f64 / seconds / 1e9;
    println!(
        "{what:<26} {m:>4} x {k:>4} x {n:>5} {:>9.1} us {gops:>6.0} GOP/s {:>4.0} %",
        seconds * 1e6,
        100.0 * gops / peak
    );
}

/// A query with 100,000 rows of 384 values, which no cache holds: codes, by the loop for the dimension and by that for all, and signs.
fn scans(isa: Isa) {
    const ROWS: usize = 100_000;
    const D: usize = 384;
    let query = values(D, 1);
    let codes: Vec<scoring::Group> =
        (0..ROWS / 16 * D / 4).map(|i| std::array::from_fn(|j| ((i * 64 + j) * 7919 % 255) as u8 as i8)).collect();
    let terms = vec![Terms { scale: [0.01; 16], sum: [7; 16], less: [0.0; 16] }; ROWS / 16];
    let of_codes = scoring::Query::new(isa, &query);
    let mut out = vec![0.0; ROWS];
    let rate = |what: &str, bytes: usize, seconds: f64| {
        println!("{what:<48} {:>9.2} us {:>6.1} GB/s", seconds * 1e6, bytes as f64 / seconds / 1e9);
    };
    for (what, fixed) in [("scan, 100k x 384, const", true), ("scan, 100k x 384, any D", false)] {
        let seconds = time(|| scoring::scores(isa, &of_codes, &codes, &terms, fixed, &mut out));
        rate(what, codes.len() * 64, seconds);
    }
    let groups: Vec<binary::Group> =
        (0..ROWS / 16 * D / 32).map(|i| std::array::from_fn(|j| ((i * 64 + j) * 7919 % 256) as u8)).collect();
    let terms = vec![binary::Terms { scale: [0.01; 16], less: [0.0; 16] }; ROWS / 16];
    let tables = binary::Query::new(&query, 1.0);
    let seconds = time(|| binary::scores(isa, &tables, &groups, &terms, &mut out));
    rate("scan of signs, 100k x 384", groups.len() * 64, seconds);
}

fn row(what: &str, seconds: f64) {
    println!("{what:<48} {:>9.2} us", seconds * 1e6);
}

/// Products of all-MiniLM-L6-v2, in groups as its packed file has them.
fn int8(isa: Isa, peak: f64) {
    use Epilogue::{Add, Gelu, Store};
    for (m, k, n, group, epilogue) in [
        (128, 384, 1536, 192, Store),
        (128, 384, 1536, 192, Gelu),
        (128, 384, 1152, 192, Store),
        (128, 384, 384, 384, Add),
        (128, 1536, 384, 192, Add),
        (16, 384, 1536, 192, Gelu),
        (1, 384, 1536, 192, Gelu),
    ] {
        let (w, x) =
            (PackedRhs::pack(&values(n * k, 1), &values(n, 2), &vec![1.0; k], group).unwrap(), values(m * k, 3));
        let (mut codes, mut out) = (QuantizedRows::default(), vec![0.0; m * n]);
        codes.quantize(isa, &x, &w.layout());
        gemm(isa, &codes, &w, 0..n, epilogue, &mut out);
        // NEON's codes are shifted in memory, which the scalar kernel does not take.
        if isa.as_str() != "neon" {
            let mut expected = vec![0.0; m * n];
            gemm(Isa::Scalar, &codes, &w, 0..n, epilogue, &mut expected);
            assert!(out == expected, "{}: another result than the scalar kernel's", isa.as_str());
        }
        let seconds = time(|| gemm(isa, &codes, &w, 0..n, epilogue, &mut out));
        product_row(&format!("int8, groups of {group}, {epilogue:?}"), [m, k, n], seconds, peak);
    }
}

/// Products of a small Llama: of a token, and of a prompt.
fn int4(isa: Isa, peak: f64) {
    for (m, k, n) in [(1, 576, 1536), (1, 576, 49152), (128, 576, 1536)] {
        let blocks: Vec<_> = values(n * k, 1).as_chunks().0.iter().map(int4::Q4Block::quantize).collect();
        let (w, x) = (int4::PackedRhs::pack(&blocks, &vec![0.0; n]).unwrap(), values(m * k, 3));
        let (mut codes, mut out) = (QuantizedRows::default(), vec![0.0; m * n]);
        codes.quantize(isa, &x, &w.layout());
        let mut expected = vec![0.0; m * n];
        int4::gemm(isa, &codes, &w, 0..n, Epilogue::Store, &mut out);
        int4::gemm(Isa::Scalar, &codes, &w, 0..n, Epilogue::Store, &mut expected);
        assert!(out == expected, "{}: another result than the scalar kernel's", isa.as_str());
        let seconds = time(|| int4::gemm(isa, &codes, &w, 0..n, Epilogue::Store, &mut out));
        let what = format!("int4, {:.0} GB/s of weights", w.bytes().len() as f64 / seconds / 1e9);
        product_row(&what, [m, k, n], seconds, peak);
    }
}

fn rows(isa: Isa) {
    let w = PackedRhs::pack(&values(16 * 384, 1), &values(16, 2), &[1.0; 384], 192).unwrap();
    let (x, norm, mut codes) = (values(128 * 384, 3), values(384, 4), QuantizedRows::default());
    row("quantise 128 x 384", time(|| codes.quantize(isa, &x, &w.layout())));
    // From the same values each time: what they write would be other values to start from. The copy is counted.
    let mut out = x.clone();
    let mut of_copy = |operation: &dyn Fn(&mut [f32])| {
        time(|| {
            out.copy_from_slice(&x);
            operation(&mut out);
        })
    };
    row("GELU 128 x 384", of_copy(&|x| rowwise::gelu_erf(isa, x)));
    row("LayerNorm 128 x 384", of_copy(&|x| rowwise::layer_norm(isa, x, &norm, &norm, 1e-12)));
}

/// 12 heads of 32 over a text.
fn attention(isa: Isa, tokens: usize) {
    let (x, mut out) = (values(tokens * 1152, 5), vec![0.0; tokens * 384]);
    let x = Qkv { q: &x, k: &x[384..], v: &x[768..], stride: 1152 };
    let head = |h: usize| HeadSlice { sequence: 0..tokens, queries: 0..tokens, offset: 32 * h, head_dim: 32 };
    let mut scratch = attention8::SdpaScratch::default();
    let int8 = time(|| {
        (0..12).for_each(|h| attention8::sdpa(isa, x, &head(h), &mut scratch, &mut out[32 * h..], 384));
    });
    row(&format!("attention in int8, {tokens} tokens"), int8);
    let mut scratch = float::SdpaScratch::default();
    let float = time(|| (0..12).for_each(|h| float::sdpa(isa, x, &head(h), &mut scratch, &mut out[32 * h..], 384)));
    row(&format!("attention in f32, {tokens} tokens"), float);
}

fn main() {
    let names: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    for isa in Isa::available().into_iter().filter(|isa| names.is_empty() || names.iter().any(|n| n == isa.as_str())) {
        let peak = roofline::gops(isa);
        println!("\n{}: {peak:.0} GOP/s of int8 products in registers", isa.as_str());
        int8(isa, peak);
        int4(isa, peak);
        rows(isa);
        scans(isa);
        [16, 128, 256].iter().for_each(|tokens| attention(isa, *tokens));
    }
}
