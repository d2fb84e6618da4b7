//! Rows of sign bits.
//!
//! 1. Centering: signs carry most information if values are negative as often as positive, so they are the signs of `r = x - m`,
//!    where `m` is the mean of all rows `x`. For a query `q`, `q.x = q.r + q.m`; `q.m` is the same for all rows and left out.
//! 2. Cosine and inner product: the kernel ([`scoring::binary`](tealight_kernels::scoring::binary)) estimates the product of a
//!    vector with `r`, with an error in proportion to the norm of the vector. Queries, like rows, have a large component along the
//!    mean, that is, along `e = m / |m|`. It is split off from `q`, so that the kernel estimates only the product of the smaller
//!    remainder; `r.e` is stored exactly, as the negative score offset of the row:
//!
//!    ```text
//!    q.r  =  (q - (q.e) e).r  +  (q.e) (r.e)
//!    ```
//! 3. Distance: `-|q - x|^2 / 2 = (q - m).r - |r|^2 / 2 - |q - m|^2 / 2`. The kernel estimates the first term, the second is the
//!    score offset of the row, and the third is the same for all rows and left out.
//!
//! All of this is computed from the stored float16 rows, in their order, so that a file does not depend on how many rows were added
//! at once.

use super::ScanQuery;
use crate::file::IndexFile;
use crate::format::{Metric, Section};
use crate::vectors::decode_f16;
use bytemuck::Zeroable;
use tealight_core::Result;
use tealight_kernels::Isa;
use tealight_kernels::scoring::binary::{BinaryQuery, BlockParams, CodeGroup, DIM_ALIGN, scores};
use tealight_kernels::scoring::{BLOCK_ROWS, F16_ALIGN};

impl ScanQuery for BinaryQuery {
    type CodeGroup = CodeGroup;
    type BlockParams = BlockParams;
    const SECTIONS: [Section; 2] = [Section::BinaryCodes, Section::BinaryParams];
    const DIM_ALIGN: usize = DIM_ALIGN;
    const RESCORE_FACTOR: usize = 20;
    const MIN_CANDIDATES: usize = 200;

    fn prepare(_: Isa, vector: &[f32], file: &IndexFile) -> Result<Self> {
        let mean = file.values(Section::Mean, 0..file.header.dimension)?;
        Ok(match file.header.metric {
            Metric::Cosine | Metric::Dot => {
                let direction = unit_vector(mean);
                let along = dot(vector, &direction) as f32;
                BinaryQuery::new(&sub_scaled(vector, &direction, along), along)
            }
            Metric::L2 => BinaryQuery::new(&sub_scaled(vector, mean, 1.0), 1.0),
        })
    }

    fn scores(&self, isa: Isa, codes: &[CodeGroup], params: &[BlockParams], out: &mut [f32]) {
        scores(isa, self, codes, params, out);
    }
}

/// The sections of a file for rows in float16 with their scales.
pub(super) fn sections(
    f16_rows: &[u16],
    f16_scales: &[f32],
    dimension: usize,
    metric: Metric,
) -> Vec<(Section, Vec<u8>)> {
    let encoded = f16_rows.chunks_exact(dimension.next_multiple_of(F16_ALIGN)).zip(f16_scales);
    let rows = || encoded.clone().map(|(halves, scale)| decode_f16(&halves[..dimension], *scale));
    let mean = mean(rows(), dimension);
    let direction = unit_vector(&mean);
    let (block_len, blocks) = (dimension.div_ceil(DIM_ALIGN), f16_scales.len().div_ceil(BLOCK_ROWS));
    let mut codes: Vec<CodeGroup> = vec![CodeGroup::zeroed(); block_len * blocks];
    let mut params = vec![BlockParams::zeroed(); blocks];
    for (row, values) in rows().enumerate() {
        let (block, lane) = (row / BLOCK_ROWS, row % BLOCK_ROWS);
        let centered = sub_scaled(&values, &mean, 1.0);
        set_signs(&mut codes[block * block_len..][..block_len], lane, &centered);
        params[block].scale[lane] = sign_scale(&centered);
        params[block].score_offset[lane] = match metric {
            Metric::Cosine | Metric::Dot => -dot(&centered, &direction) as f32,
            Metric::L2 => dot(&centered, &centered) as f32 / 2.0,
        };
    }
    let [codes_section, params_section] = BinaryQuery::SECTIONS;
    vec![
        (codes_section, bytemuck::cast_slice(&codes).to_vec()),
        (params_section, bytemuck::cast_slice(&params).to_vec()),
        (Section::Mean, bytemuck::cast_slice(&mean).to_vec()),
    ]
}

fn mean(rows: impl ExactSizeIterator<Item = Vec<f32>>, dimension: usize) -> Vec<f32> {
    let count = rows.len().max(1) as f64;
    let mut sums = vec![0.0; dimension];
    for row in rows {
        sums.iter_mut().zip(row).for_each(|(sum, v)| *sum += f64::from(v));
    }
    sums.iter().map(|sum| (sum / count) as f32).collect()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// `vector - factor * other`.
fn sub_scaled(vector: &[f32], other: &[f32], factor: f32) -> Vec<f32> {
    vector.iter().zip(other).map(|(v, o)| v - factor * o).collect()
}

/// The vector of norm 1 in the same direction, or zeros for a zero vector.
fn unit_vector(vector: &[f32]) -> Vec<f32> {
    let norm = dot(vector, vector).sqrt();
    let inv_norm = if norm > 0.0 { 1.0 / norm } else { 0.0 };
    vector.iter().map(|v| (f64::from(*v) * inv_norm) as f32).collect()
}

/// The scale for which the product of the scaled signs and the row equals the product of the row with itself.
fn sign_scale(row: &[f32]) -> f32 {
    let abs_sum = row.iter().map(|v| f64::from(v.abs())).sum::<f64>();
    if abs_sum > 0.0 { (dot(row, row) / abs_sum) as f32 } else { 0.0 }
}

/// Writes the signs of a row to its lane of a block.
fn set_signs(block: &mut [CodeGroup], lane: usize, row: &[f32]) {
    for (codes, values) in block.iter_mut().zip(row.chunks(DIM_ALIGN)) {
        for (i, values) in values.chunks(8).enumerate() {
            codes[i * BLOCK_ROWS + lane] =
                values.iter().enumerate().fold(0, |byte, (k, v)| byte | u8::from(*v > 0.0) << k);
        }
    }
}
