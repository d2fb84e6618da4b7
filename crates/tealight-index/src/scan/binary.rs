//! What is kept of rows and of a query where signs are gone through first.
//!
//! Signs say most where values are as often below 0 as above: so they are those of `r = x - m`, where `m` is the mean of all rows
//! `x`. A query `q` has the products `q.x = q.r + q.m`, of which the last is the same for all rows. The kernel estimates products
//! with `r` ([`kernels::signs`](tealight_kernels::binary)), and is off by a share of the vector that it is given. So it is given only what `q` has
//! perpendicular to `m`; along `e = m / |m|`, where queries are alike, the product is kept:
//!
//! ```text
//! q.r  =  (q - (q.e) e).r  +  (q.e) (r.e)
//! ```
//! Distances are those of what is left without the mean: `-|q - x|^2 / 2 = (q - m).r - |r|^2 / 2 - |q - m|^2 / 2`.
//!
//! All of it comes from rows as they are kept, in their order, so that a file does not depend on how many were added at once.

use super::build::floats;
use super::file::{Metric, Part};
use bytemuck::Zeroable;
use tealight_kernels::scoring::binary::{
    BinaryQuery as Query, BlockParams as Terms, CodeBlock as Group, DIM_ALIGN as STEP,
};
use tealight_kernels::scoring::{BLOCK_ROWS as ROWS, F16_ALIGN as HALVES};

/// The parts of a file for rows of half floats, each times its largest magnitude.
pub(super) fn sections(halves: &[u16], largest: &[f32], dimension: usize, metric: Metric) -> Vec<(Part, Vec<u8>)> {
    let all = halves.chunks_exact(dimension.next_multiple_of(HALVES)).zip(largest);
    let rows = || all.clone().map(|(halves, largest)| floats(&halves[..dimension], *largest));
    let mean = mean(rows(), dimension);
    let along = direction(&mean);
    let (groups, blocks) = (dimension.div_ceil(STEP), largest.len().div_ceil(ROWS));
    let mut signs: Vec<Group> = vec![Group::zeroed(); groups * blocks];
    let mut terms = vec![Terms::zeroed(); blocks];
    for (row, values) in rows().enumerate() {
        let (block, lane) = (row / ROWS, row % ROWS);
        let rest = less(&values, &mean, 1.0);
        set(&mut signs[block * groups..][..groups], lane, &rest);
        terms[block].scale[lane] = scale(&rest);
        terms[block].score_offset[lane] = match metric {
            Metric::Cosine | Metric::Dot => -product(&rest, &along) as f32,
            Metric::L2 => product(&rest, &rest) as f32 / 2.0,
        };
    }
    let [first, second] = Part::BINARY;
    vec![
        (first, bytemuck::cast_slice(&signs).to_vec()),
        (second, bytemuck::cast_slice(&terms).to_vec()),
        (Part::Mean, bytemuck::cast_slice(&mean).to_vec()),
    ]
}

/// A query for the kernel.
pub(super) fn query(vector: &[f32], mean: &[f32], metric: Metric) -> Query {
    match metric {
        Metric::Cosine | Metric::Dot => {
            let along = direction(mean);
            let much = product(vector, &along) as f32;
            Query::new(&less(vector, &along, much), much)
        }
        Metric::L2 => Query::new(&less(vector, mean, 1.0), 1.0),
    }
}

fn mean(rows: impl ExactSizeIterator<Item = Vec<f32>>, dimension: usize) -> Vec<f32> {
    let count = rows.len().max(1) as f64;
    let mut sums = vec![0.0; dimension];
    for row in rows {
        sums.iter_mut().zip(row).for_each(|(sum, v)| *sum += f64::from(v));
    }
    sums.iter().map(|sum| (sum / count) as f32).collect()
}

fn product(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// `vector - much of`.
fn less(vector: &[f32], of: &[f32], much: f32) -> Vec<f32> {
    vector.iter().zip(of).map(|(v, of)| v - much * of).collect()
}

/// A vector of length 1 in the same direction, or zeros where it has none.
fn direction(vector: &[f32]) -> Vec<f32> {
    let length = product(vector, vector).sqrt();
    let over = if length > 0.0 { 1.0 / length } else { 0.0 };
    vector.iter().map(|v| (f64::from(*v) * over) as f32).collect()
}

/// What a sign of a row stands for, so that the product with the row is right.
fn scale(row: &[f32]) -> f32 {
    let magnitudes = row.iter().map(|v| f64::from(v.abs())).sum::<f64>();
    if magnitudes > 0.0 { (product(row, row) / magnitudes) as f32 } else { 0.0 }
}

/// Writes the signs of a row, as the kernel reads them.
fn set(groups: &mut [Group], lane: usize, row: &[f32]) {
    for (group, values) in groups.iter_mut().zip(row.chunks(STEP)) {
        for (i, values) in values.chunks(8).enumerate() {
            group[i * ROWS + lane] = values.iter().enumerate().fold(0, |byte, (k, v)| byte | u8::from(*v > 0.0) << k);
        }
    }
}
