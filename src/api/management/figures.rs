//! Live figures: of reads, of Redis, of replication. Since the start of the daemon, as metrics are.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::api::service::{Api, Serving};
use crate::metrics::Metrics;
use crate::times::Times;

/// Of one cache, or of all.
#[derive(Debug, Default, Clone)]
struct Reads {
    held: u64,
    hits: u64,
    misses: u64,
    bypasses: u64,
    stale: u64,
    errors: u64,
    hit: Times,
    miss: Times,
}

impl Api {
    /// All of them.
    pub(in crate::api) async fn figures(&self, serving: &Arc<Serving>) -> Value {
        let surveyed = self.surveyor.look(serving).await;
        let readiness = self.status.readiness();
        let mapping = &serving.mapping;
        let names = mapping.caches().map(|(_, cache)| &*cache.name);
        let composed = mapping.compositions().iter().map(|composition| &*composition.name);
        let mut total = Reads::default();
        let mut caches = Map::new();
        let names: std::collections::BTreeSet<&str> = names.chain(composed).collect();
        for name in names {
            let reads = Reads::of(&self.status.metrics, name);
            caches.insert(name.to_owned(), reads.told());
            total.add(&reads);
        }
        let phase = serde_json::to_value(&readiness.phase).unwrap_or_default();
        let schedule = surveyed.as_ref().map(|surveyed| &surveyed.schedule);
        json!({
            "reads": { "total": total.told(), "caches": caches },
            "redis": surveyed.as_deref(),
            "replication": {
                "ready": readiness.ready,
                "phase": phase.get("phase"),
                "applied_lsn": readiness.applied_lsn,
                "server_lsn": readiness.server_lsn,
                "lag_bytes": readiness.lag_bytes,
                "lag_seconds": readiness.lag_seconds,
                "parked_transactions": readiness.parked_transactions,
                "suspects": readiness.suspects,
                "heartbeat_seconds": readiness.heartbeat_seconds,
                "slot": readiness.slot,
            },
            "last_gap": readiness.last_gap,
            "schedule": schedule,
            "last_report": surveyed.as_ref().and_then(|surveyed| surveyed.last_report.clone()),
            "jobs_unfinished": self.jobs.unfinished(),
        })
    }
}

impl Reads {
    fn of(metrics: &Metrics, cache: &str) -> Reads {
        let count = |result| metrics.cache_reads.with_label_values(&[cache, result]).get();
        let seconds = &metrics.cache_read_seconds;
        let times = |result| Times::of(&seconds.with_label_values(&[cache, result]));
        Reads {
            held: count("held"),
            hits: count("hit"),
            misses: count("miss"),
            bypasses: count("bypass"),
            stale: count("stale"),
            errors: count("error"),
            hit: times("hit"),
            miss: times("miss"),
        }
    }

    fn add(&mut self, other: &Reads) {
        self.held += other.held;
        self.hits += other.hits;
        self.misses += other.misses;
        self.bypasses += other.bypasses;
        self.stale += other.stale;
        self.errors += other.errors;
        self.hit.add(&other.hit);
        self.miss.add(&other.miss);
    }

    fn told(&self) -> Value {
        let hits = self.held + self.hits;
        let all = hits + self.misses + self.bypasses + self.stale + self.errors;
        let speedup = match (self.hit.mean(), self.miss.mean()) {
            (Some(hit), Some(miss)) if hit > 0.0 => Some(miss / hit),
            _ => None,
        };
        json!({
            "held": self.held,
            "hits": self.hits,
            "misses": self.misses,
            "bypasses": self.bypasses,
            "stale": self.stale,
            "errors": self.errors,
            "hit_rate": rate(hits, all),
            "miss_rate": rate(self.misses, all),
            "hit_latency": told(&self.hit),
            "miss_latency": told(&self.miss),
            "speedup": speedup,
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate")]
fn rate(some: u64, all: u64) -> Option<f64> {
    (all > 0).then(|| some as f64 / all as f64)
}

/// As it is answered.
fn told(times: &Times) -> Value {
    let ms = |seconds: Option<f64>| seconds.map(|seconds| seconds * 1000.0);
    json!({
        "count": times.count,
        "mean_ms": ms(times.mean()),
        "p50_ms": ms(times.quantile(0.5)),
        "p99_ms": ms(times.quantile(0.99)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_and_rates_are_those_that_were_observed() {
        let metrics = Metrics::new().unwrap();
        metrics.cache_reads.with_label_values(&["c", "hit"]).inc_by(3);
        metrics.cache_reads.with_label_values(&["c", "miss"]).inc();
        for _ in 0..3 {
            metrics.cache_read_seconds.with_label_values(&["c", "hit"]).observe(0.001);
        }
        metrics.cache_read_seconds.with_label_values(&["c", "miss"]).observe(0.01);
        let told = Reads::of(&metrics, "c").told();
        assert_eq!(
            (told["hit_rate"].as_f64(), told["miss_rate"].as_f64()),
            (Some(0.75), Some(0.25))
        );
        assert!((told["speedup"].as_f64().unwrap() - 10.0).abs() < 1e-9, "{told}");
        let p50 = told["hit_latency"]["p50_ms"].as_f64().unwrap();
        assert!((0.8..=1.6).contains(&p50), "{told}");
        let mut total = Reads::default();
        total.add(&Reads::of(&metrics, "c"));
        total.add(&Reads::of(&metrics, "c"));
        assert_eq!(total.told()["hit_latency"]["count"], 6);
        assert_eq!(Reads::of(&metrics, "never").told()["speedup"], Value::Null);
    }
}
