//! What to change, with the line to write. Pure.
//!
//! A recommendation needs evidence: below [`PRESENT`] events of its kind none is given. And it
//! needs to know: where reads are seen by nobody, nothing is said that rests on there being none.

use std::time::Duration;

use super::assemble::Group;
use super::model::{Cache, Recommendation, Report};
use super::words;
use crate::config::duration::Span;
use crate::config::model::Rewarm;
use crate::mapping::Mapping;
use crate::mapping::model::CacheModel;

/// So many events at the least.
pub(super) const PRESENT: u64 = 20;

/// So many changes for each read are many.
pub(super) const PER_READ: u64 = 10;

/// In percent: nearly all.
const NEARLY_ALL: u64 = 90;

/// How long a busy aggregate may lack a change, if nobody says otherwise.
const STALENESS: Duration = Duration::from_secs(5);

/// No time to live is made longer than this.
const LONGEST_TTL: Duration = Duration::from_secs(24 * 3600);

/// A cache that takes less memory than this is not worth a shorter life.
const MEMORY: u64 = 1 << 20;

/// Of the configuration and the window, what the caches themselves do not tell.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Settings {
    /// `pipeline.max_keys_per_transaction`
    pub(super) max_keys_per_transaction: usize,
    /// `warm.enabled`
    pub(super) warms: bool,
    /// `warm.concurrency`
    pub(super) warm_concurrency: usize,
    /// Entries that were not filled because too many waited.
    pub(super) warm_dropped: u64,
}

pub(super) fn recommendations(
    report: &Report,
    mapping: &Mapping,
    groups: &[Group],
    settings: &Settings,
) -> Vec<Recommendation> {
    let mut all = Vec::new();
    for (_, model) in mapping.caches() {
        let Some(cache) = report.caches.get(&*model.name) else { continue };
        let refresh = refresh(model, groups, settings);
        let in_vain = refresh.is_none().then(|| in_vain(model, cache, settings)).flatten();
        all.extend(refresh.or(in_vain));
        all.extend(longer(model, cache));
        all.extend(shorter(model, cache));
        all.extend(larger(model, cache));
        all.extend(negative(model, cache));
        all.extend(old_values(model, report));
    }
    all.extend(key_limit(report, settings));
    all.extend(workers(settings));
    all.extend(evictions(report));
    all
}

/// What is written where.
struct Line {
    section: String,
    set: Vec<String>,
}

impl Line {
    fn of(cache: &CacheModel, set: Vec<String>) -> Line {
        Line { section: format!("[caches.{}]", cache.name), set }
    }

    fn because(self, kind: &str, cache: Option<&CacheModel>, because: String) -> Recommendation {
        let set: Vec<String> = self.set.iter().map(|line| format!("`{line}`")).collect();
        Recommendation {
            kind: kind.to_owned(),
            cache: cache.map(|cache| cache.name.to_string()),
            organization: None,
            text: format!("{because}: set {}", set.join(", ")),
            because,
            section: Some(self.section),
            set: self.set,
        }
    }
}

/// It changes far more often than it is read, and each time it is computed anew.
fn refresh(model: &CacheModel, groups: &[Group], settings: &Settings) -> Option<Recommendation> {
    // Nobody can list what is under a generation; and nothing is refreshed without warming.
    if model.max_staleness.is_some() || model.generation_key.is_some() || !settings.warms {
        return None;
    }
    let busy = |group: &&Group| {
        group.cache == *model.name
            && group.present >= PRESENT
            && group.reads > 0
            && group.changes >= PER_READ * group.reads
    };
    let mut busy = groups.iter().filter(busy);
    let most = busy.next()?;
    let others = busy.count();
    let staleness = if STALENESS * 2 <= model.ttl { STALENESS } else { model.ttl / 2 };
    if staleness.is_zero() {
        return None;
    }
    let mut set = vec![
        r#"on_change = "refresh""#.to_owned(),
        format!(r#"max_staleness = "{}""#, span(staleness)),
    ];
    if model.rewarm == Rewarm::Never {
        set.push(r#"rewarm = "if_cached""#.to_owned());
    }
    let whose = most.organization.as_ref().map(|id| format!(" for organization {id}"));
    let others = match others {
        0 => String::new(),
        1 => " (and one other)".to_owned(),
        others => format!(" (and {others} others)"),
    };
    let times = most.changes / most.reads;
    let because = format!(
        "`{}`{}{others} is invalidated {times} times between reads",
        model.name,
        whose.unwrap_or_default()
    );
    let told = Line::of(model, set).because("refresh", Some(model), because);
    Some(Recommendation { organization: most.organization.clone(), ..told })
}

/// It is filled again after each change, and nobody reads it before the next.
fn in_vain(model: &CacheModel, cache: &Cache, settings: &Settings) -> Option<Recommendation> {
    if model.rewarm == Rewarm::Never || model.max_staleness.is_some() || !settings.warms {
        return None;
    }
    let died = cache.deaths.invalidated;
    let known = died.read + died.unread;
    if known < PRESENT || died.unread * 100 < known * NEARLY_ALL {
        return None;
    }
    let because = format!(
        "of {known} entries of `{}` that changes removed, {} had been read by nobody, and each was filled again",
        model.name, died.unread
    );
    let set = vec![r#"rewarm = "never""#.to_owned()];
    Some(Line::of(model, set).because("rewarm_never", Some(model), because))
}

/// Entries die of age that people read.
fn longer(model: &CacheModel, cache: &Cache) -> Option<Recommendation> {
    let (deaths, all) = (cache.deaths, cache.deaths.all());
    let mostly = deaths.expired.read * 2 >= all;
    if deaths.expired.read < PRESENT || !mostly || model.ttl >= LONGEST_TTL {
        return None;
    }
    let ttl = (model.ttl * 2).min(LONGEST_TTL);
    let because = format!(
        "{} of {all} entries of `{}` were read and then ended by their time to live, which freshness does not need: a change removes them",
        deaths.expired.read, model.name
    );
    let set = vec![format!(r#"ttl = "{}""#, span(ttl))];
    Some(Line::of(model, set).because("longer_ttl", Some(model), because))
}

/// Entries lie there that nobody reads.
fn shorter(model: &CacheModel, cache: &Cache) -> Option<Recommendation> {
    let died = cache.deaths.expired;
    let known = died.read + died.unread;
    let bytes = cache.memory.and_then(|memory| memory.bytes).unwrap_or_default();
    let ttl = model.ttl / 2;
    let most = died.all() * 100 >= cache.deaths.all() * NEARLY_ALL;
    if known < PRESENT
        || died.unread * 100 < known * NEARLY_ALL
        || !most
        || bytes < MEMORY
        || ttl < Duration::from_secs(1)
        || model.max_staleness.is_some_and(|stays| stays >= ttl)
    {
        return None;
    }
    let because = format!(
        "of {known} entries of `{}` that ended by their time to live, {} had been read by nobody, and it takes {:.1} MiB",
        model.name,
        died.unread,
        mebibytes(bytes)
    );
    let set = vec![format!(r#"ttl = "{}""#, span(ttl))];
    Some(Line::of(model, set).because("shorter_ttl", Some(model), because))
}

/// As the configuration writes it, in whole seconds if there are any.
fn span(time: Duration) -> Span {
    match time.as_secs() {
        0 => Span::milliseconds(u64::from(time.subsec_millis()).max(1)),
        seconds => Span::seconds(seconds),
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn larger(model: &CacheModel, cache: &Cache) -> Option<Recommendation> {
    let refused = cache.fills.get("too_large").copied().unwrap_or_default();
    let limit = model.max_value_bytes.filter(|_| refused >= PRESENT)?;
    let because = format!(
        "{refused} values of `{}` were too large to be stored, so each of their readers cost a query",
        model.name
    );
    let set = vec![format!("max_value_bytes = {}", limit.saturating_mul(2))];
    Some(Line::of(model, set).because("larger_values", Some(model), because))
}

fn negative(model: &CacheModel, cache: &Cache) -> Option<Recommendation> {
    let absent = cache.fills.get("absent").copied().unwrap_or_default();
    if model.negative_ttl.is_some() || absent < PRESENT || absent * 2 < cache.load.count {
        return None;
    }
    let because = format!(
        "{absent} of {} loads of `{}` found nothing, and that was not remembered",
        cache.load.count, model.name
    );
    let ttl = Duration::from_secs(30).min(model.ttl);
    let set = vec![format!(r#"negative_ttl = "{}""#, span(ttl))];
    Some(Line::of(model, set).because("negative_ttl", Some(model), because))
}

fn escalations(report: &Report, cache: &str, reason: &str) -> u64 {
    let by = report.invalidation.whole.get(cache);
    by.and_then(|by| by.get(reason)).copied().unwrap_or_default()
}

fn old_values(model: &CacheModel, report: &Report) -> Option<Recommendation> {
    let times = escalations(report, &model.name, "old_value_unknown");
    (times > 0).then(|| {
        let because = format!(
            "all of `{}` was dropped {} because the stream did not carry a row's old values",
            model.name,
            words::times(times)
        );
        Recommendation {
            kind: "replica_identity".to_owned(),
            cache: Some(model.name.to_string()),
            text: format!("{because}: `unstale check` prints the ALTER TABLE that is missing"),
            because,
            ..Recommendation::default()
        }
    })
}

fn key_limit(report: &Report, settings: &Settings) -> Option<Recommendation> {
    let whole = report.invalidation.whole.values();
    let times: u64 = whole.filter_map(|by| by.get("key_limit")).sum();
    (times > 0).then(|| {
        let because = format!(
            "whole caches were dropped {} because a transaction reached too many keys",
            words::times(times)
        );
        let limit = settings.max_keys_per_transaction.saturating_mul(2);
        let set = vec![format!("max_keys_per_transaction = {limit}")];
        Line { section: "[pipeline]".to_owned(), set }.because("key_limit", None, because)
    })
}

fn workers(settings: &Settings) -> Option<Recommendation> {
    (settings.warm_dropped > 0).then(|| {
        let because = format!(
            "{} entries were not filled again because too many waited",
            settings.warm_dropped
        );
        let set = vec![format!("concurrency = {}", settings.warm_concurrency.saturating_mul(2))];
        Line { section: "[warm]".to_owned(), set }.because("warm_concurrency", None, because)
    })
}

fn evictions(report: &Report) -> Option<Recommendation> {
    let evicted = report.redis.as_ref()?.evicted_keys.filter(|evicted| *evicted > 0)?;
    let because = format!("Redis has thrown out {evicted} keys because its memory was full");
    Some(Recommendation {
        kind: "redis_memory".to_owned(),
        text: format!(
            "{because}: raise its maxmemory; under a policy allkeys-… it may throw out the daemon's state as well, which costs everything"
        ),
        because,
        ..Recommendation::default()
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::model::{Latency, Memory};
    use super::*;
    use crate::config::Layers;
    use crate::observed::lives::{Deaths, Fates};
    use proptest::prelude::*;

    pub(in crate::report) fn mapping() -> Mapping {
        let toml = r#"
            [postgres]
            url = "postgres://h/d"
            [redis]
            url = "redis://h"
            key_prefix = "p:"
            [caches.org]
            key = "org:{org_id}"
            ttl = "1h"
            max_value_bytes = 1000
            [caches.stats]
            key = "stats:{org_id}:{days}"
            parameters = { days = [7, 30] }
            query = "select '1'::json where $org_id::int > $days::int"
            ttl = "15m"
            rewarm = "if_cached"
            [caches.fresh]
            key = "fresh:{org_id}"
            query = "select '1'::json where $org_id::int > 0"
            rewarm = "if_cached"
            on_change = "refresh"
            max_staleness = "1s"
            [caches.search]
            key = "search:{org_id}:{generation}:{q}"
            scope = ["org_id"]
        "#;
        Mapping::new(&Layers::text("test.toml", toml).load().unwrap().config).unwrap()
    }

    const SETTINGS: Settings = Settings {
        max_keys_per_transaction: 1000,
        warms: true,
        warm_concurrency: 2,
        warm_dropped: 0,
    };

    fn report(change: impl FnOnce(&mut Report)) -> Report {
        let mut report = Report::default();
        for name in ["org", "stats", "fresh", "search"] {
            report.caches.insert(name.to_owned(), Cache::default());
        }
        change(&mut report);
        report
    }

    fn group(cache: &str, id: &str, changes: u64, present: u64, reads: u64) -> Group {
        let organization = Some(id.to_owned());
        Group { cache: cache.to_owned(), organization, changes, present, reads }
    }

    fn texts(report: &Report, groups: &[Group], settings: &Settings) -> Vec<String> {
        let all = recommendations(report, &mapping(), groups, settings);
        all.into_iter().map(|recommendation| recommendation.text).collect()
    }

    #[test]
    fn what_changes_more_often_than_it_is_read_is_to_be_refreshed() {
        let refreshed = |text: &str| vec![text.to_owned()];
        let stats = r#"is invalidated 40 times between reads: set `on_change = "refresh"`, `max_staleness = "5s"`"#;
        let many = r#"is invalidated 20 times between reads: set `on_change = "refresh"`, `max_staleness = "5s"`, `rewarm = "if_cached"`"#;
        for (groups, expected) in [
            (
                vec![group("stats", "7", 80, 80, 2)],
                refreshed(&format!("`stats` for organization 7 {stats}")),
            ),
            (
                vec![
                    group("stats", "7", 80, 80, 2),
                    group("stats", "8", 70, 70, 1),
                    group("stats", "9", 70, 70, 70),
                ],
                refreshed(&format!("`stats` for organization 7 (and one other) {stats}")),
            ),
            (
                vec![group("org", "7", 600, 30, 30)],
                refreshed(&format!("`org` for organization 7 {many}")),
            ),
            // Read often enough.
            (vec![group("stats", "7", 80, 80, 9)], vec![]),
            // Nobody knows of any reads.
            (vec![group("stats", "7", 80, 80, 0)], vec![]),
            // Little evidence; it was hardly ever there.
            (vec![group("stats", "7", 19, 19, 1)], vec![]),
            (vec![group("stats", "7", 80, 19, 1)], vec![]),
            // It is refreshed, or cannot be.
            (vec![group("fresh", "7", 80, 80, 2), group("search", "7", 80, 80, 2)], vec![]),
        ] {
            assert_eq!(texts(&report(|_| {}), &groups, &SETTINGS), expected, "{groups:?}");
        }
        let cold = Settings { warms: false, ..SETTINGS };
        assert!(texts(&report(|_| {}), &[group("stats", "7", 80, 80, 2)], &cold).is_empty());
        let all = recommendations(
            &report(|_| {}),
            &mapping(),
            &[group("stats", "7", 80, 80, 2)],
            &SETTINGS,
        );
        assert_eq!(all[0].section.as_deref(), Some("[caches.stats]"));
        assert_eq!(all[0].set, [r#"on_change = "refresh""#, r#"max_staleness = "5s""#]);
        assert_eq!(
            (all[0].cache.as_deref(), all[0].organization.as_deref()),
            (Some("stats"), Some("7"))
        );
    }

    fn died(cache: &str, deaths: Deaths, bytes: u64) -> Report {
        report(|report| {
            let cache = report.caches.get_mut(cache).unwrap();
            cache.deaths = deaths;
            cache.memory = Some(Memory { bytes: Some(bytes), ..Memory::default() });
        })
    }

    fn fates(read: u64, unread: u64, unknown: u64) -> Fates {
        Fates { read, unread, unknown }
    }

    fn kinds(report: &Report, settings: &Settings) -> Vec<(String, Vec<String>)> {
        let all = recommendations(report, &mapping(), &[], settings);
        all.into_iter().map(|r| (r.kind, r.set)).collect()
    }

    #[test]
    fn how_entries_die_says_how_long_they_should_live() {
        let invalidated = |invalidated| Deaths { invalidated, ..Deaths::default() };
        let expired = |expired| Deaths { expired, ..Deaths::default() };
        let large = MEMORY;
        for (cache, deaths, bytes, expected) in [
            (
                "stats",
                invalidated(fates(2, 18, 0)),
                0,
                Some(("rewarm_never", r#"rewarm = "never""#)),
            ),
            ("stats", invalidated(fates(3, 17, 0)), 0, None),
            ("stats", invalidated(fates(0, 19, 100)), 0, None),
            ("org", invalidated(fates(0, 100, 0)), 0, None),
            ("fresh", invalidated(fates(0, 100, 0)), 0, None),
            ("org", expired(fates(20, 20, 0)), 0, Some(("longer_ttl", r#"ttl = "2h""#))),
            ("org", expired(fates(20, 21, 0)), 0, None),
            ("org", expired(fates(19, 0, 0)), 0, None),
            ("stats", expired(fates(2, 18, 5)), large, Some(("shorter_ttl", r#"ttl = "7m 30s""#))),
            ("stats", expired(fates(2, 18, 5)), large - 1, None),
            ("stats", expired(fates(3, 17, 5)), large, None),
            (
                "stats",
                Deaths {
                    expired: fates(0, 20, 0),
                    invalidated: fates(10, 0, 0),
                    ..Deaths::default()
                },
                large,
                None,
            ),
        ] {
            let expected: Vec<(String, Vec<String>)> = expected
                .map(|(kind, set)| (kind.to_owned(), vec![set.to_owned()]))
                .into_iter()
                .collect();
            assert_eq!(
                kinds(&died(cache, deaths, bytes), &SETTINGS),
                expected,
                "{cache} {deaths:?}"
            );
        }
    }

    #[test]
    fn other_settings_are_named_where_they_would_help_and_not_elsewhere() {
        type Case =
            (fn(&mut Report, &mut Settings), Option<(&'static str, &'static [&'static str])>);
        fn org(report: &mut Report) -> &mut Cache {
            report.caches.get_mut("org").unwrap()
        }
        fn whole(report: &mut Report, reason: &str) {
            report.invalidation.whole.insert("org".into(), [(reason.to_owned(), 3)].into());
        }
        let cases: [Case; 10] = [
            (|_, _| {}, None),
            (
                |r, _| _ = org(r).fills.insert("too_large".into(), 20),
                Some(("larger_values", &["max_value_bytes = 2000"])),
            ),
            (|r, _| _ = org(r).fills.insert("too_large".into(), 19), None),
            (
                |r, _| {
                    _ = org(r).fills.insert("absent".into(), 20);
                    org(r).load = Latency { count: 40, ..Latency::default() };
                },
                Some(("negative_ttl", &[r#"negative_ttl = "30s""#])),
            ),
            (
                |r, _| {
                    _ = org(r).fills.insert("absent".into(), 20);
                    org(r).load = Latency { count: 41, ..Latency::default() };
                },
                None,
            ),
            (|r, _| whole(r, "old_value_unknown"), Some(("replica_identity", &[]))),
            (
                |r, _| whole(r, "key_limit"),
                Some(("key_limit", &["max_keys_per_transaction = 2000"])),
            ),
            (|r, _| whole(r, "truncate"), None),
            (|_, s| s.warm_dropped = 1, Some(("warm_concurrency", &["concurrency = 4"]))),
            (
                |r, _| {
                    r.redis = Some(super::super::model::Redis {
                        evicted_keys: Some(1),
                        ..Default::default()
                    })
                },
                Some(("redis_memory", &[])),
            ),
        ];
        for (n, (change, expected)) in cases.into_iter().enumerate() {
            let (mut report, mut settings) = (report(|_| {}), SETTINGS);
            change(&mut report, &mut settings);
            let found = kinds(&report, &settings);
            let found: Vec<(&str, Vec<&str>)> = found
                .iter()
                .map(|(kind, set)| (kind.as_str(), set.iter().map(String::as_str).collect()))
                .collect();
            let expected: Vec<_> =
                expected.map(|(kind, set)| (kind, set.to_vec())).into_iter().collect();
            assert_eq!(found, expected, "case {n}");
        }
    }

    proptest! {
        /// What is recommended is something that the configuration takes.
        #[test]
        fn whatever_was_counted_the_lines_can_be_written(
            read in 0u64..200, unread in 0u64..200, present in 0u64..1000, reads in 0u64..50,
            fills in 0u64..100,
        ) {
            let mut report = died("stats", Deaths {
                expired: fates(read, unread, 0), invalidated: fates(reads, unread, 0), ..Deaths::default()
            }, 10 * MEMORY);
            for cache in report.caches.values_mut() {
                cache.fills = [("too_large".to_owned(), fills), ("absent".to_owned(), fills)].into();
                cache.load.count = fills;
            }
            let groups = [group("stats", "1", present, present, reads), group("org", "1", present, present, reads)];
            let all = recommendations(&report, &mapping(), &groups, &SETTINGS);
            for recommendation in all.iter().filter(|r| !r.set.is_empty()) {
                let section = recommendation.section.clone().unwrap();
                let query = "query = \"select '1'::json where $org_id::int > 0\"";
                let key = "key = \"k:{org_id}\"";
                let mut lines = recommendation.set.join("\n");
                for needed in ["rewarm = \"if_cached\""] {
                    if lines.contains("refresh") && !lines.contains("rewarm") {
                        lines.push_str(&format!("\n{needed}"));
                    }
                }
                let toml = format!(
                    "[postgres]\nurl = \"postgres://h/d\"\n[redis]\nurl = \"redis://h\"\nkey_prefix = \"p:\"\n{section}\n{key}\n{query}\n{lines}\n"
                );
                let loaded = Layers::text("test.toml", &toml).load();
                prop_assert!(loaded.is_ok(), "{toml}");
            }
        }
    }
}
