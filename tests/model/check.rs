//! Runs the checker and says what it found.

use std::fmt::Debug;
use std::hash::Hash;
use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

use super::invariants::{ALWAYS, RESTS_WITH_A_VALUE};
use super::scenario::Scenario;

/// Every world of the scenario is looked at, none breaks an invariant, and some come to rest.
#[track_caller]
pub fn holds(scenario: &Scenario) {
    explore(scenario.clone(), &ALWAYS, &[RESTS_WITH_A_VALUE]);
}

/// There is a way to break this invariant.
#[track_caller]
pub fn breaks(scenario: &Scenario, invariant: &'static str) {
    find(scenario.clone(), invariant);
}

/// Looks at every state: in all of them the first hold, in some each of the second.
#[track_caller]
pub fn explore<M>(model: M, always: &[&'static str], sometimes: &[&'static str])
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq,
{
    let begun = Instant::now();
    let checker = model.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    eprintln!(
        "{} states, depth {}, {:?}",
        checker.unique_state_count(),
        checker.max_depth(),
        begun.elapsed()
    );
    for invariant in always {
        if let Some(path) = checker.discovery(invariant) {
            panic!("{invariant}: not so after\n{}", told(&path.into_actions()));
        }
    }
    for wanted in sometimes {
        assert!(checker.discovery(wanted).is_some(), "never: {wanted}");
    }
}

/// Looks until a state is found where `invariant` does not hold.
#[track_caller]
pub fn find<M>(model: M, invariant: &'static str)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq,
{
    let begun = Instant::now();
    let wanted = HasDiscoveries::AllOf([invariant].into());
    let checker = model.checker().finish_when(wanted).spawn_bfs().join();
    let states = checker.unique_state_count();
    let Some(path) = checker.discovery(invariant) else {
        panic!("in {states} states there is none where not: {invariant}");
    };
    let actions = path.into_actions();
    eprintln!(
        "{states} states, {:?}; {invariant}: not so after\n{}",
        begun.elapsed(),
        told(&actions)
    );
}

fn told(actions: &[impl Debug]) -> String {
    actions.iter().map(|action| format!("  {action:?}\n")).collect()
}
