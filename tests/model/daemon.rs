//! The daemon's mind: what it knows, and what it asks of Redis next. What happens to it is
//! in `world`.

use super::pipeline;
use super::postgres::Postgres;
use super::redis::{Command, Control, Nonce, Step, Suspects};
use super::rules::{Partial, Rules};
use super::scenario::Scenario;
use super::set::{KEYS, Keys, Lsn, Set, TXS, Txs};

/// Where a daemon is between nothing and streaming (`pipeline::settle`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Phase {
    #[default]
    Down,
    /// It has read the state in Redis.
    Connected,
    /// The slot is its own, its position is read.
    Started,
    /// Takes the chain over.
    Claiming,
    /// Finishes the drop of a whole cache that an earlier life began.
    Reopening,
    /// A gap: makes the state invalid,
    Declaring,
    /// and purges at once;
    Voiding,
    /// makes the slot,
    CreatingSlot,
    /// takes suspects,
    Suspecting,
    /// purges again, and writes the valid state.
    Validating,
    Running,
}

/// Why there is a gap, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Gap {
    PublicationChanged,
    Other,
}

/// What Postgres said at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Found {
    pub confirmed: Lsn,
    pub incarnation: u8,
    pub publication: u8,
}

/// What is applied together.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Batch {
    pub txs: Txs,
    /// On whose behalf each key is removed.
    pub causes: [Txs; KEYS],
    /// These lookups have not been run.
    pub lookups: Txs,
    /// On whose behalf the whole cache is dropped.
    pub whole: Txs,
    pub watermark: Lsn,
    pub suspects: Option<Suspects>,
    /// The cache is closed.
    pub closed: bool,
    /// Keys that earlier steps have removed.
    pub removed: Keys,
}

impl Batch {
    fn keys(&self) -> Keys {
        Set::those(KEYS, |key| !self.causes[key].is_empty())
    }

    /// Keys that are still to be removed.
    fn rest(&self) -> Keys {
        if self.whole.is_empty() { self.keys().minus(self.removed) } else { Set::EMPTY }
    }

    /// What the next step removes, and whether it is the last.
    fn next(&self) -> (Keys, bool) {
        let rest = self.rest();
        match rest.iter().count() {
            0 | 1 => (rest, true),
            _ => (rest.first().map_or(Set::EMPTY, |key| Set::of(&[key])), false),
        }
    }

    fn must_close(&self) -> bool {
        !self.whole.is_empty() && !self.closed
    }
}

/// One daemon.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Daemon {
    pub phase: Phase,
    /// The run before found a gap. Dies with the process.
    pub forced: Option<Gap>,
    /// The state as it was read at the start.
    pub seen: Option<Control>,
    pub found: Found,
    /// The slot was found or made, and is this daemon's, as far as it knows.
    pub slot_taken: bool,
    /// This run has made it.
    pub slot_is_new: bool,
    /// Of the last acknowledged step.
    pub acknowledged: Nonce,
    /// Of the step under way; 0: none.
    pub attempt: Nonce,
    /// How far the purge is that is under way.
    pub purge: Option<u8>,
    /// Redis has restarted since the purge began whose closing step is not acknowledged.
    pub lost: bool,
    /// Everything below was applied before this run.
    pub base: Lsn,
    pub read: Lsn,
    pub parked: Txs,
    /// What their lookups found when they arrived, where lookups do not wait for the gate.
    pub early: [Keys; TXS],
    pub batch: Option<Batch>,
    /// A batch whose lookups go on while later ones are applied.
    pub deferred: Option<Batch>,
    /// What Redis has acknowledged.
    pub watermark: Lsn,
    pub frontier: Lsn,
    pub suspects: Suspects,
    pub suspects_changed: bool,
}

impl Daemon {
    /// Starts anew, in the same process if a gap is to be remembered.
    pub fn end(&mut self, forced: Option<Gap>) {
        *self = Daemon { forced, ..Daemon::default() };
    }

    /// Whether this run relies on a purge of which the closing step is not acknowledged.
    pub fn relies_on_purge(&self) -> bool {
        self.purge.is_some()
            || matches!(self.phase, Phase::Validating | Phase::Reopening)
            || self.batch.as_ref().is_some_and(|batch| batch.closed)
    }

    /// Rule 7: whether what is cached stands.
    pub fn judge(&self, postgres: &Postgres, rules: &Rules) -> Option<Gap> {
        if self.forced.is_some() {
            return self.forced;
        }
        let mut found = self.found;
        if !rules.slot_position {
            found.confirmed = 0;
        }
        if let (false, Some(seen)) = (rules.incarnation, self.seen) {
            found.incarnation = seen.incarnation;
        }
        pipeline::verdict(self.seen, found, postgres.inserted)
    }

    /// The first act of a gap.
    pub fn begin_gap(&mut self, gap: Gap, rules: &Rules) {
        self.forced = Some(gap);
        self.phase = match (rules.valid_last, self.slot_taken) {
            (true, _) => Phase::Declaring,
            (false, true) => Phase::Suspecting,
            (false, false) => Phase::CreatingSlot,
        };
    }

    /// Takes suspects.
    pub fn take_suspects(&mut self, postgres: &Postgres, rules: &Rules) {
        let wanted = rules.suspects && (self.slot_is_new || rules.suspects_at_every_gap);
        let all = if wanted { postgres.in_progress(rules.suspects_by_own_xid) } else { Set::EMPTY };
        let partial = match (rules.partial, self.seen) {
            // The making of the slot has waited for all that was open.
            _ if self.slot_is_new => Set::EMPTY,
            (Partial::Remembered, Some(seen)) if seen.publication == self.found.publication => {
                seen.suspects.partial
            }
            (Partial::Remembered, _) => Set::ALL,
            (Partial::ByReason, _) if self.forced == Some(Gap::PublicationChanged) => Set::ALL,
            (Partial::ByReason | Partial::Never, _) => Set::EMPTY,
        };
        self.suspects = Suspects { all, partial: partial.and(all) };
    }

    /// Begins to stream.
    pub fn run(&mut self, rules: &Rules) {
        match self.seen {
            Some(seen) if self.forced.is_none() => {
                self.watermark = match rules.watermark_at_restart {
                    true => seen.watermark,
                    false => seen.watermark.max(seen.frontier),
                };
                self.frontier = seen.frontier;
                self.suspects = seen.suspects;
            }
            _ => self.watermark = self.found.confirmed,
        }
        self.phase = Phase::Running;
        self.base = self.watermark;
        self.read = self.found.confirmed;
        (self.forced, self.seen, self.purge, self.lost) = (None, None, None, false);
        self.slot_is_new = false;
    }

    /// A transaction arrives.
    pub fn receive(&mut self, tx: usize, postgres: &Postgres, scenario: &Scenario) {
        self.read += 1;
        self.parked.insert(tx);
        if self.suspects.all.contains(tx) && !self.suspects.partial.contains(tx) {
            self.suspects.all.remove(tx);
            self.suspects_changed = true;
        }
        if !scenario.rules.gated_lookups {
            self.early[tx] = scenario.looked_up(tx, postgres.visible());
        }
    }

    /// Rule 1: lets go what this snapshot shows.
    pub fn admit(&mut self, shown: Txs, postgres: &Postgres, scenario: &Scenario) {
        let arrived = (self.found.confirmed..self.read).map(|at| {
            let tx = postgres.record(at);
            (at, self.parked.contains(tx).then_some(tx))
        });
        let (txs, watermark) = pipeline::admit(self.base, arrived, shown);
        let mut batch = Batch { watermark, ..Batch::default() };
        for tx in txs {
            batch.txs.insert(tx);
            self.parked.remove(tx);
            if postgres.partial.contains(tx) {
                continue; // what it wrote was not published
            }
            for key in scenario.direct_keys(tx).union(self.early[tx]).iter() {
                batch.causes[key].insert(tx);
            }
            self.early[tx] = Set::EMPTY;
            if scenario.txs[tx].whole {
                batch.whole.insert(tx);
            }
            if scenario.txs[tx].parent.is_some() && scenario.rules.gated_lookups {
                batch.lookups.insert(tx);
            }
        }
        if std::mem::take(&mut self.suspects_changed) {
            batch.suspects = Some(self.suspects);
        }
        if let Some(deferred) = &self.deferred {
            // Counts as parked.
            let oldest = deferred.txs.iter().filter_map(|tx| postgres.record_end(tx)).min();
            batch.watermark = batch.watermark.min(oldest.map_or(Lsn::MAX, |end| end - 1));
        }
        self.batch = Some(batch);
    }

    /// Runs the batch's lookups.
    pub fn look_up(&mut self, postgres: &Postgres, scenario: &Scenario) {
        let Some(batch) = &mut self.batch else { return };
        for tx in std::mem::take(&mut batch.lookups).iter() {
            for key in scenario.looked_up(tx, postgres.visible()).iter() {
                batch.causes[key].insert(tx);
            }
        }
    }

    /// What is to be sent to Redis now.
    pub fn wants_to_send(&self) -> bool {
        self.purge.is_none()
            && match self.phase {
                Phase::Claiming | Phase::Reopening | Phase::Declaring | Phase::Validating => true,
                Phase::Running => self.batch.as_ref().is_some_and(|batch| batch.lookups.is_empty()),
                _ => false,
            }
    }

    /// The command that is to be sent, under the nonce of the attempt.
    pub fn command(&self, postgres: &Postgres, rules: &Rules) -> Command {
        let step = Step { expected: self.acknowledged, nonce: self.attempt, ..Step::default() };
        match (self.phase, &self.batch) {
            (Phase::Declaring, _) if rules.valid_last => Command::Declare(Control {
                valid: false,
                nonce: self.attempt,
                watermark: 0,
                frontier: 0,
                incarnation: 0,
                publication: 0,
                closed: false,
                suspects: Suspects::default(),
            }),
            (Phase::Declaring, _) => Command::Declare(self.valid_state(postgres, rules)),
            (Phase::Validating, _) => {
                Command::Step(Step { state: Some(self.valid_state(postgres, rules)), ..step })
            }
            (Phase::Reopening, _) => Command::Step(Step { closed: Some(false), ..step }),
            (Phase::Running, Some(batch)) => Command::Step(self.batch_step(batch, step, rules)),
            _ => Command::Step(step),
        }
    }

    fn valid_state(&self, postgres: &Postgres, rules: &Rules) -> Control {
        Control {
            valid: true,
            nonce: self.attempt,
            watermark: self.found.confirmed,
            frontier: if rules.valid_last { self.frontier } else { postgres.inserted },
            incarnation: self.found.incarnation,
            publication: self.found.publication,
            closed: false,
            suspects: persisted(self.suspects, rules),
        }
    }

    fn batch_step(&self, batch: &Batch, step: Step, rules: &Rules) -> Step {
        let frontier = Some(self.frontier);
        if batch.must_close() {
            return Step { frontier, closed: Some(true), ..step };
        }
        let (keys, last) = batch.next();
        let of_keys = |keys: Keys| {
            let mut causes = [Set::EMPTY; KEYS];
            keys.iter().for_each(|key| causes[key] = batch.causes[key]);
            causes
        };
        if !last {
            return Step { keys, causes: of_keys(keys), frontier, ..step };
        }
        let mut causes = of_keys(keys);
        if !batch.whole.is_empty() {
            causes = batch.causes.map(|key| key.union(batch.whole));
        }
        Step {
            keys,
            causes,
            frontier,
            done: batch.txs,
            watermark: Some(batch.watermark),
            closed: (!batch.whole.is_empty()).then_some(false),
            suspects: batch.suspects.map(|suspects| persisted(suspects, rules)),
            ..step
        }
    }

    /// Raises the frontier for the batch that is about to be applied.
    pub fn raise_frontier(&mut self, postgres: &Postgres, rules: &Rules) {
        let Some(batch) = &self.batch else { return };
        let keyed = batch.causes.iter().fold(batch.whole, |all, txs| all.union(*txs));
        let counted = if rules.frontier_of_keyless { batch.txs } else { keyed };
        for end in counted.iter().filter_map(|tx| postgres.record_end(tx)) {
            let at = if rules.frontier_of_commit_end { end } else { end - 1 };
            self.frontier = self.frontier.max(at);
        }
    }

    /// Redis has acknowledged the step.
    pub fn acknowledged(&mut self, rules: &Rules) {
        self.acknowledged = std::mem::take(&mut self.attempt);
        self.lost = false;
        match self.phase {
            Phase::Declaring => {
                self.phase = Phase::Voiding;
                self.purge = Some(0);
            }
            Phase::Claiming if self.seen.is_some_and(|seen| seen.closed) => {
                self.phase = Phase::Reopening;
                self.purge = Some(0);
            }
            Phase::Claiming | Phase::Reopening | Phase::Validating => self.run(rules),
            Phase::Running => self.batch_acknowledged(),
            _ => {}
        }
    }

    fn batch_acknowledged(&mut self) {
        let Some(batch) = &mut self.batch else { return };
        if batch.must_close() {
            batch.closed = true;
            self.purge = Some(0);
            return;
        }
        let (keys, last) = batch.next();
        if last {
            self.watermark = batch.watermark;
            self.batch = None;
        } else {
            batch.removed = batch.removed.union(keys);
        }
    }

    /// The purge has ended.
    pub fn purged(&mut self, postgres: &Postgres, rules: &Rules) {
        self.purge = None;
        match self.phase {
            Phase::Voiding if !rules.valid_last => self.run(rules),
            Phase::Voiding => {
                self.lost = false;
                self.phase = if self.slot_taken { Phase::Suspecting } else { Phase::CreatingSlot };
            }
            Phase::Validating if rules.frontier_at_gap => self.frontier = postgres.inserted,
            _ => {}
        }
    }

    /// Whether all that arrived is applied and nothing is to be done.
    pub fn is_idle(&self, postgres: &Postgres) -> bool {
        self.phase == Phase::Running
            && self.read == postgres.inserted
            && self.parked.is_empty()
            && self.batch.is_none()
            && self.deferred.is_none()
            && self.suspects.all.is_empty()
            && self.found.publication == postgres.publication
    }
}

fn persisted(suspects: Suspects, rules: &Rules) -> Suspects {
    if rules.suspects_persisted { suspects } else { Suspects::default() }
}
