//! One line of the schedule. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::config::model::{Config, Scalar, Schedule, Task};
use crate::mapping::model::CacheId;
use crate::rules::Rules;
use crate::store::schedule::Again;

/// By how much a period varies, to both sides.
const JITTER: f64 = 0.1;

/// When what failed is tried again, at first.
const RETRY: Duration = Duration::from_secs(60);

/// Maintenance looks around soon after the first start of all: it counts what the gauges show.
const SOON: Duration = Duration::from_secs(60);

/// Something that is done now and then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name in Redis, metrics and logs.
    pub name: String,
    /// What.
    pub task: Task,
    /// How often.
    pub every: Duration,
    /// As it was written.
    pub cache_type: String,
    /// The caches that it means.
    pub caches: BTreeSet<CacheId>,
    /// Of this organization alone.
    pub organization: Option<String>,
}

/// All that the configuration asks for and that can be done.
///
/// # Errors
/// If one names no cache: which, in words.
pub fn entries(config: &Config, rules: &Rules) -> Result<Vec<Entry>, String> {
    // What warming does by itself, it does not do where it is off.
    let wanted = |schedule: &&Schedule| schedule.task != Task::Warm || config.warm.enabled;
    let entry = |schedule: &Schedule| {
        let caches = rules.mapping.select(&schedule.cache_type);
        Ok(Entry {
            name: schedule.name(),
            task: schedule.task,
            every: schedule.every.get(),
            cache_type: schedule.cache_type.clone(),
            caches: caches.map_err(|reason| format!("schedule.cache_type: {reason}"))?,
            organization: schedule.organization.as_ref().map(Scalar::text),
        })
    };
    config.schedule.iter().filter(wanted).map(entry).collect()
}

impl Entry {
    /// How long it is until the first time of all; `chance` is between 0 and 1.
    #[must_use]
    pub fn first(&self, chance: f64) -> Duration {
        match self.task {
            Task::Maintenance => jittered(self.every.min(SOON), chance),
            Task::Warm | Task::Invalidate | Task::Report => jittered(self.every, chance),
        }
    }

    /// The longest that it can be until the next time.
    #[must_use]
    pub fn longest(&self) -> Duration {
        jittered(self.every, 1.0)
    }

    /// When it is due again. `failures`: how often in a row it has failed.
    #[must_use]
    pub fn again(&self, failures: u32, chance: f64) -> Again {
        let every = jittered(self.every, chance);
        match failures.checked_sub(1) {
            None => Again { after_begin: every, at_least: every / 10 },
            Some(before) => {
                let retry = RETRY.saturating_mul(1 << before.min(16));
                let at_least = jittered(retry, chance).min(every);
                Again { after_begin: Duration::ZERO, at_least }
            }
        }
    }
}

fn jittered(every: Duration, chance: f64) -> Duration {
    every.mul_f64(1.0 - JITTER + 2.0 * JITTER * chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3600);

    fn entry(task: Task, every: Duration) -> Entry {
        let (name, cache_type) = ("a".to_owned(), "all".to_owned());
        Entry { name, task, every, cache_type, caches: BTreeSet::new(), organization: None }
    }

    #[test]
    fn chance_moves_a_period_by_a_tenth_at_the_most() {
        let warm = entry(Task::Warm, HOUR);
        assert_eq!((warm.first(0.0), warm.first(1.0)), (54 * MINUTE, 66 * MINUTE));
        assert_eq!(warm.longest(), 66 * MINUTE);
        assert_eq!(warm.again(0, 0.0).after_begin, 54 * MINUTE);
    }

    #[test]
    fn maintenance_counts_soon_after_the_first_start_and_then_as_often_as_it_is_told() {
        let maintenance = entry(Task::Maintenance, HOUR);
        assert_eq!(maintenance.first(0.5), MINUTE);
        assert_eq!(maintenance.again(0, 0.5).after_begin, HOUR);
        assert_eq!(entry(Task::Maintenance, MINUTE / 2).first(0.5), MINUTE / 2);
    }

    #[test]
    fn what_fails_is_tried_again_ever_later_but_no_later_than_it_would_be_due() {
        let warm = entry(Task::Warm, HOUR);
        let waits: Vec<u64> =
            (1..9).map(|failures| warm.again(failures, 0.5).at_least.as_secs() / 60).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(warm.again(1, 0.5).after_begin, Duration::ZERO);
        assert_eq!(entry(Task::Warm, MINUTE / 6).again(5, 0.5).at_least, MINUTE / 6);
    }

    #[test]
    fn what_takes_longer_than_its_period_pauses_before_it_begins_again() {
        assert_eq!(entry(Task::Warm, HOUR).again(0, 0.5).at_least, 6 * MINUTE);
    }
}
