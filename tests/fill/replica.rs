//! Loads from a standby (rule 5): read when it has replayed what the lease asks for, waited
//! for a little, and passed over otherwise, whatever is wrong with it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::support::{World, until};
use unstale::config::Override;
use unstale::fill::filler::{Filler, How};
use unstale::loader::load::{Bounds, Loader};
use unstale::loader::replica::Replica;
use unstale::loader::standby::Needed;
use unstale::lsn::Lsn;
use unstale::mapping::Mapping;
use unstale::metrics::Metrics;
use unstale::rules::Rules;
use unstale::sandbox::{Postgres, Redis};
use unstale::servers::{connect_options, replica_options};
use unstale::store::fills::Fills;
use unstale::store::keys::ControlKeys;
use unstale::store::session::Address;

/// A value says which kind of server gave it.
const RULES: &str = r#"
    [redis]
    key_prefix = "replica:"
    [caches.item]
    key = "item:{id}"
    query = "select jsonb_build_object('name', name, 'port', inet_server_port()) from item where id = $id::int"
    ttl = "1h"
    rewarm = "if_cached"
    [caches.slow]
    key = "slow:{id}"
    query = """
        select jsonb_build_object('name', name, 'port', inet_server_port())
          from item, (select case when pg_is_in_recovery() then pg_sleep(60)::text end offset 0) s
         where id = $id::int"""
    ttl = "1h"
    [caches.nap]
    key = "nap:{id}"
    query = """
        select jsonb_build_object('name', name, 'port', inet_server_port())
          from item, (select case when pg_is_in_recovery() then pg_sleep(3)::text end offset 0) s
         where id = $id::int"""
    ttl = "1h"
    [caches.today]
    key = "today:{id}"
    query = "select jsonb_build_object('name', name, 'day', (now() at time zone $timezone)::date, 'port', inet_server_port()) from item where id = $id::int"
    ttl = "1h"
    [[tables]]
    name = "item"
    invalidates = [
      { cache = "item", id = "id", columns = ["id", "name"] },
      { cache = "slow", id = "id", columns = ["id", "name"] },
      { cache = "nap", id = "id", columns = ["id", "name"] },
      { cache = "today", id = "id", columns = ["id", "name"] },
    ]
"#;

const SCHEMA: &str = "
    create role reader login replication;
    create table item (id int primary key, name text not null, note text);
    grant select on item to reader;
    alter table item replica identity full;
    insert into item select i, 'old ' || i from generate_series(1, 100) i;
    create publication unstale for table item;
";

/// A primary, its standby, which is the replica, and a Redis.
async fn world(wait: &str) -> (World, Postgres) {
    let postgres = Postgres::start().await.unwrap();
    postgres.execute(SCHEMA).await.unwrap();
    let standby = postgres.standby().start().await.unwrap();
    let mut world = World::bare(postgres, Redis::start().await.unwrap(), "none".as_ref());
    world.configure(RULES);
    world.set(&format!("postgres.replica_wait={wait}"));
    world.set(&format!("postgres.replica_url={}", standby.url_for("reader", "postgres")));
    (world, standby)
}

/// As an application that has this library: a filler, and a loader without a cache before it;
/// both read the same replica.
struct Reader {
    mapping: Arc<Mapping>,
    metrics: Metrics,
    filler: Arc<Filler>,
    loader: Loader,
    system_id: String,
    /// The primary's: a value says which server gave it.
    port: u16,
}

impl Reader {
    /// Nobody waits for the replica to be reached, so this does.
    async fn new(world: &World) -> Reader {
        Reader::with_connections(world, 4).await
    }

    /// The same with so many connections to the replica.
    async fn with_connections(world: &World, connections: usize) -> Reader {
        let reader = Reader::build(world, connections).await;
        until("the replica to be read", async || reader.load("item", None).await.then_some(()))
            .await;
        reader
    }

    async fn unreached(world: &World) -> Reader {
        Reader::build(world, 4).await
    }

    async fn build(world: &World, connections: usize) -> Reader {
        let overrides: Vec<Override> = world.settings.iter().map(|s| s.parse().unwrap()).collect();
        let loaded = unstale::config::load(Some(&world.config), &overrides).unwrap();
        let config = &loaded.config;
        let rules = Rules::compile(&loaded).unwrap();
        let metrics = Metrics::new().unwrap();
        let options = replica_options(config).unwrap().expect("a replica");
        let bounds = Bounds::of_replica(connections, &config.postgres);
        let replica = Replica::new(options, bounds, &metrics);
        let loader = || {
            let (statement_timeout, wait) = (Duration::from_secs(20), Duration::from_secs(10));
            let bounds = Bounds { connections: 4, statement_timeout, wait };
            let primary = connect_options(config).unwrap();
            Loader::new(&rules, primary, bounds).unwrap().with_replica(Some(replica.clone()))
        };
        let fills = Fills::new(Address::new(&config.redis).unwrap(), ControlKeys::new("unstale"));
        let mapping = Arc::clone(&rules.mapping);
        let prefix = &config.redis.key_prefix;
        let filler =
            Arc::new(Filler::new(fills, loader(), Arc::clone(&mapping), prefix, metrics.clone()));
        let system_id = world.query_one("select system_identifier from pg_control_system()").await;
        let port = world.postgres.port();
        Reader { mapping, metrics, filler, loader: loader(), system_id, port }
    }

    /// Whether the standby gave this value.
    fn is_the_standbys(&self, value: &serde_json::Value) -> bool {
        value["port"].as_u64().unwrap() != u64::from(self.port)
    }

    /// What the least lease asks for.
    fn needed(&self) -> Needed<'_> {
        Needed { frontier: Lsn(1), system_id: &self.system_id, timeline: 1, day_ends: None }
    }

    /// Loads an entry as under a lease, and says whether the standby gave it.
    async fn load(&self, cache: &str, needed: Option<Needed<'_>>) -> bool {
        let needed = needed.unwrap_or_else(|| self.needed());
        let loaded = self.loader.load_leased(cache, &[("id", "1")], &needed).await;
        let value: serde_json::Value =
            serde_json::from_slice(&loaded.expect("a load").expect("a value")).unwrap();
        self.is_the_standbys(&value)
    }

    /// Reads through the cache: the name, whether the standby gave it, how it came.
    async fn read(&self, id: u32) -> (String, bool, How) {
        let cache = self.mapping.cache_by_name("item").unwrap().0;
        let read = self.filler.read(cache, &[("id", &id.to_string())]).await.expect("a value");
        let value: serde_json::Value =
            serde_json::from_slice(&read.value.expect("a value")).unwrap();
        let name = value["name"].as_str().unwrap().to_owned();
        (name, self.is_the_standbys(&value), read.how)
    }

    fn count(&self, outcome: &str) -> u64 {
        self.metrics.replica_reads.with_label_values(&[outcome]).get()
    }
}

/// The standby stops, and has replayed all that has been applied until now.
async fn pause_replay(world: &World, standby: &Postgres) {
    let frontier = world.state("frontier").await.expect("a daemon");
    let client = standby.client().await.unwrap();
    let sql = format!("select pg_last_wal_replay_lsn() >= '{frontier}'");
    until("the standby to have replayed the frontier", async || {
        client.query_one(&sql, &[]).await.unwrap().get::<_, bool>(0).then_some(())
    })
    .await;
    standby.execute("select pg_wal_replay_pause()").await.unwrap();
    until("replay to be paused", async || {
        let state = client.query_one("select pg_get_wal_replay_pause_state()", &[]).await.unwrap();
        (state.get::<_, &str>(0) == "paused").then_some(())
    })
    .await;
}

async fn resume_replay(standby: &Postgres) {
    standby.execute("select pg_wal_replay_resume()").await.unwrap();
}

async fn rename(world: &World, id: u32) {
    let sql = format!("update item set name = 'new {id}' where id = {id}");
    world.postgres.execute(&sql).await.unwrap();
    world.settle().await;
}

fn of(name: &str, standby: bool) -> (String, bool, How) {
    (name.to_owned(), standby, How::Stored)
}

#[tokio::test]
async fn what_the_standby_has_replayed_is_read_there_and_stored() {
    let (world, _standby) = world("10s").await;
    let daemon = world.daemon().await;
    let reader = Reader::new(&world).await;
    assert_eq!(reader.read(1).await, of("old 1", true));
    for id in 1..4 {
        rename(&world, id).await;
        assert_eq!(reader.read(id).await, of(&format!("new {id}"), true), "{}", daemon.log());
        assert_eq!(reader.read(id).await.2, How::Hit);
    }
    let (count, all) = (reader.count("replica"), reader.metrics.text().unwrap());
    assert!(count > 4 && all.contains("unstale_replica_reads_total{outcome=\"replica\"}"), "{all}");
    assert_eq!(daemon.gaps().await.len(), 1, "the first start");
}

#[tokio::test]
async fn the_daemon_fills_again_from_the_standby_what_a_change_removed() {
    let (mut world, standby) = world("10s").await;
    world.set("warm.enabled=true");
    let daemon = world.daemon().await;
    let reader = Reader::new(&world).await;
    let mut ids = (1..=100).cycle();
    until("the daemon to read the standby", async || {
        let id = ids.next().unwrap();
        reader.read(id).await;
        rename(&world, id).await;
        let read = daemon.metric("unstale_replica_reads_total{outcome=\"replica\"}").await;
        (read > 0.0).then_some(())
    })
    .await;
    assert!(!daemon.log().contains(&standby.url_for("reader", "postgres")), "never logged");
}

#[tokio::test]
async fn a_standby_that_lags_is_waited_for() {
    let (world, standby) = world("10s").await;
    let _daemon = world.daemon().await;
    let reader = Reader::new(&world).await;
    pause_replay(&world, &standby).await;
    rename(&world, 1).await;
    let (read, ()) = tokio::join!(reader.read(1), async {
        // It asks the standby over and over.
        let client = standby.client().await.unwrap();
        let sql = "select count(*) from pg_stat_activity where usename = 'reader' \
                   and query like '%pg_last_wal_replay_lsn%' and query_start > now() - interval '1s'";
        until("a load to wait", async || {
            let row = client.query_one(sql, &[]).await.unwrap();
            (row.get::<_, i64>(0) > 0).then_some(())
        })
        .await;
        resume_replay(&standby).await;
    });
    assert_eq!(read, of("new 1", true));
    assert_eq!(reader.count("behind"), 0);
}

#[tokio::test]
async fn a_standby_that_lacks_what_was_applied_never_gives_what_is_stored() {
    let (world, standby) = world("50ms").await;
    let daemon = world.daemon().await;
    let reader = Reader::new(&world).await;
    pause_replay(&world, &standby).await;
    rename(&world, 1).await;
    assert_eq!(reader.read(1).await, of("new 1", false));
    assert_eq!(reader.count("behind"), 1);
    // Not even what has not changed: nobody can tell that it has not.
    assert_eq!(reader.read(2).await, of("old 2", false));
    assert_eq!(reader.count("behind"), 2);

    resume_replay(&standby).await;
    until("the standby to be read again", async || reader.load("item", None).await.then_some(()))
        .await;
    pause_replay(&world, &standby).await;
    // A transaction that reaches no key counts as well: another may have been looked up in
    // what it changed.
    let frontier = world.state("frontier").await;
    world.postgres.execute("update item set note = 'x' where id = 3").await.unwrap();
    world.settle().await;
    assert_ne!(world.state("frontier").await, frontier);
    assert_eq!(reader.read(4).await, of("old 4", false));
    assert_eq!(reader.count("behind"), 3);
    assert_eq!(daemon.gaps().await.len(), 1, "the first start: {}", daemon.log());
}

#[tokio::test]
async fn a_standby_that_lacks_what_no_stream_tells_of_is_not_read_either() {
    let (world, standby) = world("50ms").await;
    let daemon = world.daemon().await;
    let reader = Reader::new(&world).await;
    pause_replay(&world, &standby).await;
    // Every row has changed, and the stream has an empty transaction.
    let rewrite = "alter table item alter name type text using name || '!'";
    world.postgres.execute(rewrite).await.unwrap();
    let drops = "unstale_escalations_total{cache=\"item\",reason=\"rewritten\"}";
    daemon.until_metric(drops, 1.0).await;
    world.settle().await;
    assert_eq!(reader.read(1).await, of("old 1!", false));
    assert_eq!(reader.count("behind"), 1);
}

#[tokio::test]
async fn after_a_gap_a_standby_that_is_behind_the_slot_is_not_read() {
    let (world, standby) = world("50ms").await;
    let daemon = world.daemon().await;
    let reader = Reader::new(&world).await;
    pause_replay(&world, &standby).await;
    daemon.kill9().await;
    // Committed while there is no slot: never streamed.
    let drop = "select pg_drop_replication_slot('unstale')";
    until("the slot to be free", async || world.postgres.execute(drop).await.ok()).await;
    world.postgres.execute("update item set name = 'unseen' where id = 1").await.unwrap();
    let _daemon = world.daemon().await;
    assert_eq!(reader.read(1).await, of("unseen", false));
    assert_eq!(reader.count("behind"), 1);
}

/// The files are known as they are from then on: nobody will ask again where the rewrite was.
#[tokio::test]
async fn after_a_gap_a_standby_that_lacks_what_no_stream_tells_of_is_not_read_either() {
    let (world, standby) = world("50ms").await;
    let daemon = world.daemon().await;
    let reader = Reader::new(&world).await;
    pause_replay(&world, &standby).await;
    daemon.kill9().await;
    let rewrite = "alter table item alter name type text using name || '!'";
    world.postgres.execute(rewrite).await.unwrap();
    let mut values = world.values().await;
    let _: () = redis::AsyncCommands::del(&mut values, "unstale:unstale:state").await.unwrap();
    let daemon = world.daemon().await;
    daemon.assert_gaps(&["no_state"]).await;
    assert_eq!(reader.read(1).await, of("old 1!", false), "{}", daemon.log());
    assert_eq!(reader.count("behind"), 1);
}

#[tokio::test]
async fn who_asks_after_a_change_was_applied_shares_no_load_of_a_lease_before_it() {
    let (mut world, standby) = world("50ms").await;
    world.set("redis.timeout=30s");
    let _daemon = world.daemon().await;
    let proxy = world.redis_proxy().await;
    let reader = Reader::new(&world).await;
    // So that the connection through the proxy is there.
    reader.read(50).await;
    pause_replay(&world, &standby).await;
    proxy.delay(Duration::from_millis(700));
    let mut values = world.values().await;
    let lease = "unstale:unstale:lease:{replica:item:1}";
    let mut is_leased = async || -> bool {
        redis::AsyncCommands::exists(&mut values, lease).await.expect("EXISTS")
    };
    let (first, second) = tokio::join!(reader.read(1), async {
        // The lease is given, and its answer on the way, when the change is applied.
        until("the lease", async || is_leased().await.then_some(())).await;
        let sql = "update item set name = 'new 1' where id = 1";
        world.postgres.execute(sql).await.unwrap();
        until("the change to be applied", async || (!is_leased().await).then_some(())).await;
        reader.read(1).await
    });
    // The first asked before: he gets what his lease allows. It is not stored.
    assert_eq!(first, ("old 1".to_owned(), true, How::Voided));
    assert_eq!(second, of("new 1", false));
}

#[tokio::test]
async fn who_has_no_lease_reads_the_primary() {
    let (world, _standby) = world("10s").await;
    let reader = Reader::new(&world).await;
    let before = reader.count("replica");
    // No daemon, no state: no lease is given.
    assert_eq!(reader.read(1).await, ("old 1".to_owned(), false, How::Unleased));
    world.redis.stop().await.unwrap();
    assert_eq!(reader.read(1).await, ("old 1".to_owned(), false, How::Unstored));
    let unknown = Needed { frontier: Lsn::ZERO, ..reader.needed() };
    assert!(!reader.load("item", Some(unknown)).await);
    assert_eq!(reader.count("replica"), before);
}

#[tokio::test]
async fn a_standby_that_is_killed_or_frozen_costs_no_error_and_is_read_again_when_it_is_back() {
    let (world, standby) = world("50ms").await;
    let reader = Reader::new(&world).await;
    standby.kill9().await.unwrap();
    assert!(!reader.load("item", None).await);
    // Left alone: no load finds out anew.
    for _ in 0..20 {
        assert!(!reader.load("item", None).await);
    }
    standby.start_again().await.unwrap();
    until("the standby to be read again", async || reader.load("item", None).await.then_some(()))
        .await;
    assert!(reader.count("unavailable") > 20);

    standby.pause().await;
    assert!(!reader.load("item", None).await);
    standby.resume();
    until("the standby to be read again", async || reader.load("item", None).await.then_some(()))
        .await;
}

#[tokio::test]
async fn a_standby_that_freezes_during_a_long_load_is_found_out() {
    let (world, standby) = world("50ms").await;
    let reader = Reader::new(&world).await;
    let client = standby.client().await.unwrap();
    let before = reader.count("unavailable");
    let (given, ()) = tokio::join!(reader.load("slow", None), async {
        until_slow(&client).await;
        standby.pause().await;
    });
    assert!(!given);
    assert_eq!(reader.count("unavailable"), before + 1);
    standby.resume();
}

async fn until_slow(client: &tokio_postgres::Client) {
    let sql = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
    until("the slow load to be under way", async || {
        let row = client.query_one(sql, &[]).await.unwrap();
        (row.get::<_, i64>(0) > 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_replica_whose_connections_are_all_in_use_is_not_waited_for() {
    let (world, standby) = world("50ms").await;
    let reader = Reader::with_connections(&world, 1).await;
    let client = standby.client().await.unwrap();
    let (given, ()) = tokio::join!(reader.load("slow", None), async {
        until_slow(&client).await;
        assert!(!reader.load("item", None).await);
        assert_eq!(reader.count("busy"), 1);
        let cancel =
            "select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'PgSleep'";
        client.batch_execute(cancel).await.unwrap();
    });
    assert!(!given, "what was canceled there is loaded from the primary");
}

#[tokio::test]
async fn a_reader_who_goes_away_leaves_no_connection_on_which_others_would_wait_for_his_query() {
    let (world, standby) = world("50ms").await;
    let reader = Reader::with_connections(&world, 1).await;
    let client = standby.client().await.unwrap();
    tokio::select! {
        _ = reader.load("slow", None) => panic!("it takes a minute"),
        () = until_slow(&client) => {}
    }
    let before = reader.count("unavailable");
    assert!(reader.load("item", None).await);
    assert_eq!(reader.count("unavailable"), before);
}

#[tokio::test]
async fn a_load_that_stands_in_the_way_of_replay_is_loaded_from_the_primary() {
    let (world, standby) = world("50ms").await;
    standby.set("max_standby_streaming_delay", "0").await.unwrap();
    let reader = Reader::new(&world).await;
    let client = standby.client().await.unwrap();
    let (given, ()) = tokio::join!(reader.load("slow", None), async {
        until_slow(&client).await;
        let sql =
            "begin; lock table item in access exclusive mode; select pg_current_xact_id(); commit";
        world.postgres.execute(sql).await.unwrap();
    });
    assert!(!given);
    assert_eq!(reader.count("conflict"), 1, "{}", standby.log_tail());
    assert!(reader.load("item", None).await, "one conflict is no reason to leave it alone");
}

#[tokio::test]
async fn another_history_or_another_day_is_never_read() {
    let (world, _standby) = world("50ms").await;
    let reader = Reader::new(&world).await;
    let other_day = Some(SystemTime::UNIX_EPOCH);
    let far = Lsn(u64::MAX);
    for (needed, outcome) in [
        (Needed { system_id: "1", ..reader.needed() }, "mismatch"),
        (Needed { timeline: 2, ..reader.needed() }, "mismatch"),
        (Needed { day_ends: other_day, ..reader.needed() }, "mismatch"),
        (Needed { frontier: far, ..reader.needed() }, "behind"),
    ] {
        until("the standby to be read", async || reader.load("item", None).await.then_some(()))
            .await;
        let before = reader.count(outcome);
        assert!(!reader.load("today", Some(needed)).await, "{needed:?}");
        assert_eq!(reader.count(outcome), before + 1, "{needed:?}");
    }
}

#[tokio::test]
async fn after_a_promotion_only_a_standby_of_the_new_timeline_is_read() {
    let (world, standby) = world("50ms").await;
    let other = world.postgres.standby().application_name("other").start().await.unwrap();
    let reader = Reader::new(&world).await;
    let old = reader.needed();
    let new = Needed { timeline: 2, ..old };

    // Another standby is promoted, and the cache is filled from it. The replica still has the old
    // primary's timeline, and is past any position of the new one; but it has no more of the old
    // one than the new one has, or it could never go over.
    let client = standby.client().await.unwrap();
    standby.set("primary_conninfo", "").await.unwrap();
    until("the replica to be cut off", async || {
        let sql = "select count(*) from pg_stat_wal_receiver";
        (client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 0).then_some(())
    })
    .await;
    let row = client.query_one("select pg_last_wal_receive_lsn()::text", &[]).await.unwrap();
    let reached = format!("select pg_last_wal_replay_lsn() >= '{}'", row.get::<_, String>(0));
    let others = other.client().await.unwrap();
    until("the other standby to be as far", async || {
        others.query_one(&reached, &[]).await.unwrap().get::<_, bool>(0).then_some(())
    })
    .await;
    world.postgres.execute("update item set note = 'on the old timeline'").await.unwrap();
    other.promote().await.unwrap();
    assert!(!reader.load("item", Some(new)).await);
    assert_eq!(reader.count("mismatch"), 1);

    // It goes over. What its control file says is still the old timeline.
    let at = format!("host={} port={} user=postgres", other.host(), other.port());
    standby.set("primary_conninfo", &at).await.unwrap();
    until("the standby of the new primary to be read", async || {
        other.execute("select pg_switch_wal(), txid_current()").await.unwrap();
        reader.load("item", Some(new)).await.then_some(())
    })
    .await;
    let row = client.query_one("select timeline_id from pg_control_checkpoint()", &[]).await;
    assert_eq!(row.unwrap().get::<_, i32>(0), 1, "too late to go by");
    // A lease that is still of the old timeline asks for what the new one may lack.
    let before = reader.count("mismatch");
    assert!(!reader.load("item", Some(old)).await);
    assert_eq!(reader.count("mismatch"), before + 1);
}

#[tokio::test]
async fn a_standby_that_was_promoted_itself_is_not_read() {
    let (world, standby) = world("50ms").await;
    let reader = Reader::new(&world).await;
    standby.promote().await.unwrap();
    standby.execute("update item set name = 'of another world'").await.unwrap();
    assert!(!reader.load("item", None).await);
    assert_eq!(reader.count("mismatch"), 1);
    assert!(!reader.load("item", None).await);
}

#[tokio::test]
async fn a_standby_that_is_promoted_during_a_load_gives_nothing() {
    let (world, standby) = world("50ms").await;
    let reader = Reader::new(&world).await;
    let client = standby.client().await.unwrap();
    let (given, ()) = tokio::join!(reader.load("nap", None), async {
        until_slow(&client).await;
        standby.promote().await.unwrap();
    });
    assert!(!given);
    assert_eq!(reader.count("mismatch"), 1);
}

#[tokio::test]
async fn a_replica_that_does_not_tell_its_timeline_is_not_read_and_the_log_says_so_once() {
    let (mut world, standby) = world("50ms").await;
    let plain = "create role plain login; grant select on item to plain";
    world.postgres.execute(plain).await.unwrap();
    world.set(&format!("postgres.replica_url={}", standby.url_for("plain", "postgres")));
    world.set("warm.enabled=true");
    let daemon = world.daemon().await;
    let reader = Reader::unreached(&world).await;
    let unavailable = "unstale_replica_reads_total{outcome=\"unavailable\"}";
    let mut ids = (1..=100).cycle();
    until("the daemon to have tried some times", async || {
        let id = ids.next().unwrap();
        reader.read(id).await;
        rename(&world, id).await;
        let tries = daemon.log().matches("the replica still cannot be read").count();
        (tries > 0 && daemon.metric(unavailable).await > 2.0).then_some(())
    })
    .await;
    let log = daemon.log();
    assert_eq!(log.matches("the replica cannot be read").count(), 1, "{log}");
    assert!(log.contains("REPLICATION"), "{log}");
    assert_eq!(reader.count("replica"), 0);
}
