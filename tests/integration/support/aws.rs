//! Verifies requests to AWS: Signature Version 4.

use super::http::Message;
use sha2::{Digest, Sha256};

/// Access key of the test credentials.
pub const ACCESS_KEY: &str = "AKIDEXAMPLE";
/// Secret key of the test credentials.
pub const SECRET_KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
/// Session token of the test credentials.
pub const TOKEN: &str = "session-token-of-the-function";

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

/// HMAC-SHA-256, RFC 2104, for keys of at most one block.
fn hmac(key: &[u8], message: &str) -> Vec<u8> {
    let pad = |with: u8| {
        let mut block = [with; 64];
        block.iter_mut().zip(key).for_each(|(b, k)| *b ^= k);
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}

/// The value of a field of the Authorization header.
fn field<'a>(authorization: &'a str, name: &str) -> &'a str {
    let parts = authorization.strip_prefix("AWS4-HMAC-SHA256 ").expect("SigV4").split(',');
    let mut values = parts.filter_map(|p| p.trim().strip_prefix(name)?.strip_prefix('='));
    values.next().unwrap_or_else(|| panic!("no {name} in {authorization}"))
}

/// Computes the signature of a request again and compares it, and checks that `more` headers are signed:
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>.
pub fn check_signature(request: &Message, region: &str, service: &str, more: &[&str]) {
    let authorization = request.header("authorization").unwrap();
    let date = request.header("x-amz-date").unwrap();
    let scope = format!("{}/{region}/{service}/aws4_request", &date[..8]);
    assert_eq!(field(authorization, "Credential"), format!("{ACCESS_KEY}/{scope}"));
    let names = field(authorization, "SignedHeaders");
    for name in ["host", "x-amz-date"].iter().chain(more) {
        assert!(names.split(';').any(|n| n == *name), "{name} is not signed: {names}");
    }
    let header = |name: &str| format!("{name}:{}\n", request.header(name).unwrap());
    let headers: String = names.split(';').map(header).collect();
    let (method, path) = (request.method(), request.path());
    let canonical = format!("{method}\n{path}\n\n{headers}\n{names}\n{}", hex(Sha256::digest(&request.body)));
    let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex(Sha256::digest(canonical)));
    let start = format!("AWS4{SECRET_KEY}").into_bytes();
    let key = scope.split('/').fold(start, |key, message| hmac(&key, message));
    assert_eq!(field(authorization, "Signature"), hex(hmac(&key, &to_sign)));
}
