//! Secrets of AWS Secrets Manager.

use super::{AwsRequest, endpoint, region, upstream_error};
use http::Method;
use serde_json::{Value, json};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tealight_core::Result;
use tealight_core::Secret;

/// How long a secret is used before it is read again, so that one that was changed takes effect.
pub const TTL: Duration = Duration::from_secs(300);
const TIMEOUT: Duration = Duration::from_secs(5);
/// Fields of a secret of JSON that hold what is meant: the second is what databases of AWS write.
const FIELDS: [&str; 2] = ["api_key", "password"];

/// The last secret that was read, for as long as it is used.
#[derive(Debug, Default)]
pub struct SecretCache(Mutex<Option<(Instant, String, Secret)>>);

impl SecretCache {
    /// The secret of an ARN; reads it if need be.
    ///
    /// # Errors
    /// As of [`get_secret_value`].
    pub fn get(&self, arn: &str) -> Result<Secret> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some((at, of, secret)) if of == arn && at.elapsed() < TTL => Ok(secret.clone()),
            _ => {
                let secret = get_secret_value(arn)?;
                *kept = Some((Instant::now(), arn.into(), secret.clone()));
                Ok(secret)
            }
        }
    }
}

/// `GetSecretValue`, signed with the function's own credentials.
/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html>
///
/// # Errors
/// [`tealight_core::ErrorKind::Upstream`]: it cannot be had, or is no text.
pub fn get_secret_value(arn: &str) -> Result<Secret> {
    // arn:partition:secretsmanager:REGION:account:secret:name
    let region = arn.split(':').nth(3).filter(|r| !r.is_empty()).map_or_else(region, |r| Ok(r.to_string()))?;
    let (service, body) = ("secretsmanager", json!({"SecretId": arn}).to_string());
    let headers = [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", "secretsmanager.GetSecretValue")];
    let url = format!("{}/", endpoint(service, &region));
    let call = AwsRequest {
        service,
        region: &region,
        method: Method::POST,
        url: &url,
        headers: &headers,
        body: body.as_bytes(),
    };
    let mut response = call.send(TIMEOUT)?;
    let status = response.status();
    let text = response.body_mut().read_to_string().map_err(upstream_error)?;
    let reply: Value = serde_json::from_str(&text).unwrap_or_default();
    if !status.is_success() {
        return Err(upstream_error(format_args!("{status} {}", reply["__type"])));
    }
    let secret = reply["SecretString"].as_str().ok_or_else(|| upstream_error("it holds no text"))?;
    Ok(Secret(key_of(secret)))
}

/// A secret is the key itself, or a JSON object with the key in a field.
fn key_of(secret: &str) -> String {
    let parsed: Option<Value> = serde_json::from_str(secret).ok();
    let key = parsed.as_ref().and_then(|v| FIELDS.iter().find_map(|field| v[*field].as_str()));
    key.unwrap_or(secret).trim().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_may_be_text_or_json() {
        assert_eq!(key_of("sk-1\n"), "sk-1");
        assert_eq!(key_of(r#"{"api_key":"sk-2","other":"x"}"#), "sk-2");
        assert_eq!(key_of(r#"{"username":"a","password":"b","host":"c"}"#), "b");
    }
}
