//! The OpenAPI description, generated from the route table and the request and response types.

use super::errors::{OpenAiError, TeiError};
use super::route::{Access, ApiStyle, Route};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

/// Describes routes in OpenAPI 3.1.
pub fn document(routes: &[Route]) -> Value {
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
        "tags": [match route.style { ApiStyle::OpenAi | ApiStyle::Audio => "OpenAI", ApiStyle::Tei => "text-embeddings-inference" }],
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
