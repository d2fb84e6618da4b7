//! The API key that clients send as a Bearer token.

use crate::aws::secrets;
use crate::config::Config;
use http::HeaderMap;
use sha2::{Digest, Sha256};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use tealight_core::Secret;
use tealight_core::{Error, ErrorKind, Result};

/// Checks keys.
#[derive(Debug)]
pub struct Auth {
    source: Source,
    cached: Mutex<Option<(Instant, [u8; 32])>>,
}

#[derive(Debug)]
enum Source {
    Open,
    Fixed([u8; 32]),
    SecretsManager(String),
}

impl Auth {
    /// Checks against the key that the environment gives, or lets everyone in.
    pub fn new(config: &Config) -> Self {
        let source = match (&config.api_key, &config.api_key_secret_arn) {
            (Some(Secret(key)), _) => Source::Fixed(digest(key)),
            (None, Some(arn)) => Source::SecretsManager(arn.clone()),
            (None, None) => Source::Open,
        };
        Self { source, cached: Mutex::default() }
    }

    /// Checks the `Authorization` header.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidApiKey`]; [`ErrorKind::Upstream`] where the key cannot be read from Secrets Manager.
    pub fn check(&self, headers: &HeaderMap) -> Result<()> {
        match &self.source {
            Source::SecretsManager(arn) => compare(headers, &self.current(arn)?),
            Source::Open | Source::Fixed(_) => self.precheck(headers),
        }
    }

    /// As [`Auth::check`], but lets pass what only Secrets Manager could tell: it never waits.
    pub fn precheck(&self, headers: &HeaderMap) -> Result<()> {
        match &self.source {
            Source::Fixed(expected) => compare(headers, expected),
            Source::Open | Source::SecretsManager(_) => Ok(()),
        }
    }

    fn current(&self, arn: &str) -> Result<[u8; 32]> {
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
    let given = headers.get(http::header::AUTHORIZATION).map_or(&[][..], |h| h.as_bytes());
    let key = match given.split_at_checked(7) {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case(b"bearer ") => key.trim_ascii(),
        _ => return Err(refusal("no API key was given; send it as \"Authorization: Bearer KEY\"")),
    };
    if equal(&digest(key), expected) { Ok(()) } else { Err(refusal("the API key is wrong")) }
}

fn refusal(message: &str) -> Error {
    Error::new(ErrorKind::InvalidApiKey, message)
}

/// Keys are compared by their hashes, so that neither their length nor where they differ shows in the time.
fn digest(key: impl AsRef<[u8]>) -> [u8; 32] {
    Sha256::digest(key).into()
}

fn equal(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.iter().zip(b).fold(0, |different, (a, b)| different | (a ^ b)) == 0
}

/// A key that cannot be read lets nobody in.
fn read_secret(arn: &str) -> Result<Secret> {
    secrets::get_secret_value(arn).map_err(|e| e.with_context("the API key cannot be read from Secrets Manager"))
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
    fn only_the_key_opens() {
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
