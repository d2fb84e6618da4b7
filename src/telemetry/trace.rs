//! The trace that a request belongs to, which is passed on to the services that are called for it, and the Lambda invocation, which
//! all of its log lines name.

use super::headers::{TRACEPARENT, TRACESTATE, XRAY, trace_id, xray_root, xray_to_traceparent};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use tracing::Span;

/// Longer header values are dropped. W3C requires support for 512 bytes.
const MAX_HEADER_BYTES: usize = 1024;

thread_local! {
    static CURRENT: RefCell<Option<TraceContext>> = const { RefCell::new(None) };
}

/// The trace and the Lambda invocation that a request belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TraceContext {
    /// Lambda's request id.
    request_id: Option<String>,
    function_arn: Option<String>,
    traceparent: Option<String>,
    tracestate: Option<String>,
    xray: Option<String>,
}

impl TraceContext {
    /// The trace in these request headers. `xray` is the X-Ray header of the Lambda invocation, which takes precedence.
    pub fn from_headers(headers: &HeaderMap, xray: Option<&str>) -> Self {
        let header =
            |name| headers.get(name).and_then(|v| v.to_str().ok()).filter(|value| value.len() <= MAX_HEADER_BYTES);
        let xray = xray.or_else(|| header(XRAY)).filter(|text| xray_root(text).is_some()).map(String::from);
        let received = header(TRACEPARENT).filter(|text| trace_id(text).is_some()).map(String::from);
        let tracestate = received.as_ref().and_then(|_| header(TRACESTATE)).map(String::from);
        let traceparent = received.or_else(|| xray.as_deref().and_then(xray_to_traceparent));
        Self { traceparent, tracestate, xray, ..Self::default() }
    }

    /// Adds the Lambda invocation.
    pub fn with_invocation(self, request_id: &str, function_arn: &str) -> Self {
        Self { request_id: Some(request_id.into()), function_arn: Some(function_arn.into()), ..self }
    }

    /// The trace of the request that the current thread works on.
    pub fn current() -> Self {
        CURRENT.with(|current| current.borrow().clone()).unwrap_or_default()
    }

    /// W3C's trace id: 32 hexadecimal digits.
    pub fn trace_id(&self) -> Option<&str> {
        self.traceparent.as_deref().and_then(trace_id)
    }

    /// X-Ray's trace id.
    pub fn xray_trace_id(&self) -> Option<&str> {
        self.xray.as_deref().and_then(xray_root)
    }

    /// The headers that pass the trace on to other services.
    pub fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let pairs = [(TRACEPARENT, &self.traceparent), (TRACESTATE, &self.tracestate), (XRAY, &self.xray)];
        let header = |(name, value): (&'static str, &Option<String>)| {
            Some((HeaderName::from_static(name), HeaderValue::from_str(value.as_deref()?).ok()?))
        };
        pairs.into_iter().filter_map(header).collect()
    }

    /// Runs `work` as part of this trace, in a span whose fields are in all of its log lines.
    pub fn in_scope<T>(self, work: impl FnOnce() -> T) -> T {
        let span = self.span();
        #[cfg(feature = "otel")]
        let _flush = FlushGuard { is_lambda: self.request_id.is_some() };
        #[cfg(feature = "otel")]
        let this = {
            let parent = [(TRACEPARENT, self.traceparent.as_deref()), (TRACESTATE, self.tracestate.as_deref())];
            let traceparent = super::otel::set_parent(&span, parent);
            self.with_parent(traceparent)
        };
        #[cfg(not(feature = "otel"))]
        let this = self;
        ThreadScope { trace: Some(this), span }.enter(work)
    }

    fn span(&self) -> Span {
        // At the level ERROR, so that the fields are present regardless of the log level.
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

    /// Replaces the parent span, so that called services become children of the request's own span.
    #[cfg(feature = "otel")]
    fn with_parent(self, traceparent: Option<String>) -> Self {
        Self { traceparent: traceparent.or(self.traceparent), ..self }
    }
}

/// The trace and span of the current thread, for another thread that works on the same request.
#[derive(Debug, Clone)]
pub struct ThreadScope {
    trace: Option<TraceContext>,
    span: Span,
}

impl ThreadScope {
    /// The trace and span of the current thread.
    pub fn capture() -> Self {
        Self { trace: CURRENT.with(|current| current.borrow().clone()), span: Span::current() }
    }

    /// Runs `work` with this trace and span.
    pub fn enter<T>(self, work: impl FnOnce() -> T) -> T {
        /// Restores the previous trace, also after a panic.
        struct RestoreGuard(Option<TraceContext>);
        impl Drop for RestoreGuard {
            fn drop(&mut self) {
                CURRENT.with(|current| current.replace(self.0.take()));
            }
        }
        let _restore = RestoreGuard(CURRENT.with(|current| current.replace(self.trace)));
        self.span.in_scope(work)
    }
}

/// Exports the spans of a Lambda invocation when it ends, because the process is frozen between invocations.
#[cfg(feature = "otel")]
struct FlushGuard {
    is_lambda: bool,
}

#[cfg(feature = "otel")]
impl Drop for FlushGuard {
    fn drop(&mut self) {
        if self.is_lambda {
            super::otel::flush();
        }
    }
}

/// Whether this process has completed a request; successful requests to routes that need no key do not count.
static IS_WARM: AtomicBool = AtomicBool::new(false);

/// Records that a request got its response: later requests are not cold starts.
pub(crate) fn mark_warm() {
    IS_WARM.store(true, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    const W3C: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const LAMBDA: &str = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1;Lineage=1:a:0";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (HeaderName::from_static(k), v.parse().unwrap())).collect()
    }

    fn propagated(trace: &TraceContext, name: &str) -> Option<String> {
        trace.headers().into_iter().find(|(n, _)| n == name).map(|(_, v)| v.to_str().unwrap().into())
    }

    #[test]
    fn w3c_and_xray_headers_are_propagated_unchanged() {
        let received = headers(&[(TRACEPARENT, W3C), (TRACESTATE, "congo=t61rcWkgMzE")]);
        let trace = TraceContext::from_headers(&received, Some(LAMBDA));
        assert_eq!(trace.trace_id(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
        assert_eq!(trace.xray_trace_id(), Some("1-5759e988-bd862e3fe1be46a994272793"));
        assert_eq!(propagated(&trace, TRACEPARENT).as_deref(), Some(W3C));
        assert_eq!(propagated(&trace, "tracestate").as_deref(), Some("congo=t61rcWkgMzE"));
        assert_eq!(propagated(&trace, XRAY).as_deref(), Some(LAMBDA));
    }

    #[test]
    fn xray_header_is_converted_to_traceparent() {
        let trace = TraceContext::from_headers(&HeaderMap::new(), Some(LAMBDA));
        let expected = "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01";
        assert_eq!(propagated(&trace, TRACEPARENT).as_deref(), Some(expected));
        let trace = TraceContext::from_headers(&headers(&[(XRAY, "Root=1-5759e988-bd862e3fe1be46a994272793")]), None);
        assert_eq!((trace.trace_id(), trace.xray_trace_id().is_some()), (None, true));
    }

    #[test]
    fn invalid_trace_headers_are_dropped() {
        let zero = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
        for invalid in
            ["", "00", zero, &W3C.to_uppercase(), &W3C[..54], &format!("{W3C}-x"), &format!("ff{}", &W3C[2..])]
        {
            assert!(
                TraceContext::from_headers(&headers(&[(TRACEPARENT, invalid)]), None).headers().is_empty(),
                "{invalid}"
            );
        }
        let later = format!("01{}-more", &W3C[2..]);
        assert!(TraceContext::from_headers(&headers(&[(TRACEPARENT, &later)]), None).trace_id().is_some());
        for invalid in
            ["Root=1-5759e988-bd86", "Root=2-5759e988-bd862e3fe1be46a994272793", "Self=1", "Root=1-zzzzzzzz-x"]
        {
            assert!(TraceContext::from_headers(&headers(&[(XRAY, invalid)]), None).headers().is_empty(), "{invalid}");
        }
        let long = format!("Root=1-5759e988-bd862e3fe1be46a994272793;Lineage={}", "a".repeat(MAX_HEADER_BYTES));
        assert!(TraceContext::from_headers(&headers(&[(XRAY, &long)]), None).headers().is_empty());
    }

    #[test]
    fn thread_has_trace_only_in_scope() {
        let trace = TraceContext::from_headers(&headers(&[(TRACEPARENT, W3C)]), None);
        trace.clone().in_scope(|| {
            let scope = ThreadScope::capture();
            let other_thread = std::thread::spawn(move || scope.enter(TraceContext::current)).join().unwrap();
            assert_eq!(other_thread, TraceContext::current());
            assert_eq!(other_thread.trace_id(), trace.trace_id());
        });
        assert_eq!(TraceContext::current(), TraceContext::default());
    }
}
