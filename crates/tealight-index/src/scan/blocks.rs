//! Interleaves the quantized values of rows into blocks.

use tealight_kernels::scoring::{BLOCK_ROWS, int8};

/// Bytes of a row in a code group, for int8 and for 4-bit values.
const LANE_BYTES: usize = int8::DIM_ALIGN;

/// Stores quantized rows `[rows, dimension]` in blocks, as the kernels read them. A code group has `dim_align` adjacent values
/// of each row. 4-bit values are twice as many as its bytes: the second half of them is stored in the upper four bits.
pub(super) fn interleave(quantized: &[i8], dimension: usize, dim_align: usize) -> Vec<u8> {
    let block_len = dimension.div_ceil(dim_align);
    let blocks = (quantized.len() / dimension).div_ceil(BLOCK_ROWS);
    let mut out = vec![0u8; blocks * block_len * BLOCK_ROWS * LANE_BYTES];
    for (row, values) in quantized.chunks_exact(dimension).enumerate() {
        let (block, lane) = (row / BLOCK_ROWS, row % BLOCK_ROWS);
        for (k, value) in values.iter().enumerate() {
            let code_group = (block * block_len + k / dim_align) * BLOCK_ROWS;
            let byte = &mut out[(code_group + lane) * LANE_BYTES + k % LANE_BYTES];
            *byte |= (*value as u8) << if k % dim_align < LANE_BYTES { 0 } else { 4 };
        }
    }
    out
}
