//! What is told of a batch once it is applied: the metrics, `why`, the reports.
//!
//! No I/O, and nobody waits for it but the next batch: Redis has acknowledged this one.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tracing::{debug, warn};

use super::batch::{Batch, Trace};
use super::touched::{Touch, Touched};
use crate::lsn::Lsn;
use crate::mapping::Mapping;
use crate::mapping::model::CacheId;
use crate::observed::{AT_ONCE, Change};
use crate::postgres::feedback::clock_now;
use crate::status::Status;
use crate::status::drops::Drop;
use crate::store::session::NOT_THERE;

/// See the module.
pub struct Account {
    mapping: Arc<Mapping>,
    status: Arc<Status>,
}

/// What a batch removed of one cache.
#[derive(Default)]
struct Removed {
    all: u64,
    present: u64,
    /// For how many seconds the entries had been inconsistent, at most.
    inconsistent: Vec<f64>,
}

impl Account {
    /// For a run.
    #[must_use]
    pub fn new(mapping: Arc<Mapping>, status: Arc<Status>) -> Self {
        Account { mapping, status }
    }

    /// A batch was applied: each of its keys had that life (as
    /// [`Outcome::Done`](crate::store::session::Outcome::Done) has them). `before`: the watermark
    /// that it found.
    pub fn enter(&self, batch: &Batch, before: Lsn, touched: &Touched, lives: &[i64]) {
        let metrics = &self.status.metrics;
        batch.measure(metrics, &self.mapping);
        let (clock, now) = (clock_now(), Instant::now());
        let age = |trace: &Trace| trace.age(clock, now).as_secs_f64();
        for trace in &batch.transactions {
            metrics.commit_to_invalidated.observe(age(trace));
        }
        let mut by_cache = hashbrown::HashMap::<CacheId, Removed>::new();
        let at = SystemTime::now();
        self.status.with_drops(|drops| {
            for (Touch { key, cause, stays }, life) in touched.each().zip(lives) {
                let present = *life > NOT_THERE;
                let removed = by_cache.entry(cause.origin.cache).or_default();
                removed.all += 1;
                removed.present += u64::from(present);
                if let Some(trace) = batch.transactions.get(cause.transaction) {
                    // What is streamed again was removed before: this is another entry. What
                    // stays for a while is bounded by its cache's `max_staleness`.
                    if present && stays.is_none() && trace.end_lsn > before {
                        removed.inconsistent.push(age(trace));
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
        for (cache, removed) in by_cache {
            let Some(cache) = self.mapping.cache(cache) else { continue };
            metrics.invalidations.with_label_values(&[&cache.name]).inc_by(removed.all);
            metrics.invalidated_present.with_label_values(&[&cache.name]).inc_by(removed.present);
            let inconsistent = metrics.inconsistent.with_label_values(&[&*cache.name]);
            removed.inconsistent.into_iter().for_each(|seconds| inconsistent.observe(seconds));
        }
        debug!(
            transactions = batch.transactions.len(),
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
