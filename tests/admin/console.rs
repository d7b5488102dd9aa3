//! The console: in a real browser, while changes flow, what it shows is what is.
//!
//! Needs Chromium and its driver, which scripts/setup.sh installs for the tests.

use crate::support::api::{MEMBER, Site};
use crate::support::browser::{Browser, ENTER, TAB};
use crate::support::environment::{TESTS, packages};
use crate::support::{World, until};
use serde_json::{Value, json};

const KEY: &str = "prs_cache:1:v1:org:data:1";

/// The row of the key's last removal.
fn row(cell: &str) -> String {
    format!("#recent tr:has([aria-label='Search {KEY}']) {cell}")
}

async fn search(browser: &Browser, key: &str) {
    browser.script("document.getElementById('key').value = arguments[0]", json!([key])).await;
    browser.script("document.getElementById('search').requestSubmit()", json!([])).await;
}

#[tokio::test]
async fn it_shows_changes_and_reads_as_they_are_and_asks_nobody_else() {
    let site = Site::new().await;
    let daemon = site.daemon().await;
    let world = &site.world;
    world.settle().await;
    let browser = Browser::open(1280, 1000).await;
    browser.go(&daemon.console()).await;
    browser.until_text("#headline", "Fresh").await;
    assert_eq!(browser.script("return document.title", json!([])).await, "✓ Fresh · Unstale");
    browser.until_text("#link-text", "Live").await;

    // A miss, which is stored, and two hits.
    let path = "/api/cached/organizations/1/info/";
    for expected in ["unstale; fwd=miss; stored", "unstale; hit", "unstale; hit"] {
        let answer = site.get_as(MEMBER, path).await;
        assert_eq!(answer.header("cache-status"), Some(expected));
    }
    search(&browser, "v1:org:data:1").await;
    browser.until_text("#found-summary", "Cached since").await;
    let found = browser.text("#found").await;
    for part in [
        KEY,
        "org_data · org_id=1",
        "a snapshot at LSN 0/",
        "none that the daemon remembers",
        "deals_deal -> org_data (tables[6].invalidates[0])",
    ] {
        assert!(found.contains(part), "no {part:?} in {found}");
    }

    let sql = "with u as (update organization_organization set name = 'new' where id = 1)
               select pg_current_xact_id()::text";
    let xid = world.query_one(sql).await;
    world.until_gone("v1:org:data:1").await;
    for (cell, part) in [
        (".change", "organization_organization"),
        (".change", "update"),
        (".dropped", "1 key of org_data, 1 there"),
        (".rule", "organization_organization -> org_data"),
        (".commit", &format!("xid {xid}")),
    ] {
        browser.until_text(&row(cell), part).await;
    }
    let told: Value = {
        let (_, body) = daemon.get(&format!("/why?key={KEY}")).await.unwrap();
        serde_json::from_str(&body).unwrap()
    };
    let lsn = told["last_drop"]["lsn"].as_str().unwrap();
    assert!(browser.text(&row(".commit")).await.contains(lsn), "{lsn}");
    search(&browser, KEY).await;
    browser.until_text("#found-summary", "Not cached now.").await;
    let dropped = format!("update of organization_organization, xid {xid}, LSN {lsn}; by ");
    browser.until_text("#found", &dropped).await;

    // Somebody else stores it: since when, only its TTL tells.
    world.put(&["v1:org:data:1"]).await;
    search(&browser, KEY).await;
    browser.until_text("#found-summary", "at most, lives 60 min more").await;

    // The table says what /metrics says.
    for (column, metric) in [
        ("Hits", "unstale_cache_reads_total{cache=\"org_data\",result=\"hit\"}"),
        ("Misses", "unstale_cache_reads_total{cache=\"org_data\",result=\"miss\"}"),
        ("Dropped", "unstale_invalidated_present_total{cache=\"org_data\"}"),
    ] {
        let expected = daemon.metric(metric).await;
        assert!(expected > 0.0, "{metric}");
        let cell = format!("[data-cache='org_data'] [data-name='{column}'] > span");
        until(&format!("{column} to be {expected}"), async || {
            (browser.text(&cell).await.parse::<f64>() == Ok(expected)).then_some(())
        })
        .await;
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

#[tokio::test]
async fn the_state_turns_when_redis_goes_and_the_page_outlives_the_daemon() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    let browser = Browser::open(1280, 1000).await;
    browser.go(&daemon.console()).await;
    browser.until_text("#headline", "Fresh").await;

    world.redis.kill9().await.unwrap();
    browser.until_text("#headline", "Bypassed: Redis is down").await;
    browser.until_text("#next", "Start Redis").await;
    browser.until_text("#announcement", "Bypassed: Redis is down").await;
    browser.until_text("#services-value", "Redis down").await;
    assert!(
        browser.script("return document.title", json!([])).await.as_str().unwrap().starts_with('✕')
    );
    world.redis.start_again().await.unwrap();
    browser.until_text("#headline", "Fresh").await;
    browser.until_text("#gap-more", "no state").await;
    assert_eq!(browser.text("#next").await, "", "nothing is left to be done");

    assert!(daemon.stop().await.success());
    browser.until_text("#headline", "No word from the daemon").await;
    browser.until_text("#meaning", "Last heard at").await;
    assert_eq!(browser.text("#link-text").await, "No connection");
    let daemon = world.daemon().await;
    browser.until_text("#headline", "Fresh").await;
    browser.until_text("#link-text", "Live").await;
    // And it goes on.
    world.organizations(1).await;
    world.settle().await;
    browser.until_text(&row(".change"), "insert").await;
    assert!(daemon.stop().await.success());
}

/// The default mapping makes keys of ids; here a text of the application's users is in them.
#[tokio::test]
async fn what_somebody_named_his_organization_is_shown_and_never_run() {
    let mut world = World::new().await;
    world.configure(
        r#"
        [postgres]
        url = "postgres://localhost/app"
        [redis]
        url = "redis://localhost/1"
        key_prefix = "prs_cache:1:"
        [caches.by_name]
        key = "by_name:{name}"
        query = "select 1::text from organization_organization where name = $name"
        ttl = "1h"
        [[tables]]
        name = "organization_organization"
        invalidates = [{ cache = "by_name", name = "name" }]
        "#,
    );
    let daemon = world.daemon().await;
    let browser = Browser::open(1280, 1000).await;
    browser.go(&daemon.console()).await;
    browser.until_text("#headline", "Fresh").await;
    for (id, name) in [
        (1, "<script>document.title='owned'</script>"),
        (2, "<img/src='/owned'onerror=document.title='owned'>"),
    ] {
        let sql = format!(
            "insert into organization_organization (id, name, is_active, created_at, updated_at) \
             values ({id}, $${name}$$, true, now(), now())"
        );
        world.postgres.execute(&sql).await.unwrap();
        let key = format!("prs_cache:1:by_name:{name}");
        let shown = format!("by_name:{name}");
        browser.until_text("#recent tr:first-child .dropped", &shown).await;
        browser
            .script(
                "document.querySelector('#recent tr:first-child .keys button').click()",
                json!([]),
            )
            .await;
        browser.until_text("#found code", &key).await;
        browser.until_text("#found", "by_name · name=<").await;
    }
    let run = "return document.title.includes('owned') \
               || document.querySelectorAll('main img, main script').length > 0";
    assert_eq!(browser.script(run, json!([])).await, false);
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    let requests = browser.requests().await;
    assert!(!requests.iter().any(|url| url.ends_with("/owned")), "{requests:?}");
    assert!(daemon.stop().await.success());
}

/// What is before the focus, as somebody hears it.
const FOCUSED: &str = "const e = document.activeElement; \
    return e.getAttribute('aria-label') || e.id || e.textContent.trim()";

#[tokio::test]
async fn by_keyboard_alone_everything_is_reached_and_nothing_fails_the_rules_of_accessibility() {
    let axe = packages(TESTS).join("axe_playwright_python/axe.min.js");
    let axe = std::fs::read_to_string(axe).unwrap();

    let world = World::new().await;
    let daemon = world.daemon().await;
    world.organizations(1).await;
    world.put(&["v1:org:data:1"]).await;
    world.rename(1).await;
    world.until_gone("v1:org:data:1").await;
    let browser = Browser::open(1280, 1000).await;
    browser.go(&daemon.console()).await;
    browser.until_text("#headline", "Fresh").await;
    browser.until_text(&row(".change"), "organization_organization").await;

    let mut reached = Vec::new();
    for _ in 0..60 {
        browser.press(TAB).await;
        let focused = browser.script(FOCUSED, json!([])).await;
        reached.push(focused.as_str().unwrap_or_default().to_owned());
        if reached.last().unwrap() == "/healthz" {
            break;
        }
    }
    let key_button = format!("Search {KEY}");
    let expected = [
        "Skip to the search for a key",
        "key",
        "Search",
        "How keys look",
        "only",
        "hold",
        "List of recent invalidations",
        &key_button,
        "/readyz",
        "/report",
        "/metrics",
        "/healthz",
    ];
    let mut rest = reached.iter();
    for name in expected {
        assert!(rest.any(|reached| reached == name), "{name} is not reached: {reached:?}");
    }

    // The list stands still while the focus is in it, and says so.
    browser.script("document.querySelector(arguments[0]).focus()", json!([row("button")])).await;
    world.rename(1).await;
    browser.until_text("#recent-note", "Held while you look").await;
    browser.press(ENTER).await;
    browser.until_text("#found-summary", "Not cached now.").await;
    assert_eq!(
        browser.script(FOCUSED, json!([])).await,
        "key",
        "the focus goes where the answer is"
    );
    browser.script("document.getElementById('hold').focus()", json!([])).await;
    browser.press(ENTER).await;
    let pressed = "return document.getElementById('hold').getAttribute('aria-pressed')";
    assert_eq!(browser.script(pressed, json!([])).await, "true");

    browser.script(&axe, json!([])).await;
    // In the light, in the dark and on a phone, with an answer below the search.
    for (scheme, width) in [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)] {
        let feature = json!({ "features": [
            { "name": "prefers-color-scheme", "value": scheme },
            { "name": "prefers-reduced-motion", "value": "reduce" },
        ] });
        browser.devtools("Emulation.setEmulatedMedia", feature).await;
        let size =
            json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500 });
        browser.devtools("Emulation.setDeviceMetricsOverride", size).await;
        let run = "axe.run().then((r) => arguments[0](r.violations.map((v) => v.id + ': ' \
            + v.nodes.map((n) => n.html + ' ' + n.failureSummary).join('; '))))";
        let violations = browser.script_later(run, json!([])).await;
        assert_eq!(violations, json!([]), "{scheme}, {width} wide");
        let wider = "return document.documentElement.scrollWidth > innerWidth";
        assert_eq!(browser.script(wider, json!([])).await, false, "{width} is wide enough");
    }
    assert!(daemon.stop().await.success());
}
