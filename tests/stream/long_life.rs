//! What only years bring: numbers that wrap, positions past their edges; and what only large
//! databases have.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use crate::support::items::{RULES, SCHEMA, touching};
use crate::support::{PATIENCE, World, lacks, until};
use unstale::lsn::Lsn;
use unstale::sandbox::{Postgres, Redis, Shutdown};

/// A world of the five items.
async fn of_items(postgres: Postgres) -> World {
    World::of(postgres, Redis::start().await.unwrap(), SCHEMA, RULES).await
}

async fn touch(world: &World, id: u32) {
    world.postgres.execute(&touching(id)).await.unwrap();
}

/// A server that is about to have spent all of its transaction ids, and 4 GiB of WAL. `None`:
/// this installation has no program to make one.
async fn aged() -> Option<Postgres> {
    let postgres = Postgres::builder()
        .setting("autovacuum", "off")
        .setting("logical_decoding_work_mem", "64kB");
    let postgres = postgres.start().await.unwrap();
    if lacks(&postgres, "pg_resetwal") {
        return None;
    }
    let reset = postgres.program("pg_resetwal");
    // What is frozen is visible whatever the ids are.
    postgres.execute("vacuum freeze").await.unwrap();
    postgres.stop(Shutdown::Fast).await.unwrap();
    let data = postgres.data_dir();
    let owner = std::fs::metadata(&data).unwrap();
    let status = data.join("pg_xact/0FFF");
    let zeros = format!("head -c 262144 /dev/zero > {}", status.display());
    let position = ["-x", "4294966000", "-e", "0", "-l", "0000000100000000000000FE"];
    let (mut older, mut known) = (Command::new(reset), Command::new("sh"));
    older.args(position).arg(&data);
    known.args(["-c", &zeros]);
    for mut command in [older, known] {
        let status = command.uid(owner.uid()).gid(owner.gid()).current_dir("/").status();
        assert!(status.unwrap().success(), "{command:?}");
    }
    postgres.start_again().await.unwrap();
    Some(postgres)
}

/// The stream has 32 bits of a transaction's id, and snapshots 64.
#[tokio::test]
async fn past_the_last_transaction_id_and_4_gib_of_wal_nothing_is_missed() {
    let Some(postgres) = aged().await else { return };
    let world = of_items(postgres).await;
    let daemon = world.daemon().await;
    let id = "select pg_current_xact_id()::text";
    assert!(world.query_one(id).await.parse::<u64>().unwrap() < 1 << 32);
    world.put(&["item:1", "item:2", "item:3", "item:4"]).await;

    // Open across the edge: its id is larger than those that come after it, in 32 bits.
    let early = world.postgres.client().await.unwrap();
    early.batch_execute("begin; update item set name = 'early' where id = 1").await.unwrap();
    early.batch_execute("savepoint s; insert into item values (99, 'early')").await.unwrap();
    // One of which blocks come, and with subtransactions on both sides.
    let large = world.postgres.client().await.unwrap();
    let insert = |first: u32| {
        format!(
            "insert into item select i, 'large' from generate_series({first}, {first} + 999) i;"
        )
    };
    let (kept, gone) = (insert(1000), insert(2000));
    let sql = format!("begin; savepoint a; {kept} release a; savepoint b; {gone} rollback to b;");
    large.batch_execute(&sql).await.unwrap();
    daemon.until_metric("unstale_streamed_transactions", 1.0).await;
    touch(&world, 2).await;
    world.until_gone("item:2").await;
    let spend =
        "do $$ begin for i in 1..2000 loop perform pg_current_xact_id(); commit; end loop; end $$";
    world.postgres.execute(spend).await.unwrap();
    assert!(world.query_one(id).await.parse::<u64>().unwrap() > 1 << 32);
    touch(&world, 3).await;
    world.until_gone("item:3").await;
    world.settle().await;
    assert!(world.keys().await.contains("item:1"), "it has not committed\n{}", daemon.log());
    let of_large = ["item:1999", "item:2999", "item:3999", "item:4999"];
    world.put(&of_large).await;
    let [kept, outer, inner, outer_again] = [3000, 4000, 5000, 6000].map(insert);
    let sql = format!(
        "savepoint c; {kept} release c; savepoint d; {outer} savepoint e; {inner} release e; {outer_again}"
    );
    large.batch_execute(&sql).await.unwrap();
    daemon.until_at_least("unstale_streamed_keys", 4200.0).await;
    large.batch_execute("rollback to d; commit").await.unwrap();
    world.settle().await;
    let left = world.keys().await;
    let left: Vec<_> = of_large.into_iter().filter(|key| left.contains(*key)).collect();
    assert_eq!(left, ["item:2999", "item:4999"], "{}", daemon.log());
    let prefixed = ["prs_cache:1:item:2999", "prs_cache:1:item:4999"];
    let _: () = redis::AsyncCommands::del(&mut world.values().await, &prefixed).await.unwrap();
    early.batch_execute("commit").await.unwrap();
    world.until_gone("item:1").await;

    // Parked across the edge of positions: visible much later than it was written.
    world.postgres.set("synchronous_standby_names", "nobody").await.unwrap();
    let late = world.postgres.client().await.unwrap();
    let stuck = tokio::spawn(async move {
        late.batch_execute("update item set name = 'late' where id = 4").await.unwrap();
    });
    daemon.until_metric("unstale_parked_transactions", 1.0).await;
    let local = "set synchronous_commit = local; select pg_switch_wal(); update item set name = name || '!' where id = 5";
    for _ in 0..3 {
        world.put(&["item:5"]).await;
        world.postgres.execute(local).await.unwrap();
        world.until_gone("item:5").await;
    }
    let edge: Lsn = "1/0".parse().unwrap();
    assert!(world.wal_end().await > edge);
    assert!(world.watermark().await < edge, "one below it is parked");
    assert!(world.keys().await.contains("item:4"), "it is not visible yet");
    world.release_standby().await;
    stuck.await.unwrap();
    world.until_gone("item:4").await;
    world.settle().await;
    assert!(world.watermark().await > edge);

    // The next start knows where it was, and takes up there.
    assert!(daemon.stop().await.success());
    world.put(&["item:1", "item:2"]).await;
    touch(&world, 1).await;
    let daemon = world.daemon().await;
    world.settle().await;
    assert_eq!(world.keys().await, ["item:2".to_owned()].into());
    assert_eq!(daemon.gaps().await.len(), 0, "{}", daemon.log());
    // Who is open while everything begins anew is watched, by an id of more than 32 bits.
    let open = world.postgres.client().await.unwrap();
    open.batch_execute("begin; update item set name = 'open' where id = 2").await.unwrap();
    let _: () = redis::AsyncCommands::del(&mut world.values().await, "unstale:unstale:state")
        .await
        .unwrap();
    daemon.until_gap("no_state").await;
    assert_eq!(daemon.readyz().await.unwrap()["suspects"], 1, "{}", daemon.log());
    world.put(&["item:2"]).await;
    open.batch_execute("commit").await.unwrap();
    world.until_gone("item:2").await;
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn two_thousand_published_tables_and_five_hundred_rules_are_followed() {
    let postgres = Postgres::start().await.unwrap();
    let make = "do $$ begin for i in 1..2000 loop
                    execute format('create table t_%s (id int, n int); alter table t_%s replica identity full', i, i);
                end loop; end $$;
                create publication unstale for all tables";
    let rules: String = (1..=500)
        .map(|i| {
            format!(
                "[caches.c{i}]\nkey = \"c{i}:{{id}}\"\n[[tables]]\nname = \"t_{i}\"\ninvalidates = [{{ cache = \"c{i}\", id = \"id\" }}]\n"
            )
        })
        .collect();
    let world = World::of(postgres, Redis::start().await.unwrap(), make, &rules).await;
    let daemon = world.daemon().await;
    let keys: Vec<String> = (1..=500).map(|i| format!("c{i}:1")).collect();
    world.put(&keys.iter().map(String::as_str).collect::<Vec<_>>()).await;
    // A row in every table, mapped or not; of some by one transaction each.
    let write = "do $$ begin for i in 1..2000 loop
                     if i % 7 <> 0 then execute format('insert into t_%s values (1, 1)', i); end if;
                     if i % 10 = 0 then commit; end if;
                 end loop; end $$";
    world.postgres.execute(write).await.unwrap();
    world.settle_within(PATIENCE * 4).await;
    let left = (1..=500).filter(|i| i % 7 == 0).map(|i| format!("c{i}:1")).collect();
    assert_eq!(world.keys().await, left, "{}", daemon.log());
    // The publication is asked about each second: an answer as long as that holds up no other.
    let again = "unstale_reconnects_total{service=\"postgres\"}";
    assert_eq!(daemon.metric(again).await, 0.0, "{}", daemon.log());
    // A change of all that is not mapped is nobody's business.
    world.postgres.execute("drop table t_1999; create table t_2001 (id int)").await.unwrap();
    world.settle().await;
    assert_eq!(daemon.gaps().await, [("no_state".to_owned(), 1)].into());
    assert!(daemon.stop().await.success());
}

/// A transaction that nobody ends, a cache that nobody can change: 4 GiB of WAL and more lie
/// between what is and what is done.
#[tokio::test]
async fn a_slot_that_is_4_gib_behind_is_told_of_and_catches_up_or_is_given_up() {
    // A segment that is switched costs no disk.
    let postgres =
        Postgres::builder().setting("wal_init_zero", "off").setting("wal_recycle", "off");
    let postgres = postgres.setting("max_wal_size", "64MB").start().await.unwrap();
    let world = of_items(postgres).await;
    let daemon = world.daemon().await;
    world.put(&["item:1", "item:2"]).await;
    let open = world.postgres.client().await.unwrap();
    open.batch_execute("begin; update item set name = 'open' where id = 5").await.unwrap();
    world.redis.pause().await;
    touch(&world, 1).await;
    let write = "do $$ begin for i in 1..260 loop
                     perform pg_logical_emit_message(false, 'x', 'y'); perform pg_switch_wal();
                 end loop; end $$";
    world.postgres.execute(write).await.unwrap();
    const GIB_4: f64 = 4_294_967_296.0;
    daemon.until_at_least("unstale_replication_lag_bytes", GIB_4).await;
    assert!(daemon.readyz().await.unwrap()["lag_bytes"].as_f64().unwrap() >= GIB_4);
    // The stream is ahead of Redis; what is applied is not, and the slot keeps what it needs.
    let first = world.confirmed_flush().await;
    assert!(world.wal_end().await.bytes_since(first) >= 1 << 32);
    world.redis.resume();
    world.until_gone("item:1").await;
    world.settle().await;
    assert_eq!(world.keys().await, ["item:2".to_owned()].into(), "{}", daemon.log());
    until("all to be applied", async || {
        (daemon.metric("unstale_replication_lag_bytes").await < 1e6).then_some(())
    })
    .await;

    // The open transaction holds the slot's beginning back.
    daemon.until_at_least("unstale_slot_retained_bytes", GIB_4).await;
    daemon.until_metric(r#"unstale_slot_wal_status{status="extended"}"#, 1.0).await;
    daemon.until_metric("unstale_slot_safe_wal_bytes", -1.0).await;
    // A bound so far off that nobody may cut the figure.
    world.postgres.set("max_slot_wal_keep_size", "2000GB").await.unwrap();
    daemon.until_at_least("unstale_slot_safe_wal_bytes", 1e12).await;
    // One that it is past already: told, while there is a moment left.
    world.postgres.set("max_slot_wal_keep_size", "64MB").await.unwrap();
    daemon.until_metric(r#"unstale_slot_wal_status{status="unreserved"}"#, 1.0).await;
    daemon.until_log("the slot is about to be lost").await;
    assert_eq!(daemon.gaps().await, [("no_state".to_owned(), 1)].into());
    let giving_up = tokio::spawn({
        let client = world.postgres.client().await.unwrap();
        async move { client.batch_execute("checkpoint").await.unwrap() }
    });
    daemon.until_log("the server has invalidated the slot").await;
    // A new slot waits for who was open before.
    open.batch_execute("commit").await.unwrap();
    giving_up.await.unwrap();
    daemon.until_gap("slot_lost").await;
    assert_eq!(world.keys().await, [].into());
    world.put(&["item:3"]).await;
    touch(&world, 3).await;
    world.until_gone("item:3").await;
    daemon.until_metric(r#"unstale_slot_wal_status{status="reserved"}"#, 1.0).await;
    assert!(daemon.stop().await.success());
}

/// What a process holds: descriptors, threads.
fn held_by(pid: u32) -> [usize; 2] {
    ["fd", "task"].map(|what| std::fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count())
}

#[tokio::test]
async fn servers_that_restart_again_and_again_cost_no_change_and_leave_nothing_behind() {
    const ROUNDS: u32 = 20;
    let postgres = Postgres::start().await.unwrap();
    let redis = Redis::builder().setting("appendonly", "yes").setting("appendfsync", "always");
    let world = World::of(postgres, redis.start().await.unwrap(), SCHEMA, RULES).await;
    let more = "insert into item select i, 'x' from generate_series(6, 1000) i";
    world.postgres.execute(more).await.unwrap();
    let daemon = world.daemon().await;
    let keys: Vec<String> = (1..=1001).map(|id| format!("item:{id}")).collect();
    world.put(&keys.iter().map(String::as_str).collect::<Vec<_>>()).await;
    world.settle().await;
    let connections = async || -> (usize, usize) {
        let sql =
            "select count(*)::text from pg_stat_activity where application_name like 'unstale%'";
        let clients: String =
            redis::cmd("CLIENT").arg("LIST").query_async(&mut world.values().await).await.unwrap();
        (world.query_one(sql).await.parse().unwrap(), clients.lines().count())
    };
    let (before, held) = (connections().await, held_by(daemon.pid()));

    let mut done = 0;
    for round in 1..=ROUNDS {
        // Under load until the moment of the restart, in which a commit may or may not be.
        let client = world.postgres.client().await.unwrap();
        let last = round * 1000 / ROUNDS;
        while done < last {
            let id = done + 1;
            client
                .batch_execute(&format!("update item set name = 'y' where id = {id}"))
                .await
                .unwrap();
            done = id;
            if done == last - 5 {
                world.redis.restart().await.unwrap();
            }
        }
        drop(client);
        world.postgres.restart(Shutdown::Fast).await.unwrap();
    }
    daemon.until_ready().await;
    world.settle().await;
    assert_eq!(world.keys().await, ["item:1001".to_owned()].into(), "{}", daemon.log());
    assert_eq!(daemon.gaps().await, [("no_state".to_owned(), 1)].into(), "{}", daemon.log());

    until("no more connections than before", async || {
        let (now, [files, threads]) = (connections().await, held_by(daemon.pid()));
        let fewer = now.0 <= before.0 && now.1 <= before.1;
        // Threads that block are kept for a while.
        (fewer && files <= held[0] + 4 && threads <= held[1] + 16).then_some(())
    })
    .await;
    // Each change of state is told once: gone, not there yet, starting, and there again.
    let log = daemon.log();
    let loud =
        log.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR ")).count();
    assert!(loud <= usize::try_from(ROUNDS).unwrap() * 8, "{loud} lines\n{log}");
    assert!(daemon.stop().await.success());
}

/// Hours without a server are a line or two, not one for each try.
#[tokio::test]
async fn a_server_that_stays_away_is_told_of_once() {
    let postgres = Postgres::start().await.unwrap();
    let world = of_items(postgres).await;
    let daemon = world.daemon().await;
    world.postgres.stop(Shutdown::Fast).await.unwrap();
    daemon.until_not_ready().await;
    daemon.until_at_least(r#"unstale_reconnects_total{service="postgres"}"#, 6.0).await;
    let log = daemon.log();
    let told = log.lines().filter(|line| line.contains("the run has ended")).count();
    assert!((1..=3).contains(&told), "{told} lines\n{log}");
    world.postgres.start_again().await.unwrap();
    daemon.until_ready().await;
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn a_storm_of_lost_connections_loses_no_change() {
    let postgres = Postgres::start().await.unwrap();
    let mut world = of_items(postgres).await;
    let more = "insert into item select i, 'x' from generate_series(6, 200) i";
    world.postgres.execute(more).await.unwrap();
    let (to_postgres, to_redis) = (world.postgres_proxy().await, world.redis_proxy().await);
    let daemon = world.daemon().await;
    let keys: Vec<String> = (1..=201).map(|id| format!("item:{id}")).collect();
    world.put(&keys.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let client = world.postgres.client().await.unwrap();
    for id in 1..=200 {
        client.batch_execute(&format!("update item set name = 'y' where id = {id}")).await.unwrap();
        if id % 2 == 0 {
            to_postgres.cut();
        }
        if id % 3 == 0 {
            to_redis.cut();
        }
        // Some get further than others.
        tokio::time::sleep(Duration::from_millis(id % 11)).await;
    }
    world.settle().await;
    assert_eq!(world.keys().await, ["item:201".to_owned()].into(), "{}", daemon.log());
    daemon.until_ready().await;
    assert_eq!(daemon.gaps().await, [("no_state".to_owned(), 1)].into(), "{}", daemon.log());
    assert!(daemon.metric("unstale_reconnects_total{service=\"postgres\"}").await >= 1.0);
    assert!(daemon.stop().await.success());
}
