//! What the daemon knows of itself: written by the pipeline, read by `/readyz`, the
//! metrics and `why`.

mod certificate;
pub mod drops;
pub mod fills;
pub mod heartbeat;
mod latest;
pub mod loops;
pub mod phase;
mod progress;
pub mod readiness;
pub mod reason;
mod slot;
pub mod stalls;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

pub use self::certificate::SILENCE;
use self::drops::Drops;
use self::fills::{Fill, Fills};
use self::heartbeat::Beating;
pub use self::loops::Loop;
pub use self::phase::{Health, Phase};
use self::reason::GapReason;
pub use self::slot::SlotSeen;
use self::stalls::{Stall, Stalls};
use crate::lsn::Lsn;
use crate::mapping::model::RuleId;
use crate::metrics::Metrics;
use crate::moment::Moment;

#[derive(Debug)]
struct Inner {
    phase: Phase,
    redis: Health,
    postgres: Health,
    /// What is wrong with the mapping as the database is now.
    table_problems: Vec<String>,
    /// By rule: a lookup that the server refused and that has not succeeded since.
    lookup_problems: BTreeMap<RuleId, String>,
    reload_problem: Option<String>,
    has_streamed: bool,
    received: Lsn,
    server_end: Lsn,
    watermark: Lsn,
    /// The batches on their way to Redis, parked transactions apart: since when the oldest
    /// transaction of each waits.
    pending: VecDeque<Instant>,
    heard: Option<Moment>,
    /// How far the stream itself says that it has come.
    position: Lsn,
    /// How often in a row a stream was given up.
    stalls: Stalls,
    /// The heartbeat under way.
    beating: Option<Beating>,
    /// How long the last one took.
    last_beat: Option<Duration>,
    /// When a transaction was last applied in this run.
    proven: Option<Instant>,
    /// The slot, as it was last seen.
    slot: Option<SlotSeen>,
    parked: usize,
    parked_since: Option<Instant>,
    /// Who may have altered what is streamed is parked.
    unsure_of_publication: bool,
    suspects: usize,
    last_gap: Option<(SystemTime, GapReason)>,
    /// The gap that has not come to its end yet.
    open_gap: Option<GapReason>,
    drops: Drops,
    /// When the audit last found a stale value.
    stale_at: Option<SystemTime>,
    /// How many runs have begun.
    runs: u64,
    /// When Redis was asked to take the certificate that it took last.
    certified: Option<Moment>,
    /// When each loop last went round.
    beats: [Instant; Loop::ALL.len()],
    /// Shadow mode.
    looks_on: bool,
}

/// Shared by all tasks. Locked for moments only, never across an await.
pub struct Status {
    inner: Mutex<Inner>,
    fills: Fills,
    /// The metrics.
    pub metrics: Metrics,
    max_lag: Duration,
    /// The watermark, for those who wait for it.
    watermarks: watch::Sender<Lsn>,
}

impl Status {
    /// At the start of the daemon.
    #[must_use]
    pub fn new(metrics: Metrics, max_lag: Duration, remembered_drops: usize) -> Self {
        metrics.service_up.with_label_values(&["postgres"]).set(0);
        metrics.service_up.with_label_values(&["redis"]).set(0);
        for reason in Stall::REASONS {
            metrics.stalls.with_label_values(&[reason]);
        }
        for result in ["applied", "failed"] {
            metrics.heartbeats.with_label_values(&[result]);
        }
        for reason in GapReason::ALL {
            metrics.gaps.with_label_values(&[reason.as_str()]).inc_by(0);
        }
        Status {
            inner: Mutex::new(Inner {
                phase: Phase::Connecting,
                redis: Health::Down("not connected yet".to_owned()),
                postgres: Health::Down("not connected yet".to_owned()),
                table_problems: Vec::new(),
                lookup_problems: BTreeMap::new(),
                reload_problem: None,
                has_streamed: false,
                received: Lsn::ZERO,
                server_end: Lsn::ZERO,
                watermark: Lsn::ZERO,
                pending: VecDeque::new(),
                heard: None,
                position: Lsn::ZERO,
                stalls: Stalls::default(),
                beating: None,
                last_beat: None,
                proven: None,
                slot: None,
                parked: 0,
                parked_since: None,
                unsure_of_publication: false,
                suspects: 0,
                last_gap: None,
                open_gap: None,
                drops: Drops::new(remembered_drops),
                stale_at: None,
                runs: 0,
                certified: None,
                beats: [Instant::now(); Loop::ALL.len()],
                looks_on: false,
            }),
            fills: Fills::new(remembered_drops),
            metrics,
            max_lag,
            watermarks: watch::Sender::new(Lsn::ZERO),
        }
    }

    /// A panic while it was locked leaves single fields at worst, each whole: go on.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shadow mode: nothing that is cached is kept by this daemon.
    pub fn looks_on(&self) {
        self.metrics.shadow.set(1);
        self.lock().looks_on = true;
    }

    /// Notes what the pipeline does now.
    pub fn enter(&self, phase: Phase) {
        if phase == Phase::Connecting {
            self.nothing_waits();
        }
        let mut inner = self.lock();
        if phase == Phase::Streaming {
            inner.has_streamed = true;
            inner.beats = [Instant::now(); Loop::ALL.len()];
        }
        inner.phase = phase;
    }

    /// Whether changes have flowed in this life: from then on nothing is hopeless.
    #[must_use]
    pub fn has_streamed(&self) -> bool {
        self.lock().has_streamed
    }

    /// Notes how the last attempt to reach Redis went. Says whether that is news.
    pub fn redis(&self, health: Health) -> bool {
        // Redis has answered or failed to: either way its loop is not stuck.
        self.beat(Loop::Apply);
        let mut inner = self.lock();
        // Each step says so: nothing is looked up by a label for what is known.
        if inner.redis == health {
            return false;
        }
        self.metrics.service_up.with_label_values(&["redis"]).set((health == Health::Up).into());
        inner.redis = health;
        true
    }

    /// Notes how the last attempt to reach Postgres went.
    pub fn postgres(&self, health: Health) {
        self.metrics.service_up.with_label_values(&["postgres"]).set((health == Health::Up).into());
        self.lock().postgres = health;
    }

    /// Notes what is wrong with the mapped tables.
    pub fn table_problems(&self, problems: Vec<String>) {
        self.lock().table_problems = problems;
    }

    /// Notes which rules were looked up, each with a complaint if the server refused. A
    /// complaint stands until a lookup of the same rule succeeds, or the next run.
    pub fn looked_up(&self, outcomes: Vec<(RuleId, Option<String>)>) {
        let mut inner = self.lock();
        for (rule, complaint) in outcomes {
            match complaint {
                Some(complaint) => inner.lookup_problems.insert(rule, complaint),
                None => inner.lookup_problems.remove(&rule),
            };
        }
    }

    /// Notes whether the last reload of the configuration failed.
    pub fn reload(&self, problem: Option<String>) {
        self.lock().reload_problem = problem;
    }

    /// A new run begins: what the old one held is void.
    pub fn begin_run(&self, watermark: Lsn, suspects: usize) {
        self.nothing_waits();
        let mut inner = self.lock();
        inner.suspects = suspects;
        inner.table_problems.clear();
        inner.lookup_problems.clear();
        inner.received = watermark;
        inner.watermark = watermark;
        inner.pending.clear();
        inner.open_gap = None;
        inner.heard = Some(Moment::now());
        inner.position = Lsn::ZERO;
        // It may be another server's, whose WAL does not reach as far.
        inner.server_end = watermark;
        inner.beating = None;
        inner.proven = None;
        inner.runs += 1;
        self.watermarks.send_replace(watermark);
    }

    /// How often the stream was followed, this time included.
    #[must_use]
    pub fn runs(&self) -> u64 {
        self.lock().runs
    }

    /// A gap was declared. Says whether it is news: one gap invalidates twice where the
    /// slot had to be created between.
    pub fn gap(&self, reason: GapReason) -> bool {
        let now = SystemTime::now();
        let mut inner = self.lock();
        if inner.open_gap.replace(reason) == Some(reason) {
            return false;
        }
        self.metrics.gaps.with_label_values(&[reason.as_str()]).inc();
        self.metrics.last_gap_timestamp.set(i64::try_from(unix(now)).unwrap_or(i64::MAX));
        inner.last_gap = Some((now, reason));
        // The state is invalid from here on, and the certificate went with it.
        inner.certified = None;
        drop(inner);
        self.metrics.observed.dropped(None);
        true
    }

    /// Reads or adds to the remembered drops.
    pub fn with_drops<T>(&self, use_it: impl FnOnce(&mut Drops) -> T) -> T {
        use_it(&mut self.lock().drops)
    }

    /// This process has stored a value.
    pub fn filled(&self, key: &[u8], fill: Fill) {
        self.fills.note(key, fill);
    }

    /// The last time that it stored this key, if that is remembered.
    #[must_use]
    pub fn last_fill(&self, key: &[u8]) -> Option<Fill> {
        self.fills.last(key)
    }

    /// The audit has found a stale value.
    pub fn found_stale(&self) {
        self.lock().stale_at = Some(SystemTime::now());
    }

    /// When it did so last.
    #[must_use]
    pub fn stale_at(&self) -> Option<SystemTime> {
        self.lock().stale_at
    }

    /// Sets the gauges that are computed when looked at.
    pub fn measure(&self) {
        let (lag, proven) = {
            let inner = self.lock();
            (inner.lag(), inner.proven.map_or(-1.0, |at| at.elapsed().as_secs_f64()))
        };
        let (bytes, seconds) = lag;
        self.metrics.proven_seconds.set(proven);
        self.metrics.parked_seconds.set(self.parked_for().as_secs_f64());
        self.metrics.certified.set(self.is_certified().into());
        self.metrics.ready.set(self.readiness().ready.into());
        self.metrics.replication_lag_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.metrics.replication_lag_seconds.set(seconds);
    }
}

fn unix(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        Status::new(Metrics::new().unwrap(), Duration::ZERO, 10)
    }

    #[test]
    fn ready_only_when_streaming_with_both_services_up() {
        let status = status();
        assert!(!status.readiness().ready);
        status.redis(Health::Up);
        status.postgres(Health::Up);
        status.begin_run(Lsn(7), 0);
        assert_eq!(status.readiness().problems, ["not streaming: connecting"]);
        status.enter(Phase::Streaming);
        assert!(status.readiness().ready, "{:?}", status.readiness().problems);
        status.redis(Health::Down("refused".to_owned()));
        assert_eq!(status.readiness().problems, ["redis: refused"]);
    }

    #[test]
    fn a_mapped_column_that_is_gone_is_told() {
        let status = status();
        status.table_problems(vec!["deals_deal lacks organization_id".to_owned()]);
        assert!(status.readiness().problems.iter().any(|p| p.contains("organization_id")));
        status.begin_run(Lsn(1), 0);
        assert!(!status.readiness().problems.iter().any(|p| p.contains("organization_id")));
    }

    #[test]
    fn a_lookup_that_was_refused_is_told_until_it_succeeds() {
        let status = status();
        let told = |part: &str| status.readiness().problems.iter().any(|p| p.contains(part));
        status.looked_up(vec![(RuleId(1), Some("no owner".to_owned())), (RuleId(2), None)]);
        status.looked_up(vec![(RuleId(2), Some("no grant".to_owned()))]);
        assert!(told("no owner") && told("no grant"));
        status.looked_up(vec![(RuleId(1), None)]);
        assert!(!told("no owner") && told("no grant"));
        status.begin_run(Lsn(1), 0);
        assert!(!told("no grant"));
    }
}
