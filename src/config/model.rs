//! The configuration as its user writes it, one struct a TOML table.
//!
//! The doc comments here are the reference: `unstale config schema` prints
//! them as JSON Schema, which is checked in as `config/unstale.schema.json`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::api::Api;
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
    /// What the daemon does now and then by itself. Default: it warms all caches every 4 h.
    /// `schedule = []`, above the first section of the file: nothing.
    #[serde(default = "warm_every_four_hours")]
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
    /// Whether large transactions are read while they are in progress. `off`: the database
    /// writes them to its disk, and sends them after their commit.
    #[serde(default)]
    pub streaming: StreamInProgress,
    /// How often the database is told what has been applied. Lowered by itself where
    /// `wal_sender_timeout` asks for more.
    #[serde(default = "one_second")]
    pub status_interval: Span,
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
    /// A CA certificate (PEM) to trust for `rediss://`, beside the system's.
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
    /// Warm up at every start. One that finds the cache lost is a gap: this is for those that
    /// find it as it was, less what has expired meanwhile.
    pub on_start: bool,
}

/// `[[schedule]]`: something that the daemon does now and then by itself.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// What.
    pub task: Task,
    /// How often, a tenth more or less by chance. The first time is that long after the start.
    pub every: Span,
    /// Which caches: `all`, `user`, a group (`strategic`, `api`), or a cache's name.
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
    /// Where `/metrics`, `/healthz`, `/readyz` and `/why` are served, such as `127.0.0.1:9187`
    /// or `[::1]:9187`. Not for the public: it has no login.
    #[serde(deserialize_with = "socket_address")]
    #[schemars(with = "String", extend("pattern" = ":[0-9]{1,5}$"))]
    pub listen: std::net::SocketAddr,
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

/// `[caches]`: settings of all caches, and the caches by name.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct Caches {
    /// The time zone (a name that Postgres knows) in which a day begins and ends,
    /// for queries that name `$timezone`.
    #[serde(default = "utc")]
    pub timezone: String,
    /// The parameter of keys that names an organization, for `--organization`.
    #[serde(default = "org_id")]
    pub organization_parameter: String,
    /// The parameter of keys that names a user, for `--user-id` and the cache type `user`.
    #[serde(default = "user_id")]
    pub user_parameter: String,
    /// `[caches.NAME]`
    #[serde(flatten)]
    pub by_name: BTreeMap<String, Cache>,
}

/// `[caches.NAME]`: one kind of value.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// The key's template, such as `v1:deal_stats:{org_id}:{days}`. It begins with literal
    /// text. A scoped cache has `{generation}` behind its scope's parameters. A composed cache
    /// has a key only if something of its own belongs to it.
    #[serde(default)]
    pub key: Option<String>,
    /// The SQL that computes the value: named `$parameters`, one JSON column, no row if
    /// there is nothing to cache.
    pub query: Option<Query>,
    /// The SQL that says which entries `unstale warm` fills: one row an entry, with columns
    /// named like the key's parameters (those that are enumerated apart). It may name
    /// `$organization` (text: name or id of the only organization that is meant, or null),
    /// `$users` (int: how many users of each organization at the most) and `$user` (text: the id
    /// of the only user that is meant, or null).
    #[serde(default)]
    pub population: Option<Query>,
    /// Parameters whose values are all known, such as `days = [7, 30, 90, 365]`. A rule
    /// need not give them: all of them are meant.
    #[serde(default)]
    pub parameters: BTreeMap<String, Vec<Scalar>>,
    /// The parameters that a rule gives of a cache whose others are open-ended. One step
    /// then drops all entries of that scope.
    #[serde(default)]
    pub scope: Option<Vec<String>>,
    /// How long an entry lives at most. Default: `redis.default_ttl`.
    #[serde(default)]
    pub ttl: Option<Span>,
    /// The group that commands name: `strategic`, `api`, or a name of your own.
    #[serde(default)]
    pub group: Option<String>,
    /// What goes first when there is much to do.
    #[serde(default)]
    pub priority: Priority,
    /// Whether an entry that a change removed is filled again at once. Not for a scoped cache.
    #[serde(default)]
    pub rewarm: Rewarm,
    /// What a change of a row does to an entry that is there. Not for a scoped cache.
    #[serde(default)]
    pub on_change: OnChange,
    /// With `on_change = "refresh"`, how long an old value may stay after the first change
    /// that it lacks, at most: from 50ms to 1h, and less than the time to live.
    #[serde(default)]
    pub max_staleness: Option<Span>,
    /// How long it is remembered that there is nothing to cache (the query gave no row), as
    /// the value `null`. An INSERT must reach the cache, as `check` sees to. Default: it is not.
    #[serde(default)]
    pub negative_ttl: Option<Span>,
    /// A larger value is computed for its reader and not stored. Default: no limit.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub max_value_bytes: Option<usize>,
    /// What a composed value is joined from, in this order: a JSON object whose members
    /// are entries of other caches, each filled and dropped by itself.
    #[serde(default)]
    pub compose: Option<Vec<Piece>>,
}

/// What a change of a row does to an entry that is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnChange {
    /// It is removed at once: nobody reads the old value any more.
    #[default]
    Drop,
    /// It stays while a new one is computed, for `max_staleness` at most. For what changes
    /// faster than it loads. Needs `rewarm`; with `warm.enabled = false` nothing refreshes it.
    Refresh,
}

/// A piece of a composed value. It is one of `cache`, `number` and `text`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Piece {
    /// The member's name. Left out: the part is an object, and its members are taken over.
    #[serde(default)]
    pub member: Option<String>,
    /// The part: an entry of this cache, or another composed value. The cache itself: its
    /// own entry.
    #[serde(default)]
    pub cache: Option<String>,
    /// What is always the same of the part's key, such as `{ days = 30 }`. Its other
    /// parameters are those of the whole, by name.
    #[serde(default)]
    pub parameters: BTreeMap<String, Scalar>,
    /// Of the part, an object, this member only.
    #[serde(default)]
    pub pick: Option<String>,
    /// A parameter, as a JSON number. It must be a whole one.
    #[serde(default)]
    pub number: Option<String>,
    /// A parameter, as a JSON text.
    #[serde(default)]
    pub text: Option<String>,
}

/// Whether an entry that a change removed is filled again at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rewarm {
    /// The next reader fills it.
    #[default]
    Never,
    /// If it was there; it keeps the life that remained.
    IfCached,
    /// Also if it was not there.
    Always,
}

/// A cache's SQL: in place, or in a file (relative to the configuration's folder).
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(untagged, deny_unknown_fields)]
pub enum Query {
    /// The SQL itself.
    Inline(String),
    /// `{ file = "path" }`
    File {
        /// Relative to the folder of the configuration file.
        file: PathBuf,
    },
}

/// A value of an enumerated parameter.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(untagged)]
pub enum Scalar {
    /// A whole number.
    Number(i64),
    /// A text.
    Text(String),
}

/// What goes first when there is much to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Before all others.
    High,
    /// The default.
    #[default]
    Medium,
    /// When nothing else waits.
    Low,
}

/// `[[tables]]`: a table and what its changes reach.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// `table` or `schema.table`, written as in SQL: what is not in double quotes is
    /// folded to lower case. The schema is `public` unless said.
    pub name: String,
    /// The rules, in any order: all that match apply.
    #[serde(default)]
    pub invalidates: Vec<Rule>,
}

/// One rule: which entries of one cache a changed row reaches.
///
/// Beside the settings below it gives the parameters of the cache's key, each by the
/// column that holds it: `org_id = "organization_id"`. The old and the new row both count.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct Rule {
    /// The cache.
    pub cache: String,
    /// The operations it is for. Default: all. TRUNCATE counts as a delete.
    #[serde(default)]
    pub on: Option<Vec<Operation>>,
    /// An UPDATE that leaves all these columns as they were reaches nothing.
    #[serde(default)]
    pub columns: Option<Vec<String>>,
    /// A condition on the row's own values: `=`, `<>`, `in`, `is null`, `and`, `or`, `not`.
    /// Bare columns are those of the row at hand (the old, then the new one); `old.` and
    /// `new.` name one of them.
    #[serde(default, rename = "where")]
    pub condition: Option<String>,
    /// A query that finds the parameters: it reads the set `changed`, which holds the old
    /// and new rows of many changes, always as `changed.column`, and returns columns
    /// named like the parameters.
    #[serde(default)]
    pub via: Option<String>,
    /// Drop every entry of the cache. With `via`: if it returns any row.
    #[serde(default)]
    pub whole: bool,
    /// The parameters of the cache's key, each with the column that holds it.
    #[serde(flatten)]
    pub parameters: BTreeMap<String, String>,
}

/// What happened to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// INSERT, COPY, a row arriving by UPDATE of its partition key.
    Insert,
    /// UPDATE.
    Update,
    /// DELETE.
    Delete,
    /// TRUNCATE; never written in a rule, where it counts as a delete.
    #[schemars(skip)]
    Truncate,
}

impl Operation {
    /// The name in configuration, metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Insert => "insert",
            Operation::Update => "update",
            Operation::Delete => "delete",
            Operation::Truncate => "truncate",
        }
    }
}

keywords!(StreamInProgress { "on" => On, "off" => Off });
keywords!(LogFormat { "text" => Text, "json" => Json });
keywords!(Task { "warm" => Warm });
keywords!(Priority { "high" => High, "medium" => Medium, "low" => Low });
keywords!(Rewarm { "never" => Never, "if_cached" => IfCached, "always" => Always });
keywords!(OnChange { "drop" => Drop, "refresh" => Refresh });
keywords!(Operation { "insert" => Insert, "update" => Update, "delete" => Delete });

impl Rule {
    /// The settings of a rule; every other key is a parameter of the cache's key.
    pub const SETTINGS: &'static [&'static str] =
        &["cache", "on", "columns", "where", "via", "whole"];
}

impl<'de> Deserialize<'de> for Query {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrFile;

        impl<'de> Visitor<'de> for TextOrFile {
            type Value = Query;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("SQL as a text, or { file = \"path\" }")
            }

            fn visit_str<E: de::Error>(self, sql: &str) -> Result<Query, E> {
                Ok(Query::Inline(sql.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Query, A::Error> {
                let mut file = None;
                while let Some(key) = map.next_key::<QueryKey>()? {
                    match key {
                        QueryKey::File => file = Some(map.next_value()?),
                    }
                }
                file.map(|file| Query::File { file })
                    .ok_or_else(|| de::Error::missing_field("file"))
            }
        }

        deserializer.deserialize_any(TextOrFile)
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum QueryKey {
    File,
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrText;

        impl Visitor<'_> for NumberOrText {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number or a text")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar::Number(number))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Scalar, E> {
                i64::try_from(number)
                    .map(Scalar::Number)
                    .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(number), &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(text.to_owned()))
            }
        }

        deserializer.deserialize_any(NumberOrText)
    }
}

pub(super) fn socket_address<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<std::net::SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        // What follows the line break is shown as the hint.
        de::Error::custom(format_args!(
            "{text:?} is not an address to listen on\n\
             write an IP address and a port, such as \"127.0.0.1:9187\", \"[::1]:9187\" or \"0.0.0.0:9187\""
        ))
    })
}

fn unstale() -> String {
    "unstale".to_owned()
}
fn all() -> String {
    "all".to_owned()
}
fn utc() -> String {
    "UTC".to_owned()
}
fn org_id() -> String {
    "org_id".to_owned()
}
fn user_id() -> String {
    "user_id".to_owned()
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
            on_start: false,
        }
    }
}

/// What holds if no schedule is given.
pub(super) fn warm_every_four_hours() -> Vec<Schedule> {
    let every = Span::seconds(4 * 3600);
    vec![Schedule { task: Task::Warm, every, cache_type: all(), organization: None }]
}

impl Default for Audit {
    fn default() -> Self {
        Audit { per_second: 1 }
    }
}

impl Priority {
    /// The name in configuration, metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Priority::High => "high",
            Priority::Medium => "medium",
            Priority::Low => "low",
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Admin { listen: std::net::SocketAddr::from(([127, 0, 0, 1], 9187)) }
    }
}

impl Default for Log {
    fn default() -> Self {
        Log { level: "info".to_owned(), format: LogFormat::Text, file: None }
    }
}

impl Default for Caches {
    fn default() -> Self {
        Caches {
            timezone: utc(),
            organization_parameter: org_id(),
            user_parameter: user_id(),
            by_name: BTreeMap::new(),
        }
    }
}
