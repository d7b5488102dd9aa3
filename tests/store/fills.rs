//! Leases and fills on a real Redis: a value is stored only if nothing was applied to its
//! key between the lease and the store.

use std::time::Duration;

use redis::AsyncCommands;
use unstale::config::model;
use unstale::lsn::Lsn;
use unstale::sandbox::{Proxy, Redis};
use unstale::store::fills::{Acquired, Due, Entry, Filled, Fills, Lease};
use unstale::store::keys::ControlKeys;
use unstale::store::purge::{Shut, purge};
use unstale::store::session::{Address, Outcome, Session, Step};
use unstale::store::state::{Identity, Nonce, Nonces, State, closed};

const LIFE: Duration = Duration::from_secs(60);

/// How long an old value of a refreshed key may stay.
const STAYS: Duration = Duration::from_secs(20);
const STAYS_MS: i64 = 20_000;

struct World {
    redis: Redis,
    address: Address,
    session: Session,
    nonces: Nonces,
    last: Nonce,
    fills: Fills,
}

fn address(redis: &Redis) -> Address {
    address_of(&redis.url_db(1))
}

fn address_of(url: &str) -> Address {
    let config: model::Redis =
        serde_json::from_value(serde_json::json!({ "url": url, "timeout": "2s" })).unwrap();
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
        self.whole_step(keys, &[], fields).await
    }

    /// A change of keys whose values may stay that long.
    async fn change(&mut self, refreshed: &[(&str, Duration)]) -> Vec<i64> {
        self.whole_step(&[], refreshed, &[]).await
    }

    async fn whole_step(
        &mut self,
        keys: &[&str],
        refreshed: &[(&str, Duration)],
        fields: &[(&'static str, String)],
    ) -> Vec<i64> {
        let nonce = self.nonces.fresh();
        let expected = &self.last;
        let step = Step { expected, nonce: &nonce, keys, refreshed, fields, certify: None };
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

    async fn refresh(&self, key: &str) -> Due {
        self.fills.refresh(&entry(key), LIFE, STAYS).await.expect("an answer")
    }

    async fn due_lease(&self, key: &str) -> Lease {
        match self.refresh(key).await {
            Due::Lease(lease) => lease,
            other => panic!("expected a lease, got {other:?}"),
        }
    }

    /// Stores a value as anybody does.
    async fn store(&self, key: &str) {
        let lease = self.lease(&entry(key)).await;
        assert_eq!(lease.fill(b"old", LIFE).await.unwrap(), Filled::Stored);
    }

    /// Redis' clock, in ms.
    async fn now(&self) -> i64 {
        let mut connection = self.redis.connection_db(1).await.expect("Redis answers");
        let (seconds, micros): (i64, i64) =
            redis::cmd("TIME").query_async(&mut connection).await.expect("TIME");
        seconds * 1000 + micros / 1000
    }

    /// When a value goes, by Redis' clock.
    async fn goes(&self, key: &str) -> i64 {
        let mut connection = self.redis.connection_db(1).await.expect("Redis answers");
        redis::cmd("PEXPIRETIME").arg(key).query_async(&mut connection).await.expect("PEXPIRETIME")
    }

    /// When what is computed for a key goes once it is stored.
    async fn lease_due(&self, key: &str) -> Option<i64> {
        let lease = self.value(&format!("unstale:unstale:lease:{{{key}}}")).await?;
        lease.split_once(' ').map(|(_, due)| due.parse().expect("a time"))
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
    purge(&world.session, &[b"p:"], Shut::Caches).await.unwrap();
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

#[tokio::test]
async fn a_value_that_is_refreshed_stays_until_its_first_changes_due_and_no_longer() {
    let mut world = World::new().await;
    world.store("p:1").await;
    let before = world.now().await;
    let lives = world.change(&[("p:1", STAYS)]).await;
    let after = world.now().await;
    assert!(lives[0] > STAYS_MS && lives[0] <= 60_000, "its life before is told: {lives:?}");
    assert_eq!(world.value("p:1").await.as_deref(), Some("old"));
    let due = world.goes("p:1").await;
    assert!((before + STAYS_MS..=after + STAYS_MS).contains(&due), "{before} {due} {after}");
    tokio::time::sleep(Duration::from_millis(2)).await;
    let lives = world.change(&[("p:1", STAYS)]).await;
    assert!(lives[0] <= STAYS_MS, "{lives:?}");
    assert_eq!(world.goes("p:1").await, due, "a later change does not move it");
    // A due shortens a life and never lengthens one; one without end gets an end.
    let mut connection = world.redis.connection_db(1).await.unwrap();
    let _: () = connection.set_ex("p:2", "old", 5).await.unwrap();
    let _: () = connection.set("p:3", "old").await.unwrap();
    let ends = world.goes("p:2").await;
    let lives = world.change(&[("p:2", STAYS), ("p:3", STAYS)]).await;
    assert_eq!((world.goes("p:2").await, lives[1]), (ends, -1));
    assert!(world.goes("p:3").await <= world.now().await + STAYS_MS);
}

#[tokio::test]
async fn a_step_that_is_done_again_does_not_put_a_due_off() {
    let mut world = World::new().await;
    world.store("p:1").await;
    let lease = {
        world.change(&[("p:1", STAYS)]).await;
        world.due_lease("p:1").await
    };
    let (expected, nonce) = (world.last.clone(), world.nonces.fresh());
    let step = Step {
        expected: &expected,
        nonce: &nonce,
        keys: &[],
        refreshed: &[("p:1", STAYS)],
        fields: &[],
        certify: None,
    };
    assert!(matches!(world.session.step(&step).await.unwrap(), Outcome::Done(_)));
    let (due, leased) = (world.goes("p:1").await, world.lease_due("p:1").await);
    assert!(leased.is_some());
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert!(matches!(world.session.step(&step).await.unwrap(), Outcome::Done(_)));
    assert_eq!((world.goes("p:1").await, world.lease_due("p:1").await), (due, leased));
    drop(lease);
}

#[tokio::test]
async fn a_change_while_a_value_is_computed_is_the_due_of_what_is_stored() {
    let mut world = World::new().await;
    world.store("p:1").await;
    world.change(&[("p:1", STAYS)]).await;
    let of_the_first = world.goes("p:1").await;
    tokio::time::sleep(Duration::from_millis(2)).await;
    let lease = world.due_lease("p:1").await;
    world.change(&[("p:1", STAYS)]).await;
    let of_the_second = world.lease_due("p:1").await.expect("a due");
    assert!(of_the_second > of_the_first);
    tokio::time::sleep(Duration::from_millis(2)).await;
    world.change(&[("p:1", STAYS)]).await;
    assert_eq!(world.lease_due("p:1").await, Some(of_the_second), "the first one it lacks");
    assert_eq!(lease.fill(b"new", LIFE).await.unwrap(), Filled::Stored, "it has the first");
    assert_eq!(world.value("p:1").await.as_deref(), Some("new"));
    let goes = world.goes("p:1").await;
    assert!(goes <= of_the_second && goes > of_the_second - 1000, "{goes} {of_the_second}");
    // Nothing came in between: a whole life, and nothing to refresh.
    let lease = world.due_lease("p:1").await;
    assert_eq!(lease.fill(b"newer", LIFE).await.unwrap(), Filled::Stored);
    assert!(world.goes("p:1").await > world.now().await + STAYS_MS);
    assert!(matches!(world.refresh("p:1").await, Due::Fresh));
}

#[tokio::test]
async fn a_value_that_comes_past_its_due_is_not_stored() {
    let mut world = World::new().await;
    let lease = world.lease(&entry("p:1")).await;
    let lives = world.change(&[("p:1", Duration::from_millis(30)), ("p:2", STAYS)]).await;
    assert_eq!(lives, [-3, -2], "one is computed, of the other there is nothing at all");
    let due = world.lease_due("p:1").await.expect("a due");
    while world.now().await < due {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(lease.fill(b"old", LIFE).await.unwrap(), Filled::Voided);
    assert_eq!(world.value("p:1").await, None);
    world.lease(&entry("p:1")).await;
    assert_eq!(world.value("p:2").await, None);
    assert_eq!(world.value("unstale:unstale:lease:{p:2}").await, None);
}

#[tokio::test]
async fn one_refreshes_while_the_others_read_the_old_value() {
    let mut world = World::new().await;
    world.store("p:1").await;
    world.change(&[("p:1", STAYS)]).await;
    let lease = world.due_lease("p:1").await;
    assert!(matches!(world.refresh("p:1").await, Due::Wait));
    assert!(
        matches!(world.acquire(&entry("p:1")).await, Acquired::Hit { value, .. } if value == b"old")
    );
    world.change(&[("p:1", STAYS)]).await;
    lease.release().await.unwrap();
    let next = world.due_lease("p:1").await;
    // Whoever outlives the old value has its readers wait.
    let mut connection = world.redis.connection_db(1).await.unwrap();
    let _: () = connection.del("p:1").await.unwrap();
    assert!(matches!(world.acquire(&entry("p:1")).await, Acquired::Wait { .. }));
    assert_eq!(next.fill(b"new", LIFE).await.unwrap(), Filled::Stored);
}

#[tokio::test]
async fn what_is_refreshed_goes_with_everything_else() {
    let mut world = World::new().await;
    for key in ["p:1", "p:2", "p:3"] {
        world.store(key).await;
    }
    world.change(&[("p:1", STAYS), ("p:2", STAYS), ("p:3", STAYS)]).await;
    let (first, second) = (world.due_lease("p:1").await, world.due_lease("p:2").await);
    world.change(&[("p:1", STAYS), ("p:2", STAYS)]).await;
    // By key: as if it were the key of another cache.
    world.step(&["p:1"], &[]).await;
    assert_eq!(world.value("p:1").await, None);
    assert_eq!(first.fill(b"old", LIFE).await.unwrap(), Filled::Voided);
    // As a whole.
    world.step(&[], &[closed(&["org_data"])]).await;
    assert!(matches!(world.refresh("p:3").await, Due::Closed));
    assert_eq!(purge(&world.session, &[b"p:"], Shut::Caches).await.unwrap(), 2);
    world.step(&[], &[closed(&[])]).await;
    assert_eq!(second.fill(b"old", LIFE).await.unwrap(), Filled::Voided);
    assert_eq!((world.value("p:2").await, world.value("p:3").await), (None, None));
}

#[tokio::test]
async fn a_lease_whose_holder_never_heard_of_it_is_given_back_at_once() {
    let world = World::new().await;
    let proxy = Proxy::start(world.redis.address()).await.expect("a proxy");
    let through = address_of(&world.redis.url_through(&proxy, 1));
    let fills = Fills::new(through, ControlKeys::new("unstale"));
    // Connected, and the scripts are known: what is lost next is the answer alone.
    let Ok(Acquired::Lease(lease)) = fills.acquire(&entry("p:other"), LIFE).await else {
        panic!("a lease");
    };
    assert_eq!(lease.fill(b"1", LIFE).await.unwrap(), Filled::Stored);
    let Ok(Acquired::Lease(held)) = fills.acquire(&entry("p:filled"), LIFE).await else {
        panic!("a lease");
    };

    proxy.lose_answers();
    assert!(fills.acquire(&entry("p:k"), LIFE).await.is_err());
    assert!(held.fill(b"1", LIFE).await.is_err());
    proxy.cut();
    proxy.resume().await;
    let Acquired::Wait { .. } = world.acquire(&entry("p:k")).await else { panic!("nobody's") };

    for _ in 0..2 {
        // The first may still go by the connection that was cut.
        _ = fills.acquire(&entry("p:other"), LIFE).await;
    }
    let Acquired::Lease(_) = world.acquire(&entry("p:k")).await else { panic!("not given back") };
    let Acquired::Hit { .. } = world.acquire(&entry("p:filled")).await else {
        panic!("it was stored, though nobody heard of it");
    };
}
