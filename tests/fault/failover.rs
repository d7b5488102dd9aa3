//! Another server answers, or the same one with another past: what was cached may have come from
//! commits that are no more. All of it goes, by a gap that says why, and nothing stale is left.

#![allow(clippy::print_stderr, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command as Program;

use crate::support::items::SCHEMA;
use crate::support::reader::Reader;
use crate::support::{Daemon, World, lacks, until};
use redis::AsyncCommands;
use unstale::fill::filler::How;
use unstale::lsn::Lsn;
use unstale::sandbox::{Postgres, Proxy, Redis, Shutdown};

const RULES: &str = r#"
    [caches.item]
    key = "item:{id}"
    query = "select jsonb_build_object('name', name) from item where id = $id::int"
    ttl = "1h"
    [[tables]]
    name = "item"
    invalidates = [{ cache = "item", id = "id", columns = ["id", "name"] }]
"#;

/// A world whose daemons reach Postgres by an address that may lead to another server.
async fn world(postgres: Postgres) -> (World, Proxy) {
    let mut world = World::of(postgres, Redis::start().await.unwrap(), SCHEMA, RULES).await;
    let proxy = world.postgres_proxy().await;
    (world, proxy)
}

/// Reads every item of a server through the cache.
async fn fill(world: &World, server: &Postgres, daemon: &Daemon) {
    let reader = Reader::of(world, &server.url());
    let start = std::time::Instant::now();
    for id in ["1", "2", "3", "4", "5"] {
        loop {
            let (_, how) = reader.read("item", &[("id", id)]).await;
            if matches!(how, How::Hit | How::Stored) {
                break;
            }
            let late = start.elapsed() > crate::support::PATIENCE;
            assert!(!late, "{id}: {how:?}\n{}", daemon.log());
        }
    }
}

async fn name(server: &Postgres, id: u32) -> String {
    let client = server.client().await.unwrap();
    let row = client.query_one(&format!("select name from item where id = {id}"), &[]).await;
    row.unwrap().get(0)
}

/// What is cached is what this server says.
async fn nothing_is_stale(world: &World, server: &Postgres, daemon: &Daemon) {
    let mut values = world.values().await;
    for id in 1..=5 {
        let cached: Option<String> = values.get(format!("prs_cache:1:item:{id}")).await.unwrap();
        if let Some(cached) = cached {
            let is = name(server, id).await;
            assert!(
                cached.contains(&format!("\"{is}\"")),
                "{id}: {cached}, but it is {is}\n{}",
                daemon.log()
            );
        }
    }
}

/// Values that are filled from here on are kept fresh.
async fn goes_on(world: &World, server: &Postgres, daemon: &Daemon) {
    // A slot of old has much to tell again.
    world.settle_with(server).await;
    fill(world, server, daemon).await;
    server.execute("update item set name = name || '+' where id = 4").await.unwrap();
    world.until_gone("item:4").await;
    assert_eq!(world.keys().await.len(), 4, "{}", daemon.log());
    nothing_is_stale(world, server, daemon).await;
}

/// What the former server had written is no measure any more.
async fn lags_behind_none_but(server: &Postgres, daemon: &Daemon) {
    let client = server.client().await.unwrap();
    let row = client.query_one("select pg_current_wal_insert_lsn()::text", &[]).await.unwrap();
    let end: Lsn = row.get::<_, &str>(0).parse().unwrap();
    let told: Lsn = daemon.readyz().await.unwrap()["server_lsn"].as_str().unwrap().parse().unwrap();
    assert!(told <= end, "its WAL ends at {end}, not {told}\n{}", daemon.log());
}

fn copy(from: &Path, to: &Path) {
    let copied = Program::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

#[tokio::test]
async fn a_standby_that_takes_over_without_what_was_cached_leaves_nothing_stale() {
    let (world, proxy) = world(Postgres::start().await.unwrap()).await;
    if lacks(&world.postgres, "pg_basebackup") {
        return;
    }
    let standby = world.postgres.standby().start().await.unwrap();
    let daemon = world.daemon().await;
    fill(&world, &world.postgres, &daemon).await;
    let replayed = format!("select pg_last_wal_replay_lsn() >= '{}'", world.wal_end().await);
    let client = standby.client().await.unwrap();
    until("the standby to be there", async || {
        client.query_one(&replayed, &[]).await.unwrap().get::<_, bool>(0).then_some(())
    })
    .await;
    // Committed, applied and cached; and then the primary takes it along.
    standby.set("primary_conninfo", "").await.unwrap();
    until("the standby to follow no more", async || {
        let row = client.query_one("select count(*) from pg_stat_wal_receiver", &[]).await.unwrap();
        (row.get::<_, i64>(0) == 0).then_some(())
    })
    .await;
    world.postgres.execute("update item set name = 'lost' where id in (1, 2)").await.unwrap();
    world.settle().await;
    fill(&world, &world.postgres, &daemon).await;
    world.postgres.kill9().await.unwrap();
    standby.promote().await.unwrap();
    assert_eq!(name(&standby, 1).await, "first");
    proxy.redirect(standby.address());
    // No slot there.
    daemon.until_gap("slot_missing").await;
    nothing_is_stale(&world, &standby, &daemon).await;
    goes_on(&world, &standby, &daemon).await;

    // Back again: the old primary as it was when it died. It has its slot, and another history.
    world.postgres.start_again().await.unwrap();
    standby.execute("update item set name = 'of the other' where id = 5").await.unwrap();
    world.until_gone("item:5").await;
    fill(&world, &standby, &daemon).await;
    proxy.redirect(world.postgres.address());
    standby.stop(Shutdown::Immediate).await.unwrap();
    daemon.until_gap("other_timeline").await;
    nothing_is_stale(&world, &world.postgres, &daemon).await;
    goes_on(&world, &world.postgres, &daemon).await;
    assert!(daemon.stop().await.success());
}

/// From Postgres 17 on a standby keeps a copy of the slot.
#[tokio::test]
async fn a_standby_that_has_the_slot_takes_over_by_a_gap_without_waiting() {
    let postgres = Postgres::start().await.unwrap();
    let (mut world, proxy) = world(postgres).await;
    world.set("postgres.failover=true");
    let version: u32 = world.query_one("show server_version_num").await.parse().unwrap();
    let check = async || {
        let output = world.command("check").output().await.unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    if version < 170_000 {
        let checked = check().await;
        assert!(checked.contains("this server has no failover slots"), "{checked}");
        let daemon = world.daemon().await;
        assert!(daemon.stop().await.success());
        return;
    }
    if lacks(&world.postgres, "pg_basebackup") {
        return;
    }
    let standby = world.postgres.standby().slot("physical");
    let standby = standby.setting("hot_standby_feedback", "on").start().await.unwrap();
    let at = format!(
        "host={} port={} user=postgres dbname=postgres",
        world.postgres.host(),
        world.postgres.port()
    );
    standby.set("primary_conninfo", &at).await.unwrap();
    world.postgres.set("synchronized_standby_slots", "physical").await.unwrap();
    let daemon = world.daemon().await;
    let failover = "select failover::text from pg_replication_slots where slot_name = 'unstale'";
    assert_eq!(world.query_one(failover).await, "true");
    fill(&world, &world.postgres, &daemon).await;
    let synced = "select count(*) from pg_replication_slots where slot_name = 'unstale' and synced and not temporary";
    let client = standby.client().await.unwrap();
    let state =
        "select coalesce(string_agg(to_jsonb(s)::text, e'\\n'), '') from pg_replication_slots s";
    let start = std::time::Instant::now();
    loop {
        // The primary's slot must be past what the standby has when it looks: no transaction may
        // come behind what the slot has seen of them.
        world.postgres.execute("select pg_log_standby_snapshot()").await.unwrap();
        let told = "select (pg_snapshot_xmin(pg_current_snapshot())::xid = catalog_xmin)::text
                      from pg_replication_slots where slot_name = 'unstale'";
        for _ in 0..200 {
            if world.query_one(told).await == "true" {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let tried = client.batch_execute("select pg_sync_replication_slots()").await;
        if client.query_one(synced, &[]).await.unwrap().get::<_, i64>(0) == 1 {
            break;
        }
        let copied: String = client.query_one(state, &[]).await.unwrap().get(0);
        assert!(
            start.elapsed() < crate::support::PATIENCE,
            "{tried:?}\n{}\n{copied}",
            world.query_one(state).await
        );
    }
    world.postgres.execute("update item set name = 'kept' where id = 1").await.unwrap();
    world.until_gone("item:1").await;
    fill(&world, &world.postgres, &daemon).await;
    world.postgres.kill9().await.unwrap();
    standby.promote().await.unwrap();
    standby.set("synchronized_standby_slots", "").await.unwrap();
    proxy.redirect(standby.address());
    daemon.until_gap("other_timeline").await;
    assert!(!daemon.gaps().await.contains_key("slot_missing"), "{}", daemon.log());
    assert_eq!(name(&standby, 1).await, "kept");
    nothing_is_stale(&world, &standby, &daemon).await;
    goes_on(&world, &standby, &daemon).await;

    // A slot of an earlier life, without the option.
    assert!(daemon.stop().await.success());
    let sql = "select pg_drop_replication_slot('unstale');
               select pg_create_logical_replication_slot('unstale', 'pgoutput')";
    standby.execute(sql).await.unwrap();
    let checked = check().await;
    assert!(checked.contains("is not copied by standbys, and is once"), "{checked}");
    let daemon = world.daemon().await;
    assert_eq!(client.query_one(failover, &[]).await.unwrap().get::<_, &str>(0), "true");
    goes_on(&world, &standby, &daemon).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn an_earlier_state_that_is_put_back_leaves_nothing_stale() {
    let (world, _proxy) = world(Postgres::start().await.unwrap()).await;
    let daemon = world.daemon().await;
    let (data, kept) = (world.postgres.data_dir(), world.postgres.socket_dir().join("kept"));
    let newer = world.postgres.socket_dir().join("newer");
    world.postgres.stop(Shutdown::Fast).await.unwrap();
    copy(&data, &kept);
    world.postgres.start_again().await.unwrap();
    daemon.until_ready().await;

    // As it was: its WAL ends before what has been applied.
    world.postgres.execute("update item set name = 'second' where id = 1").await.unwrap();
    world.settle().await;
    fill(&world, &world.postgres, &daemon).await;
    world.postgres.stop(Shutdown::Fast).await.unwrap();
    std::fs::rename(&data, &newer).unwrap();
    copy(&kept, &data);
    world.postgres.start_again().await.unwrap();
    daemon.until_gap("wal_behind").await;
    assert_eq!(name(&world.postgres, 1).await, "first");
    lags_behind_none_but(&world.postgres, &daemon).await;
    nothing_is_stale(&world, &world.postgres, &daemon).await;
    goes_on(&world, &world.postgres, &daemon).await;

    // To a point in time: from there on it writes a timeline of its own, further than the old.
    world.postgres.execute("update item set name = 'third' where id = 2").await.unwrap();
    world.settle().await;
    fill(&world, &world.postgres, &daemon).await;
    world.postgres.stop(Shutdown::Fast).await.unwrap();
    std::fs::remove_dir_all(&data).unwrap();
    copy(&kept, &data);
    let wal = format!("cp {}/pg_wal/%f %p", newer.display());
    let settings = format!(
        "\nrestore_command = '{wal}'\nrecovery_target = 'immediate'\nrecovery_target_action = 'promote'\n"
    );
    let file = data.join("postgresql.conf");
    let before = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, before + &settings).unwrap();
    std::fs::write(data.join("recovery.signal"), "").unwrap();
    world.postgres.start_again().await.unwrap();
    daemon.until_gap("other_timeline").await;
    assert_eq!(name(&world.postgres, 2).await, "first");
    nothing_is_stale(&world, &world.postgres, &daemon).await;
    goes_on(&world, &world.postgres, &daemon).await;
    assert!(daemon.stop().await.success());
}

/// A dump that was loaded into another server, or what an upgrade has made.
#[tokio::test]
async fn another_server_with_the_same_tables_leaves_nothing_stale() {
    let (world, proxy) = world(Postgres::start().await.unwrap()).await;
    let other = Postgres::start().await.unwrap();
    other.execute(SCHEMA).await.unwrap();
    let daemon = world.daemon().await;
    world.postgres.execute("update item set name = 'second' where id = 1").await.unwrap();
    world.settle().await;
    fill(&world, &world.postgres, &daemon).await;
    // Even its slot has the name that is looked for, and it stands further on.
    other.execute("select pg_switch_wal() from generate_series(1, 1); checkpoint").await.unwrap();
    let slot = "select pg_create_logical_replication_slot('unstale', 'pgoutput')";
    other.execute(slot).await.unwrap();
    proxy.redirect(other.address());
    proxy.cut();
    daemon.until_gap("other_system").await;
    assert_eq!(name(&other, 1).await, "first");
    lags_behind_none_but(&other, &daemon).await;
    nothing_is_stale(&world, &other, &daemon).await;
    goes_on(&world, &other, &daemon).await;
    assert!(daemon.stop().await.success());
}

/// The programs of another version, for `pg_upgrade`; `None`, with a plain word, where they cannot be had.
#[cfg(feature = "long-tests")]
fn programs_of(version: &str) -> Option<std::path::PathBuf> {
    let script = crate::support::root().join("scripts/postgres.sh");
    let output = Program::new(script).arg(version).output().unwrap();
    if !output.status.success() {
        eprintln!("skipped: {}", String::from_utf8_lossy(&output.stderr));
        return None;
    }
    Some(String::from_utf8(output.stdout).unwrap().trim().into())
}

/// The files are taken over, the slot is not (before 17), and the system identifier is the new one's.
#[cfg(feature = "long-tests")]
#[tokio::test]
async fn a_server_that_was_upgraded_to_18_leaves_nothing_stale() {
    let (world, proxy) = world(Postgres::start().await.unwrap()).await;
    let version: u32 = world.query_one("show server_version_num").await.parse().unwrap();
    if version >= 180_000 || lacks(&world.postgres, "pg_upgrade") {
        eprintln!("skipped: Postgres {version} is not upgraded to 18 here");
        return;
    }
    let Some(programs) = programs_of("18") else { return };
    let new = Postgres::builder().programs(&programs).start().await.unwrap();
    let old = &world.postgres;
    let daemon = world.daemon().await;
    old.execute("update item set name = 'before' where id = 1").await.unwrap();
    // Further than where the new one begins.
    old.execute("do $$ begin for i in 1..12 loop perform pg_logical_emit_message(true, 'x', 'y'); perform pg_switch_wal(); end loop; end $$").await.unwrap();
    world.settle().await;
    fill(&world, old, &daemon).await;
    old.stop(Shutdown::Fast).await.unwrap();
    new.stop(Shutdown::Fast).await.unwrap();

    let run = |program: &str, arguments: &[&str]| {
        let mut command = Program::new(new.program(program));
        // Where it leaves its files.
        command.args(arguments).current_dir(new.socket_dir());
        new.run_as_owner(&mut command);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program}: {said}{complained}");
    };
    let folder = |path: &Path| path.display().to_string();
    let (from, to) = (folder(&old.data_dir()), folder(&new.data_dir()));
    // Both must be alike.
    run("pg_checksums", &["--disable", "--pgdata", &to]);
    let old_programs = folder(old.program("postgres").parent().unwrap());
    run(
        "pg_upgrade",
        &[
            "-b",
            &old_programs,
            "-d",
            &from,
            "-D",
            &to,
            "-U",
            "postgres",
            "--socketdir",
            &folder(new.socket_dir()),
        ],
    );
    new.start_again().await.unwrap();
    // Changed before anybody reads it there.
    new.execute("update item set name = 'after' where id = 2").await.unwrap();
    assert_eq!(name(&new, 1).await, "before", "it has the rows");
    proxy.redirect(new.address());
    daemon.until_gap("other_system").await;
    let told = daemon.log();
    let told: Vec<_> = told.lines().filter(|line| line.contains("gap: everything")).collect();
    assert_eq!(told.len(), 2, "the first start's, and one of the upgrade: {told:?}");
    assert!(told[1].contains("other_system"), "{told:?}");
    assert!(!daemon.gaps().await.contains_key("slot_missing"), "{}", daemon.log());
    nothing_is_stale(&world, &new, &daemon).await;
    lags_behind_none_but(&new, &daemon).await;
    goes_on(&world, &new, &daemon).await;
    assert!(daemon.stop().await.success());
}

/// What was visible of a commit that nobody waited for may be gone after a crash: its record was
/// never written, and the stream never had it.
#[tokio::test]
async fn a_commit_that_a_crash_has_undone_leaves_nothing_stale() {
    let postgres = Postgres::builder().setting("wal_writer_delay", "10s").start().await.unwrap();
    let (world, _proxy) = world(postgres).await;
    let daemon = world.daemon().await;
    let client = world.postgres.client().await.unwrap();
    let mut lost = false;
    for attempt in 0..20 {
        fill(&world, &world.postgres, &daemon).await;
        client.batch_execute("set synchronous_commit = off").await.unwrap();
        let sql = format!("update item set name = 'lost {attempt}' where id = 1");
        client.batch_execute(&sql).await.unwrap();
        // Whoever computes the value now has seen it.
        let mut values = world.values().await;
        let _: () = values.del("prs_cache:1:item:1").await.unwrap();
        fill(&world, &world.postgres, &daemon).await;
        let before = daemon.metric("unstale_gaps_total{reason=\"crash_recovery\"}").await;
        world.postgres.kill9().await.unwrap();
        world.postgres.start_again().await.unwrap();
        daemon.until_metric("unstale_gaps_total{reason=\"crash_recovery\"}", before + 1.0).await;
        daemon.until_ready().await;
        nothing_is_stale(&world, &world.postgres, &daemon).await;
        lost = name(&world.postgres, 1).await != format!("lost {attempt}");
        if lost {
            break;
        }
    }
    assert!(lost, "no commit was ever lost: the test shows nothing");
    goes_on(&world, &world.postgres, &daemon).await;
    assert!(daemon.stop().await.success());
}

/// Postgres 18 gives a slot up by itself that nobody reads for long.
#[tokio::test]
async fn a_slot_that_was_given_up_for_idleness_is_a_gap_and_is_made_anew() {
    let (world, _proxy) = world(Postgres::start().await.unwrap()).await;
    let version: u32 = world.query_one("show server_version_num").await.parse().unwrap();
    if version < 180_000 {
        eprintln!("skipped: this is Postgres {version}, and 18 is the first to do so");
        return;
    }
    let daemon = world.daemon().await;
    fill(&world, &world.postgres, &daemon).await;
    assert!(daemon.stop().await.success());
    world.postgres.set("idle_replication_slot_timeout", "1s").await.unwrap();
    let reason = "select coalesce(invalidation_reason, '') from pg_replication_slots where slot_name = 'unstale'";
    until("the slot to be given up", async || {
        world.postgres.execute("checkpoint").await.unwrap();
        (world.query_one(reason).await == "idle_timeout").then_some(())
    })
    .await;
    let checked = world.command("check").output().await.unwrap();
    let checked = String::from_utf8(checked.stdout).unwrap();
    assert!(checked.contains("slot unstale is lost (idle_timeout)"), "{checked}");
    assert!(checked.contains("idle_replication_slot_timeout is 1s"), "{checked}");
    world.postgres.execute("update item set name = 'unheard of' where id = 1").await.unwrap();
    let daemon = world.daemon().await;
    assert_eq!(daemon.gaps().await, [("slot_lost".to_owned(), 1)].into(), "{}", daemon.log());
    assert_eq!(world.keys().await, [].into());
    goes_on(&world, &world.postgres, &daemon).await;
    assert!(daemon.stop().await.success());
}
