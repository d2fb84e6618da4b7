//! Requests to AWS, signed with the function's own credentials: Signature Version 4, as the SDKs do it, without an SDK.

pub mod object_reader;
pub mod s3;
pub mod secrets;
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

/// A request that is not signed yet.
#[derive(Debug)]
pub struct AwsRequest<'a> {
    /// As signatures name it: `secretsmanager`, `s3`.
    pub service: &'a str,
    /// Such as `eu-west-1`.
    pub region: &'a str,
    /// GET, POST.
    pub method: Method,
    /// The address, percent-encoded.
    pub url: &'a str,
    /// Headers besides those of the signature.
    pub headers: &'a [(&'static str, &'a str)],
    /// The body.
    pub body: &'a [u8],
}

impl AwsRequest<'_> {
    /// Signs and sends the request; the reply may have any status. `time` is for all of it.
    ///
    /// # Errors
    /// [`ErrorKind::Upstream`]: there are no credentials, or no reply.
    pub fn send(&self, time: Duration) -> Result<Response<ureq::Body>> {
        let request = self.sign()?;
        let config = ureq::Agent::config_builder().timeout_global(Some(time)).http_status_as_error(false);
        // A signature is for one address.
        let config = config.max_redirects(0).max_redirects_will_error(false);
        ureq::Agent::from(config.build()).run(request).map_err(upstream_error)
    }

    /// The request with its signature, which is good for some minutes.
    ///
    /// # Errors
    /// [`ErrorKind::Upstream`]: there are no credentials, or the address is none.
    pub fn sign(&self) -> Result<http::Request<&[u8]>> {
        let (key, secret) = (variable("AWS_ACCESS_KEY_ID")?, variable("AWS_SECRET_ACCESS_KEY")?);
        let session = std::env::var("AWS_SESSION_TOKEN").ok().filter(|token| !token.is_empty());
        let identity = Credentials::new(key, secret, session, None, "environment").into();
        let mut settings = SigningSettings::default();
        if self.service == "s3" {
            // Of all services S3 alone takes paths as they stand.
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
        // Not signed: whoever stands between may change them.
        request.headers_mut().extend(TraceContext::current().headers());
        Ok(request)
    }
}

/// Where a service is reached: by `AWS_ENDPOINT_URL_SERVICE`, or `AWS_ENDPOINT_URL`, or where AWS has it.
/// <https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html>
pub fn endpoint(service: &str, region: &str) -> String {
    let set = |name: &str| std::env::var(name).ok().filter(|url| !url.is_empty());
    let are_ignored = set("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS").is_some_and(|value| value == "true");
    let configured = || set(&endpoint_variable(service)).or_else(|| set("AWS_ENDPOINT_URL"));
    let given = if are_ignored { None } else { configured() };
    given.unwrap_or_else(|| regional(service, region)).trim_end_matches('/').to_string()
}

/// A service's own variable has the name by which the SDKs know it, which is not always that of its signatures.
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
        // Younger than the others, it has only the addresses that know IPv6, too.
        ("s3vectors", false) => "api.aws",
        ("s3vectors", true) => "api.amazonwebservices.com.cn",
        (_, false) => "amazonaws.com",
        (_, true) => "amazonaws.com.cn",
    };
    format!("https://{service}.{region}.{domain}")
}

/// The region that the function runs in.
pub fn region() -> Result<String> {
    variable("AWS_REGION").or_else(|e| variable("AWS_DEFAULT_REGION").map_err(|_| e))
}

fn variable(name: &str) -> Result<String> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    value.ok_or_else(|| upstream_error(format_args!("{name} is not set")))
}

/// AWS could not be asked.
pub fn upstream_error(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Upstream, what.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_where_the_sdks_have_them() {
        assert_eq!(regional("s3", "eu-west-1"), "https://s3.eu-west-1.amazonaws.com");
        assert_eq!(regional("secretsmanager", "cn-north-1"), "https://secretsmanager.cn-north-1.amazonaws.com.cn");
        assert_eq!(regional("s3vectors", "us-east-1"), "https://s3vectors.us-east-1.api.aws");
        assert_eq!(endpoint_variable("s3vectors"), "AWS_ENDPOINT_URL_S3VECTORS");
        assert_eq!(endpoint_variable("secretsmanager"), "AWS_ENDPOINT_URL_SECRETS_MANAGER");
    }
}
