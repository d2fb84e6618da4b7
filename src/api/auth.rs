//! Authorization by an API key, which clients send as a Bearer token.

use crate::aws::secrets;
use crate::config::Config;
use http::HeaderMap;
use sha2::{Digest, Sha256};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use tealight_core::Secret;
use tealight_core::{Error, ErrorKind, Result};

/// Checks the API key of requests.
#[derive(Debug)]
pub struct Auth {
    source: KeySource,
    /// The hash of the key from Secrets Manager, and when it was read.
    cached: Mutex<Option<(Instant, [u8; 32])>>,
}

/// The source of the API key. Keys are stored as SHA-256.
#[derive(Debug)]
enum KeySource {
    /// No key is required.
    Disabled,
    /// The key of the configuration.
    Static([u8; 32]),
    /// The ARN of a secret.
    SecretsManager(String),
}

impl Auth {
    /// Checks the configured key, or accepts every request if there is none.
    pub fn new(config: &Config) -> Self {
        let source = match (&config.api_key, &config.api_key_secret_arn) {
            (Some(Secret(key)), _) => KeySource::Static(digest(key)),
            (None, Some(arn)) => KeySource::SecretsManager(arn.clone()),
            (None, None) => KeySource::Disabled,
        };
        Self { source, cached: Mutex::default() }
    }

    /// Checks the `Authorization` header.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidApiKey`]; [`ErrorKind::Upstream`] if the key cannot be read from Secrets Manager.
    pub fn check(&self, headers: &HeaderMap) -> Result<()> {
        match &self.source {
            KeySource::SecretsManager(arn) => compare(headers, &self.cached_key(arn)?),
            KeySource::Disabled | KeySource::Static(_) => self.check_early(headers),
        }
    }

    /// As [`Auth::check`], but never waits for Secrets Manager: then it accepts the request, which must be checked again.
    pub fn check_early(&self, headers: &HeaderMap) -> Result<()> {
        match &self.source {
            KeySource::Static(expected) => compare(headers, expected),
            KeySource::Disabled | KeySource::SecretsManager(_) => Ok(()),
        }
    }

    fn cached_key(&self, arn: &str) -> Result<[u8; 32]> {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        match *cached {
            Some((at, digest)) if at.elapsed() < secrets::TTL => Ok(digest),
            _ => {
                let digest = digest(&read_secret(arn)?.0);
                *cached = Some((Instant::now(), digest));
                Ok(digest)
            }
        }
    }
}

fn compare(headers: &HeaderMap, expected: &[u8; 32]) -> Result<()> {
    let sent = headers.get(http::header::AUTHORIZATION).map_or(&[][..], |h| h.as_bytes());
    let key = match sent.split_at_checked(7) {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case(b"bearer ") => key.trim_ascii(),
        _ => return Err(invalid_key("API key is missing; send it as \"Authorization: Bearer KEY\"")),
    };
    if equal(&digest(key), expected) { Ok(()) } else { Err(invalid_key("API key is wrong")) }
}

fn invalid_key(message: &str) -> Error {
    Error::new(ErrorKind::InvalidApiKey, message)
}

/// Hashes are compared instead of keys, so that the time reveals neither the length of the key nor where keys differ.
fn digest(key: impl AsRef<[u8]>) -> [u8; 32] {
    Sha256::digest(key).into()
}

fn equal(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

fn read_secret(arn: &str) -> Result<Secret> {
    secrets::get_secret_value(arn).map_err(|e| e.with_context("cannot read the API key from Secrets Manager"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth(key: &str) -> Auth {
        Auth::new(&Config::from_lookup(|n| (n == "TEALIGHT_API_KEY").then(|| key.to_string())).unwrap())
    }

    fn header(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(http::header::AUTHORIZATION, value.parse().unwrap())])
    }

    #[test]
    fn only_exact_key_is_accepted() {
        let auth = auth("sesame");
        assert!(auth.check(&header("Bearer sesame")).is_ok());
        assert!(auth.check(&header("bearer sesame")).is_ok());
        for wrong in ["Bearer sesam", "Bearer sesame2", "Bearer ", "Basic sesame", "sesame", ""] {
            let error = auth.check(&header(wrong)).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidApiKey, "{wrong:?}");
            assert!(!error.message.contains("sesame"));
        }
        assert!(auth.check(&HeaderMap::new()).is_err());
        assert!(Auth::new(&Config::from_lookup(|_| None).unwrap()).check(&HeaderMap::new()).is_ok());
    }
}
