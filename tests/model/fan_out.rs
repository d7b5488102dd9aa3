//! Rule 2: keys that depend on a row by way of another. Key 0 is a child, which moves from
//! one parent to the other while both change.

use super::check::{breaks, holds};
use super::invariants::{
    NO_FILL_MISSES_AN_APPLIED_INVALIDATION, WHAT_IS_CACHED_AT_REST_IS_CURRENT,
};
use super::scenario::{Faults, ON_PRIMARY, ON_REPLICA, Scenario, Tx};
use super::set::Set;

const MOVE: Tx = Tx { keys: Set::EMPTY, moves: true, ..Tx::plain() };
const OLD_PARENT: Tx = Tx { keys: Set::EMPTY, parent: Some(0), ..Tx::plain() };
const NEW_PARENT: Tx = Tx { keys: Set::EMPTY, parent: Some(1), ..Tx::plain() };

fn moved() -> Scenario {
    Scenario {
        fillers: &[ON_PRIMARY],
        faults: Faults { crash: 1, ..Faults::default() },
        ..Scenario::of(&[OLD_PARENT, MOVE, NEW_PARENT])
    }
}

/// Filled from a standby.
fn moved_read_there() -> Scenario {
    Scenario { fillers: &[ON_REPLICA], ..moved() }
}

#[test]
fn a_child_that_moves_between_changing_parents_is_never_stale() {
    holds(&moved());
}

#[test]
fn nor_is_it_when_read_from_a_standby() {
    holds(&moved_read_there());
}

#[test]
fn with_lookups_before_the_gate_a_stale_fill_stays() {
    breaks(&moved().without(|r| r.gated_lookups = false), WHAT_IS_CACHED_AT_REST_IS_CURRENT);
}

#[test]
fn with_lookups_that_end_late_a_stale_fill_stays() {
    breaks(
        &moved_read_there().without(|r| r.lookups_end_first = false),
        WHAT_IS_CACHED_AT_REST_IS_CURRENT,
    );
}

/// A parent changes that has no child as far as the lookup can see: no key, but whoever
/// reads the child as it was attached must read the parent as changed.
#[test]
fn without_keyless_transactions_in_the_frontier_a_stale_fill_stays() {
    breaks(
        &moved_read_there().without(|r| r.frontier_of_keyless = false),
        WHAT_IS_CACHED_AT_REST_IS_CURRENT,
    );
}

#[test]
fn without_the_gate_a_stale_fill_is_found() {
    breaks(&moved().without(|r| r.gate = false), NO_FILL_MISSES_AN_APPLIED_INVALIDATION);
}
