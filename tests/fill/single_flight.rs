//! Readers of one key in one process share what it costs, and nobody is handed what was
//! removed before he asked.

use std::sync::Arc;
use std::time::Duration;

use crate::support::reader::Reader;
use crate::support::{Daemon, World, until};
use redis::AsyncCommands;
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use unstale::fill::filler::{How, Read, ReadError};

/// Its snapshot is taken when it begins; it ends when nobody holds the advisory lock 7.
const GATED: &str = "select json_build_object('name', (select name from organization_organization
    where id = $org_id::bigint), 'gate', pg_advisory_xact_lock_shared(7)::text)";

const ONE: [(&str, &str); 1] = [("org_id", "1")];

/// The default mapping, with [`GATED`] for org_data.
async fn world() -> World {
    let mut world = World::new().await;
    let (query, gated) =
        ("{ file = \"../sql/caches/org_data.sql\" }", format!("\"\"\"{GATED}\"\"\""));
    world.reconfigure(|toml| toml.replace(query, &gated));
    world.publish_heartbeat().await;
    world.organizations(1).await;
    world
}

struct Gate(Client);

impl Gate {
    async fn closed(world: &World) -> Gate {
        let client = world.postgres.client().await.unwrap();
        client.batch_execute("select pg_advisory_lock(7)").await.unwrap();
        Gate(client)
    }

    async fn open(self) {
        self.0.batch_execute("select pg_advisory_unlock(7)").await.unwrap();
    }
}

const WAITING: &str = "select count(*)::text from pg_stat_activity where wait_event_type = 'Lock' and wait_event = 'advisory'";

async fn until_loading(world: &World) {
    until("a load at the gate", async || (world.query_one(WAITING).await == "1").then_some(()))
        .await;
}

fn reading(reader: &Arc<Reader>) -> JoinHandle<Result<Read, ReadError>> {
    let reader = Arc::clone(reader);
    tokio::spawn(async move { reader.filler.read(reader.cache("org_data"), &ONE).await })
}

/// A reader, and the daemon that lets it store.
async fn beside_a_daemon() -> (World, Daemon, Arc<Reader>) {
    let world = world().await;
    let daemon = world.daemon().await;
    let reader = Arc::new(Reader::new(&world));
    (world, daemon, reader)
}

/// Reads, and comes back once the load stands at the gate, which is closed.
async fn loading(
    world: &World,
    reader: &Arc<Reader>,
) -> (Gate, JoinHandle<Result<Read, ReadError>>) {
    let gate = Gate::closed(world).await;
    let reading = reading(reader);
    until_loading(world).await;
    (gate, reading)
}

/// Reads, and comes back once it is aboard what is under way.
async fn aboard(reader: &Arc<Reader>) -> JoinHandle<Result<Read, ReadError>> {
    let reading = reading(reader);
    // The runtime has one thread: whoever was spawned has come as far as he can.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert!(!reading.is_finished());
    reading
}

fn name(read: &Read) -> String {
    let value: serde_json::Value = serde_json::from_slice(read.value.as_ref().unwrap()).unwrap();
    value["name"].as_str().unwrap().to_owned()
}

async fn leases(world: &World) -> Vec<String> {
    let mut values = world.values().await;
    redis::cmd("KEYS").arg("unstale:unstale:lease:*").query_async(&mut values).await.unwrap()
}

#[tokio::test]
async fn a_thousand_readers_are_one_lease_and_one_load() {
    let (world, _daemon, reader) = beside_a_daemon().await;
    let (gate, first) = loading(&world, &reader).await;
    let mut others = Vec::new();
    for _ in 0..1000 {
        others.push(reading(&reader));
    }
    aboard(&reader).await.abort();
    gate.open().await;
    assert_eq!(first.await.unwrap().unwrap().how, How::Stored);
    for other in others {
        assert_eq!(other.await.unwrap().unwrap().how, How::Stored);
    }
    assert_eq!(reader.loads("org_data"), 1);
    assert_eq!(reader.fills("org_data", "stored"), 1);
    assert_eq!(reader.fills("org_data", "shared"), 1000);
    assert_eq!(reader.fills("org_data", "hit"), 0);
}

#[tokio::test]
async fn a_reader_who_goes_away_strands_nobody_and_leaves_no_lease() {
    let (world, _daemon, reader) = beside_a_daemon().await;
    let (gate, first) = loading(&world, &reader).await;
    let second = aboard(&reader).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    gate.open().await;
    assert_eq!(second.await.unwrap().unwrap().how, How::Stored);
    assert_eq!(reader.loads("org_data"), 1);

    // Also if nobody is left.
    world.rename(1).await;
    world.settle().await;
    let gate = Gate::closed(&world).await;
    let alone = reading(&reader);
    until_loading(&world).await;
    alone.abort();
    gate.open().await;
    until("the lease to go", async || leases(&world).await.is_empty().then_some(())).await;
    assert_eq!(reader.read("org_data", &ONE).await.1, How::Hit, "what was begun was of use");
}

#[tokio::test]
async fn nothing_is_computed_for_readers_who_have_gone() {
    let (world, _daemon, reader) = beside_a_daemon().await;
    // Somebody else has the lease, and will not be heard of.
    let mut values = world.values().await;
    let lease = "unstale:unstale:lease:{prs_cache:1:v1:org:data:1}";
    let _: () = values.pset_ex(lease, "another's", 30_000).await.unwrap();
    let waiting = aboard(&reader).await;
    until("the reader to wait", async || (reader.metrics.leases_waiting.get() == 1).then_some(()))
        .await;
    waiting.abort();
    // Longer than anybody waits for a lease: whoever was still there would load now.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(reader.loads("org_data"), 0);
    let _: () = values.del(lease).await.unwrap();
    assert_eq!(reader.read("org_data", &ONE).await.1, How::Stored);
}

#[tokio::test]
async fn who_asks_after_a_change_was_applied_is_not_handed_what_was_loaded_before_it() {
    let (world, _daemon, reader) = beside_a_daemon().await;
    let (gate, before) = loading(&world, &reader).await;
    world.rename(1).await;
    world.settle().await;
    let after = aboard(&reader).await;
    let later = aboard(&reader).await;
    gate.open().await;
    let before = before.await.unwrap().unwrap();
    assert_eq!((name(&before).as_str(), before.how), ("organization 1", How::Voided));
    for after in [after, later] {
        let after = after.await.unwrap().unwrap();
        assert_eq!((name(&after).as_str(), after.how), ("organization 1+", How::Stored));
    }
    assert_eq!(reader.loads("org_data"), 2, "those who came too late were flown together");
}

#[tokio::test]
async fn an_answer_on_its_way_is_not_for_who_asks_after_it_was_given() {
    let mut world = world().await;
    let _daemon = world.daemon().await;
    let client = world.postgres.client().await.unwrap();
    let mut values = world.values().await;
    let proxy = world.redis_proxy().await;
    world.set("redis.timeout=30s");
    let reader = Arc::new(Reader::new(&world));
    assert_eq!(reader.read("org_data", &ONE).await.1, How::Stored);

    let calls = async || {
        let info: String = redis::cmd("INFO")
            .arg("commandstats")
            .query_async(&mut world.values().await)
            .await
            .unwrap();
        let line = info.lines().find(|line| line.starts_with("cmdstat_get:")).unwrap().to_owned();
        line.split(['=', ',']).nth(1).unwrap().parse::<u64>().unwrap()
    };
    let calls_before = calls().await;
    proxy.delay(Duration::from_millis(700));
    let before = reading(&reader);
    until("Redis to have answered", async || (calls().await > calls_before).then_some(())).await;
    client.batch_execute(&World::renaming(1)).await.unwrap();
    world.settle_quickly(&client, &mut values).await;
    // On a slow machine the answer may have come by now; then this shows nothing, and holds.
    let after = reading(&reader);
    let before = before.await.unwrap().unwrap();
    assert_eq!((name(&before).as_str(), before.how), ("organization 1", How::Hit));
    assert_eq!(name(&after.await.unwrap().unwrap()), "organization 1+");
}

#[tokio::test]
async fn an_error_is_for_those_who_asked_before_the_load_began() {
    let (world, _daemon, reader) = beside_a_daemon().await;
    let (gate, first) = loading(&world, &reader).await;
    let second = aboard(&reader).await;
    let cancel = "select pg_cancel_backend(pid)::text from pg_stat_activity
                   where wait_event_type = 'Lock' and wait_event = 'advisory'";
    assert_eq!(world.query_one(cancel).await, "true");
    let failed = first.await.unwrap();
    assert!(matches!(failed, Err(ReadError::Load(_))), "{failed:?}");
    gate.open().await;
    assert_eq!(second.await.unwrap().unwrap().how, How::Stored);
    assert!(leases(&world).await.is_empty());
}

#[tokio::test]
async fn during_a_gap_readers_share_loads_too() {
    let world = world().await;
    let reader = Arc::new(Reader::new(&world));
    // No daemon has run: nothing is accepted.
    let (gate, first) = loading(&world, &reader).await;
    let mut others = Vec::new();
    for _ in 0..50 {
        others.push(aboard(&reader).await);
    }
    gate.open().await;
    assert_eq!(first.await.unwrap().unwrap().how, How::Unleased);
    for other in others {
        assert_eq!(other.await.unwrap().unwrap().how, How::Unleased);
    }
    assert_eq!(reader.loads("org_data"), 2, "one for the first, one for all who came during it");
}
