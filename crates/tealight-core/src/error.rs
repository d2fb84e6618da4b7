//! The one error type, and the one table that says how each kind is answered.

/// What went wrong. The word of a kind, [`ErrorKind::code`], is part of the API and never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// An input or a list of inputs is empty.
    Empty,
    /// The body is not JSON.
    InvalidJson,
    /// The body is JSON, but a field has the wrong type or is missing.
    InvalidType,
    /// A field has a value outside its limits.
    InvalidValue,
    /// A text has more tokens than the model can read.
    TooLong,
    /// The body is larger than the route takes.
    BodyTooLarge,
    /// The reply is larger than Lambda takes.
    ResponseTooLarge,
    /// The body is neither JSON nor of unstated type.
    UnsupportedMediaType,
    /// The key is missing or wrong.
    InvalidApiKey,
    /// No route has this path.
    NotFound,
    /// The path has no such method.
    MethodNotAllowed,
    /// No model of this name is installed here.
    ModelNotFound,
    /// A model is there and cannot be loaded.
    ModelLoad,
    /// No index is configured, or none is where it should be.
    IndexNotFound,
    /// An index is there and cannot be read.
    IndexLoad,
    /// An object is not there, or not any more.
    ObjectNotFound,
    /// An object may not be read, or is not there for one who may not list its bucket.
    ObjectDenied,
    /// An object was replaced while it was read.
    ObjectReplaced,
    /// A source of models, keys or data outside the function failed.
    Upstream,
    /// Every place in the queue is taken.
    Overloaded,
    /// The invocation's time ran out.
    Timeout,
    /// The body took too long to arrive.
    BodyTimeout,
    /// Nobody waits for the reply any more.
    ClientClosedRequest,
    /// An event of a kind that the function does not serve.
    UnsupportedEvent,
    /// A local file could not be read or written.
    Io,
    /// A defect of ours.
    Internal,
}

/// How a [`ErrorKind`] is answered.
struct ErrorSpec {
    /// Status on OpenAI's routes and all others that are not TEI's.
    status: u16,
    /// Status on TEI's routes, which differs for bad values.
    tei_status: u16,
    /// TEI's `error_type`.
    tei_type: &'static str,
    /// OpenAI's `type`.
    openai_type: &'static str,
    /// OpenAI's `code`, and the `errorType` of a direct invocation.
    code: &'static str,
    /// Whether the same request can succeed later.
    retryable: bool,
}

const fn spec(
    status: u16,
    tei_status: u16,
    tei_type: &'static str,
    openai_type: &'static str,
    code: &'static str,
    retryable: bool,
) -> ErrorSpec {
    ErrorSpec { status, tei_status, tei_type, openai_type, code, retryable }
}

const INVALID_REQUEST: &str = "invalid_request_error";
const SERVER: &str = "server_error";

impl ErrorKind {
    #[rustfmt::skip]
    const fn spec(self) -> ErrorSpec {
        match self {
            ErrorKind::Empty            => spec(400, 400, "Empty", INVALID_REQUEST, "empty_input", false),
            ErrorKind::InvalidJson      => spec(400, 400, "Validation", INVALID_REQUEST, "invalid_json", false),
            ErrorKind::InvalidType     => spec(400, 422, "Validation", INVALID_REQUEST, "invalid_type", false),
            ErrorKind::InvalidValue     => spec(400, 422, "Validation", INVALID_REQUEST, "invalid_value", false),
            ErrorKind::TooLong          => spec(400, 422, "Validation", INVALID_REQUEST, "context_length_exceeded", false),
            ErrorKind::BodyTooLarge     => spec(413, 413, "Validation", INVALID_REQUEST, "body_too_large", false),
            ErrorKind::ResponseTooLarge    => spec(413, 413, "Validation", INVALID_REQUEST, "reply_too_large", false),
            ErrorKind::UnsupportedMediaType        => spec(415, 415, "Validation", INVALID_REQUEST, "unsupported_media_type", false),
            ErrorKind::InvalidApiKey    => spec(401, 401, "Unauthorized", INVALID_REQUEST, "invalid_api_key", false),
            ErrorKind::NotFound      => spec(404, 404, "Validation", INVALID_REQUEST, "unknown_url", false),
            ErrorKind::MethodNotAllowed => spec(405, 405, "Validation", INVALID_REQUEST, "method_not_allowed", false),
            ErrorKind::ModelNotFound    => spec(404, 404, "Validation", INVALID_REQUEST, "model_not_found", false),
            ErrorKind::ModelLoad        => spec(500, 424, "Backend", SERVER, "model_load_failed", false),
            ErrorKind::IndexNotFound    => spec(404, 404, "Validation", INVALID_REQUEST, "index_not_found", false),
            ErrorKind::IndexLoad        => spec(500, 424, "Backend", SERVER, "index_load_failed", false),
            ErrorKind::ObjectNotFound   => spec(404, 404, "Validation", INVALID_REQUEST, "object_not_found", false),
            // A permission that is missing can be given.
            ErrorKind::ObjectDenied     => spec(403, 403, "Validation", INVALID_REQUEST, "object_denied", true),
            ErrorKind::ObjectReplaced   => spec(409, 409, "Validation", INVALID_REQUEST, "object_replaced", true),
            ErrorKind::Upstream         => spec(502, 424, "Backend", SERVER, "upstream_error", true),
            ErrorKind::Overloaded       => spec(503, 429, "Overloaded", SERVER, "overloaded", true),
            ErrorKind::Timeout          => spec(504, 504, "Overloaded", SERVER, "timeout", true),
            ErrorKind::BodyTimeout         => spec(408, 408, "Validation", INVALID_REQUEST, "body_timeout", true),
            ErrorKind::ClientClosedRequest       => spec(499, 499, "Validation", INVALID_REQUEST, "client_gone", true),
            ErrorKind::UnsupportedEvent => spec(400, 422, "Validation", INVALID_REQUEST, "unsupported_event", false),
            ErrorKind::Io               => spec(500, 424, "Backend", SERVER, "io_error", false),
            ErrorKind::Internal         => spec(500, 424, "Backend", SERVER, "internal_error", false),
        }
    }

    /// The stable word for this kind.
    pub fn code(self) -> &'static str {
        self.spec().code
    }

    /// The status on OpenAI's routes.
    pub fn status(self) -> u16 {
        self.spec().status
    }

    /// The status on text-embeddings-inference's routes.
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
        self.spec().retryable
    }
}

/// An error that a user can act on: what kind, in which field, and the value and limit in words.
#[derive(Debug, Clone)]
pub struct Error {
    /// What kind it is; decides the status.
    pub kind: ErrorKind,
    /// What happened, in lower case, with the field, the value and the limit.
    pub message: String,
    /// The request field at fault, if it is one.
    pub param: Option<String>,
}

/// Characters of a text that repeats what a request has said.
const MAX_MESSAGE: usize = 300;

/// A value as errors show it: its first hundred characters.
pub fn truncate_for_display(value: &str) -> String {
    value.chars().take(100).collect()
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of a kind, with its text.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), param: None }
    }

    /// Names the request field at fault.
    pub fn with_param(mut self, name: impl Into<String>) -> Self {
        self.param = Some(name.into());
        self
    }

    /// A value of the field `name` is outside its limits.
    pub fn invalid_value(name: &str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidValue, message).with_param(name)
    }

    /// A model file cannot be used.
    pub fn invalid_model(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::ModelLoad, message)
    }

    /// A defect of ours.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// A file operation failed.
    pub fn io(what: &str, path: &std::path::Path, error: std::io::Error) -> Self {
        Self::new(ErrorKind::Io, format!("cannot {what} {}: {error}", path.display()))
    }

    /// Cuts the text where a request's own value makes it long.
    pub fn truncate_message(mut self) -> Self {
        if let Some((at, _)) = self.message.char_indices().nth(MAX_MESSAGE) {
            self.message.truncate(at);
            self.message.push_str(" ...");
        }
        self
    }

    /// Puts `what: ` before the text, for instance the file that was being read.
    pub fn with_context(mut self, what: impl std::fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// candle reports shape and type errors that checked models cannot cause.
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
        let message = error.to_string();
        match error {
            KernelError::InvalidMatrix(_) => Self::invalid_model(message),
            KernelError::UnsupportedIsa(_) => Self::invalid_value("TEALIGHT_ISA", message),
            KernelError::InvalidGraph(_) => Self::new(ErrorKind::IndexLoad, message),
            KernelError::GraphLibrary(_) => Self::internal(message),
        }
    }
}
