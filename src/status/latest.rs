//! The last of what happened to each of a bounded number of keys.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use hashbrown::hash_map::EntryRef;

/// See the module.
#[derive(Debug)]
pub(super) struct Latest<T> {
    by_key: HashMap<Arc<[u8]>, (u64, T), foldhash::fast::RandomState>,
    /// Oldest first; an entry whose number is not the key's last one is void.
    order: VecDeque<(u64, Arc<[u8]>)>,
    next: u64,
    capacity: usize,
}

impl<T: Copy> Latest<T> {
    /// Remembers at most `capacity` keys.
    pub(super) fn new(capacity: usize) -> Self {
        Latest { by_key: HashMap::default(), order: VecDeque::new(), next: 0, capacity }
    }

    /// Forgets everything but how much there was.
    pub(super) fn forget(&mut self) {
        self.by_key.clear();
        self.order.clear();
    }

    /// The number of what happens now. Numbers are given without a hole.
    pub(super) fn number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    /// What the next number will be.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Notes what happened to a key.
    pub(super) fn note(&mut self, key: &[u8], happened: T) {
        if self.capacity == 0 {
            return;
        }
        let number = self.number();
        let key = match self.by_key.entry_ref(key) {
            EntryRef::Occupied(mut entry) => {
                entry.insert((number, happened));
                Arc::clone(entry.key())
            }
            EntryRef::Vacant(entry) => {
                let key: Arc<[u8]> = key.into();
                entry.insert_with_key(Arc::clone(&key), (number, happened));
                key
            }
        };
        self.order.push_back((number, key));
        // Void entries count too: twice the capacity bounds the queue.
        while self.by_key.len() > self.capacity || self.order.len() > 2 * self.capacity {
            let Some((number, key)) = self.order.pop_front() else { return };
            if self.by_key.get(&key).is_some_and(|(last, _)| *last == number) {
                self.by_key.remove(&key);
            }
        }
    }

    /// What happened to this key last, if it is remembered.
    pub(super) fn last(&self, key: &[u8]) -> Option<T> {
        self.by_key.get(key).map(|(_, happened)| *happened)
    }

    /// What happened from that number on, the last first; `at_most` are looked at. A key to which
    /// something happened again is among them once.
    pub(super) fn since(&self, number: u64, at_most: usize) -> Vec<(Box<[u8]>, T)> {
        let new = self.order.iter().rev().take_while(|(at, _)| *at >= number);
        let found = new.take(at_most).filter_map(|(at, key)| {
            let (last, happened) = self.by_key.get(key)?;
            (last == at).then(|| (key[..].into(), *happened))
        });
        found.collect()
    }

    #[cfg(test)]
    pub(super) fn is_within(&self, keys: usize) -> bool {
        self.by_key.len() <= keys && self.order.len() <= 2 * keys
    }
}
