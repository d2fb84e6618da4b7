//! Products with int8 weights on Intel AMX: tiles of 16 rows of 64 bytes, and an instruction that multiplies two tiles.
//!
//! Rust has no stable intrinsics for AMX, so its instructions are written in `asm!`. Each block holds a whole loop over K, because
//! code that the compiler places between two blocks would not preserve the tiles. Reference: Intel's manual, volume 1, chapter 18.
#![allow(clippy::needless_range_loop)] // Indices are rows and columns of tiles.

use super::packed::{K_ALIGN, PackedRhs, check_encoding};
use crate::gemm::{Epilogue, NR, OutputMatrix, RhsFormat, add_group, column_block};
use crate::isa::Isa;
use crate::quantize::{QuantizedRows, ROW_ALIGN};
use crate::simd::{Avx512, LANES, Simd};
use std::arch::asm;
use std::ops::Range;

/// Up to this many rows are multiplied with AVX-512, because a tile of 16 rows would be mostly padding. No comparison with other
/// values is recorded: no machine with AMX was available.
pub(super) const MAX_VECTOR_ROWS: usize = 4;

/// Rows of an AMX tile register, which holds 16 rows of 64 bytes.
const AMX_TILE_ROWS: usize = 16;
/// Panels of a block: two tiles of rows, two of weights and four of sums are all eight tiles, and each loaded tile is used twice.
const PANELS: usize = 2;
const COLUMNS: usize = PANELS * NR;

/// The shapes of the tiles, in the format of `ldtilecfg`.
#[repr(C, align(64))]
struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// All eight tiles at their full size, 16 rows of 64 bytes.
static FULL_TILES: TileConfig = TileConfig {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// The integer sums of a block.
#[repr(C, align(64))]
struct IntSums([[i32; COLUMNS]; ROW_ALIGN]);

/// The float sums of a block over the groups so far.
#[repr(C, align(64))]
struct FloatSums([[f32; COLUMNS]; ROW_ALIGN]);

/// Same as [`int8::gemm`](super::gemm), which has checked all sizes.
pub(super) fn gemm(
    isa: Isa,
    lhs: &QuantizedRows,
    rhs: &PackedRhs,
    columns: Range<usize>,
    epilogue: Epilogue,
    out: &mut [f32],
) {
    assert!(matches!(isa, Isa::Amx(_)));
    check_encoding::<Avx512>(lhs);
    let out = OutputMatrix { data: out.as_mut_ptr(), stride: columns.len(), first_column: columns.start, epilogue };
    // SAFETY: the instruction set includes AMX and AVX-512; the caller checked rows and columns.
    unsafe {
        asm!("ldtilecfg [{}]", in(reg) &FULL_TILES, options(nostack, readonly));
        gemm_tiles(lhs, rhs, columns, out);
        asm!("tilerelease", options(nostack, nomem));
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn gemm_tiles(lhs: &QuantizedRows, rhs: &PackedRhs, columns: Range<usize>, out: OutputMatrix) {
    let wide_end = columns.start + columns.len() / COLUMNS * COLUMNS;
    let mut sums = [const { IntSums([[0; COLUMNS]; ROW_ALIGN]) }; 2];
    let mut partial = FloatSums([[0.0; COLUMNS]; ROW_ALIGN]);
    // SAFETY: blocks begin at rows of `lhs` and at columns before `wide_end`, each of which has two panels.
    unsafe {
        for column in (columns.start..wide_end).step_by(COLUMNS) {
            let count = lhs.rows().div_ceil(ROW_ALIGN) * lhs.groups;
            let block = |i: usize| BlockIndex { row: i / lhs.groups * ROW_ALIGN, column, group: i % lhs.groups };
            multiply_block(lhs, rhs, block(0), &mut sums[0]);
            for i in 0..count {
                // The next block is started before this one is scaled: neither needs the other's result, so the tile unit and the vector
                // units can overlap. The gain has not been measured.
                if i + 1 < count {
                    multiply_block(lhs, rhs, block(i + 1), &mut sums[(i + 1) % 2]);
                }
                scale_block(lhs, rhs, block(i), &sums[i % 2], &mut partial, out);
            }
        }
        for c in (wide_end..columns.end).step_by(NR) {
            column_block::<Avx512, PackedRhs, 4, 1>(lhs, rhs, c, out);
        }
    }
}

/// One group along K of a block of rows and columns.
#[derive(Clone, Copy)]
struct BlockIndex {
    row: usize,
    column: usize,
    group: usize,
}

/// Computes the integer sums of a block of 32 rows, or of 16 at the end.
#[inline(always)]
unsafe fn multiply_block(lhs: &QuantizedRows, rhs: &PackedRhs, block: BlockIndex, sums: &mut IntSums) {
    let range = rhs.group_range(block.group);
    // SAFETY: the memory of `lhs` is a multiple of `ROW_ALIGN` rows; the caller has two panels.
    unsafe {
        let values = lhs.bytes.as_ptr().add(block.row * lhs.padded_k + range.start);
        let first = rhs.weights(rhs.panel(block.column), block.group);
        let second = rhs.weights(rhs.panel(block.column + NR), block.group);
        let (steps, out) = (range.len() / K_ALIGN, sums.0.as_mut_ptr());
        if lhs.rows() - block.row > AMX_TILE_ROWS {
            multiply_32(values, lhs.padded_k, first, second, steps, out.cast());
        } else {
            multiply_16(values, lhs.padded_k, first, second, steps, out.cast());
        }
    }
}

/// Multiplies 32 rows, `stride` bytes apart, by two panels.
#[inline(always)]
unsafe fn multiply_32(lhs: *const u8, stride: usize, w0: *const u8, w1: *const u8, steps: usize, out: *mut i32) {
    // SAFETY: the caller has `64 * steps` values in each of 32 rows, as many weights of 16 outputs in each panel, and 32 rows of 32
    // sums; tiles have their full size.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm6, [{w0} + {row}*1]",
            "tileloadd tmm4, [{a0} + {stride}*1]",
            "tdpbusd tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{w1} + {row}*1]",
            "tdpbusd tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a1} + {stride}*1]",
            "tdpbusd tmm2, tmm5, tmm6",
            "tdpbusd tmm3, tmm5, tmm7",
            "add {w0}, 1024",
            "add {w1}, 1024",
            "add {a0}, 64",
            "add {a1}, 64",
            "dec {steps}",
            "jnz 2b",
            "shl {row}, 1",
            "tilestored [{out} + {row}*1], tmm0",
            "tilestored [{out} + {row}*1 + 64], tmm1",
            "tilestored [{out} + {row}*1 + 2048], tmm2",
            "tilestored [{out} + {row}*1 + 2112], tmm3",
            w0 = inout(reg) w0 => _,
            w1 = inout(reg) w1 => _,
            a0 = inout(reg) lhs => _,
            a1 = inout(reg) lhs.add(AMX_TILE_ROWS * stride) => _,
            stride = in(reg) stride,
            row = inout(reg) 4 * NR => _,
            steps = inout(reg) steps => _,
            out = in(reg) out,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// Multiplies 16 rows, `stride` bytes apart, by two panels.
#[inline(always)]
unsafe fn multiply_16(lhs: *const u8, stride: usize, w0: *const u8, w1: *const u8, steps: usize, out: *mut i32) {
    // SAFETY: as above, for 16 rows.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "2:",
            "tileloadd tmm6, [{w0} + {row}*1]",
            "tileloadd tmm4, [{a0} + {stride}*1]",
            "tdpbusd tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{w1} + {row}*1]",
            "tdpbusd tmm1, tmm4, tmm7",
            "add {w0}, 1024",
            "add {w1}, 1024",
            "add {a0}, 64",
            "dec {steps}",
            "jnz 2b",
            "shl {row}, 1",
            "tilestored [{out} + {row}*1], tmm0",
            "tilestored [{out} + {row}*1 + 64], tmm1",
            w0 = inout(reg) w0 => _,
            w1 = inout(reg) w1 => _,
            a0 = inout(reg) lhs => _,
            stride = in(reg) stride,
            row = inout(reg) 4 * NR => _,
            steps = inout(reg) steps => _,
            out = in(reg) out,
            out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// Scales the integer sums of a block, adds them to the sums of the groups before it, and stores the result of the last group.
#[inline(always)]
unsafe fn scale_block(
    lhs: &QuantizedRows,
    rhs: &PackedRhs,
    block: BlockIndex,
    sums: &IntSums,
    partial: &mut FloatSums,
    out: OutputMatrix,
) {
    let rows = ROW_ALIGN.min(lhs.rows() - block.row);
    // SAFETY: the caller has two panels and AVX-512; rows are those of `lhs`.
    unsafe {
        for j in 0..PANELS {
            let column = block.column + j * NR;
            let panel = rhs.panel(column);
            let (scale, offset) = rhs.scale_and_offset::<Avx512>(panel, block.group);
            let bias = rhs.bias::<Avx512>(panel);
            for r in 0..rows {
                let row_scale = lhs.row_scales[(block.row + r) * lhs.groups + block.group];
                let before = partial.0[r].as_mut_ptr().add(j * LANES);
                let y = if block.group == 0 { bias } else { Avx512::load(before) };
                let sum = Avx512::int_load(sums.0[r].as_ptr().add(j * LANES));
                let y = add_group(y, row_scale, sum, scale, offset);
                if block.group + 1 == lhs.groups {
                    out.store(block.row + r, column, y);
                } else {
                    y.store(before);
                }
            }
        }
    }
}

/// Multiplies tiles of zeros and returns the number of operations, to measure the peak rate.
pub(crate) fn multiply_zeros(isa: Isa, repeats: usize) -> usize {
    const TILES: usize = 4;
    assert!(matches!(isa, Isa::Amx(_)));
    // SAFETY: the instruction set includes AMX; tiles have their full size, and no memory is accessed.
    unsafe {
        asm!(
            "ldtilecfg [{config}]",
            "2:",
            "tdpbusd tmm0, tmm4, tmm6",
            "tdpbusd tmm1, tmm4, tmm7",
            "tdpbusd tmm2, tmm5, tmm6",
            "tdpbusd tmm3, tmm5, tmm7",
            "dec {repeats}",
            "jnz 2b",
            "tilerelease",
            config = in(reg) &FULL_TILES,
            repeats = inout(reg) repeats.max(1) => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
    repeats * TILES * 2 * AMX_TILE_ROWS * NR * K_ALIGN
}
