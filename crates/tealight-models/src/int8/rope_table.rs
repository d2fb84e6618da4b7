//! The angles of rotary position embeddings, computed once for each position.

use crate::layers::Rope;
use std::sync::{Arc, PoisonError, RwLock};

/// Cosines and sines of a rotation, shared by the layers that rotate alike. The table grows with the longest text so far.
#[derive(Debug)]
pub struct RopeTable {
    rope: Rope,
    /// `[positions, rotary_dim / 2]`.
    cos_sin: RwLock<Arc<Vec<(f32, f32)>>>,
}

impl RopeTable {
    /// A table that is still empty.
    pub fn new(rope: Rope) -> Self {
        Self { rope, cos_sin: RwLock::default() }
    }

    /// The rotation.
    pub fn rope(&self) -> &Rope {
        &self.rope
    }

    /// Rotates the first `columns` columns of `rows [T, row_len]`, which are heads at multiples of `head_stride`, by the angles of
    /// the rows' positions.
    pub(super) fn apply(
        &self,
        rows: &mut [f32],
        row_len: usize,
        columns: usize,
        head_stride: usize,
        positions: &[u32],
    ) {
        let Some(last) = positions.iter().max() else { return };
        let (table, pairs) = (self.cos_sin(*last as usize + 1), self.rope.rotary_dim / 2);
        for (row, position) in rows.chunks_exact_mut(row_len).zip(positions) {
            self.rope.apply(&mut row[..columns], head_stride, &table[*position as usize * pairs..][..pairs]);
        }
    }

    fn cos_sin(&self, positions: usize) -> Arc<Vec<(f32, f32)>> {
        let pairs = self.rope.rotary_dim / 2;
        let known = self.cos_sin.read().unwrap_or_else(PoisonError::into_inner).clone();
        if known.len() >= positions * pairs {
            return known;
        }
        let mut table = vec![];
        self.rope.cos_sin(0..positions.next_power_of_two(), &mut table);
        let table = Arc::new(table);
        *self.cos_sin.write().unwrap_or_else(PoisonError::into_inner) = table.clone();
        table
    }
}
