//! Tokenized texts.

/// The token ids of several texts, one text after another, without padding.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct TokenBatch {
    /// `[T]`: the ids of all texts.
    pub ids: Vec<u32>,
    /// `[B + 1]`, the cumulative sequence lengths: text `i` has the ids `cu_seqlens[i]..cu_seqlens[i + 1]`.
    pub cu_seqlens: Vec<usize>,
}

impl TokenBatch {
    /// Concatenates texts.
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a [u32]>) -> Self {
        let mut this = Self { ids: vec![], cu_seqlens: vec![0] };
        for ids in texts {
            this.ids.extend_from_slice(ids);
            this.cu_seqlens.push(this.ids.len());
        }
        this
    }
}
