//! Parses sink URLs.

use crate::aws::s3::is_bucket;
use percent_encoding::percent_decode_str;
use tealight_core::{Error, Result, Secret, truncate_for_display};

/// `SCHEME://USER:PASSWORD@HOST:PORT/PATH?NAME=VALUE`, percent-decoded except for the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SinkUrl {
    pub scheme: String,
    pub user: Option<String>,
    pub password: Option<Secret>,
    /// Host without the brackets of an IPv6 address.
    pub host: String,
    pub port: Option<u16>,
    /// Path without leading and trailing slashes.
    pub path: String,
    query: Vec<(String, String)>,
}

impl SinkUrl {
    /// Splits a URL into its parts.
    ///
    /// # Errors
    /// [`tealight_core::ErrorKind::InvalidValue`] for `sink`. The message never contains the password.
    pub fn parse(url: &str) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| invalid_url("expected SCHEME://..."))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, host_port) = authority.rsplit_once('@').map_or((None, authority), |(i, p)| (Some(i), p));
        let (user, password) = match credentials.map(|i| i.split_once(':').unwrap_or((i, ""))) {
            Some((user, password)) => (decode(user)?, decode(password)?),
            None => Default::default(),
        };
        let (host, port) = host_and_port(host_port)?;
        Ok(Self {
            scheme: scheme.to_ascii_lowercase(),
            user: Some(user).filter(|u| !u.is_empty()),
            password: Some(password).filter(|p| !p.is_empty()).map(Secret),
            host,
            port,
            path: path.trim_matches('/').into(),
            query: query.split('&').filter(|pair| !pair.is_empty()).map(parameter).collect::<Result<_>>()?,
        })
    }

    /// `HOST:PORT`, or `HOST` if the URL has no port.
    pub fn host_port(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        self.port.map_or(host.clone(), |port| format!("{host}:{port}"))
    }

    /// The value of a query parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Fails if the URL has a query parameter that is not in the list, or a user if the sink does not accept one.
    pub fn reject_unknown(&self, parameters: &[&str], accepts_user: bool) -> Result<()> {
        if let Some((name, _)) = self.query.iter().find(|(name, _)| !parameters.contains(&name.as_str())) {
            let expected = if parameters.is_empty() { "none".into() } else { parameters.join(", ") };
            let (scheme, name) = (&self.scheme, truncate_for_display(name));
            return Err(invalid_url(format!("{scheme}:// has no parameter {name:?}; supported: {expected}")));
        }
        if !accepts_user && (self.user.is_some() || self.password.is_some()) {
            let message = format!("{}:// does not accept a user; set TEALIGHT_SINK_KEY for a key", self.scheme);
            return Err(invalid_url(message));
        }
        Ok(())
    }

    /// URL of an HTTP server: `http` or `https`, host and port.
    pub fn server(&self) -> String {
        let scheme = if self.scheme.ends_with("+https") { "https" } else { "http" };
        format!("{scheme}://{}", self.host_port())
    }

    /// The host, which must be the name of an S3 bucket.
    pub fn bucket(&self) -> Result<String> {
        if is_bucket(&self.host) && self.port.is_none() {
            return Ok(self.host.clone());
        }
        Err(invalid_url(format!("{}:// must be followed by the name of a bucket", self.scheme)))
    }

    /// The path, which must be one segment, decoded. `what` describes it in the error.
    pub fn single_segment(&self, what: &str) -> Result<String> {
        if self.path.is_empty() || self.path.contains('/') {
            return Err(invalid_url(format!("{}:// must end with the name of {what}", self.scheme)));
        }
        decode(&self.path)
    }
}

pub(super) fn invalid_url(what: impl std::fmt::Display) -> Error {
    Error::invalid_value("sink", format!("invalid sink URL: {what}"))
}

fn host_and_port(host_port: &str) -> Result<(String, Option<u16>)> {
    let (host, port) = match host_port.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None => host_port.split_once(':').map_or((host_port, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() {
        return Err(invalid_url("the host is missing"));
    }
    // A password with an unencoded slash ends up here, so the error must not quote the value.
    let is_host = |c: char| c.is_alphanumeric() || "-._:%".contains(c);
    let port = port.filter(|p| !p.is_empty()).map(str::parse).transpose();
    match port {
        Ok(port) if host.chars().all(is_host) => Ok((host.into(), port)),
        _ => Err(invalid_url("invalid host or port; in credentials encode / @ ? as %2F %40 %3F")),
    }
}

fn parameter(pair: &str) -> Result<(String, String)> {
    let (name, value) =
        pair.split_once('=').ok_or_else(|| invalid_url("expected NAME=VALUE parameters separated by &"))?;
    Ok((decode(name)?, decode(value)?))
}

fn decode(text: &str) -> Result<String> {
    let text = percent_decode_str(text).decode_utf8();
    text.map(String::from).map_err(|_| invalid_url("percent-encoded bytes are not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_parts_are_decoded() {
        let text = "postgres://tea%20light:pa%20ss%25w%2F%C3%B6%3A1%40@[::1]:5433/db?table=a.b&sslmode=prefer";
        let url = SinkUrl::parse(text).unwrap();
        assert_eq!((url.user.as_deref(), url.host_port().as_str()), (Some("tea light"), "[::1]:5433"));
        assert_eq!(url.password, Some(Secret("pa ss%w/ö:1@".into())));
        assert_eq!((url.single_segment("a database").unwrap().as_str(), url.parameter("table")), ("db", Some("a.b")));
        assert!(url.reject_unknown(&["table"], true).unwrap_err().message.contains("sslmode"));
        assert!(url.reject_unknown(&["table", "sslmode"], false).unwrap_err().message.contains("user"));
        let plain = SinkUrl::parse("s3://bucket/a/b/").unwrap();
        assert_eq!((plain.user, plain.port, plain.path.as_str()), (None, None, "a/b"));
    }

    #[test]
    fn error_does_not_contain_password() {
        for url in [
            "sesame",
            "qdrant+http://:80/c",
            "postgres://u:sesame/w@host/db",
            "postgres://u:sesame?x@host/db",
            "postgres://u:sesame%FF@host/db",
            "opensearch+http://u:sesame@host:port/i",
            "opensearch+http://u:sesame@host/i?x",
        ] {
            let error = SinkUrl::parse(url).unwrap_err();
            assert!(error.param.as_deref() == Some("sink") && !error.message.contains("sesame"), "{url}: {error}");
        }
    }
}
