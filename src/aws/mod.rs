//! Requests to AWS services, signed with Signature Version 4 and the credentials of the Lambda function, without an AWS SDK.
//!
//! | module | contents |
//! |---|---|
//! | this one | [`AwsRequest`]: signing and sending; endpoints and region |
//! | [`s3`] | [`S3Location`](s3::S3Location): a bucket and key; download of small objects |
//! | [`object_reader`] | one version of an S3 object as a stream or as a file with random access |
//! | [`upload`] | requests of multipart uploads to S3 |
//! | [`secrets`] | AWS Secrets Manager |

#[cfg(feature = "sinks")]
pub mod object_reader;
pub mod s3;
pub mod secrets;
#[cfg(feature = "sinks")]
pub mod upload;

use crate::telemetry::trace::TraceContext;
use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    self, PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
    UriPathNormalizationMode,
};
use aws_sigv4::sign::v4;
use http::{Method, Response};
use std::time::{Duration, SystemTime};
use tealight_core::{Error, ErrorKind, Result};

/// A request to an AWS service.
#[derive(Debug)]
pub struct AwsRequest<'a> {
    /// Signing name, such as `s3` or `secretsmanager`.
    pub service: &'a str,
    /// For example `eu-west-1`.
    pub region: &'a str,
    /// HTTP method.
    pub method: Method,
    /// Percent-encoded URL.
    pub url: &'a str,
    /// Headers in addition to those of the signature.
    pub headers: &'a [(&'static str, &'a str)],
    /// Request body.
    pub body: &'a [u8],
}

impl AwsRequest<'_> {
    /// Signs and sends the request. The response may have any status. `timeout` covers the whole exchange.
    ///
    /// # Errors
    /// [`ErrorKind::Upstream`]: there are no credentials, or the service cannot be reached.
    pub fn send(&self, timeout: Duration) -> Result<Response<ureq::Body>> {
        let request = self.sign()?;
        let config = ureq::Agent::config_builder().timeout_global(Some(timeout)).http_status_as_error(false);
        // A signature is valid for one URL only.
        let config = config.max_redirects(0).max_redirects_will_error(false);
        ureq::Agent::from(config.build()).run(request).map_err(upstream_error)
    }

    /// Adds the signature, which is valid for a few minutes.
    ///
    /// # Errors
    /// [`ErrorKind::Upstream`]: there are no credentials, or the URL is invalid.
    pub fn sign(&self) -> Result<http::Request<&[u8]>> {
        let (key, secret) = (variable("AWS_ACCESS_KEY_ID")?, variable("AWS_SECRET_ACCESS_KEY")?);
        let session = std::env::var("AWS_SESSION_TOKEN").ok().filter(|token| !token.is_empty());
        let identity = Credentials::new(key, secret, session, None, "environment").into();
        let mut settings = SigningSettings::default();
        if self.service == "s3" {
            // S3 is the only service that does not normalize and encode the path again.
            settings.percent_encoding_mode = PercentEncodingMode::Single;
            settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        }
        // https://docs.aws.amazon.com/opensearch-service/latest/developerguide/serverless-clients.html#serverless-signing
        if ["s3", "aoss"].contains(&self.service) {
            settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        }
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(self.region)
            .name(self.service)
            .time(SystemTime::now())
            .settings(settings)
            .build()
            .map_err(upstream_error)?
            .into();
        let body = SignableBody::Bytes(self.body);
        let headers = self.headers.iter().copied();
        let signable = SignableRequest::new(self.method.as_str(), self.url, headers, body).map_err(upstream_error)?;
        let (instructions, _) = http_request::sign(signable, &parameters).map_err(upstream_error)?.into_parts();
        let mut builder = http::Request::builder().method(&self.method).uri(self.url);
        for (name, value) in self.headers {
            builder = builder.header(*name, *value);
        }
        let mut request = builder.body(self.body).map_err(upstream_error)?;
        instructions.apply_to_request_http1x(&mut request);
        // Not signed, because proxies may change them.
        request.headers_mut().extend(TraceContext::current().headers());
        Ok(request)
    }
}

/// The endpoint of a service without a trailing slash: `AWS_ENDPOINT_URL_SERVICE`, else `AWS_ENDPOINT_URL`, else AWS's own.
/// <https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html>
pub fn endpoint(service: &str, region: &str) -> String {
    let variable = |name: &str| std::env::var(name).ok().filter(|url| !url.is_empty());
    let are_ignored = variable("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS").is_some_and(|value| value == "true");
    let configured = || variable(&endpoint_variable(service)).or_else(|| variable("AWS_ENDPOINT_URL"));
    let url = if are_ignored { None } else { configured() };
    url.unwrap_or_else(|| regional(service, region)).trim_end_matches('/').to_string()
}

/// The variable that sets the endpoint of one service. It contains the service's id in the SDKs, which may differ from the signing
/// name.
fn endpoint_variable(service: &str) -> String {
    let id = match service {
        "secretsmanager" => "secrets_manager",
        other => other,
    };
    format!("AWS_ENDPOINT_URL_{}", id.to_ascii_uppercase().replace('-', "_"))
}

/// <https://docs.aws.amazon.com/general/latest/gr/rande.html>
fn regional(service: &str, region: &str) -> String {
    let domain = match (service, region.starts_with("cn-")) {
        // This newer service has only dual-stack endpoints (IPv4 and IPv6).
        ("s3vectors", false) => "api.aws",
        ("s3vectors", true) => "api.amazonwebservices.com.cn",
        (_, false) => "amazonaws.com",
        (_, true) => "amazonaws.com.cn",
    };
    format!("https://{service}.{region}.{domain}")
}

/// The region of the Lambda function: `AWS_REGION`, or `AWS_DEFAULT_REGION`.
///
/// # Errors
/// [`ErrorKind::Upstream`]: neither is set.
pub fn region() -> Result<String> {
    variable("AWS_REGION").or_else(|e| variable("AWS_DEFAULT_REGION").map_err(|_| e))
}

fn variable(name: &str) -> Result<String> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    value.ok_or_else(|| upstream_error(format_args!("{name} is not set")))
}

/// An error of a request to AWS: [`ErrorKind::Upstream`].
pub fn upstream_error(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Upstream, what.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_equals_that_of_sdks() {
        assert_eq!(regional("s3", "eu-west-1"), "https://s3.eu-west-1.amazonaws.com");
        assert_eq!(regional("secretsmanager", "cn-north-1"), "https://secretsmanager.cn-north-1.amazonaws.com.cn");
        assert_eq!(regional("s3vectors", "us-east-1"), "https://s3vectors.us-east-1.api.aws");
        assert_eq!(endpoint_variable("s3vectors"), "AWS_ENDPOINT_URL_S3VECTORS");
        assert_eq!(endpoint_variable("secretsmanager"), "AWS_ENDPOINT_URL_SECRETS_MANAGER");
    }
}
