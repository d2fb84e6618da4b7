//! What a kernel can refuse.

/// Data that a kernel cannot work with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// A matrix or vector has a shape or values that cannot be packed, or packed bytes that do not belong to its shape.
    InvalidMatrix(String),
    /// The CPU lacks an instruction set, or none has this name.
    UnsupportedIsa(String),
    /// Bytes that hold no graph, or one that points outside of them.
    InvalidGraph(String),
    /// The graph library failed, usually for want of memory.
    GraphLibrary(String),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::InvalidMatrix(message)
            | Self::UnsupportedIsa(message)
            | Self::InvalidGraph(message)
            | Self::GraphLibrary(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Error {}

/// The result of a kernel that can refuse its data.
pub type Result<T, E = Error> = std::result::Result<T, E>;
