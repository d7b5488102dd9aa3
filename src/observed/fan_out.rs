//! How many keys transactions reach. Pure.

use serde::{Deserialize, Serialize};

use crate::lsn::Lsn;

/// The greatest size of each class but the last, which has no bound.
pub const BOUNDS: [u64; 9] = [0, 1, 3, 10, 30, 100, 1_000, 10_000, 100_000];

/// Transactions by how many keys they reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FanOut {
    /// By class, as [`BOUNDS`] has them.
    pub classes: [u64; BOUNDS.len() + 1],
    /// Of all transactions.
    pub keys: u64,
    /// The one that reached most.
    pub largest: Option<Largest>,
}

/// A transaction that reached many keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Largest {
    /// How many.
    pub keys: u64,
    /// The end of its commit.
    pub lsn: Lsn,
    /// Its id.
    pub xid: u32,
}

/// A class as it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Class {
    /// So many keys at the least.
    pub from: u64,
    /// And so many at the most; `null`: no bound.
    pub to: Option<u64>,
    /// How many transactions.
    pub transactions: u64,
}

impl FanOut {
    /// A transaction has reached so many keys.
    pub fn count(&mut self, keys: u64, lsn: Lsn, xid: u32) {
        let class = BOUNDS.iter().take_while(|bound| **bound < keys).count();
        if let Some(class) = self.classes.get_mut(class) {
            *class += 1;
        }
        self.keys = self.keys.saturating_add(keys);
        self.largest = self.largest.max(Some(Largest { keys, lsn, xid }).filter(|_| keys > 0));
    }

    /// Those of `other` too.
    pub fn absorb(&mut self, other: FanOut) {
        for (mine, theirs) in self.classes.iter_mut().zip(other.classes) {
            *mine += theirs;
        }
        self.keys = self.keys.saturating_add(other.keys);
        self.largest = self.largest.max(other.largest);
    }

    /// How many transactions there were.
    #[must_use]
    pub fn transactions(&self) -> u64 {
        self.classes.iter().sum()
    }

    /// The classes that have any.
    #[must_use]
    pub fn told(&self) -> Vec<Class> {
        let mut from = 0;
        let mut told = Vec::new();
        let bounds = BOUNDS.into_iter().map(Some).chain([None]);
        for (to, transactions) in bounds.zip(self.classes) {
            if transactions > 0 {
                told.push(Class { from, to, transactions });
            }
            from = to.map_or(from, |to| to + 1);
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_size_is_in_its_class() {
        let mut fan_out = FanOut::default();
        for (n, keys) in [0, 1, 2, 3, 4, 100_000, 100_001, u64::from(u32::MAX)].iter().enumerate() {
            fan_out.count(*keys, Lsn(n as u64), 7);
        }
        let told: Vec<_> =
            fan_out.told().into_iter().map(|c| (c.from, c.to, c.transactions)).collect();
        let expected = [
            (0, Some(0), 1),
            (1, Some(1), 1),
            (2, Some(3), 2),
            (4, Some(10), 1),
            (10_001, Some(100_000), 1),
            (100_001, None, 2),
        ];
        assert_eq!(told, expected);
        assert_eq!((fan_out.transactions(), fan_out.largest.unwrap().lsn), (8, Lsn(7)));
        let mut twice = fan_out;
        twice.absorb(fan_out);
        assert_eq!((twice.transactions(), twice.keys), (16, 2 * fan_out.keys));
    }
}
