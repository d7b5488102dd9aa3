//! Rule 12: a key that changes faster than it loads keeps its old value until
//! `max_staleness` after the first change that it lacks.
//!
//! A model of its own, with a clock, and of what rule 12 adds only: gate, chain and the order of
//! a purge are as for every other key. As it is built (`store::fills`, and the scripts):
//!
//! * A value's *due* is its expiry. A change brings it forward to `max_staleness` from now, unless
//!   it is sooner already (`PEXPIREAT … LT`): so the first change counts, one that is applied
//!   again (after a crash, or a lost answer) moves nothing, and no due lengthens a life.
//! * The lease is not voided: a loader that reads again and again while the key changes would
//!   never come to store. Instead the change writes the *lease's* due, unless it has one: of
//!   the first change that the load under way may lack.
//! * A store with the living token is accepted, and ends the value at the lease's due at the
//!   latest, by the clock and not counted from some moment after (`PXAT`, not `PX`). A load
//!   whose due has passed is not stored.
//! * Whoever refreshes gets a lease although there is a value, unless that lives for longer than
//!   `max_staleness`: then it lacks nothing. A reader gets one when there is none. One lease a key.
//! * A gap, or a whole cache that is dropped, voids leases and then removes values as ever,
//!   whatever their dues: a change that never came gave none.

use stateright::{Model, Property};

use super::check::{explore, find};

const CHANGES: usize = 3;
const MAX_STALENESS: u8 = 2;
const LIFE: u8 = 3;
const END_OF_TIME: u8 = 5;
/// How often a change is applied again.
const AGAIN: u8 = 1;

/// What a change and a store do to a due, and what a gap does to leases.
#[derive(Debug, Clone, Copy)]
struct Rules {
    /// A store leaves the due of a change that came after its lease.
    later_due_stays: bool,
    /// A change gives a due to whatever is computed now.
    lease_takes_due: bool,
    /// A change does not move a due that an earlier one set, nor lengthens a life.
    first_change_counts: bool,
    /// What a store leaves of a due is counted from the clock that the change was dated by.
    by_the_clock: bool,
    /// A load whose due has passed is not stored.
    late_is_void: bool,
    token_check: bool,
    gap_voids_leases: bool,
    /// How many changes there are, and whether one of them may be lost.
    changes: u8,
    loss: bool,
}

const ALL: Rules = Rules {
    changes: 3,
    loss: false,
    later_due_stays: true,
    lease_takes_due: true,
    first_change_counts: true,
    by_the_clock: true,
    late_is_void: true,
    token_check: true,
    gap_voids_leases: true,
};

/// Fewer changes, one of which is lost.
const WITH_LOSS: Rules = Rules { changes: 2, loss: true, ..ALL };

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Loader {
    Idle,
    Leased {
        /// Its token is still the lease's.
        living: bool,
    },
    /// With a snapshot that shows this many changes.
    Loaded {
        living: bool,
        changes: u8,
    },
}

/// How far a gap is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Gap {
    None,
    /// A change was lost, and nobody knows yet.
    Lost,
    /// The state is invalid.
    Declared,
    LeasesGone,
    /// Values went, and the state is valid again.
    Over,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    now: u8,
    /// How many changes are visible,
    visible: u8,
    /// how many of these came through the stream,
    came: u8,
    /// and when each was applied for the first time; `None`: it was lost.
    applied: [Option<u8>; CHANGES],
    /// How many changes the value contains, and when it goes.
    value: Option<(u8, u8)>,
    /// When it would go if it lacked nothing.
    life_ends: u8,
    /// With when what is stored by it goes at the latest.
    lease: Option<Option<u8>>,
    again: u8,
    loaders: [Loader; 2],
    gap: Gap,
    /// Everything up to this was visible when a gap was declared.
    covered: u8,
    /// A load was stored that may lack a later change.
    stored_behind: bool,
    /// A value that lacked a change was replaced before it had to go.
    refreshed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Change,
    Apply,
    /// The last one is streamed again.
    ApplyAgain,
    /// The stream loses a change, for whatever reason.
    Lose,
    /// The next step of a gap.
    Gap,
    Tick,
    LeaseExpires,
    Lease(usize),
    Load(usize),
    Store(usize),
}

impl World {
    /// When the first applied change was applied that the value lacks.
    fn lacks(&self) -> Option<u8> {
        let (contains, _) = self.value?;
        self.applied.iter().skip(usize::from(contains)).find_map(|at| *at)
    }

    fn is_valid(&self) -> bool {
        matches!(self.gap, Gap::None | Gap::Lost | Gap::Over)
    }

    fn end_lease(&mut self) {
        self.lease = None;
        for loader in &mut self.loaders {
            match loader {
                Loader::Idle => {}
                Loader::Leased { living } | Loader::Loaded { living, .. } => *living = false,
            }
        }
    }

    /// Whether somebody may have a lease: a reader, or whoever refreshes.
    fn gives_lease(&self) -> bool {
        let may_lack = |(_, goes): (u8, u8)| goes.saturating_sub(self.now) <= MAX_STALENESS;
        self.is_valid() && self.lease.is_none() && self.value.is_none_or(may_lack)
    }
}

impl Rules {
    fn apply(self, world: &mut World) {
        let due = world.now + MAX_STALENESS;
        if let Some((_, goes)) = &mut world.value {
            *goes = if self.first_change_counts { due.min(*goes) } else { due };
        }
        if let Some(leased) = &mut world.lease
            && self.lease_takes_due
            && (leased.is_none() || !self.first_change_counts)
        {
            *leased = Some(due);
        }
    }

    fn store(self, world: &mut World, living: bool, changes: u8) {
        let lease = world.lease.filter(|_| living || !self.token_check);
        let Some(due) = lease.filter(|_| world.is_valid()) else { return };
        world.end_lease();
        if self.late_is_void && due.is_some_and(|due| due <= world.now) {
            return;
        }
        let kept = due.filter(|_| self.later_due_stays);
        let kept = kept.map(|due| if self.by_the_clock { due } else { due + 1 });
        world.refreshed |= world.lacks().is_some();
        world.life_ends = world.now + LIFE;
        world.value = Some((changes, kept.map_or(world.life_ends, |due| due.min(world.life_ends))));
        world.stored_behind |= due.is_some();
    }
}

impl Model for Rules {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            now: 0,
            visible: 0,
            came: 0,
            applied: [None; CHANGES],
            value: Some((0, LIFE)),
            life_ends: LIFE,
            lease: None,
            again: 0,
            loaders: [Loader::Idle; 2],
            gap: Gap::None,
            covered: 0,
            stored_behind: false,
            refreshed: false,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.visible < self.changes {
            actions.push(Action::Change);
        }
        if world.came < world.visible && world.is_valid() && world.gap != Gap::Lost {
            actions.push(Action::Apply);
            if self.loss && world.gap == Gap::None {
                actions.push(Action::Lose);
            }
        }
        if world.came > 0 && world.is_valid() && world.again < AGAIN {
            actions.push(Action::ApplyAgain);
        }
        if matches!(world.gap, Gap::Lost | Gap::Declared | Gap::LeasesGone) {
            actions.push(Action::Gap);
        }
        if world.now < END_OF_TIME {
            actions.push(Action::Tick);
        }
        if world.lease.is_some() {
            actions.push(Action::LeaseExpires);
        }
        for (l, loader) in world.loaders.iter().enumerate() {
            match loader {
                Loader::Idle if world.gives_lease() => {
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
                next.applied[usize::from(world.came)] = Some(world.now);
                next.came += 1;
                self.apply(&mut next);
            }
            Action::ApplyAgain => {
                next.again += 1;
                self.apply(&mut next);
            }
            Action::Lose => {
                next.came += 1;
                next.gap = Gap::Lost;
            }
            Action::Gap => {
                next.gap = match world.gap {
                    Gap::Lost => {
                        next.covered = world.came;
                        Gap::Declared
                    }
                    Gap::Declared => {
                        if self.gap_voids_leases {
                            next.end_lease();
                        }
                        Gap::LeasesGone
                    }
                    _ => {
                        next.value = None;
                        Gap::Over
                    }
                };
            }
            Action::Tick => {
                next.now += 1;
                next.value = world.value.filter(|(_, goes)| next.now < *goes);
            }
            Action::LeaseExpires => next.end_lease(),
            Action::Lease(l) => {
                next.lease = Some(None);
                next.loaders[l] = Loader::Leased { living: true };
            }
            Action::Load(l) => {
                let Loader::Leased { living } = world.loaders[l] else { return None };
                next.loaders[l] = Loader::Loaded { living, changes: world.visible };
            }
            Action::Store(l) => {
                let Loader::Loaded { living, changes } = world.loaders[l] else { return None };
                next.loaders[l] = Loader::Idle;
                self.store(&mut next, living, changes);
            }
        }
        next.loaders.sort_unstable();
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(BOUNDED, |_, world: &World| {
                world.lacks().is_none_or(|since| world.now < since + MAX_STALENESS)
            }),
            Property::always(DUE, |_, world: &World| {
                let goes = world.value.map_or(0, |(_, goes)| goes);
                world.lacks().is_none_or(|since| goes <= since + MAX_STALENESS)
            }),
            Property::always(MORTAL, |_, world: &World| {
                world.value.is_none_or(|(_, goes)| goes <= world.life_ends)
            }),
            Property::always(CLEAN, |_, world: &World| {
                world.gap != Gap::Over
                    || world.value.is_none_or(|(contains, _)| contains >= world.covered)
            }),
            Property::sometimes(WORTH_STORING, |_, world: &World| world.stored_behind),
            Property::sometimes(REFRESHED, |_, world: &World| world.refreshed),
        ]
    }
}

const BOUNDED: &str = "no value outlives max_staleness after the first change that it lacks";
const DUE: &str = "a value that lacks a change goes at that change's due";
const MORTAL: &str = "no due lengthens a life";
const CLEAN: &str = "after a gap no value lacks what was lost";
const WORTH_STORING: &str = "a load is stored although a later change is due";
const REFRESHED: &str = "a value that lacks a change is replaced before it goes";

#[test]
fn a_refreshed_value_is_never_older_than_max_staleness() {
    explore(ALL, &[BOUNDED, DUE, MORTAL], &[WORTH_STORING, REFRESHED]);
    explore(WITH_LOSS, &[BOUNDED, DUE, MORTAL, CLEAN], &[WORTH_STORING, REFRESHED]);
}

#[test]
fn if_storing_clears_the_later_ones_due_a_stale_value_stays() {
    find(Rules { later_due_stays: false, ..ALL }, DUE);
    find(Rules { later_due_stays: false, ..ALL }, BOUNDED);
}

#[test]
fn if_a_change_leaves_the_lease_alone_what_is_stored_lacks_it_for_good() {
    find(Rules { lease_takes_due: false, ..ALL }, DUE);
    find(Rules { lease_takes_due: false, ..ALL }, BOUNDED);
}

#[test]
fn if_every_change_moves_the_due_a_value_that_always_changes_is_never_dropped() {
    find(Rules { first_change_counts: false, ..ALL }, BOUNDED);
    find(Rules { first_change_counts: false, ..ALL }, MORTAL);
}

#[test]
fn if_a_due_counts_from_the_store_a_value_stays_a_moment_too_long() {
    find(Rules { by_the_clock: false, ..ALL }, BOUNDED);
}

#[test]
fn if_a_load_is_stored_past_its_due_a_value_is_read_that_is_too_old() {
    find(Rules { late_is_void: false, ..ALL }, BOUNDED);
}

#[test]
fn without_the_token_check_an_overtaken_loader_brings_the_past_back() {
    find(Rules { token_check: false, ..ALL }, DUE);
}

#[test]
fn if_a_gap_leaves_leases_a_load_from_before_it_brings_back_what_was_lost() {
    find(Rules { gap_voids_leases: false, ..WITH_LOSS }, CLEAN);
}
