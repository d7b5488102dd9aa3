//! A report, as it is kept and as `--json` prints it. Members may be added; none is renamed or removed
//! without another `format`.
//!
//! What could not be told is `null`, and `unknown` says why. Rates are parts of one, points of a rate are
//! hundredths. Texts hold no control characters ([`super::names`]).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::observed::fan_out::Class;
use crate::observed::lives::Deaths;
use crate::times::Times;

/// The version of this form.
pub const FORMAT: u32 = 1;

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// Its name among those that are kept.
    pub id: String,
    /// RFC 3339.
    pub made_at: String,
    /// Who made it.
    pub daemon: Daemon,
    /// Which time it is about.
    pub window: Window,
    /// The report that it is compared with, if there is one.
    pub compared_with: Option<String>,
    /// Reads through the read API, of all caches.
    pub reads: Reads,
    /// By cache, composed ones among them.
    pub caches: BTreeMap<String, Cache>,
    /// Of the entries that there should be, how many there are.
    pub coverage: Option<Coverage>,
    /// Redis as a whole.
    pub redis: Option<Redis>,
    /// What removed entries.
    pub invalidation: Invalidation,
    /// What has become worse.
    pub regressions: Vec<Finding>,
    /// What holds things up.
    pub bottlenecks: Vec<Finding>,
    /// What to change.
    pub recommendations: Vec<Recommendation>,
    /// What it cannot tell, and why.
    pub unknown: Vec<String>,
}

/// The daemon that made it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Daemon {
    /// Of the program.
    pub version: String,
    /// The replication slot.
    pub slot: String,
    /// RFC 3339.
    pub started_at: String,
    /// Whether the cache could be trusted when it was made.
    pub ready: bool,
}

/// From when to when things were counted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// RFC 3339.
    pub from: String,
    /// RFC 3339.
    pub to: String,
    /// What lies between.
    pub seconds: u64,
    /// With what it begins.
    pub begins: Begins,
}

/// With what a window begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Begins {
    /// With the last report that this process kept.
    Report,
    /// With the process: what was before is not in it.
    #[default]
    Start,
}

/// Reads through the read API. (Reads straight from Redis are seen by nobody.)
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Reads {
    /// Answered from the daemon's own memory.
    pub held: u64,
    /// Answered from Redis.
    pub hits: u64,
    /// Loaded, through the cache.
    pub misses: u64,
    /// Loaded past the cache.
    pub bypasses: u64,
    /// Not answered.
    pub errors: u64,
    /// Of all of them.
    pub hit_rate: Option<f64>,
    /// Of all of them.
    pub miss_rate: Option<f64>,
    /// The hit rate by the report before.
    pub hit_rate_before: Option<f64>,
    /// By how many points the hit rate has grown since.
    pub hit_rate_points: Option<f64>,
}

/// How long something took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// How many.
    pub count: u64,
    /// In milliseconds.
    pub mean_ms: Option<f64>,
    /// As closely as the metric's buckets tell.
    pub p50_ms: Option<f64>,
    /// The same.
    pub p99_ms: Option<f64>,
}

/// Of one cache.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Cache {
    /// Its time to live.
    pub ttl_seconds: u64,
    /// It has no entries of its own: it is joined from those of others.
    pub composed: bool,
    /// Through the read API.
    pub reads: Reads,
    /// Reads that were hits.
    pub hit: Latency,
    /// Reads that were misses.
    pub miss: Latency,
    /// How many times faster a hit is, on average.
    pub speedup: Option<f64>,
    /// Its query.
    pub load: Latency,
    /// The mean of its query in the reports before: their median.
    pub load_baseline_ms: Option<f64>,
    /// Attempts to fill, by what came of it.
    pub fills: BTreeMap<String, u64>,
    /// What it takes in Redis; `null`: not counted.
    pub memory: Option<Memory>,
    /// What changes removed.
    pub invalidated: Invalidated,
    /// For how long what was removed had been inconsistent.
    pub inconsistent: Inconsistent,
    /// What became of a sample of the entries that the daemon filled.
    pub deaths: Deaths,
}

/// What a cache takes in Redis.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// Entries.
    pub keys: u64,
    /// All told; `null`: may not be asked for.
    pub bytes: Option<u64>,
    /// How many entries it is more than by the report before.
    pub keys_growth: Option<i64>,
    /// How many bytes it is more.
    pub bytes_growth: Option<i64>,
    /// The same for each hour between the two.
    pub bytes_growth_per_hour: Option<f64>,
}

/// What changes removed of a cache, or made due.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Invalidated {
    /// Keys.
    pub keys: u64,
    /// Those that were there.
    pub present: u64,
}

/// For how long entries that were removed had lacked a change, at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Inconsistent {
    /// All of them.
    #[serde(flatten)]
    pub latency: Latency,
    /// Those that did for more than a second.
    pub over_1s: u64,
    /// A minute.
    pub over_1m: u64,
    /// Five minutes.
    pub over_5m: u64,
}

/// Of the entries that populations list, how many are cached.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Coverage {
    /// How many there should be.
    pub expected: u64,
    /// How many there are.
    pub cached: u64,
    /// `true`: there are so many that only some were looked at.
    pub sampled: bool,
    /// By cache.
    pub caches: BTreeMap<String, Covered>,
    /// How many organizations there are.
    pub organizations: u64,
    /// Of how many everything is cached.
    pub whole: u64,
    /// Those of which least is, the worst first.
    pub least: Vec<OfOrganization>,
}

/// How many of how many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Covered {
    /// How many there should be.
    pub expected: u64,
    /// How many there are.
    pub cached: u64,
}

/// Of one organization.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfOrganization {
    /// Its id, as keys have it.
    pub organization: String,
    /// How many there should be.
    pub expected: u64,
    /// How many there are.
    pub cached: u64,
}

/// Redis as a whole: all of its keys and clients, ours among them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Redis {
    /// Of the server.
    pub version: String,
    /// How much memory it uses.
    pub used_memory: Option<u64>,
    /// How much it may; `null`: as much as there is.
    pub maxmemory: Option<u64>,
    /// What it does when it is full.
    pub maxmemory_policy: Option<String>,
    /// Keys that it has thrown out within the window.
    pub evicted_keys: Option<u64>,
    /// Look-ups within the window that found a key.
    pub keyspace_hits: Option<u64>,
    /// And that did not.
    pub keyspace_misses: Option<u64>,
}

/// What removed entries.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Invalidation {
    /// Transactions that were applied.
    pub transactions: u64,
    /// From a commit to Redis' acknowledgement.
    pub commit_to_invalidated: Latency,
    /// For how long entries were inconsistent, of all caches.
    pub inconsistent: Inconsistent,
    /// Since when what follows is counted; later than the window's beginning if the rules were
    /// loaded anew.
    pub counted_for_seconds: u64,
    /// Rows that changed, the most first.
    pub changes: Vec<Changes>,
    /// Rules, those that reached most keys first. A key that several rules reached in one batch
    /// counts for the first.
    pub rules: Vec<Rule>,
    /// The keys that changes reached most often, the hottest first.
    pub hot_keys: Vec<HotKey>,
    /// Transactions by how many keys they reached.
    pub fan_out: Vec<Class>,
    /// The one that reached most.
    pub largest: Option<Largest>,
    /// Whole caches that were dropped, by cache and reason.
    pub whole: BTreeMap<String, BTreeMap<String, u64>>,
    /// Times that everything was dropped, by reason.
    pub gaps: BTreeMap<String, u64>,
}

/// Rows of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// The table.
    pub table: String,
    /// By operation.
    pub rows: BTreeMap<String, u64>,
}

/// What a rule reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Its place in the configuration.
    pub rule: String,
    /// Its table.
    pub table: String,
    /// Its cache.
    pub cache: String,
    /// Keys.
    pub keys: u64,
    /// Those that were there.
    pub present: u64,
}

/// A key that changes reached often.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HotKey {
    /// The key.
    pub key: String,
    /// Its cache.
    pub cache: String,
    /// Whose it is, if its key says so.
    pub organization: Option<String>,
    /// How often changes reached it, at least.
    pub changes: u64,
    /// And at most.
    pub changes_at_most: u64,
    /// How often it was there.
    pub present: u64,
    /// How often the read API wanted it.
    pub reads: u64,
    /// The rule that reached it last.
    pub rule: String,
}

/// The transaction that reached most keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Largest {
    /// How many.
    pub keys: u64,
    /// The end of its commit.
    pub lsn: String,
    /// Its id.
    pub xid: u32,
}

/// Something that was found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// A word for scripts.
    pub kind: String,
    /// The cache, if it is about one.
    pub cache: Option<String>,
    /// In words.
    pub text: String,
}

/// Something to change.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Recommendation {
    /// A word for scripts.
    pub kind: String,
    /// The cache, if it is about one.
    pub cache: Option<String>,
    /// The organization, if it is about one.
    pub organization: Option<String>,
    /// Why.
    pub because: String,
    /// The section of the configuration.
    pub section: Option<String>,
    /// What to write there, a line each.
    pub set: Vec<String>,
    /// All of it in one sentence.
    pub text: String,
}

impl From<&Times> for Latency {
    fn from(times: &Times) -> Self {
        let ms = |seconds: Option<f64>| seconds.map(|seconds| seconds * 1000.0);
        Latency {
            count: times.count,
            mean_ms: ms(times.mean()),
            p50_ms: ms(times.quantile(0.5)),
            p99_ms: ms(times.quantile(0.99)),
        }
    }
}

impl From<&Times> for Inconsistent {
    fn from(times: &Times) -> Self {
        Inconsistent {
            latency: times.into(),
            over_1s: times.longer_than(1.0),
            over_1m: times.longer_than(60.0),
            over_5m: times.longer_than(300.0),
        }
    }
}
