//! A batch's keys by what becomes of them: most are removed, those of a cache with
//! `on_change = "refresh"` keep their values for a while (rule 12).

use std::time::Duration;

use super::batch::Cause;
use super::chain::Keys;
use crate::mapping::Mapping;
use crate::mapping::changes::Key;

/// A refreshed key costs Redis about as much as so many that are removed (3.4 µs and 1.3 µs where
/// it was measured).
const WEIGHT: usize = 3;

/// The keys of a batch.
#[derive(Debug, Default)]
pub struct Touched {
    removed: Vec<Key>,
    refreshed: Vec<(Key, Duration)>,
    /// Why: of the removed ones, then of the refreshed ones.
    pub causes: Vec<Cause>,
}

/// What becomes of one key.
#[derive(Debug, Clone, Copy)]
pub struct Touch<'a> {
    /// Its name.
    pub key: &'a Key,
    /// What reached it first.
    pub cause: &'a Cause,
    /// How long its old value may stay; `None`: it is removed.
    pub stays: Option<Duration>,
}

impl Touched {
    /// Parts them, by their caches.
    pub fn new(keys: impl Iterator<Item = (Key, Cause)>, mapping: &Mapping) -> Self {
        let mut touched = Touched::default();
        let mut of_refreshed = Vec::new();
        for (key, cause) in keys {
            match mapping.cache(cause.origin.cache).and_then(|cache| cache.max_staleness) {
                None => {
                    touched.removed.push(key);
                    touched.causes.push(cause);
                }
                Some(at_most) => {
                    touched.refreshed.push((key, at_most));
                    of_refreshed.push(cause);
                }
            }
        }
        touched.causes.append(&mut of_refreshed);
        touched
    }

    /// In the order in which steps answer for them.
    pub fn each(&self) -> impl Iterator<Item = Touch<'_>> {
        let removed = self.removed.iter().map(|key| (key, None));
        let refreshed = self.refreshed.iter().map(|(key, at_most)| (key, Some(*at_most)));
        removed.chain(refreshed).zip(&self.causes).map(|((key, stays), cause)| Touch {
            key,
            cause,
            stays,
        })
    }

    /// Steps that cost Redis no more than removing `max` keys, and the last one, which may have
    /// none.
    #[must_use]
    pub fn steps(&self, max: usize) -> (Vec<Keys<'_>>, Keys<'_>) {
        let (removed, refreshed) = (self.removed.as_slice(), self.refreshed.as_slice());
        if removed.len() + WEIGHT * refreshed.len() <= max {
            return (Vec::new(), Keys { removed, refreshed });
        }
        let removals = removed.chunks(max.max(1));
        let refreshes = refreshed.chunks((max / WEIGHT).max(1));
        let mut steps: Vec<Keys<'_>> = removals
            .map(|removed| Keys { removed, refreshed: &[] })
            .chain(refreshes.map(|refreshed| Keys { removed: &[], refreshed }))
            .collect();
        let last = steps.pop().unwrap_or_default();
        (steps, last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touched(removed: u8, refreshed: u8) -> Touched {
        let key = |n: u8| Key::from([n].as_slice());
        Touched {
            removed: (0..removed).map(key).collect(),
            refreshed: (100..100 + refreshed).map(|n| (key(n), Duration::ZERO)).collect(),
            causes: Vec::new(),
        }
    }

    #[test]
    fn few_keys_go_in_one_step_and_many_in_steps_of_bounded_cost() {
        for (removed, refreshed, expected) in [
            (0, 0, vec![(0, 0)]),
            (4, 2, vec![(4, 2)]),
            (10, 0, vec![(10, 0)]),
            (11, 0, vec![(10, 0), (1, 0)]),
            (0, 4, vec![(0, 3), (0, 1)]),
            (12, 7, vec![(10, 0), (2, 0), (0, 3), (0, 3), (0, 1)]),
        ] {
            let touched = touched(removed, refreshed);
            let (mut steps, last) = touched.steps(10);
            steps.push(last);
            let sizes: Vec<_> =
                steps.iter().map(|keys| (keys.removed.len(), keys.refreshed.len())).collect();
            assert_eq!(sizes, expected);
        }
    }
}
