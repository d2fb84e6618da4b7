//! The configuration: environment variables, read once when the process starts.
//!
//! [`VARIABLES`] lists them with type, range and default, and [`Config`] has their values. `docs/configuration.md` describes them; a
//! test compares its names and defaults with both.

use crate::aws::s3::parse_prefixes;
use std::path::PathBuf;
use tealight_core::{Error, Result, Secret};
use tealight_kernels::Isa;
use tealight_models::Pooling;
use tealight_models::Precision;

/// The description of an environment variable.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    /// Name of the variable.
    pub name: &'static str,
    /// Which values it accepts.
    pub values: Values,
    /// Its value if it is unset or empty; an empty string if there is none or it depends on the machine.
    pub default: &'static str,
}

/// The values that a [`Variable`] accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// Any text.
    Text,
    /// Texts separated by commas.
    List,
    /// `1`, `true`, `0` or `false`.
    Bool,
    /// A whole number in this range.
    Integer {
        /// Minimum, inclusive.
        min: usize,
        /// Maximum, inclusive.
        max: usize,
    },
    /// One of a fixed set of names, parsed by the option's type.
    Choice,
}

/// Tells a process on AWS Lambda how it was started.
/// <https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html>
pub const INITIALIZATION_TYPE: &str = "AWS_LAMBDA_INITIALIZATION_TYPE";
/// The value of [`INITIALIZATION_TYPE`] if a SnapStart snapshot will be taken of the process.
pub const SNAP_START: &str = "snap-start";

const fn integer(min: usize, max: usize) -> Values {
    Values::Integer { min, max }
}

/// All environment variables that [`Config`] is read from.
pub const VARIABLES: &[Variable] = &[
    Variable { name: "TEALIGHT_MODEL", values: Values::Text, default: "all-MiniLM-L6-v2" },
    Variable { name: "TEALIGHT_SPEECH_MODEL", values: Values::Text, default: "whisper-base" },
    Variable { name: "TEALIGHT_TEXT_MODEL", values: Values::Text, default: "smollm2-135m-instruct" },
    Variable { name: "TEALIGHT_SERVED_NAMES", values: Values::List, default: "" },
    Variable { name: "TEALIGHT_MODEL_DIR", values: Values::Text, default: "" },
    Variable { name: "TEALIGHT_DOWNLOAD", values: Values::Bool, default: "0" },
    Variable { name: "TEALIGHT_POOLING", values: Values::Choice, default: "" },
    Variable { name: "TEALIGHT_PRECISION", values: Values::Choice, default: "int8" },
    Variable { name: "TEALIGHT_THREADS", values: integer(1, 1024), default: "" },
    Variable { name: "TEALIGHT_ISA", values: Values::Choice, default: "" },
    Variable { name: "TEALIGHT_API_KEY", values: Values::Text, default: "" },
    Variable { name: "TEALIGHT_API_KEY_SECRET", values: Values::Text, default: "" },
    Variable { name: "TEALIGHT_PAYLOAD_LIMIT", values: integer(1, 1 << 30), default: "" },
    Variable { name: "TEALIGHT_MAX_CLIENT_BATCH_SIZE", values: integer(1, 1 << 20), default: "32" },
    Variable { name: "TEALIGHT_MAX_CONCURRENT_REQUESTS", values: integer(1, 1 << 20), default: "512" },
    Variable { name: "TEALIGHT_AUTO_TRUNCATE", values: Values::Bool, default: "1" },
    Variable { name: "TEALIGHT_RESPONSE_STREAM", values: Values::Bool, default: "0" },
    Variable { name: "TEALIGHT_CORS_ALLOW_ORIGIN", values: Values::Text, default: "" },
    Variable { name: "TEALIGHT_S3_PREFIXES", values: Values::List, default: "" },
    Variable { name: "TEALIGHT_INDEX", values: Values::Text, default: "" },
    Variable { name: "TEALIGHT_SINK", values: Values::Text, default: "" },
    Variable { name: "TEALIGHT_SINK_KEY", values: Values::Text, default: "" },
    Variable { name: "TEALIGHT_SINK_SECRET", values: Values::Text, default: "" },
    Variable { name: "TEALIGHT_SINK_FORMAT", values: Values::Text, default: "" },
    Variable { name: "TEALIGHT_CHUNK_TOKENS", values: integer(0, 1 << 17), default: "0" },
    Variable { name: "TEALIGHT_CHUNK_OVERLAP", values: integer(0, 1 << 17), default: "0" },
    Variable { name: "LAMBDA_TASK_ROOT", values: Values::Text, default: "" },
    Variable { name: "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", values: Values::Text, default: "" },
    Variable { name: INITIALIZATION_TYPE, values: Values::Text, default: "" },
];

/// The values of all [`VARIABLES`].
#[derive(Debug, Clone)]
pub struct Config {
    /// `TEALIGHT_MODEL`
    pub model: String,
    /// `TEALIGHT_SPEECH_MODEL`
    pub speech_model: String,
    /// `TEALIGHT_TEXT_MODEL`
    pub text_model: String,
    /// `TEALIGHT_SERVED_NAMES`
    pub served_names: Vec<String>,
    /// `TEALIGHT_MODEL_DIR`
    pub model_dir: Option<PathBuf>,
    /// `LAMBDA_TASK_ROOT`
    pub task_root: Option<PathBuf>,
    /// `TEALIGHT_DOWNLOAD`
    pub download: bool,
    /// `TEALIGHT_THREADS`
    pub threads: usize,
    /// `TEALIGHT_ISA`
    pub isa: Isa,
    /// `TEALIGHT_PRECISION`
    pub precision: Precision,
    /// `TEALIGHT_POOLING`
    pub pooling: Option<Pooling>,
    /// `TEALIGHT_API_KEY`
    pub api_key: Option<Secret>,
    /// `TEALIGHT_API_KEY_SECRET`
    pub api_key_secret_arn: Option<String>,
    /// `TEALIGHT_INDEX`
    pub index: Option<String>,
    /// `TEALIGHT_CHUNK_TOKENS`; `None` is the model's limit.
    pub chunk_tokens: Option<usize>,
    /// `TEALIGHT_CHUNK_OVERLAP`
    pub chunk_overlap: usize,
    /// `TEALIGHT_S3_PREFIXES`, each with a slash after the bucket.
    pub allowed_s3_prefixes: Vec<String>,
    /// `TEALIGHT_SINK`
    pub sink: Option<Secret>,
    /// `TEALIGHT_SINK_FORMAT`
    pub sink_format: Option<String>,
    /// `TEALIGHT_SINK_KEY`
    pub sink_key: Option<Secret>,
    /// `TEALIGHT_SINK_SECRET`
    pub sink_secret_arn: Option<String>,
    /// `TEALIGHT_PAYLOAD_LIMIT`
    pub payload_limit: Option<usize>,
    /// `TEALIGHT_MAX_CLIENT_BATCH_SIZE`
    pub max_client_batch_size: usize,
    /// `TEALIGHT_MAX_CONCURRENT_REQUESTS`
    pub max_concurrent_requests: usize,
    /// `TEALIGHT_AUTO_TRUNCATE`
    pub auto_truncate: bool,
    /// `TEALIGHT_RESPONSE_STREAM`
    pub response_stream: bool,
    /// `TEALIGHT_CORS_ALLOW_ORIGIN`
    pub cors_allow_origin: Option<String>,
}

impl Config {
    /// Reads the environment of the process.
    ///
    /// # Errors
    /// As [`Config::from_lookup`]; also for a text that is not UTF-8.
    pub fn from_env() -> Result<Self> {
        let is_text =
            |v: &&Variable| v.name.starts_with("TEALIGHT_") && matches!(v.values, Values::Text | Values::List);
        for Variable { name, .. } in VARIABLES.iter().filter(is_text) {
            if let Err(std::env::VarError::NotUnicode(_)) = std::env::var(name) {
                return Err(Error::invalid_value(name, format!("{name} is not UTF-8")));
            }
        }
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    /// Reads the variables with a function from name to value.
    ///
    /// # Errors
    /// A value is out of range; the error names the variable, the value and the range.
    pub fn from_lookup(get: impl Fn(&str) -> Option<String>) -> Result<Self> {
        for name in ["TEALIGHT_API_KEY", "TEALIGHT_API_KEY_SECRET"] {
            // A key that is empty by mistake must not open the API to everyone.
            if get(name).is_some_and(|key| key.trim().is_empty()) {
                return Err(Error::invalid_value(name, format!("{name} is set but empty; unset it to require no key")));
            }
        }
        let lookup = Lookup(&get);
        let secret = |name| lookup.text(name).map(|key: String| Secret(key.trim().to_string()));
        Ok(Self {
            model: lookup.text_or_default("TEALIGHT_MODEL"),
            speech_model: lookup.text_or_default("TEALIGHT_SPEECH_MODEL"),
            text_model: lookup.text_or_default("TEALIGHT_TEXT_MODEL"),
            served_names: lookup.list("TEALIGHT_SERVED_NAMES"),
            model_dir: lookup.text("TEALIGHT_MODEL_DIR").map(PathBuf::from),
            task_root: lookup.text("LAMBDA_TASK_ROOT").map(PathBuf::from),
            download: lookup.bool("TEALIGHT_DOWNLOAD")?,
            threads: match lookup.optional_integer("TEALIGHT_THREADS")? {
                Some(threads) => threads,
                None => default_threads(lookup.text("AWS_LAMBDA_FUNCTION_MEMORY_SIZE").as_deref()),
            },
            isa: match lookup.text("TEALIGHT_ISA") {
                Some(name) => Isa::from_name(&name)?,
                // A snapshot may be restored on a host with a different CPU.
                None if lookup.text(INITIALIZATION_TYPE).as_deref() == Some(SNAP_START) => Isa::lambda_baseline(),
                None => Isa::detect(),
            },
            precision: precision(&lookup.text_or_default("TEALIGHT_PRECISION"))?,
            pooling: lookup.text("TEALIGHT_POOLING").map(|name| pooling(&name)).transpose()?,
            api_key: secret("TEALIGHT_API_KEY"),
            api_key_secret_arn: lookup.text("TEALIGHT_API_KEY_SECRET"),
            index: lookup.text("TEALIGHT_INDEX"),
            chunk_tokens: Some(lookup.integer("TEALIGHT_CHUNK_TOKENS")?).filter(|tokens| *tokens > 0),
            chunk_overlap: lookup.integer("TEALIGHT_CHUNK_OVERLAP")?,
            allowed_s3_prefixes: allowed_s3_prefixes(&lookup.list("TEALIGHT_S3_PREFIXES"))?,
            sink: lookup.text("TEALIGHT_SINK").map(Secret),
            sink_format: lookup.text("TEALIGHT_SINK_FORMAT"),
            sink_key: secret("TEALIGHT_SINK_KEY"),
            sink_secret_arn: lookup.text("TEALIGHT_SINK_SECRET"),
            payload_limit: lookup.optional_integer("TEALIGHT_PAYLOAD_LIMIT")?,
            max_client_batch_size: lookup.integer("TEALIGHT_MAX_CLIENT_BATCH_SIZE")?,
            max_concurrent_requests: lookup.integer("TEALIGHT_MAX_CONCURRENT_REQUESTS")?,
            auto_truncate: lookup.bool("TEALIGHT_AUTO_TRUNCATE")?,
            response_stream: lookup.bool("TEALIGHT_RESPONSE_STREAM")?,
            cors_allow_origin: lookup.text("TEALIGHT_CORS_ALLOW_ORIGIN").map(cors_origin).transpose()?,
        })
    }
}

/// Reads variables as their entries in [`VARIABLES`] say. An empty variable counts as unset.
struct Lookup<'a>(&'a dyn Fn(&str) -> Option<String>);

impl Lookup<'_> {
    fn text(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    fn text_or_default(&self, name: &str) -> String {
        self.text(name).unwrap_or_else(|| variable(name).default.to_string())
    }

    fn list(&self, name: &str) -> Vec<String> {
        let value = self.text_or_default(name);
        value.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_string).collect()
    }

    fn bool(&self, name: &str) -> Result<bool> {
        match self.text_or_default(name).as_str() {
            "1" | "true" => Ok(true),
            "0" | "false" => Ok(false),
            value => Err(Error::invalid_value(name, format!("{name} is {value:?}; expected 1 or 0"))),
        }
    }

    fn integer(&self, name: &str) -> Result<usize> {
        self.parse_integer(name, &self.text_or_default(name))
    }

    fn optional_integer(&self, name: &str) -> Result<Option<usize>> {
        self.text(name).map(|value| self.parse_integer(name, &value)).transpose()
    }

    fn parse_integer(&self, name: &str, value: &str) -> Result<usize> {
        let Values::Integer { min, max } = variable(name).values else {
            return Err(Error::internal(format!("{name} is not a number")));
        };
        value.parse().ok().filter(|n| (min..=max).contains(n)).ok_or_else(|| {
            Error::invalid_value(name, format!("{name} is {value:?}; expected a whole number from {min} to {max}"))
        })
    }
}

/// The entry of a variable; one without a default if there is none.
fn variable(name: &str) -> Variable {
    let unknown = Variable { name: "", values: Values::Text, default: "" };
    VARIABLES.iter().find(|variable| variable.name == name).copied().unwrap_or(unknown)
}

fn allowed_s3_prefixes(prefixes: &[String]) -> Result<Vec<String>> {
    let name = "TEALIGHT_S3_PREFIXES";
    parse_prefixes(prefixes).map_err(|e| Error::invalid_value(name, format!("{name}: {e}")))
}

fn pooling(name: &str) -> Result<Pooling> {
    Pooling::from_name(name).ok_or_else(|| {
        let expected = Pooling::ALL.map(Pooling::as_str).join(", ");
        Error::invalid_value("TEALIGHT_POOLING", format!("TEALIGHT_POOLING is {name:?}; expected one of {expected}"))
    })
}

/// Browsers compare the header with their origin as text, so a list or a path would have no effect.
fn cors_origin(value: String) -> Result<String> {
    let is_host =
        |host: &str| !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:[]".contains(&b));
    let is_scheme =
        |scheme: &str| !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    let is_origin = value.split_once("://").is_some_and(|(scheme, host)| is_scheme(scheme) && is_host(host));
    if is_origin || value == "*" || value == "null" {
        return Ok(value);
    }
    Err(Error::invalid_value(
        "TEALIGHT_CORS_ALLOW_ORIGIN",
        format!("TEALIGHT_CORS_ALLOW_ORIGIN is {value:?}; expected * or one origin, such as https://example.org"),
    ))
}

fn precision(name: &str) -> Result<Precision> {
    match name {
        "int8" => Ok(Precision::Int8),
        "float32" | "f32" => Ok(Precision::F32),
        other => Err(Error::invalid_value(
            "TEALIGHT_PRECISION",
            format!("TEALIGHT_PRECISION is {other:?}; expected int8 or float32"),
        )),
    }
}

/// Memory per virtual CPU on AWS Lambda, in MB.
/// <https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html>
pub(crate) const MB_PER_VCPU: f64 = 1769.0;

fn default_threads(lambda_memory_mb: Option<&str>) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    match lambda_memory_mb.and_then(|mb| mb.parse::<f64>().ok()) {
        // Lambda reports at least two cores, even to a function whose memory entitles it to a fraction of one.
        Some(mb) => ((mb / MB_PER_VCPU).round() as usize).clamp(1, cores),
        None => cores,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(vars: &[(&str, &str)]) -> Result<Config> {
        Config::from_lookup(|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string()))
    }

    #[test]
    fn empty_environment_gives_defaults() {
        let config = read(&[]).unwrap();
        assert_eq!(config.model, "all-MiniLM-L6-v2");
        assert_eq!(config.max_client_batch_size, 32);
        assert!(config.auto_truncate && !config.download);
    }

    #[test]
    fn zero_chunk_tokens_means_model_limit() {
        let chunks = |tokens, overlap| {
            let config = read(&[("TEALIGHT_CHUNK_TOKENS", tokens), ("TEALIGHT_CHUNK_OVERLAP", overlap)]).unwrap();
            (config.chunk_tokens, config.chunk_overlap)
        };
        assert_eq!(chunks("", ""), (None, 0));
        assert_eq!(chunks("0", "0"), (None, 0));
        assert_eq!(chunks("128", "16"), (Some(128), 16));
    }

    #[test]
    fn lambda_memory_sets_thread_count() {
        let cores = std::thread::available_parallelism().unwrap().get();
        for (mb, threads) in [("128", 1), ("1769", 1), ("2653", 1), ("2654", 2), ("10240", 6)] {
            let config = read(&[("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", mb)]).unwrap();
            assert_eq!(config.threads, threads.min(cores), "{mb} MB");
        }
    }

    #[test]
    fn value_out_of_range_is_named_in_error() {
        for (name, value) in [
            ("TEALIGHT_THREADS", "0"),
            ("TEALIGHT_THREADS", "many"),
            ("TEALIGHT_DOWNLOAD", "yes"),
            ("TEALIGHT_PAYLOAD_LIMIT", "-1"),
            ("TEALIGHT_CHUNK_TOKENS", "-1"),
            ("TEALIGHT_CHUNK_TOKENS", "131073"),
            ("TEALIGHT_CHUNK_OVERLAP", "many"),
            ("TEALIGHT_ISA", "mmx"),
            ("TEALIGHT_PRECISION", "f16"),
            ("TEALIGHT_CORS_ALLOW_ORIGIN", "https://example.org/path"),
            ("TEALIGHT_CORS_ALLOW_ORIGIN", "http://a.example,http://b.example"),
            ("TEALIGHT_CORS_ALLOW_ORIGIN", "example.org"),
        ] {
            let error = read(&[(name, value)]).unwrap_err();
            assert!(error.message.contains(name) && error.message.contains(value), "{error}");
        }
        assert!(read(&[("TEALIGHT_CORS_ALLOW_ORIGIN", "https://a.example\nb")]).is_err());
        for origin in ["*", "null", "https://example.org", "http://[::1]:9000", "chrome-extension://abcdef"] {
            let config = read(&[("TEALIGHT_CORS_ALLOW_ORIGIN", origin)]).unwrap();
            assert_eq!(config.cors_allow_origin.as_deref(), Some(origin));
        }
    }

    #[test]
    fn empty_api_key_is_rejected_and_key_is_trimmed() {
        for (name, value) in [("TEALIGHT_API_KEY", ""), ("TEALIGHT_API_KEY", " "), ("TEALIGHT_API_KEY_SECRET", "")] {
            assert!(read(&[(name, value)]).unwrap_err().message.contains(name));
        }
        let config = read(&[("TEALIGHT_API_KEY", " key\n")]).unwrap();
        assert_eq!(config.api_key, Some(Secret("key".into())));
    }

    #[test]
    fn secret_is_not_printed() {
        let config = read(&[("TEALIGHT_API_KEY", "hunter2")]).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn variables_are_unique_and_read_under_their_own_name() {
        let requested = std::cell::RefCell::new(std::collections::BTreeSet::new());
        let get = |name: &str| {
            requested.borrow_mut().insert(name.to_string());
            None
        };
        Config::from_lookup(get).unwrap();
        let documented: std::collections::BTreeSet<_> = VARIABLES.iter().map(|v| v.name.to_string()).collect();
        assert_eq!(documented.len(), VARIABLES.len());
        assert_eq!(requested.into_inner(), documented);
    }
}
