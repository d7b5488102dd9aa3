//! Rule 5: fillers that read a standby, which lags as it likes.

use super::check::{breaks, holds};
use super::invariants::{
    NO_FILL_MISSES_AN_APPLIED_INVALIDATION, WHAT_IS_CACHED_AT_REST_IS_CURRENT,
};
use super::scenario::{Beginning, Faults, ON_PRIMARY, ON_REPLICA, Scenario, Tx};

/// Two writers, a filler on the standby and one on the primary.
fn lagging() -> Scenario {
    Scenario {
        fillers: &[ON_REPLICA, ON_PRIMARY],
        faults: Faults { crash: 1, lease_expiry: true, ..Faults::default() },
        ..Scenario::of(&[Tx::plain(), Tx::plain()])
    }
}

/// The standby has not replayed what was committed before the daemon's first start.
fn behind_the_slot() -> Scenario {
    Scenario {
        fillers: &[ON_REPLICA],
        beginning: Beginning::Nothing,
        faults: Faults { crash: 1, flush: 1, ..Faults::default() },
        ..Scenario::of(&[Tx::plain(), Tx::plain()])
    }
}

#[test]
fn a_standby_that_lags_gives_nothing_stale() {
    holds(&lagging());
}

#[test]
fn a_standby_behind_the_slot_gives_nothing_stale() {
    holds(&behind_the_slot());
}

#[test]
fn with_the_frontier_read_before_the_lease_a_stale_fill_is_found() {
    let scenario = lagging().without(|r| r.frontier_with_lease = false);
    breaks(&scenario, NO_FILL_MISSES_AN_APPLIED_INVALIDATION);
    breaks(&scenario, WHAT_IS_CACHED_AT_REST_IS_CURRENT);
}

#[test]
fn with_the_replay_position_read_after_the_snapshot_a_stale_fill_is_found() {
    let scenario = lagging().without(|r| r.replay_before_snapshot = false);
    breaks(&scenario, NO_FILL_MISSES_AN_APPLIED_INVALIDATION);
    breaks(&scenario, WHAT_IS_CACHED_AT_REST_IS_CURRENT);
}

#[test]
fn with_the_beginning_of_the_commit_record_a_stale_fill_is_found() {
    let scenario = lagging().without(|r| r.frontier_of_commit_end = false);
    breaks(&scenario, NO_FILL_MISSES_AN_APPLIED_INVALIDATION);
    breaks(&scenario, WHAT_IS_CACHED_AT_REST_IS_CURRENT);
}

#[test]
fn without_a_frontier_at_a_gap_a_stale_fill_stays() {
    breaks(
        &behind_the_slot().without(|r| r.frontier_at_gap = false),
        WHAT_IS_CACHED_AT_REST_IS_CURRENT,
    );
}
