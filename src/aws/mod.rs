//! Requests to AWS, signed with the function's own credentials: Signature Version 4, as the SDKs do it, without an SDK.

pub mod read;
pub mod s3;

use crate::error::{Error, Kind, Result};
use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings, UriPathNormalizationMode,
    sign,
};
use aws_sigv4::sign::v4;
use http::{Method, Response};
use std::time::{Duration, SystemTime};

/// A request that is not signed yet.
#[derive(Debug)]
pub struct Call<'a> {
    /// `secretsmanager`, `s3`.
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

impl Call<'_> {
    /// Signs and sends the request; the reply may have any status. `time` is for all of it.
    ///
    /// # Errors
    /// [`Kind::Upstream`]: there are no credentials, or no reply.
    pub fn send(&self, time: Duration) -> Result<Response<ureq::Body>> {
        let request = self.signed()?;
        let config = ureq::Agent::config_builder().timeout_global(Some(time)).http_status_as_error(false);
        // A signature is for one address.
        let config = config.max_redirects(0).max_redirects_will_error(false);
        ureq::Agent::from(config.build()).run(request).map_err(upstream)
    }

    fn signed(&self) -> Result<http::Request<Vec<u8>>> {
        let (key, secret) = (variable("AWS_ACCESS_KEY_ID")?, variable("AWS_SECRET_ACCESS_KEY")?);
        let session = std::env::var("AWS_SESSION_TOKEN").ok().filter(|token| !token.is_empty());
        let identity = Credentials::new(key, secret, session, None, "environment").into();
        let mut settings = SigningSettings::default();
        if self.service == "s3" {
            // Of all services S3 alone takes paths as they stand, and wants the body's hash in a header.
            settings.percent_encoding_mode = PercentEncodingMode::Single;
            settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
            settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        }
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(self.region)
            .name(self.service)
            .time(SystemTime::now())
            .settings(settings)
            .build()
            .map_err(upstream)?
            .into();
        let body = SignableBody::Bytes(self.body);
        let headers = self.headers.iter().copied();
        let signable = SignableRequest::new(self.method.as_str(), self.url, headers, body).map_err(upstream)?;
        let (instructions, _) = sign(signable, &parameters).map_err(upstream)?.into_parts();
        let mut builder = http::Request::builder().method(&self.method).uri(self.url);
        for (name, value) in self.headers {
            builder = builder.header(*name, *value);
        }
        let mut request = builder.body(self.body.to_vec()).map_err(upstream)?;
        instructions.apply_to_request_http1x(&mut request);
        Ok(request)
    }
}

/// Where a service is reached: by `AWS_ENDPOINT_URL_SERVICE`, or `AWS_ENDPOINT_URL`, or where AWS has it.
pub fn endpoint(service: &str, region: &str) -> String {
    let own = format!("AWS_ENDPOINT_URL_{}", if service == "secretsmanager" { "SECRETS_MANAGER" } else { "S3" });
    let set = |name: &str| std::env::var(name).ok().filter(|url| !url.is_empty());
    let given = set(&own).or_else(|| set("AWS_ENDPOINT_URL"));
    // https://docs.aws.amazon.com/general/latest/gr/rande.html
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    let url = given.unwrap_or_else(|| format!("https://{service}.{region}.{domain}"));
    url.trim_end_matches('/').to_string()
}

/// The region that the function runs in.
pub fn region() -> Result<String> {
    variable("AWS_REGION").or_else(|e| variable("AWS_DEFAULT_REGION").map_err(|_| e))
}

fn variable(name: &str) -> Result<String> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    value.ok_or_else(|| upstream(format_args!("{name} is not set")))
}

/// AWS could not be asked.
pub fn upstream(what: impl std::fmt::Display) -> Error {
    Error::new(Kind::Upstream, what.to_string())
}
