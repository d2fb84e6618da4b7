//! Products of int8 weights by Intel's AMX: tiles of 16 rows of 64 bytes, and an instruction that multiplies two of them.
//!
//! Rust has no stable intrinsics for AMX, so that its instructions stand in `asm!`, a whole loop over K in one block: tiles
//! would not survive anything in between that the compiler might put there. Intel's manual, volume 1, chapter 18.
#![allow(clippy::needless_range_loop)] // Indices are rows and columns of tiles.

use super::Isa;
use super::gemm::{Epilogue, NR, OutputMatrix, RhsFormat, add_group, column};
use super::int8::{K_ALIGN, PackedRhs, check_codes};
use super::quantize::{MC, QuantizedRows};
use super::simd::{Avx512, LANES, Simd};
use std::arch::asm;
use std::ops::Range;

/// Up to so many rows, vectors are faster than tiles of 16.
pub(super) const FEWEST_ROWS: usize = 4;

/// Rows of a tile.
const TILE_ROWS: usize = 16;
/// Panels of a block: two tiles of rows by two of columns use six tiles, and each that is loaded is used twice.
const PANELS: usize = 2;
const COLUMNS: usize = PANELS * NR;

/// Whether the CPU has AMX with int8 and the kernel lets this process use it.
pub(super) fn permitted() -> bool {
    static PERMITTED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *PERMITTED.get_or_init(|| reported() && allow())
}

/// CPUID reports tiles and their int8 products, and XCR0 that the kernel saves tiles.
fn reported() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
    const OSXSAVE: u32 = 1 << 27;
    const TILE_AND_INT8: u32 = 1 << 24 | 1 << 25;
    const TILE_STATE: u64 = 1 << 17 | 1 << 18;
    if __cpuid(0).eax < 7 || __cpuid(1).ecx & OSXSAVE == 0 {
        return false;
    }
    // SAFETY: OSXSAVE says that the instruction is there.
    let saved = unsafe { _xgetbv(0) };
    __cpuid_count(7, 0).edx & TILE_AND_INT8 == TILE_AND_INT8 && saved & TILE_STATE == TILE_STATE
}

/// Asks Linux for the permission to use tiles, once for the process (Documentation/arch/x86/xstate.rst).
#[cfg(target_os = "linux")]
fn allow() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const REQUEST_PERMISSION: i64 = 0x1023;
    const TILE_DATA: i64 = 18;
    let result: i64;
    // SAFETY: a system call that changes nothing but what this process may use.
    unsafe {
        asm!("syscall", inlateout("rax") ARCH_PRCTL => result, in("rdi") REQUEST_PERMISSION, in("rsi") TILE_DATA,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn allow() -> bool {
    false
}

/// The shapes of tiles, as `ldtilecfg` reads them.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes_of_rows: [u16; 16],
    rows: [u8; 16],
}

/// All eight tiles at their largest.
static WHOLE_TILES: Configuration = Configuration {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    bytes_of_rows: [K_ALIGN as u16, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [TILE_ROWS as u8, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// Integer sums of a block.
#[repr(C, align(64))]
struct Sums([[i32; COLUMNS]; MC]);

/// Float sums of a block.
#[repr(C, align(64))]
struct Partial([[f32; COLUMNS]; MC]);

/// As [`int8::gemm`](super::int8::gemm), which has checked all sizes.
pub(super) fn gemm(
    isa: Isa,
    x: &QuantizedRows,
    w: &PackedRhs,
    columns: Range<usize>,
    epilogue: Epilogue,
    out: &mut [f32],
) {
    assert!(matches!(isa, Isa::Amx(_)));
    check_codes::<Avx512>(x);
    let at = OutputMatrix { out: out.as_mut_ptr(), stride: columns.len(), first: columns.start, epilogue };
    // SAFETY: the set vouches for AMX and for AVX-512; rows and columns are those that the caller checked.
    unsafe {
        asm!("ldtilecfg [{}]", in(reg) &WHOLE_TILES, options(nostack, readonly));
        tiles(x, w, columns, at);
        asm!("tilerelease", options(nostack, nomem));
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn tiles(x: &QuantizedRows, w: &PackedRhs, columns: Range<usize>, at: OutputMatrix) {
    let wide = columns.start + columns.len() / COLUMNS * COLUMNS;
    let mut sums = [const { Sums([[0; COLUMNS]; MC]) }; 2];
    let mut partial = Partial([[0.0; COLUMNS]; MC]);
    // SAFETY: blocks begin at rows of `x` and at columns before `wide`, of which each has two panels.
    unsafe {
        for column in (columns.start..wide).step_by(COLUMNS) {
            let blocks = x.rows().div_ceil(MC) * x.groups;
            let place = |i: usize| Place { row: i / x.groups * MC, column, group: i % x.groups };
            multiply(x, w, place(0), &mut sums[0]);
            for i in 0..blocks {
                // The next block is begun first, so that tiles and vectors work at the same time.
                if i + 1 < blocks {
                    multiply(x, w, place(i + 1), &mut sums[(i + 1) % 2]);
                }
                add(x, w, place(i), &sums[i % 2], &mut partial, at);
            }
        }
        for c in (wide..columns.end).step_by(NR) {
            column::<Avx512, PackedRhs, 4, 1>(x, w, c, at);
        }
    }
}

/// A group of a block.
#[derive(Clone, Copy)]
struct Place {
    row: usize,
    column: usize,
    group: usize,
}

/// The integer sums of a group, of 32 rows or, where no more are left, of 16.
#[inline(always)]
unsafe fn multiply(x: &QuantizedRows, w: &PackedRhs, place: Place, sums: &mut Sums) {
    let range = w.group_range(place.group);
    // SAFETY: memory for codes is whole blocks of rows; the caller has two panels.
    unsafe {
        let codes = x.bytes.as_ptr().add(place.row * x.padded_k + range.start);
        let first = w.weights(w.panel(place.column), place.group);
        let second = w.weights(w.panel(place.column + NR), place.group);
        let (steps, out) = (range.len() / K_ALIGN, sums.0.as_mut_ptr());
        if x.rows() - place.row > TILE_ROWS {
            multiply_32(codes, x.padded_k, first, second, steps, out.cast());
        } else {
            multiply_16(codes, x.padded_k, first, second, steps, out.cast());
        }
    }
}

/// 32 rows of codes, `stride` apart, by two panels.
#[inline(always)]
unsafe fn multiply_32(codes: *const u8, stride: usize, w0: *const u8, w1: *const u8, steps: usize, out: *mut i32) {
    // SAFETY: the caller has `64 steps` codes of 32 rows, as many weights of 16 outputs in each panel, and 32 rows of 32
    // sums; tiles are configured whole.
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
            a0 = inout(reg) codes => _,
            a1 = inout(reg) codes.add(TILE_ROWS * stride) => _,
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

/// 16 rows of codes, `stride` apart, by two panels.
#[inline(always)]
unsafe fn multiply_16(codes: *const u8, stride: usize, w0: *const u8, w1: *const u8, steps: usize, out: *mut i32) {
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
            a0 = inout(reg) codes => _,
            stride = in(reg) stride,
            row = inout(reg) 4 * NR => _,
            steps = inout(reg) steps => _,
            out = in(reg) out,
            out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// Scales the sums of a group, adds them to those of the groups before it, and puts the last where they belong.
#[inline(always)]
unsafe fn add(x: &QuantizedRows, w: &PackedRhs, place: Place, sums: &Sums, partial: &mut Partial, at: OutputMatrix) {
    let rows = MC.min(x.rows() - place.row);
    // SAFETY: the caller has two panels and AVX-512; rows are those of `x`.
    unsafe {
        for j in 0..PANELS {
            let column = place.column + j * NR;
            let panel = w.panel(column);
            let (scale, constant) = w.scale_and_offset::<Avx512>(panel, place.group);
            let bias = w.bias::<Avx512>(panel);
            for r in 0..rows {
                let terms = x.row_scales[(place.row + r) * x.groups + place.group];
                let before = partial.0[r].as_mut_ptr().add(j * LANES);
                let y = if place.group == 0 { bias } else { Avx512::load(before) };
                let sum = Avx512::int_load(sums.0[r].as_ptr().add(j * LANES));
                let y = add_group(y, terms, sum, scale, constant);
                match place.group + 1 == x.groups {
                    true => at.store(place.row + r, column, y),
                    false => y.store(before),
                }
            }
        }
    }
}

/// Multiplies tiles of zeros; returns how many operations that were.
pub(super) fn peak(isa: Isa, repeats: usize) -> usize {
    const TILES: usize = 4;
    assert!(matches!(isa, Isa::Amx(_)));
    // SAFETY: the set vouches for AMX; tiles are configured whole, and nothing in memory is touched.
    unsafe {
        asm!(
            "ldtilecfg [{configuration}]",
            "2:",
            "tdpbusd tmm0, tmm4, tmm6",
            "tdpbusd tmm1, tmm4, tmm7",
            "tdpbusd tmm2, tmm5, tmm6",
            "tdpbusd tmm3, tmm5, tmm7",
            "dec {repeats}",
            "jnz 2b",
            "tilerelease",
            configuration = in(reg) &WHOLE_TILES,
            repeats = inout(reg) repeats.max(1) => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
    repeats * TILES * 2 * TILE_ROWS * NR * K_ALIGN
}
