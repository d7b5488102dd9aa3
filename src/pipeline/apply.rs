//! The task that applies batches to Redis, and then, and only then, reports them.
//!
//! Why it is safe to acknowledge (rule 6): Postgres may forget what lies below the
//! position that the feedback task reports. That position comes from here, after the step
//! that carries it was acknowledged by Redis, and it is the watermark that the gate
//! computed for this batch: everything below it was in this batch or an earlier one.
//!
//! * Killed before the step: Postgres streams it again.
//! * Killed after the step, before the feedback: streamed again, removed again, harmless.
//! * The answer was lost: the chain does the same step again.
//!
//! A large batch goes in several steps; only the last moves the watermark, and the
//! frontier moves with the first: a fill that reads it must not believe a replica that
//! lacks a transaction of which some keys are gone already.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tracing::info;

use super::account::Account;
use super::batch::Batch;
use super::chain::{Chain, Keys};
use super::end::End;
use super::points::{Point, Points};
use super::touched::Touched;
use crate::fill::held::Held;
use crate::lsn::Lsn;
use crate::mapping::Mapping;
use crate::moment::Moment;
use crate::status::drops::Drop;
use crate::status::{Loop, Status};
use crate::store::purge::Shut;
use crate::store::state;
use crate::warm::attend::WarmUps;
use crate::warm::rewarm::Rewarmer;

/// How often the certificate is renewed, and the chain looked at on an idle database.
const RENEW: Duration = Duration::from_secs(1);

/// The task's state.
pub struct Applier {
    /// From the gate.
    pub batches: mpsc::Receiver<Batch>,
    /// The way to Redis.
    pub chain: Chain,
    /// The rules.
    pub mapping: Arc<Mapping>,
    /// The watermark that Redis has acknowledged.
    pub watermark: Lsn,
    /// The greatest commit END ever applied.
    pub frontier: Lsn,
    /// Bound of a step.
    pub max_keys_per_script: usize,
    /// To the feedback task.
    pub applied: watch::Sender<Lsn>,
    /// Told what was removed.
    pub rewarmer: Rewarmer,
    /// Told what is about to be removed.
    pub held: Arc<Held>,
    /// Told what was dropped as a whole.
    pub warm_ups: WarmUps,
    /// Counts what was applied.
    pub account: Account,
    /// What is known.
    pub status: Arc<Status>,
    /// Nowhere, but in tests.
    pub points: Points,
}

impl Applier {
    /// Runs until the gate has ended and everything is applied.
    pub async fn run(mut self) -> Result<(), End> {
        let mut renew = tokio::time::interval(RENEW);
        renew.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = renew.tick() => {
                    let (asked, certify) = (Moment::now(), self.certifies());
                    self.chain.renew(certify).await?;
                    self.note_certified(asked, certify);
                }
                batch = self.batches.recv() => match batch {
                    Some(batch) => self.apply(batch).await?,
                    None => return Ok(()),
                },
            }
        }
    }

    fn certifies(&self) -> Option<Lsn> {
        self.status.may_certify().then_some(self.watermark)
    }

    fn note_certified(&self, asked: Moment, certify: Option<Lsn>) {
        if certify.is_some() {
            self.status.certified(asked);
        }
    }

    async fn apply(&mut self, mut batch: Batch) -> Result<(), End> {
        let before = self.watermark;
        self.frontier = self.frontier.max(batch.frontier().unwrap_or(Lsn::ZERO));
        let frontier = state::frontier(self.frontier);
        // What this process holds goes first, and stays closed until Redis has done the same.
        let (keys, whole) = (batch.keys.iter().map(|(key, _)| key.as_bytes()), &batch.whole);
        let closed = self.held.removing(keys, !whole.is_empty());
        if !batch.whole.is_empty() {
            self.drop_whole(&batch, frontier.clone()).await?;
        }
        let touched = Touched::new(batch.keys.drain(), &self.mapping);
        let mut lives = Vec::with_capacity(touched.causes.len());
        // What gets its due in Redis after this moment gets it no earlier.
        let asked = Moment::now();
        let (some, last) = touched.steps(self.max_keys_per_script);
        for keys in some {
            lives.extend(self.chain.step(keys, std::slice::from_ref(&frontier), None).await?);
            self.points.reach(Point::BetweenSteps).await;
        }
        let mut fields = vec![frontier, state::watermark(batch.watermark)];
        fields.extend(batch.suspects.take().map(state::suspects));
        fields.extend(batch.files.take().map(state::files));
        self.watermark = batch.watermark;
        let certify = self.certifies();
        lives.extend(self.chain.step(last, &fields, certify).await?);
        self.points.reach(Point::Applied).await;
        self.held.removed(closed);
        self.note_certified(asked, certify);
        // From here on Redis has it, and Postgres may be told.
        self.applied.send_replace(self.watermark);
        // Counted before `/readyz` tells of it: who waits for a position finds its changes
        // in the metrics and its keys in `why`.
        self.account.enter(&batch, before, &touched, &lives);
        for (touch, life) in touched.each().zip(&lives) {
            let (key, cache) = (touch.key.as_bytes(), touch.cause.origin.cache);
            match touch.stays {
                None => self.rewarmer.removed(key, cache, *life),
                Some(at_most) => {
                    self.rewarmer.changed(key, cache, at_most, *life, asked.monotonic())
                }
            }
        }
        self.status.applied(self.watermark);
        self.status.came_through(batch.transactions.iter().map(|trace| trace.heartbeat));
        Ok(())
    }

    /// Rule 9, and a gap in small: the caches are closed first (no lease is given for
    /// them), then their leases go, then their values, then they are opened. Killed before
    /// the batch's last step: streamed again, and dropped again.
    async fn drop_whole(&mut self, batch: &Batch, frontier: state::Field) -> Result<(), End> {
        let (mut names, mut prefixes) = (Vec::new(), Vec::new());
        for (&id, (escalation, cause)) in &batch.whole {
            let Some(cache) = self.mapping.cache(id) else { continue };
            self.status
                .metrics
                .escalations
                .with_label_values(&[&cache.name, escalation.as_str()])
                .inc();
            // Of what the stream did not tell there is a position alone.
            let trace = batch.transactions.get(cause.transaction);
            let lsn = trace.map(|trace| trace.end_lsn).or(batch.seen).unwrap_or_default();
            let xid = trace.map(|trace| trace.xid.0);
            info!(cache = %cache.name, reason = escalation.as_str(), %lsn, xid, rule = self.mapping.describe(cause.origin.rule), "dropping a whole cache");
            names.push(cache.name.as_ref());
            prefixes.push(cache.prefix.as_ref());
        }
        self.chain.step(Keys::default(), &[state::closed(&names), frontier], None).await?;
        self.points.reach(Point::Closed).await;
        // A scan of many keys, each step of it bounded.
        let opened = [state::closed(&[])];
        let purging = self.chain.purge_then(&prefixes, Shut::Caches, &opened);
        let removed = self.status.attending(Loop::Apply, purging).await?;
        info!(caches = names.join(","), removed, lsn = %self.frontier, "dropped whole caches");
        self.warm_ups.dropped(&batch.whole.keys().copied().collect());
        for cache in batch.whole.keys() {
            self.status.metrics.observed.dropped(Some(*cache));
        }
        let at = SystemTime::now();
        self.status.with_drops(|drops| {
            for (escalation, cause) in batch.whole.values() {
                if let Some(trace) = batch.transactions.get(cause.transaction) {
                    let (xid, lsn, present) = (trace.xid, trace.end_lsn, removed > 0);
                    let origin = cause.origin;
                    let drop = Drop { origin, xid, lsn, at, present, kept: false };
                    drops.note_whole(*escalation, drop);
                }
            }
        });
        Ok(())
    }
}
