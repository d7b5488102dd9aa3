//! Rule 8: gaps, the slot, and the transactions that no stream will carry.

use super::check::{breaks, holds};
use super::invariants::WHAT_IS_CACHED_AT_REST_IS_CURRENT;
use super::scenario::{Beginning, Faults, Scenario, Tx};

const LONG: Tx = Tx { open: true, aborts: true, ..Tx::plain() };

/// A first start, beside a transaction that may be anywhere: its commit record may be
/// written before the slot is made, while no snapshot shows it. Redis may be emptied, the
/// daemon may die.
fn first_start() -> Scenario {
    Scenario {
        beginning: Beginning::Nothing,
        faults: Faults { crash: 1, flush: 1, ..Faults::default() },
        ..Scenario::of(&[LONG])
    }
}

/// The slot is lost, or made anew by an operator.
fn slot_lost() -> Scenario {
    Scenario {
        faults: Faults { crash: 1, slot_lost: 1, slot_recreated: 1, ..Faults::default() },
        ..Scenario::of(&[LONG, Tx::plain()])
    }
}

/// An old state comes back and the daemon dies while it cleans up.
fn cleaning_up() -> Scenario {
    Scenario {
        faults: Faults { crash: 2, dump: 1, restore: 1, evict: 1, ..Faults::default() },
        ..Scenario::of(&[Tx::plain()])
    }
}

/// Postgres crashes, and an asynchronous commit that was visible is gone.
fn postgres_crashes() -> Scenario {
    Scenario {
        faults: Faults { crash: 1, postgres_crash: 1, ..Faults::default() },
        ..Scenario::of(&[Tx { asynchronous: true, ..Tx::plain() }, Tx::plain()])
    }
}

#[test]
fn a_first_start_beside_open_transactions_leaves_nothing_stale() {
    holds(&first_start());
}

#[test]
fn a_lost_slot_leaves_nothing_stale() {
    holds(&slot_lost());
}

#[test]
fn a_gap_that_is_interrupted_is_begun_anew() {
    holds(&cleaning_up());
}

#[test]
fn what_a_crash_recovery_took_back_is_not_cached() {
    holds(&postgres_crashes());
}

#[test]
fn without_suspects_a_stale_fill_stays() {
    breaks(&first_start().without(|r| r.suspects = false), WHAT_IS_CACHED_AT_REST_IS_CURRENT);
}

#[test]
fn without_suspects_at_every_gap_a_stale_fill_stays() {
    let scenario = first_start().without(|r| r.suspects_at_every_gap = false);
    breaks(&scenario, WHAT_IS_CACHED_AT_REST_IS_CURRENT);
}

#[test]
fn without_keeping_suspects_a_stale_fill_stays() {
    let scenario = first_start().without(|r| r.suspects_persisted = false);
    breaks(&scenario, WHAT_IS_CACHED_AT_REST_IS_CURRENT);
}

#[test]
fn without_an_xid_of_its_own_the_daemon_overlooks_a_suspect() {
    let scenario = first_start().without(|r| r.suspects_by_own_xid = false);
    breaks(&scenario, WHAT_IS_CACHED_AT_REST_IS_CURRENT);
}

#[test]
fn with_the_valid_state_first_an_interrupted_purge_leaves_stale_values() {
    breaks(&cleaning_up().without(|r| r.valid_last = false), WHAT_IS_CACHED_AT_REST_IS_CURRENT);
}

#[test]
fn without_the_slots_position_what_a_new_slot_skipped_stays_cached() {
    breaks(&slot_lost().without(|r| r.slot_position = false), WHAT_IS_CACHED_AT_REST_IS_CURRENT);
}

#[test]
fn without_the_incarnation_a_value_stays_that_never_was() {
    breaks(
        &postgres_crashes().without(|r| r.incarnation = false),
        WHAT_IS_CACHED_AT_REST_IS_CURRENT,
    );
}
