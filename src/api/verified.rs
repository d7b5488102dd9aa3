//! Tokens that were verified lately: the same text need not be verified again.
//!
//! What a signature says of a text is so forever, and the keys are those of the process. What
//! changes with time is looked at each time: here until when a token counts, by the caller who
//! its user is now. So nobody who lost a right keeps it by being remembered here.
//!
//! A token is found by its whole text, not by a hash of it. Only tokens that were taken get
//! here: whoever has none cannot fill this.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::fast::RandomState;

/// How many are remembered, at the most twice.
const CAPACITY: usize = 4_096;

/// Longer ones are verified each time, so that memory stays bounded.
const LONGEST: usize = 1_024;

/// What follows from a token that is good.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Verified {
    /// The id, as keys have it.
    pub(super) user: Arc<str>,
    /// From when on it counts, and until when, in seconds since 1970.
    pub(super) times: Times,
}

/// `nbf` and `exp` (RFC 7519, section 4.1).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Times {
    pub(super) not_before: Option<f64>,
    pub(super) expires: f64,
}

/// See the module.
#[derive(Default)]
pub(super) struct Remembered(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    young: HashMap<Box<str>, Verified, RandomState>,
    old: HashMap<Box<str>, Verified, RandomState>,
}

impl Times {
    /// Whether it counts now.
    pub(super) fn check(self, now: f64, leeway: f64) -> Result<(), &'static str> {
        if now >= self.expires + leeway {
            return Err("the token has expired");
        }
        if self.not_before.is_some_and(|from| now < from - leeway) {
            return Err("the token is not valid yet");
        }
        Ok(())
    }
}

impl Remembered {
    /// What is known of a token.
    pub(super) fn get(&self, token: &str) -> Option<Verified> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = inner.young.get(token) {
            return Some(known.clone());
        }
        let (token, known) = inner.old.remove_entry(token)?;
        inner.insert(token, known.clone());
        Some(known)
    }

    /// Remembers a token that was taken.
    pub(super) fn put(&self, token: &str, verified: Verified) {
        if token.len() <= LONGEST {
            let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            inner.insert(token.into(), verified);
        }
    }
}

impl Inner {
    /// When the young are many, they become the old ones, and the old ones go.
    fn insert(&mut self, token: Box<str>, verified: Verified) {
        if self.young.len() >= CAPACITY {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(token, verified);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(user: &str) -> Verified {
        let times = Times { not_before: None, expires: 10.0 };
        Verified { user: user.into(), times }
    }

    #[test]
    fn what_is_used_stays_and_memory_is_bounded() {
        let remembered = Remembered::default();
        remembered.put("mine", of("7"));
        for number in 0..3 * CAPACITY {
            remembered.put(&format!("t{number}"), of("8"));
            if number % 1000 == 0 {
                assert_eq!(remembered.get("mine"), Some(of("7")));
            }
        }
        assert_eq!(remembered.get("t0"), None);
        remembered.put(&"x".repeat(LONGEST + 1), of("9"));
        assert_eq!(remembered.get(&"x".repeat(LONGEST + 1)), None);
        let inner = remembered.0.lock().unwrap();
        assert!(inner.young.len() + inner.old.len() <= 2 * CAPACITY);
    }
}
