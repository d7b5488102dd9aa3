//! The lines: as JSON for machines, as text for people.

use std::fmt::{self, Display, Write as _};
use std::time::{Duration, UNIX_EPOCH};

use serde::{Serialize, Serializer};

use super::key::RowKey;
use crate::config::model::Operation;
use crate::lsn::Lsn;
use crate::mapping::Mapping;
use crate::mapping::changes::{Escalation, Key};
use crate::mapping::explain::{Explained, Yields};
use crate::mapping::model::{CacheId, RuleId};
use crate::mapping::name::{Quoted, TableName};
use crate::pgoutput::timestamp::to_system_time;
use crate::snapshot::Xid;

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A transaction as its lines name it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) xid: Xid,
    pub(super) committed_at: i64,
}

/// One row's change, or one table's TRUNCATE.
#[derive(Serialize)]
pub(super) struct Change<'a> {
    kind: &'static str,
    #[serde(serialize_with = "shown")]
    committed_at: Time,
    /// Where in the WAL the change stands.
    #[serde(serialize_with = "shown")]
    lsn: Lsn,
    xid: u32,
    schema: &'a str,
    table: &'a str,
    operation: &'static str,
    key: Option<RowKey<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new_key: Option<RowKey<'a>>,
    /// What the rules make of the row's own columns.
    keys: Vec<String>,
    rules: Vec<Reached<'a>>,
}

/// A rule that the change reaches, and what it yields.
#[derive(Serialize)]
struct Reached<'a> {
    rule: String,
    cache: &'a str,
    #[serde(flatten)]
    what: What,
}

#[derive(Serialize)]
#[serde(tag = "yields", rename_all = "lowercase")]
enum What {
    /// So many of the change's keys.
    Keys { count: usize },
    /// What its query finds is on the commit line.
    Lookup,
    /// The whole cache.
    Whole { reason: &'static str },
}

impl<'a> Change<'a> {
    pub(super) fn new(
        head: Head,
        lsn: Lsn,
        (schema, table): (&'a str, &'a str),
        operation: Operation,
        (key, new_key): (Option<RowKey<'a>>, Option<RowKey<'a>>),
    ) -> Self {
        Change {
            kind: "change",
            committed_at: Time(head.committed_at),
            lsn,
            xid: head.xid.0,
            schema,
            table,
            operation: operation.as_str(),
            key,
            new_key,
            keys: Vec::new(),
            rules: Vec::new(),
        }
    }

    /// Adds what the rules make of it; those that it does not reach are left out.
    pub(super) fn reaches(&mut self, mapping: &'a Mapping, explained: Vec<Explained>) {
        for Explained { rule, cache, yields } in explained {
            let what = match yields {
                Yields::Nothing(_) => continue,
                Yields::Keys(keys) => {
                    let what = What::Keys { count: keys.len() };
                    self.keys.extend(keys.iter().map(Key::to_string));
                    what
                }
                Yields::Lookup(_) => What::Lookup,
                Yields::Whole(reason) => What::Whole { reason: reason.as_str() },
            };
            let cache = cache_name(mapping, cache);
            self.rules.push(Reached { rule: mapping.describe(rule), cache, what });
        }
    }

    pub(super) fn write(&self, format: Format, out: &mut Vec<u8>) {
        write(self, format, out);
    }
}

/// The end of a transaction.
#[derive(Serialize)]
pub(super) struct Commit<'a> {
    kind: &'static str,
    #[serde(serialize_with = "shown")]
    committed_at: Time,
    /// Where the commit ends: the daemon names it so, too.
    #[serde(serialize_with = "shown")]
    lsn: Lsn,
    xid: u32,
    /// How many of its changes were printed.
    changes: u64,
    /// Keys that only the rules' queries found.
    pub(super) keys: Vec<String>,
    /// Caches that are dropped as a whole.
    pub(super) whole: Vec<Whole<'a>>,
    /// Queries that failed, or ran too early.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) problems: Vec<String>,
}

#[derive(Serialize)]
pub(super) struct Whole<'a> {
    cache: &'a str,
    reason: &'static str,
    rule: String,
}

impl<'a> Commit<'a> {
    pub(super) fn new(head: Head, end: Lsn, changes: u64) -> Self {
        Commit {
            kind: "commit",
            committed_at: Time(head.committed_at),
            lsn: end,
            xid: head.xid.0,
            changes,
            keys: Vec::new(),
            whole: Vec::new(),
            problems: Vec::new(),
        }
    }

    pub(super) fn drops_whole(
        &mut self,
        mapping: &'a Mapping,
        cache: CacheId,
        reason: Escalation,
        rule: RuleId,
    ) {
        self.whole.push(Whole {
            cache: cache_name(mapping, cache),
            reason: reason.as_str(),
            rule: mapping.describe(rule),
        });
    }

    /// As text a commit that adds nothing to its changes is left out.
    pub(super) fn write(&self, format: Format, out: &mut Vec<u8>) {
        let silent = self.keys.is_empty() && self.whole.is_empty() && self.problems.is_empty();
        if format == Format::Json || !silent {
            write(self, format, out);
        }
    }
}

fn write<T: Serialize + Display>(line: &T, format: Format, out: &mut Vec<u8>) {
    let length = out.len();
    let written = match format {
        Format::Json => serde_json::to_writer(&mut *out, line).is_ok(),
        Format::Text => {
            let mut text = String::new();
            let written = write!(text, "{line}").is_ok();
            out.extend_from_slice(text.as_bytes());
            written
        }
    };
    // Neither fails when it writes to memory.
    debug_assert!(written);
    if out.len() > length {
        out.push(b'\n');
    }
}

impl Display for Change<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Change { committed_at, lsn, xid, operation, .. } = self;
        let table = TableName::new(self.schema, self.table);
        write!(f, "{committed_at} {lsn} {xid} {operation} {table}")?;
        if let Some(key) = &self.key {
            write!(f, " {key}")?;
        }
        if let Some(key) = &self.new_key {
            write!(f, " (now {key})")?;
        }
        f.write_str(" ->")?;
        if self.rules.is_empty() {
            return f.write_str(" nothing");
        }
        let mut keys = self.keys.iter();
        for Reached { cache, what, .. } in &self.rules {
            match what {
                What::Keys { count } => {
                    for key in keys.by_ref().take(*count) {
                        write!(f, " {key}")?;
                    }
                }
                What::Lookup => write!(f, " {}:looked-up-at-commit", Quoted(cache))?,
                What::Whole { reason } => write!(f, " {}:whole({reason})", Quoted(cache))?,
            }
        }
        Ok(())
    }
}

impl Display for Commit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Commit { committed_at, lsn, xid, .. } = self;
        write!(f, "{committed_at} {lsn} {xid} commit ->")?;
        for key in &self.keys {
            write!(f, " {key}")?;
        }
        for Whole { cache, reason, .. } in &self.whole {
            write!(f, " {}:whole({reason})", Quoted(cache))?;
        }
        for problem in &self.problems {
            write!(f, " ({})", problem.replace('\n', " "))?;
        }
        Ok(())
    }
}

fn cache_name(mapping: &Mapping, id: CacheId) -> &str {
    mapping.cache(id).map(|cache| &*cache.name).unwrap_or_default()
}

fn shown<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// The server's clock at the commit, as RFC 3339 in UTC.
#[derive(Debug, Clone, Copy)]
struct Time(i64);

impl Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // RFC 3339 ends with the year 9999. A server's clock that says otherwise is wrong,
        // and not worth failing for.
        const BEYOND: Duration = Duration::from_secs(253_402_300_800);
        let time = to_system_time(self.0)
            .filter(|time| time.duration_since(UNIX_EPOCH).is_ok_and(|since| since < BEYOND));
        match time {
            Some(time) => humantime::format_rfc3339_micros(time).fmt(f),
            None => f.write_str("1970-01-01T00:00:00.000000Z"),
        }
    }
}
