//! `GET /`: the demo page for browsers. Other clients get an empty response, as from text-embeddings-inference.

use super::context::{ApiResponse, RequestContext};
use super::tei::health;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use std::sync::OnceLock;
use tealight_core::Result;

const HTML: &str = include_str!("../ui/page.html");
const CSS: &str = include_str!("../ui/page.css");
/// One script, so that the policy needs one hash. Files are in dependency order.
const JS: &str = concat!(
    include_str!("../ui/dom.js"),
    include_str!("../ui/api.js"),
    include_str!("../ui/math.js"),
    include_str!("../ui/text.js"),
    include_str!("../ui/map.js"),
    include_str!("../ui/snippets.js"),
    include_str!("../ui/embed.js"),
    include_str!("../ui/search.js"),
    include_str!("../ui/transcribe.js"),
    include_str!("../ui/record.js"),
    include_str!("../ui/generate.js"),
    include_str!("../ui/status.js"),
    include_str!("../ui/main.js"),
);

/// The page, and the content security policy that allows only its own script and style: <https://www.w3.org/TR/CSP3/>.
fn page() -> &'static (String, String) {
    static PAGE: OnceLock<(String, String)> = OnceLock::new();
    PAGE.get_or_init(|| {
        let hash = |text: &str| STANDARD.encode(Sha256::digest(text));
        let policy = format!(
            "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; img-src data: blob:; \
             media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            hash(JS),
            hash(CSS)
        );
        (HTML.replace("/*CSS*/", CSS).replace("/*JS*/", JS), policy)
    })
}

/// Handles `GET /`.
pub fn render(context: &RequestContext) -> Result<ApiResponse> {
    let vary = ("vary", "accept".to_string());
    if !context.accept.is_some_and(|types| types.contains("text/html")) {
        return Ok(ApiResponse { headers: vec![vary], ..health(context)? });
    }
    let (html, policy) = page();
    let headers = vec![
        vary,
        ("content-security-policy", policy.clone()),
        ("x-content-type-options", "nosniff".into()),
        ("referrer-policy", "no-referrer".into()),
        ("cache-control", "no-cache".into()),
    ];
    Ok(ApiResponse { headers, ..ApiResponse::text(html.clone(), "text/html; charset=utf-8") })
}
