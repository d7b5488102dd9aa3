//! Shadow mode beside a real Django that caches by itself and invalidates by signals: the report
//! names exactly the values that are wrong by Django's own ORM. Needs Python, as tests/django/writes.rs.

use std::collections::{BTreeMap, BTreeSet};

use crate::python::{Django, python};
use crate::support::{Daemon, World, until};
use serde_json::{Value, json};
use unstale::lsn::Lsn;

const SIZES: &str =
    "set demo.organizations = 4; set demo.users = 24; set demo.deals = 200; set demo.clients = 8;";

type Values = BTreeMap<String, Value>;

fn values(value: Value) -> Values {
    serde_json::from_value(value).unwrap()
}

/// Which values are wrong, by Django's ORM.
async fn wrong(django: &mut Django, entries: &Value) -> BTreeSet<String> {
    let truth = values(django.call(json!(["truth", entries])).await);
    let keys: Vec<&String> = truth.keys().collect();
    let cached = values(django.call(json!(["get", keys])).await);
    cached
        .into_iter()
        .filter(|(key, value)| truth.get(key) != Some(value))
        .map(|(k, _)| k)
        .collect()
}

/// What is reported of changes after `since`: the keys, and what happened to which table.
async fn missed(
    world: &World,
    daemon: &Daemon,
    since: Lsn,
) -> (BTreeSet<String>, BTreeSet<String>) {
    let end = world.wal_end().await;
    until("all to be looked at", async || {
        let applied: Lsn = daemon.readyz().await?["applied_lsn"].as_str()?.parse().ok()?;
        (end <= applied).then_some(())
    })
    .await;
    let report: Value = until("all to have had its grace", async || {
        let report: Value = serde_json::from_str(&daemon.get("/shadow").await?.1).unwrap();
        (report["awaiting"] == 0).then_some(report)
    })
    .await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let all = report["missed"].as_array().unwrap().iter();
    let all = all.filter(|one| text(&one["lsn"]).parse::<Lsn>().unwrap() > since);
    all.map(|one| {
        let key = text(&one["key"]).replace("prs_cache:1:", "");
        (key, format!("{} of {}", text(&one["operation"]), text(&one["table"])))
    })
    .unzip()
}

#[tokio::test]
async fn what_signals_miss_is_named_and_nothing_else() {
    let python = python();
    let mut world = World::new().await;
    let rows = std::fs::read_to_string(crate::support::root().join("sql/demo/data.sql")).unwrap();
    world.postgres.execute(&format!("{SIZES}{rows}")).await.unwrap();
    world.set("shadow=true");
    world.set("shadow_grace=1500ms");
    let mut django = Django::start(python, &world);
    django.call(json!(["prepare"])).await;
    django.call(json!(["connect_signals"])).await;
    let daemon = world.daemon().await;

    for (write, told) in [
        ("model_save", &[][..]),
        ("model_delete", &[]),
        ("queryset_update", &["update of deals_deal"]),
        ("bulk_create", &["insert of deals_deal"]),
        ("raw_sql", &["update of authentication_user"]),
        ("raw_sql_that_writes_in_a_select", &["delete of permissions_role_permissions"]),
        ("m2m_add", &["insert of permissions_role_permissions"]),
        ("m2m_clear", &["delete of permissions_role_permissions"]),
    ] {
        // Of no days: what a date changes is no change.
        let entries = django.call(json!(["entries", []])).await;
        django.call(json!(["fill", entries])).await;
        assert_eq!(wrong(&mut django, &entries).await, BTreeSet::new(), "before {write}");
        let since = world.wal_end().await;
        let certain: Vec<String> =
            serde_json::from_value(django.call(json!(["write", write])).await).unwrap();
        let (keys, what) = missed(&world, &daemon, since).await;
        let wrong = wrong(&mut django, &entries).await;
        assert_eq!(keys, wrong, "missed by signals after {write}; {}", daemon.log());
        let expected: BTreeSet<String> = told.iter().map(|what| (*what).to_owned()).collect();
        assert_eq!(what, expected, "{write}");
        let certain = certain.iter().filter(|key| !key.starts_with("v1:deal_stats:"));
        assert!(
            told.is_empty() || certain.clone().all(|key| keys.contains(key)),
            "{write}: {keys:?}"
        );
    }
    assert!(daemon.stop().await.success());
}
