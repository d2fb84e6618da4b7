//! The sink of a URL.

use super::batching::{Batches, Form};
use super::client::{Client, Identity};
#[cfg(feature = "postgres")]
use super::postgres;
use super::url::{Address, wrong};
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
pub const MOST_HELD: usize = 500;

/// Where points are written.
pub trait Sink: Send {
    /// Writes points, or takes them up to be written. Gives those that are refused for good: how many were ever given to this sink
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
pub struct Target {
    place: Place,
    form: Form,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
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
    Postgres(postgres::Settings),
    Objects {
        bucket: String,
        prefix: String,
    },
}

/// The sink that the environment names, if it names one.
///
/// # Errors
/// What is wrong with which variable; [`tealight_core::ErrorKind::Upstream`] where its key cannot be read from Secrets Manager.
pub fn configured(engine: &Engine) -> Result<Option<Target>> {
    let url = engine.config.sink.as_ref();
    url.map(|Secret(url)| named(url, engine).map_err(|e| e.with_context("TEALIGHT_SINK"))).transpose()
}

/// The sink of a URL, with the key and the format that the environment gives.
///
/// # Errors
/// As of [`configured`].
pub fn named(url: &str, engine: &Engine) -> Result<Target> {
    let config = &engine.config;
    let key = match (&config.sink_key, &config.sink_secret_arn) {
        (Some(key), _) => Some(key.clone()),
        (None, Some(arn)) => {
            let unread = "the sink's key cannot be read from Secrets Manager";
            Some(engine.secrets.get(arn).map_err(|e| e.with_context(unread))?)
        }
        (None, None) => None,
    };
    let target = Target::parse(url, key)?;
    config.sink_format.as_deref().map_or(Ok(target.clone()), |format| target.with_format(format))
}

impl Target {
    /// Of a URL; the key is for sinks that ask for one.
    ///
    /// # Errors
    /// [`tealight_core::ErrorKind::InvalidValue`] of `sink`: what is wrong, without the password.
    pub fn parse(url: &str, key: Option<Secret>) -> Result<Self> {
        let address = Address::parse(url)?;
        let (place, format) = match address.scheme.as_str() {
            "qdrant+http" | "qdrant+https" => (qdrant(&address, key)?, Format::Qdrant),
            "opensearch+http" | "opensearch+https" => (opensearch(&address, key)?, Format::OpenSearch),
            "elasticsearch+http" | "elasticsearch+https" => (opensearch(&address, key)?, Format::Elasticsearch),
            "s3vectors" => (s3_vectors(&address)?, Format::S3Vectors),
            "postgres" | "postgresql" => (postgres(&address, key)?, Format::Pgvector),
            "s3" => (objects(&address)?, Format::Jsonl),
            other => {
                let known = "qdrant+https, opensearch+https, s3vectors, postgres, s3";
                return Err(wrong(format!(
                    "it begins with {:?}, it must be one of {known}",
                    truncate_for_display(other)
                )));
            }
        };
        let encoding = address.parameter("encoding").map_or(Ok(Encoding::Float), encoding)?;
        Self { place, form: Form { format, encoding } }.checked()
    }

    /// Sets the format of objects: `TEALIGHT_SINK_FORMAT`.
    ///
    /// # Errors
    /// [`tealight_core::ErrorKind::InvalidValue`]: there is no such format, it cannot be written in parts, or the sink has one of its own.
    pub fn with_format(mut self, name: &str) -> Result<Self> {
        let refused = |what: &str| {
            Error::invalid_value(
                "TEALIGHT_SINK_FORMAT",
                format!("TEALIGHT_SINK_FORMAT is {:?}, {what}", truncate_for_display(name)),
            )
        };
        let format = Format::named(name).ok_or_else(|| refused("which is no format"))?;
        if matches!(format, Format::Json | Format::Npy | Format::Arrow | Format::Parquet) {
            return Err(refused("which is written as a whole; objects grow line by line, as jsonl does"));
        }
        match self.place {
            Place::Objects { .. } => self.form.format = format,
            _ if format == self.form.format => {}
            _ => return Err(refused("and this sink has a format of its own; it is for s3://")),
        }
        self.checked()
    }

    /// Refuses what the format has no place for.
    fn checked(self) -> Result<Self> {
        self.form.packer()?;
        Ok(self)
    }

    /// Whether each source becomes an object of its own, so that the same source must bring the same points.
    pub fn is_by_source(&self) -> bool {
        matches!(self.place, Place::Objects { .. })
    }

    /// Opens it for points of a source; asks nobody yet.
    ///
    /// # Errors
    /// [`tealight_core::ErrorKind::Upstream`]: the credentials or the region of AWS are missing.
    pub fn open(&self, source: &Source, deadline: Deadline) -> Result<Box<dyn Sink>> {
        deadline.check()?;
        let form = self.form;
        Ok(match &self.place {
            Place::Qdrant { url, name, identity } => {
                let client = Client::new(name.clone(), identity.clone());
                Box::new(Batches::new(qdrant::Qdrant { client, url: url.clone() }, form)?)
            }
            Place::OpenSearch { url, name, identity } => {
                let client = Client::new(name.clone(), identity.clone());
                Box::new(Batches::new(opensearch::OpenSearch { client, url: url.clone() }, form)?)
            }
            Place::S3Vectors { bucket, index } => {
                let (service, region) = ("s3vectors", region()?);
                let url = format!("{}/PutVectors", endpoint(service, &region));
                let client = Client::new(format!("s3vectors://{bucket}/{index}"), Identity::Aws { service, region });
                let names = s3_vectors::S3Vectors::names(bucket, index);
                Box::new(Batches::new(s3_vectors::S3Vectors { client, url, names }, form)?)
            }
            #[cfg(feature = "postgres")]
            Place::Postgres(settings) => Box::new(Batches::new(postgres::Table::new(settings.clone())?, form)?),
            Place::Objects { bucket, prefix } => Box::new(s3_object::Upload::new(bucket, prefix, &form, source)?),
        })
    }
}

fn encoding(name: &str) -> Result<Encoding> {
    Encoding::ALL.into_iter().find(|encoding| encoding.name() == name).ok_or_else(|| {
        let known = Encoding::ALL.map(Encoding::name).join(", ");
        wrong(format!("encoding is {:?}, it must be one of {known}", truncate_for_display(name)))
    })
}

/// The address of a server: `http` or `https` and what stands behind it.
fn server(address: &Address) -> String {
    let scheme = if address.scheme.ends_with("+https") { "https" } else { "http" };
    format!("{scheme}://{}", address.place())
}

fn qdrant(address: &Address, key: Option<Secret>) -> Result<Place> {
    address.only(&["encoding"], false)?;
    let collection = address.name("a collection")?;
    let encoded = utf8_percent_encode(&collection, NON_ALPHANUMERIC);
    let url = format!("{}/collections/{encoded}/points?wait=true", server(address));
    let name = format!("collection {collection} of Qdrant at {}", address.place());
    let identity = key.map_or(Identity::Nobody, |key| Identity::Header("api-key", key));
    Ok(Place::Qdrant { url, name, identity })
}

fn opensearch(address: &Address, key: Option<Secret>) -> Result<Place> {
    address.only(&["aws", "region", "encoding"], true)?;
    let index = address.name("an index")?;
    let encoded = utf8_percent_encode(&index, NAME);
    let url = format!("{}/{encoded}/_bulk", server(address));
    let name = format!("index {index} of OpenSearch at {}", address.place());
    let service = match address.parameter("aws") {
        None => return Ok(Place::OpenSearch { url, name, identity: basic(address, key)? }),
        Some("es") => "es",
        Some("aoss") => "aoss",
        Some(_) => return Err(wrong("aws must be es or aoss")),
    };
    if address.user.is_some() {
        return Err(wrong("either AWS's signature or a user tells who asks, not both"));
    }
    let given = address.parameter("region").map(String::from).or_else(|| region_of(&address.host, service));
    let region = given.map_or_else(region, Ok)?;
    Ok(Place::OpenSearch { url, name, identity: Identity::Aws { service, region } })
}

/// What names of indexes have, which are in lower case.
const NAME: &percent_encoding::AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// A user with a password, which may be the key; a key alone is one of Elasticsearch's.
fn basic(address: &Address, key: Option<Secret>) -> Result<Identity> {
    let header = |value| Ok(Identity::Header("authorization", Secret(value)));
    match (&address.user, address.password.clone().or(key)) {
        (Some(user), Some(Secret(password))) => {
            header(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
        }
        (Some(_), None) => Err(wrong("its user has no password; TEALIGHT_SINK_KEY may be it")),
        (None, Some(Secret(key))) => header(format!("ApiKey {key}")),
        (None, None) => Ok(Identity::Nobody),
    }
}

/// The region in the name of a domain or collection of AWS: `NAME.REGION.es.amazonaws.com`.
fn region_of(host: &str, service: &str) -> Option<String> {
    let (rest, _) = host.split_once(&format!(".{service}.amazonaws.com"))?;
    rest.rsplit_once('.').map(|(_, region)| region.to_string())
}

fn s3_vectors(address: &Address) -> Result<Place> {
    address.only(&["encoding"], false)?;
    let (bucket, index) = (bucket(address)?, address.name("an index")?);
    Ok(Place::S3Vectors { bucket, index })
}

#[cfg(feature = "postgres")]
fn postgres(address: &Address, key: Option<Secret>) -> Result<Place> {
    Ok(Place::Postgres(postgres::Settings::of(address, key)?))
}

#[cfg(not(feature = "postgres"))]
fn postgres(_: &Address, _: Option<Secret>) -> Result<Place> {
    Err(wrong("this build was made without the feature postgres"))
}

fn objects(address: &Address) -> Result<Place> {
    address.only(&["encoding"], false)?;
    let prefix = percent_encoding::percent_decode_str(&address.path).decode_utf8();
    let prefix = prefix.map_err(|_| wrong("what it encodes by % is not UTF-8"))?.into_owned();
    Ok(Place::Objects { bucket: bucket(address)?, prefix })
}

fn bucket(address: &Address) -> Result<String> {
    match is_bucket(&address.host) && address.port.is_none() {
        true => Ok(address.host.clone()),
        false => Err(wrong(format!("{}:// begins with the name of a bucket", address.scheme))),
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
        let identity = |url| match Target::parse(url, key()).unwrap().place {
            Place::Qdrant { identity, .. } | Place::OpenSearch { identity, .. } => identity,
            _ => Identity::Nobody,
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
        let Place::OpenSearch { identity, url, .. } = Target::parse(url, None).unwrap().place else { panic!() };
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
            let error = Target::parse(url, key()).unwrap_err();
            assert!(error.message.contains(word) && !error.message.contains("sesame "), "{url}: {error}");
        }
        let target = Target::parse("opensearch+http://u:sesame@host/i", None).unwrap();
        assert!(!format!("{target:?}").contains("sesame"));
        assert!(target.with_format("qdrant").unwrap_err().message.contains("TEALIGHT_SINK_FORMAT"));
    }
}
