//! Redis: the state, values and leases, and the scripts of the daemon and of fillers.

use super::rules::Rules;
use super::set::{KEYS, Keys, Lsn, Set, Txs};

/// Names one step; 0 is none. Renamed after every action, so that only equality counts.
pub type Nonce = u8;
/// Names one lease; 0 is none.
pub type Token = u8;

/// What is suspected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Suspects {
    pub all: Txs,
    /// Of these, those that come through in part only.
    pub partial: Txs,
}

/// `unstale:<slot>:state`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Control {
    pub valid: bool,
    pub nonce: Nonce,
    pub watermark: Lsn,
    pub frontier: Lsn,
    pub incarnation: u8,
    /// The publication of the last valid state.
    pub publication: u8,
    /// The cache is being dropped as a whole.
    pub closed: bool,
    pub suspects: Suspects,
}

/// A Redis with its history.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Redis {
    pub state: Option<Control>,
    /// What each value was computed from.
    pub values: [Option<Txs>; KEYS],
    pub leases: [Token; KEYS],
    /// Not in Redis, but part of its history: whose removal of the key was applied.
    pub applied: [Txs; KEYS],
}

/// What the daemon asks of Redis in one script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    /// Writes this state, whatever was there.
    Declare(Control),
    /// One step of the chain.
    Step(Step),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Step {
    pub expected: Nonce,
    pub nonce: Nonce,
    /// Keys to remove.
    pub keys: Keys,
    /// Not sent: on whose behalf, for each key.
    pub causes: [Txs; KEYS],
    /// Not sent: transactions of which it is the last step.
    pub done: Txs,
    pub frontier: Option<Lsn>,
    pub watermark: Option<Lsn>,
    pub closed: Option<bool>,
    pub suspects: Option<Suspects>,
    /// The whole state.
    pub state: Option<Control>,
}

/// What a step found.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Broken,
}

impl Redis {
    pub fn run(&mut self, command: &Command, rules: &Rules) -> Outcome {
        match command {
            Command::Declare(state) => {
                self.state = Some(*state);
                Outcome::Done
            }
            Command::Step(step) => self.step(step, rules),
        }
    }

    fn step(&mut self, step: &Step, rules: &Rules) -> Outcome {
        let found = self.state.map_or(0, |state| state.nonce);
        if rules.chain && found != step.expected && found != step.nonce {
            return Outcome::Broken;
        }
        for key in step.keys.iter() {
            self.values[key] = None;
            if rules.lease_void {
                self.leases[key] = 0;
            }
        }
        for (applied, causes) in self.applied.iter_mut().zip(step.causes) {
            *applied = applied.union(causes);
        }
        if let Some(state) = step.state {
            self.state = Some(state);
        }
        if let Some(state) = &mut self.state {
            state.nonce = step.nonce;
            state.frontier = step.frontier.unwrap_or(state.frontier);
            state.watermark = step.watermark.unwrap_or(state.watermark);
            state.closed = step.closed.unwrap_or(state.closed);
            state.suspects = step.suspects.unwrap_or(state.suspects);
        }
        Outcome::Done
    }

    /// Whether a miss of `key` gets a lease.
    pub fn gives_lease(&self, key: usize) -> bool {
        self.state.is_some_and(|state| state.valid && !state.closed)
            && self.values[key].is_none()
            && self.leases[key] == 0
    }

    /// Stores a value if the token is still the lease. (The script looks whether the state is valid,
    /// too; a copy of it that does not is safe.)
    pub fn fill(&mut self, key: usize, token: Token, value: Txs, rules: &Rules) -> bool {
        let lease = self.leases[key];
        let accepted = if rules.token_check { lease == token } else { lease != 0 };
        if accepted {
            self.values[key] = Some(value);
            self.leases[key] = 0;
        }
        accepted
    }

    /// One part of a purge: the lease or the value of one key. Says if there is more.
    pub fn purge(&mut self, part: u8, keys: usize, rules: &Rules) -> bool {
        let part = usize::from(part);
        let key = part % keys;
        let is_gap = !self.state.is_some_and(|state| state.valid);
        let leases_first = rules.leases_before_values && !is_gap;
        if (part < keys) == leases_first {
            self.leases[key] = 0;
        } else {
            self.values[key] = None;
        }
        part + 1 < 2 * keys
    }

    pub fn nonce(&self) -> Nonce {
        self.state.map_or(0, |state| state.nonce)
    }

    /// Whether no applied removal of `key` is missing in this snapshot.
    pub fn allows(&self, key: usize, snapshot: Txs) -> bool {
        self.applied[key].is_within(snapshot)
    }

    /// What an eviction of the state leaves.
    pub fn evict_state(&mut self) {
        self.state = None;
    }

    /// An empty one: its history is new.
    pub fn empty() -> Self {
        Redis { applied: [Set::EMPTY; KEYS], ..Redis::default() }
    }
}
