//! The OpenAPI document is the one of what is served.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use serde_json::Value;
use support::api::Site;
use unstale::api::openapi;
use unstale::rules::Rules;

const CHECKED_IN: &str = "config/openapi.json";

fn current() -> Value {
    let config = support::root().join("config/unstale.toml");
    let rules = Rules::compile(&unstale::config::load(Some(&config), &[]).unwrap()).unwrap();
    openapi::document(&rules)
}

/// After a change of the endpoints: `UPDATE_OPENAPI=1 cargo test --test openapi`.
#[test]
fn the_document_in_the_repository_is_that_of_the_default_configuration() {
    let path = support::root().join(CHECKED_IN);
    let current = openapi::text(&current());
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(&path, &current).unwrap();
    }
    let checked_in = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        checked_in == current,
        "{CHECKED_IN} is not that of config/unstale.toml; write it anew by: \
         UPDATE_OPENAPI=1 cargo test --test openapi"
    );
}

/// Every `$ref` leads somewhere, every operation has its own id, every path its parameters.
#[test]
fn the_document_holds_together() {
    let document = current();
    let mut references = Vec::new();
    collect(&document, &mut references);
    assert!(references.len() > 50, "{references:?}");
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    let mut ids = std::collections::BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for operation in operations.as_object().unwrap().values() {
            assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{path}");
            let parameters = operation["parameters"].as_array().unwrap().iter();
            let in_path = parameters.filter(|parameter| parameter["in"] == "path").count();
            assert_eq!(in_path, path.matches('{').count(), "{path}");
        }
    }
}

fn collect(value: &Value, references: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    Value::String(reference) if name == "$ref" => {
                        references.push(reference.clone())
                    }
                    value => collect(value, references),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, references)),
        _ => {}
    }
}

#[tokio::test]
async fn the_document_is_served_to_anyone_and_only_once() {
    let site = Site::new().await;
    let _daemon = site.daemon().await;
    let answer = site.get("/api/openapi.json", &[]).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.json(), current());
    let etag = answer.header("etag").unwrap();
    let again = site.get("/api/openapi.json", &[("If-None-Match", etag)]).await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    assert_eq!(site.request("POST /api/openapi.json", &[]).await.unwrap().status, 405);
}
