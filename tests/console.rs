//! The console: in a real browser, while changes flow, what it shows is what is.
//!
//! Needs Chromium and its driver, which scripts/setup.sh installs for the tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use serde_json::json;
use support::World;
use support::browser::Browser;

#[tokio::test]
async fn it_shows_what_a_change_has_dropped_and_asks_nobody_else() {
    let world = World::new().await;
    world.organizations(2).await;
    let daemon = world.daemon().await;
    world.settle().await;
    world.put(&["v1:org:data:1"]).await;
    let browser = Browser::open(1280, 1000).await;
    browser.go(&daemon.console()).await;
    browser.until_text("#headline", "Fresh").await;
    assert_eq!(browser.script("return document.title", json!([])).await, "✓ Fresh · Unstale");

    world.rename(1).await;
    world.until_gone("v1:org:data:1").await;
    for (part, cell) in [
        ("organization_organization", ".change"),
        ("update", ".change"),
        ("org_data", ".dropped"),
        ("prs_cache:1:v1:org:data:1", ".dropped"),
        ("organization_organization -> org_data", ".rule"),
        ("0/", ".commit"),
    ] {
        let row = format!("#recent tr:has([aria-label='Search prs_cache:1:v1:org:data:1']) {cell}");
        browser.until_text(&row, part).await;
    }

    assert_eq!(browser.complaints().await, Vec::<String>::new());
    let requests = browser.requests().await;
    assert!(requests.iter().any(|url| url.ends_with("/console/events")), "{requests:?}");
    let here = daemon.console();
    let elsewhere: Vec<_> = requests
        .iter()
        .filter(|url| !url.starts_with(&here) && !url.starts_with("data:"))
        .collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
    assert!(daemon.stop().await.success());
}
