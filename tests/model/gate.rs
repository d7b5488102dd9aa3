//! Rules 1, 3 and 4 in a world without faults: the gate, the lease, the token.

use super::check::{breaks, holds};
use super::invariants::{
    NO_FILL_MISSES_AN_APPLIED_INVALIDATION, WHAT_IS_CACHED_AT_REST_IS_CURRENT,
};
use super::scenario::{Faults, ON_PRIMARY, Scenario, Tx};

/// Two writers, of which the second is not held up by the first, and two fillers that
/// pause as long as they like.
fn two_fillers() -> Scenario {
    Scenario {
        fillers: &[ON_PRIMARY, ON_PRIMARY],
        faults: Faults { crash: 1, lost_answer: 1, lease_expiry: true, ..Faults::default() },
        ..Scenario::of(&[Tx { open: true, aborts: true, ..Tx::plain() }, Tx::plain()])
    }
}

#[test]
fn fills_by_lease_behind_the_gate_are_never_stale() {
    holds(&two_fillers());
}

#[test]
fn without_the_gate_a_stale_fill_is_found() {
    breaks(&two_fillers().without(|r| r.gate = false), NO_FILL_MISSES_AN_APPLIED_INVALIDATION);
    breaks(&two_fillers().without(|r| r.gate = false), WHAT_IS_CACHED_AT_REST_IS_CURRENT);
}

#[test]
fn without_voiding_leases_a_stale_fill_is_found() {
    breaks(
        &two_fillers().without(|r| r.lease_void = false),
        NO_FILL_MISSES_AN_APPLIED_INVALIDATION,
    );
}

#[test]
fn without_the_token_check_a_stale_fill_is_found() {
    breaks(
        &two_fillers().without(|r| r.token_check = false),
        NO_FILL_MISSES_AN_APPLIED_INVALIDATION,
    );
}
