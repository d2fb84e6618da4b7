//! AWS Secrets Manager.

use super::{AwsRequest, endpoint, region, upstream_error};
use http::Method;
use serde_json::{Value, json};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tealight_core::Result;
use tealight_core::Secret;

/// How long a secret is cached, so that a rotated secret takes effect.
pub const TTL: Duration = Duration::from_secs(300);
const TIMEOUT: Duration = Duration::from_secs(5);
/// Fields of a JSON secret that may contain the key. AWS's databases store their credentials in `password`.
const FIELDS: [&str; 2] = ["api_key", "password"];

/// The secret that was read last, with its ARN and the time.
#[derive(Debug, Default)]
pub struct SecretCache(Mutex<Option<(Instant, String, Secret)>>);

impl SecretCache {
    /// The secret with this ARN. Reads it unless it is cached.
    ///
    /// # Errors
    /// As [`get_secret_value`].
    pub fn get(&self, arn: &str) -> Result<Secret> {
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*cached {
            Some((read_at, cached_arn, secret)) if cached_arn == arn && read_at.elapsed() < TTL => Ok(secret.clone()),
            _ => {
                let secret = get_secret_value(arn)?;
                *cached = Some((Instant::now(), arn.into(), secret.clone()));
                Ok(secret)
            }
        }
    }
}

/// Calls `GetSecretValue`. If the secret is JSON, returns its `api_key` or `password`.
/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html>
///
/// # Errors
/// [`Upstream`](tealight_core::ErrorKind::Upstream): the secret cannot be read, or is binary.
pub fn get_secret_value(arn: &str) -> Result<Secret> {
    // arn:partition:secretsmanager:REGION:account:secret:name
    let region = arn.split(':').nth(3).filter(|r| !r.is_empty()).map_or_else(region, |r| Ok(r.to_string()))?;
    let (service, body) = ("secretsmanager", json!({"SecretId": arn}).to_string());
    let headers = [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", "secretsmanager.GetSecretValue")];
    let url = format!("{}/", endpoint(service, &region));
    let request = AwsRequest {
        service,
        region: &region,
        method: Method::POST,
        url: &url,
        headers: &headers,
        body: body.as_bytes(),
    };
    let mut response = request.send(TIMEOUT)?;
    let status = response.status();
    let text = response.body_mut().read_to_string().map_err(upstream_error)?;
    let response_json: Value = serde_json::from_str(&text).unwrap_or_default();
    if !status.is_success() {
        return Err(upstream_error(format_args!("{status} {}", response_json["__type"])));
    }
    let secret =
        response_json["SecretString"].as_str().ok_or_else(|| upstream_error("the secret is binary; expected text"))?;
    Ok(Secret(key_of(secret)))
}

/// The key in a secret: the field of a JSON object, or the whole text.
fn key_of(secret: &str) -> String {
    let parsed: Option<Value> = serde_json::from_str(secret).ok();
    let key = parsed.as_ref().and_then(|v| FIELDS.iter().find_map(|field| v[*field].as_str()));
    key.unwrap_or(secret).trim().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_is_found_in_text_and_in_json() {
        assert_eq!(key_of("sk-1\n"), "sk-1");
        assert_eq!(key_of(r#"{"api_key":"sk-2","other":"x"}"#), "sk-2");
        assert_eq!(key_of(r#"{"username":"a","password":"b","host":"c"}"#), "b");
    }
}
