//! Rule 12: a key that changes faster than it loads keeps its old value until
//! `max_staleness` after the first change that it lacks.
//!
//! A model of its own, with a clock, and of what rule 12 adds only: gate, chain and purge
//! are as for every other key. What it takes to be built:
//!
//! * A change sets the value's *due*, unless it has one. The lease is not voided: a
//!   loader that reads again and again while the key changes would never come to store.
//!   Instead the change sets the *lease's* due, unless that has one: the first change that
//!   the load under way may lack.
//! * A store with the living token is accepted and takes the lease's due over as the
//!   value's. A load whose due has passed is not stored.
//! * Redis removes a value when its due has passed (`PEXPIREAT`).

use stateright::{Model, Property};

use super::check::{explore, find};

const CHANGES: usize = 3;
const MAX_STALENESS: u8 = 2;
const END_OF_TIME: u8 = 6;

type Due = Option<u8>;

/// What a store does to the value's due, and a change to a due that is set.
#[derive(Debug, Clone, Copy)]
struct Rules {
    /// A store leaves the due of a change that came after its lease.
    later_due_stays: bool,
    /// A change does not move a due that an earlier one set.
    first_change_counts: bool,
    token_check: bool,
}

const ALL: Rules = Rules { later_due_stays: true, first_change_counts: true, token_check: true };

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Loader {
    Idle,
    Leased {
        token: u8,
    },
    /// With a snapshot that shows this many changes.
    Loaded {
        token: u8,
        changes: u8,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    now: u8,
    /// How many changes are visible,
    visible: u8,
    /// and of these, when each was applied.
    applied: [Due; CHANGES],
    /// How many changes the value contains, and when it goes.
    value: Option<(u8, Due)>,
    /// The token, and what a store with it would leave as the due.
    lease: Option<(u8, Due)>,
    tokens: u8,
    loaders: [Loader; 2],
    /// A load was stored that may lack a later change.
    stored_behind: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Change,
    Apply,
    Tick,
    LeaseExpires,
    Lease(usize),
    Load(usize),
    Store(usize),
}

impl World {
    fn count_applied(&self) -> usize {
        self.applied.iter().flatten().count()
    }

    /// The first applied change that the value lacks.
    fn lacks(&self) -> Option<u8> {
        let (contains, _) = self.value?;
        self.applied.get(usize::from(contains)).copied().flatten()
    }

    fn wants_load(&self) -> bool {
        self.lease.is_none() && self.value.is_none_or(|(_, due)| due.is_some())
    }
}

impl Model for Rules {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            now: 0,
            visible: 0,
            applied: [None; CHANGES],
            value: Some((0, None)),
            lease: None,
            tokens: 0,
            loaders: [Loader::Idle; 2],
            stored_behind: false,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if usize::from(world.visible) < CHANGES {
            actions.push(Action::Change);
        }
        if world.count_applied() < usize::from(world.visible) {
            actions.push(Action::Apply);
        }
        if world.now < END_OF_TIME {
            actions.push(Action::Tick);
        }
        if world.lease.is_some() {
            actions.push(Action::LeaseExpires);
        }
        for (l, loader) in world.loaders.iter().enumerate() {
            match loader {
                Loader::Idle if world.wants_load() && world.tokens < 4 => {
                    actions.push(Action::Lease(l));
                }
                Loader::Idle => {}
                Loader::Leased { .. } => actions.push(Action::Load(l)),
                Loader::Loaded { .. } => actions.push(Action::Store(l)),
            }
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        match action {
            Action::Change => next.visible += 1,
            Action::Apply => {
                next.applied[world.count_applied()] = Some(world.now);
                let due = Some(world.now + MAX_STALENESS);
                let set = |old: &mut Due| {
                    if old.is_none() || !self.first_change_counts {
                        *old = due;
                    }
                };
                next.value.iter_mut().for_each(|(_, old)| set(old));
                next.lease.iter_mut().for_each(|(_, old)| set(old));
            }
            Action::Tick => {
                next.now += 1;
                next.value = world.value.filter(|(_, due)| due.is_none_or(|due| next.now < due));
            }
            Action::LeaseExpires => next.lease = None,
            Action::Lease(l) => {
                next.tokens += 1;
                next.lease = Some((next.tokens, None));
                next.loaders[l] = Loader::Leased { token: next.tokens };
            }
            Action::Load(l) => {
                let Loader::Leased { token } = world.loaders[l] else { return None };
                next.loaders[l] = Loader::Loaded { token, changes: world.visible };
            }
            Action::Store(l) => {
                let Loader::Loaded { token, changes } = world.loaders[l] else { return None };
                next.loaders[l] = Loader::Idle;
                let lease = world.lease.filter(|(t, _)| *t == token || !self.token_check);
                if let Some((_, later)) = lease {
                    next.lease = None;
                    let due = if self.later_due_stays { later } else { None };
                    if due.is_none_or(|due| world.now < due) {
                        next.value = Some((changes, due));
                        next.stored_behind |= later.is_some();
                    }
                }
            }
        }
        next.loaders.sort_unstable();
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(BOUNDED, |_, world: &World| {
                world.lacks().is_none_or(|since| world.now < since + MAX_STALENESS)
            }),
            Property::always(DUE, |_, world: &World| {
                world.lacks().is_none() || world.value.is_some_and(|(_, due)| due.is_some())
            }),
            Property::sometimes(WORTH_STORING, |_, world: &World| world.stored_behind),
        ]
    }
}

const BOUNDED: &str = "no value outlives max_staleness after the first change that it lacks";
const DUE: &str = "a value that lacks a change has a due";
const WORTH_STORING: &str = "a load is stored although a later change is due";

#[test]
fn a_refreshed_value_is_never_older_than_max_staleness() {
    explore(ALL, &[BOUNDED, DUE], &[WORTH_STORING]);
}

#[test]
fn if_storing_clears_the_later_ones_due_a_stale_value_stays() {
    find(Rules { later_due_stays: false, ..ALL }, DUE);
    find(Rules { later_due_stays: false, ..ALL }, BOUNDED);
}

#[test]
fn if_every_change_moves_the_due_a_value_that_always_changes_is_never_dropped() {
    find(Rules { first_change_counts: false, ..ALL }, BOUNDED);
}

#[test]
fn without_the_token_check_an_overtaken_loader_brings_the_past_back() {
    find(Rules { token_check: false, ..ALL }, DUE);
}
