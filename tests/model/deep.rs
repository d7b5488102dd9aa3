//! More of everything at once: minutes, not seconds.

use super::check::holds;
use super::scenario::{Beginning, Faults, ON_PRIMARY, ON_REPLICA, OwnWrites, Scenario, Tx};
use super::set::Set;

const LONG: Tx = Tx { open: true, aborts: true, ..Tx::plain() };
const TRUNCATE: Tx = Tx { keys: Set::EMPTY, whole: true, ..Tx::plain() };

#[test]
fn three_overlapping_writers_two_fillers_and_a_daemon_that_dies() {
    holds(&Scenario {
        fillers: &[ON_PRIMARY, ON_PRIMARY],
        faults: Faults { crash: 1, lease_expiry: true, ..Faults::default() },
        own_writes: OwnWrites::WaitForWatermark,
        ..Scenario::of(&[LONG, Tx::plain(), LONG])
    });
}

#[test]
fn a_redis_that_forgets_beside_two_writers() {
    holds(&Scenario {
        faults: Faults {
            crash: 1,
            dump: 1,
            restore: 1,
            lost_answer: 1,
            late: 1,
            lease_expiry: true,
            ..Faults::default()
        },
        ..Scenario::of(&[Tx::plain(), Tx::plain()])
    });
}

#[test]
fn a_redis_that_forgets_under_a_whole_drop_and_a_filler_on_a_standby() {
    holds(&Scenario {
        fillers: &[ON_REPLICA],
        faults: Faults { crash: 1, dump: 1, restore: 1, flush: 1, ..Faults::default() },
        ..Scenario::of(&[TRUNCATE, Tx::plain()])
    });
}

#[test]
fn every_kind_of_gap_beside_open_transactions() {
    holds(&Scenario {
        beginning: Beginning::Nothing,
        faults: Faults { crash: 1, flush: 1, slot_lost: 1, publication: 1, ..Faults::default() },
        ..Scenario::of(&[LONG, Tx { asynchronous: true, ..Tx::plain() }])
    });
}

#[test]
fn two_daemons_that_die_and_do_not_know_it() {
    holds(&Scenario {
        daemons: 2,
        faults: Faults { cut: 1, crash: 1, late: 1, flush: 1, ..Faults::default() },
        ..Scenario::of(&[Tx::plain()])
    });
}

#[test]
fn two_daemons_over_a_redis_that_forgets() {
    holds(&Scenario {
        daemons: 2,
        faults: Faults { cut: 1, dump: 1, restore: 1, lost_answer: 1, ..Faults::default() },
        ..Scenario::of(&[Tx::plain()])
    });
}
