//! Rule 8: ALTER PUBLICATION while transactions are open, which then come through in part.

use super::check::{breaks, holds};
use super::invariants::WHAT_IS_CACHED_AT_REST_IS_CURRENT;
use super::rules::Partial;
use super::scenario::{Faults, Scenario, Tx};

fn altered() -> Scenario {
    Scenario {
        faults: Faults { publication: 1, ..Faults::default() },
        ..Scenario::of(&[Tx { open: true, ..Tx::plain() }, Tx::plain()])
    }
}

/// And the daemon dies, Redis is emptied, or the slot is lost before the transaction has ended.
fn altered_and_more() -> Scenario {
    Scenario {
        faults: Faults { publication: 1, crash: 1, flush: 1, slot_lost: 1, ..Faults::default() },
        ..Scenario::of(&[Tx { open: true, ..Tx::plain() }])
    }
}

#[test]
fn what_came_through_in_part_is_a_gap() {
    holds(&altered());
    holds(&altered_and_more());
}

#[test]
fn if_coming_through_in_part_clears_a_stale_fill_stays() {
    let scenario = altered().without(|r| r.partial = Partial::Never);
    breaks(&scenario, WHAT_IS_CACHED_AT_REST_IS_CURRENT);
}

/// The reason of a gap says why it began; what is known of the publication must outlive it.
#[test]
fn if_only_the_gaps_reason_tells_of_the_publication_a_stale_fill_stays() {
    let by_reason = |scenario: Scenario| scenario.without(|r| r.partial = Partial::ByReason);
    // One of two suspects ends, which is a gap for another reason; the other is still open.
    breaks(&by_reason(altered()), WHAT_IS_CACHED_AT_REST_IS_CURRENT);
    // The gap is interrupted: the next start finds it unfinished, which is another reason.
    breaks(&by_reason(altered_and_more()), WHAT_IS_CACHED_AT_REST_IS_CURRENT);
}
