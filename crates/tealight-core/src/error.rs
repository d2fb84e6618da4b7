//! The error type, and a table of each kind's HTTP statuses, types and code.

/// The kind of an error. Its [code](ErrorKind::code) is part of the API and never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// An input or a list of inputs is empty.
    Empty,
    /// The body is not JSON.
    InvalidJson,
    /// A field has the wrong type or is missing. Also other input that cannot be parsed: a form, a table, or a document that has an
    /// unknown field or, as a line or message, is not JSON.
    InvalidType,
    /// The value of a field is out of range.
    InvalidValue,
    /// The input has more tokens than the model accepts or, in text generation, than fit into memory (the KV cache).
    TooLong,
    /// The request body is larger than the route accepts.
    BodyTooLarge,
    /// The response is larger than Lambda allows.
    ResponseTooLarge,
    /// The content type of the body is not supported.
    UnsupportedMediaType,
    /// The API key is missing or wrong.
    InvalidApiKey,
    /// No route has this path.
    NotFound,
    /// The route does not support this HTTP method.
    MethodNotAllowed,
    /// No model of this name is installed.
    ModelNotFound,
    /// A model file cannot be loaded.
    ModelLoad,
    /// No search index is configured, or its file does not exist.
    IndexNotFound,
    /// A search index cannot be loaded.
    IndexLoad,
    /// An S3 object does not exist or was deleted.
    ObjectNotFound,
    /// Access to an S3 object is denied. S3 also returns this for a missing object if the role may not
    /// list the bucket.
    ObjectDenied,
    /// An S3 object was replaced while it was being read.
    ObjectReplaced,
    /// A remote service failed: the model hub, Secrets Manager, S3 or a vector database.
    Upstream,
    /// The concurrency limit is reached.
    Overloaded,
    /// The deadline has passed.
    Timeout,
    /// The request body arrived too slowly.
    BodyTimeout,
    /// The client closed the connection before the response was complete.
    ClientClosedRequest,
    /// The event that invoked the Lambda function comes from a source that is not supported, or names no route.
    UnsupportedEvent,
    /// A local file could not be read or written.
    Io,
    /// A bug in tealight.
    Internal,
}

/// How an [`ErrorKind`] is reported to clients. Codes never change, so some differ from the name of the kind.
struct ErrorSpec {
    /// HTTP status on all routes except those of text-embeddings-inference (TEI).
    status: u16,
    /// HTTP status on TEI's routes.
    tei_status: u16,
    /// TEI's `error_type`.
    tei_type: &'static str,
    /// OpenAI's `type`.
    openai_type: &'static str,
    /// OpenAI's `code`, and the `errorType` that AWS Lambda returns if the function is invoked directly, without HTTP.
    code: &'static str,
    /// Whether the same request can succeed later.
    is_retryable: bool,
}

const INVALID_REQUEST: ErrorSpec = ErrorSpec {
    status: 400,
    tei_status: 400,
    tei_type: "Validation",
    openai_type: "invalid_request_error",
    code: "",
    is_retryable: false,
};

const SERVER_ERROR: ErrorSpec = ErrorSpec {
    status: 500,
    tei_status: 424,
    tei_type: "Backend",
    openai_type: "server_error",
    code: "",
    is_retryable: false,
};

impl ErrorKind {
    #[rustfmt::skip]
    const fn spec(self) -> ErrorSpec {
        match self {
            ErrorKind::Empty                => ErrorSpec { tei_type: "Empty", code: "empty_input", ..INVALID_REQUEST },
            ErrorKind::InvalidJson          => ErrorSpec { code: "invalid_json", ..INVALID_REQUEST },
            ErrorKind::InvalidType          => ErrorSpec { tei_status: 422, code: "invalid_type", ..INVALID_REQUEST },
            ErrorKind::InvalidValue         => ErrorSpec { tei_status: 422, code: "invalid_value", ..INVALID_REQUEST },
            ErrorKind::TooLong              => ErrorSpec { tei_status: 422, code: "context_length_exceeded", ..INVALID_REQUEST },
            ErrorKind::BodyTooLarge         => ErrorSpec { status: 413, tei_status: 413, code: "body_too_large", ..INVALID_REQUEST },
            ErrorKind::ResponseTooLarge     => ErrorSpec { status: 413, tei_status: 413, code: "reply_too_large", ..INVALID_REQUEST },
            ErrorKind::UnsupportedMediaType => ErrorSpec { status: 415, tei_status: 415, code: "unsupported_media_type", ..INVALID_REQUEST },
            ErrorKind::InvalidApiKey        => ErrorSpec { status: 401, tei_status: 401, tei_type: "Unauthorized", code: "invalid_api_key", ..INVALID_REQUEST },
            ErrorKind::NotFound             => ErrorSpec { status: 404, tei_status: 404, code: "unknown_url", ..INVALID_REQUEST },
            ErrorKind::MethodNotAllowed     => ErrorSpec { status: 405, tei_status: 405, code: "method_not_allowed", ..INVALID_REQUEST },
            ErrorKind::ModelNotFound        => ErrorSpec { status: 404, tei_status: 404, code: "model_not_found", ..INVALID_REQUEST },
            ErrorKind::ModelLoad            => ErrorSpec { code: "model_load_failed", ..SERVER_ERROR },
            ErrorKind::IndexNotFound        => ErrorSpec { status: 404, tei_status: 404, code: "index_not_found", ..INVALID_REQUEST },
            ErrorKind::IndexLoad            => ErrorSpec { code: "index_load_failed", ..SERVER_ERROR },
            ErrorKind::ObjectNotFound       => ErrorSpec { status: 404, tei_status: 404, code: "object_not_found", ..INVALID_REQUEST },
            // An operator can grant the missing permission, so an SQS message that failed for this reason is delivered again.
            ErrorKind::ObjectDenied         => ErrorSpec { status: 403, tei_status: 403, code: "object_denied", is_retryable: true, ..INVALID_REQUEST },
            ErrorKind::ObjectReplaced       => ErrorSpec { status: 409, tei_status: 409, code: "object_replaced", is_retryable: true, ..INVALID_REQUEST },
            ErrorKind::Upstream             => ErrorSpec { status: 502, code: "upstream_error", is_retryable: true, ..SERVER_ERROR },
            ErrorKind::Overloaded           => ErrorSpec { status: 503, tei_status: 429, tei_type: "Overloaded", code: "overloaded", is_retryable: true, ..SERVER_ERROR },
            ErrorKind::Timeout              => ErrorSpec { status: 504, tei_status: 504, tei_type: "Overloaded", code: "timeout", is_retryable: true, ..SERVER_ERROR },
            ErrorKind::BodyTimeout          => ErrorSpec { status: 408, tei_status: 408, code: "body_timeout", is_retryable: true, ..INVALID_REQUEST },
            ErrorKind::ClientClosedRequest  => ErrorSpec { status: 499, tei_status: 499, code: "client_gone", is_retryable: true, ..INVALID_REQUEST },
            ErrorKind::UnsupportedEvent     => ErrorSpec { tei_status: 422, code: "unsupported_event", ..INVALID_REQUEST },
            ErrorKind::Io                   => ErrorSpec { code: "io_error", ..SERVER_ERROR },
            ErrorKind::Internal             => ErrorSpec { code: "internal_error", ..SERVER_ERROR },
        }
    }

    /// Stable identifier of this kind: OpenAI's `code`, and the `errorType` of a Lambda function that is invoked directly.
    pub fn code(self) -> &'static str {
        self.spec().code
    }

    /// HTTP status on all routes except text-embeddings-inference's.
    pub fn status(self) -> u16 {
        self.spec().status
    }

    /// HTTP status on text-embeddings-inference's routes.
    pub fn tei_status(self) -> u16 {
        self.spec().tei_status
    }

    /// text-embeddings-inference's `error_type`.
    pub fn tei_type(self) -> &'static str {
        self.spec().tei_type
    }

    /// OpenAI's `type`.
    pub fn openai_type(self) -> &'static str {
        self.spec().openai_type
    }

    /// Whether the same request can succeed later.
    pub fn is_retryable(self) -> bool {
        self.spec().is_retryable
    }
}

/// An error as it is reported to users and clients: its kind, a message, and the request field or input that caused it.
#[derive(Debug, Clone)]
pub struct Error {
    /// Determines the HTTP status.
    pub kind: ErrorKind,
    /// Names the field, the value and the limit. Starts in lower case.
    pub message: String,
    /// The request field that caused the error, if any.
    pub param: Option<String>,
    /// Position of the input that caused the error, from 0, if the request has several.
    pub input_index: Option<usize>,
}

/// Maximum characters of an error message that quotes a request; the rest is cut off.
const MAX_MESSAGE_CHARS: usize = 300;
/// Maximum characters of a value that an error message quotes.
const MAX_VALUE_CHARS: usize = 100;

/// Shortens a value that an error message quotes to 100 characters.
pub fn truncate_for_display(value: &str) -> String {
    value.chars().take(MAX_VALUE_CHARS).collect()
}

/// The result of a fallible function of any tealight crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error that names no request field.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), param: None, input_index: None }
    }

    /// Adds the request field that caused the error.
    pub fn with_param(mut self, name: impl Into<String>) -> Self {
        self.param = Some(name.into());
        self
    }

    /// Adds the position of the input that caused the error, from 0.
    pub fn with_input_index(mut self, index: usize) -> Self {
        self.input_index = Some(index);
        self
    }

    /// An error for a value of the field `name` that is out of range.
    pub fn invalid_value(name: &str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidValue, message).with_param(name)
    }

    /// An error for a model file that cannot be used.
    pub fn invalid_model(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::ModelLoad, message)
    }

    /// An error for a bug in tealight.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// An error for `what`, whose cargo feature this build lacks.
    pub fn feature_disabled(kind: ErrorKind, what: impl std::fmt::Display, feature: &str) -> Self {
        Self::new(kind, format!("this build does not support {what}; build with --features {feature}"))
    }

    /// An error for a file operation that failed. `action` is a verb such as `open`.
    pub fn io(action: &str, path: &std::path::Path, error: std::io::Error) -> Self {
        Self::new(ErrorKind::Io, format!("cannot {action} {}: {error}", path.display()))
    }

    /// Shortens a message of more than 300 characters to its first 300 and ` ...`, for messages that quote a request.
    pub fn truncate_message(mut self) -> Self {
        if let Some((end, _)) = self.message.char_indices().nth(MAX_MESSAGE_CHARS) {
            self.message.truncate(end);
            self.message.push_str(" ...");
        }
        self
    }

    /// Puts `context: ` before the message, for instance the name of the file that was being read.
    pub fn with_context(mut self, context: impl std::fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// candle reports errors of shapes and types, which models that passed validation cannot cause.
#[cfg(feature = "candle")]
impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::internal(format!("tensor operation failed: {error}"))
    }
}

#[cfg(feature = "kernels")]
impl From<tealight_kernels::Error> for Error {
    fn from(error: tealight_kernels::Error) -> Self {
        use tealight_kernels::Error as KernelError;
        /// The environment variable that requests an instruction set by name.
        const ISA: &str = "TEALIGHT_ISA";
        let message = error.to_string();
        match error {
            KernelError::InvalidMatrix(_) => Self::invalid_model(message),
            KernelError::UnsupportedIsa(_) => Self::invalid_value(ISA, message).with_context(ISA),
            // The message begins with "invalid HNSW graph".
            KernelError::InvalidGraph(_) => Self::new(ErrorKind::IndexLoad, format!("index has an {message}")),
            KernelError::GraphLibrary(_) => Self::internal(message),
        }
    }
}
