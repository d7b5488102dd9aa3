//! Nothing stale is ever stored: the proof on real servers.
//!
//! Writers raise the versions of a few rows, fillers read through the protocol with pauses
//! wherever something can come in between, the real daemon removes what changes. What was
//! stored and what was read is compared with the history that a second replication slot
//! tells, by another output plugin than the daemon's. Each case is one environment; the last
//! ones take something out of the protocol, and the oracle must notice.
//!
//! `make soak SECONDS=…` runs the same cases for longer and prints what they counted.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "a test fails by panicking"
)]

mod case;
mod filler;
mod history;
mod oracle;
mod process;
mod reader;
#[path = "../support/mod.rs"]
mod support;
mod writer;

use std::time::Duration;

use case::{Case, Disturbance};
use filler::Reads;
use oracle::{Progress, Report};

/// How long a case runs in `make test`.
const SHORT: Duration = Duration::from_secs(3);

fn plain() -> Case {
    Case::default()
}

fn synchronous_standby() -> Case {
    Case { synchronous_commit: Some("on"), ..Case::default() }
}

fn delayed_remote_apply() -> Case {
    Case {
        synchronous_commit: Some("remote_apply"),
        apply_delay: Duration::from_millis(15),
        ..Case::default()
    }
}

fn long_transactions() -> Case {
    Case { writers: 10, transaction: Duration::from_millis(300), ..Case::default() }
}

fn slow_fillers() -> Case {
    let (lease, pause) = (Duration::from_millis(100), Duration::from_millis(300));
    Case { lease, pause, ..Case::default() }
}

fn stopped_fillers() -> Case {
    Case {
        lease: Duration::from_millis(150),
        disturbance: Disturbance::StopFillers,
        ..Case::default()
    }
}

fn whole_caches() -> Case {
    Case { disturbance: Disturbance::DropWholeCaches, ..Case::default() }
}

fn lost_redis() -> Case {
    Case { disturbance: Disturbance::LoseRedis, ..Case::default() }
}

fn killed_daemon() -> Case {
    Case { disturbance: Disturbance::KillDaemon, ..Case::default() }
}

fn rewarming_daemon() -> Case {
    Case { rewarm: true, ..Case::default() }
}

/// Loads now and then take longer than an old value may stay.
fn refreshing_daemon() -> Case {
    let (may, pause) = (Duration::from_millis(250), Duration::from_millis(400));
    Case { rewarm: true, max_staleness: Some(may), pause, ..Case::default() }
}

fn lagging_standby() -> Case {
    Case {
        reads: Reads::Standby,
        apply_delay: Duration::from_millis(15),
        rewarm: true,
        disturbance: Disturbance::PauseReplay,
        ..Case::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stale_is_stored_on_a_plain_primary() {
    plain().run(SHORT, Progress::is_enough).await.assert_fresh();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stale_is_stored_with_a_synchronous_standby() {
    synchronous_standby().run(SHORT, Progress::is_enough).await.assert_fresh();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stale_is_stored_while_commits_wait_for_a_delayed_standby_to_apply_them() {
    delayed_remote_apply().run(SHORT, Progress::is_enough).await.assert_fresh();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stale_is_stored_under_long_overlapping_transactions() {
    long_transactions().run(SHORT, Progress::is_enough).await.assert_fresh();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stale_is_stored_by_fillers_that_take_longer_than_their_lease() {
    let report = slow_fillers().run(SHORT, |now| now.is_enough() && now.expired > 0).await;
    report.assert_fresh();
    assert!(report.expired > 0, "no filler outlived its lease: {report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stale_is_stored_by_a_process_that_was_stopped_for_longer_than_its_leases() {
    let report = stopped_fillers().run(SHORT, |now| now.is_enough() && now.expired > 0).await;
    report.assert_fresh();
    assert!(report.expired > 0, "no filler was stopped with a lease: {report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stale_is_stored_while_whole_caches_are_dropped() {
    let report = whole_caches().run(SHORT, Progress::is_enough).await;
    report.assert_fresh();
    assert!(report.whole_drops > 0.0, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stale_is_stored_while_redis_is_killed_and_restored() {
    let report = lost_redis().run(SHORT, Progress::is_enough).await;
    report.assert_fresh();
    assert!(report.gaps.contains_key("chain_broken"), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stale_is_stored_while_the_daemon_is_killed_and_comes_back() {
    let report = killed_daemon().run(SHORT, Progress::is_enough).await;
    report.assert_fresh();
    assert!(report.log.contains("resuming"), "what was cached should have stood: {}", report.log);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stale_is_stored_while_the_daemon_fills_as_well() {
    let report = rewarming_daemon().run(SHORT, Progress::is_enough).await;
    report.assert_fresh();
    assert!(report.rewarmed > 0.0, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_older_than_max_staleness_is_read_while_the_daemon_refreshes() {
    let report = refreshing_daemon().run(SHORT, Progress::is_enough).await;
    report.assert_fresh();
    assert!(report.refreshed > 0.0, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_older_than_max_staleness_is_read_while_a_refreshing_daemon_is_killed() {
    let case = Case { disturbance: Disturbance::KillDaemon, ..refreshing_daemon() };
    case.run(SHORT, Progress::is_enough).await.assert_fresh();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oracle_finds_what_is_older_than_it_allows() {
    let case = Case { allowed: 0.4, ..refreshing_daemon() };
    let report = case.run(SHORT, |now| now.stale_reads > 0).await;
    assert!(report.stale_reads > 0, "{report}\n{}", report.log);
    assert_eq!(report.stale_fills, 0, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stale_is_stored_by_who_reads_a_standby_that_lags() {
    let enough = |now: Progress| now.is_enough() && now.from_standby > 50;
    let report = lagging_standby().run(SHORT, enough).await;
    report.assert_fresh();
    assert!(report.from_standby > 50, "too little was read from the standby: {report}");
}

async fn assert_found_out(case: Case) -> Report {
    let report = case.run(SHORT, |now| now.stale_fills > 0).await;
    println!("{report}\n{:#?}", report.examples);
    assert!(report.stale_fills > 0, "the oracle found no stale fill: {report}\n{}", report.log);
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_gate_the_oracle_finds_stale_fills() {
    let report = assert_found_out(Case { without_gate: true, ..delayed_remote_apply() }).await;
    assert!(report.log.contains("the visibility gate is OFF"), "it must be loud: {}", report.log);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_leases_the_oracle_finds_stale_fills() {
    assert_found_out(Case { without_leases: true, ..plain() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_reading_a_standby_without_asking_how_far_it_is_stale_fills_are_made() {
    let reads = Reads::StandbyUnasked;
    assert_found_out(Case { reads, rewarm: false, ..lagging_standby() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_asking_a_standby_how_far_it_is_on_an_older_snapshot_stale_fills_are_made() {
    let reads = Reads::StandbyAskedLate;
    assert_found_out(Case { reads, rewarm: false, ..lagging_standby() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "as long as one likes: make soak SECONDS=…"]
async fn soak() {
    let seconds = std::env::var("PROOF_SECONDS").ok().and_then(|text| text.parse().ok());
    let cases = [
        ("plain primary", plain()),
        ("synchronous standby", synchronous_standby()),
        ("remote_apply, 15 ms later", delayed_remote_apply()),
        ("long transactions", long_transactions()),
        ("slow fillers", slow_fillers()),
        ("stopped fillers", stopped_fillers()),
        ("whole caches dropped", whole_caches()),
        ("Redis killed and restored", lost_redis()),
        ("daemon killed", killed_daemon()),
        ("rewarming daemon", rewarming_daemon()),
        ("refreshing daemon", refreshing_daemon()),
        ("standby that lags is read", lagging_standby()),
    ];
    let count = u32::try_from(cases.len()).unwrap();
    let time = Duration::from_secs(seconds.unwrap_or(120)) / count;
    println!("\n{count} cases, {time:?} each");
    for (name, case) in cases {
        let report = case.run(time, Progress::is_enough).await;
        println!("{name}\n{report}");
        report.assert_fresh();
    }
}
