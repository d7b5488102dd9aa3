//! Small sets, of transactions and of keys, and small positions.

use std::fmt;

/// Most transactions in a scenario.
pub const TXS: usize = 4;
/// Most keys.
pub const KEYS: usize = 2;

/// A position in the WAL: how many commit records lie before it. The record at position `n`
/// begins at `n` and ends at `n + 1`.
pub type Lsn = u8;

/// A set of small numbers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Set(u8);

/// A set of transactions.
pub type Txs = Set;
/// A set of keys.
pub type Keys = Set;

impl Set {
    pub const EMPTY: Set = Set(0);
    pub const ALL: Set = Set(u8::MAX);

    pub const fn of(members: &[usize]) -> Set {
        let (mut set, mut at) = (0, 0);
        while at < members.len() {
            set |= 1 << members[at];
            at += 1;
        }
        Set(set)
    }

    pub fn contains(self, member: usize) -> bool {
        self.0 & (1 << member) != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn insert(&mut self, member: usize) {
        self.0 |= 1 << member;
    }

    pub fn remove(&mut self, member: usize) {
        self.0 &= !(1 << member);
    }

    pub fn union(self, other: Set) -> Set {
        Set(self.0 | other.0)
    }

    pub fn and(self, other: Set) -> Set {
        Set(self.0 & other.0)
    }

    pub fn minus(self, other: Set) -> Set {
        Set(self.0 & !other.0)
    }

    pub fn is_within(self, other: Set) -> bool {
        self.minus(other).is_empty()
    }

    pub fn first(self) -> Option<usize> {
        (0..8).find(|member| self.contains(*member))
    }

    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..8).filter(move |member| self.contains(*member))
    }

    /// Those below `bound` for which `is_member` holds.
    pub fn those(bound: usize, mut is_member: impl FnMut(usize) -> bool) -> Set {
        let mut set = Set::EMPTY;
        for member in 0..bound {
            if is_member(member) {
                set.insert(member);
            }
        }
        set
    }
}

impl fmt::Debug for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
