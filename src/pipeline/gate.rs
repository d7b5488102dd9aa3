//! The task between the stream and Redis: the visibility gate, the lookups, and the
//! watch over what no stream tells.
//!
//! The gate (rule 1). Postgres writes a commit to the WAL, then waits for synchronous
//! standbys, and only then makes the transaction visible. The stream tells of the commit as
//! soon as it is written. Whoever reads in between reads the old row; a removal made that
//! early would be followed by a fill of the old value. So before a transaction's keys are
//! handed on, a snapshot of the streaming primary must show it. One query serves all that
//! waits; the snapshot is asked for after they arrived, so it can only err by being early,
//! which parks them a little longer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

use super::batch::{Batch, Cause};
use super::end::End;
use super::lookups::{LookupPlans, Lookups};
use super::points::{Point, Points};
use super::rewrites::{self, Decided, Rewrites};
use super::stream::check_standbys;
use super::suspects::Suspects;
use super::transaction::Transaction;
use super::untold::{self, Answers, Streamed, Subjects};
use super::waiting::{Arrival, Waiting};
use super::without::Without;
use crate::config::model::Operation;
use crate::lsn::Lsn;
use crate::mapping::Mapping;
use crate::mapping::changes::{ChangeSet, Escalation, Origin};
use crate::mapping::model::TableId;
use crate::postgres::error::PgError;
use crate::postgres::gate::Gate as Snapshots;
use crate::postgres::slot::SlotState;
use crate::postgres::storage::File;
use crate::postgres::suspects::{XactStatus, xact_status};
use crate::status::reason::GapReason;
use crate::status::{Loop, SlotSeen, Status};

/// Bounds of one batch: past them the rest waits for the next.
const MAX_TRANSACTIONS: usize = 4096;
const MAX_KEYS: usize = 20_000;

/// How long a batch is waited for by who is far behind: by so many bytes of WAL.
const LINGER: Duration = Duration::from_millis(2);
const FAR_BEHIND: u64 = 256 << 10;

/// Who became visible a moment after he was asked for is asked for again at once, so often: the way to
/// Postgres and back is pause enough, and no timer is as fine.
const AT_ONCE: u32 = 4;

/// The shortest pause that a timer knows, and the longest between two looks.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// How often is asked what no stream tells of.
const WATCH: Duration = Duration::from_secs(1);

/// How often an idle database's progress is written down.
const IDLE_PROGRESS: Duration = Duration::from_secs(1);

/// The task's state.
pub struct Gate {
    /// From the stream.
    pub arrivals: mpsc::Receiver<Arrival>,
    /// To Redis.
    pub batches: mpsc::Sender<Batch>,
    /// Who waits.
    pub waiting: Waiting,
    /// A connection to the server that streams.
    pub snapshots: Snapshots,
    /// The lookups on that connection.
    pub lookups: Lookups,
    /// The rules.
    pub mapping: Arc<Mapping>,
    /// What may never come through.
    pub suspects: Suspects,
    /// The list in Redis is not this one.
    pub suspects_changed: bool,
    /// What no stream tells of.
    pub subjects: Arc<Subjects>,
    /// The mapped tables' OIDs, with their place in the mapping.
    pub tables: BTreeMap<u32, TableId>,
    /// Which of them are rewritten.
    pub rewrites: Rewrites,
    /// What is streamed of them, as it was at the start.
    pub streamed: Streamed,
    /// `application_name`
    pub application: String,
    /// Where the server's WAL ended when it was last asked.
    pub server_end: Lsn,
    /// What may be kept parked, in keys.
    pub max_parked_keys: usize,
    /// How often in a row nothing that waits was visible.
    pub in_vain: u32,
    /// Nothing, but in tests.
    pub without: Without,
    /// Nowhere, but in tests.
    pub points: Points,
    /// What is known.
    pub status: Arc<Status>,
}

/// How long to wait before the parked are looked at again: a fraction of what the
/// newest has waited, so that a short wait stays short and a long one costs little.
fn patience(waited: Duration, in_vain: u32) -> Duration {
    if in_vain < AT_ONCE && waited < SHORTEST_PAUSE {
        return Duration::ZERO;
    }
    (waited / 4).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
}

async fn pause(time: Duration) {
    if time.is_zero() {
        // A timer would take its millisecond.
        tokio::task::yield_now().await;
    } else {
        tokio::time::sleep(time).await;
    }
}

/// What is under way beside the gate's own work: in a task of its own, for answers that nobody takes
/// in hold up those behind them on the connection, and so the gate's.
type Asking = Option<AbortOnDropHandle<Result<Answers, PgError>>>;

/// Its answers; never, if nothing was asked.
async fn answered(asking: &mut Asking) -> Result<Answers, End> {
    match asking {
        Some(asking) => match asking.await {
            Ok(answers) => Ok(answers?),
            Err(failed) => Err(End::Broken(format!("asking ended by itself: {failed}"))),
        },
        None => std::future::pending().await,
    }
}

impl Gate {
    /// Runs until the stream has ended and all that is visible is handed on.
    pub async fn run(mut self) -> Result<(), End> {
        let mut watch = tokio::time::interval(WATCH);
        watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut idle = tokio::time::interval(IDLE_PROGRESS);
        idle.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut written = self.waiting.watermark();
        let mut asking: Asking = None;
        let mut open = true;
        while open {
            self.status.beat(Loop::Gate);
            let before = self.waiting.len();
            let waited = self.waiting.newest().map_or(Duration::ZERO, |since| since.elapsed());
            let patience = patience(waited, self.in_vain);
            tokio::select! {
                biased;
                answers = answered(&mut asking) => {
                    asking = None;
                    let status = Arc::clone(&self.status);
                    let concluding = self.conclude(answers?);
                    if let Some(batch) = status.attending(Loop::Gate, concluding).await? {
                        open &= self.hand_on(batch).await;
                    }
                    continue;
                }
                // Each question has a bound; while they are under way this goes round.
                _ = watch.tick() => {
                    asking = asking.or_else(|| Some(AbortOnDropHandle::new(tokio::spawn(self.ask()))));
                    continue;
                }
                _ = idle.tick(), if self.waiting.watermark() > written => {
                    written = self.waiting.watermark();
                    open &= self.hand_on(Batch { watermark: written, ..Batch::default() }).await;
                    continue;
                }
                arrival = self.arrivals.recv() => match arrival {
                    Some(first) => {
                        self.take_what_waits(first);
                        self.linger().await;
                    }
                    None => open = false,
                },
                () = pause(patience), if !self.waiting.is_empty() => {}
            }
            if self.waiting.is_empty() {
                continue;
            }
            if let Some(batch) = self.admit(before).await? {
                written = batch.watermark;
                open &= self.hand_on(batch).await;
            }
        }
        // The last progress is worth writing down: it frees WAL while the daemon is away.
        if self.waiting.watermark() > written {
            self.hand_on(Batch { watermark: self.waiting.watermark(), ..Batch::default() }).await;
        }
        Ok(())
    }

    /// Takes `first` and whatever else has arrived, within the bounds of a batch.
    fn take_what_waits(&mut self, first: Arrival) {
        let mut next = Some(first);
        let (mut transactions, mut keys) = (0, 0);
        while let Some(arrival) = next {
            if let Arrival::Transaction(transaction) = &arrival {
                self.suspects_changed |= self.suspects.came_through(transaction.xid);
                self.note_told(transaction);
                transactions += 1;
                keys += transaction.changes.len();
            }
            self.waiting.arrive(arrival);
            if transactions >= MAX_TRANSACTIONS || keys >= MAX_KEYS {
                return;
            }
            next = self.arrivals.try_recv().ok();
        }
    }

    /// Remembers of which tables this transaction tells that they got another file.
    fn note_told(&mut self, transaction: &Transaction) {
        let truncated = transaction.changes.counts();
        let truncated = truncated.filter(|(_, operation, _)| *operation == Operation::Truncate);
        let rewritten = transaction.changes.whole();
        let rewritten = rewritten.filter(|(_, reason, _)| *reason == Escalation::Rewritten);
        let rewritten = rewritten.filter_map(|(_, _, origin)| self.mapping.rule(origin.rule));
        let told: BTreeSet<TableId> =
            truncated.map(|(table, ..)| table).chain(rewritten.map(|rule| rule.table)).collect();
        if told.is_empty() {
            return;
        }
        for (oid, _) in self.tables.iter().filter(|(_, table)| told.contains(table)) {
            self.rewrites.told(transaction.xid, *oid);
        }
    }

    /// Far behind, a batch is worth waiting for: each costs a snapshot and a step in Redis,
    /// and few small batches leave the server's own process less of the machine. What was
    /// written before the server was last asked where its WAL ends is no news to anybody.
    async fn linger(&mut self) {
        if self.server_end.bytes_since(self.waiting.passed()) > FAR_BEHIND {
            tokio::time::sleep(LINGER).await;
            if let Ok(next) = self.arrivals.try_recv() {
                self.take_what_waits(next);
            }
        }
    }

    /// Lets go what has become visible, with its lookups done. The first `already` of those
    /// that wait were parked before.
    async fn admit(&mut self, already: usize) -> Result<Option<Batch>, End> {
        // What was parked before was seen by nobody: its wait is no lag.
        let since = self.waiting.oldest_from(already).unwrap_or_else(Instant::now);
        self.status.taken_up(since);
        let admitted = if cfg!(debug_assertions) && self.without.gate {
            self.waiting.admit_where(|_| true)
        } else {
            let snapshot = self.snapshots.snapshot().await?;
            self.waiting.admit(&snapshot)
        };
        self.waiting.park(self.max_parked_keys);
        self.note_parked();
        if admitted.transactions.is_empty() {
            self.in_vain = self.in_vain.saturating_add(1);
            self.status.put_back();
            return Ok(None);
        }
        self.in_vain = 0;
        if admitted.transactions.iter().any(|transaction| transaction.alters_publication) {
            self.ask_streamed().await?;
        }
        debug!(transactions = admitted.transactions.len(), parked = self.waiting.len(), "admitted");
        self.points.reach(Point::Admitted).await;
        let mut batch =
            Batch { watermark: admitted.watermark, since: Some(since), ..Batch::default() };
        self.collect(admitted.transactions, &mut batch).await?;
        if std::mem::take(&mut self.suspects_changed) {
            batch.suspects = Some(self.suspects.write());
        }
        Ok(Some(batch))
    }

    /// A transaction has become visible that may have altered what is streamed. What is not for it
    /// committed further on, so it must be compared before the watermark may pass that
    /// ([`announce`](crate::postgres::announce)). The catalog that is read here shows it.
    async fn ask_streamed(&self) -> Result<(), End> {
        let asking = self.subjects.streamed(self.snapshots.client());
        let found = self.status.attending(Loop::Gate, asking).await?;
        self.compare_streamed(&found)
    }

    fn compare_streamed(&self, found: &Streamed) -> Result<(), End> {
        if found.publication != self.streamed.publication {
            warn!(publication = self.subjects.publication, "the publication has changed");
            return Err(End::Gap(GapReason::PublicationChanged));
        }
        if found.partitioned != self.streamed.partitioned {
            warn!(
                "a partition's replica identity has changed, or a partition came with another one than its root's"
            );
            return Err(End::Gap(GapReason::IdentityChanged));
        }
        Ok(())
    }

    /// Puts the transactions into the batch: their own keys as they are, their lookups
    /// together, as far as they were compiled alike.
    async fn collect(
        &mut self,
        transactions: Vec<Transaction>,
        batch: &mut Batch,
    ) -> Result<(), End> {
        let mut together: Option<(Arc<LookupPlans>, ChangeSet)> = None;
        for transaction in transactions {
            if together.as_ref().is_some_and(|(plans, _)| !Arc::ptr_eq(plans, &transaction.plans)) {
                self.look_up(together.take(), batch).await?;
            }
            debug!(
                xid = transaction.xid.0,
                lsn = %transaction.end_lsn,
                after = ?transaction.received_at.elapsed(),
                "visible"
            );
            if let Some((plans, changes)) = batch.take(transaction) {
                together.get_or_insert_with(|| (plans, ChangeSet::default())).1.merge(changes);
            }
        }
        self.look_up(together.take(), batch).await?;
        batch.settle();
        Ok(())
    }

    async fn look_up(
        &mut self,
        together: Option<(Arc<LookupPlans>, ChangeSet)>,
        batch: &mut Batch,
    ) -> Result<(), End> {
        let Some((plans, mut changes)) = together else { return Ok(()) };
        let looking_up =
            self.lookups.run(self.snapshots.client(), &self.mapping, &plans, &mut changes);
        let outcomes = self.status.attending(Loop::Gate, looking_up).await?;
        self.status.looked_up(outcomes);
        batch.add(&mut changes, batch.transactions.len().saturating_sub(1));
        Ok(())
    }

    /// `false`: the other side has ended, and its reason will end the run.
    async fn hand_on(&mut self, batch: Batch) -> bool {
        if batch.since.is_none() {
            self.status.taken_up(Instant::now());
        }
        // Apply answers for how long that takes.
        self.status.attending(Loop::Gate, self.batches.send(batch)).await.is_ok()
    }

    /// Asks what the stream does not tell.
    fn ask(&self) -> impl Future<Output = Result<Answers, PgError>> + use<> {
        let client = Arc::clone(self.snapshots.client());
        untold::ask(client, Arc::clone(&self.subjects), !self.suspects.is_empty())
    }

    /// What follows from the answers.
    async fn conclude(&mut self, answers: Answers) -> Result<Option<Batch>, End> {
        check_standbys(&answers.standbys, &self.application)?;
        self.compare_streamed(&answers.streamed)?;
        if let Some(snapshot) = &answers.snapshot {
            self.suspects.note_ended(snapshot, answers.inserted);
            self.judge_suspects().await?;
        }
        if let Some(slot) = answers.slot {
            self.note_slot(slot, answers.inserted);
        }
        Ok(self.compare_files(answers.files, answers.inserted))
    }

    fn compare_files(&mut self, files: Vec<File>, inserted: Lsn) -> Option<Batch> {
        self.rewrites.look(files, inserted);
        let decided = self.rewrites.decide(self.waiting.passed())?;
        let Decided { rewritten, known, seen } = decided;
        let mut batch = Batch {
            watermark: self.waiting.watermark(),
            files: Some(rewrites::write(known)),
            // The stream has no commit of it that the frontier could be raised to.
            seen: Some(seen),
            ..Batch::default()
        };
        for table in rewritten.iter().filter_map(|table| self.tables.get(table)) {
            warn!(
                table = self.mapping.table_name(*table),
                lsn = %seen,
                "the table was rewritten, or a partition attached or detached: dropping what depends on it"
            );
            for (rule, model) in self.mapping.rules_of(*table) {
                let origin = Origin { rule, cache: model.cache, operation: Operation::Update };
                let cause = Cause { origin, transaction: 0 };
                batch.whole.entry(model.cache).or_insert((Escalation::Rewritten, cause));
            }
        }
        Some(batch)
    }

    async fn judge_suspects(&mut self) -> Result<(), End> {
        let client = self.snapshots.client();
        for xid in self.suspects.due(self.waiting.passed()) {
            match client.answered(xact_status(client, xid)).await? {
                XactStatus::Aborted => {
                    info!(%xid, lsn = %self.waiting.passed(), "a suspect rolled back");
                    self.suspects.clear(xid);
                    self.suspects_changed = true;
                }
                // Its record may have just been written; the snapshot decides again.
                XactStatus::InProgress => {}
                XactStatus::Committed | XactStatus::TooOld => {
                    warn!(%xid, lsn = %self.waiting.passed(), "a transaction committed that did not come through the stream as a whole");
                    return Err(End::Gap(GapReason::Suspect));
                }
            }
        }
        self.note_parked();
        Ok(())
    }

    fn note_parked(&self) {
        let oldest = self.waiting.oldest_from(0);
        self.status.parked(self.waiting.len(), oldest, self.suspects.len());
        self.status.unsure_of_publication(self.waiting.hides_an_alteration());
    }

    fn note_slot(&mut self, slot: SlotState, end: Lsn) {
        self.status.heard_of_server(end);
        self.server_end = end;
        let retained = slot.restart_lsn.map_or(0, |restart| end.bytes_since(restart));
        let metrics = &self.status.metrics;
        metrics.slot_retained_bytes.set(i64::try_from(retained).unwrap_or(i64::MAX));
        metrics.slot_safe_wal_bytes.set(slot.safe_wal_size.unwrap_or(-1));
        let (safe_wal_size, invalidation_reason) = (slot.safe_wal_size, slot.invalidation_reason);
        let seen = SlotSeen {
            wal_status: slot.wal_status,
            safe_wal_size,
            invalidation_reason,
            retained_bytes: retained,
        };
        match self.status.slot(seen).as_deref() {
            Some("unreserved" | "lost") => warn!(
                slot = self.subjects.slot,
                retained_bytes = retained,
                "the slot is about to be lost, or is: let the daemon catch up, or raise max_slot_wal_keep_size"
            ),
            Some(wal_status) => info!(slot = self.subjects.slot, wal_status, "the slot's WAL"),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_nearly_visible_is_asked_for_at_once_but_not_for_ever() {
        let micros = Duration::from_micros;
        assert_eq!(patience(micros(0), 1), Duration::ZERO);
        assert_eq!(patience(micros(900), AT_ONCE - 1), Duration::ZERO);
        assert_eq!(
            patience(micros(900), AT_ONCE),
            SHORTEST_PAUSE,
            "who commits waits for a standby"
        );
        assert_eq!(patience(micros(1000), 1), SHORTEST_PAUSE);
        assert_eq!(patience(micros(80_000), 1), micros(20_000));
        assert_eq!(patience(Duration::from_secs(60), 9), LONGEST_PAUSE);
    }
}
