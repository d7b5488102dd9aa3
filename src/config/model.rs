//! The configuration as its user writes it, one struct a TOML table.
//!
//! The doc comments here are the reference: `unstale config schema` prints
//! them as JSON Schema, which is checked in as `config/unstale.schema.json`.

use std::path::PathBuf;

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::address::socket_address;
use super::api::Api;
pub use super::caches::{
    Cache, Caches, OnChange, Operation, Piece, Priority, Query, Rewarm, Rule, Scalar, Table,
};
use super::duration::Span;
use super::endpoints::Endpoint;
use super::keyword::keywords;

/// Everything that `unstale.toml` may hold.
///
/// Any setting may also come from the environment, as `UNSTALE_` and its path in capitals
/// with two underscores between levels: `UNSTALE_REDIS__KEY_PREFIX`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Shadow mode: the daemon follows the database, looks at the entries that changes should have
    /// removed, and writes nothing to Redis. `unstale report --shadow` tells which of them still
    /// held the same bytes `shadow_grace` later: what the application's own invalidation misses.
    /// Stands above the first section of the file.
    #[serde(default)]
    pub shadow: bool,
    /// How long the application has to remove or replace an entry after a change.
    #[serde(default = "five_seconds")]
    pub shadow_grace: Span,
    /// The database whose changes are followed.
    pub postgres: Postgres,
    /// The cache that is kept fresh.
    pub redis: Redis,
    /// Bounds of the pipeline between them.
    #[serde(default)]
    pub pipeline: Pipeline,
    /// Filling again what changes removed.
    #[serde(default)]
    pub warm: Warm,
    /// What the daemon does now and then by itself. Default: it warms all caches every 4 h, looks
    /// after what is in Redis every hour, and makes a report every 6 h. Any `[[schedule]]` takes the
    /// place of all three. `schedule = []`, above the first section of the file: nothing.
    #[serde(default = "default_schedule")]
    pub schedule: Vec<Schedule>,
    /// Comparing what is cached with the database, all the time.
    #[serde(default)]
    pub audit: Audit,
    /// The operator's listener: metrics, health, `why`.
    #[serde(default)]
    pub admin: Admin,
    /// The read API.
    #[serde(default)]
    pub api: Api,
    /// What the daemon says, and where.
    #[serde(default)]
    pub log: Log,
    /// The caches, by name.
    #[serde(default)]
    pub caches: Caches,
    /// The tables whose changes matter, and what they reach.
    #[serde(default)]
    pub tables: Vec<Table>,
    /// What the read API serves.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
}

/// `[postgres]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Postgres {
    /// `postgres://user@host:port/database?sslmode=…`, or `postgres:///database?host=/socket/folder&user=…`.
    /// The parameters are libpq's: sslmode, sslrootcert, sslcert, sslkey, channel_binding,
    /// application_name, connect_timeout, keepalives, keepalives_idle, keepalives_interval,
    /// keepalives_count.
    #[schemars(with = "String", extend("pattern" = "^postgres(ql)?://"))]
    pub url: SecretString,
    /// The password. Better kept out of the file: UNSTALE_POSTGRES__PASSWORD, PGPASSWORD,
    /// `password_file` or `.pgpass`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub password: Option<SecretString>,
    /// A file that holds the password alone (a mounted secret).
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// A standby of that database, as `url` is written; what is loaded to be cached is then
    /// loaded from there whenever it has replayed enough, else from the primary. One server,
    /// without a pooler or a balancer between. Its role needs REPLICATION, and it one more of
    /// `max_wal_senders`; the password comes from where that of `url` does. A query may take
    /// half of `statement_timeout` there.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("pattern" = "^postgres(ql)?://"))]
    pub replica_url: Option<SecretString>,
    /// How long a load waits for the replica to replay what it needs.
    #[serde(default = "hundred_milliseconds")]
    pub replica_wait: Span,
    /// The publication that the daemon reads.
    #[serde(default = "unstale")]
    #[schemars(length(min = 1, max = 63))]
    pub publication: String,
    /// The logical replication slot, and the name of this daemon's state in Redis: lower
    /// case letters, digits and underscores.
    #[serde(default = "unstale")]
    #[schemars(extend("pattern" = "^[a-z0-9_]{1,63}$"))]
    pub slot: String,
    /// Whether standbys keep a copy of the slot (Postgres 17 and later), so that it is there
    /// after a failover. The standby needs
    /// `sync_replication_slots = on`, the primary should have it in `synchronized_standby_slots`.
    /// A failover is a gap all the same: what was cached may have come from commits that the
    /// standby never got.
    #[serde(default)]
    pub failover: bool,
    /// Whether large transactions are read while they are in progress. `off`: the database
    /// writes them to its disk, and sends them after their commit.
    #[serde(default)]
    pub streaming: StreamInProgress,
    /// How often the database is told what has been applied. Lowered by itself where
    /// `wal_sender_timeout` asks for more.
    #[serde(default = "one_second")]
    pub status_interval: Span,
    /// A replication stream that is silent for this long, although the server is asked for a
    /// sign of life, is given up and connected anew; and so is one that answers, but has brought
    /// nothing for five times as long while the server's WAL went on. Twice as long each time
    /// that it does not come any further.
    #[serde(default = "one_minute")]
    pub stream_timeout: Span,
    /// How often a sign of life is written to the WAL (`pg_logical_emit_message`) while no
    /// transaction comes: it measures how late a change would be. `0s`: never, and then logical
    /// messages of others do not come through the stream either, unless there are event triggers
    /// (`unstale setup --event-trigger`).
    #[serde(default = "ten_seconds")]
    pub heartbeat: Span,
    /// How long a lookup or a look at the catalog may run.
    #[serde(default = "thirty_seconds")]
    pub statement_timeout: Span,
}

/// Whether large transactions are read while they are in progress.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StreamInProgress {
    /// As they go.
    #[default]
    On,
    /// After their commit.
    Off,
}

/// `[redis]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    /// `redis://user:password@host:port/db`, `rediss://…` for TLS, or `unix:///path?db=1`.
    #[schemars(with = "String", extend("pattern" = "^(rediss?|(redis\\+)?unix)://"))]
    pub url: SecretString,
    /// The password. Better kept out of the file: UNSTALE_REDIS__PASSWORD or `password_file`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub password: Option<SecretString>,
    /// A file that holds the password alone (a mounted secret).
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// A CA certificate (PEM) to trust for `rediss://`, in place of the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// What stands before every cache's key. Django writes `KEY_PREFIX:VERSION:`.
    #[serde(default)]
    pub key_prefix: String,
    /// How long to wait for an answer. What is not answered by then may have happened,
    /// and is done again on a new connection.
    #[serde(default = "two_seconds")]
    pub timeout: Span,
    /// The time to live of a cache that names none.
    #[serde(default = "five_minutes")]
    pub default_ttl: Span,
    /// How many connections those who read and fill may share, beside the daemon's own few.
    /// One carries many commands at once; another is opened when all are busy.
    #[serde(default = "fifty")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max_connections: usize,
}

/// `[pipeline]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pipeline {
    /// Past this many keys and lookup rows, a transaction drops whole caches instead
    /// (those with the most keys first).
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_keys_per_transaction: usize,
    /// How many keys may be decoded ahead while Redis or the gate is slow.
    /// Then the stream waits: nothing is lost, Postgres keeps it. All transactions in
    /// progress together are held to it, too, or to what one transaction may have, if that is
    /// more: past it the largest drops whole caches.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_keys_ahead: usize,
    /// How many keys one step in Redis removes at the most. Bounds how long Redis is
    /// busy with it.
    #[schemars(range(min = 1, max = 5_000))]
    pub max_keys_per_script: usize,
    /// `/readyz` fails when the oldest change that is not applied is older than this.
    pub max_lag: Span,
    /// How long a shutdown may take to finish what is under way.
    pub drain_timeout: Span,
    /// For how many keys the daemon remembers why they were dropped (`unstale why`).
    #[schemars(range(max = 10_000_000))]
    pub remembered_drops: usize,
}

/// `[warm]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Warm {
    /// Whether the daemon fills anything by itself.
    pub enabled: bool,
    /// How many entries are filled at once. Each needs a connection to Postgres.
    pub concurrency: usize,
    /// How many entries are filled a second at the most; 0: no limit.
    pub max_per_second: u32,
    /// How many entries may wait to be filled. Past it the lowest priority is dropped first.
    pub max_queue: usize,
    /// Of how many users of each organization a warm-up fills the entries, at the most:
    /// those who logged in last.
    pub users: u32,
    /// Warm up after a gap, and a cache that was dropped as a whole. A first start is a gap, too.
    pub after_gap: bool,
    /// Warming waits while the stream is further behind than so many bytes of WAL, until half of them
    /// are caught up: both load the same database. Each entry waits for 5 s at the most. 0: it never
    /// waits.
    pub max_lag_bytes: u64,
    /// Warm up at every start. One that finds the cache lost is a gap: this is for those that
    /// find it as it was, less what has expired meanwhile.
    pub on_start: bool,
}

/// `[[schedule]]`: something that the daemon does now and then by itself. Of several daemons one
/// does it: the one that streams.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// What.
    pub task: Task,
    /// How often, a tenth more or less by chance. The first time of all is that long after the start
    /// (of maintenance: within a minute); when it is due next is remembered in Redis.
    pub every: Span,
    /// Which caches: `all`, `user`, a group (`strategic`, `api`), or a cache's name. Reports and
    /// maintenance are about all.
    #[serde(default = "all")]
    pub cache_type: String,
    /// Only this organization, by name or id. Default: all that are active.
    #[serde(default)]
    pub organization: Option<Scalar>,
}

/// What a schedule may be for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// Fill what is not there, as `unstale warm` does.
    Warm,
    /// Remove what is there, as `unstale invalidate` does.
    Invalidate,
    /// Make a report, as `unstale report` does.
    Report,
    /// Look after what is in Redis: orphaned leases, entries without an expiry or of a replaced
    /// generation go; keys and memory are counted.
    Maintenance,
}

impl Task {
    /// The name, as it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Task::Warm => "warm",
            Task::Invalidate => "invalidate",
            Task::Report => "report",
            Task::Maintenance => "maintenance",
        }
    }

    /// Whether it may be about some caches, or one organization.
    #[must_use]
    pub fn is_about_caches(self) -> bool {
        matches!(self, Task::Warm | Task::Invalidate)
    }
}

impl Schedule {
    /// What tells it apart from the others: `warm:all`, `invalidate:api:7`, `report`.
    #[must_use]
    pub fn name(&self) -> String {
        let mut name = self.task.as_str().to_owned();
        if self.task.is_about_caches() {
            name.push(':');
            name.push_str(&self.cache_type);
        }
        if let Some(organization) = &self.organization {
            name.push(':');
            name.push_str(&organization.text());
        }
        name
    }
}

/// `[audit]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// How many cached entries the daemon compares with the database a second; 0: none. Each
    /// costs its cache's query.
    #[schemars(range(max = 1000))]
    pub per_second: u32,
}

/// `[admin]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Where the console, `/metrics`, `/healthz`, `/readyz` and `/why` are served, such as
    /// `127.0.0.1:9187` or `[::1]:9187`. Not for the public: it has no login.
    #[serde(deserialize_with = "socket_address")]
    #[schemars(with = "String", extend("pattern" = ":[0-9]{1,5}$"))]
    pub listen: std::net::SocketAddr,
    /// By which names browsers may ask, beside any IP address and `localhost`: another name
    /// could be somebody's who makes it point here to read it. Without a port.
    /// (`/metrics`, `/healthz` and `/readyz` are served under any name unless `listen` is on
    /// loopback.)
    #[schemars(inner(regex(pattern = "^[A-Za-z0-9._-]+$")))]
    pub hosts: Vec<String>,
}

/// `[log]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,unstale::pipeline=debug`.
    pub level: String,
    /// `text` for people, `json` for machines.
    pub format: LogFormat,
    /// Append to this file instead of writing to standard error.
    pub file: Option<PathBuf>,
}

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line of words and `field=value`.
    Text,
    /// One JSON object a line.
    Json,
}

keywords!(StreamInProgress { "on" => On, "off" => Off });
keywords!(LogFormat { "text" => Text, "json" => Json });
keywords!(Task {
    "warm" => Warm, "invalidate" => Invalidate, "report" => Report, "maintenance" => Maintenance
});

fn unstale() -> String {
    "unstale".to_owned()
}
fn all() -> String {
    "all".to_owned()
}
fn hundred_milliseconds() -> Span {
    Span::milliseconds(100)
}
fn one_second() -> Span {
    Span::seconds(1)
}
fn two_seconds() -> Span {
    Span::seconds(2)
}
fn one_minute() -> Span {
    Span::seconds(60)
}
fn ten_seconds() -> Span {
    Span::seconds(10)
}
/// The default of `shadow_grace`.
pub(super) fn five_seconds() -> Span {
    Span::seconds(5)
}
fn thirty_seconds() -> Span {
    Span::seconds(30)
}
fn fifty() -> usize {
    50
}
fn five_minutes() -> Span {
    Span::seconds(300)
}

impl Default for Pipeline {
    fn default() -> Self {
        Pipeline {
            max_keys_per_transaction: 100_000,
            max_keys_ahead: 100_000,
            max_keys_per_script: 500,
            max_lag: Span::seconds(30),
            drain_timeout: Span::seconds(10),
            remembered_drops: 10_000,
        }
    }
}

impl Default for Warm {
    fn default() -> Self {
        Warm {
            enabled: true,
            concurrency: 2,
            max_per_second: 200,
            max_queue: 10_000,
            users: 100,
            after_gap: true,
            max_lag_bytes: 16 << 20,
            on_start: false,
        }
    }
}

/// What holds if no schedule is given.
pub(super) fn default_schedule() -> Vec<Schedule> {
    let each = [(Task::Warm, 4_u64), (Task::Maintenance, 1), (Task::Report, 6)];
    let schedule = |(task, hours)| {
        let every = Span::seconds(hours * 3600);
        Schedule { task, every, cache_type: all(), organization: None }
    };
    each.into_iter().map(schedule).collect()
}

impl Default for Audit {
    fn default() -> Self {
        Audit { per_second: 1 }
    }
}

impl Default for Admin {
    fn default() -> Self {
        let listen = std::net::SocketAddr::from(([127, 0, 0, 1], 9187));
        Admin { listen, hosts: Vec::new() }
    }
}

impl Default for Log {
    fn default() -> Self {
        Log { level: "info".to_owned(), format: LogFormat::Text, file: None }
    }
}
