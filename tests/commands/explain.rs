//! `unstale explain` says what the daemon would do, and why.

use std::collections::BTreeMap;
use std::process::Output;

use crate::rows::HOLDERS;
use crate::support::World;
use serde_json::Value;

async fn run(world: &World, arguments: &[&str]) -> Output {
    world.command("explain").args(arguments).output().await.expect("it runs")
}

/// A good explanation, as JSON.
async fn explain(world: &World, arguments: &[&str]) -> Value {
    let output = world.command("explain").arg("--json").args(arguments).output().await;
    let output = output.expect("it runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}{}", String::from_utf8_lossy(&output.stdout));
    serde_json::from_slice(&output.stdout).expect("a JSON object")
}

/// What the rule for a cache yields, in short; the first one of that cache.
fn yields(report: &Value) -> BTreeMap<String, String> {
    let mut yields = BTreeMap::new();
    for rule in report["rules"].as_array().expect("rules") {
        let text = |field: &str| rule[field].as_str().map(str::to_owned);
        let keys = rule["keys"].as_array().expect("keys").iter();
        let keys: Vec<&str> = keys.map(|key| key.as_str().expect("a key")).collect();
        let yielded = text("whole")
            .map(|reason| format!("whole: {reason}"))
            .or(text("nothing"))
            .unwrap_or(keys.join(" "));
        yields.entry(text("cache").expect("a cache")).or_insert(yielded);
    }
    yields
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().map(|text| text.as_str().expect("text")).collect()
}

#[tokio::test]
async fn each_kind_of_rule_says_what_it_yields_or_why_nothing() {
    let world = World::new().await;
    world.postgres.execute(HOLDERS).await.unwrap();

    // Columns: both organizations; a scope; what did not change.
    let report = explain(
        &world,
        &["deals_deal", r#"{"organization_id": 2}"#, "--old", r#"{"organization_id": 1}"#],
    )
    .await;
    let found = yields(&report);
    assert_eq!(report["operation"], "update");
    assert_eq!(report["replica_identity"], "full");
    assert_eq!(found["org_data"], "prs_cache:1:v1:org:data:1 prs_cache:1:v1:org:data:2");
    assert_eq!(found["deal_stats"].split(' ').count(), 8, "{found:?}");
    assert!(found["api_search"].contains("search:1:generation"), "{found:?}");
    let rule = report["rules"][0]["rule"].as_str().unwrap();
    assert!(rule.starts_with("deals_deal -> org_data (tables["), "{rule}");

    let report = explain(
        &world,
        &[
            "deals_deal",
            r#"{"organization_id": 1, "deal_name": "b"}"#,
            "--old",
            r#"{"deal_name": "a"}"#,
        ],
    )
    .await;
    let found = yields(&report);
    assert_eq!(found["org_data"], "none of the rule's columns has changed");
    assert!(found["api_search"].ends_with("search:1:generation"), "{found:?}");

    // A query, really run; a where that does not hold.
    let report = explain(
        &world,
        &[
            "permissions_role",
            r#"{"id": 7, "name": "boss", "organization_id": 1}"#,
            "--old",
            r#"{"name": "admin"}"#,
        ],
    )
    .await;
    let found = yields(&report);
    assert_eq!(found["role_info"], "prs_cache:1:v1:role_info:1");
    assert_eq!(found["user_perms"], "prs_cache:1:v1:user_perms:1:1 prs_cache:1:v1:user_perms:2:1");
    assert_eq!(report["rules"][1]["nothing"], "the rule's where does not hold");
    assert_eq!(report["rules"][2]["lookup"]["rows"], serde_json::json!([["7"]]));
    assert_eq!(report["rules"][2]["lookup"]["ran"], true);
    assert!(report["whole"].as_array().unwrap().is_empty());

    // A query that finds nothing, a null parameter, a whole cache by rule.
    let report = explain(&world, &["permissions_role", "--old", r#"{"id": 8, "name": "x"}"#]).await;
    assert_eq!(report["operation"], "delete");
    let found = yields(&report);
    assert_eq!(found["role_info"], "a parameter of the key is null");
    assert_eq!(found["user_perms"], "its query finds nothing");
    assert_eq!(report["whole"], serde_json::json!(["role_info"]));
    assert_eq!(texts(&report["notes"]), ["not given, taken for null: organization_id"]);

    // Other operations.
    let report = explain(&world, &["clients_client", r#"{"id": 1}"#]).await;
    assert_eq!(yields(&report)["deal_stats"], "the rule is not for this operation");
    let report = explain(&world, &["clients_client", "--operation", "truncate"]).await;
    assert_eq!(yields(&report)["deal_stats"], "whole: truncate");
}

#[tokio::test]
async fn what_the_replica_identity_does_not_carry_is_unknown_here_too() {
    let world = World::new().await;
    world.postgres.execute("alter table deals_deal replica identity default").await.unwrap();
    let id = "2f0c7a52-6a43-4d5e-9c0e-0a5f8b7d1e11";
    let new = format!(r#"{{"id": "{id}", "organization_id": 2, "deal_value": 5}}"#);
    let report = explain(&world, &["deals_deal", &new, "--old", r#"{"organization_id": 1}"#]).await;
    assert_eq!(report["replica_identity"], "default");
    assert_eq!(yields(&report)["org_data"], "whole: old_value_unknown");
    let note = texts(&report["notes"]).concat();
    assert!(note.contains("does not carry the old") && note.contains("organization_id"), "{note}");

    let report = explain(&world, &["deals_deal", "--old", &new]).await;
    assert_eq!(yields(&report)["org_data"], "whole: old_value_unknown");

    // Only a new row: no old value is needed.
    let report = explain(&world, &["deals_deal", &new]).await;
    assert_eq!(yields(&report)["org_data"], "prs_cache:1:v1:org:data:2");

    // An index carries what it has.
    world
        .postgres
        .execute("alter table deals_deal replica identity using index deals_deal_organization_id_deal_id_uniq")
        .await
        .unwrap();
    let report =
        explain(&world, &["deals_deal", "--old", r#"{"organization_id": 1, "deal_id": "D-1"}"#])
            .await;
    assert_eq!(report["replica_identity"], "index");
    assert_eq!(yields(&report)["org_data"], "prs_cache:1:v1:org:data:1");
}

#[tokio::test]
async fn values_are_taken_as_the_stream_would_print_them() {
    let mut world = World::new().await;
    world
        .postgres
        .execute(
            r#"create schema "S"; create domain "S".code as char(4);
            create table "S"."Items" ("Id" uuid primary key, price numeric(10, 2), open bool, code "S".code, data jsonb);
            alter publication unstale add table "S"."Items""#,
        )
        .await
        .unwrap();
    let (postgres, redis) = (world.postgres.url(), world.redis.url_db(1));
    world.configure(&format!(
        r#"
        postgres.url = "{postgres}"
        redis.url = "{redis}"
        [caches.c]
        key = "c:{{id}}:{{price}}:{{code}}:{{open}}"
        [[tables]]
        name = '"S"."Items"'
        invalidates = [
          {{ cache = "c", id = '"Id"', price = "price", code = "code", open = "open", where = "open = true" }},
        ]
        "#
    ));
    let row = r#"{"Id": "2F0C7A52-6A43-4D5E-9C0E-0A5F8B7D1E11", "price": 1e2, "open": true, "code": "ab", "data": {"a": [1]}}"#;
    let report = explain(&world, &[r#""S"."Items""#, row]).await;
    let key = "c:2f0c7a52-6a43-4d5e-9c0e-0a5f8b7d1e11:100.00:";
    let found = &yields(&report)["c"];
    assert!(found.starts_with(key) && found.ends_with(":t"), "{found}");
    let report = explain(&world, &[r#""S"."Items""#, &row.replace("true", "false")]).await;
    assert_eq!(yields(&report)["c"], "the rule's where does not hold");
}

#[tokio::test]
async fn without_a_database_it_explains_what_the_rules_alone_tell() {
    let mut world = World::new().await;
    world.set("postgres.url=postgres://nobody@127.0.0.1:1/none");
    let update = ["deals_deal", r#"{"organization_id": 2}"#, "--old", r#"{"organization_id": 1}"#];
    let output = run(&world, &update).await;
    assert_eq!(output.status.code(), Some(69));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--offline"));

    let report = explain(&world, &[&["--offline"], &update[..]].concat()).await;
    let org_data = "prs_cache:1:v1:org:data:1 prs_cache:1:v1:org:data:2";
    assert_eq!(yields(&report)["org_data"], org_data);
    assert!(report["replica_identity"].is_null());
    let report =
        explain(&world, &["--offline", "permissions_role", r#"{"id": 7, "organization_id": 1}"#])
            .await;
    assert_eq!(report["rules"][2]["lookup"]["ran"], false);
    let output =
        run(&world, &["--offline", "permissions_role", r#"{"id": 7, "organization_id": null}"#])
            .await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("insert of permissions_role\n"), "{text}");
    assert!(text.contains("    would look up id = \"7\"\n"), "{text}");
    assert!(text.contains("    the whole cache role_info: the rule says so (rule)\n"), "{text}");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_what_would() {
    let world = World::new().await;
    world.postgres.execute("create table beside (id int primary key)").await.unwrap();
    let refused = async |arguments: &[&str], code: i32, part: &str| {
        let output = run(&world, arguments).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(part), "{said}");
    };
    refused(&["deals_deal", "{\"id\": "], 2, "line 1 column 7; write a row as a JSON object").await;
    refused(&["deals_deal", "[1]"], 2, "a JSON object").await;
    refused(&["deals_deal", r#"{"id": 1, "id": 2}"#], 2, "given twice").await;
    refused(&["deals_deal", r#"{"organisation_id": 1}"#], 2, "did you mean organization_id?").await;
    refused(&["deals_deal", r#"{"deal_value": "x"}"#], 2, "deal_value is numeric(15,2)").await;
    refused(&["deals_dael", "{}"], 2, "did you mean deals_deal?").await;
    refused(&["a.b.c", "{}"], 2, "a table is named table or schema.table").await;
    refused(&["deals_deal"], 2, "--operation truncate").await;
    refused(&["deals_deal", "{}", "--operation", "delete"], 2, "give it as --old").await;
    refused(&["--offline", "beside", "{}"], 2, "no rule is for the table beside").await;

    // A table without rules is no mistake: it reaches nothing.
    let report = explain(&world, &["beside", r#"{"id": 1}"#]).await;
    assert!(report["rules"].as_array().unwrap().is_empty());
    assert!(texts(&report["notes"]).concat().contains("no rule is for the table beside"));

    // A rule whose column is gone drops its cache, and that is a failure to mend.
    world.postgres.execute("alter table clients_client rename client_name to title").await.unwrap();
    refused(&["clients_client", "--old", r#"{"id": 1}"#], 1, "").await;
    world.postgres.execute("drop table clients_client cascade").await.unwrap();
    refused(&["clients_client", "--old", r#"{"id": 1}"#], 78, "no such table").await;
}
