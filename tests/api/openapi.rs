//! The OpenAPI document is the one of what is served.

use std::io::Write as _;
use std::process::Stdio;

use crate::support::api::{ADMIN, MEMBER, OTHER_MEMBER, SUPERUSER, Site};
use crate::support::environment::{TESTS, command};
use serde_json::{Value, json};
use unstale::api::openapi;
use unstale::rules::Rules;

const CHECKED_IN: &str = "config/openapi.json";

fn current() -> Value {
    let config = crate::support::root().join("config/unstale.toml");
    let rules = Rules::compile(&unstale::config::load(Some(&config), &[]).unwrap()).unwrap();
    openapi::document(&rules)
}

/// After a change of the endpoints: `UPDATE_OPENAPI=1 cargo test --test api openapi`.
#[test]
fn the_document_in_the_repository_is_that_of_the_default_configuration() {
    let path = crate::support::root().join(CHECKED_IN);
    let current = openapi::text(&current());
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(&path, &current).unwrap();
    }
    let checked_in = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        checked_in == current,
        "{CHECKED_IN} is not that of config/unstale.toml; write it anew by: \
         UPDATE_OPENAPI=1 cargo test --test api openapi"
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

/// What is wrong with bodies, by the document: path, method, status, body.
fn wrong(document: &Value, cases: &[Value]) -> String {
    let mut child = command(TESTS, "python")
        .arg(crate::support::root().join("tests/api/schemathesis/conforms.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let given = json!({ "document": document, "cases": cases });
    child.stdin.take().unwrap().write_all(given.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

fn case(path: &str, body: &Value) -> Value {
    json!({ "path": path, "method": "get", "status": "200", "body": body })
}

#[test]
fn every_answer_has_an_example_which_is_as_its_schema_says() {
    let document = current();
    let mut cases = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            for (status, answer) in operation["responses"].as_object().unwrap() {
                let content = &answer["content"]["application/json"];
                if content.is_null() || path == "/api/openapi.json" {
                    continue;
                }
                let example = &content["example"];
                assert!(example.is_object(), "{method} {path} {status} has no example");
                cases.push(
                    json!({ "path": path, "method": method, "status": status, "body": example }),
                );
            }
        }
    }
    assert!(cases.len() >= 12, "{}", cases.len());
    assert_eq!(wrong(&document, &cases), "");
    // It is looked at what is there, and what should be.
    let path = "/api/cached/organizations/{id}/info/";
    let good = &cases.iter().find(|case| case["path"] == path).unwrap()["body"];
    for (pointer, value) in [
        ("/organization/id", json!("7")),
        ("/organization/statistics/total_deal_value", json!(7.5)),
        ("/organization/created_at", json!("2026-01-02")),
    ] {
        let mut body = good.clone();
        *body.pointer_mut(pointer).unwrap() = value;
        assert_ne!(wrong(&document, &[case(path, &body)]), "", "{pointer}");
    }
    let mut more = good.clone();
    more["organization"]["more"] = json!(1);
    assert_ne!(wrong(&document, &[case(path, &more)]), "", "what is not described is found");
}

/// A client that is made of the document has types; they are those of what is answered.
#[tokio::test]
async fn what_is_answered_is_as_the_shipped_schemas_say() {
    let mut site = Site::new().await;
    site.world.set("api.management_per_minute=1000");
    let _daemon = site.daemon().await;
    let document = site.get("/api/openapi.json", &[]).await.json();
    let mut cases = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for (path, query, users) in [
        ("/api/cached/organizations/{id}/info/", "", &[MEMBER, SUPERUSER][..]),
        ("/api/cached/organizations/{id}/statistics/", "?days=365", &[MEMBER]),
        ("/api/cached/organizations/{id}/statistics/", "?days=31", &[MEMBER]),
        ("/api/cached/organizations/{id}/roles/", "", &[MEMBER]),
        ("/api/cached/users/dashboard/", "", &[MEMBER, ADMIN, OTHER_MEMBER]),
        ("/api/cached/users/permissions/", "", &[MEMBER, ADMIN, OTHER_MEMBER]),
        ("/api/cached/analytics/deal-analytics/", "?days=365", &[ADMIN]),
        ("/api/cached/analytics/deal-analytics/", "?type=trends", &[ADMIN]),
        ("/api/cached/analytics/deal-analytics/", "?type=sources", &[ADMIN]),
        ("/api/cached/analytics/deal-analytics/", "?type=payments", &[ADMIN]),
        ("/api/cached/analytics/deal-analytics/", "?type=clients", &[ADMIN]),
        ("/api/cached/analytics/performance-metrics/", "", &[ADMIN]),
        ("/api/cached/search/deals/", "?q=big", &[MEMBER]),
        ("/api/cached/search/deals/", "?q=nothing", &[MEMBER]),
        ("/api/cache-management/cache-status/", "", &[SUPERUSER]),
    ] {
        for user in users {
            let answer = site.get_as(*user, &format!("{}{query}", path.replace("{id}", "1"))).await;
            assert_eq!(answer.status, 200, "{path}{query} as {user}: {}", answer.text());
            cases.push(case(path, &answer.json()));
        }
        seen.insert(path);
    }
    for path in document["paths"].as_object().unwrap().keys() {
        assert!(!path.starts_with("/api/cached/") || seen.contains(path.as_str()), "{path}");
    }
    assert_eq!(wrong(&document, &cases), "");
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
