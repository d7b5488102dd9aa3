//! Everything goes wrong, by a schedule, and nothing stale is stored, served or left.
//!
//! The real daemon between real servers, behind proxies; writers of every kind, fillers by lease,
//! readers by the API; a schedule of faults made from a seed ([`schedule`]); then quiet. Then
//! every cached value is compared with the database, every counter with the log.
//! `make faults SEED=… SECONDS=…` repeats a seed's schedule (of what is done, not of the timing)
//! and goes on with the seeds after it.
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

mod audit;
mod inflict;
mod ledger;
mod load;
mod raise;
mod readers;
mod rest;
mod schedule;
mod stage;
#[path = "../support/mod.rs"]
mod support;
#[path = "../default_mapping_complete/universe.rs"]
mod universe;
mod what;
#[path = "../default_mapping_complete/writer.rs"]
mod writer;

use std::time::{Duration, Instant};

use ledger::Tally;
use redis::AsyncCommands as _;
use schedule::{Act, Fault, Place, Plan};
use stage::Stage;
use support::PATIENCE;
use tokio::task::JoinSet;
use unstale::pipeline::points::Point;
use what::What;

/// How many acts `make faults` plays of a seed.
const ACTS: usize = 3;

/// Plays a plan, and says what was counted. What was wrong ends it at once.
async fn play(plan: &Plan, without_gate: bool) -> Tally {
    println!("{plan}");
    let stage = Stage::new(plan.place, without_gate).await;
    for act in &plan.acts {
        load::load_rows(&stage).await;
        stage.writing.clear();
        stage.reading.clear();
        let mut writers = load::start(&stage, plan.seed);
        let mut readers = readers::start(&stage);
        stage.play(act).await;
        until_enough(&stage).await;
        stage.writing.set();
        ended("writers", &mut writers).await;
        stage.settle().await;
        until_cached(&stage).await;
        stage.reading.set();
        ended("readers", &mut readers).await;
        rest::compare(&stage).await;
        audit::audit(&stage).await;
        if !stage.ledger.tally().is_clean() {
            break;
        }
    }
    let mut daemon = stage.daemon.lock().await;
    stage.look_at(&mut daemon, false);
    stage.count_gaps(&daemon);
    Tally { log: daemon.log(), ..stage.ledger.tally() }
}

/// What must have happened, and how often, for an absence of stale values to say anything.
const ENOUGH: [(&str, u64); 4] = [("versions", 50), ("stored", 50), ("looks", 50), ("marked", 20)];

/// A slow machine is given time. Whether it was enough is judged at the end.
async fn until_enough(stage: &Stage) {
    let start = Instant::now();
    let enough = |tally: &Tally| ENOUGH.iter().all(|(what, least)| tally.of(what) >= *least);
    while !enough(&stage.ledger.tally()) && start.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Values to compare, of a few of which generations have passed.
const COMPARED: usize = 20;

/// Who reads goes on until there is something to compare.
async fn until_cached(stage: &Stage) {
    let start = Instant::now();
    while stage.world.keys().await.len() < COMPARED * 3 / 2 && start.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn ended(who: &str, tasks: &mut JoinSet<()>) {
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all)
        .await
        .unwrap_or_else(|_| panic!("the {who} did not end"));
}

/// Nothing was wrong, and there was enough to see it.
async fn holds(seed: u64, acts: usize) {
    let plan = Plan::new(seed, acts);
    let start = Instant::now();
    let tally = play(&plan, false).await;
    println!("SEED={seed} seconds={} {tally}", start.elapsed().as_secs());
    assert!(tally.is_clean(), "{plan}\n{tally}\n{}", tally.log);
    for (what, least) in ENOUGH.into_iter().chain([("compared", COMPARED as u64)]) {
        assert!(
            tally.of(what) >= least,
            "too little has happened to say anything: {what}\n{plan}\n{tally}\n{}",
            tally.log
        );
    }
}

/// The first seeds of which the places are these.
const PLAIN: u64 = 102;
const STANDBY: u64 = 101;
const APPENDS: u64 = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stale_is_left_whatever_goes_wrong_on_a_plain_primary() {
    assert_eq!(Plan::new(PLAIN, 1).place.standby, None);
    holds(PLAIN, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stale_is_left_whatever_goes_wrong_where_commits_wait_for_a_standby() {
    assert_eq!(Plan::new(STANDBY, 1).place.standby, Some("remote_apply"));
    holds(STANDBY, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stale_is_left_whatever_goes_wrong_where_redis_keeps_its_data() {
    assert!(Plan::new(APPENDS, 1).place.appends);
    holds(APPENDS, 1).await;
}

/// Each of them, and each must come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stale_is_left_by_who_dies_at_any_of_the_named_points() {
    let place = Place { standby: None, appends: false, streaming: true, announced: true };
    let stage = Stage::new(place, false).await;
    load::load_rows(&stage).await;
    let mut writers = load::start(&stage, 0);
    let mut readers = readers::start(&stage);
    for (number, point) in (1..).zip(Point::ALL) {
        stage.until_ready().await;
        let what = What::DaemonKilledAt(point);
        stage.inflict(&Fault { at: Duration::ZERO, lasts: PATIENCE, what }).await;
        assert_eq!(stage.ledger.tally().of("killed_at_points"), number, "{point:?} was not met");
    }
    stage.writing.set();
    ended("writers", &mut writers).await;
    stage.settle().await;
    stage.reading.set();
    ended("readers", &mut readers).await;
    rest::compare(&stage).await;
    let tally = stage.ledger.tally();
    assert!(tally.is_clean(), "{tally}");
}

/// How many seeds `make test-long` takes.
#[cfg(feature = "long-tests")]
const MANY: u64 = 30;

#[cfg(feature = "long-tests")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stale_is_left_by_any_of_many_seeds() {
    for seed in 1..=MANY {
        holds(seed, 2).await;
    }
    println!("{MANY} seeds: stale 0, lost 0, panics 0");
}

/// Nothing of it is excused here: see the ledger.
#[cfg(feature = "long-tests")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_stream_carries_is_not_overlooked_for_a_moment_where_event_triggers_tell() {
    let lasts = Duration::from_millis(700);
    let faults = [
        What::TableUnpublished(what::Table::Items),
        What::TableRewritten,
        What::TableUnpublished(what::Table::Items),
        What::PublicationDropped,
    ];
    let at = |nth: u64| Duration::from_millis(500 + nth * 2000);
    let faults = (0..).zip(faults).map(|(nth, what)| Fault { at: at(nth), lasts, what });
    let place = Place { standby: None, appends: false, streaming: true, announced: true };
    let plan = Plan { seed: 0, place, acts: vec![Act { faults: faults.collect() }; 3] };
    let tally = play(&plan, false).await;
    assert!(tally.is_clean(), "{plan}\n{tally}\n{}", tally.log);
    assert_eq!(tally.of("unpublished"), 6, "{tally}");
}

/// What the harness is worth: a standby that hangs is enough to find out who leaves out the gate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_gate_the_harness_finds_what_is_stale() {
    let hangs = |at: u64| Fault {
        at: Duration::from_millis(at),
        lasts: Duration::from_millis(700),
        what: What::StandbyFrozen,
    };
    let act = Act { faults: (0..7).map(|i| hangs(500 + i * 1200)).collect() };
    let place = Place { standby: Some("on"), appends: false, streaming: true, announced: true };
    let plan = Plan { seed: 0, place, acts: vec![act; 3] };
    let tally = play(&plan, true).await;
    assert!(!tally.stale_stored.is_empty(), "it has found nothing: {tally}");
}

#[tokio::test]
async fn at_rest_the_harness_finds_what_is_stale_and_what_was_lost() {
    let place = Place { standby: None, appends: false, streaming: true, announced: true };
    let stage = Stage::new(place, false).await;
    load::load_rows(&stage).await;
    stage.settle().await;
    rest::compare(&stage).await;
    assert!(stage.ledger.tally().is_clean(), "{}", stage.ledger.tally());
    let mut values = stage.world.values().await;
    for (key, value) in [("v1:item:1500", load::MARK), ("v1:item:7", "7"), ("v1:org:data:1", "{}")]
    {
        let _: () = values.set_ex(format!("prs_cache:1:{key}"), value, 3600).await.unwrap();
    }
    rest::compare(&stage).await;
    let tally = stage.ledger.tally();
    assert_eq!((tally.lost.len(), tally.stale_stored.len()), (1, 2), "{tally}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "as long as one likes: make faults SEED=… SECONDS=…"]
async fn seeds() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first: u64 = number("FAULTS_SEED").unwrap_or_else(|| fastrand::u64(0..1_000_000));
    let time = Duration::from_secs(number("FAULTS_SECONDS").unwrap_or(120));
    let start = Instant::now();
    let mut seed = first;
    while seed == first || start.elapsed() < time {
        holds(seed, ACTS).await;
        seed += 1;
    }
    println!("{} seeds from {first}: stale 0, lost 0, panics 0", seed - first);
}
