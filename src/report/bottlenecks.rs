//! What holds things up. Pure.

use super::assemble::{Group, rate};
use super::model::{Finding, Report};
use super::recommend::{PER_READ, PRESENT, Settings};
use super::words::times;
use crate::mapping::Mapping;

/// A cache whose loads take this part of the time of all loads.
const SHARE_OF_LOADS: f64 = 0.5;

/// Below so many seconds of loads within a window their shares do not matter.
const LOAD_SECONDS: f64 = 1.0;

/// Nor if they are less than this part of it.
const SHARE_OF_WINDOW: f64 = 0.01;

/// A load or an invalidation that one in a hundred takes longer than, in milliseconds.
const SLOW_MS: f64 = 1000.0;

/// A transaction that reaches more keys than this.
const MANY_KEYS: u64 = 10_000;

/// This part of the loads is overtaken by changes.
const OVERTAKEN: f64 = 0.2;

/// Below so many a part says little.
const ENOUGH: u64 = 20;

/// This part of Redis' memory is used.
const FULL: f64 = 0.9;

/// This part of the reads is not served by the cache, or not at all.
const NOT_SERVED: f64 = 0.01;

pub(super) fn bottlenecks(
    report: &Report,
    mapping: &Mapping,
    groups: &[Group],
    settings: &Settings,
) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut add = |kind: &str, cache: Option<&str>, text: String| {
        let cache = cache.map(str::to_owned);
        found.push(Finding { kind: kind.to_owned(), cache, text });
    };
    let invalidation = &report.invalidation;
    for (reason, dropped) in &invalidation.gaps {
        add(
            "gap",
            None,
            format!("everything was dropped {} ({reason}): see docs/RUNBOOK.md", times(*dropped)),
        );
    }
    if let Some(p99) = invalidation.commit_to_invalidated.p99_ms.filter(|ms| *ms >= SLOW_MS) {
        add(
            "slow_invalidation",
            None,
            format!(
                "one change in a hundred takes longer than {:.1} s from its commit until Redis has it",
                p99 / 1000.0
            ),
        );
    }
    let long = invalidation.inconsistent.over_1m;
    if long > 0 {
        add(
            "inconsistent_long",
            None,
            format!("{long} entries were inconsistent for longer than a minute"),
        );
    }
    if let Some(largest) = invalidation.largest.as_ref().filter(|l| l.keys >= MANY_KEYS) {
        add(
            "large_fan_out",
            None,
            format!(
                "the transaction {} (commit ends at {}) reached {} keys",
                largest.xid, largest.lsn, largest.keys
            ),
        );
    }
    for (cache, reasons) in &invalidation.whole {
        let reasons: Vec<String> = reasons.iter().map(|(why, n)| format!("{why}: {n}")).collect();
        let reasons = reasons.join(", ");
        add(
            "whole_cache_dropped",
            Some(cache),
            format!("all of `{cache}` was dropped ({reasons})"),
        );
    }
    loads(report, &mut add);
    if settings.warm_dropped > 0 {
        add(
            "warm_queue_full",
            None,
            format!(
                "{} entries were not filled again because too many waited",
                settings.warm_dropped
            ),
        );
    }
    for (what, some) in
        [("past the cache", report.reads.bypasses), ("not at all", report.reads.errors)]
    {
        let reads = &report.reads;
        let all = reads.held + reads.hits + reads.misses + reads.bypasses + reads.errors;
        if let Some(part) = rate(some, all).filter(|part| *part >= NOT_SERVED && all >= ENOUGH) {
            add(
                "not_served",
                None,
                format!("{:.0} % of the reads were answered {what}", part * 100.0),
            );
        }
    }
    if let Some(redis) = &report.redis
        && let (Some(used), Some(most)) = (redis.used_memory, redis.maxmemory)
        && let Some(part) = rate(used, most).filter(|part| *part >= FULL)
    {
        add("redis_full", None, format!("Redis uses {:.0} % of its maxmemory", part * 100.0));
    }
    let mut told = Vec::new();
    for group in groups {
        let scoped = mapping
            .cache_by_name(&group.cache)
            .is_some_and(|(_, cache)| cache.generation_key.is_some());
        let busy =
            group.present >= PRESENT && group.reads > 0 && group.changes >= PER_READ * group.reads;
        // Of the organizations the busiest comes first, and stands for all.
        if scoped && busy && !told.contains(&&group.cache) {
            told.push(&group.cache);
            let of = group.organization.as_ref().map(|id| format!(" of organization {id}"));
            let of = of.unwrap_or_default();
            add(
                "scope_busy",
                Some(&group.cache),
                format!(
                    "all of `{}`{of} was made void {} and read {}: name in its rules the `columns` that its query reads",
                    group.cache,
                    times(group.changes),
                    times(group.reads)
                ),
            );
        }
    }
    found
}

fn loads(report: &Report, add: &mut impl FnMut(&str, Option<&str>, String)) {
    let seconds = |count: u64, mean: Option<f64>| as_float(count) * mean.unwrap_or(0.0) / 1000.0;
    let caches = || report.caches.iter().filter(|(_, cache)| !cache.composed);
    let all: f64 = caches().map(|(_, cache)| seconds(cache.load.count, cache.load.mean_ms)).sum();
    let least = LOAD_SECONDS.max(SHARE_OF_WINDOW * as_float(report.window.seconds));
    for (name, cache) in caches() {
        let own = seconds(cache.load.count, cache.load.mean_ms);
        if all >= least && own >= SHARE_OF_LOADS * all && caches().count() > 1 {
            add(
                "load_share",
                Some(name),
                format!(
                    "`{name}` takes {:.0} % of the time of all loads: {} loads of {:.1} ms",
                    own / all * 100.0,
                    cache.load.count,
                    cache.load.mean_ms.unwrap_or(0.0)
                ),
            );
        }
        if let Some(p99) = cache.load.p99_ms.filter(|ms| *ms >= SLOW_MS) {
            add(
                "slow_load",
                Some(name),
                format!(
                    "one load of `{name}` in a hundred takes longer than {:.1} s",
                    p99 / 1000.0
                ),
            );
        }
        let outcome = |name: &str| cache.fills.get(name).copied().unwrap_or_default();
        let (stored, voided) = (outcome("stored"), outcome("voided"));
        if let Some(part) =
            rate(voided, stored + voided).filter(|part| *part >= OVERTAKEN && voided >= ENOUGH)
        {
            add(
                "overtaken",
                Some(name),
                format!(
                    "{:.0} % of the values of `{name}` were out of date before they could be stored: it changes faster than it loads",
                    part * 100.0
                ),
            );
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a count of loads")]
fn as_float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::super::model::{Cache, Inconsistent, Largest, Latency, Reads, Redis};
    use super::super::recommend::tests::mapping;
    use super::*;

    #[test]
    fn each_bottleneck_is_found_and_none_where_all_is_well() {
        type Case =
            (&'static str, Option<&'static str>, fn(&mut Report, &mut Settings, &mut Group));
        let cases: [Case; 13] = [
            ("gap", None, |r, _, _| _ = r.invalidation.gaps.insert("no_state".into(), 1)),
            ("slow_invalidation", None, |r, _, _| {
                r.invalidation.commit_to_invalidated.p99_ms = Some(1000.0)
            }),
            ("inconsistent_long", None, |r, _, _| {
                r.invalidation.inconsistent = Inconsistent { over_1m: 1, ..Inconsistent::default() }
            }),
            ("large_fan_out", None, |r, _, _| {
                r.invalidation.largest = Some(Largest { keys: 10_000, ..Largest::default() })
            }),
            ("whole_cache_dropped", Some("stats"), |r, _, _| {
                _ = r.invalidation.whole.insert("stats".into(), [("truncate".to_owned(), 1)].into())
            }),
            ("load_share", Some("stats"), |r, _, _| {
                stats(r).load = Latency { count: 100, mean_ms: Some(20.0), ..Latency::default() }
            }),
            ("slow_load", Some("stats"), |r, _, _| {
                stats(r).load = Latency {
                    count: 1,
                    mean_ms: Some(5.0),
                    p99_ms: Some(1000.0),
                    ..Latency::default()
                }
            }),
            ("overtaken", Some("stats"), |r, _, _| {
                stats(r).fills = [("stored".to_owned(), 80), ("voided".to_owned(), 20)].into()
            }),
            ("warm_queue_full", None, |_, s, _| s.warm_dropped = 1),
            ("not_served", None, |r, _, _| {
                r.reads = Reads { hits: 99, bypasses: 1, ..Reads::default() }
            }),
            ("not_served", None, |r, _, _| {
                r.reads = Reads { hits: 99, errors: 1, ..Reads::default() }
            }),
            ("redis_full", None, |r, _, _| {
                r.redis =
                    Some(Redis { used_memory: Some(90), maxmemory: Some(100), ..Redis::default() })
            }),
            ("scope_busy", Some("search"), |_, _, g| {
                *g = Group {
                    cache: "search".into(),
                    organization: Some("7".into()),
                    changes: 20,
                    present: 20,
                    reads: 2,
                }
            }),
        ];
        let mapping = mapping();
        let run = |report: &Report, settings: &Settings, group: &Group| {
            bottlenecks(report, &mapping, std::slice::from_ref(group), settings)
        };
        let well = || {
            let mut report = Report {
                reads: Reads { hits: 1000, misses: 10, ..Reads::default() },
                ..Report::default()
            };
            for name in ["org", "stats"] {
                let load = Latency {
                    count: 100,
                    mean_ms: Some(1.0),
                    p50_ms: Some(1.0),
                    p99_ms: Some(2.0),
                };
                report.caches.insert(name.into(), Cache { load, ..Cache::default() });
            }
            (
                report,
                Settings::default(),
                Group { cache: "search".into(), changes: 1000, reads: 1, ..Group::default() },
            )
        };
        let (report, settings, group) = well();
        assert_eq!(run(&report, &settings, &group), []);
        for (kind, cache, change) in cases {
            let (mut report, mut settings, mut group) = well();
            change(&mut report, &mut settings, &mut group);
            let found = run(&report, &settings, &group);
            let found: Vec<_> = found.iter().map(|f| (&*f.kind, f.cache.as_deref())).collect();
            assert_eq!(found, [(kind, cache)]);
        }
    }

    fn stats(report: &mut Report) -> &mut Cache {
        report.caches.get_mut("stats").unwrap()
    }
}
