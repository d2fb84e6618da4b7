//! The sink of a URL.

use super::batching::{BatchingSink, PointFormat};
use super::client::{Client, Identity};
#[cfg(feature = "postgres")]
use super::postgres;
use super::url::{SinkUrl, invalid_url};
use super::{opensearch, qdrant, s3_object, s3_vectors};
use crate::aws::s3::is_bucket;
use crate::aws::{endpoint, region};
use crate::engine::Engine;
use crate::pipeline::format::{Encoding, Format};
use crate::pipeline::point::Point;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tealight_core::Deadline;
use tealight_core::Secret;
use tealight_core::{Error, Result, truncate_for_display};

/// Points of a request at most, and so points that a sink has not told of yet: enough to make round trips cheap, and few enough for
/// a request to be tried again.
pub const MAX_PENDING: usize = 500;

/// Where points are written.
pub trait Sink: Send {
    /// Writes points, or takes them up to be written. Gives those that are refused for good: how many were ever explicit to this sink
    /// before, and why.
    ///
    /// # Errors
    /// The sink as a whole fails; nobody knows which of the points it has. To write them again does no harm.
    fn write(&mut self, points: &[Point], deadline: Deadline) -> Result<Vec<(usize, Error)>>;

    /// Writes what is left. Once it returns, all is kept.
    ///
    /// # Errors
    /// As of [`Sink::write`].
    fn finish(&mut self, deadline: Deadline) -> Result<Vec<(usize, Error)>>;
}

/// What points come from: it names the output where a sink writes objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// An object of Amazon S3.
    Object {
        /// Its bucket.
        bucket: String,
        /// Its key.
        key: String,
        /// Its ETag, so that another object under the same key has an output of its own.
        etag: String,
        /// Which part of it, where it is read in parts.
        part: Option<String>,
    },
    /// A local file, by its name.
    File(String),
    /// Documents by themselves, by a name that is the same for the same documents.
    Documents(String),
}

/// Where points go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkConfig {
    kind: SinkKind,
    point_format: PointFormat,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum SinkKind {
    Qdrant {
        url: String,
        name: String,
        identity: Identity,
    },
    OpenSearch {
        url: String,
        name: String,
        identity: Identity,
    },
    S3Vectors {
        bucket: String,
        index: String,
    },
    #[cfg(feature = "postgres")]
    Postgres(postgres::PgConfig),
    S3Objects {
        bucket: String,
        prefix: String,
    },
}

/// The sink that the environment names, if it names one.
///
/// # Errors
/// What is wrong with which variable; [`tealight_core::ErrorKind::Upstream`] where its key cannot be read from Secrets Manager.
pub fn from_env(engine: &Engine) -> Result<Option<SinkConfig>> {
    let url = engine.config.sink.as_ref();
    url.map(|Secret(url)| from_url(url, engine).map_err(|e| e.with_context("TEALIGHT_SINK"))).transpose()
}

/// The sink of a URL, with the key and the format that the environment gives.
///
/// # Errors
/// As of [`configured`].
pub fn from_url(url: &str, engine: &Engine) -> Result<SinkConfig> {
    let config = &engine.config;
    let key = match (&config.sink_key, &config.sink_secret_arn) {
        (Some(key), _) => Some(key.clone()),
        (None, Some(arn)) => {
            let unread = "the sink's key cannot be read from Secrets Manager";
            Some(engine.secrets.get(arn).map_err(|e| e.with_context(unread))?)
        }
        (None, None) => None,
    };
    let target = SinkConfig::parse(url, key)?;
    config.sink_format.as_deref().map_or(Ok(target.clone()), |format| target.with_format(format))
}

impl SinkConfig {
    /// Of a URL; the key is for sinks that ask for one.
    ///
    /// # Errors
    /// [`tealight_core::ErrorKind::InvalidValue`] of `sink`: what is wrong, without the password.
    pub fn parse(url: &str, key: Option<Secret>) -> Result<Self> {
        let address = SinkUrl::parse(url)?;
        let (kind, format) = match address.scheme.as_str() {
            "qdrant+http" | "qdrant+https" => (qdrant(&address, key)?, Format::Qdrant),
            "opensearch+http" | "opensearch+https" => (opensearch(&address, key)?, Format::OpenSearch),
            "elasticsearch+http" | "elasticsearch+https" => (opensearch(&address, key)?, Format::Elasticsearch),
            "s3vectors" => (s3_vectors(&address)?, Format::S3Vectors),
            "postgres" | "postgresql" => (postgres(&address, key)?, Format::Pgvector),
            "s3" => (s3_objects(&address)?, Format::Jsonl),
            other => {
                let known = "qdrant+https, opensearch+https, s3vectors, postgres, s3";
                return Err(invalid_url(format!(
                    "it begins with {:?}, it must be one of {known}",
                    truncate_for_display(other)
                )));
            }
        };
        let encoding = address.parameter("encoding").map_or(Ok(Encoding::Float), encoding)?;
        Self { kind, point_format: PointFormat { format, encoding } }.validate()
    }

    /// Sets the format of objects: `TEALIGHT_SINK_FORMAT`.
    ///
    /// # Errors
    /// [`tealight_core::ErrorKind::InvalidValue`]: there is no such format, it cannot be written in parts, or the sink has one of its own.
    pub fn with_format(mut self, name: &str) -> Result<Self> {
        let invalid_format = |what: &str| {
            Error::invalid_value(
                "TEALIGHT_SINK_FORMAT",
                format!("TEALIGHT_SINK_FORMAT is {:?}, {what}", truncate_for_display(name)),
            )
        };
        let format = Format::from_name(name).ok_or_else(|| invalid_format("which is no format"))?;
        if matches!(format, Format::Json | Format::Npy | Format::Arrow | Format::Parquet) {
            return Err(invalid_format("which is written as a whole; objects grow line by line, as jsonl does"));
        }
        match self.kind {
            SinkKind::S3Objects { .. } => self.point_format.format = format,
            _ if format == self.point_format.format => {}
            _ => return Err(invalid_format("and this sink has a format of its own; it is for s3://")),
        }
        self.validate()
    }

    /// Refuses what the format has no kind for.
    fn validate(self) -> Result<Self> {
        self.point_format.body_builder()?;
        Ok(self)
    }

    /// Whether each source becomes an object of its own, so that the same source must bring the same points.
    pub fn has_object_per_source(&self) -> bool {
        matches!(self.kind, SinkKind::S3Objects { .. })
    }

    /// Opens it for points of a source; asks nobody yet.
    ///
    /// # Errors
    /// [`tealight_core::ErrorKind::Upstream`]: the credentials or the region of AWS are missing.
    pub fn open(&self, source: &Source, deadline: Deadline) -> Result<Box<dyn Sink>> {
        deadline.check()?;
        let point_format = self.point_format;
        Ok(match &self.kind {
            SinkKind::Qdrant { url, name, identity } => {
                let client = Client::new(name.clone(), identity.clone());
                Box::new(BatchingSink::new(qdrant::Qdrant { client, url: url.clone() }, point_format)?)
            }
            SinkKind::OpenSearch { url, name, identity } => {
                let client = Client::new(name.clone(), identity.clone());
                Box::new(BatchingSink::new(opensearch::OpenSearch { client, url: url.clone() }, point_format)?)
            }
            SinkKind::S3Vectors { bucket, index } => {
                let (service, region) = ("s3vectors", region()?);
                let url = format!("{}/PutVectors", endpoint(service, &region));
                let client = Client::new(format!("s3vectors://{bucket}/{index}"), Identity::Aws { service, region });
                let names = s3_vectors::S3Vectors::names(bucket, index);
                Box::new(BatchingSink::new(s3_vectors::S3Vectors { client, url, names }, point_format)?)
            }
            #[cfg(feature = "postgres")]
            SinkKind::Postgres(settings) => {
                Box::new(BatchingSink::new(postgres::PgSink::new(settings.clone())?, point_format)?)
            }
            SinkKind::S3Objects { bucket, prefix } => {
                Box::new(s3_object::S3ObjectSink::new(bucket, prefix, &point_format, source)?)
            }
        })
    }
}

fn encoding(name: &str) -> Result<Encoding> {
    Encoding::ALL.into_iter().find(|encoding| encoding.as_str() == name).ok_or_else(|| {
        let known = Encoding::ALL.map(Encoding::as_str).join(", ");
        invalid_url(format!("encoding is {:?}, it must be one of {known}", truncate_for_display(name)))
    })
}

/// The address of a server: `http` or `https` and what stands behind it.
fn server(address: &SinkUrl) -> String {
    let scheme = if address.scheme.ends_with("+https") { "https" } else { "http" };
    format!("{scheme}://{}", address.host_port())
}

fn qdrant(address: &SinkUrl, key: Option<Secret>) -> Result<SinkKind> {
    address.reject_unknown(&["encoding"], false)?;
    let collection = address.single_segment("a collection")?;
    let encoded = utf8_percent_encode(&collection, NON_ALPHANUMERIC);
    let url = format!("{}/collections/{encoded}/points?wait=true", server(address));
    let name = format!("collection {collection} of Qdrant at {}", address.host_port());
    let identity = key.map_or(Identity::Anonymous, |key| Identity::Header("api-key", key));
    Ok(SinkKind::Qdrant { url, name, identity })
}

fn opensearch(address: &SinkUrl, key: Option<Secret>) -> Result<SinkKind> {
    address.reject_unknown(&["aws", "region", "encoding"], true)?;
    let index = address.single_segment("an index")?;
    let encoded = utf8_percent_encode(&index, INDEX_NAME);
    let url = format!("{}/{encoded}/_bulk", server(address));
    let name = format!("index {index} of OpenSearch at {}", address.host_port());
    let service = match address.parameter("aws") {
        None => return Ok(SinkKind::OpenSearch { url, name, identity: basic(address, key)? }),
        Some("es") => "es",
        Some("aoss") => "aoss",
        Some(_) => return Err(invalid_url("aws must be es or aoss")),
    };
    if address.user.is_some() {
        return Err(invalid_url("either AWS's signature or a user tells who asks, not both"));
    }
    let explicit = address.parameter("region").map(String::from).or_else(|| region_of(&address.host, service));
    let region = explicit.map_or_else(region, Ok)?;
    Ok(SinkKind::OpenSearch { url, name, identity: Identity::Aws { service, region } })
}

/// What names of indexes have, which are in lower case.
const INDEX_NAME: &percent_encoding::AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// A user with a password, which may be the key; a key alone is one of Elasticsearch's.
fn basic(address: &SinkUrl, key: Option<Secret>) -> Result<Identity> {
    let header = |value| Ok(Identity::Header("authorization", Secret(value)));
    match (&address.user, address.password.clone().or(key)) {
        (Some(user), Some(Secret(password))) => {
            header(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
        }
        (Some(_), None) => Err(invalid_url("its user has no password; TEALIGHT_SINK_KEY may be it")),
        (None, Some(Secret(key))) => header(format!("ApiKey {key}")),
        (None, None) => Ok(Identity::Anonymous),
    }
}

/// The region in the name of a domain or collection of AWS: `INDEX_NAME.REGION.es.amazonaws.com`.
fn region_of(host: &str, service: &str) -> Option<String> {
    let (rest, _) = host.split_once(&format!(".{service}.amazonaws.com"))?;
    rest.rsplit_once('.').map(|(_, region)| region.to_string())
}

fn s3_vectors(address: &SinkUrl) -> Result<SinkKind> {
    address.reject_unknown(&["encoding"], false)?;
    let (bucket, index) = (bucket(address)?, address.single_segment("an index")?);
    Ok(SinkKind::S3Vectors { bucket, index })
}

#[cfg(feature = "postgres")]
fn postgres(address: &SinkUrl, key: Option<Secret>) -> Result<SinkKind> {
    Ok(SinkKind::Postgres(postgres::PgConfig::from_url(address, key)?))
}

#[cfg(not(feature = "postgres"))]
fn postgres(_: &SinkUrl, _: Option<Secret>) -> Result<SinkKind> {
    Err(invalid_url("this build was made without the feature postgres"))
}

fn s3_objects(address: &SinkUrl) -> Result<SinkKind> {
    address.reject_unknown(&["encoding"], false)?;
    let prefix = percent_encoding::percent_decode_str(&address.path).decode_utf8();
    let prefix = prefix.map_err(|_| invalid_url("what it encodes by % is not UTF-8"))?.into_owned();
    Ok(SinkKind::S3Objects { bucket: bucket(address)?, prefix })
}

fn bucket(address: &SinkUrl) -> Result<String> {
    match is_bucket(&address.host) && address.port.is_none() {
        true => Ok(address.host.clone()),
        false => Err(invalid_url(format!("{}:// begins with the name of a bucket", address.scheme))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Option<Secret> {
        Some(Secret("sesame".into()))
    }

    #[test]
    fn a_key_is_what_the_sink_asks_for() {
        let identity = |url| match SinkConfig::parse(url, key()).unwrap().kind {
            SinkKind::Qdrant { identity, .. } | SinkKind::OpenSearch { identity, .. } => identity,
            _ => Identity::Anonymous,
        };
        let header = |name, value: &str| Identity::Header(name, Secret(value.into()));
        assert_eq!(identity("qdrant+http://host:6333/c"), header("api-key", "sesame"));
        assert_eq!(identity("opensearch+https://u:p@host/i"), header("authorization", "Basic dTpw"));
        assert_eq!(identity("opensearch+https://u@host/i"), header("authorization", "Basic dTpzZXNhbWU="));
        assert_eq!(identity("elasticsearch+https://host/i"), header("authorization", "ApiKey sesame"));
    }

    #[test]
    fn domains_of_aws_name_their_region() {
        assert_eq!(region_of("search-x-abc.eu-west-1.es.amazonaws.com", "es").as_deref(), Some("eu-west-1"));
        assert_eq!(region_of("abc.us-east-1.aoss.amazonaws.com", "aoss").as_deref(), Some("us-east-1"));
        assert_eq!(region_of("localhost", "es"), None);
        let url = "opensearch+https://abc.us-east-1.aoss.amazonaws.com/i?aws=aoss";
        let SinkKind::OpenSearch { identity, url, .. } = SinkConfig::parse(url, None).unwrap().kind else { panic!() };
        assert_eq!(identity, Identity::Aws { service: "aoss", region: "us-east-1".into() });
        assert_eq!(url, "https://abc.us-east-1.aoss.amazonaws.com/i/_bulk");
    }

    #[test]
    fn what_is_no_sink_is_refused_in_words_without_the_key() {
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
        let target = SinkConfig::parse("opensearch+http://u:sesame@host/i", None).unwrap();
        assert!(!format!("{target:?}").contains("sesame"));
        assert!(target.with_format("qdrant").unwrap_err().message.contains("TEALIGHT_SINK_FORMAT"));
    }
}
