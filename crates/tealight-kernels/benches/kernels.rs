//! The speed of each kernel on each instruction set of this machine, on one thread.
//!
//! `cargo bench -p tealight-kernels --bench kernels [ISA...]` measures all instruction sets, or only those given. The results of
//! products are compared with the scalar kernel, bit for bit (except int8 on NEON, whose rows the scalar kernel rejects).
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::time::Instant;
use tealight_kernels::attention::int8::{SdpaScratch, sdpa};
use tealight_kernels::attention::{HeadSlice, Qkv, ScoreBias, ScoreMod};
use tealight_kernels::int8::{Epilogue, PackedRhs, gemm};
use tealight_kernels::quantize::QuantizedRows;
use tealight_kernels::scoring::{binary, int8 as scoring8};
use tealight_kernels::{Isa, int4, roofline, rowwise};

/// Calls per sample, and samples.
const CALLS: usize = 8;
const SAMPLES: usize = 51;

/// Pseudo-random values in [-1, 1) from a linear congruential generator.
fn values(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Median seconds per call.
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

fn print_product(name: &str, [m, k, n]: [usize; 3], seconds: f64, peak: f64) {
    let gops = 2.0 * (m * k * n) as f64 / seconds / 1e9;
    println!(
        "{name:<26} {m:>4} x {k:>4} x {n:>5} {:>9.1} us {gops:>6.0} GOP/s {:>4.0} %",
        seconds * 1e6,
        100.0 * gops / peak
    );
}

fn print_time(name: &str, seconds: f64) {
    println!("{name:<48} {:>9.2} us", seconds * 1e6);
}

fn print_rate(name: &str, bytes: usize, seconds: f64) {
    println!("{name:<48} {:>9.2} us {:>6.1} GB/s", seconds * 1e6, bytes as f64 / seconds / 1e9);
}

/// A query against 100,000 rows of 384 values, more than caches hold: int8 with the loop for the dimension and with the general
/// loop, and binary.
fn scoring(isa: Isa) {
    const ROWS: usize = 100_000;
    const D: usize = 384;
    let query = values(D, 1);
    let codes: Vec<scoring8::CodeGroup> =
        (0..ROWS / 16 * D / 4).map(|i| std::array::from_fn(|j| ((i * 64 + j) * 7919 % 255) as u8 as i8)).collect();
    let params = scoring8::BlockParams { scale: [0.01; 16], sum: [7; 16], score_offset: [0.0; 16] };
    let params = vec![params; ROWS / 16];
    let quantized = scoring8::QuantizedQuery::new(isa, &query);
    let mut out = vec![0.0; ROWS];
    let seconds = time(|| scoring8::scores(isa, &quantized, &codes, &params, &mut out));
    print_rate("scan int8, 100k x 384", codes.len() * 64, seconds);
    let seconds = time(|| scoring8::scores_any_dim(isa, &quantized, &codes, &params, &mut out));
    print_rate("scan int8, 100k x 384, general loop", codes.len() * 64, seconds);
    let codes: Vec<binary::CodeGroup> =
        (0..ROWS / 16 * D / 32).map(|i| std::array::from_fn(|j| ((i * 64 + j) * 7919 % 256) as u8)).collect();
    let params = vec![binary::BlockParams { scale: [0.01; 16], score_offset: [0.0; 16] }; ROWS / 16];
    let tables = binary::BinaryQuery::new(&query, 1.0);
    let seconds = time(|| binary::scores(isa, &tables, &codes, &params, &mut out));
    print_rate("scan binary, 100k x 384", codes.len() * 64, seconds);
}

/// Products of all-MiniLM-L6-v2, with the group sizes of its packed file.
fn int8_products(isa: Isa, peak: f64) {
    use Epilogue::{Add, Gelu, Store};
    for (m, k, n, group_size, epilogue) in [
        (128, 384, 1536, 192, Store),
        (128, 384, 1536, 192, Gelu),
        (128, 384, 1152, 192, Store),
        (128, 384, 384, 384, Add),
        (128, 1536, 384, 192, Add),
        (16, 384, 1536, 192, Gelu),
        (1, 384, 1536, 192, Gelu),
    ] {
        let rhs = PackedRhs::pack(&values(n * k, 1), &values(n, 2), &vec![1.0; k], group_size).unwrap();
        let (mut lhs, mut out) = (QuantizedRows::default(), vec![0.0; m * n]);
        lhs.quantize(isa, &values(m * k, 3), &rhs.layout());
        gemm(isa, &lhs, &rhs, 0..n, epilogue, &mut out);
        // NEON stores values with an offset, which the scalar kernel rejects.
        if isa.as_str() != "neon" {
            let mut expected = vec![0.0; m * n];
            gemm(Isa::Scalar, &lhs, &rhs, 0..n, epilogue, &mut expected);
            assert!(out == expected, "{}: result differs from the scalar kernel", isa.as_str());
        }
        let seconds = time(|| gemm(isa, &lhs, &rhs, 0..n, epilogue, &mut out));
        print_product(&format!("int8, groups of {group_size}, {epilogue:?}"), [m, k, n], seconds, peak);
    }
}

/// Products of a small Llama: of one token, of the logits, and of a prompt.
fn int4_products(isa: Isa, peak: f64) {
    for (m, k, n) in [(1, 576, 1536), (1, 576, 49152), (128, 576, 1536)] {
        let blocks: Vec<_> = values(n * k, 1).as_chunks().0.iter().map(int4::Q4Block::quantize).collect();
        let rhs = int4::PackedRhs::pack(&blocks, &vec![0.0; n]).unwrap();
        let (mut lhs, mut out) = (QuantizedRows::default(), vec![0.0; m * n]);
        lhs.quantize(isa, &values(m * k, 3), &rhs.layout());
        let mut expected = vec![0.0; m * n];
        int4::gemm(isa, &lhs, &rhs, 0..n, Epilogue::Store, &mut out);
        int4::gemm(Isa::Scalar, &lhs, &rhs, 0..n, Epilogue::Store, &mut expected);
        assert!(out == expected, "{}: result differs from the scalar kernel", isa.as_str());
        let seconds = time(|| int4::gemm(isa, &lhs, &rhs, 0..n, Epilogue::Store, &mut out));
        let name = format!("int4, {:.0} GB/s of weights", rhs.bytes().len() as f64 / seconds / 1e9);
        print_product(&name, [m, k, n], seconds, peak);
    }
}

fn row_operations(isa: Isa) {
    let rhs = PackedRhs::pack(&values(16 * 384, 1), &values(16, 2), &[1.0; 384], 192).unwrap();
    let (x, norm, mut lhs) = (values(128 * 384, 3), values(384, 4), QuantizedRows::default());
    print_time("quantize 128 x 384", time(|| lhs.quantize(isa, &x, &rhs.layout())));
    let blocks: Vec<_> = values(16 * 384, 1).as_chunks().0.iter().map(int4::Q4Block::quantize).collect();
    let rhs4 = int4::PackedRhs::pack(&blocks, &[0.0; 16]).unwrap();
    print_time("quantize 128 x 384, signed", time(|| lhs.quantize(isa, &x, &rhs4.layout())));
    // Each call starts from a copy of the same values, which is included in the time: repeated in place, the values would change.
    let mut out = x.clone();
    let mut time_on_copy = |operation: &dyn Fn(&mut [f32])| {
        time(|| {
            out.copy_from_slice(&x);
            operation(&mut out);
        })
    };
    print_time("GELU 128 x 384", time_on_copy(&|x| rowwise::gelu_erf(isa, x)));
    print_time("LayerNorm 128 x 384", time_on_copy(&|x| rowwise::layer_norm(isa, x, 384, &norm, &norm, 1e-12)));
}

/// 12 heads of 32 columns over one text.
fn attention(isa: Isa, tokens: usize) {
    let (x, mut out) = (values(tokens * 1152, 5), vec![0.0; tokens * 384]);
    let x = Qkv { q: &x, k: &x[384..], v: &x[768..], stride: 1152 };
    let head = |h: usize| HeadSlice { sequence: 0..tokens, queries: 0..tokens, first_column: 32 * h, head_dim: 32 };
    let mut scratch = SdpaScratch::default();
    let bias = vec![0.0; 2 * tokens - 1];
    let with_bias = Some(ScoreBias::relative(&bias, tokens, 0));
    for (name, bias) in [("", None), (" with a bias", with_bias)] {
        let score_mod = ScoreMod { bias, ..ScoreMod::scaled(32) };
        let seconds = time(|| {
            (0..12).for_each(|h| sdpa(isa, x, &head(h), score_mod, &mut scratch, &mut out[32 * h..], 384));
        });
        print_time(&format!("attention{name}, {tokens} tokens"), seconds);
    }
}

fn main() {
    let names: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    for isa in Isa::available().into_iter().filter(|isa| names.is_empty() || names.iter().any(|n| n == isa.as_str())) {
        let peak = roofline::int8_gops(isa);
        println!("\n{}: {peak:.0} GOP/s of int8 products in registers", isa.as_str());
        int8_products(isa, peak);
        int4_products(isa, peak);
        row_operations(isa);
        scoring(isa);
        [16, 128, 256].iter().for_each(|tokens| attention(isa, *tokens));
    }
}
