//! Rule 10: a reader waits until the watermark has passed his commit, then trusts the cache.

use super::check::{breaks, holds};
use super::invariants::OWN_WRITES_ARE_READ;
use super::scenario::{Beginning, Faults, OwnWrites, Scenario, Tx};

const LONG: Tx = Tx { open: true, ..Tx::plain() };

/// Redis forgets, the daemon dies, and the gate lets the second transaction overtake.
fn streaming() -> Scenario {
    Scenario {
        faults: Faults { crash: 1, dump: 1, restore: 1, ..Faults::default() },
        own_writes: OwnWrites::WaitForWatermark,
        ..Scenario::of(&[Tx::plain(), Tx::plain()])
    }
}

/// A first start beside transactions whose records no stream will carry.
fn first_start() -> Scenario {
    Scenario {
        beginning: Beginning::Nothing,
        faults: Faults { crash: 1, flush: 1, ..Faults::default() },
        own_writes: OwnWrites::AndNoSuspects,
        ..Scenario::of(&[LONG])
    }
}

#[test]
fn who_waits_for_the_watermark_reads_what_he_wrote() {
    holds(&streaming());
}

/// The frontier passes what is still parked.
#[test]
fn who_waits_for_the_frontier_may_not() {
    let scenario = Scenario { own_writes: OwnWrites::WaitForFrontier, ..streaming() };
    breaks(&scenario, OWN_WRITES_ARE_READ);
}

/// The watermark of a new slot has passed the suspects' commits, and nothing has been
/// removed for them: until they are settled the cache cannot be asked for one's own write.
#[test]
fn beside_suspects_he_must_read_the_database() {
    holds(&first_start());
    let trusting = Scenario { own_writes: OwnWrites::WaitForWatermark, ..first_start() };
    breaks(&trusting, OWN_WRITES_ARE_READ);
}
