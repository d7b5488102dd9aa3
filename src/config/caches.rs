//! What is cached, and what a change reaches: `[caches.NAME]` and `[[tables]]`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::duration::Span;
use super::keyword::keywords;

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
    /// What a value looks like, as JSON Schema, for the OpenAPI document: in place, or in a file. Of
    /// a composed cache with a key: what its own entry looks like; of the whole it follows from its
    /// parts.
    #[serde(default)]
    pub schema: Option<Query>,
    /// The SQL that says which entries `unstale warm` fills: one row an entry, with columns
    /// named like the key's parameters (those that are enumerated apart). It may name
    /// `$organization` (text: id or name of the only organization that is meant, or null; what is
    /// the id of one must not mean another of that name), `$users` (int: how many users of each organization at the most) and `$user` (text: the id
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
    /// For how long the read API answers with what it answered last, while the database does not
    /// answer (RFC 5861): from 1s to 1d, counted from when that was known to be right. Such an
    /// answer may be stale, and says so. Not for the cache that says who a user is. Default: never.
    #[serde(default)]
    pub stale_if_error: Option<Span>,
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

/// A text, such as a cache's SQL: in place, or in a file (relative to the configuration's folder).
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(untagged, deny_unknown_fields)]
pub enum Query {
    /// The text itself.
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

impl Scalar {
    /// As it is in a key, or in a query's parameter.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Scalar::Number(number) => number.to_string(),
            Scalar::Text(text) => text.clone(),
        }
    }
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
                f.write_str("a text, or { file = \"path\" }")
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

fn utc() -> String {
    "UTC".to_owned()
}
fn org_id() -> String {
    "org_id".to_owned()
}
fn user_id() -> String {
    "user_id".to_owned()
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
