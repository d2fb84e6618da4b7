//! Aligns text tokens with the audio: cross-attention weights of the alignment heads, and dynamic time warping.

use crate::families::whisper::Whisper;
use crate::families::whisper::decoder::{CrossKv, DecoderScratch};
use tealight_kernels::CpuContext;
use tealight_kernels::rowwise;

/// Width of the median filter, in encoder positions.
const MEDIAN_FILTER_WIDTH: usize = 7;

/// Attention weights `[tokens, positions]` of each token to the first encoder positions: the mean over the alignment heads of
/// weights that are standardized per position and median-filtered.
pub(super) fn alignment_weights(
    model: &Whisper,
    cpu: &CpuContext,
    cross_kv: &CrossKv,
    tokens: &[u32],
    positions: usize,
) -> Vec<f32> {
    let mut scratch = DecoderScratch::default();
    let queries = model.decoder.cross_queries(cpu, cross_kv, tokens, &mut scratch);
    let (d, head_dim) = (model.config.d_model, model.config.d_model / model.config.num_attention_heads);
    let mut mean = vec![0.0; tokens.len() * positions];
    let heads = alignment_heads(model);
    for (layer, head) in &heads {
        let keys = model.decoder.cross_keys(cpu, cross_kv, *layer, *head, positions);
        let query: Vec<f32> =
            queries[*layer].chunks_exact(d).flat_map(|q| &q[head * head_dim..(head + 1) * head_dim]).copied().collect();
        let mut weights = vec![0.0; tokens.len() * positions];
        rowwise::matmul(cpu.isa, &query, &keys, head_dim, &mut weights);
        let scale = 1.0 / (head_dim as f32).sqrt();
        for row in weights.chunks_exact_mut(positions) {
            row.iter_mut().for_each(|v| *v *= scale);
            rowwise::softmax(cpu.isa, row);
        }
        standardize(&mut weights, positions);
        weights.chunks_exact_mut(positions).for_each(median_filter);
        mean.iter_mut().zip(&weights).for_each(|(m, w)| *m += w / heads.len() as f32);
    }
    mean
}

/// (layer, head) of the heads that attend to the spoken word. By default, all heads in the second half of the layers.
fn alignment_heads(model: &Whisper) -> Vec<(usize, usize)> {
    if !model.config.alignment_heads.is_empty() {
        return model.config.alignment_heads.clone();
    }
    let layers = model.config.decoder_layers / 2..model.config.decoder_layers;
    layers.flat_map(|layer| (0..model.config.num_attention_heads).map(move |head| (layer, head))).collect()
}

/// Scales each column to mean 0 and standard deviation 1.
fn standardize(weights: &mut [f32], columns: usize) {
    let rows = (weights.len() / columns) as f32;
    for c in 0..columns {
        let column = || weights.iter().skip(c).step_by(columns);
        let mean = column().sum::<f32>() / rows;
        let deviation = (column().map(|v| (v - mean) * (v - mean)).sum::<f32>() / rows).sqrt().max(f32::MIN_POSITIVE);
        weights.iter_mut().skip(c).step_by(columns).for_each(|v| *v = (*v - mean) / deviation);
    }
}

/// Replaces each value by the median of its neighborhood; the row is mirrored at its ends.
fn median_filter(row: &mut [f32]) {
    let (half, last) = ((MEDIAN_FILTER_WIDTH / 2) as isize, row.len() as isize - 1);
    if last < half {
        return;
    }
    let original = row.to_vec();
    for (i, v) in row.iter_mut().enumerate() {
        let mut neighbors: [f32; MEDIAN_FILTER_WIDTH] = std::array::from_fn(|k| {
            let index = (i as isize + k as isize - half).abs();
            original[(if index > last { 2 * last - index } else { index }) as usize]
        });
        neighbors.sort_by(f32::total_cmp);
        *v = neighbors[MEDIAN_FILTER_WIDTH / 2];
    }
}

/// A step of the dynamic time warping path into a cell.
#[derive(Clone, Copy)]
enum Step {
    Diagonal,
    Down,
    Right,
}

/// The column at which each row starts on the monotonic path through `matrix [rows, columns]` with the largest sum (dynamic time
/// warping, Sakoe and Chiba 1978).
pub(super) fn dtw_path(matrix: &[f32], columns: usize) -> Vec<usize> {
    let rows = matrix.len() / columns;
    let index = |r: usize, c: usize| r * (columns + 1) + c;
    let mut cost = vec![f32::INFINITY; (rows + 1) * (columns + 1)];
    let mut steps = vec![Step::Diagonal; cost.len()];
    cost[0] = 0.0;
    for c in 1..=columns {
        for r in 1..=rows {
            let (diagonal, above, left) = (cost[index(r - 1, c - 1)], cost[index(r - 1, c)], cost[index(r, c - 1)]);
            let (min, step) = if diagonal < above && diagonal < left {
                (diagonal, Step::Diagonal)
            } else if above < diagonal && above < left {
                (above, Step::Down)
            } else {
                (left, Step::Right)
            };
            cost[index(r, c)] = min - matrix[(r - 1) * columns + c - 1];
            steps[index(r, c)] = step;
        }
    }
    let (mut r, mut c, mut starts) = (rows, columns, vec![0; rows]);
    while r > 0 && c > 0 {
        starts[r - 1] = c - 1;
        match steps[index(r, c)] {
            Step::Diagonal => (r, c) = (r - 1, c - 1),
            Step::Down => r -= 1,
            Step::Right => c -= 1,
        }
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dtw_path_follows_largest_values() {
        // Three tokens over six positions: the first is spoken at 0 to 2, the second at 2 to 3, the third from 3 on.
        let mut matrix = vec![-1.0; 18];
        for (token, position) in [(0, 0), (0, 1), (1, 2), (2, 3), (2, 4), (2, 5)] {
            matrix[token * 6 + position] = 1.0;
        }
        assert_eq!(dtw_path(&matrix, 6), [0, 2, 3]);
    }

    #[test]
    fn median_filter_mirrors_row_at_its_ends() {
        let mut row = [9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.0];
        median_filter(&mut row);
        // Around 0: 3 2 1 9 1 2 3; around 3: 9 1 2 3 4 5 6.
        assert_eq!((row[0], row[3]), (2.0, 4.0));
    }
}
