//! Every metric: its name, its help, its labels. No label takes a row's value.

use std::collections::BTreeMap;
use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::observed::Observed;

/// Why the metrics could not be made or printed: two of one name, a bug.
pub type MetricsError = prometheus::Error;

/// The registry and all that is in it. Cloning shares it.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    /// Transactions applied.
    pub transactions: IntCounter,
    /// Row changes applied, by table and operation.
    pub changes: IntCounterVec,
    /// WAL that the server has written and that is not applied.
    pub replication_lag_bytes: IntGauge,
    /// Age of the oldest transaction that was received and is not applied.
    pub replication_lag_seconds: Gauge,
    /// WAL that the slot holds back on the server's disk.
    pub slot_retained_bytes: IntGauge,
    /// WAL that may still be written before the server gives up the slot.
    pub slot_safe_wal_bytes: IntGauge,
    /// Transactions that are committed and not visible yet.
    pub parked_transactions: IntGauge,
    /// Transactions in progress of which blocks have come.
    pub streamed_transactions: IntGauge,
    /// Keys and lookup rows that they hold.
    pub streamed_keys: IntGauge,
    /// How long the transaction waits that was parked first.
    pub parked_seconds: Gauge,
    /// `wal_status` of the slot: 1 for what it is.
    pub slot_wal_status: IntGaugeVec,
    /// From the writing of a heartbeat to its being applied.
    pub heartbeat_seconds: Histogram,
    /// Heartbeats, by what came of them.
    pub heartbeats: IntCounterVec,
    /// How long ago the whole way was last known to work.
    pub proven_seconds: Gauge,
    /// Streams that were given up, and runs that were, by reason.
    pub stalls: IntCounterVec,
    /// Connections made anew, by service.
    pub reconnects: IntCounterVec,
    /// Keys removed or made due, there or not, by cache.
    pub invalidations: IntCounterVec,
    /// Keys removed or made due that were there, by cache.
    pub invalidated_present: IntCounterVec,
    /// From the commit's time (the server's clock) to the acknowledgement by Redis.
    pub commit_to_invalidated: Histogram,
    /// For how long entries had been inconsistent when they were removed, by cache: from the
    /// first change that they lacked to the acknowledgement by Redis, at most. (An entry that was
    /// filled in between may have had the change. What went with a whole cache or in a gap is
    /// not in it.)
    pub inconsistent: HistogramVec,
    /// Whole caches dropped, by cache and reason.
    pub escalations: IntCounterVec,
    /// Gaps declared, by reason.
    pub gaps: IntCounterVec,
    /// When the last gap was declared.
    pub last_gap_timestamp: IntGauge,
    /// Attempts to read or fill an entry, by cache and what came of it.
    pub fills: IntCounterVec,
    /// Refreshes of entries (`on_change = "refresh"`), by cache and what came of it.
    pub refreshes: IntCounterVec,
    /// Readers that wait for another's load of their key.
    pub leases_waiting: IntGauge,
    /// Entries that wait to be filled, by priority.
    pub warm_queue: IntGaugeVec,
    /// Entries that were given up because too many waited, by priority.
    pub warm_dropped: IntCounterVec,
    /// Entries that were not filled again for another reason, by cache and reason.
    pub warm_given_up: IntCounterVec,
    /// Warm-ups, by why they were due and how they ended.
    pub warm_ups: IntCounterVec,
    /// Values of each cache, when they were last counted.
    pub cache_keys: IntGaugeVec,
    /// What they take in Redis' memory, as samples show it.
    pub cache_bytes: IntGaugeVec,
    /// What maintenance removed, by cache and reason.
    pub maintenance_removed: IntCounterVec,
    /// Runs of the schedule's tasks, by what came of them.
    pub schedule_runs: IntCounterVec,
    /// When each is due next.
    pub schedule_next: GaugeVec,
    /// When each last ended,
    pub schedule_last: GaugeVec,
    /// how long it took,
    pub schedule_seconds: GaugeVec,
    /// and whether it was done.
    pub schedule_ok: IntGaugeVec,
    /// Whether warming waits for the stream to catch up.
    pub warm_held_back: IntGauge,
    /// How often it began to.
    pub warm_holds: IntCounter,
    /// Cached entries compared with the database, by cache and what came of it.
    pub verify: IntCounterVec,
    /// Loads that could be from the replica, by what came of it.
    pub replica_reads: IntCounterVec,
    /// How long queries take, by cache.
    pub load_seconds: HistogramVec,
    /// Whether the last attempt to reach the service succeeded.
    pub service_up: IntGaugeVec,
    /// The watermark.
    pub applied_lsn: Gauge,
    /// Requests to the read API, by endpoint and status.
    pub requests: IntCounterVec,
    /// Values read for them, by cache and where they came from.
    pub cache_reads: IntCounterVec,
    /// How long reading those took.
    pub cache_read_seconds: HistogramVec,
    /// How long answering took, by endpoint.
    pub request_seconds: HistogramVec,
    /// Whether the daemon only looks on.
    pub shadow: IntGauge,
    /// In shadow mode: entries that changes reached, by table, operation, cache and what became of
    /// them.
    pub shadow_keys: IntCounterVec,
    /// In shadow mode: entries whose grace has not passed.
    pub shadow_awaiting: IntGauge,
    /// Whether `/readyz` says yes.
    pub ready: IntGauge,
    /// Whether the certificate lives.
    pub certified: IntGauge,
    /// What is counted beside them, for reports: it names keys, which no label may.
    pub observed: Arc<Observed>,
}

impl Metrics {
    /// All metrics, at zero.
    pub fn new() -> Result<Self, MetricsError> {
        let make = Maker(Registry::new_custom(Some("unstale".to_owned()), None)?);
        let build_info = make.gauges("build_info", "The version of this program.", &["version"])?;
        build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        make.0.register(Box::new(Process))?;
        let slot_safe_wal_bytes = make.gauge("slot_safe_wal_bytes", "WAL that may still be written before the server gives up the slot; -1: no limit is set, or not known yet.")?;
        // Nothing would mean: the next byte costs the slot.
        slot_safe_wal_bytes.set(-1);
        Ok(Metrics {
            transactions: make.counter("transactions_total", "Transactions applied.")?,
            changes: make.counters("changes_total", "Row changes applied.", &["table", "op"])?,
            replication_lag_bytes: make.gauge("replication_lag_bytes", "WAL that the server has written and that is not applied.")?,
            replication_lag_seconds: make.float("replication_lag_seconds", "Age of the oldest transaction that was received, is visible or may be, and is not applied.")?,
            slot_retained_bytes: make.gauge("slot_retained_bytes", "WAL that the slot holds back on the server's disk.")?,
            slot_safe_wal_bytes,
            parked_transactions: make.gauge("parked_transactions", "Transactions that are committed and not visible yet (a synchronous standby is waited for).")?,
            streamed_transactions: make.gauge("streamed_transactions", "Large transactions that are being read while they are in progress.")?,
            streamed_keys: make.gauge("streamed_keys", "Keys and lookup rows that transactions in progress hold in memory.")?,
            parked_seconds: make.float("parked_seconds", "How long the oldest transaction has waited that is committed and not visible yet; 0: there is none.")?,
            slot_wal_status: make.gauges("slot_wal_status", "1 for the slot's wal_status (reserved, extended, unreserved, lost), 0 for the others.", &["status"])?,
            heartbeat_seconds: make.histogram("heartbeat_seconds", "How long a heartbeat took from its writing to the WAL until it was applied. None are written while other transactions come.")?,
            heartbeats: make.counters("heartbeats_total", "Heartbeats, by what came of them: applied, or failed (could not be written).", &["result"])?,
            proven_seconds: make.float("proven_seconds", "How long ago a transaction or a heartbeat was applied; -1: none was since the stream began.")?,
            stalls: make.counters("stalls_total", "Streams that made no progress and were ended (silent, standstill), and runs of which a task stood still (loop).", &["reason"])?,
            reconnects: make.counters("reconnects_total", "Connections made anew.", &["service"])?,
            invalidations: make.counters("invalidations_total", "Keys removed or (on_change = \"refresh\") made due, whether they were there or not.", &["cache"])?,
            invalidated_present: make.counters("invalidated_present_total", "Keys removed or made due that were there.", &["cache"])?,
            commit_to_invalidated: make.histogram("commit_to_invalidated_seconds", "From the commit (the server's clock) to Redis' acknowledgement.")?,
            inconsistent: make.inconsistent()?,
            escalations: make.counters("escalations_total", "Whole caches dropped.", &["cache", "reason"])?,
            gaps: make.counters("gaps_total", "Gaps declared: everything managed was dropped.", &["reason"])?,
            last_gap_timestamp: make.gauge("last_gap_timestamp_seconds", "When the last gap was declared (Unix time); 0: not since the start.")?,
            fills: make.counters("fills_total", "Entries read or filled, by what came of it.", &["cache", "outcome"])?,
            refreshes: make.counters("refreshes_total", "Entries of caches with on_change = \"refresh\" that changed, by what came of it: refreshed in time, or expired first.", &["cache", "outcome"])?,
            leases_waiting: make.gauge("leases_waiting", "Readers that wait for another's load of their key.")?,
            warm_queue: make.gauges("warm_queue", "Entries that wait to be filled.", &["priority"])?,
            warm_dropped: make.counters("warm_dropped_total", "Entries that were not filled because too many waited.", &["priority"])?,
            warm_given_up: make.counters("warm_given_up_total", "Entries that were not filled again: their query fails (error), others kept their lease (held), they would have ended by now (expired), or everything was dropped (gap).", &["cache", "reason"])?,
            warm_ups: make.counters("warm_ups_total", "Warm-ups, by why they were due (schedule, gap, drop, start) and how they ended (done, failed, cut_off).", &["reason", "result"])?,
            cache_keys: make.gauges("cache_keys", "Values in Redis, when maintenance last counted them.", &["cache"])?,
            cache_bytes: make.gauges("cache_bytes", "Memory that the values take in Redis, extrapolated from samples, when maintenance last looked.", &["cache"])?,
            maintenance_removed: make.counters("maintenance_removed_total", "What maintenance removed: entries without an expiry (no_expiry: written beside the protocol), entries of a replaced generation (superseded), leases without an expiry (orphaned_lease).", &["cache", "reason"])?,
            schedule_runs: make.counters("schedule_runs_total", "Runs of scheduled tasks by this daemon, by what came of them: done, failed, or lost (another daemon has it now).", &["task", "result"])?,
            schedule_next: make.floats("schedule_next_timestamp_seconds", "When a scheduled task is due next (Unix time). Only the daemon that streams has it.", &["task"])?,
            schedule_last: make.floats("schedule_last_timestamp_seconds", "When a scheduled task last ended in this daemon (Unix time).", &["task"])?,
            schedule_seconds: make.floats("schedule_last_seconds", "How long it took.", &["task"])?,
            schedule_ok: make.gauges("schedule_last_ok", "1 if it was done, 0 if it failed.", &["task"])?,
            warm_held_back: make.gauge("warm_held_back", "1 while warming waits for the stream to catch up (warm.max_lag_bytes).")?,
            warm_holds: make.counter("warm_holds_total", "How often warming began to wait for the stream to catch up.")?,
            verify: make.counters("verify_total", "Cached entries compared with the database, by what came of it.", &["cache", "result"])?,
            replica_reads: make.counters("replica_reads_total", "Loads under a lease while a replica is configured: read there (replica), or from the primary, and why.", &["outcome"])?,
            load_seconds: make.histograms("load_seconds", "How long a cache's query took.", &["cache"])?,
            service_up: make.gauges("service_up", "1 if the last attempt to reach the service succeeded.", &["service"])?,
            applied_lsn: make.float("applied_lsn", "The watermark: everything committed below it is applied. In bytes of WAL.")?,
            requests: make.counters("requests_total", "Requests to the read API.", &["endpoint", "status"])?,
            cache_reads: make.counters("cache_reads_total", "Values read for requests, by where they came from: held by the daemon, hit, miss, bypass, stale (stale_if_error), error.", &["cache", "result"])?,
            cache_read_seconds: make.fast_histograms("cache_read_seconds", "How long reading a value for a request took, by where it came from.", &["cache", "result"])?,
            request_seconds: make.fast_histograms("request_seconds", "How long answering a request took.", &["endpoint"])?,
            shadow: make.gauge("shadow", "1 in shadow mode: the daemon only looks on, and nobody keeps the cache by it.")?,
            shadow_keys: make.counters("shadow_keys_total", "In shadow mode: entries that changes reached, by what became of them. stale and same_bytes: missed by the application's own invalidation.", &["table", "op", "cache", "result"])?,
            shadow_awaiting: make.gauge("shadow_awaiting", "In shadow mode: entries whose grace has not passed.")?,
            ready: make.gauge("ready", "1 if /readyz says that the cache can be trusted (in shadow mode: that nothing hinders looking on).")?,
            certified: make.gauge("certified", "1 if the certificate in Redis was renewed within its life: readers may trust what is cached.")?,
            observed: Arc::default(),
            registry: make.0,
        })
    }

    /// All series, as they stand.
    #[must_use]
    pub fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }

    /// The text that Prometheus reads (exposition format 0.0.4).
    pub fn text(&self) -> Result<String, MetricsError> {
        let mut out = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut out)?;
        Ok(String::from_utf8_lossy(&out).into_owned())
    }
}

/// The sum of a counter's series.
#[must_use]
pub fn total(counters: &IntCounterVec) -> u64 {
    let of = |family: &MetricFamily| -> f64 {
        family.get_metric().iter().map(|metric| metric.get_counter().get_value()).sum()
    };
    // What was counted one by one is whole, and never so much that a float would cut it.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count: whole, not negative, below 2^53"
    )]
    let sum = counters.collect().iter().map(of).sum::<f64>() as u64;
    sum
}

/// A gauge's series, by the value of their label `cache`: those that were ever set.
#[must_use]
pub fn by_cache(gauges: &IntGaugeVec) -> BTreeMap<String, i64> {
    let families = gauges.collect();
    let series = families.iter().flat_map(MetricFamily::get_metric);
    let of_cache = series.filter_map(|metric| {
        let label = metric.get_label().iter().find(|label| label.name() == "cache")?;
        #[expect(clippy::cast_possible_truncation, reason = "an integer, below 2^53")]
        let value = metric.get_gauge().get_value() as i64;
        Some((label.value().to_owned(), value))
    });
    of_cache.collect()
}

struct Maker(Registry);

impl Maker {
    fn register<C: Collector + Clone + 'static>(&self, metric: C) -> Result<C, MetricsError> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, MetricsError> {
        self.register(IntCounter::new(name, help)?)
    }
    fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, MetricsError> {
        self.register(IntCounterVec::new(Opts::new(name, help), labels)?)
    }
    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, MetricsError> {
        self.register(IntGauge::new(name, help)?)
    }
    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, MetricsError> {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }
    fn float(&self, name: &str, help: &str) -> Result<Gauge, MetricsError> {
        self.register(Gauge::new(name, help)?)
    }
    fn floats(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec, MetricsError> {
        self.register(GaugeVec::new(Opts::new(name, help), labels)?)
    }
    fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<HistogramVec, MetricsError> {
        let buckets = prometheus::exponential_buckets(0.000_5, 2.0, 17)?;
        self.register(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels)?)
    }
    fn fast_histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<HistogramVec, MetricsError> {
        // From what a hit costs to the request's timeout.
        let buckets = prometheus::exponential_buckets(0.000_1, 2.0, 18)?;
        self.register(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels)?)
    }
    fn inconsistent(&self) -> Result<HistogramVec, MetricsError> {
        // Those that operators ask for are among them: 100 ms, 1 s, 1 min, 5 min.
        let buckets = vec![
            0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
            60.0, 300.0, 900.0, 3600.0,
        ];
        let help = "For how long entries that were removed had been inconsistent, at most: from the commit of the first change that they lacked.";
        let options = HistogramOpts::new("inconsistent_seconds", help).buckets(buckets);
        self.register(HistogramVec::new(options, &["cache"])?)
    }
    fn histogram(&self, name: &str, help: &str) -> Result<Histogram, MetricsError> {
        // From a quarter of a millisecond (a round trip) to minutes (a standby that hangs).
        let buckets = prometheus::exponential_buckets(0.000_25, 2.0, 20)?;
        self.register(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?)
    }
}

/// `process_resident_memory_bytes`, read when asked for. (The prometheus crate's own
/// process collector would bring an old copy of procfs for one number.)
struct Process;

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let read = || -> Option<MetricFamily> {
            let status = std::fs::read_to_string("/proc/self/status").ok()?;
            let kib: i64 = status
                .lines()
                .find_map(|line| line.strip_prefix("VmRSS:"))?
                .trim()
                .trim_end_matches(" kB")
                .parse()
                .ok()?;
            let gauge = IntGauge::new("process_resident_memory_bytes", "Resident memory.").ok()?;
            gauge.set(kib * 1024);
            gauge.collect().pop()
        };
        read().into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_every_metric_with_the_prefix() {
        let metrics = Metrics::new().unwrap();
        metrics.changes.with_label_values(&["deals_deal", "insert"]).inc();
        let text = metrics.text().unwrap();
        assert!(
            text.contains("unstale_changes_total{op=\"insert\",table=\"deals_deal\"} 1"),
            "{text}"
        );
        assert!(text.contains("unstale_build_info{"), "{text}");
        assert!(text.contains("unstale_process_resident_memory_bytes "), "{text}");
        assert!(
            text.lines().all(|line| line.starts_with("unstale_") || line.starts_with("# ")),
            "{text}"
        );
    }
}
