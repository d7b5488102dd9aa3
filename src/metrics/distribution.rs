//! What a histogram has counted, taken out of the registry to reckon with.

use prometheus::Histogram;
use prometheus::core::Collector as _;

/// How long things took, all told. Buckets of one metric are always the same.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Distribution {
    /// How many there were.
    pub count: u64,
    /// What they took together, in the metric's unit.
    pub sum: f64,
    /// How many took at most so long: ascending, counted from the fastest.
    buckets: Vec<(f64, u64)>,
}

impl Distribution {
    /// What has been observed so far.
    #[must_use]
    pub fn of(histogram: &Histogram) -> Distribution {
        let mut all = Distribution::default();
        for family in histogram.collect() {
            for metric in family.get_metric() {
                let found = metric.get_histogram();
                let buckets = found.get_bucket().iter();
                all.add(&Distribution {
                    count: found.get_sample_count(),
                    sum: found.get_sample_sum(),
                    buckets: buckets
                        .map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()))
                        .collect(),
                });
            }
        }
        all
    }

    /// Both together.
    pub fn add(&mut self, other: &Distribution) {
        self.count += other.count;
        self.sum += other.sum;
        if self.buckets.is_empty() {
            self.buckets.clone_from(&other.buckets);
            return;
        }
        for ((_, mine), (_, theirs)) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
    }

    /// What was observed since the same histogram was like `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Distribution) -> Distribution {
        let before = earlier.buckets.iter().map(|(_, count)| *count);
        let before = before.chain(std::iter::repeat(0));
        let buckets = self.buckets.iter().zip(before);
        Distribution {
            count: self.count.saturating_sub(earlier.count),
            sum: (self.sum - earlier.sum).max(0.0),
            buckets: buckets
                .map(|((bound, now), before)| (*bound, now.saturating_sub(before)))
                .collect(),
        }
    }

    /// What one took on average.
    #[expect(clippy::cast_precision_loss, reason = "a mean")]
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }

    /// What this share of them took at most, as closely as the buckets tell.
    #[expect(clippy::cast_precision_loss, reason = "an estimate, between two bounds")]
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<f64> {
        if self.count == 0 {
            return None;
        }
        let wanted = share * self.count as f64;
        let mut below = (0.0, 0.0);
        for (bound, count) in &self.buckets {
            let count = *count as f64;
            if count >= wanted && count > below.1 {
                return Some(below.0 + (bound - below.0) * (wanted - below.1) / (count - below.1));
            }
            below = (*bound, count);
        }
        Some(below.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::HistogramOpts;

    #[test]
    fn what_was_observed_since_a_moment_is_apart_from_what_was_before() {
        let options = HistogramOpts::new("h", "h").buckets(vec![0.001, 0.01, 0.1, 1.0]);
        let histogram = Histogram::with_opts(options).unwrap();
        (0..100).for_each(|_| histogram.observe(0.5));
        let before = Distribution::of(&histogram);
        assert!(before.quantile(0.99).unwrap() > 0.1);
        assert_eq!(before.since(&before).quantile(0.5), None, "nothing since");
        (0..10).for_each(|_| histogram.observe(0.005));
        let since = Distribution::of(&histogram).since(&before);
        assert_eq!(since.count, 10);
        assert!((since.mean().unwrap() - 0.005).abs() < 1e-9, "{since:?}");
        assert!((0.001..=0.01).contains(&since.quantile(0.99).unwrap()), "{since:?}");
        assert_eq!(before.since(&Distribution::default()), before, "since the start");
    }
}
