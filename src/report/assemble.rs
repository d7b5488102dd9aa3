//! Putting a report together. Pure: everything that it needs has been asked.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::bottlenecks::bottlenecks;
use super::model::{
    Begins, Cache, Changes, Coverage, Daemon, FORMAT, HotKey, Inconsistent, Invalidated,
    Invalidation, Largest, Latency, Memory, Reads, Redis, Report, Rule, Window,
};
use super::names::shown;
use super::recommend::{Settings, recommendations};
use super::regressions::{baseline, points, regressions};
use super::standing::Standing;
use crate::manage::survey::Held;
use crate::mapping::Mapping;
use crate::mapping::model::CacheId;
use crate::moment::Moment;
use crate::observed::Patterns;

/// How many rules and keys are told.
const TOLD: usize = 20;

/// What a report is made of.
pub(super) struct Material<'a> {
    pub(super) id: String,
    pub(super) daemon: Daemon,
    pub(super) from: Moment,
    pub(super) to: Moment,
    pub(super) begins: Begins,
    /// By these rules.
    pub(super) mapping: &'a Mapping,
    pub(super) settings: Settings,
    /// Whether the read API serves.
    pub(super) serves: bool,
    /// What was added to the metrics within the window.
    pub(super) since: &'a Standing,
    pub(super) patterns: &'a Patterns,
    /// How long these were counted.
    pub(super) counted_for: Duration,
    /// Why Redis does not say what is read straight from it.
    pub(super) blind: Option<String>,
    pub(super) held: BTreeMap<CacheId, Held>,
    pub(super) redis: Redis,
    /// Or why it is not known.
    pub(super) coverage: Result<Coverage, String>,
    /// The reports before, the newest first.
    pub(super) history: &'a [Report],
}

pub(super) fn assemble(material: Material<'_>) -> Report {
    let time = |at: SystemTime| humantime::format_rfc3339_seconds(at).to_string();
    let window = Window {
        from: time(material.from.wall()),
        to: time(material.to.wall()),
        seconds: material.to.since(material.from).as_secs(),
        begins: material.begins,
    };
    let before = material.history.first();
    let mut report = Report {
        format: FORMAT,
        id: material.id.clone(),
        made_at: time(material.to.wall()),
        daemon: material.daemon.clone(),
        window,
        compared_with: before.map(|before| before.id.clone()),
        reads: reads(material.since, None, before.map(|before| &before.reads)),
        caches: caches(&material),
        redis: Some(material.redis.clone()),
        invalidation: invalidation(&material),
        unknown: unknown(&material),
        ..Report::default()
    };
    report.coverage = material.coverage.ok();
    let groups = groups(material.mapping, material.patterns);
    report.regressions = regressions(&report, material.history);
    report.bottlenecks = bottlenecks(&report, material.mapping, &groups, &material.settings);
    report.recommendations =
        recommendations(&report, material.mapping, &groups, &material.settings);
    report
}

fn reads(since: &Standing, cache: Option<&str>, before: Option<&Reads>) -> Reads {
    let count = |result| {
        let mut labels = vec![("result", result)];
        labels.extend(cache.map(|cache| ("cache", cache)));
        since.count("cache_reads_total", &labels)
    };
    let (held, hits, misses) = (count("held"), count("hit"), count("miss"));
    let (bypasses, errors) = (count("bypass"), count("error"));
    let all = held + hits + misses + bypasses + errors;
    let hit_rate = rate(held + hits, all);
    let hit_rate_before = before.and_then(|before| before.hit_rate);
    Reads {
        held,
        hits,
        misses,
        bypasses,
        errors,
        hit_rate,
        miss_rate: rate(misses, all),
        hit_rate_before,
        hit_rate_points: hit_rate.zip(hit_rate_before).map(|(now, then)| points(now, then)),
    }
}

/// A part of one.
#[expect(clippy::cast_precision_loss, reason = "a rate")]
pub(super) fn rate(some: u64, all: u64) -> Option<f64> {
    (all > 0).then(|| some as f64 / all as f64)
}

fn caches(material: &Material<'_>) -> BTreeMap<String, Cache> {
    let Material { mapping, since, history, .. } = material;
    let before = history.first();
    let mut caches = BTreeMap::new();
    for (id, model) in mapping.caches() {
        let name = &*model.name;
        let labels = [("cache", name)];
        let mut cache = of_reads(since, name, before);
        cache.ttl_seconds = model.ttl.as_secs();
        cache.load = (&since.times("load_seconds", &labels)).into();
        cache.load_baseline_ms = baseline(name, history);
        cache.fills = since.by("fills_total", "outcome", &labels);
        cache.memory = material.held.get(&id).map(|held| memory(held, name, material));
        cache.invalidated = Invalidated {
            keys: since.count("invalidations_total", &labels),
            present: since.count("invalidated_present_total", &labels),
        };
        cache.inconsistent = Inconsistent::from(&since.times("inconsistent_seconds", &labels));
        cache.deaths = material.patterns.deaths.get(&id).copied().unwrap_or_default();
        caches.insert(name.to_owned(), cache);
    }
    for composition in mapping.compositions() {
        let ttl_seconds = composition.ttl.as_secs();
        caches.entry(composition.name.to_string()).or_insert_with(|| Cache {
            composed: true,
            ttl_seconds,
            ..of_reads(since, &composition.name, before)
        });
    }
    caches
}

fn of_reads(since: &Standing, name: &str, before: Option<&Report>) -> Cache {
    let before = before.and_then(|before| before.caches.get(name));
    let times = |result| since.times("cache_read_seconds", &[("cache", name), ("result", result)]);
    let (hit, miss) = (times("hit"), times("miss"));
    let speedup = match (hit.mean(), miss.mean()) {
        (Some(hit), Some(miss)) if hit > 0.0 => Some(miss / hit),
        _ => None,
    };
    Cache {
        reads: reads(since, Some(name), before.map(|before| &before.reads)),
        hit: (&hit).into(),
        miss: (&miss).into(),
        speedup,
        ..Cache::default()
    }
}

fn memory(held: &Held, name: &str, material: &Material<'_>) -> Memory {
    let before = material.history.first();
    let then = before.and_then(|before| before.caches.get(name)?.memory);
    let bytes_growth = held.bytes.zip(then.and_then(|then| then.bytes)).map(|(n, t)| growth(n, t));
    let made = before.and_then(|before| humantime::parse_rfc3339(&before.made_at).ok());
    let hours = made
        .and_then(|made| material.to.wall().duration_since(made).ok())
        .map(|since| since.as_secs_f64() / 3600.0)
        .filter(|hours| *hours > 0.0);
    Memory {
        keys: held.keys,
        bytes: held.bytes,
        keys_growth: then.map(|then| growth(held.keys, then.keys)),
        bytes_growth,
        bytes_growth_per_hour: bytes_growth.zip(hours).map(|(growth, hours)| per(growth, hours)),
    }
}

fn growth(now: u64, then: u64) -> i64 {
    let grown = i128::from(now) - i128::from(then);
    i64::try_from(grown).unwrap_or(if grown < 0 { i64::MIN } else { i64::MAX })
}

#[expect(clippy::cast_precision_loss, reason = "a rate")]
fn per(growth: i64, hours: f64) -> f64 {
    growth as f64 / hours
}

fn invalidation(material: &Material<'_>) -> Invalidation {
    let Material { mapping, since, patterns, .. } = material;
    let mut changes: Vec<Changes> = Vec::new();
    for (table, rows) in since.by("changes_total", "table", &[]) {
        let by = since.by("changes_total", "op", &[("table", &table)]);
        if rows > 0 {
            changes.push(Changes { table, rows: by });
        }
    }
    changes.sort_by_key(|changes| std::cmp::Reverse(changes.rows.values().sum::<u64>()));
    changes.truncate(TOLD);
    let mut rules: Vec<Rule> = patterns
        .rules
        .iter()
        .filter_map(|(id, reached)| {
            let rule = mapping.rule(*id)?;
            Some(Rule {
                rule: mapping.describe(*id),
                table: mapping.table_name(rule.table),
                cache: mapping.cache(rule.cache)?.name.to_string(),
                keys: reached.keys,
                present: reached.present,
            })
        })
        .collect();
    rules.sort_by_key(|rule| std::cmp::Reverse(rule.keys));
    rules.truncate(TOLD);
    let mut whole = BTreeMap::new();
    for cache in since.by("escalations_total", "cache", &[]).into_keys() {
        let by = since.by("escalations_total", "reason", &[("cache", &cache)]);
        whole.insert(cache, by);
    }
    Invalidation {
        transactions: since.count("transactions_total", &[]),
        commit_to_invalidated: Latency::from(&since.times("commit_to_invalidated_seconds", &[])),
        inconsistent: Inconsistent::from(&since.times("inconsistent_seconds", &[])),
        counted_for_seconds: material.counted_for.as_secs(),
        changes,
        rules,
        hot_keys: hot_keys(mapping, patterns),
        fan_out: patterns.fan_out.told(),
        largest: patterns.fan_out.largest.map(|largest| Largest {
            keys: largest.keys,
            lsn: largest.lsn.to_string(),
            xid: largest.xid,
        }),
        whole,
        gaps: since.by("gaps_total", "reason", &[]),
    }
}

fn hot_keys(mapping: &Mapping, patterns: &Patterns) -> Vec<HotKey> {
    let error = patterns.hot.error();
    let mut hot: Vec<_> = patterns.hot.iter().filter(|(_, counter)| counter.count > 1).collect();
    hot.sort_by_key(|(key, counter)| {
        (std::cmp::Reverse((counter.count, counter.beside.present)), key.to_vec())
    });
    hot.truncate(TOLD);
    let told = hot.into_iter().filter_map(|(key, counter)| {
        let origin = counter.beside.origin;
        Some(HotKey {
            key: shown(key),
            cache: mapping.cache(origin.cache)?.name.to_string(),
            organization: organization(mapping, origin.cache, key),
            changes: counter.count,
            changes_at_most: counter.count.saturating_add(error),
            present: counter.beside.present,
            reads: counter.beside.reads,
            rule: mapping.describe(origin.rule),
        })
    });
    told.collect()
}

/// Whose a key is, if it says so.
fn organization(mapping: &Mapping, cache: CacheId, key: &[u8]) -> Option<String> {
    let parsed = mapping.cache(cache)?.parse_key(key)?;
    let mut parameters = parsed.parameters.into_iter();
    let (_, id) = parameters.find(|(name, _)| *name == mapping.organization_parameter())?;
    Some(shown(&id))
}

/// How often the entries of one organization in one cache were changed and read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) cache: String,
    pub(super) organization: Option<String>,
    /// Of the entry that was changed most often: one change reaches those of 7, 30 and 90 days
    /// alike.
    pub(super) changes: u64,
    /// Of the entry that was there most often.
    pub(super) present: u64,
    /// Of all of them.
    pub(super) reads: u64,
}

/// Those that are known to be changed often, the busiest first.
fn groups(mapping: &Mapping, patterns: &Patterns) -> Vec<Group> {
    let mut groups: BTreeMap<(CacheId, Option<String>), Group> = BTreeMap::new();
    for (key, counter) in patterns.hot.iter() {
        let id = counter.beside.origin.cache;
        let Some(cache) = mapping.cache(id) else { continue };
        let organization = organization(mapping, id, key);
        let group = groups.entry((id, organization.clone())).or_insert_with(|| Group {
            cache: cache.name.to_string(),
            organization,
            ..Group::default()
        });
        group.changes = group.changes.max(counter.count);
        group.present = group.present.max(counter.beside.present);
        group.reads = group.reads.saturating_add(counter.beside.reads);
    }
    let mut groups: Vec<Group> = groups.into_values().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.changes));
    groups
}

fn unknown(material: &Material<'_>) -> Vec<String> {
    let mut unknown = Vec::new();
    if material.begins == Begins::Start {
        unknown.push(
            "what was before the daemon's last start: it counts in memory, and has kept no report since"
                .to_owned(),
        );
    }
    unknown.push(if material.serves {
        "reads straight from Redis: hit rates and latencies are those of the read API".to_owned()
    } else {
        "hit rates and latencies of reads: the read API serves nothing ([api] enabled, [[endpoints]]), and reads straight from Redis are seen by nobody"
            .to_owned()
    });
    unknown.push(match &material.blind {
        None => "of entries that lived for less than ten seconds: whether anybody but the read API read them".to_owned(),
        Some(reason) => format!("which entries were read straight from Redis before they died: {reason}"),
    });
    if material.held.values().any(|held| held.bytes.is_none()) {
        unknown.push("memory by cache: grant +memory|usage to the Redis user".to_owned());
    }
    if let Err(reason) = &material.coverage {
        unknown.push(format!("coverage: {reason}"));
    }
    unknown
}
