//! The figures of one moment: read from what the daemon knows of itself, compared with the
//! moments before. No I/O.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use super::recent::unix_ms;
use super::verdict::{Known, Verdict};
use crate::config::model::Priority;
use crate::fill::filler::How;
use crate::mapping::Mapping;
use crate::metrics::{Metrics, by_cache, total};
use crate::status::Status;
use crate::status::readiness::LastGap;
use crate::times::Times;

/// How far back "lately" goes.
const LATELY: usize = 60;

/// What the page shows of one moment.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    /// Unix time in milliseconds: all ages are reckoned from it, so the reader's clock may be wrong.
    pub(super) at: u128,
    pub(super) verdict: Verdict,
    /// What the pipeline is doing.
    phase: serde_json::Value,
    ready: bool,
    certified: bool,
    services: Services,
    lag_seconds: f64,
    /// How long ago a transaction or a heartbeat was applied.
    proven_seconds_ago: Option<f64>,
    lag_bytes: u64,
    applied_lsn: String,
    server_lsn: String,
    parked: usize,
    parked_seconds: f64,
    suspects: usize,
    last_gap: Option<LastGap>,
    gaps: u64,
    /// WAL that the slot holds back.
    slot_retained_bytes: i64,
    /// WAL that may still be written before the slot is lost; `null`: no limit, or not known.
    slot_safe_wal_bytes: Option<i64>,
    /// From commit to removal, lately; `null`: nothing was committed.
    commit_to_invalidated: Quantiles,
    /// `null` in the first moment.
    rates: Option<Rates>,
    audit: Audit,
    caches: Vec<Cache>,
    warm: Warm,
    leases_waiting: i64,
}

#[derive(Debug, Serialize)]
struct Services {
    postgres: bool,
    redis: bool,
}

/// In seconds.
#[derive(Debug, Serialize)]
struct Quantiles {
    p50: Option<f64>,
    p99: Option<f64>,
}

impl Quantiles {
    fn of(times: &Times) -> Quantiles {
        Quantiles { p50: times.quantile(0.5), p99: times.quantile(0.99) }
    }
}

/// A second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Rates {
    changes: f64,
    invalidations: f64,
    fills: f64,
    reads: f64,
}

/// What comparing with the database found, since the start.
#[derive(Debug, Serialize)]
struct Audit {
    equal: u64,
    inconsistent: u64,
    stale: u64,
    undecided: u64,
    /// Unix time in milliseconds.
    stale_at: Option<u128>,
}

/// Since the start, unless it says otherwise.
#[derive(Debug, Serialize)]
struct Cache {
    name: String,
    hits: u64,
    misses: u64,
    bypasses: u64,
    /// Old values, given because the database did not answer.
    old: u64,
    errors: u64,
    /// `null`: not counted yet.
    keys: Option<i64>,
    bytes: Option<i64>,
    stored: u64,
    loads: u64,
    load_p99: Option<f64>,
    /// Of the loads of the last minute.
    load_p99_lately: Option<f64>,
    invalidations: u64,
    /// Those that were there.
    invalidated: u64,
}

#[derive(Debug, Serialize)]
struct Warm {
    queue: Vec<Waiting>,
    given_up: u64,
}

#[derive(Debug, Serialize)]
struct Waiting {
    priority: &'static str,
    waiting: i64,
    dropped: u64,
}

/// The moments before, of one who watches.
pub(super) struct Window(VecDeque<Sample>);

/// What only grows.
#[derive(Debug, Clone)]
struct Sample {
    at: Instant,
    changes: u64,
    invalidations: u64,
    fills: u64,
    reads: u64,
    commit_to_invalidated: Times,
    /// In the order of the mapping's caches.
    loads: Vec<Times>,
}

impl Window {
    pub(super) fn new() -> Window {
        Window(VecDeque::with_capacity(LATELY + 1))
    }

    /// Other rules: their caches are others.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}

impl Sample {
    fn take(metrics: &Metrics, mapping: &Mapping, at: Instant) -> Sample {
        let names = || mapping.caches().map(|(_, cache)| &*cache.name);
        let stored = |name| metrics.fills.with_label_values(&[name, How::Stored.as_str()]).get();
        let loads = |name| Times::of(&metrics.load_seconds.with_label_values(&[name]));
        Sample {
            at,
            changes: total(&metrics.changes),
            invalidations: total(&metrics.invalidations),
            fills: names().map(stored).sum(),
            reads: total(&metrics.cache_reads),
            commit_to_invalidated: Times::of(&metrics.commit_to_invalidated),
            loads: names().map(loads).collect(),
        }
    }

    /// What grew since, a second.
    fn rates(&self, before: &Sample) -> Option<Rates> {
        let seconds = self.at.saturating_duration_since(before.at).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        (seconds > 0.0).then(|| Rates {
            changes: rate(self.changes, before.changes),
            invalidations: rate(self.invalidations, before.invalidations),
            fills: rate(self.fills, before.fills),
            reads: rate(self.reads, before.reads),
        })
    }
}

impl Figures {
    pub(super) fn take(status: &Status, mapping: &Mapping, window: &mut Window) -> Figures {
        let metrics = &status.metrics;
        let readiness = status.readiness();
        let now = SystemTime::now();
        let stale_at = status.stale_at();
        let up = |service| metrics.service_up.with_label_values(&[service]).get() == 1;
        let certified = status.is_certified();
        let services = Services { postgres: up("postgres"), redis: up("redis") };
        let verdict = Verdict::new(&Known {
            readiness: &readiness,
            certified,
            may_certify: status.may_certify(),
            redis: services.redis,
            postgres: services.postgres,
            has_streamed: status.has_streamed(),
            // A clock that was set back makes it look like now.
            stale: stale_at.map(|at| now.duration_since(at).unwrap_or(Duration::ZERO)),
        });
        let sample = Sample::take(metrics, mapping, Instant::now());
        let first = window.0.front().unwrap_or(&sample);
        let lately = sample.commit_to_invalidated.since(&first.commit_to_invalidated);
        let safe = metrics.slot_safe_wal_bytes.get();
        let figures = Figures {
            at: unix_ms(now),
            verdict,
            phase: serde_json::to_value(&readiness.phase)
                .ok()
                .and_then(|phase| phase.get("phase").cloned())
                .unwrap_or_default(),
            ready: readiness.ready,
            certified,
            services,
            lag_seconds: readiness.lag_seconds,
            proven_seconds_ago: readiness.proven_seconds_ago,
            lag_bytes: readiness.lag_bytes,
            applied_lsn: readiness.applied_lsn,
            server_lsn: readiness.server_lsn,
            parked: readiness.parked_transactions,
            parked_seconds: status.parked_for().as_secs_f64(),
            suspects: readiness.suspects,
            last_gap: readiness.last_gap,
            gaps: total(&metrics.gaps),
            slot_retained_bytes: metrics.slot_retained_bytes.get(),
            slot_safe_wal_bytes: (safe >= 0).then_some(safe),
            commit_to_invalidated: Quantiles::of(&lately),
            rates: window.0.back().and_then(|before| sample.rates(before)),
            audit: Audit::of(metrics, mapping, stale_at),
            caches: caches(metrics, mapping, &sample, first),
            warm: Warm::of(metrics),
            leases_waiting: metrics.leases_waiting.get(),
        };
        window.0.push_back(sample);
        if window.0.len() > LATELY {
            window.0.pop_front();
        }
        figures
    }
}

impl Audit {
    fn of(metrics: &Metrics, mapping: &Mapping, stale_at: Option<SystemTime>) -> Audit {
        let found = |result| {
            let of = |name: &str| metrics.verify.with_label_values(&[name, result]).get();
            mapping.caches().map(|(_, cache)| of(&cache.name)).sum()
        };
        Audit {
            equal: found("equal"),
            inconsistent: found("inconsistent"),
            stale: found("stale"),
            undecided: found("undecided"),
            stale_at: stale_at.map(unix_ms),
        }
    }
}

impl Warm {
    fn of(metrics: &Metrics) -> Warm {
        let waiting = |priority: Priority| {
            let label = [priority.as_str()];
            Waiting {
                priority: priority.as_str(),
                waiting: metrics.warm_queue.with_label_values(&label).get(),
                dropped: metrics.warm_dropped.with_label_values(&label).get(),
            }
        };
        Warm {
            queue: [Priority::High, Priority::Medium, Priority::Low].map(waiting).into(),
            given_up: total(&metrics.warm_given_up),
        }
    }
}

/// By name; composed ones among them, which have reads and nothing else of their own.
fn caches(metrics: &Metrics, mapping: &Mapping, now: &Sample, first: &Sample) -> Vec<Cache> {
    let keys = by_cache(&metrics.cache_keys);
    let bytes = by_cache(&metrics.cache_bytes);
    let of = |name: &str, loads: Option<(&Times, &Times)>| {
        let read = |result| metrics.cache_reads.with_label_values(&[name, result]).get();
        let (all, lately) = match loads {
            Some((now, first)) => (now.clone(), now.since(first)),
            None => Default::default(),
        };
        Cache {
            name: name.to_owned(),
            hits: read("held") + read("hit"),
            misses: read("miss"),
            bypasses: read("bypass"),
            old: read("stale"),
            errors: read("error"),
            keys: keys.get(name).copied(),
            bytes: bytes.get(name).copied(),
            stored: metrics.fills.with_label_values(&[name, How::Stored.as_str()]).get(),
            loads: all.count,
            load_p99: all.quantile(0.99),
            load_p99_lately: lately.quantile(0.99),
            invalidations: metrics.invalidations.with_label_values(&[name]).get(),
            invalidated: metrics.invalidated_present.with_label_values(&[name]).get(),
        }
    };
    let loads = now.loads.iter().zip(&first.loads);
    let stored = mapping.caches().zip(loads);
    let mut all: Vec<Cache> =
        stored.map(|((_, cache), loads)| of(&cache.name, Some(loads))).collect();
    for composition in mapping.compositions() {
        if mapping.cache_by_name(&composition.name).is_none() {
            all.push(of(&composition.name, None));
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: Instant, changes: u64) -> Sample {
        Sample {
            at,
            changes,
            invalidations: 0,
            fills: 0,
            reads: 3 * changes,
            commit_to_invalidated: Times::default(),
            loads: Vec::new(),
        }
    }

    #[test]
    fn rates_are_by_the_time_that_passed() {
        let then = Instant::now();
        let before = sample(then, 10);
        let rates = sample(then + Duration::from_secs(2), 20).rates(&before).unwrap();
        assert_eq!((rates.changes, rates.reads, rates.fills), (5.0, 15.0, 0.0));
        assert_eq!(sample(then, 20).rates(&before), None, "no time has passed");
        let less = sample(then + Duration::from_secs(1), 0).rates(&before).unwrap();
        assert_eq!(less.changes, 0.0, "a counter never falls: another mapping's");
    }
}
