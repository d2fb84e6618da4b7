//! Direct invocations: the JSON body of an HTTP request, without HTTP around it.
//!
//! The route follows from the fields: `input` is OpenAI's `/v1/embeddings`, `inputs` is text-embeddings-inference's `/embed` (or
//! `/similarity`, if it is an object), `ids` is `/decode`, `messages` is `/v1/chat/completions`, `file` (base64; also `audio`) and
//! `uri` are `/v1/audio/transcriptions`, `prompt` is `/v1/completions`, `documents` is `/documents`, `query` and `vector` are
//! `/search`. `text` selects no route, because documents and searches have it. A field `path` selects any other route, and `method`
//! its method.

use super::event::{EventFields, parse_field};
use crate::api::route;
use crate::api::routes::{PathRoutes, RouteMatch};
use http::{Method, Request, Uri};
use std::borrow::Cow;
use tealight_core::{Error, ErrorKind, Result};

/// The method and path of a direct invocation, and its route. The payload is the body.
///
/// # Errors
/// [`ErrorKind::UnsupportedEvent`]: no field determines the route. [`ErrorKind::InvalidType`] or [`ErrorKind::InvalidValue`]:
/// `path` or `method` is invalid.
pub fn parse(event: &EventFields) -> Result<(Request<()>, RouteMatch)> {
    let path = path(event)?;
    let uri = Uri::try_from(&*path).map_err(|_| {
        let message = format!("path is {path:?}; expected the path of a URL");
        Error::invalid_value("path", message)
    })?;
    let routes = PathRoutes::find(uri.path());
    let method = match parse_field::<String>("method", event.method).map_err(invalid_type)? {
        Some(name) => Method::from_bytes(name.to_ascii_uppercase().as_bytes())
            .map_err(|_| Error::invalid_value("method", format!("method is {name:?}; expected an HTTP method")))?,
        None if routes.has(route::Method::Post) => Method::POST,
        None => Method::GET,
    };
    let route = routes.select(&method);
    let mut head = Request::new(());
    (*head.method_mut(), *head.uri_mut()) = (method, uri);
    Ok((head, route))
}

fn path(event: &EventFields) -> Result<Cow<'static, str>> {
    if let Some(path) = parse_field::<String>("path", event.path).map_err(invalid_type)? {
        if !path.starts_with('/') {
            return Err(Error::invalid_value("path", format!("path is {path:?}; expected a leading slash")));
        }
        return Ok(path.into());
    }
    let path = if event.input.is_some() {
        "/v1/embeddings"
    } else if let Some(inputs) = event.inputs {
        if inputs.get().starts_with('{') { "/similarity" } else { "/embed" }
    } else if event.ids.is_some() {
        "/decode"
    } else if event.messages.is_some() {
        "/v1/chat/completions"
    } else if event.file.is_some() || event.audio.is_some() || event.uri.is_some() {
        "/v1/audio/transcriptions"
    } else if event.prompt.is_some() {
        "/v1/completions"
    } else if event.documents.is_some() {
        "/documents"
    } else if event.query.is_some() || event.vector.is_some() {
        "/search"
    } else {
        let message = "cannot determine the route; set one of the fields path, input, inputs, ids, messages, file, uri, prompt, \
                       documents, query and vector";
        return Err(Error::new(ErrorKind::UnsupportedEvent, message));
    };
    Ok(path.into())
}

fn invalid_type(message: String) -> Error {
    Error::new(ErrorKind::InvalidType, message)
}
