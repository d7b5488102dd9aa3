//! Shadow mode: the daemon looks on, writes nothing to Redis, and tells which entries the
//! application's own invalidation has missed, and no others.
//!
//! The test is the application here; tests/django/shadow_django.rs has a real Django with signals.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::acl::{add_user, url};
use crate::support::api::{ADMIN, Answer, MEMBER, Site, bearer};
use crate::support::{Daemon, World, until};
use redis::AsyncCommands;
use serde_json::Value;
use unstale::lsn::Lsn;
use unstale::sandbox::{Postgres, Redis};

const SCHEMA: &str = "
    create table item (id int primary key, n int not null);
    create table part (id int primary key, item_id int not null);
    create table other (id int primary key);
    alter table item replica identity full;
    alter table part replica identity full;
    insert into item select i, i from generate_series(1, 50) i;
    insert into part select i, i from generate_series(1, 50) i;
    create publication unstale for table item, part, other;
";

const RULES: &str = r#"
    shadow = true
    shadow_grace = "2s"
    [redis]
    key_prefix = "prs_cache:1:"
    [caches.item]
    key = "item:{id}"
    query = "select jsonb_build_object('id', id, 'n', n) from item where id = $id"
    ttl = "1h"
    [caches.parts]
    key = "parts:{id}"
    query = "select jsonb_build_object('parts', count(*)) from part where item_id = $id"
    ttl = "1h"
    [caches.search]
    key = "search:{id}:{generation}:{q}"
    scope = ["id"]
    ttl = "1h"
    [[tables]]
    name = "item"
    invalidates = [{ cache = "item", id = "id" }, { cache = "search", id = "id" }]
    [[tables]]
    name = "part"
    invalidates = [{ cache = "parts", id = "item_id" }]
    [[tables]]
    name = "other"
    invalidates = [{ cache = "item", whole = true }]
"#;

/// A daemon in shadow mode whose Redis user can only read.
async fn world() -> World {
    let postgres = Postgres::start().await.expect("Postgres starts");
    postgres.execute(SCHEMA).await.expect("the schema");
    let redis = Redis::start().await.expect("Redis starts");
    let mut world = World::bare(postgres, redis, "none".as_ref());
    world.configure(RULES);
    add_user(&world, "shadow").await;
    world.set(&format!("redis.url={}", url(&world, "shadow")));
    world
}

/// The application, which caches by itself.
struct Application<'w> {
    world: &'w World,
    redis: redis::aio::MultiplexedConnection,
}

impl Application<'_> {
    async fn sql(&self, sql: &str) {
        self.world.postgres.execute(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    }

    /// As `json.dumps` writes it: other bytes than the database's, the same JSON.
    async fn cache_item(&mut self, id: u32) {
        let n = self.world.query_one(&format!("select n from item where id = {id}")).await;
        let value = format!("{{\"n\": {n}, \"id\": {id}}}");
        let _: () = self.redis.set_ex(format!("prs_cache:1:item:{id}"), value, 3600).await.unwrap();
    }

    /// As pickle writes it: in a form of its own.
    async fn cache_parts(&mut self, id: u32) {
        let key = format!("prs_cache:1:parts:{id}");
        let _: () = self.redis.set_ex(key, b"\x80\x04pickled", 3600).await.unwrap();
    }

    async fn drop(&mut self, key: &str) {
        let _: () = self.redis.del(format!("prs_cache:1:{key}")).await.unwrap();
    }
}

async fn application(world: &World) -> Application<'_> {
    Application { world, redis: world.values().await }
}

async fn until_looked_at(daemon: &Daemon, end: Lsn) {
    until("all to be looked at", async || {
        let applied: Lsn = daemon.readyz().await?["applied_lsn"].as_str()?.parse().ok()?;
        (end <= applied).then_some(())
    })
    .await;
}

/// What the daemon tells, once nothing waits for its grace any more.
async fn report(world: &World, daemon: &Daemon) -> Value {
    // Of an idle stream the position is known after a second at the latest.
    let end = world.wal_end().await;
    until_looked_at(daemon, end).await;
    until("all to have had its grace", async || {
        let (status, body) = daemon.get("/shadow").await?;
        assert_eq!(status, 200, "{body}");
        let report: Value = serde_json::from_str(&body).unwrap();
        (report["awaiting"] == 0).then_some(report)
    })
    .await
}

/// The missed keys, each with what happened to which table, and whether it is proved.
fn missed(report: &Value) -> BTreeSet<(String, String, bool)> {
    let all = report["missed"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    all.map(|one| {
        let what = format!("{} of {}", text(&one["operation"]), text(&one["table"]));
        let key = text(&one["key"]).replace("prs_cache:1:", "");
        (key, what, one["proved"].as_bool().unwrap())
    })
    .collect()
}

/// The sums of what became of the entries of a cache.
fn outcomes(report: &Value, cache: &str) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for line in report["changes"].as_array().unwrap().iter().filter(|line| line["cache"] == cache) {
        for (name, count) in line.as_object().unwrap() {
            if let Some(count) = count.as_u64().filter(|count| *count > 0) {
                *sums.entry(name.clone()).or_default() += count;
            }
        }
    }
    sums
}

async fn everything(world: &World) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut redis = world.values().await;
    let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query_async(&mut redis).await.unwrap();
    let mut all = BTreeMap::new();
    for key in keys {
        let value: Vec<u8> = redis::cmd("DUMP").arg(&key).query_async(&mut redis).await.unwrap();
        all.insert(key, value);
    }
    all
}

fn set<const N: usize>(expected: [(&str, &str, bool); N]) -> BTreeSet<(String, String, bool)> {
    expected.map(|(key, what, proved)| (key.to_owned(), what.to_owned(), proved)).into()
}

#[tokio::test]
async fn the_report_names_exactly_what_the_applications_own_invalidation_misses() {
    let world = world().await;
    let daemon = world.daemon().await;
    let mut app = application(&world).await;
    // Handled, and filled again: from this the daemon learns that values can be compared.
    app.cache_item(1).await;
    app.sql("update item set n = n + 100 where id = 1").await;
    app.cache_item(1).await;
    assert_eq!(missed(&report(&world, &daemon).await), set([]));

    for id in 2..=9 {
        app.cache_item(id).await;
        app.cache_parts(id).await;
    }
    // By signals: handled.
    app.sql("update item set n = n + 100 where id = 2").await;
    app.drop("item:2").await;
    app.sql("delete from part where item_id = 2").await;
    app.drop("parts:2").await;
    // A bulk update, raw SQL, a delete and an insert that no signal tells of: missed.
    app.sql("update item set n = n + 100 where id in (3, 4)").await;
    app.sql("delete from item where id = 5").await;
    app.sql("insert into part values (100, 6)").await;
    // The other way back within the grace: its bytes are right.
    app.sql("update item set n = n + 1 where id = 7").await;
    app.sql("update item set n = n - 1 where id = 7").await;
    // Stored anew with the same bytes: nobody can tell, and it is not called missed.
    app.sql("delete from part where item_id = 8").await;
    until_looked_at(&daemon, world.wal_end().await).await;
    let _: bool = app.redis.expire("prs_cache:1:parts:8", 1800).await.unwrap();
    // Its life ends meanwhile.
    app.sql("update item set n = n + 1 where id = 9").await;
    let _: bool = app.redis.pexpire("prs_cache:1:item:9", 100).await.unwrap();
    // Never cached; and scoped.
    app.sql("update item set n = n + 1 where id = 10").await;

    let report = report(&world, &daemon).await;
    let expected = set([
        ("item:3", "update of item", true),
        ("item:4", "update of item", true),
        ("item:5", "delete of item", true),
        ("parts:6", "insert of part", false),
    ]);
    assert_eq!(missed(&report), expected, "{report:#}");
    let items = outcomes(&report, "item");
    assert_eq!(items["stale"], 3);
    assert!(items["current"] >= 1, "{items:?}");
    let parts = outcomes(&report, "parts");
    assert_eq!((parts["same_bytes"], parts["renewed"]), (1, 1), "{parts:?}");
    assert_eq!(report["comparable"]["item"], true);
    assert_eq!(report["comparable"]["parts"], false);
    assert!(report["left_out"]["search"].as_str().unwrap().contains("scoped"));
    for (table, op, cache, result, expected) in [
        ("item", "update", "item", "stale", 2.0),
        ("item", "delete", "item", "stale", 1.0),
        ("part", "insert", "parts", "same_bytes", 1.0),
    ] {
        let name = format!(
            "unstale_shadow_keys_total{{cache=\"{cache}\",op=\"{op}\",result=\"{result}\",table=\"{table}\"}}"
        );
        assert_eq!(daemon.metric(&name).await, expected, "{name}");
    }

    let told = world.command("report").arg("--shadow").output().await.unwrap();
    assert!(told.status.success());
    let text = String::from_utf8(told.stdout).unwrap();
    assert!(text.contains("missed 4; for 3 of them the database proves it"), "{text}");
    assert!(text.contains("prs_cache:1:item:5") && text.contains("delete of item"), "{text}");
    let json = world.command("report").args(["--shadow", "--json"]).output().await.unwrap();
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["missed_total"], 4);
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn nothing_is_written_to_redis_not_even_tried() {
    let world = world().await;
    let mut app = application(&world).await;
    for id in 1..=20 {
        app.cache_item(id).await;
        app.cache_parts(id).await;
    }
    let before = everything(&world).await;
    let check = world.command("check").output().await.unwrap();
    let check = String::from_utf8(check.stdout).unwrap();
    assert!(check.contains("shadow mode: the user may read all"), "{check}");
    let daemon = world.daemon().await;
    app.sql("update item set n = n + 1; delete from part where id < 5").await;
    // Together with the next one their keys would go unnamed, with their whole cache.
    until("the first to be watched", async || {
        (daemon.metric("unstale_shadow_awaiting").await >= 20.0).then_some(())
    })
    .await;
    app.sql("truncate part; insert into other values (1)").await;
    let told = report(&world, &daemon).await;
    assert!(told["missed_total"].as_u64().unwrap() >= 20, "{told:#}");
    let whole = told["whole"].as_array().unwrap();
    assert_eq!(whole.len(), 2, "{whole:?}");
    // What says that nobody knows which entries a change has reached is proof of nothing.
    let truncate = told["changes"].as_array().unwrap().iter();
    let mut truncate = truncate.filter(|line| line["operation"] == "truncate");
    assert!(truncate.all(|line| line["same_bytes"] == 0), "{told:#}");

    // A gap: in shadow mode nothing is dropped.
    let slot = "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = 'unstale'";
    world.query_one(slot).await;
    until("the slot to be free", async || {
        let drop = "select pg_drop_replication_slot('unstale')";
        world.postgres.execute(drop).await.ok()
    })
    .await;
    daemon.until_log("changes may have gone by unseen").await;
    daemon.until_ready().await;
    let status = world.command("status").output().await.unwrap();
    let (out, err) =
        (String::from_utf8(status.stdout).unwrap(), String::from_utf8(status.stderr).unwrap());
    assert_eq!(status.status.code(), Some(0), "{out}{err}");
    assert!(out.contains("shadow") && err.contains("report --shadow"), "{out}{err}");
    assert_eq!(daemon.metric("unstale_certified").await, 0.0);
    assert_eq!(daemon.metric("unstale_shadow").await, 1.0);
    assert!(daemon.gaps().await.is_empty());
    let readyz = daemon.readyz().await.unwrap();
    assert_eq!((&readyz["ready"], &readyz["shadow"]), (&true.into(), &true.into()));
    assert!(daemon.stop().await.success());
    // Nor by hand.
    for arguments in [
        &["invalidate", "--cache-type", "all"][..],
        &["clear", "--force"],
        &["warm"],
        &["test"],
        &["verify", "--repair"],
    ] {
        let output = world.command(arguments[0]).args(&arguments[1..]).output().await.unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{arguments:?}: {error}");
        assert!(error.contains("shadow = true"), "{arguments:?}: {error}");
    }

    assert_eq!(everything(&world).await, before);
    let refused: Vec<redis::Value> =
        redis::cmd("ACL").arg("LOG").query_async(&mut world.values().await).await.unwrap();
    assert!(refused.is_empty(), "{refused:?}");
}

#[tokio::test]
async fn a_redis_that_is_away_holds_nothing_back_and_a_late_look_accuses_nobody() {
    let world = world().await;
    let mut app = application(&world).await;
    for id in 1..=5 {
        app.cache_item(id).await;
        app.cache_parts(id).await;
    }
    let daemon = world.daemon().await;
    world.redis.stop().await.unwrap();
    daemon.until_problem("redis").await;
    app.sql("update item set n = n + 1 where id = 1").await;
    let end = world.wal_end().await;
    until_looked_at(&daemon, end).await;
    assert!(daemon.stop().await.success());

    world.redis.start_again().await.unwrap();
    add_user(&world, "shadow").await;
    let mut app = application(&world).await;
    for id in 1..=5 {
        app.cache_item(id).await;
        app.cache_parts(id).await;
    }
    // While nobody looks the application handles this: the entry is another one by the time the
    // change is seen.
    app.sql("delete from part where item_id = 2").await;
    app.drop("parts:2").await;
    app.cache_parts(2).await;
    // And this it misses.
    app.sql("update item set n = n + 1 where id = 3").await;
    tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    let daemon = world.daemon().await;
    let told = report(&world, &daemon).await;
    assert_eq!(missed(&told), set([]), "{told:#}");
    assert_eq!(outcomes(&told, "parts")["undecided"], 1, "{told:#}");
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn it_refuses_to_run_beside_a_state_that_is_kept_and_taking_over_is_a_gap() {
    let mut world = world().await;
    world.set(&format!("redis.url={}", world.redis.url_db(1)));
    let mut app = application(&world).await;
    let daemon = world.daemon().await;
    assert!(daemon.stop().await.success());
    app.cache_item(1).await;
    // Nothing says that what the application has stored is right: it goes, once.
    world.set("shadow=false");
    let daemon = world.daemon().await;
    daemon.until_gap("no_state").await;
    assert!(world.keys().await.is_empty());
    let answer = world.command("report").arg("--shadow").output().await.unwrap();
    assert_eq!(answer.status.code(), Some(1));
    assert!(String::from_utf8(answer.stderr).unwrap().contains("shadow = true"));
    assert!(daemon.stop().await.success());
    let answer = world.command("report").arg("--shadow").output().await.unwrap();
    assert_eq!(answer.status.code(), Some(69));

    world.set("shadow=true");
    let mut daemon = world.spawn();
    assert_eq!(daemon.exit().await.code(), Some(78));
    daemon.until_log("let postgres.slot name another one in shadow mode").await;
    let check = world.command("check").output().await.unwrap();
    assert!(String::from_utf8(check.stdout).unwrap().contains("shadow mode will refuse to run"));
}

#[tokio::test]
async fn the_read_api_asks_the_database_and_takes_no_orders() {
    let mut site = Site::new().await;
    add_user(&site.world, "shadow").await;
    site.world.set("shadow=true");
    let reading = url(&site.world, "shadow");
    site.world.set(&format!("redis.url={reading}"));
    // The application's own, and wrong.
    site.world.put(&["v1:org:data:1", "v1:identity:1"]).await;
    let daemon = site.world.daemon().await;
    site.until_served().await;
    let answer = site.get_as(MEMBER, "/api/cached/organizations/1/info/").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("cache-status"), Some("unstale; fwd=bypass; detail=shadow"));
    assert_eq!(answer.json()["organization"]["name"], "one");
    let body = r#"{"cache_type": "all"}"#;
    for path in ["warm-cache", "invalidate-cache"] {
        let request = format!(
            "POST /api/cache-management/{path}/ HTTP/1.1\r\nHost: api\r\nConnection: close\r\nAuthorization: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            bearer(ADMIN),
            body.len()
        );
        let answer = Answer::parse(&site.raw(request.as_bytes()).await.unwrap()).unwrap();
        assert_eq!(answer.problem(), "unavailable");
        assert!(answer.text().contains("shadow mode"), "{answer:?}");
    }
    assert_eq!(site.world.keys().await.len(), 2);
    assert!(daemon.stop().await.success());
}
