//! Parses sink URLs and opens sinks.

use super::batching::{BatchingSink, PointFormat};
use super::opensearch::OpenSearchConfig;
#[cfg(feature = "postgres")]
use super::postgres::PgConfig;
use super::qdrant::QdrantConfig;
use super::s3_object::S3ObjectConfig;
use super::s3_vectors::S3VectorsConfig;
use super::traits::{OutputName, Sink};
use super::url::{SinkUrl, invalid_url};
use crate::engine::Engine;
use crate::pipeline::format::{Format, VectorEncoding};
use tealight_core::{Deadline, Error, Result, Secret, truncate_for_display};

/// A destination of points and the format that it gets them in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkConfig {
    kind: SinkKind,
    point_format: PointFormat,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum SinkKind {
    Qdrant(QdrantConfig),
    OpenSearch(OpenSearchConfig),
    S3Vectors(S3VectorsConfig),
    #[cfg(feature = "postgres")]
    Postgres(PgConfig),
    S3Object(S3ObjectConfig),
}

/// The sink of the configuration (`TEALIGHT_SINK`), if it is set.
///
/// # Errors
/// [`tealight_core::ErrorKind::InvalidValue`], with the name of the variable; [`tealight_core::ErrorKind::Upstream`] if the key
/// cannot be read from Secrets Manager.
pub fn configured(engine: &Engine) -> Result<Option<SinkConfig>> {
    let url = engine.config.sink.as_ref();
    url.map(|Secret(url)| from_url(url, engine).map_err(|e| e.with_context("TEALIGHT_SINK"))).transpose()
}

/// The sink of a URL, with the key and format of the configuration.
///
/// # Errors
/// The same as [`configured`].
pub fn from_url(url: &str, engine: &Engine) -> Result<SinkConfig> {
    let config = &engine.config;
    let key = match (&config.sink_key, &config.sink_secret_arn) {
        (Some(key), _) => Some(key.clone()),
        (None, Some(arn)) => {
            let context = "cannot read the key of the sink from Secrets Manager";
            Some(engine.secrets.get(arn).map_err(|e| e.with_context(context))?)
        }
        (None, None) => None,
    };
    let sink_config = SinkConfig::parse(url, key)?;
    match config.sink_format.as_deref() {
        Some(format) => sink_config.with_format(format),
        None => Ok(sink_config),
    }
}

impl SinkConfig {
    /// Parses a URL. The key is used by sinks that authenticate with one.
    ///
    /// # Errors
    /// [`tealight_core::ErrorKind::InvalidValue`] for `sink`, without the password.
    pub fn parse(url: &str, key: Option<Secret>) -> Result<Self> {
        let url = SinkUrl::parse(url)?;
        let (kind, format) = match url.scheme.as_str() {
            "qdrant+http" | "qdrant+https" => (SinkKind::Qdrant(QdrantConfig::from_url(&url, key)?), Format::Qdrant),
            "opensearch+http" | "opensearch+https" => {
                (SinkKind::OpenSearch(OpenSearchConfig::from_url(&url, key)?), Format::OpenSearch)
            }
            "elasticsearch+http" | "elasticsearch+https" => {
                (SinkKind::OpenSearch(OpenSearchConfig::from_url(&url, key)?), Format::Elasticsearch)
            }
            "s3vectors" => (SinkKind::S3Vectors(S3VectorsConfig::from_url(&url)?), Format::S3Vectors),
            "postgres" | "postgresql" => (postgres(&url, key)?, Format::Pgvector),
            "s3" => (SinkKind::S3Object(S3ObjectConfig::from_url(&url)?), Format::Jsonl),
            other => {
                let supported = "qdrant+https, opensearch+https, elasticsearch+https, s3vectors, postgres, s3";
                let scheme = truncate_for_display(other);
                return Err(invalid_url(format!("unsupported scheme {scheme:?}; supported: {supported}")));
            }
        };
        let encoding = url.parameter("encoding").map_or(Ok(VectorEncoding::Float), encoding)?;
        Self { kind, point_format: PointFormat { format, encoding } }.validate()
    }

    /// Sets the format of S3 objects: `TEALIGHT_SINK_FORMAT`.
    ///
    /// # Errors
    /// [`tealight_core::ErrorKind::InvalidValue`]: the format is unknown, cannot be written incrementally, or differs from the only
    /// format of the sink.
    pub fn with_format(mut self, name: &str) -> Result<Self> {
        const VARIABLE: &str = "TEALIGHT_SINK_FORMAT";
        let invalid_format = |reason: &str| {
            Error::invalid_value(VARIABLE, format!("{VARIABLE} is {:?}; expected {reason}", truncate_for_display(name)))
        };
        let format = Format::from_name(name).ok_or_else(|| invalid_format("a known format, such as jsonl"))?;
        if matches!(format, Format::Json | Format::Npy | Format::Arrow | Format::Parquet) {
            return Err(invalid_format("a format that can be written incrementally, such as jsonl"));
        }
        match self.kind {
            SinkKind::S3Object(_) => self.point_format.format = format,
            _ if format == self.point_format.format => {}
            _ => {
                return Err(invalid_format(&format!(
                    "{}, the only format of this sink; the variable applies to s3://",
                    self.point_format.format.as_str()
                )));
            }
        }
        self.validate()
    }

    /// Fails if the format does not support the encoding.
    fn validate(self) -> Result<Self> {
        self.point_format.body_builder()?;
        Ok(self)
    }

    /// Whether each [`OutputName`] becomes one object. Then the same name must always have the same points.
    pub fn has_object_per_name(&self) -> bool {
        matches!(self.kind, SinkKind::S3Object(_))
    }

    /// Opens the sink for points under a name, without sending a request.
    ///
    /// # Errors
    /// [`tealight_core::ErrorKind::Upstream`]: AWS credentials or region are missing.
    pub fn open(&self, output: &OutputName, deadline: Deadline) -> Result<Box<dyn Sink>> {
        deadline.check()?;
        let point_format = self.point_format;
        Ok(match &self.kind {
            SinkKind::Qdrant(config) => Box::new(BatchingSink::new(config.client(), point_format)?),
            SinkKind::OpenSearch(config) => Box::new(BatchingSink::new(config.client(), point_format)?),
            SinkKind::S3Vectors(config) => Box::new(BatchingSink::new(config.client()?, point_format)?),
            #[cfg(feature = "postgres")]
            SinkKind::Postgres(config) => Box::new(BatchingSink::new(config.client()?, point_format)?),
            SinkKind::S3Object(config) => Box::new(config.open(point_format, output)?),
        })
    }
}

fn encoding(name: &str) -> Result<VectorEncoding> {
    VectorEncoding::ALL.into_iter().find(|encoding| encoding.as_str() == name).ok_or_else(|| {
        let expected = VectorEncoding::ALL.map(VectorEncoding::as_str).join(", ");
        invalid_url(format!("encoding is {:?}; expected one of {expected}", truncate_for_display(name)))
    })
}

#[cfg(feature = "postgres")]
fn postgres(url: &SinkUrl, key: Option<Secret>) -> Result<SinkKind> {
    Ok(SinkKind::Postgres(PgConfig::from_url(url, key)?))
}

#[cfg(not(feature = "postgres"))]
fn postgres(_: &SinkUrl, _: Option<Secret>) -> Result<SinkKind> {
    Err(Error::feature_disabled(tealight_core::ErrorKind::InvalidValue, "postgres://", "postgres").with_param("sink"))
}

#[cfg(test)]
mod tests {
    use super::super::client::Identity;
    use super::*;

    fn key() -> Option<Secret> {
        Some(Secret("sesame".into()))
    }

    #[test]
    fn key_becomes_header_of_the_store() {
        let identity = |url| match SinkConfig::parse(url, key()).unwrap().kind {
            SinkKind::Qdrant(config) => config.identity,
            SinkKind::OpenSearch(config) => config.identity,
            _ => Identity::Anonymous,
        };
        let header = |name, value: &str| Identity::Header(name, Secret(value.into()));
        assert_eq!(identity("qdrant+http://host:6333/c"), header("api-key", "sesame"));
        assert_eq!(identity("opensearch+https://u:p@host/i"), header("authorization", "Basic dTpw"));
        assert_eq!(identity("opensearch+https://u@host/i"), header("authorization", "Basic dTpzZXNhbWU="));
        assert_eq!(identity("elasticsearch+https://host/i"), header("authorization", "ApiKey sesame"));
    }

    #[test]
    fn aws_region_is_read_from_host() {
        let url = "opensearch+https://abc.us-east-1.aoss.amazonaws.com/i?aws=aoss";
        let SinkKind::OpenSearch(config) = SinkConfig::parse(url, None).unwrap().kind else { panic!() };
        assert_eq!(config.identity, Identity::Aws { service: "aoss", region: "us-east-1".into() });
        assert_eq!(config.url, "https://abc.us-east-1.aoss.amazonaws.com/i/_bulk");
    }

    #[test]
    fn invalid_url_error_names_problem_without_key() {
        for (url, word) in [
            ("redis://host/x", "redis"),
            ("qdrant+http://host", "collection"),
            ("qdrant+http://host/a/b", "collection"),
            ("qdrant+http://host/c?wait=false", "wait"),
            ("qdrant+http://u:sesame@host/c", "user"),
            ("opensearch+http://host/i?aws=s3", "aws"),
            ("opensearch+http://u:sesame@host/i?aws=es", "not both"),
            ("s3vectors://B/i", "bucket"),
            ("s3://bucket/x?encoding=sesame1", "encoding"),
            ("s3vectors://bucket/i?encoding=binary", "float"),
        ] {
            let error = SinkConfig::parse(url, key()).unwrap_err();
            assert!(error.message.contains(word) && !error.message.contains("sesame "), "{url}: {error}");
        }
        let config = SinkConfig::parse("opensearch+http://u:sesame@host/i", None).unwrap();
        assert!(!format!("{config:?}").contains("sesame"));
        assert!(config.with_format("qdrant").unwrap_err().message.contains("TEALIGHT_SINK_FORMAT"));
    }
}
