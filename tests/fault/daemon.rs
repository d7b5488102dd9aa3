//! The daemon dies, is stopped, or has company: nothing is lost, nothing stale stays.

use std::time::Duration;

use crate::support::{World, org, until};
use unstale::sandbox::Proxy;

/// Both proxies, and a daemon behind them whose next answer from Redis will not be told
/// to Postgres.
async fn behind_proxies(world: &mut World) -> (Proxy, Proxy) {
    world.set("redis.timeout=60s");
    (world.redis_proxy().await, world.postgres_proxy().await)
}

#[tokio::test]
async fn killed_between_redis_and_postgres_it_does_the_change_again() {
    let mut world = World::new().await;
    let (redis, postgres) = behind_proxies(&mut world).await;
    world.organizations(2).await;
    let daemon = world.daemon().await;
    world.settle().await;
    world.put(&[&org(1)]).await;

    // The step waits before Redis; then Postgres' ears are covered; then Redis hears it.
    redis.pause();
    world.rename(1).await;
    daemon.until_log("admitted").await;
    postgres.pause();
    redis.resume().await;
    world.until_gone(&org(1)).await;
    daemon.until_log("applied").await;
    let watermark = world.watermark().await;
    daemon.kill9().await;
    postgres.cut();
    postgres.resume().await;
    until("the slot to be free", async || world.walsender().await.is_none().then_some(())).await;
    assert!(world.confirmed_flush().await < watermark, "Postgres was told after all");

    // What was filled since, before the restart, is dropped once more: harmless.
    world.put(&[&org(1), &org(2)]).await;
    let daemon = world.daemon().await;
    world.settle().await;
    assert!(!world.keys().await.contains(&org(1)), "it was not streamed again");
    assert!(world.keys().await.contains(&org(2)));
    assert_eq!(daemon.gaps().await, [].into(), "{}", daemon.log());
}

#[tokio::test]
async fn killed_at_any_moment_under_load_it_loses_no_change() {
    const ORGANIZATIONS: u32 = 400;
    const KILLS: u32 = 5;
    let world = World::new().await;
    world.organizations(ORGANIZATIONS + 1).await;
    let mut daemon = world.daemon().await;
    world.settle().await;
    world.put_each(ORGANIZATIONS + 1).await;

    let client = world.postgres.client().await.unwrap();
    let writer = tokio::spawn(async move {
        for id in 1..=ORGANIZATIONS {
            client.batch_execute(&World::renaming(id)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    for kill in 1..=KILLS {
        // A moment that the load decides: so many keys are gone.
        let left = usize::try_from(ORGANIZATIONS - ORGANIZATIONS * kill / (KILLS + 1)).unwrap();
        until("the load to go on", async || (world.keys().await.len() < left).then_some(())).await;
        daemon.kill9().await;
        daemon = world.daemon().await;
        assert_eq!(daemon.gaps().await, [].into(), "{}", daemon.log());
    }
    writer.await.unwrap();
    world.settle().await;
    assert_eq!(world.keys().await, [org(ORGANIZATIONS + 1)].into());
    assert_eq!(daemon.gaps().await, [].into(), "{}", daemon.log());
}

#[tokio::test]
async fn sigterm_finishes_what_is_under_way_and_says_goodbye() {
    let world = World::new().await;
    world.organizations(300).await;
    let daemon = world.daemon().await;
    world.settle().await;
    world.put_each(300).await;
    world.rename_each(300).await;
    assert!(daemon.stop().await.success());
    // The server has ended the stream before the daemon ended: nobody waits for the slot.
    assert_eq!(world.walsender().await, None, "the slot is still held");
    assert_eq!(world.confirmed_flush().await, world.watermark().await);

    let daemon = world.daemon().await;
    world.settle().await;
    assert_eq!(world.keys().await, [].into());
    assert_eq!(daemon.gaps().await, [].into());
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn a_shutdown_while_redis_hangs_is_bounded_and_names_what_hung() {
    let mut world = World::new().await;
    world.set("pipeline.drain_timeout=1s");
    world.organizations(1).await;
    let mut daemon = world.daemon().await;
    world.settle().await;
    world.put(&[&org(1)]).await;
    world.redis.pause().await;
    world.rename(1).await;
    daemon.until_log("admitted").await;
    let asked = std::time::Instant::now();
    daemon.signal("TERM");
    let status = daemon.exit().await;
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    assert!(status.success(), "{status}: an orderly stop loses nothing");
    until("the whole log", async || daemon.log().contains("stopped").then_some(())).await;
    let log = daemon.log();
    let hung = log.lines().find(|line| line.contains("drain_timeout")).unwrap_or_default();
    assert!(hung.contains("apply"), "{log}");

    world.redis.resume();
    let daemon = world.daemon().await;
    world.settle().await;
    assert_eq!(world.keys().await, [].into());
    assert_eq!(daemon.gaps().await, [].into(), "{}", daemon.log());
}

const TWO_CACHES: &str = r#"
[postgres]
url = "postgres://set-by-flag"
[redis]
url = "redis://set-by-flag"
key_prefix = "prs_cache:1:"
[caches.org_data]
key = "v1:org:data:{org_id}"
[caches.org_more]
key = "v1:org:more:{org_id}"
[[tables]]
name = "organization_organization"
invalidates = [
  { cache = "org_data", org_id = "id" },
  { cache = "org_more", org_id = "id" },
]
"#;

const ONE_CACHE: &str = r#"
[postgres]
url = "postgres://set-by-flag"
[redis]
url = "redis://set-by-flag"
key_prefix = "prs_cache:1:"
[caches.org_data]
key = "v1:org:data:{org_id}"
[[tables]]
name = "organization_organization"
invalidates = [{ cache = "org_data", org_id = "id" }]
"#;

#[tokio::test]
async fn sighup_takes_a_new_mapping_or_says_why_not() {
    let mut world = World::new().await;
    world.configure(TWO_CACHES);
    world.organizations(2).await;
    let daemon = world.daemon().await;
    world.settle().await;
    world.put(&[&org(1), "v1:org:more:1", "v1:user_perms:1:1"]).await;

    // Nonsense: the old mapping stays, and works.
    world.configure("[caches");
    daemon.signal("HUP");
    daemon.until_problem("SIGHUP").await;
    // Nor does it end by what no worker's stack has room for.
    let names = format!("{{{} = ", ["a"; 79].join("."));
    world.configure(&format!("a = {}1{}", names.repeat(78), "}".repeat(78)));
    daemon.signal("HUP");
    daemon.until_log("levels deep").await;
    world.rename(1).await;
    world.settle().await;
    assert_eq!(world.keys().await, ["v1:user_perms:1:1".to_owned()].into());

    // The same rules: no gap, and the problem is gone.
    world.configure(TWO_CACHES);
    world.put(&[&org(2), "v1:org:more:2"]).await;
    daemon.signal("HUP");
    daemon.until_log("the rules are the same").await;
    daemon.until_ready().await;
    assert_eq!(daemon.gaps().await, [("no_state".to_owned(), 1)].into());
    assert_eq!(world.keys().await.len(), 3);

    // Other rules: a gap, in which the cache that left the mapping goes too; what was
    // never managed stays.
    world.configure(ONE_CACHE);
    daemon.signal("HUP");
    daemon.until_gap("mapping_changed").await;
    assert_eq!(world.keys().await, ["v1:user_perms:1:1".to_owned()].into());
    world.put(&[&org(1), "v1:org:more:1"]).await;
    world.rename(1).await;
    world.settle().await;
    assert_eq!(
        world.keys().await,
        ["v1:user_perms:1:1".to_owned(), "v1:org:more:1".to_owned()].into()
    );
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn a_second_daemon_waits_for_the_slot_and_takes_over() {
    let world = World::new().await;
    world.organizations(3).await;
    let first = world.daemon().await;
    world.settle().await;
    let holder = world.walsender().await.unwrap();

    let second = world.spawn_another();
    second.until_problem(&format!("(PID {holder})")).await;
    second.until_log("the slot is active for another session").await;
    world.put_each(3).await;
    world.rename(1).await;
    world.until_gone(&org(1)).await;
    assert_eq!(world.walsender().await, Some(holder), "the first was not disturbed");

    // Stopped in order.
    assert!(first.stop().await.success());
    second.until_ready().await;
    world.rename(2).await;
    world.settle().await;
    assert_eq!(world.keys().await, [org(3)].into());

    // Killed.
    let third = world.spawn_another();
    third.until_problem("holds the slot").await;
    second.kill9().await;
    world.rename(3).await;
    third.until_ready().await;
    world.settle().await;
    assert_eq!(world.keys().await, [].into());
    assert_eq!(third.gaps().await, [].into(), "{}", third.log());
}

#[tokio::test]
async fn a_daemon_that_wakes_up_late_changes_nothing_that_is_another_s() {
    let mut world = World::new().await;
    world.set("redis.timeout=60s");
    let redis = world.redis_proxy().await;
    world.organizations(40).await;
    let first = world.daemon().await;
    world.settle().await;
    world.put_each(40).await;

    // Its steps are on their way to Redis when it freezes.
    redis.pause();
    world.rename_each(20).await;
    first.until_log("admitted").await;
    first.signal("STOP");
    let holder = world.walsender().await.unwrap();
    world.query_one(&format!("select pg_terminate_backend({holder})::text")).await;

    // Another takes over, by a way of its own, and does what was left.
    world.set(&format!("redis.url={}", world.redis.url_db(1)));
    let second = world.spawn_another();
    second.until_ready().await;
    world.settle().await;
    assert_eq!(world.keys().await.len(), 20, "{}", second.log());
    world.put_each(40).await;

    // Now the first wakes up, and its old steps arrive.
    redis.resume().await;
    first.signal("CONT");
    first.until_problem("holds the slot").await;
    assert!(
        first.log().contains("the nonce in Redis is not the last one written")
            || first.log().contains("trying again"),
        "{}",
        first.log()
    );
    assert_eq!(world.keys().await.len(), 40, "an old step removed what was not its own");
    assert_eq!(world.state("valid").await.as_deref(), Some("1"));
    world.rename_each(40).await;
    world.settle().await;
    assert_eq!(world.keys().await, [].into());
    assert_eq!(second.gaps().await, [].into(), "{}", second.log());
}

#[tokio::test]
async fn two_daemons_that_start_together_end_up_with_one_that_works() {
    for _ in 0..3 {
        let world = World::new().await;
        world.organizations(1).await;
        let (mut one, mut other) = (world.spawn(), world.spawn_another());
        until("one to be ready and one to wait", async || {
            let (a, b) = (one.readyz().await?, other.readyz().await?);
            let waits = |r: &serde_json::Value| r["phase"] == "waiting_for_slot";
            ((a["ready"] == true && waits(&b)) || (b["ready"] == true && waits(&a))).then_some(())
        })
        .await;
        world.put_each(1).await;
        world.rename(1).await;
        world.settle().await;
        assert_eq!(world.keys().await, [].into());
        assert!(
            one.child.try_wait().unwrap().is_none() && other.child.try_wait().unwrap().is_none()
        );
    }
}

#[tokio::test]
async fn killed_in_the_middle_of_a_gap_it_begins_the_gap_anew() {
    let world = World::new().await;
    world.organizations(2).await;
    let open = world.postgres.client().await.unwrap();
    open.batch_execute(&format!("begin; {}", World::renaming(1))).await.unwrap();
    world.put_each(2).await;
    // The slot cannot be made while a transaction is open.
    let daemon = world.spawn();
    daemon.until_problem("the slot is being created").await;
    assert_eq!(world.keys().await, [].into());
    assert_eq!(world.state("valid").await.as_deref(), Some("0"));
    daemon.kill9().await;
    world.put_each(2).await;
    // The server does not notice that nobody wants that slot any more. It can be stopped
    // while it waits.
    let daemon = world.spawn();
    daemon.until_problem("holds the slot").await;
    assert_eq!(world.state("valid").await.as_deref(), Some("0"));
    assert!(daemon.stop().await.success());
    let daemon = world.spawn();
    daemon.until_problem("holds the slot").await;
    open.batch_execute("commit").await.unwrap();
    daemon.until_ready().await;
    assert_eq!(world.keys().await, [].into());
    assert_eq!(world.state("valid").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn killed_while_it_drops_a_whole_cache_it_finishes_that() {
    const DEALS: u32 = 30_000;
    let mut world = World::new().await;
    let proxy = world.redis_proxy().await;
    world.organizations(2).await;
    let daemon = world.daemon().await;
    world.settle().await;
    let fill = redis::Script::new(
        "for i = 1, tonumber(ARGV[1]) do redis.call('SET', 'prs_cache:1:v1:deal_stats:' .. i .. ':7', '{}') end",
    );
    let _: () = fill.arg(DEALS).invoke_async(&mut world.values().await).await.unwrap();
    world.put_each(2).await;
    proxy.delay(Duration::from_millis(10));
    world.postgres.execute("truncate deals_deal cascade").await.unwrap();
    until("the cache to be closed", async || {
        world.state("closed").await.is_some_and(|c| c.contains("deal_stats")).then_some(())
    })
    .await;
    daemon.kill9().await;
    assert!(world.keys().await.len() > 100, "too late to show anything");
    let closed = world.state("closed").await.unwrap();
    assert!(closed.contains("deal_stats"), "{closed}: nobody may fill it meanwhile");

    proxy.resume().await;
    let daemon = world.daemon().await;
    world.settle().await;
    let left = world.keys().await;
    assert!(!left.iter().any(|key| key.contains("deal_stats")), "{}", left.len());
    assert_eq!(world.state("closed").await.as_deref(), Some("[]"));
    assert_eq!(daemon.gaps().await, [].into(), "{}", daemon.log());
}

#[tokio::test]
async fn two_databases_that_share_a_state_do_not_purge_each_other_without_pause() {
    let one = World::new().await;
    let other = World::new().await;
    let first = one.daemon().await;
    let mut other = other;
    other.set(&format!("redis.url={}", one.redis.url_db(1)));
    let second = other.spawn();
    first.until_gap("chain_broken").await;
    second.until_log("started anew").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let count = |gaps: std::collections::BTreeMap<String, u32>| gaps.values().sum::<u32>();
    let gaps = count(first.gaps().await) + count(second.gaps().await);
    assert!(gaps < 20, "{gaps} purges in three seconds");
}
