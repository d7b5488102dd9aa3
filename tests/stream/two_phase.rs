//! A prepared transaction counts when it is committed, however long after, and whoever was
//! restarted in between.

use std::collections::BTreeSet;

use crate::support::{Daemon, World, org, until};
use unstale::sandbox::{Postgres, Redis, Shutdown};

const ORGANIZATIONS: u32 = 1000;

/// A server that prepares transactions and sends blocks early, and organizations.
async fn world() -> World {
    let postgres = Postgres::builder()
        .setting("logical_decoding_work_mem", "64kB")
        .setting("max_prepared_transactions", 20);
    let postgres = postgres.start().await.unwrap();
    let world = World::with(postgres, Redis::start().await.unwrap()).await;
    world.organizations(ORGANIZATIONS).await;
    world
}

fn orgs(ids: impl IntoIterator<Item = u32>) -> BTreeSet<String> {
    ids.into_iter().map(org).collect()
}

/// Renames the organizations up to `last`, and prepares that.
async fn prepare(world: &World, gid: &str, last: u32) {
    let sql = format!(
        "begin; savepoint s; update organization_organization set name = name || '-'; rollback to s; \
         update organization_organization set name = name || '+' where id <= {last}; \
         prepare transaction '{gid}'"
    );
    world.postgres.execute(&sql).await.unwrap();
}

/// And puts all values again: the server forgets some of what was acknowledged over its
/// restart, and so sends again what was applied before.
async fn restart_both(world: &World, daemon: Daemon) -> Daemon {
    daemon.kill9().await;
    world.postgres.restart(Shutdown::Fast).await.unwrap();
    let daemon = world.daemon().await;
    world.settle().await;
    world.put_each(ORGANIZATIONS).await;
    daemon
}

async fn until_suspects(daemon: &Daemon, count: u64) {
    until(&format!("{count} suspects"), async || {
        (daemon.readyz().await?["suspects"] == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn it_counts_when_it_is_committed_across_restarts_of_both() {
    let world = world().await;
    let daemon = world.daemon().await;
    world.put_each(ORGANIZATIONS).await;
    // One that comes as a whole, and one of which blocks come.
    prepare(&world, "small", 3).await;
    world.rename_locally(1000).await;
    world.settle().await;
    assert_eq!(world.keys().await, orgs(1..1000), "prepared is not committed");
    let daemon = restart_both(&world, daemon).await;
    let daemon = restart_both(&world, daemon).await;
    world.rename_locally(999).await;
    world.settle().await;
    let but_999 = |first: u32| orgs((first..=ORGANIZATIONS).filter(|id| *id != 999));
    assert_eq!(world.keys().await, but_999(1));
    world.postgres.execute("commit prepared 'small'").await.unwrap();
    world.settle().await;
    assert_eq!(world.keys().await, but_999(4));
    assert_eq!(daemon.gaps().await, [].into(), "{}", daemon.log());
}

#[tokio::test]
async fn a_large_one_is_followed_before_it_is_prepared_and_counts_when_committed() {
    let world = world().await;
    let daemon = world.daemon().await;
    world.put_each(ORGANIZATIONS).await;
    prepare(&world, "large", 800).await;
    daemon.until_metric("unstale_streamed_transactions", 1.0).await;
    world.rename_locally(1000).await;
    world.settle().await;
    assert_eq!(world.keys().await, orgs(1..1000), "prepared is not committed");
    assert_eq!(daemon.metric("unstale_streamed_transactions").await, 1.0);
    world.postgres.execute("commit prepared 'large'").await.unwrap();
    world.settle().await;
    assert_eq!(world.keys().await, orgs(801..1000));
    assert_eq!(daemon.metric("unstale_streamed_transactions").await, 0.0);
    // Again, with both restarted in between.
    world.put_each(ORGANIZATIONS).await;
    prepare(&world, "large", 800).await;
    daemon.until_metric("unstale_streamed_transactions", 1.0).await;
    let daemon = restart_both(&world, daemon).await;
    world.rename_locally(1000).await;
    world.settle().await;
    assert_eq!(world.keys().await, orgs(1..1000));
    world.postgres.execute("commit prepared 'large'").await.unwrap();
    world.settle().await;
    assert_eq!(world.keys().await, orgs(801..1000));
    assert_eq!(daemon.gaps().await, [].into(), "{}", daemon.log());
}

#[tokio::test]
async fn one_that_is_rolled_back_takes_nothing_away() {
    let world = world().await;
    let daemon = world.daemon().await;
    world.put_each(ORGANIZATIONS).await;
    prepare(&world, "small", 3).await;
    world.postgres.execute("rollback prepared 'small'").await.unwrap();
    prepare(&world, "large", 800).await;
    daemon.until_metric("unstale_streamed_transactions", 1.0).await;
    world.postgres.execute("rollback prepared 'large'").await.unwrap();
    daemon.until_metric("unstale_streamed_transactions", 0.0).await;
    prepare(&world, "other", 800).await;
    let daemon = restart_both(&world, daemon).await;
    world.postgres.execute("rollback prepared 'other'").await.unwrap();
    world.settle().await;
    assert_eq!(world.keys().await, orgs(1..=ORGANIZATIONS));
    assert_eq!(daemon.gaps().await, [].into(), "{}", daemon.log());
}

#[tokio::test]
async fn its_commit_passes_the_gate() {
    let world = world().await;
    let daemon = world.daemon().await;
    world.put_each(ORGANIZATIONS).await;
    prepare(&world, "p", 3).await;
    world.postgres.set("synchronous_standby_names", "nobody").await.unwrap();
    let client = world.postgres.client().await.unwrap();
    let stuck = tokio::spawn(async move { client.batch_execute("commit prepared 'p'").await });
    daemon.until_metric("unstale_parked_transactions", 1.0).await;
    world.rename_locally(9).await;
    world.until_gone(&org(9)).await;
    assert!(world.keys().await.contains(&org(1)), "nobody sees it yet");
    world.release_standby().await;
    stuck.await.unwrap().unwrap();
    world.settle().await;
    assert_eq!(world.keys().await, orgs((4..=ORGANIZATIONS).filter(|id| *id != 9)));
}

#[tokio::test]
async fn one_that_was_prepared_before_a_gap_is_watched_until_it_ends() {
    let world = world().await;
    let daemon = world.daemon().await;
    prepare(&world, "committed", 3).await;
    prepare_other(&world, "rolled back", 10).await;
    // They survive a crash, which is a gap.
    world.postgres.kill9().await.unwrap();
    world.postgres.start_again().await.unwrap();
    daemon.until_gap("crash_recovery").await;
    until_suspects(&daemon, 2).await;
    // Its locks have no process, nor has it one after a restart.
    let daemon = restart_both(&world, daemon).await;
    until_suspects(&daemon, 2).await;
    world.postgres.execute("commit prepared 'committed'").await.unwrap();
    world.settle().await;
    assert_eq!(world.keys().await, orgs(4..=ORGANIZATIONS), "it came through: {}", daemon.log());
    until_suspects(&daemon, 1).await;
    world.postgres.execute("rollback prepared 'rolled back'").await.unwrap();
    until_suspects(&daemon, 0).await;
    assert_eq!(daemon.gaps().await, [].into(), "{}", daemon.log());
}

async fn prepare_other(world: &World, gid: &str, id: u32) {
    let sql = format!("begin; {}; prepare transaction '{gid}'", World::renaming(id));
    world.postgres.execute(&sql).await.unwrap();
}

#[tokio::test]
async fn one_that_was_prepared_before_the_publication_changed_is_a_gap_when_it_commits() {
    let world = world().await;
    let daemon = world.daemon().await;
    prepare(&world, "p", 3).await;
    let sql = "alter publication unstale drop table deals_deal; \
               alter publication unstale add table deals_deal";
    world.postgres.execute(sql).await.unwrap();
    daemon.until_gap("publication_changed").await;
    until_suspects(&daemon, 1).await;
    world.postgres.execute("commit prepared 'p'").await.unwrap();
    daemon.until_gap("suspect").await;
    until_suspects(&daemon, 0).await;
}

#[tokio::test]
async fn one_that_holds_up_the_slots_creation_is_named() {
    let world = world().await;
    prepare(&world, "forgotten one", 3).await;
    let daemon = world.spawn();
    daemon.until_log("the prepared transaction 'forgotten one' (postgres").await;
    world.postgres.execute("commit prepared 'forgotten one'").await.unwrap();
    daemon.until_ready().await;
}
