//! The input of the first layer: sums of embeddings.

use super::load::LayerLoader;
use super::norm::RowNorm;
use crate::batch::TokenBatch;
use crate::formats::embedding_table::EmbeddingTable;
use crate::spec::EmbeddingSpec;
use tealight_core::Result;
use tealight_kernels::{Isa, rowwise};

/// Tables of embeddings, from which only the rows in use are read.
#[derive(Debug)]
pub(super) struct Embeddings {
    spec: EmbeddingSpec,
    tokens: EmbeddingTable,
    positions: Option<EmbeddingTable>,
    /// The first token type, `[D]`, or empty.
    token_type: Vec<f32>,
    norm: Option<RowNorm>,
    hidden_size: usize,
}

impl Embeddings {
    pub(super) fn new(loader: &LayerLoader) -> Result<Self> {
        let (spec, weights) = (loader.spec, loader.weights);
        let (embeddings, d) = (&spec.embeddings, spec.hidden_size);
        let positions = match embeddings.positions {
            Some(p) => Some(weights.embedding_table("position_embd.weight", p.rows, d)?),
            None => None,
        };
        let token_type = match embeddings.token_types {
            0 => vec![],
            rows => weights.floats("token_types.weight", &[rows, d])?[..d].to_vec(),
        };
        Ok(Self {
            spec: embeddings.clone(),
            tokens: weights.embedding_table("token_embd.weight", spec.vocab_size, d)?,
            positions,
            token_type,
            norm: if embeddings.norm { Some(loader.norm("token_embd_norm", d)?) } else { None },
            hidden_size: d,
        })
    }

    /// `[T, stride]`; values beyond D are 0.
    pub(super) fn forward(&self, isa: Isa, batch: &TokenBatch, stride: usize) -> Result<Vec<f32>> {
        let d = self.hidden_size;
        let (mut out, mut position) = (vec![0.0; batch.ids.len() * stride], vec![0.0; d]);
        for text in batch.cu_seqlens.windows(2) {
            let rows = out[text[0] * stride..text[1] * stride].chunks_exact_mut(stride);
            let mut counted = 0;
            for (row, id) in rows.zip(&batch.ids[text[0]..text[1]]) {
                let row = &mut row[..d];
                self.tokens.read_row(*id as usize, row)?;
                if self.spec.scale != 1.0 {
                    row.iter_mut().for_each(|v| *v *= self.spec.scale);
                }
                if let (Some(table), Some(learned)) = (&self.positions, self.spec.positions) {
                    // RoBERTa does not count padding, which its tokenizer also makes of the text `<pad>`.
                    let is_padding = learned.offset > 0 && *id as usize == learned.offset - 1;
                    let index = if is_padding { learned.offset - 1 } else { learned.offset + counted };
                    counted += usize::from(!is_padding);
                    table.read_row(index, &mut position)?;
                    if !self.token_type.is_empty() {
                        rowwise::add(&mut position, &self.token_type);
                    }
                    rowwise::add(row, &position);
                } else if !self.token_type.is_empty() {
                    rowwise::add(row, &self.token_type);
                }
            }
        }
        if let Some(norm) = &self.norm {
            norm.apply(isa, &mut out, stride);
        }
        Ok(out)
    }
}
