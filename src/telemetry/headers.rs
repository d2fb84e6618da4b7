//! Trace headers: W3C's (<https://www.w3.org/TR/trace-context/>) and AWS X-Ray's
//! (<https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader>).

/// W3C's header: trace id, parent span id and flags.
pub const TRACEPARENT: &str = "traceparent";
/// Vendor-specific data that accompanies [`TRACEPARENT`].
pub const TRACESTATE: &str = "tracestate";
/// X-Ray's header.
pub const XRAY: &str = "x-amzn-trace-id";

/// The trace id in a `traceparent`: `00-TRACE-PARENT-FLAGS`, to which later versions may add fields. `None` if it is invalid.
pub(super) fn trace_id(traceparent: &str) -> Option<&str> {
    let is_hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let fields: Vec<_> = traceparent.split('-').collect();
    let [version, id, parent, flags, more @ ..] = fields.as_slice() else { return None };
    let is_valid_version = is_hex(version, 2) && *version != "ff" && (*version != "00" || more.is_empty());
    let is_nonzero = |text: &str| text.bytes().any(|b| b != b'0');
    let is_valid = is_hex(id, 32) && is_nonzero(id) && is_hex(parent, 16) && is_nonzero(parent) && is_hex(flags, 2);
    (is_valid_version && is_valid).then_some(*id)
}

/// The trace id in an X-Ray header: `1-`, 8 hexadecimal digits of the time, `-`, and 24 more digits. `None` if it is invalid.
pub(super) fn xray_root(header: &str) -> Option<&str> {
    let root = xray_field(header, "Root")?;
    let digits = root.strip_prefix("1-")?;
    let is_hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
    let (time, random) = digits.split_once('-')?;
    (time.len() == 8 && random.len() == 24 && is_hex(time) && is_hex(random)).then_some(root)
}

/// Converts an X-Ray header to a `traceparent`, as OpenTelemetry's X-Ray propagator does. `None` if it names no parent.
pub(super) fn xray_to_traceparent(header: &str) -> Option<String> {
    let id: String = xray_root(header)?.strip_prefix("1-")?.split('-').collect();
    let flags = if xray_field(header, "Sampled") == Some("1") { "01" } else { "00" };
    let text = format!("00-{id}-{}-{flags}", xray_field(header, "Parent")?).to_ascii_lowercase();
    trace_id(&text).is_some().then_some(text)
}

/// A field of an X-Ray header, such as `Root=1-...;Parent=...;Sampled=1`.
fn xray_field<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    header.split(';').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='))
}
