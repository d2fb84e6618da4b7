//! What a request is part of: W3C's trace context (<https://www.w3.org/TR/trace-context/>) and the header of AWS X-Ray
//! (<https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader>), carried on to what is called
//! for it, and the number of the invocation, which stands in all of its log lines.

use http::{HeaderMap, HeaderName, HeaderValue};
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use tracing::Span;

/// W3C's header.
pub const TRACEPARENT: &str = "traceparent";
/// What other tracers add to it.
const TRACESTATE: &str = "tracestate";
/// AWS's header.
pub const XRAY: &str = "x-amzn-trace-id";
/// The longest value that is carried on, in bytes: W3C asks for 512.
const MAX_HEADER_BYTES: usize = 1024;

thread_local! {
    static CURRENT: RefCell<Option<TraceContext>> = const { RefCell::new(None) };
}

/// What a request is part of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TraceContext {
    /// Lambda's number of the invocation.
    request_id: Option<String>,
    /// The function's name with account and region.
    function_arn: Option<String>,
    traceparent: Option<String>,
    tracestate: Option<String>,
    xray: Option<String>,
}

impl TraceContext {
    /// Of a request with these headers; `xray` is what Lambda says of the invocation.
    pub fn from_headers(headers: &HeaderMap, xray: Option<&str>) -> Self {
        let header = |name| headers.get(name).and_then(|v| v.to_str().ok()).filter(|v| v.len() <= MAX_HEADER_BYTES);
        let xray = xray.or_else(|| header(XRAY)).filter(|text| root(text).is_some()).map(String::from);
        let given = header(TRACEPARENT).filter(|text| trace_id(text).is_some()).map(String::from);
        let tracestate = given.as_ref().and_then(|_| header(TRACESTATE)).map(String::from);
        let traceparent = given.or_else(|| xray.as_deref().and_then(xray_to_traceparent));
        Self { traceparent, tracestate, xray, ..Self::default() }
    }

    /// The same, in an invocation of Lambda's.
    pub fn with_invocation(self, request_id: &str, function_arn: &str) -> Self {
        Self { request_id: Some(request_id.into()), function_arn: Some(function_arn.into()), ..self }
    }

    /// Of the request that this thread works on.
    pub fn current() -> Self {
        CURRENT.with(|current| current.borrow().clone()).unwrap_or_default()
    }

    /// W3C's id of the trace: 32 hexadecimal digits.
    pub fn trace_id(&self) -> Option<&str> {
        self.traceparent.as_deref().and_then(trace_id)
    }

    /// X-Ray's id of the trace.
    pub fn xray_trace_id(&self) -> Option<&str> {
        self.xray.as_deref().and_then(root)
    }

    /// The headers that carry the trace on.
    pub fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let pairs = [(TRACEPARENT, &self.traceparent), (TRACESTATE, &self.tracestate), (XRAY, &self.xray)];
        let header = |(name, value): (&'static str, &Option<String>)| {
            Some((HeaderName::from_static(name), HeaderValue::from_str(value.as_deref()?).ok()?))
        };
        pairs.into_iter().filter_map(header).collect()
    }

    /// Runs `work` as a part of it, in a span that names it in log lines.
    pub fn in_scope<T>(self, work: impl FnOnce() -> T) -> T {
        let span = self.span();
        #[cfg(feature = "otel")]
        let this = crate::telemetry::otel::linked(self, &span);
        #[cfg(not(feature = "otel"))]
        let this = self;
        #[cfg(feature = "otel")]
        let _sent = FlushGuard { is_due: this.request_id.is_some() };
        CurrentContext { trace: Some(this), span }.in_scope(work)
    }

    fn span(&self) -> Span {
        // At the highest level: its lines name the invocation whatever lines are written.
        tracing::error_span!(
            "request",
            function_request_id = self.request_id,
            function_arn = self.function_arn,
            trace_id = self.trace_id(),
            xray_trace_id = self.xray_trace_id(),
            cold_start = !IS_WARM.load(Ordering::Relaxed),
            otel.kind = tracing::field::Empty,
        )
    }

    /// The same trace, with_parent by a span of our own.
    #[cfg(feature = "otel")]
    pub(crate) fn with_parent(self, traceparent: Option<String>) -> Self {
        Self { traceparent: traceparent.or(self.traceparent), ..self }
    }

    /// W3C's headers as they came.
    #[cfg(feature = "otel")]
    pub(crate) fn parent(&self) -> [(&'static str, Option<&str>); 2] {
        [(TRACEPARENT, self.traceparent.as_deref()), (TRACESTATE, self.tracestate.as_deref())]
    }
}

/// The request that a thread works on, for another thread that works on it, too.
#[derive(Debug, Clone)]
pub struct CurrentContext {
    trace: Option<TraceContext>,
    span: Span,
}

impl CurrentContext {
    /// Of this thread.
    pub fn current() -> Self {
        Self { trace: CURRENT.with(|current| current.borrow().clone()), span: Span::current() }
    }

    /// Runs `work` as a part of the request.
    pub fn in_scope<T>(self, work: impl FnOnce() -> T) -> T {
        /// Brings back what was before, after a panic, too.
        struct RestoreGuard(Option<TraceContext>);
        impl Drop for RestoreGuard {
            fn drop(&mut self) {
                CURRENT.with(|current| current.replace(self.0.take()));
            }
        }
        let _before = RestoreGuard(CURRENT.with(|current| current.replace(self.trace)));
        self.span.in_scope(work)
    }
}

/// Sends the spans of an invocation at its end.
#[cfg(feature = "otel")]
struct FlushGuard {
    is_due: bool,
}

#[cfg(feature = "otel")]
impl Drop for FlushGuard {
    fn drop(&mut self) {
        if self.is_due {
            crate::telemetry::otel::flush();
        }
    }
}

/// Whether this process has answered a request; signs of life do not count.
static IS_WARM: AtomicBool = AtomicBool::new(false);

/// Says that a request is answered: those that begin after it are no cold starts.
pub(crate) fn mark_warm() {
    IS_WARM.store(true, Ordering::Relaxed);
}

/// The trace that a `traceparent` names: `00-TRACE-PARENT-FLAGS`, and more fields in versions to come.
fn trace_id(traceparent: &str) -> Option<&str> {
    let is_hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let fields: Vec<_> = traceparent.split('-').collect();
    let [version, id, parent, flags, rest @ ..] = fields.as_slice() else { return None };
    let is_known = is_hex(version, 2) && *version != "ff" && (*version != "00" || rest.is_empty());
    let is_some = |text: &str| text.bytes().any(|b| b != b'0');
    let is_valid = is_hex(id, 32) && is_some(id) && is_hex(parent, 16) && is_some(parent) && is_hex(flags, 2);
    (is_known && is_valid).then_some(*id)
}

/// A field of X-Ray's header: `Root=1-...;Parent=...;Sampled=1`.
fn field<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    header.split(';').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='))
}

/// X-Ray's id of the trace: `1-`, 8 hexadecimal digits of the time, `-`, and 24 others.
fn root(header: &str) -> Option<&str> {
    let root = field(header, "Root")?;
    let digits = root.strip_prefix("1-")?;
    let is_hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
    let (time, rest) = digits.split_once('-')?;
    (time.len() == 8 && rest.len() == 24 && is_hex(time) && is_hex(rest)).then_some(root)
}

/// The same in W3C's form, as OpenTelemetry's propagator for X-Ray does it; none where no parent is named.
fn xray_to_traceparent(header: &str) -> Option<String> {
    let id: String = root(header)?.strip_prefix("1-")?.split('-').collect();
    let flags = if field(header, "Sampled") == Some("1") { "01" } else { "00" };
    let text = format!("00-{id}-{}-{flags}", field(header, "Parent")?).to_ascii_lowercase();
    trace_id(&text).is_some().then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const W3C: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const LAMBDA: &str = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1;Lineage=1:a:0";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (HeaderName::from_static(k), v.parse().unwrap())).collect()
    }

    fn carried(trace: &TraceContext, name: &str) -> Option<String> {
        trace.headers().into_iter().find(|(n, _)| n == name).map(|(_, v)| v.to_str().unwrap().into())
    }

    #[test]
    fn both_traces_are_carried_on_as_they_came() {
        let given = headers(&[(TRACEPARENT, W3C), (TRACESTATE, "congo=t61rcWkgMzE")]);
        let trace = TraceContext::from_headers(&given, Some(LAMBDA));
        assert_eq!(trace.trace_id(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
        assert_eq!(trace.xray_trace_id(), Some("1-5759e988-bd862e3fe1be46a994272793"));
        assert_eq!(carried(&trace, TRACEPARENT).as_deref(), Some(W3C));
        assert_eq!(carried(&trace, "tracestate").as_deref(), Some("congo=t61rcWkgMzE"));
        assert_eq!(carried(&trace, XRAY).as_deref(), Some(LAMBDA));
    }

    #[test]
    fn a_trace_of_x_ray_alone_is_one_of_w3c_too() {
        let trace = TraceContext::from_headers(&HeaderMap::new(), Some(LAMBDA));
        let expected = "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01";
        assert_eq!(carried(&trace, TRACEPARENT).as_deref(), Some(expected));
        let trace = TraceContext::from_headers(&headers(&[(XRAY, "Root=1-5759e988-bd862e3fe1be46a994272793")]), None);
        assert_eq!((trace.trace_id(), trace.xray_trace_id().is_some()), (None, true));
    }

    #[test]
    fn what_is_no_trace_is_dropped() {
        let zero = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
        for wrong in ["", "00", zero, &W3C.to_uppercase(), &W3C[..54], &format!("{W3C}-x"), &format!("ff{}", &W3C[2..])]
        {
            assert!(
                TraceContext::from_headers(&headers(&[(TRACEPARENT, wrong)]), None).headers().is_empty(),
                "{wrong}"
            );
        }
        let later = format!("01{}-more", &W3C[2..]);
        assert!(TraceContext::from_headers(&headers(&[(TRACEPARENT, &later)]), None).trace_id().is_some());
        for wrong in ["Root=1-5759e988-bd86", "Root=2-5759e988-bd862e3fe1be46a994272793", "Self=1", "Root=1-zzzzzzzz-x"]
        {
            assert!(TraceContext::from_headers(&headers(&[(XRAY, wrong)]), None).headers().is_empty(), "{wrong}");
        }
        let long = format!("Root=1-5759e988-bd862e3fe1be46a994272793;Lineage={}", "a".repeat(MAX_HEADER_BYTES));
        assert!(TraceContext::from_headers(&headers(&[(XRAY, &long)]), None).headers().is_empty());
    }

    #[test]
    fn another_thread_has_it_only_within() {
        let trace = TraceContext::from_headers(&headers(&[(TRACEPARENT, W3C)]), None);
        trace.clone().in_scope(|| {
            let here = CurrentContext::current();
            let there = std::thread::spawn(move || here.in_scope(TraceContext::current)).join().unwrap();
            assert_eq!(there, TraceContext::current());
            assert_eq!(there.trace_id(), trace.trace_id());
        });
        assert_eq!(TraceContext::current(), TraceContext::default());
    }
}
