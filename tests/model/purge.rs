//! Rules 3, 8 and 9: a purge is many commands. Whole caches are dropped by one, too.

use super::check::{breaks, holds};
use super::invariants::WHAT_IS_CACHED_AT_REST_IS_CURRENT;
use super::scenario::{Faults, Scenario, Tx};
use super::set::Set;

const TRUNCATE: Tx = Tx { keys: Set::EMPTY, whole: true, ..Tx::plain() };

/// A whole cache is dropped while a filler fills, the daemon dies and answers are lost.
fn truncated() -> Scenario {
    Scenario {
        faults: Faults { crash: 1, lost_answer: 1, lease_expiry: true, ..Faults::default() },
        ..Scenario::of(&[TRUNCATE, Tx::plain()])
    }
}

/// Redis restarts with a dump of the midst of it.
fn rolled_back() -> Scenario {
    Scenario {
        faults: Faults { crash: 1, dump: 1, restore: 1, ..Faults::default() },
        ..Scenario::of(&[TRUNCATE])
    }
}

/// The same, and a command arrives late.
fn with_late_commands() -> Scenario {
    Scenario {
        faults: Faults { dump: 1, restore: 1, late: 1, lost_answer: 1, ..Faults::default() },
        ..Scenario::of(&[TRUNCATE])
    }
}

#[test]
fn a_whole_cache_is_dropped_while_it_is_being_filled() {
    holds(&truncated());
}

#[test]
fn a_purge_that_redis_forgets_is_done_anew() {
    holds(&rolled_back());
}

#[test]
fn a_late_command_does_not_end_a_purge_that_is_done_anew() {
    holds(&with_late_commands());
}

#[test]
fn with_values_before_leases_a_fill_slips_in_between() {
    let scenario = truncated().without(|r| r.leases_before_values = false);
    breaks(&scenario, WHAT_IS_CACHED_AT_REST_IS_CURRENT);
}

#[test]
fn without_the_daemons_session_a_purge_goes_on_over_what_came_back() {
    breaks(&rolled_back().without(|r| r.session = false), WHAT_IS_CACHED_AT_REST_IS_CURRENT);
}

/// The purge itself is done anew after a lost session; but when it has ended, and Redis then
/// restarts with a dump of its midst, the nonce is what it was.
#[test]
fn with_the_closing_step_on_another_session_a_purge_counts_that_redis_forgot() {
    breaks(
        &rolled_back().without(|r| r.closing_step_on_session = false),
        WHAT_IS_CACHED_AT_REST_IS_CURRENT,
    );
}
