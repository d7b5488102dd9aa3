//! What is told of a batch once it is applied: the metrics, `why`, the reports.
//!
//! No I/O, and nobody waits for it but the next batch: Redis has acknowledged this one. At a low
//! rate a batch is one change, so series are looked up by their labels once, not a batch.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use prometheus::{Histogram, IntCounter};
use tracing::{debug, warn};

use super::batch::{Batch, Trace};
use super::touched::{Touch, Touched};
use crate::lsn::Lsn;
use crate::mapping::Mapping;
use crate::observed::{AT_ONCE, Change};
use crate::postgres::feedback::clock_now;
use crate::status::Status;
use crate::status::drops::Drop;
use crate::store::session::NOT_THERE;

/// See the module.
pub struct Account {
    mapping: Arc<Mapping>,
    status: Arc<Status>,
    /// By cache.
    caches: Vec<Counted>,
}

/// A cache's series, and what a batch adds to them.
struct Counted {
    invalidations: IntCounter,
    invalidated_present: IntCounter,
    /// A series comes into being with the first entry that there was.
    inconsistent: Option<Histogram>,
    all: u64,
    present: u64,
    /// For how many seconds the entries had been inconsistent, at most.
    ages: Vec<f64>,
}

impl Account {
    /// For a run.
    #[must_use]
    pub fn new(mapping: Arc<Mapping>, status: Arc<Status>) -> Self {
        let metrics = &status.metrics;
        let counted = mapping.caches().map(|(_, cache)| Counted {
            invalidations: metrics.invalidations.with_label_values(&[&cache.name]),
            invalidated_present: metrics.invalidated_present.with_label_values(&[&cache.name]),
            inconsistent: None,
            all: 0,
            present: 0,
            ages: Vec::new(),
        });
        let caches = counted.collect();
        Account { mapping, status, caches }
    }

    /// A batch was applied: each of its keys had that life (as
    /// [`Outcome::Done`](crate::store::session::Outcome::Done) has them). `before`: the watermark
    /// that it found.
    pub fn enter(&mut self, batch: &Batch, before: Lsn, touched: &Touched, lives: &[i64]) {
        let metrics = &self.status.metrics;
        batch.measure(metrics, &self.mapping);
        let (clock, now) = (clock_now(), Instant::now());
        let age = |trace: &Trace| trace.age(clock, now).as_secs_f64();
        for trace in &batch.transactions {
            metrics.commit_to_invalidated.observe(age(trace));
        }
        let at = SystemTime::now();
        let caches = &mut self.caches;
        self.status.with_drops(|drops| {
            for (Touch { key, cause, stays }, life) in touched.each().zip(lives) {
                let present = *life > NOT_THERE;
                let Some(counted) = caches.get_mut(usize::from(cause.origin.cache.0)) else {
                    continue;
                };
                counted.all += 1;
                counted.present += u64::from(present);
                if let Some(trace) = batch.transactions.get(cause.transaction) {
                    // What is streamed again was removed before: this is another entry. What
                    // stays for a while is bounded by its cache's `max_staleness`.
                    if present && stays.is_none() && trace.end_lsn > before {
                        counted.ages.push(age(trace));
                    }
                    drops.note(
                        key.as_bytes(),
                        Drop {
                            origin: cause.origin,
                            xid: trace.xid,
                            lsn: trace.end_lsn,
                            at,
                            present,
                            kept: stays.is_some(),
                        },
                    );
                }
            }
        });
        self.observe(batch, touched, lives);
        self.add_up();
        debug!(
            transactions = batch.transactions.len(),
            rows = batch.counts.values().sum::<u64>(),
            keys = touched.causes.len(),
            watermark = %batch.watermark,
            "a batch was applied"
        );
        for trace in &batch.transactions {
            debug!(xid = trace.xid.0, lsn = %trace.end_lsn, "applied");
        }
        if lives.len() != touched.causes.len() {
            warn!(
                keys = touched.causes.len(),
                answers = lives.len(),
                "Redis answered for another number of keys than were changed"
            );
        }
    }

    fn add_up(&mut self) {
        let reached = self.caches.iter_mut().zip(self.mapping.caches());
        for (counted, (_, cache)) in reached.filter(|(counted, _)| counted.all > 0) {
            let (all, present) =
                (std::mem::take(&mut counted.all), std::mem::take(&mut counted.present));
            counted.invalidations.inc_by(all);
            counted.invalidated_present.inc_by(present);
            debug!(cache = %cache.name, keys = all, present, "keys were removed");
            if counted.ages.is_empty() {
                continue;
            }
            let series = || self.status.metrics.inconsistent.with_label_values(&[&*cache.name]);
            let inconsistent = counted.inconsistent.get_or_insert_with(series);
            counted.ages.drain(..).for_each(|seconds| inconsistent.observe(seconds));
        }
    }

    /// For reports.
    fn observe(&self, batch: &Batch, touched: &Touched, lives: &[i64]) {
        let observed = &self.status.metrics.observed;
        let traces = batch.transactions.iter();
        observed.reached(traces.map(|trace| (trace.reach, trace.end_lsn, trace.xid.0)));
        let mut changes = touched
            .each()
            .zip(lives)
            .map(|(Touch { key, cause, stays }, life)| Change {
                key: key.as_bytes(),
                origin: cause.origin,
                present: *life > NOT_THERE,
                stays: stays.is_some(),
            })
            .peekable();
        while changes.peek().is_some() {
            observed.changed(changes.by_ref().take(AT_ONCE));
        }
    }
}
