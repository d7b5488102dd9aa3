//! What can happen next.

use super::action::{Action, Delivery};
use super::daemon::Phase;
use super::filler::Filler;
use super::pipeline::may_read_standby;
use super::postgres::TxState;
use super::scenario::{FillerOf, Scenario};
use super::set::{Set, Txs};
use super::world::World;

impl World {
    pub fn database_may(&self, scenario: &Scenario, actions: &mut Vec<Action>) {
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

    pub fn daemon_may(&self, d: usize, scenario: &Scenario, actions: &mut Vec<Action>) {
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
            Phase::CreatingSlot if !self.slot_must_wait() => actions.push(Action::CreateSlot(d)),
            Phase::Suspecting => actions.push(Action::TakeSuspects(d)),
            Phase::Running => self.running_may(d, scenario, actions),
            _ => {}
        }
    }

    /// Postgres makes no slot that would begin in the middle of an open transaction. The
    /// model lets it, where the transaction comes through whole all the same.
    fn slot_must_wait(&self) -> bool {
        let open = |tx: usize| self.postgres.txs[tx] == TxState::Open;
        self.postgres.partial.iter().any(open)
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
            Some(batch) => {
                let looked_up = batch.txs.iter().any(|tx| scenario.txs[tx].parent.is_some());
                let free = daemon.deferred.is_none() && daemon.attempt == 0;
                if !rules.lookups_end_first && looked_up && free {
                    actions.push(Action::Defer(d));
                }
            }
            None => {}
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
    pub fn shown(&self, scenario: &Scenario) -> Txs {
        if scenario.rules.gate { self.postgres.visible() } else { Set::ALL }
    }

    /// What Postgres would be told.
    pub fn reported(&self, d: usize, scenario: &Scenario) -> u8 {
        let daemon = &self.daemons[d];
        match &daemon.batch {
            Some(batch) if !scenario.rules.acknowledge_last => batch.watermark,
            _ => daemon.watermark,
        }
    }

    pub fn redis_may(&self, scenario: &Scenario, actions: &mut Vec<Action>) {
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

    pub fn filler_may(&self, f: usize, scenario: &Scenario, actions: &mut Vec<Action>) {
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
                } else if may_read_standby(replayed, frontier) {
                    actions.push(Action::CheckReplica(f));
                }
            }
            Filler::Checked { .. } => actions.push(Action::Read(f)),
            Filler::Unchecked { frontier, .. } if may_read_standby(replayed, frontier) => {
                actions.push(Action::CheckReplica(f));
            }
            Filler::Unchecked { .. } => {}
            Filler::Loaded { .. } => actions.push(Action::Store(f)),
        }
    }
}
