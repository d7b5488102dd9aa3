//! What is told of it: by the admin listener at `/shadow`, and by `unstale report --shadow`.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::tally::{Counts, Tally};
use crate::config::model::Operation;
use crate::mapping::Mapping;
use crate::mapping::model::RuleId;

/// The whole answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// When it began to count (Unix time): at the daemon's start, or at a reload of the rules.
    pub since: u64,
    /// For so long it has counted.
    pub seconds: u64,
    /// `shadow_grace`.
    pub grace_seconds: f64,
    /// Entries that have not had their grace yet.
    pub awaiting: usize,
    /// Missed by the application's own invalidation: `stale` and `same_bytes` together.
    pub missed_total: u64,
    /// All that changes reached.
    pub total: Counts,
    /// By table, operation and rule; what missed most first.
    pub changes: Vec<Line>,
    /// The entries that were missed, the last ones first.
    pub missed: Vec<MissedKey>,
    /// How many more there were than are named.
    pub missed_forgotten: u64,
    /// Caches that were concerned as a whole.
    pub whole: Vec<Whole>,
    /// By cache that has a query and of which values were compared: whether the application stores
    /// what the query gives. `false`: as far as was seen it does not, so bytes alone can tell.
    pub comparable: BTreeMap<String, bool>,
    /// Caches that are not followed, with the reason.
    pub left_out: BTreeMap<String, String>,
    /// Times at which changes may have gone by unseen, by reason.
    pub holes: BTreeMap<String, u64>,
}

/// What a rule reached by one operation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Line {
    /// The table that changed.
    pub table: String,
    /// What happened to its rows.
    pub operation: String,
    /// The cache.
    pub cache: String,
    /// The rule: its place in the configuration.
    pub rule: String,
    /// The entries.
    #[serde(flatten)]
    pub counts: Counts,
}

/// An entry that was missed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MissedKey {
    /// As Redis has it.
    pub key: String,
    /// Its cache.
    pub cache: String,
    /// The table that changed.
    pub table: String,
    /// What happened to its row.
    pub operation: String,
    /// The rule: its place in the configuration.
    pub rule: String,
    /// Where the commit of the change ends.
    pub lsn: String,
    /// Its transaction.
    pub xid: u32,
    /// When it was found out (Unix time).
    pub at: u64,
    /// The database gives another value; else the bytes alone say so.
    pub proved: bool,
    /// How often.
    pub times: u64,
}

/// A cache that was concerned as a whole.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Whole {
    /// The table that changed.
    pub table: String,
    /// What happened to it.
    pub operation: String,
    /// The cache.
    pub cache: String,
    /// Why not by key.
    pub reason: String,
    /// How often.
    pub times: u64,
}

impl Report {
    pub(super) fn new(mapping: &Mapping, tally: &Tally, awaiting: usize, grace: Duration) -> Self {
        let names = |rule: RuleId, operation: Operation| Names::new(mapping, rule, operation);
        let mut total = Counts::default();
        let mut changes: Vec<Line> = Vec::new();
        for ((rule, operation), counts) in &tally.ways {
            total.add(*counts);
            let Names { table, operation, cache, rule } = names(*rule, *operation);
            changes.push(Line { table, operation, cache, rule, counts: *counts });
        }
        changes.sort_by(|a, b| {
            let order =
                |line: &Line| (line.table.clone(), line.operation.clone(), line.rule.clone());
            b.counts.missed().cmp(&a.counts.missed()).then_with(|| order(a).cmp(&order(b)))
        });
        let mut missed: Vec<_> = tally.missed.iter().collect();
        missed
            .sort_by_key(|((key, _), missed)| (std::cmp::Reverse(missed.change.lsn), key.clone()));
        let missed = missed.into_iter().map(|((key, (rule, operation)), missed)| {
            let Names { table, operation, cache, rule } = names(*rule, *operation);
            MissedKey {
                key: key.to_string(),
                cache,
                table,
                operation,
                rule,
                lsn: missed.change.lsn.to_string(),
                xid: missed.change.xid.0,
                at: unix(missed.at),
                proved: missed.proved,
                times: missed.times,
            }
        });
        let whole = tally.whole.iter().map(|((rule, operation, reason), times)| {
            let Names { table, operation, cache, .. } = names(*rule, *operation);
            Whole { table, operation, cache, reason: (*reason).to_owned(), times: *times }
        });
        let scoped = mapping.caches().filter(|(_, cache)| cache.generation_key.is_some());
        let name = |id| mapping.cache(id).map(|cache| cache.name.to_string()).unwrap_or_default();
        Report {
            since: unix(tally.since),
            seconds: tally.since.elapsed().unwrap_or_default().as_secs(),
            grace_seconds: grace.as_secs_f64(),
            awaiting,
            missed_total: total.missed(),
            total,
            changes,
            missed: missed.collect(),
            missed_forgotten: tally.forgotten,
            whole: whole.collect(),
            comparable: tally.forms.iter().map(|(id, form)| (name(*id), form.equal)).collect(),
            left_out: scoped
                .map(|(_, cache)| (cache.name.to_string(), SCOPED.to_owned()))
                .collect(),
            holes: tally.holes.iter().map(|(why, times)| ((*why).to_owned(), *times)).collect(),
        }
    }
}

const SCOPED: &str =
    "it is scoped: its keys hold a generation, which the application does not write yet";

struct Names {
    table: String,
    operation: String,
    cache: String,
    rule: String,
}

impl Names {
    fn new(mapping: &Mapping, id: RuleId, operation: Operation) -> Self {
        let rule = mapping.rule(id);
        let cache = rule.and_then(|rule| mapping.cache(rule.cache));
        Names {
            table: rule.map(|rule| mapping.table_name(rule.table)).unwrap_or_default(),
            operation: operation.as_str().to_owned(),
            cache: cache.map(|cache| cache.name.to_string()).unwrap_or_default(),
            rule: mapping.describe(id),
        }
    }
}

fn unix(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
