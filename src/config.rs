//! Every environment variable, read once, with unit and default.

use crate::aws::s3::prefixes;
use crate::pipeline::chunk::Chunking;
use std::path::PathBuf;
use tealight_core::{Error, Result, Secret};
use tealight_kernels::Isa;
use tealight_models::Pooling;
use tealight_models::Precision;

/// Memory that buys one virtual CPU in AWS Lambda, in MB.
/// <https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html>
const MB_PER_VCPU: f64 = 1769.0;

/// What the environment says.
#[derive(Debug, Clone)]
pub struct Config {
    /// `TEALIGHT_MODEL`: the model used where a request names none; a name or a path. Default `all-MiniLM-L6-v2`.
    pub model: String,
    /// `TEALIGHT_SPEECH_MODEL`: the model that hears where a request names none, or `whisper-1`. Default `whisper-base`.
    pub speech_model: String,
    /// `TEALIGHT_TEXT_MODEL`: the model that writes where a request names none. Default `smollm2-135m-instruct`.
    pub text_model: String,
    /// `TEALIGHT_SERVED_NAMES`: further names, with commas between them, for the default model.
    pub served_names: Vec<String>,
    /// `TEALIGHT_MODEL_DIR`: a folder of models, looked through first.
    pub model_dir: Option<PathBuf>,
    /// `LAMBDA_TASK_ROOT`: the folder of the function's package.
    pub task_root: Option<PathBuf>,
    /// `TEALIGHT_DOWNLOAD`: 1 lets the function get its model from the hub. Default 0.
    pub download: bool,
    /// `TEALIGHT_THREADS`: threads of a forward pass. Default: in Lambda one for each 1769 MB, elsewhere the cores.
    pub threads: usize,
    /// `TEALIGHT_ISA`: a lower instruction set than the CPU's best.
    pub isa: Isa,
    /// `TEALIGHT_PRECISION`: `int8`, or `f32`, to measure what quantisation costs. Default `int8`.
    pub precision: Precision,
    /// `TEALIGHT_POOLING`: how the rows of a text become a vector: `cls`, `mean`, `max`, `lasttoken` or `mean_sqrt_len_tokens`.
    /// Default: as the model's files say.
    pub pooling: Option<Pooling>,
    /// `TEALIGHT_API_KEY`: the key that requests must carry. Default: none is asked for.
    pub api_key: Option<Secret>,
    /// `TEALIGHT_API_KEY_SECRET`: the ARN of a secret in AWS Secrets Manager that holds that key.
    pub api_key_secret_arn: Option<String>,
    /// `TEALIGHT_INDEX`: the index that `/search` searches: a file, in the function's package or a layer, too, or `s3://BUCKET/KEY`.
    pub index: Option<String>,
    /// `TEALIGHT_CHUNK_TOKENS`: tokens of a chunk of a long document; `TEALIGHT_CHUNK_OVERLAP`: tokens that two chunks beside each
    /// other share. Default, and 0: as many as the model reads, and none.
    pub chunking: Chunking,
    /// `TEALIGHT_S3_PREFIXES`: what requests may name in S3, `s3://BUCKET/PREFIX` with commas between them. Default: nothing.
    pub allowed_s3_prefixes: Vec<String>,
    /// `TEALIGHT_SINK`: where points of documents are written, as the module `sinks` knows it; a password may be in it.
    pub sink: Option<Secret>,
    /// `TEALIGHT_SINK_FORMAT`: the format of objects that a sink in S3 writes. Default `jsonl`.
    pub sink_format: Option<String>,
    /// `TEALIGHT_SINK_KEY`: the key or password that the sink asks for.
    pub sink_key: Option<Secret>,
    /// `TEALIGHT_SINK_SECRET`: the ARN of a secret in AWS Secrets Manager that holds it.
    pub sink_secret_arn: Option<String>,
    /// `TEALIGHT_PAYLOAD_LIMIT`: the largest body in bytes. Default: each route's own, 2,000,000 or 6,291,456.
    pub payload_limit: Option<usize>,
    /// `TEALIGHT_MAX_CLIENT_BATCH_SIZE`: inputs of one request on TEI's routes. Default 32.
    pub max_client_batch_size: usize,
    /// `TEALIGHT_MAX_CONCURRENT_REQUESTS`: requests that the local server holds at once. Default 512.
    pub max_concurrent_requests: usize,
    /// `TEALIGHT_AUTO_TRUNCATE`: whether TEI's routes cut long texts unless asked not to. Default 1.
    pub auto_truncate: bool,
    /// `TEALIGHT_RESPONSE_STREAM`: 1 where the function URL's invoke mode is RESPONSE_STREAM. Default 0.
    pub response_stream: bool,
    /// `TEALIGHT_CORS_ALLOW_ORIGIN`: the origin that browsers may call from, or `*`. Default: none.
    pub cors_allow_origin: Option<String>,
}

/// Where Lambda says how the function begins, and what it says of a snapshot.
/// <https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html>
pub const INITIALIZATION: &str = "AWS_LAMBDA_INITIALIZATION_TYPE";
/// Its value where a snapshot is taken.
pub const SNAP_START: &str = "snap-start";

/// The default model, which the package carries.
pub const DEFAULT_MODEL: &str = "all-MiniLM-L6-v2";

/// The default model that hears.
pub const DEFAULT_SPEECH_MODEL: &str = "whisper-base";

/// The default model that writes.
pub const DEFAULT_TEXT_MODEL: &str = "smollm2-135m-instruct";

/// Variables whose value must not go unread because it is not UTF-8.
const UTF8_VARIABLES: [&str; 14] = [
    "TEALIGHT_INDEX",
    "TEALIGHT_SINK",
    "TEALIGHT_SINK_FORMAT",
    "TEALIGHT_SINK_KEY",
    "TEALIGHT_SINK_SECRET",
    "TEALIGHT_TEXT_MODEL",
    "TEALIGHT_S3_PREFIXES",
    "TEALIGHT_SPEECH_MODEL",
    "TEALIGHT_API_KEY",
    "TEALIGHT_API_KEY_SECRET",
    "TEALIGHT_MODEL",
    "TEALIGHT_MODEL_DIR",
    "TEALIGHT_SERVED_NAMES",
    "TEALIGHT_CORS_ALLOW_ORIGIN",
];

impl Config {
    /// Reads the process's environment.
    pub fn from_env() -> Result<Self> {
        for name in UTF8_VARIABLES {
            if let Err(std::env::VarError::NotUnicode(_)) = std::env::var(name) {
                return Err(Error::invalid_value(name, format!("{name} is not UTF-8")));
            }
        }
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    /// Reads variables by a function.
    ///
    /// # Errors
    /// A variable has a value outside its range: the error names it, the value and the range.
    pub fn from_lookup(get: impl Fn(&str) -> Option<String>) -> Result<Self> {
        for name in ["TEALIGHT_API_KEY", "TEALIGHT_API_KEY_SECRET"] {
            // Set to nothing by mistake, it must not let everyone in.
            if get(name).is_some_and(|key| key.trim().is_empty()) {
                return Err(Error::invalid_value(name, format!("{name} is set and empty; unset it to ask for no key")));
            }
        }
        let get = |name: &str| get(name).filter(|v| !v.is_empty());
        let number = |name: &str, default: usize, limit: usize| match get(name) {
            None => Ok(default),
            Some(text) => match text.parse() {
                Ok(n) if (1..=limit).contains(&n) => Ok(n),
                _ => Err(Error::invalid_value(
                    name,
                    format!("{name} is {text:?}, it must be a whole number from 1 to {limit}"),
                )),
            },
        };
        let flag = |name: &str, default: bool| match get(name).as_deref() {
            None => Ok(default),
            Some("1" | "true") => Ok(true),
            Some("0" | "false") => Ok(false),
            Some(text) => Err(Error::invalid_value(name, format!("{name} is {text:?}, it must be 1 or 0"))),
        };
        let threads = default_threads(get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE").as_deref());
        let payload_limit = match get("TEALIGHT_PAYLOAD_LIMIT") {
            None => None,
            Some(_) => Some(number("TEALIGHT_PAYLOAD_LIMIT", 1, 1 << 30)?),
        };
        Ok(Self {
            model: get("TEALIGHT_MODEL").unwrap_or_else(|| DEFAULT_MODEL.into()),
            speech_model: get("TEALIGHT_SPEECH_MODEL").unwrap_or_else(|| DEFAULT_SPEECH_MODEL.into()),
            text_model: get("TEALIGHT_TEXT_MODEL").unwrap_or_else(|| DEFAULT_TEXT_MODEL.into()),
            served_names: get("TEALIGHT_SERVED_NAMES").map_or_else(Vec::new, |names| list(&names)),
            model_dir: get("TEALIGHT_MODEL_DIR").map(PathBuf::from),
            task_root: get("LAMBDA_TASK_ROOT").map(PathBuf::from),
            download: flag("TEALIGHT_DOWNLOAD", false)?,
            threads: number("TEALIGHT_THREADS", threads, 1024)?,
            isa: match get("TEALIGHT_ISA") {
                Some(name) => Isa::from_name(&name)?,
                // A snapshot wakes up on other machines than the one that it was taken on.
                None if get(INITIALIZATION).as_deref() == Some(SNAP_START) => Isa::lambda_baseline(),
                None => Isa::detect(),
            },
            precision: precision(get("TEALIGHT_PRECISION").as_deref())?,
            pooling: get("TEALIGHT_POOLING").map(|name| pooling(&name)).transpose()?,
            api_key: get("TEALIGHT_API_KEY").map(|key| Secret(key.trim().to_string())),
            api_key_secret_arn: get("TEALIGHT_API_KEY_SECRET"),
            index: get("TEALIGHT_INDEX"),
            chunking: chunking(&get)?,
            allowed_s3_prefixes: s3_prefixes(get("TEALIGHT_S3_PREFIXES"))?,
            sink: get("TEALIGHT_SINK").map(Secret),
            sink_format: get("TEALIGHT_SINK_FORMAT"),
            sink_key: get("TEALIGHT_SINK_KEY").map(|key| Secret(key.trim().to_string())),
            sink_secret_arn: get("TEALIGHT_SINK_SECRET"),
            payload_limit,
            max_client_batch_size: number("TEALIGHT_MAX_CLIENT_BATCH_SIZE", 32, 1 << 20)?,
            max_concurrent_requests: number("TEALIGHT_MAX_CONCURRENT_REQUESTS", 512, 1 << 20)?,
            auto_truncate: flag("TEALIGHT_AUTO_TRUNCATE", true)?,
            response_stream: flag("TEALIGHT_RESPONSE_STREAM", false)?,
            cors_allow_origin: get("TEALIGHT_CORS_ALLOW_ORIGIN"),
        })
    }
}

/// The most tokens that a chunk can be asked to have, in any model.
const MOST_CHUNK_TOKENS: usize = 1 << 17;

fn chunking(get: &dyn Fn(&str) -> Option<String>) -> Result<Chunking> {
    let number = |name: &str| match get(name).map(|text| text.parse().map_err(|_| text)) {
        None => Ok(0),
        Some(Ok(n)) if n <= MOST_CHUNK_TOKENS => Ok(n),
        Some(Ok(n)) => Err(format!("{name} is {n}, the most is {MOST_CHUNK_TOKENS}")),
        Some(Err(text)) => Err(format!("{name} is {text:?}, it must be a whole number from 0 to {MOST_CHUNK_TOKENS}")),
    };
    let read = |name: &str| number(name).map_err(|message| Error::invalid_value(name, message));
    let (tokens, overlap) = (read("TEALIGHT_CHUNK_TOKENS")?, read("TEALIGHT_CHUNK_OVERLAP")?);
    Ok(Chunking { tokens: Some(tokens).filter(|tokens| *tokens > 0), overlap })
}

fn s3_prefixes(text: Option<String>) -> Result<Vec<String>> {
    let name = "TEALIGHT_S3_PREFIXES";
    prefixes(&text.map_or_else(Vec::new, |text| list(&text)))
        .map_err(|e| Error::invalid_value(name, format!("{name}: {e}")))
}

fn pooling(name: &str) -> Result<Pooling> {
    Pooling::from_name(name).ok_or_else(|| {
        let known = Pooling::ALL.map(Pooling::as_str).join(", ");
        Error::invalid_value("TEALIGHT_POOLING", format!("TEALIGHT_POOLING is {name:?}, it must be one of {known}"))
    })
}

fn precision(name: Option<&str>) -> Result<Precision> {
    match name {
        None | Some("int8") => Ok(Precision::Int8),
        Some("f32") => Ok(Precision::F32),
        Some(other) => Err(Error::invalid_value(
            "TEALIGHT_PRECISION",
            format!("TEALIGHT_PRECISION is {other:?}, it must be int8 or f32"),
        )),
    }
}

fn list(names: &str) -> Vec<String> {
    names.split(',').map(str::trim).filter(|n| !n.is_empty()).map(str::to_string).collect()
}

fn default_threads(lambda_memory_mb: Option<&str>) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    match lambda_memory_mb.and_then(|mb| mb.parse::<f64>().ok()) {
        // Lambda shows two cores to the smallest function, and gives it a fraction of one.
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
    fn an_empty_environment_has_defaults() {
        let config = read(&[]).unwrap();
        assert_eq!(config.model, "all-MiniLM-L6-v2");
        assert_eq!(config.max_client_batch_size, 32);
        assert!(config.auto_truncate && !config.download);
    }

    #[test]
    fn chunks_of_0_tokens_are_left_to_the_model() {
        let of = |tokens, overlap| {
            read(&[("TEALIGHT_CHUNK_TOKENS", tokens), ("TEALIGHT_CHUNK_OVERLAP", overlap)]).unwrap().chunking
        };
        assert_eq!(of("", ""), Chunking::default());
        assert_eq!(of("0", "0"), Chunking::default());
        assert_eq!(of("128", "16"), Chunking { tokens: Some(128), overlap: 16 });
    }

    #[test]
    fn lambda_memory_decides_the_threads() {
        let cores = std::thread::available_parallelism().unwrap().get();
        for (mb, threads) in [("128", 1), ("1769", 1), ("2653", 1), ("2654", 2), ("10240", 6)] {
            let config = read(&[("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", mb)]).unwrap();
            assert_eq!(config.threads, threads.min(cores), "{mb} MB");
        }
    }

    #[test]
    fn a_bad_value_is_named() {
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
        ] {
            let error = read(&[(name, value)]).unwrap_err();
            assert!(error.message.contains(name) && error.message.contains(value), "{error}");
        }
    }

    #[test]
    fn an_empty_key_is_a_mistake_and_spaces_around_a_key_are_none_of_it() {
        for (name, value) in [("TEALIGHT_API_KEY", ""), ("TEALIGHT_API_KEY", " "), ("TEALIGHT_API_KEY_SECRET", "")] {
            assert!(read(&[(name, value)]).unwrap_err().message.contains(name));
        }
        let config = read(&[("TEALIGHT_API_KEY", " key\n")]).unwrap();
        assert_eq!(config.api_key, Some(Secret("key".into())));
    }

    #[test]
    fn a_secret_is_not_printed() {
        let config = read(&[("TEALIGHT_API_KEY", "hunter2")]).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
