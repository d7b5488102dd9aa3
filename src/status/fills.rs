//! What this daemon has stored itself, lately: since when a value is there, and from which snapshot.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::latest::Latest;
use crate::lsn::Lsn;

/// One fill that was accepted.
#[derive(Debug, Clone, Copy)]
pub struct Fill {
    /// When it was sent.
    pub at: SystemTime,
    /// For how long.
    pub life: Duration,
    /// The frontier that came with its lease: the snapshot was taken after it.
    pub snapshot: Lsn,
}

/// The last fills, of a bounded number of keys. Behind a lock of its own: who fills never waits
/// for the pipeline.
#[derive(Debug)]
pub(super) struct Fills(Mutex<Latest<Fill>>);

impl Fills {
    pub(super) fn new(capacity: usize) -> Self {
        Fills(Mutex::new(Latest::new(capacity)))
    }

    pub(super) fn note(&self, key: &[u8], fill: Fill) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).note(key, fill);
    }

    pub(super) fn last(&self, key: &[u8]) -> Option<Fill> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).last(key)
    }
}
