//! The keys that occur most, of any number of them, in bounded memory. Pure.
//!
//! Misra and Gries' counters (Science of Computer Programming 2, 1982), with the purge of Anderson
//! et al. ("A high-performance algorithm for identifying frequent items in data streams", 2017):
//! there is room for `capacity` keys. When a further one comes, all counts are lowered by their
//! median, and what reaches nothing makes room. At least half of the counters pay for
//! each purge, so one costs a hash and a constant all told, however many keys come.
//!
//! What a key occurred lies between its count and its count plus [`Frequent::error`]; the error is
//! at most twice what came, divided by the capacity. So whatever is truly hot is there, and is told
//! with its bounds.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use hashbrown::hash_map::EntryRef;

/// The counters; each carries a `T` beside its count, from when its key came to stay.
#[derive(Debug)]
pub struct Frequent<T> {
    counters: HashMap<Box<[u8]>, Counter<T>, RandomState>,
    capacity: usize,
    error: u64,
}

/// What is counted of one key.
#[derive(Debug, Clone, Default)]
pub struct Counter<T> {
    /// How often it occurred, at least.
    pub count: u64,
    /// What else is known of it.
    pub beside: T,
}

impl<T> Frequent<T> {
    /// Room for so many keys, one at least.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Frequent { counters: HashMap::default(), capacity: capacity.max(1), error: 0 }
    }

    /// The key has occurred so many times more.
    pub fn offer(&mut self, key: &[u8], times: u64, new: impl FnOnce() -> T) -> &mut T {
        if self.counters.len() >= self.capacity && !self.counters.contains_key(key) {
            self.purge();
        }
        let counter = match self.counters.entry_ref(key) {
            EntryRef::Occupied(entry) => entry.into_mut(),
            EntryRef::Vacant(entry) => {
                entry.insert_with_key(key.into(), Counter { count: 0, beside: new() })
            }
        };
        counter.count = counter.count.saturating_add(times);
        &mut counter.beside
    }

    /// How often a key occurred, at least.
    #[must_use]
    pub fn count(&self, key: &[u8]) -> u64 {
        self.counters.get(key).map_or(0, |counter| counter.count)
    }

    /// What is beside the count of a key, if it has one.
    pub fn get_mut(&mut self, key: &[u8]) -> Option<&mut T> {
        self.counters.get_mut(key).map(|counter| &mut counter.beside)
    }

    /// How much more often than it is counted a key may have occurred; one without a
    /// counter, at all.
    #[must_use]
    pub fn error(&self) -> u64 {
        self.error
    }

    /// All that have a counter, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &Counter<T>)> {
        self.counters.iter().map(|(key, counter)| (&**key, counter))
    }

    /// Counts for `self` what was counted in `other`, which was before.
    pub fn absorb(&mut self, other: Frequent<T>, mut join: impl FnMut(&mut T, T)) {
        self.error = self.error.saturating_add(other.error);
        for (key, counter) in other.counters {
            if let Some(mine) = self.counters.get_mut(&*key) {
                mine.count = mine.count.saturating_add(counter.count);
                join(&mut mine.beside, counter.beside);
                continue;
            }
            if self.counters.len() >= self.capacity {
                self.purge();
            }
            self.counters.insert(key, counter);
        }
    }

    fn purge(&mut self) {
        let mut counts: Vec<u64> = self.counters.values().map(|counter| counter.count).collect();
        let middle = counts.len() / 2;
        let (_, median, _) = counts.select_nth_unstable(middle);
        let less = *median;
        self.error = self.error.saturating_add(less);
        self.counters.retain(|_, counter| {
            counter.count = counter.count.saturating_sub(less);
            counter.count > 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap as Exact;

    fn counted(keys: &[u8], capacity: usize) -> (Frequent<()>, Exact<u8, u64>) {
        let mut frequent = Frequent::new(capacity);
        let mut exact = Exact::new();
        for key in keys {
            frequent.offer(&[*key], 1, || ());
            *exact.entry(*key).or_default() += 1;
        }
        (frequent, exact)
    }

    fn check(frequent: &Frequent<()>, exact: &Exact<u8, u64>, capacity: usize, total: usize) {
        let found: Exact<u8, u64> =
            frequent.iter().map(|(key, counter)| (key[0], counter.count)).collect();
        assert!(found.len() <= capacity);
        assert!(frequent.error() <= 2 * total as u64 / capacity as u64);
        for (key, times) in exact {
            let least = found.get(key).copied().unwrap_or(0);
            assert!(least <= *times && *times <= least + frequent.error(), "{key}: {times}");
        }
    }

    proptest! {
        #[test]
        fn a_count_is_within_its_bounds_and_memory_within_its(
            keys in prop::collection::vec(any::<u8>(), 0..2000), capacity in 1usize..40,
        ) {
            let (frequent, exact) = counted(&keys, capacity);
            check(&frequent, &exact, capacity, keys.len());
        }

        #[test]
        fn two_halves_joined_keep_the_bounds(
            keys in prop::collection::vec(any::<u8>(), 0..1000), capacity in 2usize..40, at in 0usize..1000,
        ) {
            let at = at.min(keys.len());
            let (before, _) = counted(&keys[..at], capacity);
            let (mut after, _) = counted(&keys[at..], capacity);
            after.absorb(before, |(), ()| ());
            let (_, exact) = counted(&keys, capacity);
            let found: Exact<u8, u64> =
                after.iter().map(|(key, counter)| (key[0], counter.count)).collect();
            prop_assert!(found.len() <= capacity);
            for (key, times) in exact {
                let least = found.get(&key).copied().unwrap_or(0);
                prop_assert!(least <= times && times <= least + after.error());
            }
        }
    }

    #[test]
    fn the_hot_key_is_found_among_many_that_come_once() {
        let mut frequent = Frequent::new(16);
        for n in 0..10_000_u32 {
            frequent.offer(&n.to_be_bytes(), 1, || 0_u32);
            if n % 4 == 0 {
                *frequent.offer(b"hot", 1, || 0) += 1;
            }
        }
        let hot = frequent.iter().find(|(key, _)| *key == b"hot").unwrap().1;
        assert!(hot.count <= 2500 && 2500 <= hot.count + frequent.error(), "{hot:?}");
        assert!(frequent.error() <= 2 * 12_500 / 16);
        assert_eq!(hot.beside, 2500, "it came first and never left");
    }
}
