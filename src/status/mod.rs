//! What the daemon knows of itself: written by the pipeline, read by `/readyz`, the
//! metrics and `why`.

pub mod drops;
pub mod fills;
pub mod heartbeat;
mod latest;
pub mod loops;
pub mod phase;
pub mod readiness;
pub mod reason;
pub mod stalls;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::sync::watch;

use self::drops::Drops;
use self::fills::{Fill, Fills};
use self::heartbeat::{Beat, Beating};
pub use self::loops::Loop;
pub use self::phase::{Health, Phase};
use self::reason::GapReason;
use self::stalls::{Stall, Stalls};
use crate::lsn::Lsn;
use crate::mapping::model::RuleId;
use crate::metrics::Metrics;
use crate::moment::Moment;
use crate::store::session::CERTIFICATE_LIFE;

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

/// What the server says of the slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SlotSeen {
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// How much more WAL may be written until it may be lost; `null`: nothing limits it.
    pub safe_wal_size: Option<i64>,
    /// Why it is lost (Postgres 17 and later).
    pub invalidation_reason: Option<String>,
    /// How much WAL it holds back.
    pub retained_bytes: u64,
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
            self.in_progress((0, 0));
        }
        let mut inner = self.lock();
        if phase == Phase::Streaming {
            inner.has_streamed = true;
            inner.beats = [Instant::now(); Loop::ALL.len()];
        }
        inner.phase = phase;
    }

    /// Redis has taken the certificate, which it was asked to at that moment.
    pub fn certified(&self, asked: Moment) {
        self.lock().certified = Some(asked);
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
        let mut inner = self.lock();
        inner.table_problems.clear();
        inner.lookup_problems.clear();
        inner.received = watermark;
        inner.watermark = watermark;
        inner.pending.clear();
        inner.parked = 0;
        inner.parked_since = None;
        inner.suspects = suspects;
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

    /// The stream was heard: what was received as a whole, how far it says that it is, and the
    /// server's end of WAL. Gives that as far as it is known.
    pub fn heard(&self, received: Lsn, position: Lsn, server_end: Lsn) -> Lsn {
        let mut inner = self.lock();
        inner.received = inner.received.max(received);
        inner.position = inner.position.max(position);
        inner.server_end = inner.server_end.max(server_end);
        inner.heard = Some(Moment::now());
        inner.server_end
    }

    /// How often in a row a stream was given up.
    #[must_use]
    pub fn stalls(&self) -> Stalls {
        self.lock().stalls
    }

    /// The stream was given up, after those that `before` counts.
    pub fn stalled(&self, before: Stalls, position: Lsn, stall: Stall) {
        self.metrics.stalls.with_label_values(&[stall.as_str()]).inc();
        let mut inner = self.lock();
        inner.stalls = before;
        inner.stalls.another(position);
    }

    /// A heartbeat is about to be written.
    pub fn heartbeat_begins(&self, beat: Beat, since: Instant) {
        self.lock().beating = Some(Beating { beat, since, committed: false });
    }

    /// It is in the WAL.
    pub fn heartbeat_committed(&self, beat: Beat) {
        if let Some(beating) = self.lock().beating.as_mut().filter(|found| found.beat == beat) {
            beating.committed = true;
        }
    }

    /// It may never come.
    pub fn heartbeat_given_up(&self, beat: Beat) {
        self.lock().beating.take_if(|found| found.beat == beat);
    }

    /// Transactions were applied, with the heartbeats that they carried.
    pub fn came_through(&self, transactions: impl Iterator<Item = Option<Beat>>) {
        let mut inner = self.lock();
        for beat in transactions {
            inner.proven = Some(Instant::now());
            if let Some(came) = inner.beating.take_if(|found| Some(found.beat) == beat) {
                let took = came.since.elapsed();
                inner.last_beat = Some(took);
                self.metrics.heartbeat_seconds.observe(took.as_secs_f64());
                self.metrics.heartbeats.with_label_values(&["applied"]).inc();
            }
        }
    }

    /// When a transaction was last applied in this run, and whether a heartbeat is under way.
    #[must_use]
    pub fn proven(&self) -> (Option<Instant>, bool) {
        let inner = self.lock();
        (inner.proven, inner.beating.is_some())
    }

    /// What the server says of the slot. Gives its `wal_status` if that is news.
    pub fn slot(&self, seen: SlotSeen) -> Option<String> {
        for status in WAL_STATUS {
            let is = seen.wal_status.as_deref() == Some(status);
            self.metrics.slot_wal_status.with_label_values(&[status]).set(is.into());
        }
        let mut inner = self.lock();
        let before = inner.slot.replace(seen.clone());
        let news = before.is_none_or(|before| before.wal_status != seen.wal_status);
        seen.wal_status.filter(|_| news)
    }

    /// How much WAL the server has written that the stream has not come past.
    #[must_use]
    pub fn behind_bytes(&self) -> u64 {
        let inner = self.lock();
        inner.server_end.bytes_since(inner.position.max(inner.received))
    }

    /// The server said on another connection where its WAL ends.
    pub fn heard_of_server(&self, end: Lsn) {
        let mut inner = self.lock();
        inner.server_end = inner.server_end.max(end);
    }

    /// When the stream was last heard.
    #[must_use]
    pub fn last_heard(&self) -> Option<Instant> {
        self.lock().heard.map(Moment::monotonic)
    }

    /// How far the stream was read.
    #[must_use]
    pub fn received(&self) -> Lsn {
        self.lock().received
    }

    /// Notes how many transactions are parked, since when the oldest of them waits, and how
    /// many suspects are watched.
    pub fn parked(&self, parked: usize, oldest: Option<Instant>, suspects: usize) {
        self.metrics.parked_transactions.set(i64::try_from(parked).unwrap_or(i64::MAX));
        let mut inner = self.lock();
        inner.parked = parked;
        inner.parked_since = oldest;
        inner.suspects = suspects;
    }

    /// Notes how many transactions come while they are in progress, and how many keys they
    /// hold.
    pub fn in_progress(&self, (transactions, keys): (usize, usize)) {
        let gauge = |value| i64::try_from(value).unwrap_or(i64::MAX);
        self.metrics.streamed_transactions.set(gauge(transactions));
        self.metrics.streamed_keys.set(gauge(keys));
    }

    /// A batch was taken up; its oldest transaction arrived at `since`.
    pub fn taken_up(&self, since: Instant) {
        self.lock().pending.push_back(since);
    }

    /// The batch that was taken up last turned out to have nothing to apply.
    pub fn put_back(&self) {
        self.lock().pending.pop_back();
    }

    /// Redis has acknowledged the batch that was taken up first, and the watermark.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a gauge is a float; 2^53 bytes are 8 PiB of WAL"
    )]
    pub fn applied(&self, watermark: Lsn) {
        self.metrics.applied_lsn.set(watermark.0 as f64);
        let mut inner = self.lock();
        inner.pending.pop_front();
        inner.watermark = watermark;
        drop(inner);
        self.watermarks.send_replace(watermark);
    }

    /// Whether the last certificate of this process still lives.
    #[must_use]
    pub fn is_certified(&self) -> bool {
        self.lock().certified.is_some_and(|asked| asked.elapsed() < CERTIFICATE_LIFE)
    }

    /// The watermark, as it moves.
    #[must_use]
    pub fn watermarks(&self) -> watch::Receiver<Lsn> {
        self.watermarks.subscribe()
    }

    /// The number of the present run, if its watermark says what is applied of all that was
    /// committed below it: not while there are suspects (rule 8). They only ever become fewer
    /// within a run, so who finds the same number before and after has nothing to fear of them.
    #[must_use]
    pub fn covers(&self) -> Option<u64> {
        let inner = self.lock();
        (inner.phase == Phase::Streaming && inner.suspects == 0).then_some(inner.runs)
    }

    /// How often the stream was followed, this time included.
    #[must_use]
    pub fn runs(&self) -> u64 {
        self.lock().runs
    }

    /// The watermark that Redis has acknowledged.
    #[must_use]
    pub fn watermark(&self) -> Lsn {
        self.lock().watermark
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

    /// For how long a transaction has waited that is not visible yet; zero: there is none.
    #[must_use]
    pub fn parked_for(&self) -> Duration {
        self.lock().parked_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Whether the certificate may be renewed (rule 11): the stream is alive, and what it
    /// brought is not left lying. Parked transactions do not count: nobody can see them.
    #[must_use]
    pub fn may_certify(&self) -> bool {
        let inner = self.lock();
        inner.heard.is_some_and(|at| at.elapsed() < SILENCE) && !inner.is_late(self.max_lag)
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

/// Past this the stream counts as silent. The server is asked for a sign of life every
/// status interval.
pub const SILENCE: Duration = Duration::from_secs(5);

/// What `wal_status` of a slot may be.
const WAL_STATUS: [&str; 4] = ["reserved", "extended", "unreserved", "lost"];

impl Inner {
    /// WAL that is written and not applied, and the age of the oldest change that waits.
    fn lag(&self) -> (u64, f64) {
        let seconds = self.oldest().map_or(0.0, |at| at.elapsed().as_secs_f64());
        (self.server_end.bytes_since(self.watermark), seconds)
    }

    /// Since when the oldest transaction waits that was received, or the heartbeat that was not.
    fn oldest(&self) -> Option<Instant> {
        let beating = self.beating.filter(|beating| beating.committed).map(|beating| beating.since);
        self.pending.front().copied().into_iter().chain(beating).min()
    }

    fn is_late(&self, max_lag: Duration) -> bool {
        self.oldest().is_some_and(|at| at.elapsed() > max_lag)
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
    fn what_waits_too_long_is_neither_ready_nor_certified() {
        let status = status();
        status.begin_run(Lsn(7), 0);
        assert!(status.may_certify());
        status.parked(3, Some(Instant::now()), 0);
        assert!(status.may_certify(), "parked transactions are seen by nobody");
        status.taken_up(Instant::now());
        assert!(!status.may_certify());
        assert!(status.readiness().problems.iter().any(|p| p.contains("pipeline.max_lag")));
        status.applied(Lsn(8));
        assert!(status.may_certify());
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
    fn a_heartbeat_counts_as_lag_once_it_is_in_the_wal_and_until_it_is_applied() {
        let status = status();
        status.begin_run(Lsn(7), 0);
        let beat = Beat::fresh();
        status.heartbeat_begins(beat, Instant::now());
        assert!(status.may_certify(), "nobody knows yet whether it will come");
        status.heartbeat_committed(Beat::fresh());
        assert!(status.may_certify(), "another's");
        status.heartbeat_committed(beat);
        assert!(!status.may_certify() && status.readiness().lag_seconds > 0.0);
        status.came_through([None, Some(Beat::fresh())].into_iter());
        assert!(!status.may_certify(), "what came was not it");
        status.came_through([Some(beat)].into_iter());
        assert!(status.may_certify() && status.readiness().heartbeat_seconds.is_some());
        assert_eq!(status.readiness().lag_seconds, 0.0);
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
