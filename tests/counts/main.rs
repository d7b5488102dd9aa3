//! What a change costs, in instructions and allocations, is what it was: `benches/counts/`.
//!
//! In the build that all tests are in, which is not optimized: what becomes more of it becomes more
//! of an optimized one, too, mostly. `make counts` has that.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "../../benches/counts/mod.rs"]
mod counts;

use counts::callgrind;
use counts::judge::{Build, compare, judge};

/// After a change that is meant to cost what it costs: `UPDATE_COUNTS=1 cargo test --test counts`.
#[test]
fn a_change_costs_what_it_did_and_no_more_among_many_rules_and_tables() {
    let complaints = judge(Build::Tests, |command| {
        command.args(["--exact", "the_process_that_is_counted", "--ignored", "--nocapture"]);
    });
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
#[ignore = "the body of a process that the other test starts"]
fn the_process_that_is_counted() {
    callgrind::is_counted();
}

#[test]
fn what_is_more_or_fewer_than_the_tolerance_is_told_and_so_is_what_has_no_baseline() {
    let judged = |before, now| compare("drain", "allocations", before, now, 0.2);
    assert_eq!(judged(Some(16.9), 17.1), None);
    assert_eq!(
        judged(Some(16.9), 17.9).unwrap(),
        "drain: 17.9 allocations a change, more than the 16.9 of the baseline (+5.9 %)"
    );
    assert!(judged(Some(16.9), 15.9).unwrap().contains("fewer"));
    assert!(judged(None, 16.9).unwrap().contains("not in the baseline"));
}
