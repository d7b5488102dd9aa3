//! What the metrics stand at, and how far they have come since they stood elsewhere. Pure but for
//! the reading of them.

use std::collections::BTreeMap;

use prometheus::proto::{Metric, MetricType};

use crate::metrics::Metrics;
use crate::times::Times;

/// A series: its name without the prefix, and its labels by name.
type Series = (String, BTreeMap<String, String>);

/// All counters and histograms at one moment, or what was added to them between two.
#[derive(Debug, Clone, Default)]
pub(super) struct Standing {
    counters: BTreeMap<Series, u64>,
    times: BTreeMap<Series, Times>,
}

impl Standing {
    /// As they stand now.
    #[must_use]
    pub(super) fn read(metrics: &Metrics) -> Standing {
        let mut standing = Standing::default();
        for family in metrics.gather() {
            let name = family.name().trim_start_matches("unstale_");
            for metric in family.get_metric() {
                let series = (name.to_owned(), labels(metric));
                match family.get_field_type() {
                    MetricType::COUNTER => {
                        let value = whole(metric.get_counter().get_value());
                        standing.counters.insert(series, value);
                    }
                    MetricType::HISTOGRAM => {
                        standing.times.insert(series, Times::read(metric.get_histogram()));
                    }
                    _ => {}
                }
            }
        }
        standing
    }

    /// What was added since they stood at `earlier`, in the same process.
    #[must_use]
    pub(super) fn since(&self, earlier: &Standing) -> Standing {
        let before = |series| earlier.counters.get(series).copied().unwrap_or_default();
        let none = Times::default();
        Standing {
            counters: self
                .counters
                .iter()
                .map(|(series, value)| (series.clone(), value.saturating_sub(before(series))))
                .collect(),
            times: self
                .times
                .iter()
                .map(|(series, times)| {
                    (series.clone(), times.since(earlier.times.get(series).unwrap_or(&none)))
                })
                .collect(),
        }
    }

    /// The sum of the counters of this name that have these labels.
    #[must_use]
    pub(super) fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.counters
            .iter()
            .filter(|(series, _)| is(series, name, labels))
            .map(|(_, value)| *value)
            .sum()
    }

    /// By the values of one label: those that are not zero.
    #[must_use]
    pub(super) fn by(
        &self,
        name: &str,
        label: &str,
        labels: &[(&str, &str)],
    ) -> BTreeMap<String, u64> {
        let mut by = BTreeMap::new();
        for (series, value) in &self.counters {
            if *value > 0
                && is(series, name, labels)
                && let Some(of) = series.1.get(label)
            {
                *by.entry(of.clone()).or_default() += value;
            }
        }
        by
    }

    /// The histograms of this name that have these labels, together.
    #[must_use]
    pub(super) fn times(&self, name: &str, labels: &[(&str, &str)]) -> Times {
        let mut all = Times::default();
        for (_, times) in self.times.iter().filter(|(series, _)| is(series, name, labels)) {
            all.add(times);
        }
        all
    }
}

fn is(series: &Series, name: &str, labels: &[(&str, &str)]) -> bool {
    series.0 == name
        && labels.iter().all(|(label, value)| series.1.get(*label).is_some_and(|v| v == value))
}

fn labels(metric: &Metric) -> BTreeMap<String, String> {
    let pairs = metric.get_label().iter();
    pairs.map(|pair| (pair.name().to_owned(), pair.value().to_owned())).collect()
}

/// Counters count by whole numbers; the metrics' library tells them as floats.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float that is too large or negative is cut to the bounds"
)]
fn whole(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_told_by_name_and_label() {
        let metrics = Metrics::new().unwrap();
        let fills = |cache: &str, outcome: &str, n| {
            metrics.fills.with_label_values(&[cache, outcome]).inc_by(n);
        };
        fills("a", "stored", 5);
        metrics.load_seconds.with_label_values(&["a"]).observe(0.5);
        let before = Standing::read(&metrics);
        fills("a", "stored", 2);
        fills("a", "voided", 1);
        fills("b", "stored", 10);
        metrics.load_seconds.with_label_values(&["a"]).observe(0.25);
        let since = Standing::read(&metrics).since(&before);
        assert_eq!(since.count("fills_total", &[("cache", "a"), ("outcome", "stored")]), 2);
        assert_eq!(since.count("fills_total", &[("outcome", "stored")]), 12);
        let by = since.by("fills_total", "outcome", &[("cache", "a")]);
        assert_eq!(by, BTreeMap::from([("stored".to_owned(), 2), ("voided".to_owned(), 1)]));
        let times = since.times("load_seconds", &[("cache", "a")]);
        assert_eq!((times.count, times.mean()), (1, Some(0.25)));
        assert_eq!(since.count("no_such_total", &[]), 0);
    }
}
