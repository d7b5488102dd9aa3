//! Whether warming waits for the stream to catch up. Pure.
//!
//! Both ask the same database, and a change that is applied late is worse than an entry that is
//! missing: while much is left to apply, changes go first. (A drain took two to three times as
//! long with warming as without.) Between the bounds nothing changes, so that it does not
//! flicker.

/// What is behind, and what follows from it.
#[derive(Debug, Clone, Copy)]
pub struct Backlog {
    /// In bytes of WAL; 0: warming never waits.
    most: u64,
    held_back: bool,
}

impl Backlog {
    /// Warming waits past so many bytes, until half of them are caught up.
    #[must_use]
    pub fn new(most: u64) -> Self {
        Backlog { most, held_back: false }
    }

    /// Whether warming waits now that the stream is so far behind.
    pub fn waits(&mut self, behind: u64) -> bool {
        let bound = if self.held_back { self.most / 2 } else { self.most };
        self.held_back = self.most > 0 && behind > bound;
        self.held_back
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warming_waits_past_the_bound_and_until_half_of_it_is_caught_up() {
        let mut backlog = Backlog::new(100);
        let seen = [0, 100, 101, 100, 51, 50, 99, 100, 101, 0];
        let waits = seen.map(|behind| backlog.waits(behind));
        assert_eq!(waits, [false, false, true, true, true, false, false, false, true, false]);
    }

    #[test]
    fn with_no_bound_it_never_waits() {
        assert!(!Backlog::new(0).waits(u64::MAX));
    }
}
