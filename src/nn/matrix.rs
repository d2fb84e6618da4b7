//! Weights as they stand in memory.

use super::Cpu;
use crate::error::{Error, Result};
use crate::kernels::q8_0::{self, Activations, BLOCK};
use crate::kernels::rowwise;
use bytes::Bytes;

/// A matrix `[N, K]` of weights.
#[derive(Debug, Clone)]
pub struct Matrix {
    values: Values,
    n: usize,
    k: usize,
}

#[derive(Debug, Clone)]
enum Values {
    /// Blocks of 32 along K, in the mapped file or in memory.
    Q8_0(Bytes),
    /// Row by row.
    F32(Vec<f32>),
}

impl Matrix {
    /// A matrix in Q8_0 bytes.
    ///
    /// # Errors
    /// K is not a multiple of 32, or the bytes are not N rows of K weights.
    pub fn q8_0(blocks: Bytes, n: usize, k: usize) -> Result<Self> {
        let count = q8_0::blocks(&blocks)?.len();
        if n == 0 || k == 0 || !k.is_multiple_of(BLOCK) || count != n * (k / BLOCK) {
            return Err(Error::model(format!("a Q8_0 matrix of {count} blocks is not [{n}, {k}]")));
        }
        Ok(Self { values: Values::Q8_0(blocks), n, k })
    }

    /// A matrix in f32, row by row.
    ///
    /// # Errors
    /// There are not N times K values.
    pub fn f32(values: Vec<f32>, n: usize, k: usize) -> Result<Self> {
        if n == 0 || k == 0 || values.len() != n * k {
            return Err(Error::model(format!("a matrix of {} values is not [{n}, {k}]", values.len())));
        }
        Ok(Self { values: Values::F32(values), n, k })
    }

    /// N.
    pub fn rows(&self) -> usize {
        self.n
    }

    /// K.
    pub fn columns(&self) -> usize {
        self.k
    }

    /// `out [T, N] = x [T, K] * W^T`; each value of `out` is computed in one order, whatever T is.
    pub fn multiply(&self, cpu: &Cpu, x: &[f32], out: &mut [f32]) -> Result<()> {
        match &self.values {
            Values::Q8_0(blocks) => {
                let x = Activations::quantise(x, self.k);
                q8_0::matmul(cpu.isa, &x, q8_0::blocks(blocks)?, out);
            }
            Values::F32(weights) => rowwise::matmul(cpu.isa, x, weights, self.k, out),
        }
        Ok(())
    }

    /// Writes row `i` to `out [K]`; touches no other row.
    pub fn row(&self, i: usize, out: &mut [f32]) -> Result<()> {
        if i >= self.n {
            return Err(Error::internal(format!("row {i} of a matrix with {} rows", self.n)));
        }
        match &self.values {
            Values::Q8_0(blocks) => {
                let width = self.k / BLOCK;
                q8_0::dequantise_row(&q8_0::blocks(blocks)?[i * width..][..width], out);
            }
            Values::F32(values) => out.copy_from_slice(&values[i * self.k..][..self.k]),
        }
        Ok(())
    }
}
