//! Runs the checker and says what it found.

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

use super::invariants::{
    NO_FILL_MISSES_AN_APPLIED_INVALIDATION, NOT_EVEN_LITERALLY, NOTHING_UNAPPLIED_IS_ACKNOWLEDGED,
    RESTS_WITH_A_VALUE, WHAT_IS_CACHED_AT_REST_IS_CURRENT,
};
use super::scenario::Scenario;

const INVARIANTS: [&str; 4] = [
    NO_FILL_MISSES_AN_APPLIED_INVALIDATION,
    NOT_EVEN_LITERALLY,
    WHAT_IS_CACHED_AT_REST_IS_CURRENT,
    NOTHING_UNAPPLIED_IS_ACKNOWLEDGED,
];

/// Every world is looked at, none breaks an invariant, and some come to rest.
#[track_caller]
pub fn holds(scenario: &Scenario) {
    let begun = Instant::now();
    let checker =
        scenario.clone().checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    eprintln!(
        "{} worlds, depth {}, {:?}",
        checker.unique_state_count(),
        checker.max_depth(),
        begun.elapsed()
    );
    for invariant in INVARIANTS {
        if let Some(path) = checker.discovery(invariant) {
            panic!("{invariant}: not so after\n{}", told(path.into_actions()));
        }
    }
    assert!(checker.discovery(RESTS_WITH_A_VALUE).is_some(), "it never comes to rest");
}

/// There is a way to break this invariant.
#[track_caller]
pub fn breaks(scenario: &Scenario, invariant: &'static str) {
    let begun = Instant::now();
    let checker = scenario
        .clone()
        .checker()
        .finish_when(HasDiscoveries::AllOf([invariant].into()))
        .spawn_bfs()
        .join();
    let worlds = checker.unique_state_count();
    match checker.discovery(invariant) {
        Some(path) => eprintln!(
            "{worlds} worlds, {:?}; {invariant}: not so after\n{}",
            begun.elapsed(),
            told(path.into_actions())
        ),
        None => panic!("in {worlds} worlds there is none where not: {invariant}"),
    }
}

fn told(actions: Vec<super::world::Action>) -> String {
    actions.iter().map(|action| format!("  {action:?}\n")).collect()
}
