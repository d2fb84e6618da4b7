//! The matrix products of a layer.

/// A matrix product of a layer, in the order of computation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinearKind {
    /// Queries, keys and values.
    Qkv,
    /// The output projection of attention.
    AttentionOutput,
    /// The projection to the inner dimension of the feed-forward network, and to its gate.
    Up,
    /// The projection from the inner dimension.
    Down,
}

impl LinearKind {
    /// In the order of computation.
    pub const ALL: [LinearKind; 4] = [LinearKind::Qkv, LinearKind::AttentionOutput, LinearKind::Up, LinearKind::Down];
}
