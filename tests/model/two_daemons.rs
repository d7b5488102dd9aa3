//! Rules 3 and 7: a second daemon takes over while the first does not know that it is dead.

use super::check::{breaks, holds};
use super::invariants::WHAT_IS_CACHED_AT_REST_IS_CURRENT;
use super::scenario::{Beginning, Faults, Scenario, Tx};
use super::set::Set;

const TRUNCATE: Tx = Tx { keys: Set::EMPTY, whole: true, ..Tx::plain() };

fn taken_over() -> Scenario {
    Scenario {
        daemons: 2,
        faults: Faults { cut: 1, late: 1, ..Faults::default() },
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
fn nor_does_one_that_is_dropping_a_cache() {
    holds(&while_dropping());
}

#[test]
fn nor_does_one_that_is_in_a_gap() {
    holds(&while_starting());
}

#[test]
fn without_the_chain_the_dead_daemon_takes_the_watermark_back() {
    breaks(&while_starting().without(|r| r.chain = false), WHAT_IS_CACHED_AT_REST_IS_CURRENT);
}
