//! The OpenAPI 3.1 document of what is served: made of the table of endpoints and of what the
//! daemon serves of itself. Pure. It says no more than what holds: schemathesis sends what it
//! allows and what it forbids to a running daemon (`tests/api/openapi.rs`).
//!
//! What values look like is the configuration's to say (`[caches.NAME] schema`, [`super::schemas`]);
//! without that nothing is said of their members but by each endpoint's `example`.

mod own;
mod parameters;
mod parts;

use serde_json::{Map, Value, json};

use super::endpoints::{Endpoint, Endpoints};
use crate::config::endpoints::Who;
use crate::rules::Rules;
use parts::{header, problems};

/// The document.
#[must_use]
pub fn document(rules: &Rules) -> Value {
    let endpoints = &rules.endpoints;
    let mut paths = Map::new();
    for endpoint in endpoints.iter() {
        paths.insert(endpoint.template.to_string(), json!({ "get": read(endpoint, endpoints) }));
    }
    let own = own::paths(&rules.mapping, endpoints.identity.is_some());
    paths.extend(own.into_iter().map(|(path, operations)| (path.to_owned(), operations)));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Unstale: the cached read API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What is cached, kept as fresh as the database. Each path is served with and without the slash at its end; HEAD goes wherever GET does, and OPTIONS everywhere. A parameter that is given twice is refused.",
        },
        "security": [{ "bearer": [] }],
        "tags": [
            { "name": "cached", "description": "Values from the cache, or from the database where the cache cannot be trusted." },
            { "name": "management", "description": "Warming and invalidating, and how it stands." },
            { "name": "daemon", "description": "What the daemon says of itself." },
        ],
        "paths": paths,
        "components": parts::components(&endpoints.schemas),
    })
}

/// The same, as it is served and checked in.
#[must_use]
pub fn text(document: &Value) -> String {
    let mut text = serde_json::to_string_pretty(document).unwrap_or_default();
    text.push('\n');
    text
}

fn read(endpoint: &Endpoint, endpoints: &Endpoints) -> Value {
    let mut parameters: Vec<Value> =
        endpoint.parameters.iter().filter_map(parameters::describe).collect();
    parameters.extend(
        ["MinLsn", "IfNoneMatch", "IfModifiedSince", "RequestId"]
            .map(|name| json!({ "$ref": format!("#/components/parameters/{name}") })),
    );
    let mut answers = Map::new();
    answers.insert("200".to_owned(), value(endpoint, endpoints));
    answers.insert("304".to_owned(), unchanged(endpoint));
    let known = endpoint.who != Who::Anyone;
    answers.extend(problems(if known {
        &[400, 401, 403, 404, 500, 503]
    } else {
        &[400, 404, 500, 503]
    }));
    let mut operation = json!({
        "operationId": operation_id("get", &endpoint.template),
        "tags": ["cached"],
        "summary": match &endpoint.summary {
            Some(summary) => summary.to_string(),
            None => format!("What the cache {} holds", endpoint.cache),
        },
        "description": who(endpoint.who),
        "parameters": parameters,
        "responses": answers,
    });
    if !known && let Some(operation) = operation.as_object_mut() {
        operation.insert("security".to_owned(), json!([]));
    }
    operation
}

/// 200: the value in its envelope.
fn value(endpoint: &Endpoint, endpoints: &Endpoints) -> Value {
    let envelope = &*endpoint.envelope;
    let info = json!({ "cached": true, "cache_type": endpoint.cache, "ttl": endpoint.ttl });
    let text = "What the cache's query gives.";
    let schema = endpoints.schemas.reference(&endpoint.cache);
    let mut of_value = schema.unwrap_or_else(|| match &endpoint.example {
        Some(example) => json!({ "type": type_of(example), "description": text }),
        None => json!({ "description": text }),
    });
    if endpoint.live {
        of_value = json!({
            "description": "Live figures; `statistics` is what the cache's query gives.",
            "type": "object",
            "required": ["statistics"],
            "properties": { "statistics": of_value },
            "allOf": [{ "$ref": "#/components/schemas/Figures" }],
        });
    }
    let mut content = json!({
        "schema": {
            "type": "object",
            "required": [envelope, "cache_info"],
            "properties": {
                envelope: of_value,
                "cache_info": { "$ref": "#/components/schemas/CacheInfo" },
            },
        },
    });
    if let (Some(example), Some(content)) = (&endpoint.example, content.as_object_mut()) {
        let mut example = example.clone();
        if endpoint.live {
            let mut figures = own::figures(&endpoint.cache);
            if let Some(figures) = figures.as_object_mut() {
                figures.insert("statistics".to_owned(), example);
            }
            example = figures;
        }
        content.insert("example".to_owned(), json!({ envelope: example, "cache_info": info }));
    }
    json!({
        "description": "The value, from the cache or from the database: `cache_info` and `Cache-Status` say which.",
        "headers": headers_of(endpoint),
        "content": { "application/json": content },
    })
}

fn unchanged(endpoint: &Endpoint) -> Value {
    json!({
        "description": "It is as the client knows it (`If-None-Match`, `If-Modified-Since`).",
        "headers": headers_of(endpoint),
    })
}

fn headers_of(endpoint: &Endpoint) -> Value {
    let names = [
        "ETag",
        "Last-Modified",
        "Age",
        "Cache-Status",
        "Unstale-Applied-LSN",
        "Vary",
        "X-Request-Id",
    ];
    let mut headers: Map<String, Value> =
        names.iter().map(|name| ((*name).to_owned(), header(name))).collect();
    if endpoint.stale_if_error.is_some() {
        headers.insert("Warning".to_owned(), header("Warning"));
    }
    let cache_control = json!({
        "description": "What browsers may keep; `private, no-cache` with `api.browser_cache = \"revalidate\"`.",
        "required": true,
        "schema": { "type": "string" },
        "example": endpoint.cache_control.to_str().unwrap_or_default(),
    });
    headers.insert("Cache-Control".to_owned(), cache_control);
    headers.into()
}

fn who(who: Who) -> &'static str {
    match who {
        Who::Anyone => "For anyone, without a token.",
        Who::Myself => "For each active user, about himself.",
        Who::Member => "For the organization's members, and for superusers.",
        Who::Admin => "For the organization's administrators, and for superusers.",
        Who::Superuser => "For superusers.",
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// `get` of `/api/cached/organizations/{id}/info/`: `get_cached_organizations_id_info`.
fn operation_id(method: &str, template: &str) -> String {
    let template = template.strip_prefix("/api").unwrap_or(template);
    let words =
        template.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    std::iter::once(method).chain(words).collect::<Vec<_>>().join("_")
}
