//! Leases and fills on a real Redis: a value is stored only if nothing was applied to its
//! key between the lease and the store.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use redis::AsyncCommands;
use unstale::config::model;
use unstale::lsn::Lsn;
use unstale::sandbox::Redis;
use unstale::store::fills::{Acquired, Entry, Filled, Fills, Lease};
use unstale::store::keys::ControlKeys;
use unstale::store::purge::purge;
use unstale::store::session::{Address, Outcome, Session, Step};
use unstale::store::state::{Identity, Nonce, Nonces, State, closed};

const LIFE: Duration = Duration::from_secs(60);

struct World {
    redis: Redis,
    address: Address,
    session: Session,
    nonces: Nonces,
    last: Nonce,
    fills: Fills,
}

fn address(redis: &Redis) -> Address {
    let config: model::Redis =
        serde_json::from_value(serde_json::json!({ "url": redis.url_db(1), "timeout": "2s" }))
            .unwrap();
    Address::new(&config).expect("an address")
}

fn state() -> State {
    State {
        valid: true,
        nonce: Nonce::found(String::new()),
        watermark: Lsn(10),
        frontier: Lsn(12),
        identity: Identity {
            system_id: "7".to_owned(),
            timeline: 3,
            incarnation: "i".to_owned(),
            publication: "p".to_owned(),
            mapping: "m".to_owned(),
        },
        prefixes: vec!["p:".to_owned()],
        closed: vec![],
        files: "{}".to_owned(),
        suspects: "[]".to_owned(),
    }
}

impl World {
    async fn new() -> World {
        World::on(Redis::start().await.expect("Redis starts")).await
    }

    async fn on(redis: Redis) -> World {
        let address = address(&redis);
        let keys = ControlKeys::new("unstale");
        let mut session = Session::open(&address, keys.clone()).await.expect("a session");
        let mut nonces = Nonces::new().expect("nonces");
        let mut first = state();
        first.valid = false;
        first.nonce = nonces.fresh();
        session.declare_invalid(&first).await.expect("declared");
        let fills = Fills::new(address.clone(), keys);
        let mut world = World { redis, address, session, nonces, last: first.nonce, fills };
        world.step(&[], &state().fields()).await;
        world
    }

    async fn step(&mut self, keys: &[&str], fields: &[(&'static str, String)]) -> Vec<i64> {
        let nonce = self.nonces.fresh();
        let step = Step { expected: &self.last, nonce: &nonce, keys, fields, certify: None };
        let outcome = self.session.step(&step).await.expect("a step");
        self.last = nonce.clone();
        match outcome {
            Outcome::Done(lives) => lives,
            Outcome::Broken(found) => panic!("broken: {found}"),
        }
    }

    async fn acquire(&self, entry: &Entry) -> Acquired {
        self.fills.acquire(entry, LIFE).await.expect("an answer")
    }

    async fn lease(&self, entry: &Entry) -> Lease {
        match self.acquire(entry).await {
            Acquired::Lease(lease) => lease,
            other => panic!("expected a lease, got {other:?}"),
        }
    }

    async fn value(&self, key: &str) -> Option<String> {
        self.redis.connection_db(1).await.expect("Redis answers").get(key).await.expect("GET")
    }
}

fn entry(key: &str) -> Entry {
    Entry { key: key.as_bytes().to_vec(), cache: "org_data".to_owned(), scope: None }
}

#[tokio::test]
async fn one_computes_the_others_wait_and_then_read() {
    let world = World::new().await;
    let lease = world.lease(&entry("p:1")).await;
    assert_eq!((lease.frontier, lease.system_id.as_str(), lease.timeline), (Lsn(12), "7", 3));
    assert!(
        matches!(world.acquire(&entry("p:1")).await, Acquired::Wait { at_most } if at_most <= LIFE)
    );
    assert_eq!(lease.fill(b"{}", LIFE).await.unwrap(), Filled::Stored);
    match world.acquire(&entry("p:1")).await {
        Acquired::Hit { value, remaining } => {
            assert_eq!(value, b"{}");
            assert!(remaining.unwrap() <= LIFE);
        }
        other => panic!("expected a hit, got {other:?}"),
    }
    let leases: Vec<String> = redis::cmd("KEYS")
        .arg("unstale:unstale:lease:*")
        .query_async(&mut world.redis.connection_db(1).await.unwrap())
        .await
        .unwrap();
    assert!(leases.is_empty(), "a fill ends its lease: {leases:?}");
}

#[tokio::test]
async fn a_change_applied_since_the_lease_voids_the_fill() {
    let mut world = World::new().await;
    let lease = world.lease(&entry("p:1")).await;
    assert_eq!(world.step(&["p:1"], &[]).await, [-2], "there was no value");
    assert_eq!(lease.fill(b"old", LIFE).await.unwrap(), Filled::Voided);
    assert_eq!(world.value("p:1").await, None);
    // Who asks after the change gets a lease of his own.
    let lease = world.lease(&entry("p:1")).await;
    assert_eq!(lease.fill(b"new", LIFE).await.unwrap(), Filled::Stored);
    let lives = world.step(&["p:1"], &[]).await;
    assert!(lives[0] > 0 && lives[0] <= 60_000, "the life that remained is told: {lives:?}");
}

#[tokio::test]
async fn a_lease_that_expired_or_was_given_back_stores_nothing() {
    let world = World::new().await;
    let Acquired::Lease(slow) =
        world.fills.acquire(&entry("p:1"), Duration::from_millis(1)).await.unwrap()
    else {
        panic!("expected a lease");
    };
    let next = loop {
        match world.acquire(&entry("p:1")).await {
            Acquired::Lease(lease) => break lease,
            Acquired::Wait { .. } => tokio::time::sleep(Duration::from_millis(1)).await,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(slow.fill(b"old", LIFE).await.unwrap(), Filled::Voided, "another has the lease now");
    next.release().await.unwrap();
    world.lease(&entry("p:1")).await;
    assert_eq!(world.value("p:1").await, None);
}

#[tokio::test]
async fn nothing_is_leased_or_stored_while_the_state_is_invalid() {
    let mut world = World::new().await;
    let lease = world.lease(&entry("p:1")).await;
    let mut invalid = state();
    invalid.valid = false;
    invalid.nonce = world.nonces.fresh();
    world.session.declare_invalid(&invalid).await.unwrap();
    world.last = invalid.nonce;
    assert!(matches!(world.acquire(&entry("p:2")).await, Acquired::Closed));
    assert_eq!(lease.fill(b"old", LIFE).await.unwrap(), Filled::Voided);
    assert_eq!(world.fills.generation(b"p:generation", LIFE).await.unwrap(), None);
    // And with no state at all, as after a flush.
    let _: () = redis::cmd("FLUSHALL").query_async(&mut world.session.connection()).await.unwrap();
    assert!(matches!(world.acquire(&entry("p:2")).await, Acquired::Closed));
}

#[tokio::test]
async fn a_cache_that_is_being_dropped_gives_no_lease_and_its_old_leases_are_void() {
    let mut world = World::new().await;
    let before = world.lease(&entry("p:1")).await;
    world.step(&[], &[closed(&["org_data"])]).await;
    assert!(matches!(world.acquire(&entry("p:2")).await, Acquired::Closed));
    let other = Entry { cache: "data".to_owned(), ..entry("q:1") };
    world.lease(&other).await;
    purge(&world.session, &[b"p:"]).await.unwrap();
    world.step(&[], &[closed(&[])]).await;
    assert_eq!(before.fill(b"old", LIFE).await.unwrap(), Filled::Voided);
    world.lease(&entry("p:1")).await;
}

#[tokio::test]
async fn dropping_a_scope_voids_what_was_computed_for_it() {
    let mut world = World::new().await;
    let generation = world.fills.generation(b"p:s:generation", LIFE).await.unwrap().unwrap();
    assert_eq!(
        world.fills.generation(b"p:s:generation", LIFE).await.unwrap().as_deref(),
        Some(&*generation)
    );
    let scoped = Entry {
        key: format!("p:s:{generation}:q").into_bytes(),
        cache: "api_search".to_owned(),
        scope: Some((b"p:s:generation".to_vec(), generation.clone())),
    };
    let lease = world.lease(&scoped).await;
    world.step(&["p:s:generation"], &[]).await;
    assert_eq!(lease.fill(b"old", LIFE).await.unwrap(), Filled::Voided);
    assert!(
        matches!(world.acquire(&scoped).await, Acquired::Closed),
        "of a generation that is gone"
    );
    let next = world.fills.generation(b"p:s:generation", LIFE).await.unwrap().unwrap();
    assert_ne!(next, generation);
}

#[tokio::test]
async fn a_lease_that_an_old_dump_brings_back_is_worth_nothing_to_its_holder() {
    let world = World::on(Redis::start().await.unwrap()).await;
    let lease = world.lease(&entry("p:1")).await;
    let dump = world.redis.save_dump().await.unwrap();
    world.redis.restore_dump(&dump).await.unwrap();
    assert!(lease.fill(b"old", LIFE).await.is_err(), "its connection is gone");
    assert_eq!(world.value("p:1").await, None);
    // Others connect anew; the dead holder's lease is in their way until it expires.
    let fills = Fills::new(world.address.clone(), ControlKeys::new("unstale"));
    assert!(matches!(fills.acquire(&entry("p:1"), LIFE).await.unwrap(), Acquired::Wait { .. }));
}

#[tokio::test]
async fn a_full_redis_refuses_fills_and_takes_invalidations() {
    let mut world = World::new().await;
    let lease = world.lease(&entry("p:1")).await;
    let mut connection = world.redis.connection_db(1).await.unwrap();
    let _: () = connection.set("p:2", "x").await.unwrap();
    for (name, value) in [("maxmemory-policy", "noeviction"), ("maxmemory", "1")] {
        let _: () = redis::cmd("CONFIG")
            .arg("SET")
            .arg(name)
            .arg(value)
            .query_async(&mut connection)
            .await
            .unwrap();
    }
    assert!(lease.fill(b"new", LIFE).await.is_err());
    let lives = world.step(&["p:1", "p:2"], &[]).await;
    assert_eq!(lives, [-2, -1]);
    assert_eq!(world.value("p:2").await, None);
}
