//! A request with its route, as the server and the function hand it to the API.

use super::route::ApiStyle;
use super::routes::RouteMatch;
use crate::telemetry::trace::TraceContext;
use bytes::Bytes;
use http::Request;
use std::time::Instant;

/// The route of requests that match none, in logs and metrics.
const UNKNOWN_ROUTE: &str = "unknown";

/// A complete request with its route.
#[derive(Debug)]
pub struct ApiRequest {
    /// Method, path, headers and body.
    pub http: Request<Bytes>,
    /// The result of looking it up in the route table.
    pub route_match: RouteMatch,
    /// The loggable properties of the request.
    pub info: RequestInfo,
}

/// What logs, metrics and errors need to know of a request, even if it never reaches its handler.
#[derive(Debug, Clone)]
pub struct RequestInfo {
    /// The path of the route, `event` for an event with documents, or `unknown`; never the path that the client sent.
    pub route_label: &'static str,
    /// The API whose format errors have.
    pub style: ApiStyle,
    /// The trace and the invocation that it belongs to.
    pub trace: TraceContext,
    /// Arrival time.
    pub received_at: Instant,
}

impl RequestInfo {
    /// The info of a routed request; records the current time as its arrival.
    pub fn new(route_match: &RouteMatch, trace: TraceContext) -> Self {
        let route_label = route_match.route().map_or(UNKNOWN_ROUTE, |route| route.path);
        Self { route_label, style: route_match.style(), trace, received_at: Instant::now() }
    }

    /// The info of a request whose route cannot be determined; records the current time as its arrival.
    pub fn without_route(trace: TraceContext) -> Self {
        Self::new(&RouteMatch::NotFound, trace)
    }
}
