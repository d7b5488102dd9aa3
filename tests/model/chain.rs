//! Rules 3, 4, 6 and 7 where Redis forgets: the chain of nonces, the filler's session, what
//! a restart takes up at, and when Postgres is told.

use super::check::{breaks, holds};
use super::invariants::{
    NO_FILL_MISSES_AN_APPLIED_INVALIDATION, NOT_EVEN_LITERALLY, NOTHING_UNAPPLIED_IS_ACKNOWLEDGED,
    WHAT_IS_CACHED_AT_REST_IS_CURRENT,
};
use super::scenario::{Faults, Scenario, Tx};

/// Redis comes back with an older state, the daemon dies, answers are lost, and a command
/// arrives long after it was sent.
fn rolled_back() -> Scenario {
    Scenario {
        faults: Faults {
            crash: 1,
            dump: 1,
            restore: 1,
            lost_answer: 1,
            late: 1,
            ..Faults::default()
        },
        ..Scenario::of(&[Tx::plain()])
    }
}

/// Two transactions, one of which the gate holds up.
fn overtaken() -> Scenario {
    Scenario {
        faults: Faults { crash: 2, ..Faults::default() },
        ..Scenario::of(&[Tx::plain(), Tx::plain()])
    }
}

/// Keys that are removed in two steps.
fn two_keys() -> Scenario {
    Scenario {
        keys: 2,
        faults: Faults { crash: 1, dump: 1, restore: 1, lost_answer: 1, ..Faults::default() },
        ..Scenario::of(&[Tx::on(&[0, 1])])
    }
}

#[test]
fn a_redis_that_forgets_is_noticed() {
    holds(&rolled_back());
}

#[test]
fn a_batch_of_several_steps_survives_everything_between_them() {
    holds(&two_keys());
}

#[test]
fn a_parked_transaction_survives_every_restart() {
    holds(&overtaken());
}

#[test]
fn without_the_chain_what_redis_forgot_stays_cached() {
    breaks(&rolled_back().without(|r| r.chain = false), WHAT_IS_CACHED_AT_REST_IS_CURRENT);
}

#[test]
fn with_the_greatest_position_at_a_restart_a_parked_transaction_is_lost() {
    let scenario = overtaken().without(|r| r.watermark_at_restart = false);
    breaks(&scenario, NOTHING_UNAPPLIED_IS_ACKNOWLEDGED);
    breaks(&scenario, WHAT_IS_CACHED_AT_REST_IS_CURRENT);
}

#[test]
fn without_comparing_the_slots_position_what_redis_forgot_stays_cached() {
    breaks(&rolled_back().without(|r| r.slot_position = false), WHAT_IS_CACHED_AT_REST_IS_CURRENT);
}

/// Then Redis's watermark is behind the slot, which the next start finds: a gap more.
#[test]
fn acknowledging_early_is_noticed_at_the_restart() {
    let scenario = rolled_back().without(|r| r.acknowledge_last = false);
    breaks(&scenario, NOTHING_UNAPPLIED_IS_ACKNOWLEDGED);
    holds(&Scenario { excused: true, ..scenario.clone() });
    breaks(&scenario.without(|r| r.slot_position = false), WHAT_IS_CACHED_AT_REST_IS_CURRENT);
}

/// Chain and purge cover it, but for what was lost with a part of Redis's history.
#[test]
fn without_the_fillers_session_only_the_literal_reading_breaks() {
    let literal = Scenario { literal: true, ..rolled_back() };
    holds(&literal);
    holds(&rolled_back().without(|r| r.filler_session = false));
    breaks(&literal.without(|r| r.filler_session = false), NOT_EVEN_LITERALLY);
}

#[test]
fn without_voiding_leases_a_fill_misses_what_a_later_step_removed() {
    breaks(&two_keys().without(|r| r.lease_void = false), NO_FILL_MISSES_AN_APPLIED_INVALIDATION);
}
