//! What follows from what happens.

use super::action::{Action, Delivery};
use super::daemon::{Gap, Phase};
use super::filler::Filler;
use super::postgres::{Slot, TxState};
use super::redis::{Command, Outcome, Redis};
use super::scenario::{FillerOf, Scenario};
use super::set::Set;
use super::world::World;

impl World {
    pub fn perform(&mut self, action: Action, scenario: &Scenario) {
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
        let slot = self.postgres.slot.iter_mut();
        slot.filter(|slot| slot.holder == Some(d)).for_each(|slot| slot.holder = None);
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
                daemon.slot_is_new = true;
                daemon.phase = Phase::Suspecting;
            }
            Action::TakeSuspects(d) => self.take_suspects(d, scenario),
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

    fn take_suspects(&mut self, d: usize, scenario: &Scenario) {
        let rules = &scenario.rules;
        let daemon = &mut self.daemons[d];
        daemon.take_suspects(&self.postgres, rules);
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
}
