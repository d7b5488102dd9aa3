//! `negative_ttl`: that there is nothing to cache is remembered by the same lease as a value,
//! and forgotten by the INSERT that changes it.

use crate::support::reader::Reader;
use crate::support::{World, until};
use redis::AsyncCommands;
use unstale::fill::filler::How;

const KEY: &str = "prs_cache:1:v1:org:data:404";
const UNKNOWN: [(&str, &str); 1] = [("org_id", "404")];
const INSERT: &str =
    "insert into organization_organization (id, name, is_active, created_at, updated_at)
     values (404, 'found', true, now(), now())";

/// org_data remembers for a minute that there is no such organization.
async fn world(query: &str) -> World {
    let mut world = World::new().await;
    let old = "query = { file = \"../sql/caches/org_data.sql\" }";
    let new = format!("{query}\nnegative_ttl = \"1m\"");
    world.reconfigure(|toml| toml.replace(old, &new));
    world.organizations(1).await;
    world
}

const QUERY: &str = "query = { file = \"../sql/caches/org_data.sql\" }";

#[tokio::test]
async fn a_thousand_misses_of_what_does_not_exist_cost_one_query() {
    let world = world(QUERY).await;
    let _daemon = world.daemon().await;
    let reader = Reader::new(&world);
    assert_eq!(reader.read("org_data", &UNKNOWN).await, (None, How::Absent));
    for _ in 0..1000 {
        assert_eq!(reader.read("org_data", &UNKNOWN).await, (None, How::Hit));
    }
    assert_eq!(reader.loads("org_data"), 1);
    let mut values = world.values().await;
    let stored: String = values.get(KEY).await.unwrap();
    assert_eq!(stored, "null", "who reads by GET finds what JSON has for nothing");
    let life: i64 = values.pttl(KEY).await.unwrap();
    assert!((1..=60_000).contains(&life), "{life}");
    // A cache without negative_ttl remembers nothing.
    assert_eq!(reader.read("identity", &[("user_id", "404")]).await, (None, How::Absent));
    assert_eq!(reader.read("identity", &[("user_id", "404")]).await, (None, How::Absent));
    // A composed value has no part then, and finds that out without the database.
    let loads = reader.loads("org_data");
    assert_eq!(reader.named("dashboard", &[("user_id", "1"), UNKNOWN[0]]).await.0, None);
    assert_eq!(reader.loads("org_data"), loads);
}

#[tokio::test]
async fn the_insert_is_seen_at_once() {
    let world = world(QUERY).await;
    let _daemon = world.daemon().await;
    let reader = Reader::new(&world);
    assert_eq!(reader.read("org_data", &UNKNOWN).await, (None, How::Absent));
    world.postgres.execute(INSERT).await.unwrap();
    world.settle().await;
    let (value, how) = reader.read("org_data", &UNKNOWN).await;
    assert_eq!(how, How::Stored);
    assert!(value.unwrap().contains("found"));
    let life: i64 = world.values().await.pttl(KEY).await.unwrap();
    assert!(life > 60_000, "a value has its own life: {life}");
}

#[tokio::test]
async fn that_there_is_nothing_is_not_stored_if_it_may_have_changed() {
    let gated = "query = \"\"\"select value from (select (select json_build_object('name', name)
        from organization_organization where id = $org_id::bigint) as value,
        pg_advisory_xact_lock_shared(7)::text as gate offset 0) gated where value is not null\"\"\"";
    let world = world(gated).await;
    let _daemon = world.daemon().await;
    let reader = Reader::new(&world);
    let gate = world.postgres.client().await.unwrap();
    gate.batch_execute("select pg_advisory_lock(7)").await.unwrap();
    let reading = tokio::spawn({
        let (filler, cache) = (reader.filler.clone(), reader.cache("org_data"));
        async move { filler.read(cache, &UNKNOWN).await.unwrap() }
    });
    let waiting = "select count(*)::text from pg_stat_activity where wait_event = 'advisory'";
    until("a load", async || (world.query_one(waiting).await == "1").then_some(())).await;
    world.postgres.execute(INSERT).await.unwrap();
    world.settle().await;
    gate.batch_execute("select pg_advisory_unlock(7)").await.unwrap();
    let read = reading.await.unwrap();
    assert_eq!((read.value, read.how, read.remaining), (None, How::Absent, None));
    assert!(world.keys().await.is_empty(), "what was true before is not stored");
    assert_eq!(reader.read("org_data", &UNKNOWN).await.1, How::Stored);
}

#[tokio::test]
async fn verify_knows_what_stands_for_nothing() {
    let world = world(QUERY).await;
    let _daemon = world.daemon().await;
    let reader = Reader::new(&world);
    assert_eq!(reader.read("org_data", &UNKNOWN).await, (None, How::Absent));
    let verify = async || {
        let mut command = world.command("verify");
        command.args(["--all", "--cache-type", "org_data", "--json"]).output().await.unwrap()
    };
    let output = verify().await;
    assert!(output.status.success(), "{output:?}");
    // Beside the protocol: there is such an organization.
    let _: () = world.values().await.set("prs_cache:1:v1:org:data:1", "null").await.unwrap();
    let output = verify().await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}
