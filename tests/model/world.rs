//! The whole: what can happen next, and what follows from it.

use stateright::{Model, Property};

use super::daemon::{Daemon, Gap, Phase};
use super::filler::Filler;
use super::invariants;
use super::postgres::{Postgres, Slot, TxState};
use super::redis::{Command, Control, Outcome, Redis, Suspects};
use super::scenario::{Beginning, Faults, FillerOf, Scenario};
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

/// What becomes of a command that is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    Answered,
    AnswerLost,
    Late,
}

/// What happens next. The number says to which transaction, daemon, key or filler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Begin(usize),
    Commit(usize),
    BecomeVisible(usize),
    Abort(usize),
    FlushWal,
    Replay,
    PostgresCrashes,
    SlotIsLost,
    SlotIsRecreated,
    PublicationIsAltered,
    /// The replication connection breaks, unknown to the daemon.
    Cut(usize),

    /// Reads the state in Redis.
    Connect(usize),
    TakeSlot(usize),
    Judge(usize),
    CreateSlot(usize),
    TakeSuspects(usize),
    /// Removes the next lease or value.
    Purge(usize),
    /// Looks at the nonce after a lost session.
    CheckChain(usize),
    Send(usize, Delivery),
    Receive(usize),
    Admit(usize),
    LookUp(usize),
    Defer(usize),
    TakeUpDeferred(usize),
    /// Tells Postgres.
    Report(usize),
    /// Sees that the publication has changed.
    SeePublication(usize),
    /// Decides about a suspect that has ended.
    Settle(usize, usize),
    /// Finds another's nonce while idle.
    Renew(usize),
    /// Notices that its slot is gone.
    Notice(usize),
    Crash(usize),

    Dump,
    RestoreDump,
    FlushRedis,
    EvictState,
    LateArrives,
    LeaseExpires(usize),

    AskFrontier(usize),
    Lease(usize),
    CheckReplica(usize),
    Read(usize),
    Store(usize),
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

    fn database_may(&self, scenario: &Scenario, actions: &mut Vec<Action>) {
        let (postgres, faults) = (&self.postgres, &self.faults);
        for (tx, of) in scenario.txs.iter().enumerate() {
            match postgres.txs[tx] {
                TxState::Idle if postgres.may_begin(tx) => {
                    actions.push(if of.open { Action::Begin(tx) } else { Action::Commit(tx) });
                }
                TxState::Open => {
                    actions.push(Action::Commit(tx));
                    if of.aborts {
                        actions.push(Action::Abort(tx));
                    }
                }
                TxState::Recorded => actions.push(Action::BecomeVisible(tx)),
                _ => {}
            }
        }
        if postgres.flushed < postgres.inserted {
            actions.push(Action::FlushWal);
        }
        if postgres.replayed < postgres.flushed && scenario.fillers.iter().any(|f| f.replica) {
            actions.push(Action::Replay);
        }
        if faults.postgres_crash > 0 {
            actions.push(Action::PostgresCrashes);
        }
        let held = postgres.slot.and_then(|slot| slot.holder);
        if faults.slot_lost > 0 && postgres.slot.is_some() {
            actions.push(Action::SlotIsLost);
        }
        if faults.slot_recreated > 0 && postgres.slot.is_some() && held.is_none() {
            actions.push(Action::SlotIsRecreated);
        }
        if faults.publication > 0 {
            actions.push(Action::PublicationIsAltered);
        }
        if let (true, Some(d)) = (faults.cut > 0, held) {
            actions.push(Action::Cut(d));
        }
    }

    fn holds_slot(&self, d: usize) -> bool {
        self.postgres.slot.is_some_and(|slot| slot.holder == Some(d))
    }

    fn daemon_may(&self, d: usize, scenario: &Scenario, actions: &mut Vec<Action>) {
        let (daemon, faults, rules) = (&self.daemons[d], &self.faults, &scenario.rules);
        if daemon.phase == Phase::Down {
            actions.push(Action::Connect(d));
            return;
        }
        if faults.crash > 0 {
            actions.push(Action::Crash(d));
        }
        if daemon.slot_taken && !self.holds_slot(d) {
            actions.push(Action::Notice(d));
        }
        let checks = match daemon.purge {
            Some(_) => rules.session,
            None => rules.session && rules.closing_step_on_session,
        };
        if daemon.lost && checks {
            actions.push(Action::CheckChain(d));
            return;
        }
        if daemon.purge.is_some() {
            actions.push(Action::Purge(d));
            return;
        }
        if daemon.wants_to_send() {
            actions.push(Action::Send(d, Delivery::Answered));
            if faults.lost_answer > 0 {
                actions.push(Action::Send(d, Delivery::AnswerLost));
            }
            if faults.late > 0 && self.late.is_none() {
                actions.push(Action::Send(d, Delivery::Late));
            }
        }
        match daemon.phase {
            Phase::Connected => match self.postgres.slot {
                Some(slot) if slot.holder.is_some() => {} // busy: it waits
                _ => actions.push(Action::TakeSlot(d)),
            },
            Phase::Started => actions.push(Action::Judge(d)),
            Phase::CreatingSlot => actions.push(Action::CreateSlot(d)),
            Phase::Suspecting => actions.push(Action::TakeSuspects(d)),
            Phase::Running => self.running_may(d, scenario, actions),
            _ => {}
        }
    }

    fn running_may(&self, d: usize, scenario: &Scenario, actions: &mut Vec<Action>) {
        let (daemon, postgres, rules) = (&self.daemons[d], &self.postgres, &scenario.rules);
        if self.holds_slot(d) {
            if daemon.read < postgres.flushed {
                actions.push(Action::Receive(d));
            }
            if postgres.slot.is_some_and(|slot| slot.confirmed < self.reported(d, scenario)) {
                actions.push(Action::Report(d));
            }
        }
        match &daemon.batch {
            None if !daemon.parked.and(self.shown(scenario)).is_empty() => {
                actions.push(Action::Admit(d));
            }
            None if daemon.deferred.is_some() => actions.push(Action::TakeUpDeferred(d)),
            Some(batch) if !batch.lookups.is_empty() => actions.push(Action::LookUp(d)),
            Some(batch) if !rules.lookups_end_first && daemon.deferred.is_none() => {
                if daemon.attempt == 0 && batch.txs.iter().any(|t| scenario.txs[t].parent.is_some())
                {
                    actions.push(Action::Defer(d));
                }
            }
            _ => {}
        }
        if daemon.found.publication != postgres.publication {
            actions.push(Action::SeePublication(d));
        }
        for tx in daemon.suspects.all.minus(postgres.running()).iter() {
            let passed = postgres.record_end(tx).is_none_or(|end| end <= daemon.read);
            if passed {
                actions.push(Action::Settle(d, tx));
            }
        }
        let alone = daemon.batch.is_none() && daemon.attempt == 0;
        if rules.chain && alone && self.redis.nonce() != daemon.acknowledged {
            actions.push(Action::Renew(d));
        }
    }

    /// What the gate's snapshot shows.
    fn shown(&self, scenario: &Scenario) -> Txs {
        if scenario.rules.gate { self.postgres.visible() } else { Set::ALL }
    }

    /// What Postgres would be told.
    fn reported(&self, d: usize, scenario: &Scenario) -> u8 {
        let daemon = &self.daemons[d];
        match &daemon.batch {
            Some(batch) if !scenario.rules.acknowledge_last => batch.watermark,
            _ => daemon.watermark,
        }
    }

    fn redis_may(&self, scenario: &Scenario, actions: &mut Vec<Action>) {
        let faults = &self.faults;
        if faults.dump > 0 && faults.restore > 0 {
            actions.push(Action::Dump);
        }
        if faults.restore > 0 && self.dump.is_some() {
            actions.push(Action::RestoreDump);
        }
        if faults.flush > 0 {
            actions.push(Action::FlushRedis);
        }
        if faults.evict > 0 && self.redis.state.is_some() {
            actions.push(Action::EvictState);
        }
        if self.late.is_some() {
            actions.push(Action::LateArrives);
        }
        if faults.lease_expiry {
            for key in (0..scenario.keys).filter(|key| self.redis.leases[*key] != 0) {
                actions.push(Action::LeaseExpires(key));
            }
        }
    }

    fn filler_may(&self, f: usize, scenario: &Scenario, actions: &mut Vec<Action>) {
        let (FillerOf { key, replica }, rules) = (scenario.fillers[f], &scenario.rules);
        let replayed = self.postgres.replayed;
        match self.fillers[f] {
            Filler::Idle if replica && !rules.frontier_with_lease => {
                if self.redis.state.is_some() {
                    actions.push(Action::AskFrontier(f));
                }
            }
            Filler::Idle | Filler::Asked { .. } => {
                if self.redis.gives_lease(key) {
                    actions.push(Action::Lease(f));
                }
            }
            Filler::Leased { .. } if !replica => actions.push(Action::Read(f)),
            Filler::Leased { frontier, .. } => {
                if !rules.replay_before_snapshot {
                    actions.push(Action::Read(f));
                } else if replayed >= frontier {
                    actions.push(Action::CheckReplica(f));
                }
            }
            Filler::Checked { .. } => actions.push(Action::Read(f)),
            Filler::Unchecked { frontier, .. } if replayed >= frontier => {
                actions.push(Action::CheckReplica(f));
            }
            Filler::Unchecked { .. } => {}
            Filler::Loaded { .. } => actions.push(Action::Store(f)),
        }
    }

    fn perform(&mut self, action: Action, scenario: &Scenario) {
        let postgres = &mut self.postgres;
        match action {
            Action::Begin(tx) => postgres.txs[tx] = TxState::Open,
            Action::Commit(tx) => postgres.commit(tx, scenario),
            Action::BecomeVisible(tx) => postgres.txs[tx] = TxState::Visible,
            Action::Abort(tx) => postgres.txs[tx] = TxState::Aborted,
            Action::FlushWal => postgres.flushed = postgres.inserted,
            Action::Replay => postgres.replayed += 1,
            Action::PostgresCrashes => {
                self.faults.postgres_crash -= 1;
                postgres.crash();
                for daemon in &mut self.daemons {
                    daemon.end(daemon.forced);
                }
            }
            Action::SlotIsLost => {
                self.faults.slot_lost -= 1;
                postgres.slot = None;
            }
            Action::SlotIsRecreated => {
                self.faults.slot_recreated -= 1;
                self.make_slot(None);
            }
            Action::PublicationIsAltered => {
                self.faults.publication -= 1;
                postgres.publication += 1;
                postgres.partial = postgres
                    .partial
                    .union(Set::those(scenario.txs.len(), |tx| postgres.txs[tx] == TxState::Open));
            }
            Action::Cut(d) => {
                self.faults.cut -= 1;
                self.release(d);
            }
            Action::Dump => {
                self.faults.dump -= 1;
                self.dump = Some(self.redis.clone());
            }
            Action::RestoreDump => {
                self.faults.restore -= 1;
                let dump = self.dump.clone().unwrap_or_default();
                self.redis_restarts(dump, scenario);
            }
            Action::FlushRedis => {
                self.faults.flush -= 1;
                self.redis_restarts(Redis::empty(), scenario);
            }
            Action::EvictState => {
                self.faults.evict -= 1;
                self.redis.evict_state();
            }
            Action::LateArrives => {
                if let Some(command) = self.late.take() {
                    self.run_command(&command, scenario);
                }
            }
            Action::LeaseExpires(key) => self.redis.leases[key] = 0,
            Action::AskFrontier(f)
            | Action::Lease(f)
            | Action::CheckReplica(f)
            | Action::Read(f)
            | Action::Store(f) => self.filler_does(f, action, scenario),
            _ => self.daemon_does(action, scenario),
        }
    }

    fn make_slot(&mut self, holder: Option<usize>) {
        let postgres = &mut self.postgres;
        postgres.flushed = postgres.inserted;
        let at = postgres.inserted;
        postgres.slot = Some(Slot { start: at, confirmed: at, holder });
    }

    fn release(&mut self, d: usize) {
        if let Some(slot) = &mut self.postgres.slot {
            if slot.holder == Some(d) {
                slot.holder = None;
            }
        }
    }

    fn redis_restarts(&mut self, with: Redis, scenario: &Scenario) {
        self.redis = with;
        self.late = None; // died with its connection
        for daemon in &mut self.daemons {
            daemon.lost |= daemon.relies_on_purge();
        }
        if scenario.rules.filler_session {
            self.fillers = [Filler::Idle; 2];
        }
    }

    fn run_command(&mut self, command: &Command, scenario: &Scenario) -> Outcome {
        let outcome = self.redis.run(command, &scenario.rules);
        if let (Command::Step(step), Outcome::Done) = (command, &outcome) {
            self.done = self.done.union(step.done);
            if scenario.literal {
                for (ever, causes) in self.ever.iter_mut().zip(step.causes) {
                    *ever = ever.union(causes);
                }
            }
        }
        outcome
    }

    fn broken(&mut self, d: usize, gap: Gap) {
        self.release(d);
        self.daemons[d].end(Some(gap));
    }

    fn daemon_does(&mut self, action: Action, scenario: &Scenario) {
        let rules = &scenario.rules;
        match action {
            Action::Connect(d) => {
                let daemon = &mut self.daemons[d];
                daemon.seen = self.redis.state;
                daemon.acknowledged = self.redis.nonce();
                daemon.phase = Phase::Connected;
            }
            Action::TakeSlot(d) => {
                let daemon = &mut self.daemons[d];
                daemon.found.incarnation = self.postgres.incarnation;
                daemon.found.publication = self.postgres.publication;
                match &mut self.postgres.slot {
                    None => {
                        let gap = daemon.forced.unwrap_or(Gap::Other);
                        daemon.begin_gap(gap, rules);
                    }
                    Some(slot) => {
                        slot.holder = Some(d);
                        daemon.found.confirmed = slot.confirmed;
                        daemon.slot_taken = true;
                        daemon.phase = Phase::Started;
                    }
                }
            }
            Action::Judge(d) => {
                let daemon = &mut self.daemons[d];
                match daemon.judge(&self.postgres, rules) {
                    Some(gap) => daemon.begin_gap(gap, rules),
                    None => daemon.phase = Phase::Claiming,
                }
            }
            Action::CreateSlot(d) => {
                if self.postgres.slot.is_some() {
                    let forced = self.daemons[d].forced;
                    self.daemons[d].end(forced);
                    return;
                }
                self.make_slot(Some(d));
                let daemon = &mut self.daemons[d];
                daemon.found.confirmed = self.postgres.inserted;
                daemon.slot_taken = true;
                // What it has created it takes suspects for at once, whatever the rules say.
                daemon.phase = Phase::Suspecting;
                if !rules.suspects_at_every_gap {
                    self.take_suspects(d, true, scenario);
                }
            }
            Action::TakeSuspects(d) => self.take_suspects(d, false, scenario),
            Action::Purge(d) => {
                let daemon = &mut self.daemons[d];
                let part = daemon.purge.unwrap_or_default();
                if self.redis.purge(part, scenario.keys, rules) {
                    daemon.purge = Some(part + 1);
                } else {
                    daemon.purged(&self.postgres, rules);
                }
            }
            Action::CheckChain(d) => {
                let found = self.redis.nonce();
                let daemon = &mut self.daemons[d];
                if rules.chain && daemon.attempt != 0 && found == daemon.attempt {
                    daemon.lost = false;
                } else if !rules.chain || found == daemon.acknowledged {
                    daemon.lost = false;
                    daemon.purge = Some(0);
                } else {
                    self.broken(d, Gap::Other);
                }
            }
            Action::Send(d, delivery) => self.send(d, delivery, scenario),
            Action::Receive(d) => {
                let tx = self.postgres.record(self.daemons[d].read);
                self.daemons[d].receive(tx, &self.postgres, scenario);
            }
            Action::Admit(d) => {
                let shown = self.shown(scenario);
                self.daemons[d].admit(shown, &self.postgres, scenario);
            }
            Action::LookUp(d) => self.daemons[d].look_up(&self.postgres, scenario),
            Action::Defer(d) => {
                let daemon = &mut self.daemons[d];
                daemon.deferred = daemon.batch.take();
            }
            Action::TakeUpDeferred(d) => {
                let daemon = &mut self.daemons[d];
                daemon.batch = daemon.deferred.take();
                if let Some(batch) = &mut daemon.batch {
                    batch.watermark = batch.watermark.max(daemon.watermark);
                }
            }
            Action::Report(d) => {
                let reported = self.reported(d, scenario);
                if let Some(slot) = &mut self.postgres.slot {
                    slot.confirmed = reported;
                }
            }
            Action::SeePublication(d) => self.broken(d, Gap::PublicationChanged),
            Action::Settle(d, tx) => {
                if self.postgres.txs[tx] == TxState::Aborted {
                    let daemon = &mut self.daemons[d];
                    daemon.suspects.all.remove(tx);
                    daemon.suspects.partial.remove(tx);
                    daemon.suspects_changed = true;
                } else {
                    self.broken(d, Gap::Other);
                }
            }
            Action::Renew(d) => self.broken(d, Gap::Other),
            Action::Notice(d) => {
                let forced = self.daemons[d].forced;
                self.daemons[d].end(forced);
            }
            Action::Crash(d) => {
                self.faults.crash -= 1;
                self.release(d);
                self.daemons[d].end(None);
            }
            _ => {}
        }
    }

    fn take_suspects(&mut self, d: usize, created: bool, scenario: &Scenario) {
        let rules = &scenario.rules;
        let daemon = &mut self.daemons[d];
        daemon.take_suspects(&self.postgres, created, rules);
        if rules.valid_last {
            daemon.phase = Phase::Validating;
            daemon.purge = Some(0);
        } else {
            daemon.phase = Phase::Declaring;
        }
    }

    fn send(&mut self, d: usize, delivery: Delivery, scenario: &Scenario) {
        let rules = &scenario.rules;
        if self.daemons[d].attempt == 0 {
            let nonce = self.fresh_nonce();
            let daemon = &mut self.daemons[d];
            daemon.attempt = nonce;
            daemon.raise_frontier(&self.postgres, rules);
        }
        let command = self.daemons[d].command(&self.postgres, rules);
        match delivery {
            Delivery::Answered => match self.run_command(&command, scenario) {
                Outcome::Done => self.daemons[d].acknowledged(rules),
                Outcome::Broken => self.broken(d, Gap::Other),
            },
            Delivery::AnswerLost => {
                self.faults.lost_answer -= 1;
                self.run_command(&command, scenario);
            }
            Delivery::Late => {
                self.faults.late -= 1;
                self.late = Some(command);
            }
        }
    }

    fn filler_does(&mut self, f: usize, action: Action, scenario: &Scenario) {
        let (FillerOf { key, replica }, rules) = (scenario.fillers[f], &scenario.rules);
        let frontier_now = self.redis.state.map_or(0, |state| state.frontier);
        self.fillers[f] = match (action, self.fillers[f]) {
            (Action::AskFrontier(_), _) => Filler::Asked { frontier: frontier_now },
            (Action::Lease(_), was) => {
                let token = self.fresh_token();
                self.redis.leases[key] = token;
                match was {
                    Filler::Asked { frontier } => Filler::Leased { token, frontier },
                    _ => Filler::Leased { token, frontier: if replica { frontier_now } else { 0 } },
                }
            }
            (Action::CheckReplica(_), Filler::Leased { token, .. }) => Filler::Checked { token },
            (Action::CheckReplica(_), Filler::Unchecked { token, snapshot, .. }) => {
                Filler::Loaded { token, snapshot }
            }
            (Action::Read(_), Filler::Leased { token, .. }) if !replica => {
                Filler::Loaded { token, snapshot: self.postgres.visible() }
            }
            (Action::Read(_), Filler::Leased { token, frontier }) => {
                let snapshot = self.postgres.visible_on_standby();
                Filler::Unchecked { token, frontier, snapshot }
            }
            (Action::Read(_), Filler::Checked { token }) => {
                Filler::Loaded { token, snapshot: self.postgres.visible_on_standby() }
            }
            (Action::Store(_), Filler::Loaded { token, snapshot }) => {
                let value = scenario.value(key, snapshot);
                if self.redis.fill(key, token, value, rules) {
                    self.missed |= !self.redis.allows(key, snapshot);
                    self.missed_literally |= !self.ever[key].is_within(snapshot);
                }
                Filler::Idle
            }
            (_, was) => was,
        };
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

    fn fresh_nonce(&mut self) -> u8 {
        1 + self.nonces().map(|nonce| *nonce).max().unwrap_or(0)
    }

    fn fresh_token(&mut self) -> u8 {
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
