//! Emulates AMX with a SIGILL handler on CPUs without it.
//!
//! Written from Intel's manual (volume 2, the instructions of AMX; volume 1, chapter 18), for the instructions that the
//! kernels use: LDTILECFG, TILERELEASE, TILEZERO, TILELOADD, TILESTORED, TDPBUSD.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::sync::Once;
use tealight_kernels::Isa;

const ROW: usize = 64;

struct Tiles {
    rows: [usize; 8],
    columns: [usize; 8],
    bytes: [[[u8; ROW]; 16]; 8],
}

thread_local! {
    static TILES: UnsafeCell<Tiles> = const {
        UnsafeCell::new(Tiles { rows: [0; 8], columns: [0; 8], bytes: [[[0; ROW]; 16]; 8] })
    };
}

/// Emulated AMX; `None` without AVX-512 VNNI, which the AMX kernels also use.
pub fn emulated() -> Option<Isa> {
    static HANDLER: Once = Once::new();
    Isa::from_name("avx512vnni").ok()?;
    HANDLER.call_once(install);
    // SAFETY: the CPU has AVX-512 VNNI, and the handler emulates AMX.
    Some(unsafe { Isa::emulated_amx() })
}

fn install() {
    // SAFETY: a zeroed action is valid, and the handler has the signature that SA_SIGINFO requires.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_illegal as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        assert_eq!(libc::sigaction(libc::SIGILL, &action, std::ptr::null_mut()), 0);
    }
}

extern "C" fn on_illegal(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes the context of the instruction that raised the signal; nothing else uses it or the tiles of
    // this thread at the same time.
    unsafe {
        let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let code = registers[libc::REG_RIP as usize] as *const u8;
        match TILES.with(|tiles| execute(&mut *tiles.get(), code, registers)) {
            Some(length) => registers[libc::REG_RIP as usize] += length as i64,
            // Not AMX: restores the default handler, so that the instruction faults again and ends the process.
            None => drop(libc::signal(libc::SIGILL, libc::SIG_DFL)),
        }
    }
}

/// A general register by its number in instructions.
fn register(registers: &[i64; 23], number: u8) -> u64 {
    use libc::*;
    let order = [
        REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI, REG_R8, REG_R9, REG_R10, REG_R11,
        REG_R12, REG_R13, REG_R14, REG_R15,
    ];
    registers[order[number as usize] as usize] as u64
}

/// The memory operand: base with displacement, scaled index, and the length of the instruction.
unsafe fn memory(code: *const u8, registers: &[i64; 23]) -> (u64, u64, usize) {
    // SAFETY: the caller's code is an instruction that the CPU decoded.
    unsafe {
        let (prefix, modrm) = (*code.add(1), *code.add(4));
        let (mode, low) = (modrm >> 6, modrm & 7);
        let high = |bit: u8| if prefix & bit == 0 { 8 } else { 0 };
        let mut at = 5;
        let (base, index) = if low == 4 {
            let sib = *code.add(at);
            at += 1;
            let index = (sib >> 3 & 7) | high(0x40);
            let scaled = if index == 4 { 0 } else { register(registers, index) << (sib >> 6) };
            assert!(mode != 0 || sib & 7 != 5, "an operand without a base");
            (register(registers, (sib & 7) | high(0x20)), scaled)
        } else {
            assert!(mode != 0 || low != 5, "an operand relative to the instruction");
            (register(registers, low | high(0x20)), 0)
        };
        let displacement = match mode {
            1 => *code.add(at).cast::<i8>() as i64,
            2 => code.add(at).cast::<i32>().read_unaligned() as i64,
            _ => 0,
        };
        let length = at + [0, 1, 4, 0][mode as usize];
        (base.wrapping_add_signed(displacement), index, length)
    }
}

/// Executes an AMX instruction; returns its length.
unsafe fn execute(tiles: &mut Tiles, code: *const u8, registers: &[i64; 23]) -> Option<usize> {
    // SAFETY: the code is an instruction, and its operands are memory that the program may use.
    unsafe {
        let [vex, map, tail, opcode, modrm] = *code.cast::<[u8; 5]>();
        // VEX of three bytes, map 0F38, W0, 128 bits.
        if vex != 0xc4 || map & 0x1f != 2 || tail & 0x84 != 0 {
            return None;
        }
        let (prefix, in_memory, tile) = (tail & 3, modrm >> 6 != 3, (modrm >> 3 & 7) as usize);
        match (opcode, prefix, in_memory) {
            (0x49, 0, true) => {
                let (address, index, length) = memory(code, registers);
                configure(tiles, &*(address.wrapping_add(index) as *const [u8; 64]));
                Some(length)
            }
            (0x49, 0, false) => {
                configure(tiles, &[0; 64]);
                Some(5)
            }
            (0x49, 3, false) => {
                tiles.bytes[tile] = [[0; ROW]; 16];
                Some(5)
            }
            (0x4b, 2 | 3, true) => {
                let (start, stride, length) = memory(code, registers);
                for row in 0..tiles.rows[tile] {
                    let memory_row = start.wrapping_add(stride.wrapping_mul(row as u64)) as *mut u8;
                    let tile_row = &mut tiles.bytes[tile][row];
                    let columns = tiles.columns[tile];
                    if prefix == 3 {
                        *tile_row = [0; ROW];
                        memory_row.copy_to_nonoverlapping(tile_row.as_mut_ptr(), columns);
                    } else {
                        memory_row.copy_from_nonoverlapping(tile_row.as_ptr(), columns);
                    }
                }
                Some(length)
            }
            (0x5e, 1, false) => {
                let (lhs, weights) = ((modrm & 7) as usize, (!(tail >> 3) & 7) as usize);
                assert!(tile != lhs && tile != weights && lhs != weights, "three tiles");
                multiply(tiles, tile, lhs, weights);
                Some(5)
            }
            _ => None,
        }
    }
}

fn configure(tiles: &mut Tiles, bytes: &[u8; 64]) {
    assert!(bytes[0] <= 1 && bytes[1] == 0, "palette and start row");
    for tile in 0..8 {
        tiles.columns[tile] = u16::from_le_bytes([bytes[16 + 2 * tile], bytes[17 + 2 * tile]]) as usize;
        tiles.rows[tile] = bytes[48 + tile] as usize;
        assert!(tiles.columns[tile] <= ROW && tiles.rows[tile] <= 16);
        tiles.bytes[tile] = [[0; ROW]; 16];
    }
}

/// TDPBUSD: adds the products of four unsigned and four signed bytes to each 32-bit sum.
fn multiply(tiles: &mut Tiles, sums: usize, lhs: usize, weights: usize) {
    assert_eq!(tiles.columns[lhs] / 4, tiles.rows[weights]);
    assert_eq!((tiles.rows[sums], tiles.columns[sums]), (tiles.rows[lhs], tiles.columns[weights]));
    for m in 0..tiles.rows[sums] {
        for n in 0..tiles.columns[sums] / 4 {
            let old = &tiles.bytes[sums][m][4 * n..4 * n + 4];
            let mut sum = i32::from_le_bytes([old[0], old[1], old[2], old[3]]);
            for k in 0..tiles.rows[weights] {
                for i in 0..4 {
                    let product =
                        tiles.bytes[lhs][m][4 * k + i] as i32 * (tiles.bytes[weights][k][4 * n + i] as i8) as i32;
                    sum = sum.wrapping_add(product);
                }
            }
            tiles.bytes[sums][m][4 * n..4 * n + 4].copy_from_slice(&sum.to_le_bytes());
        }
    }
}
