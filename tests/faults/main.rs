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

mod inflict;
mod ledger;
mod load;
mod readers;
mod rest;
mod schedule;
mod stage;
#[path = "../support/mod.rs"]
mod support;
#[path = "../default_mapping_complete/universe.rs"]
mod universe;
#[path = "../default_mapping_complete/writer.rs"]
mod writer;

use std::time::{Duration, Instant};

use ledger::Tally;
use schedule::Plan;
use stage::Stage;
use tokio::task::JoinSet;

/// Plays a plan, and says what was counted. What was wrong ends it at once.
async fn play(plan: &Plan, without_gate: bool) -> Tally {
    println!("{plan}");
    let stage = Stage::new(plan.place, without_gate).await;
    for act in &plan.acts {
        load::load_rows(&stage).await;
        stage.writing.set(false);
        stage.reading.set(false);
        let mut writers = load::start(&stage, plan.seed);
        let mut readers = readers::start(&stage);
        stage.play(act).await;
        stage.writing.set(true);
        ended("writers", &mut writers).await;
        stage.settle().await;
        stage.reading.set(true);
        ended("readers", &mut readers).await;
        rest::compare(&stage).await;
        rest::audit(&stage).await;
        let tally = stage.ledger.tally();
        if !tally.is_clean() {
            println!("{}", stage.daemon.lock().await.log());
            return tally;
        }
    }
    let mut daemon = stage.daemon.lock().await;
    stage.look_at(&mut daemon, false);
    stage.ledger.tally()
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
    assert!(tally.is_clean(), "{plan}\n{tally}");
    for (what, least) in
        [("versions", 50), ("stored", 50), ("looks", 50), ("marked", 20), ("compared", 20)]
    {
        assert!(
            tally.of(what) >= least,
            "too little has happened to say anything: {what}\n{plan}\n{tally}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stale_is_left_whatever_goes_wrong_by_the_first_seed() {
    holds(1, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "as long as one likes: make faults SEED=… SECONDS=…"]
async fn seeds() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first: u64 = number("FAULTS_SEED").unwrap_or_else(|| fastrand::u64(0..1_000_000));
    let time = Duration::from_secs(number("FAULTS_SECONDS").unwrap_or(60));
    let acts = number("FAULTS_ACTS").map_or(2, |acts| usize::try_from(acts).unwrap());
    let start = Instant::now();
    let mut seed = first;
    while seed == first || start.elapsed() < time {
        holds(seed, acts).await;
        seed += 1;
    }
    println!("{} seeds from {first}: stale 0, lost 0, panics 0", seed - first);
}
