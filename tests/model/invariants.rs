//! What must hold in every world that can be reached.

use stateright::Property;

use super::daemon::Phase;
use super::scenario::{OwnWrites, Scenario};
use super::set::Set;
use super::world::World;

/// The first sentence of the guarantee.
pub const NO_FILL_MISSES_AN_APPLIED_INVALIDATION: &str = "no fill misses an applied invalidation";
/// The same, if what was applied and then lost by Redis counts as well.
pub const NOT_EVEN_LITERALLY: &str = "no fill misses an invalidation that was ever applied";
/// What readers see in the end.
pub const WHAT_IS_CACHED_AT_REST_IS_CURRENT: &str = "what is cached at rest is current";
/// The second sentence of the guarantee.
pub const NOTHING_UNAPPLIED_IS_ACKNOWLEDGED: &str = "nothing unapplied is acknowledged";
/// Rule 10: who waits until the watermark has passed his commit reads it.
pub const OWN_WRITES_ARE_READ: &str = "what the watermark has passed is in what is cached";
/// Those of them that must hold.
pub const ALWAYS: [&str; 5] = [
    NO_FILL_MISSES_AN_APPLIED_INVALIDATION,
    NOT_EVEN_LITERALLY,
    WHAT_IS_CACHED_AT_REST_IS_CURRENT,
    NOTHING_UNAPPLIED_IS_ACKNOWLEDGED,
    OWN_WRITES_ARE_READ,
];
/// That the exploration gets somewhere.
pub const RESTS_WITH_A_VALUE: &str = "it comes to rest with a value of all that committed";

pub fn properties() -> Vec<Property<Scenario>> {
    vec![
        Property::always(NO_FILL_MISSES_AN_APPLIED_INVALIDATION, |_, world: &World| !world.missed),
        Property::always(NOT_EVEN_LITERALLY, |scenario: &Scenario, world: &World| {
            !(scenario.literal && world.missed_literally)
        }),
        Property::always(
            WHAT_IS_CACHED_AT_REST_IS_CURRENT,
            |scenario: &Scenario, world: &World| {
                !world.is_at_rest(scenario) || world.is_current(scenario)
            },
        ),
        Property::always(
            NOTHING_UNAPPLIED_IS_ACKNOWLEDGED,
            |scenario: &Scenario, world: &World| {
                scenario.excused || world.acknowledges_only_applied()
            },
        ),
        Property::always(OWN_WRITES_ARE_READ, |scenario: &Scenario, world: &World| {
            world.own_writes_are_read(scenario)
        }),
        Property::sometimes(RESTS_WITH_A_VALUE, |scenario: &Scenario, world: &World| {
            let whole = scenario.value(0, world.postgres.visible());
            world.is_at_rest(scenario) && !whole.is_empty() && world.redis.values[0] == Some(whole)
        }),
    ]
}

impl World {
    /// All that committed has been streamed and applied, nothing is under way, and fills are
    /// accepted. (Fillers may be anywhere: what they store then must be current, too.)
    fn is_at_rest(&self, scenario: &Scenario) -> bool {
        let Some(state) = self.redis.state else { return false };
        let holder = self.postgres.slot.and_then(|slot| slot.holder);
        self.postgres.is_quiet()
            && state.valid
            && !state.closed
            && holder.is_some_and(|d| {
                let daemon = &self.daemons[d];
                daemon.phase == Phase::Running
                    && daemon.attempt == 0
                    && (daemon.acknowledged == state.nonce || !scenario.rules.chain)
                    && daemon.is_idle(&self.postgres)
            })
    }

    fn is_current(&self, scenario: &Scenario) -> bool {
        let visible = self.postgres.visible();
        self.redis
            .values
            .iter()
            .enumerate()
            .all(|(key, value)| value.is_none_or(|value| value == scenario.value(key, visible)))
    }

    fn acknowledges_only_applied(&self) -> bool {
        self.postgres.slot.is_none_or(|slot| {
            (slot.start..slot.confirmed).all(|at| self.done.contains(self.postgres.record(at)))
        })
    }

    fn own_writes_are_read(&self, scenario: &Scenario) -> bool {
        let Some(state) = self.redis.state.filter(|state| state.valid && !state.closed) else {
            return true;
        };
        let waits_for = match scenario.own_writes {
            OwnWrites::NotAsked => return true,
            OwnWrites::AndNoSuspects if !state.suspects.all.is_empty() => return true,
            OwnWrites::WaitForWatermark | OwnWrites::AndNoSuspects => state.watermark,
            OwnWrites::WaitForFrontier => state.frontier,
        };
        let postgres = &self.postgres;
        let passed = |tx: usize| postgres.record_end(tx).is_some_and(|end| end <= waits_for);
        let owed = Set::those(scenario.txs.len(), passed).and(postgres.visible());
        (0..scenario.keys).all(|key| {
            let value = self.redis.values[key];
            // What the value must contain: all of `owed` that matters for the key now.
            let owed = scenario.value(key, postgres.visible()).and(owed);
            value.is_none_or(|value| owed.is_within(value))
        })
    }
}
