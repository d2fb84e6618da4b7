//! URLs of sinks.

use percent_encoding::percent_decode_str;
use tealight_core::Secret;
use tealight_core::{Error, Result, truncate_for_display};

/// `SCHEME://USER:PASSWORD@HOST:PORT/PATH?NAME=VALUE`, with nothing encoded any more but the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SinkUrl {
    pub scheme: String,
    pub user: Option<String>,
    pub password: Option<Secret>,
    /// Without the brackets of an IPv6 address.
    pub host: String,
    pub port: Option<u16>,
    /// Without slashes around it.
    pub path: String,
    query: Vec<(String, String)>,
}

impl SinkUrl {
    /// Takes a URL apart. What is said of it never has its password in it.
    ///
    /// # Errors
    /// [`tealight_core::ErrorKind::InvalidValue`] of `sink`.
    pub fn parse(url: &str) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| invalid_url("it is no URL: SCHEME://..."))?;
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

    /// `HOST:PORT`, as a URL has it.
    pub fn host_port(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        self.port.map_or(host.clone(), |port| format!("{host}:{port}"))
    }

    /// A parameter's value.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Refuses parameters that are not among those that a sink has, and a user where it has none.
    pub fn reject_unknown(&self, parameters: &[&str], may_have_user: bool) -> Result<()> {
        if let Some((name, _)) = self.query.iter().find(|(name, _)| !parameters.contains(&name.as_str())) {
            let known = if parameters.is_empty() { "none".into() } else { parameters.join(", ") };
            return Err(invalid_url(format!(
                "{}:// has no parameter {:?}; it has {known}",
                self.scheme,
                truncate_for_display(name)
            )));
        }
        match self.user.is_some() || self.password.is_some() {
            true if !may_have_user => {
                Err(invalid_url(format!("{}:// takes no user; a key is given by TEALIGHT_SINK_KEY", self.scheme)))
            }
            _ => Ok(()),
        }
    }

    /// The path where it has one segment, as it stands.
    pub fn single_segment(&self, what: &str) -> Result<String> {
        if self.path.is_empty() || self.path.contains('/') {
            return Err(invalid_url(format!("{}:// ends with one name, of {what}", self.scheme)));
        }
        decode(&self.path)
    }
}

/// Something is wrong with the URL of a sink.
pub(super) fn invalid_url(what: impl std::fmt::Display) -> Error {
    Error::invalid_value("sink", format!("the sink's URL: {what}"))
}

fn host_and_port(host_port: &str) -> Result<(String, Option<u16>)> {
    let (host, port) = match host_port.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None => host_port.split_once(':').map_or((host_port, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() {
        return Err(invalid_url("it names no host"));
    }
    // A password with a slash in it ends up here, so that what is there is not repeated.
    let is_host = |c: char| c.is_alphanumeric() || "-._:%".contains(c);
    let port = port.filter(|p| !p.is_empty()).map(str::parse).transpose();
    match port {
        Ok(port) if host.chars().all(is_host) => Ok((host.into(), port)),
        _ => Err(invalid_url("its host or port is none; in a user or password / is written %2F, @ %40, ? %3F")),
    }
}

fn parameter(pair: &str) -> Result<(String, String)> {
    let (name, value) =
        pair.split_once('=').ok_or_else(|| invalid_url("its parameters are NAME=VALUE, with & between them"))?;
    Ok((decode(name)?, decode(value)?))
}

fn decode(text: &str) -> Result<String> {
    let text = percent_decode_str(text).decode_utf8();
    text.map(String::from).map_err(|_| invalid_url("what it encodes by % is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_decoded() {
        let url = "postgres://tea%20light:pa%20ss%25w%2F%C3%B6%3A1%40@[::1]:5433/db?table=a.b&sslmode=prefer";
        let address = SinkUrl::parse(url).unwrap();
        assert_eq!((address.user.as_deref(), address.host_port().as_str()), (Some("tea light"), "[::1]:5433"));
        assert_eq!(address.password, Some(Secret("pa ss%w/ö:1@".into())));
        assert_eq!(
            (address.single_segment("a database").unwrap().as_str(), address.parameter("table")),
            ("db", Some("a.b"))
        );
        assert!(address.reject_unknown(&["table"], true).unwrap_err().message.contains("sslmode"));
        assert!(address.reject_unknown(&["table", "sslmode"], false).unwrap_err().message.contains("user"));
        let plain = SinkUrl::parse("s3://bucket/a/b/").unwrap();
        assert_eq!((plain.user, plain.port, plain.path.as_str()), (None, None, "a/b"));
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
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
