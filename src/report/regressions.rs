//! What has become worse since the reports before. Pure.

use super::model::{Finding, Reads, Report};

/// A load that takes so many times as long as its baseline is a regression.
const SLOWER: f64 = 2.0;

/// Below so many loads a mean says little.
const LOADS: u64 = 10;

/// A difference below this is noise, in milliseconds.
const NOISE_MS: f64 = 1.0;

/// So many points less of a hit rate are a regression.
const POINTS: f64 = 10.0;

/// Below so many reads a rate says little.
const READS: u64 = 50;

/// From how many reports a baseline is taken: what was slow for two days is still found slow on the
/// third.
const REPORTS: usize = 12;

/// How long a cache's load took before: the median of the means of the last reports that had enough
/// of them, in milliseconds.
pub(super) fn baseline(cache: &str, history: &[Report]) -> Option<f64> {
    let means = history.iter().filter_map(|report| {
        let load = report.caches.get(cache)?.load;
        load.mean_ms.filter(|_| load.count >= LOADS)
    });
    let mut means: Vec<f64> = means.take(REPORTS).collect();
    means.sort_unstable_by(f64::total_cmp);
    means.get(means.len().checked_sub(1)? / 2).copied()
}

/// The difference of two rates.
pub(super) fn points(now: f64, then: f64) -> f64 {
    (now - then) * 100.0
}

fn all(reads: &Reads) -> u64 {
    reads.held + reads.hits + reads.misses + reads.bypasses + reads.errors
}

/// Compares a report with those before it, the newest first.
pub(super) fn regressions(report: &Report, history: &[Report]) -> Vec<Finding> {
    let mut found = Vec::new();
    for (name, cache) in &report.caches {
        if let (Some(now), Some(then)) = (cache.load.mean_ms, cache.load_baseline_ms)
            && cache.load.count >= LOADS
            && now >= SLOWER * then
            && now - then >= NOISE_MS
        {
            found.push(Finding {
                kind: "load_slower".to_owned(),
                cache: Some(name.clone()),
                text: format!(
                    "loading `{name}` takes {now:.1} ms, {:.1} times its baseline of {then:.1} ms: compare its query's plan (EXPLAIN) with the one before",
                    now / then
                ),
            });
        }
    }
    let Some(before) = history.first() else { return found };
    found.extend(hit_rate(None, &report.reads, &before.reads));
    for (name, cache) in &report.caches {
        let before = before.caches.get(name);
        found.extend(before.and_then(|b| hit_rate(Some(name), &cache.reads, &b.reads)));
    }
    found
}

fn hit_rate(cache: Option<&str>, now: &Reads, then: &Reads) -> Option<Finding> {
    if all(now) < READS || all(then) < READS {
        return None;
    }
    let (rate, before) = (now.hit_rate?, then.hit_rate?);
    let less = -points(rate, before);
    // A tenth is no round number to a float.
    if less + 1e-9 < POINTS {
        return None;
    }
    let of = cache.map_or("all caches".to_owned(), |cache| format!("`{cache}`"));
    Some(Finding {
        kind: "hit_rate_down".to_owned(),
        cache: cache.map(str::to_owned),
        text: format!(
            "the hit rate of {of} is {:.0} %, {less:.0} points below that of the report before ({:.0} %)",
            rate * 100.0,
            before * 100.0
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::super::model::{Cache, Latency};
    use super::*;

    fn load(count: u64, mean_ms: f64) -> Report {
        let load = Latency { count, mean_ms: Some(mean_ms), ..Latency::default() };
        let mut report = Report::default();
        report.caches.insert("c".to_owned(), Cache { load, ..Cache::default() });
        report
    }

    fn reads(hits: u64, misses: u64) -> Reads {
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let hit_rate = Some(hits as f64 / (hits + misses) as f64);
        Reads { hits, misses, hit_rate, ..Reads::default() }
    }

    #[test]
    fn a_load_is_slower_if_it_takes_twice_its_baseline() {
        // The means before, how many loads each was of; then now.
        for (before, count, now, expected) in [
            (&[10.0][..], 20, (20, 20.0), true),
            (&[10.0], 20, (20, 19.9), false),
            (&[10.0], 20, (9, 50.0), false),
            (&[10.0], 9, (20, 50.0), false),
            (&[], 20, (20, 50.0), false),
            (&[0.2], 20, (20, 0.9), false),
            (&[0.5], 20, (20, 1.6), true),
            // One slow window does not make slow the measure.
            (&[40.0, 10.0, 10.0], 20, (20, 40.0), true),
            (&[40.0, 40.0, 10.0], 20, (20, 40.0), false),
        ] {
            let history: Vec<Report> = before.iter().map(|ms| load(count, *ms)).collect();
            let mut report = load(now.0, now.1);
            report.caches.get_mut("c").unwrap().load_baseline_ms = baseline("c", &history);
            let found = regressions(&report, &history);
            let slower: Vec<_> = found.iter().map(|f| (&*f.kind, f.cache.as_deref())).collect();
            let expected = if expected { vec![("load_slower", Some("c"))] } else { vec![] };
            assert_eq!(slower, expected, "{before:?} {now:?}");
        }
    }

    #[test]
    fn a_baseline_is_the_median_of_the_newest() {
        let of = |means: &[f64]| {
            let history: Vec<Report> = means.iter().map(|ms| load(100, *ms)).collect();
            baseline("c", &history)
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[3.0]), Some(3.0));
        assert_eq!(of(&[1.0, 9.0]), Some(1.0), "the lower of the two in the middle");
        assert_eq!(of(&[9.0, 1.0, 2.0]), Some(2.0));
        let mut many = vec![1.0; REPORTS];
        many.extend([100.0; 30]);
        assert_eq!(of(&many), Some(1.0));
        assert_eq!(baseline("other", &[load(100, 1.0)]), None);
    }

    #[test]
    fn a_hit_rate_is_down_by_ten_points_of_enough_reads() {
        for (now, then, expected) in [
            (reads(80, 20), reads(90, 10), true),
            (reads(81, 19), reads(90, 10), false),
            (reads(90, 10), reads(80, 20), false),
            (reads(30, 10), reads(100, 0), false),
            (reads(10, 90), reads(40, 0), false),
            (reads(0, 50), reads(50, 0), true),
        ] {
            let report = Report { reads: now, ..Report::default() };
            let before = Report { reads: then, ..Report::default() };
            let found = regressions(&report, &[before]);
            assert_eq!(!found.is_empty(), expected, "{now:?} {then:?}");
            assert!(found.iter().all(|found| found.kind == "hit_rate_down"));
        }
    }

    #[test]
    fn the_finding_says_what_and_by_how_much() {
        let history = [load(20, 10.0)];
        let mut report = load(20, 25.0);
        report.caches.get_mut("c").unwrap().load_baseline_ms = baseline("c", &history);
        let found = regressions(&report, &history);
        assert!(found[0].text.contains("takes 25.0 ms, 2.5 times its baseline of 10.0 ms"));
    }
}
