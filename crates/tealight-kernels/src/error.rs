//! Errors of kernels that check their input.

/// Input that a kernel rejects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// A matrix that cannot be packed, because of its shape or values, or packed bytes that do not match the expected shape.
    InvalidMatrix(String),
    /// An instruction set that this CPU lacks, or an unknown name of one.
    UnsupportedIsa(String),
    /// Bytes that are not an HNSW graph, or a graph with links to rows that do not exist.
    InvalidGraph(String),
    /// usearch failed, usually because memory ran out.
    GraphLibrary(String),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::InvalidMatrix(message)
        | Self::UnsupportedIsa(message)
        | Self::InvalidGraph(message)
        | Self::GraphLibrary(message)) = self;
        f.write_str(message)
    }
}

impl std::error::Error for Error {}

/// A result whose error is [`Error`] by default.
pub type Result<T, E = Error> = std::result::Result<T, E>;
