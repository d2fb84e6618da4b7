//! The OpenAPI document: a committed file, of which a test checks that it describes the route table and the wire types.

use super::route::Route;
use serde_json::{Map, Value};
use tealight_core::{Error, ErrorKind, Result};

/// OpenAPI 3.1, with all features. Generating it when it is asked for would take 0.3 MB of the binary.
const COMMITTED: &str = include_str!("openapi.json");

/// Describes those routes that this build has.
///
/// # Errors
/// [`ErrorKind::Internal`] if the committed file is not JSON.
pub fn document(routes: &[Route]) -> Result<Value> {
    let mut document: Value =
        serde_json::from_str(COMMITTED).map_err(|e| Error::new(ErrorKind::Internal, format!("openapi.json: {e}")))?;
    let mut paths = Map::new();
    for route in routes {
        let method = route.method.as_str().to_lowercase();
        let mut operation = document["paths"][route.path][&method].take();
        // `GET /` has another summary in a build without the page.
        operation["summary"] = route.summary.into();
        paths.entry(route.path).or_insert_with(|| Map::new().into())[method] = operation;
    }
    document["paths"] = paths.into();
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    Ok(document)
}

#[cfg(test)]
mod tests {
    use super::super::errors::{OpenAiError, TeiError};
    use super::super::route::{Access, ApiStyle};
    use super::super::routes::ROUTES;
    use super::*;
    use schemars::SchemaGenerator;
    use schemars::generate::SchemaSettings;
    use serde_json::json;

    #[test]
    fn committed_document_matches_routes_and_wire_types() {
        let (generated, document) = (generate(ROUTES), document(ROUTES).unwrap());
        if cfg!(feature = "full") && std::env::var_os("TEALIGHT_WRITE_OPENAPI").is_some() {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/api/openapi.json");
            std::fs::write(path, serde_json::to_string(&generated).unwrap() + "\n").unwrap();
        }
        let advice = "run TEALIGHT_WRITE_OPENAPI=1 cargo test --features full openapi";
        assert_eq!(document["paths"], generated["paths"], "{advice}");
        assert_eq!(document["info"], generated["info"], "{advice}");
        let (committed, schemas) = (&document["components"]["schemas"], &generated["components"]["schemas"]);
        for (name, schema) in schemas.as_object().unwrap() {
            assert_eq!(&committed[name], schema, "{name}: {advice}");
        }
        if cfg!(feature = "full") {
            assert_eq!(document, generated, "{advice}");
        }
    }

    /// Clients are generated from the document, and reject responses that lack a required field.
    #[cfg(feature = "speech")]
    #[test]
    fn transcription_has_its_default_form_and_the_verbose_one() {
        let document = document(ROUTES).unwrap();
        let resolve = |schema: &Value| {
            let reference = schema["$ref"].as_str().unwrap_or_else(|| panic!("{schema}"));
            document.pointer(reference.strip_prefix('#').unwrap()).unwrap().clone()
        };
        for path in ["/v1/audio/transcriptions", "/v1/audio/translations"] {
            let ok = &document["paths"][path]["post"]["responses"]["200"];
            let response = resolve(&ok["content"]["application/json"]["schema"]);
            let forms: Vec<_> = response["anyOf"].as_array().unwrap().iter().map(resolve).collect();
            let required: Vec<_> = forms.iter().map(|form| form["required"].clone()).collect();
            assert_eq!(required, [json!(["task", "language", "duration", "text", "usage"]), json!(["text", "usage"])]);
        }
    }

    #[test]
    fn own_routes_have_their_own_tag() {
        let document = document(ROUTES).unwrap();
        let tag = |method: &str, path: &str| document["paths"][path][method]["tags"].clone();
        for (method, path) in [("post", "/documents"), ("get", "/status"), ("get", "/openapi.json")] {
            assert_eq!(tag(method, path), json!(["tealight"]), "{path}");
        }
        assert_eq!(tag("post", "/v1/embeddings"), json!(["OpenAI"]));
        assert_eq!(tag("post", "/embed"), json!(["text-embeddings-inference"]));
    }

    #[test]
    fn descriptions_have_no_links_of_rustdoc() {
        assert!(!COMMITTED.contains("[`"), "doc comments of wire types name other types without brackets");
    }

    /// Describes routes by the schemas of their types.
    fn generate(routes: &[Route]) -> Value {
        let mut settings = SchemaSettings::draft2020_12();
        settings.definitions_path = "/components/schemas".into();
        let mut generator = settings.into_generator();
        let mut paths = Map::new();
        for route in routes {
            let path = paths.entry(route.path).or_insert_with(|| json!({}));
            path[route.method.as_str().to_lowercase()] = operation(route, &mut generator);
        }
        let schemas = generator.take_definitions(true);
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "tealight",
                "version": env!("CARGO_PKG_VERSION"),
                "description": env!("CARGO_PKG_DESCRIPTION"),
                "license": {"name": env!("CARGO_PKG_LICENSE")},
            },
            "paths": paths,
            "components": {
                "schemas": schemas,
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            },
        })
    }

    fn operation(route: &Route, generator: &mut SchemaGenerator) -> Value {
        let name = route.path.trim_start_matches('/').replace(['/', '{', '}', '.'], "_");
        let mut operation = json!({
            "operationId": format!("{}_{name}", route.method.as_str().to_lowercase()),
            "summary": route.summary,
            "tags": [tag(route)],
            "responses": responses(route, generator),
            // The key is optional: not every function has one.
            "security": match route.access { Access::Public => json!([]), Access::ApiKey => json!([{"key": []}, {}]) },
        });
        if let Some(schema) = route.request {
            let mut content = content(json!(schema(generator)));
            if route.style == ApiStyle::Audio {
                content["multipart/form-data"] = content["application/json"].clone();
            }
            operation["requestBody"] = json!({"required": true, "content": content});
        }
        if route.path.ends_with("{model}") {
            operation["parameters"] =
                json!([{"name": "model", "in": "path", "required": true, "schema": {"type": "string"}}]);
        }
        operation
    }

    fn tag(route: &Route) -> &'static str {
        match route.style {
            _ if route.is_own => "tealight",
            ApiStyle::OpenAi | ApiStyle::Audio => "OpenAI",
            ApiStyle::Tei => "text-embeddings-inference",
        }
    }

    fn responses(route: &Route, generator: &mut SchemaGenerator) -> Value {
        let mut ok = json!({"description": "Success"});
        if let Some(schema) = route.response {
            ok["content"] = content(json!(schema(generator)));
        }
        let error = match route.style {
            ApiStyle::OpenAi | ApiStyle::Audio => json!(generator.subschema_for::<OpenAiError>()),
            ApiStyle::Tei => json!(generator.subschema_for::<TeiError>()),
        };
        json!({"200": ok, "default": {"description": "Error", "content": content(error)}})
    }

    fn content(schema: Value) -> Value {
        json!({"application/json": {"schema": schema}})
    }
}
