//! The whole, and how it is explored.

use stateright::{Model, Property};

use super::action::Action;
use super::daemon::{Daemon, Phase};
use super::filler::Filler;
use super::invariants;
use super::postgres::{Postgres, Slot};
use super::redis::{Command, Control, Redis, Suspects};
use super::scenario::{Beginning, Faults, Scenario};
use super::set::{KEYS, Set, Txs};

/// Everything there is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    pub postgres: Postgres,
    pub redis: Redis,
    /// What Redis would restart with.
    pub dump: Option<Redis>,
    /// A command whose connection was given up.
    pub late: Option<Command>,
    pub daemons: [Daemon; 2],
    pub fillers: [Filler; 2],
    /// What may still go wrong.
    pub faults: Faults,
    /// Not known to anybody: transactions that were applied at least once,
    pub done: Txs,
    /// those whose removal of the key was ever applied, in whatever history of Redis,
    pub ever: [Txs; KEYS],
    /// and that a fill was accepted that it should not have been.
    pub missed: bool,
    pub missed_literally: bool,
}

impl Model for Scenario {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        self.check();
        vec![World::new(self)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.missed {
            return; // found; there is nothing to be learned from what follows
        }
        world.database_may(self, actions);
        for d in 0..self.daemons {
            world.daemon_may(d, self, actions);
        }
        world.redis_may(self, actions);
        for f in 0..self.fillers.len() {
            world.filler_may(f, self, actions);
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        next.perform(action, self);
        next.canonicalize(self);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        invariants::properties()
    }
}

impl World {
    fn new(scenario: &Scenario) -> World {
        let mut world = World {
            postgres: Postgres::new(),
            redis: Redis::empty(),
            dump: None,
            late: None,
            daemons: [Daemon::default(), Daemon::default()],
            fillers: [Filler::Idle; 2],
            faults: scenario.faults,
            done: Set::EMPTY,
            ever: [Set::EMPTY; KEYS],
            missed: false,
            missed_literally: false,
        };
        if scenario.beginning == Beginning::Streaming {
            let postgres = &mut world.postgres;
            postgres.slot = Some(Slot { start: 0, confirmed: 0, holder: Some(0) });
            world.redis.state = Some(Control {
                valid: true,
                nonce: 1,
                watermark: 0,
                frontier: 0,
                incarnation: postgres.incarnation,
                publication: postgres.publication,
                closed: false,
                suspects: Suspects::default(),
            });
            let daemon = &mut world.daemons[0];
            daemon.phase = Phase::Running;
            daemon.slot_taken = true;
            daemon.acknowledged = 1;
            daemon.found.incarnation = postgres.incarnation;
            daemon.found.publication = postgres.publication;
        }
        world
    }

    fn nonces(&mut self) -> impl Iterator<Item = &mut u8> {
        let states = [Some(&mut self.redis), self.dump.as_mut()];
        let redis = states.into_iter().flatten().filter_map(|r| r.state.as_mut());
        let daemons = self.daemons.iter_mut().flat_map(|d| {
            [Some(&mut d.acknowledged), Some(&mut d.attempt), d.seen.as_mut().map(|s| &mut s.nonce)]
        });
        let late: Vec<&mut u8> = match &mut self.late {
            None => vec![],
            Some(Command::Declare(state)) => vec![&mut state.nonce],
            Some(Command::Step(step)) => {
                let whole = step.state.as_mut().map(|state| &mut state.nonce);
                [Some(&mut step.expected), Some(&mut step.nonce), whole]
                    .into_iter()
                    .flatten()
                    .collect()
            }
        };
        redis.map(|state| &mut state.nonce).chain(daemons.flatten()).chain(late)
    }

    fn tokens(&mut self) -> impl Iterator<Item = &mut u8> {
        let dump = self.dump.iter_mut().flat_map(|dump| dump.leases.iter_mut());
        let fillers = self.fillers.iter_mut().filter_map(Filler::token_mut);
        self.redis.leases.iter_mut().chain(dump).chain(fillers)
    }

    pub fn fresh_nonce(&mut self) -> u8 {
        1 + self.nonces().map(|nonce| *nonce).max().unwrap_or(0)
    }

    pub fn fresh_token(&mut self) -> u8 {
        1 + self.tokens().map(|token| *token).max().unwrap_or(0)
    }

    /// Two worlds that differ in names only are one: nonces and tokens are renamed by the
    /// order in which they are found, fillers of a kind are sorted, and what can never be
    /// looked at again is forgotten.
    fn canonicalize(&mut self, scenario: &Scenario) {
        if self.faults.restore == 0 {
            self.dump = None;
        }
        if scenario.fillers.len() == 2 && scenario.fillers[0] == scenario.fillers[1] {
            self.fillers.sort_unstable();
        }
        for daemon in &mut self.daemons {
            if daemon.phase == Phase::Running && daemon.seen.is_some() {
                daemon.seen = None;
            }
        }
        rename(self.nonces());
        rename(self.tokens());
    }
}

fn rename<'a>(names: impl Iterator<Item = &'a mut u8>) {
    let mut known = [0_u8; 64];
    let mut last = 0;
    for name in names.filter(|name| **name != 0) {
        let new = &mut known[usize::from(*name)];
        if *new == 0 {
            last += 1;
            *new = last;
        }
        *name = *new;
    }
}
