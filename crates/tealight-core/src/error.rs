//! The one error type, and the one table that says how each kind is answered.

/// What went wrong. The word of a kind, [`Kind::code`], is part of the API and never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An input or a list of inputs is empty.
    Empty,
    /// The body is not JSON.
    InvalidJson,
    /// The body is JSON, but a field has the wrong type or is missing.
    InvalidShape,
    /// A field has a value outside its limits.
    InvalidValue,
    /// A text has more tokens than the model can read.
    TooLong,
    /// The body is larger than the route takes.
    BodyTooLarge,
    /// The reply is larger than Lambda takes.
    ReplyTooLarge,
    /// The body is neither JSON nor of unstated type.
    MediaType,
    /// The key is missing or wrong.
    InvalidApiKey,
    /// No route has this path.
    UnknownPath,
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
    SlowBody,
    /// Nobody waits for the reply any more.
    ClientGone,
    /// An event of a kind that the function does not serve.
    UnsupportedEvent,
    /// A local file could not be read or written.
    Io,
    /// A defect of ours.
    Internal,
}

/// How a [`Kind`] is answered.
struct Row {
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

const fn row(
    status: u16,
    tei_status: u16,
    tei_type: &'static str,
    openai_type: &'static str,
    code: &'static str,
    retryable: bool,
) -> Row {
    Row { status, tei_status, tei_type, openai_type, code, retryable }
}

const BAD: &str = "invalid_request_error";
const SERVER: &str = "server_error";

impl Kind {
    #[rustfmt::skip]
    const fn row(self) -> Row {
        match self {
            Kind::Empty            => row(400, 400, "Empty", BAD, "empty_input", false),
            Kind::InvalidJson      => row(400, 400, "Validation", BAD, "invalid_json", false),
            Kind::InvalidShape     => row(400, 422, "Validation", BAD, "invalid_type", false),
            Kind::InvalidValue     => row(400, 422, "Validation", BAD, "invalid_value", false),
            Kind::TooLong          => row(400, 422, "Validation", BAD, "context_length_exceeded", false),
            Kind::BodyTooLarge     => row(413, 413, "Validation", BAD, "body_too_large", false),
            Kind::ReplyTooLarge    => row(413, 413, "Validation", BAD, "reply_too_large", false),
            Kind::MediaType        => row(415, 415, "Validation", BAD, "unsupported_media_type", false),
            Kind::InvalidApiKey    => row(401, 401, "Unauthorized", BAD, "invalid_api_key", false),
            Kind::UnknownPath      => row(404, 404, "Validation", BAD, "unknown_url", false),
            Kind::MethodNotAllowed => row(405, 405, "Validation", BAD, "method_not_allowed", false),
            Kind::ModelNotFound    => row(404, 404, "Validation", BAD, "model_not_found", false),
            Kind::ModelLoad        => row(500, 424, "Backend", SERVER, "model_load_failed", false),
            Kind::IndexNotFound    => row(404, 404, "Validation", BAD, "index_not_found", false),
            Kind::IndexLoad        => row(500, 424, "Backend", SERVER, "index_load_failed", false),
            Kind::ObjectNotFound   => row(404, 404, "Validation", BAD, "object_not_found", false),
            // A permission that is missing can be given.
            Kind::ObjectDenied     => row(403, 403, "Validation", BAD, "object_denied", true),
            Kind::ObjectReplaced   => row(409, 409, "Validation", BAD, "object_replaced", true),
            Kind::Upstream         => row(502, 424, "Backend", SERVER, "upstream_error", true),
            Kind::Overloaded       => row(503, 429, "Overloaded", SERVER, "overloaded", true),
            Kind::Timeout          => row(504, 504, "Overloaded", SERVER, "timeout", true),
            Kind::SlowBody         => row(408, 408, "Validation", BAD, "body_timeout", true),
            Kind::ClientGone       => row(499, 499, "Validation", BAD, "client_gone", true),
            Kind::UnsupportedEvent => row(400, 422, "Validation", BAD, "unsupported_event", false),
            Kind::Io               => row(500, 424, "Backend", SERVER, "io_error", false),
            Kind::Internal         => row(500, 424, "Backend", SERVER, "internal_error", false),
        }
    }

    /// The stable word for this kind.
    pub fn code(self) -> &'static str {
        self.row().code
    }

    /// The status on OpenAI's routes.
    pub fn status(self) -> u16 {
        self.row().status
    }

    /// The status on text-embeddings-inference's routes.
    pub fn tei_status(self) -> u16 {
        self.row().tei_status
    }

    /// text-embeddings-inference's `error_type`.
    pub fn tei_type(self) -> &'static str {
        self.row().tei_type
    }

    /// OpenAI's `type`.
    pub fn openai_type(self) -> &'static str {
        self.row().openai_type
    }

    /// Whether the same request can succeed later.
    pub fn retryable(self) -> bool {
        self.row().retryable
    }
}

/// An error that a user can act on: what kind, in which field, and the value and limit in words.
#[derive(Debug, Clone)]
pub struct Error {
    /// What kind it is; decides the status.
    pub kind: Kind,
    /// What happened, in lower case, with the field, the value and the limit.
    pub message: String,
    /// The request field at fault, if it is one.
    pub param: Option<String>,
}

/// Characters of a text that repeats what a request has said.
const MAX_MESSAGE: usize = 300;

/// A value as errors show it: its first hundred characters.
pub fn shown(value: &str) -> String {
    value.chars().take(100).collect()
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of a kind, with its text.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), param: None }
    }

    /// Names the request field at fault.
    pub fn param(mut self, name: impl Into<String>) -> Self {
        self.param = Some(name.into());
        self
    }

    /// A value of the field `name` is outside its limits.
    pub fn value(name: &str, message: impl Into<String>) -> Self {
        Self::new(Kind::InvalidValue, message).param(name)
    }

    /// A model file cannot be used.
    pub fn model(message: impl Into<String>) -> Self {
        Self::new(Kind::ModelLoad, message)
    }

    /// A defect of ours.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }

    /// A file operation failed.
    pub fn io(what: &str, path: &std::path::Path, error: std::io::Error) -> Self {
        Self::new(Kind::Io, format!("cannot {what} {}: {error}", path.display()))
    }

    /// Cuts the text where a request's own value makes it long.
    pub fn cut(mut self) -> Self {
        if let Some((at, _)) = self.message.char_indices().nth(MAX_MESSAGE) {
            self.message.truncate(at);
            self.message.push_str(" ...");
        }
        self
    }

    /// Puts `what: ` before the text, for instance the file that was being read.
    pub fn context(mut self, what: impl std::fmt::Display) -> Self {
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
        use tealight_kernels::Error as Refused;
        let message = error.to_string();
        match error {
            Refused::Matrix(_) => Self::model(message),
            Refused::Isa(_) => Self::value("TEALIGHT_ISA", message),
            Refused::Graph(_) => Self::new(Kind::IndexLoad, message),
            Refused::GraphLibrary(_) => Self::internal(message),
        }
    }
}
