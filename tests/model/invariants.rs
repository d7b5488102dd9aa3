//! What must hold in every world that can be reached.

use stateright::Property;

use super::daemon::Phase;
use super::scenario::Scenario;
use super::world::World;

/// The first sentence of the guarantee.
pub const NO_FILL_MISSES_AN_APPLIED_INVALIDATION: &str = "no fill misses an applied invalidation";
/// The same, if what was applied and then lost by Redis counts as well.
pub const NOT_EVEN_LITERALLY: &str = "no fill misses an invalidation that was ever applied";
/// What readers see in the end.
pub const WHAT_IS_CACHED_AT_REST_IS_CURRENT: &str = "what is cached at rest is current";
/// The second sentence of the guarantee.
pub const NOTHING_UNAPPLIED_IS_ACKNOWLEDGED: &str = "nothing unapplied is acknowledged";
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
            |scenario: &Scenario, world: &World| !world.is_at_rest() || world.is_current(scenario),
        ),
        Property::always(
            NOTHING_UNAPPLIED_IS_ACKNOWLEDGED,
            |scenario: &Scenario, world: &World| {
                scenario.excused || world.acknowledges_only_applied()
            },
        ),
        Property::sometimes(RESTS_WITH_A_VALUE, |scenario: &Scenario, world: &World| {
            let whole = scenario.value(0, world.postgres.visible());
            world.is_at_rest() && !whole.is_empty() && world.redis.values[0] == Some(whole)
        }),
    ]
}

impl World {
    /// All that committed has been streamed and applied, nothing is under way, and fills are
    /// accepted. (Fillers may be anywhere: what they store then must be current, too.)
    fn is_at_rest(&self) -> bool {
        let Some(state) = self.redis.state else { return false };
        let holder = self.postgres.slot.and_then(|slot| slot.holder);
        self.postgres.is_quiet()
            && state.valid
            && !state.closed
            && holder.is_some_and(|d| {
                let daemon = &self.daemons[d];
                daemon.phase == Phase::Running
                    && daemon.attempt == 0
                    && daemon.acknowledged == state.nonce
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
}
