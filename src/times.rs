//! What a histogram says of how long things took: all told, or between two looks at it. Pure.

use prometheus::core::Collector;
use prometheus::proto;

/// How long things took.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Times {
    /// How many there were.
    pub count: u64,
    /// How many seconds they took together.
    pub seconds: f64,
    /// How many took at most so long: ascending, counted from the fastest.
    pub buckets: Vec<(f64, u64)>,
}

impl Times {
    /// Of a single histogram.
    #[must_use]
    pub fn of(histogram: &impl Collector) -> Times {
        let mut times = Times::default();
        for family in histogram.collect() {
            for metric in family.get_metric() {
                times.add(&Times::read(metric.get_histogram()));
            }
        }
        times
    }

    /// As the metrics' library tells it.
    #[must_use]
    pub fn read(histogram: &proto::Histogram) -> Times {
        let buckets = histogram.get_bucket().iter();
        Times {
            count: histogram.get_sample_count(),
            seconds: histogram.get_sample_sum(),
            buckets: buckets.map(|b| (b.upper_bound(), b.cumulative_count())).collect(),
        }
    }

    /// These, and others of the same buckets.
    pub fn add(&mut self, other: &Times) {
        self.count += other.count;
        self.seconds += other.seconds;
        if self.buckets.is_empty() {
            self.buckets.clone_from(&other.buckets);
            return;
        }
        for ((_, mine), (_, theirs)) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
    }

    /// Those that are not in `earlier`, which the same histogram said before.
    #[must_use]
    pub fn since(&self, earlier: &Times) -> Times {
        let before = |at: usize| earlier.buckets.get(at).map_or(0, |(_, count)| *count);
        let buckets = self.buckets.iter().enumerate();
        Times {
            count: self.count.saturating_sub(earlier.count),
            seconds: (self.seconds - earlier.seconds).max(0.0),
            buckets: buckets
                .map(|(at, (bound, count))| (*bound, count.saturating_sub(before(at))))
                .collect(),
        }
    }

    /// The mean, in seconds.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a mean")]
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.seconds / self.count as f64)
    }

    /// What this share of them took at most, in seconds, as closely as the buckets tell.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "an estimate, between two bounds")]
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

    /// How many took longer than that; it should be a bucket's bound.
    #[must_use]
    pub fn longer_than(&self, seconds: f64) -> u64 {
        let within = self.buckets.iter().take_while(|(bound, _)| *bound <= seconds).last();
        self.count.saturating_sub(within.map_or(0, |(_, count)| *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::{Histogram, HistogramOpts};
    use proptest::prelude::*;

    const BOUNDS: [f64; 4] = [0.001, 0.01, 0.1, 1.0];

    fn observed(seconds: &[f64]) -> Times {
        let options = HistogramOpts::new("t", "t").buckets(BOUNDS.to_vec());
        let histogram = Histogram::with_opts(options).unwrap();
        seconds.iter().for_each(|seconds| histogram.observe(*seconds));
        Times::of(&histogram)
    }

    #[test]
    fn quantiles_are_within_the_bucket_and_what_is_longer_is_counted() {
        let times = observed(&[0.0005, 0.0005, 0.005, 5.0]);
        assert!((times.mean().unwrap() - 1.2515).abs() < 1e-9);
        assert!((0.0..=0.001).contains(&times.quantile(0.5).unwrap()));
        assert_eq!(times.quantile(0.99), Some(1.0), "the last bound: nobody knows more");
        assert_eq!([times.longer_than(0.01), times.longer_than(1.0)], [1, 1]);
        assert_eq!(Times::default().quantile(0.5), None);
        assert_eq!(Times::default().mean(), None);
    }

    proptest! {
        #[test]
        fn what_came_since_is_what_came_since(
            before in prop::collection::vec(0.0f64..2.0, 0..50),
            after in prop::collection::vec(0.0f64..2.0, 0..50),
        ) {
            let all: Vec<f64> = before.iter().chain(&after).copied().collect();
            let since = observed(&all).since(&observed(&before));
            let expected = observed(&after);
            prop_assert_eq!(since.count, expected.count);
            prop_assert_eq!(&since.buckets, &expected.buckets);
            prop_assert!((since.seconds - expected.seconds).abs() < 1e-9);
            let mut sum = observed(&before);
            sum.add(&since);
            prop_assert_eq!(sum.buckets, observed(&all).buckets);
            if let Some(quantile) = since.quantile(0.9) {
                prop_assert!((0.0..=1.0).contains(&quantile));
            }
        }
    }
}
