//! Numbers and names that the format defines.

/// The first bytes of a file.
pub const MAGIC: &[u8] = b"GGUF";

/// The key of the architecture.
pub const ARCHITECTURE_KEY: &str = "general.architecture";

/// Numbers of the types of metadata values (`enum gguf_metadata_value_type`).
pub(super) mod value_type {
    pub const UINT8: u32 = 0;
    pub const INT8: u32 = 1;
    pub const UINT16: u32 = 2;
    pub const INT16: u32 = 3;
    pub const UINT32: u32 = 4;
    pub const INT32: u32 = 5;
    pub const FLOAT32: u32 = 6;
    pub const BOOL: u32 = 7;
    pub const STRING: u32 = 8;
    pub const ARRAY: u32 = 9;
    pub const UINT64: u32 = 10;
    pub const INT64: u32 = 11;
    pub const FLOAT64: u32 = 12;
}

/// The values of `tokenizer.ggml.token_type` (`enum llama_token_type`).
pub mod token_type {
    /// Text.
    pub const NORMAL: i64 = 1;
    /// Stands for text that the vocabulary cannot represent.
    pub const UNKNOWN: i64 = 2;
    /// A special token without text, such as the one that ends a turn.
    pub const CONTROL: i64 = 3;
    /// Text that is always one token.
    pub const USER_DEFINED: i64 = 4;
    /// No text maps to it.
    pub const UNUSED: i64 = 5;
    /// One byte.
    pub const BYTE: i64 = 6;
}
