//! A report for people at a terminal. What it holds has no control characters
//! ([`crate::report::names`]).

use crate::cli::output::line;
use crate::cli::table::Table;
use crate::report::html::{answers, died, has_died, memory, removed, totals, was_changed};
use crate::report::model::{Begins, Finding, Invalidation, Report};
use crate::report::words::{amount, bytes, ms, part, percent, seconds, signed_points};

pub(super) fn print(report: &Report) {
    header(report);
    let all = report.recommendations.iter();
    let told: Vec<String> = all
        .map(|recommendation| match &recommendation.section {
            Some(section) => format!("{} (in {section})", recommendation.text),
            None => recommendation.text.clone(),
        })
        .collect();
    list("to change", "nothing", told);
    list("worse than before", "nothing", texts(&report.regressions));
    list("bottlenecks", "none", texts(&report.bottlenecks));
    caches(report);
    coverage(report);
    changes(&report.invalidation);
    list("not known", "nothing", report.unknown.clone());
}

fn texts(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(|finding| finding.text.clone()).collect()
}

fn header(report: &Report) {
    let window = &report.window;
    let begins = match window.begins {
        Begins::Report => "since the report before",
        Begins::Start => "since the daemon's start; what was before is not in it",
    };
    let (keys, memory) = totals(report);
    let reads = &report.reads;
    let all = reads.held + reads.hits + reads.misses + reads.bypasses + reads.errors;
    let invalidation = &report.invalidation;
    let against = match reads.hit_rate_points {
        Some(points) => format!(", {} against the report before", signed_points(Some(points))),
        None => String::new(),
    };
    for (name, text) in [
        ("report", report.id.clone()),
        (
            "about",
            format!("{} to {} ({}, {begins})", window.from, window.to, seconds(window.seconds)),
        ),
        ("hit rate", format!("{} of {all} reads by the API{against}", percent(reads.hit_rate))),
        (
            "entries",
            format!("{keys}, {}", memory.map_or_else(|| "memory not known".to_owned(), bytes)),
        ),
        (
            "applied",
            format!(
                "{} transactions, p99 from commit to removal {}",
                invalidation.transactions,
                ms(invalidation.commit_to_invalidated.p99_ms)
            ),
        ),
        (
            "inconsistent",
            format!(
                "p50 {}, p99 {}, {} entries over 1 s, {} over 1 min",
                ms(invalidation.inconsistent.latency.p50_ms),
                ms(invalidation.inconsistent.latency.p99_ms),
                invalidation.inconsistent.over_1s,
                invalidation.inconsistent.over_1m
            ),
        ),
    ] {
        line(&format!("{name:<12} {text}"));
    }
}

fn list(heading: &str, none: &str, all: Vec<String>) {
    line("");
    if all.is_empty() {
        return line(&format!("{heading}: {none}"));
    }
    line(&format!("{heading}:"));
    for text in all {
        line(&format!("- {text}"));
    }
}

fn table(heading: &str, head: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return;
    }
    line("");
    line(heading);
    let mut table = Table::new(head);
    rows.for_each(|row| table.row(row));
    table.print();
}

fn caches(report: &Report) {
    let own = || report.caches.iter().filter(|(_, cache)| !cache.composed);
    table(
        "reads through the read API, and loads (means)",
        &[
            "cache",
            "reads",
            "hit rate",
            "against before",
            "hit",
            "miss",
            "faster",
            "load",
            "baseline",
        ],
        report.caches.iter().map(|(name, cache)| answers(name, cache)),
    );
    table(
        "in Redis",
        &["cache", "entries", "memory", "growth", "an hour", "TTL"],
        own().map(|(name, cache)| memory(name, cache)),
    );
    table(
        "removed by changes, and for how long it had been inconsistent",
        &["cache", "removed", "were there", "p50", "p99", "over 1 s", "over 1 min"],
        own().filter(was_changed).map(|(name, cache)| removed(name, cache)),
    );
    table(
        "what a sample of the entries died of, and whether anybody had read them",
        &[
            "cache",
            "expired: read",
            "unread",
            "unknown",
            "changed: read",
            "unread",
            "unknown",
            "refreshed",
            "gone",
        ],
        own().filter(has_died).map(|(name, cache)| died(name, cache)),
    );
}

fn coverage(report: &Report) {
    let Some(coverage) = &report.coverage else { return };
    let of = |name: &str, cached, expected| {
        vec![name.to_owned(), amount(cached), amount(expected), part(cached, expected)]
    };
    let sampled = if coverage.sampled { ", of some entries" } else { "" };
    table(
        &format!(
            "coverage{sampled}: {} of {}, {} of {} organizations whole",
            coverage.cached, coverage.expected, coverage.whole, coverage.organizations
        ),
        &["cache", "cached", "of", "part"],
        coverage.caches.iter().map(|(name, c)| of(name, c.cached, c.expected)),
    );
    table(
        "organizations of which least is cached",
        &["organization", "cached", "of", "part"],
        coverage.least.iter().map(|o| of(&o.organization, o.cached, o.expected)),
    );
}

fn changes(invalidation: &Invalidation) {
    table(
        "rows that changed",
        &["table", "insert", "update", "delete", "truncate"],
        invalidation.changes.iter().map(|changes| {
            let mut row = vec![changes.table.clone()];
            row.extend(
                ["insert", "update", "delete", "truncate"].map(|operation| {
                    amount(changes.rows.get(operation).copied().unwrap_or_default())
                }),
            );
            row
        }),
    );
    let counted = seconds(invalidation.counted_for_seconds);
    table(
        &format!("rules (in the last {counted})"),
        &["rule", "keys", "were there"],
        invalidation.rules.iter().map(|r| vec![r.rule.clone(), amount(r.keys), amount(r.present)]),
    );
    table(
        "hottest keys",
        &["key", "changes", "at most", "was there", "reads by the API"],
        invalidation.hot_keys.iter().map(|hot| {
            let mut row = vec![hot.key.clone()];
            row.extend([hot.changes, hot.changes_at_most, hot.present, hot.reads].map(amount));
            row
        }),
    );
    table(
        "transactions by the keys that they reached",
        &["keys from", "to", "transactions"],
        invalidation.fan_out.iter().map(|class| {
            let to = class.to.map_or_else(|| "-".to_owned(), amount);
            vec![amount(class.from), to, amount(class.transactions)]
        }),
    );
    if let Some(largest) = &invalidation.largest {
        line(&format!(
            "the largest: {} keys, transaction {}, commit ends at {}",
            largest.keys, largest.xid, largest.lsn
        ));
    }
}
