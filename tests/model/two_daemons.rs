//! Rules 3 and 7: a second daemon takes over while the first does not know that it is dead.

use super::check::{breaks, holds};
use super::invariants::{
    NO_FILL_MISSES_AN_APPLIED_INVALIDATION, WHAT_IS_CACHED_AT_REST_IS_CURRENT,
};
use super::scenario::{Beginning, Faults, ON_REPLICA, Scenario, Tx};
use super::set::Set;

const TRUNCATE: Tx = Tx { keys: Set::EMPTY, whole: true, ..Tx::plain() };

fn taken_over() -> Scenario {
    Scenario {
        daemons: 2,
        faults: Faults { cut: 1, late: 1, ..Faults::default() },
        ..Scenario::of(&[Tx::plain(), Tx::plain()])
    }
}

/// Fillers go by the frontier.
fn read_from_a_standby() -> Scenario {
    Scenario {
        daemons: 2,
        fillers: &[ON_REPLICA],
        faults: Faults { cut: 1, ..Faults::default() },
        ..Scenario::of(&[Tx::plain(), Tx::plain()])
    }
}

/// The first is dropping a whole cache.
fn while_dropping() -> Scenario {
    Scenario {
        daemons: 2,
        faults: Faults { cut: 1, crash: 1, ..Faults::default() },
        ..Scenario::of(&[TRUNCATE])
    }
}

/// The first is in the middle of a gap.
fn while_starting() -> Scenario {
    Scenario {
        daemons: 2,
        beginning: Beginning::Nothing,
        faults: Faults { cut: 1, ..Faults::default() },
        ..Scenario::of(&[Tx { open: true, ..Tx::plain() }])
    }
}

#[test]
fn a_daemon_that_does_not_know_it_is_dead_does_no_harm() {
    holds(&taken_over());
}

#[test]
fn nor_does_it_to_who_reads_a_standby() {
    holds(&read_from_a_standby());
}

#[test]
fn nor_does_one_that_is_dropping_a_cache() {
    holds(&while_dropping());
}

#[test]
fn nor_does_one_that_is_in_a_gap() {
    holds(&while_starting());
}

#[test]
fn without_the_chain_the_dead_daemon_takes_the_frontier_back() {
    let scenario = read_from_a_standby().without(|r| r.chain = false);
    breaks(&scenario, NO_FILL_MISSES_AN_APPLIED_INVALIDATION);
    breaks(&scenario, WHAT_IS_CACHED_AT_REST_IS_CURRENT);
}
