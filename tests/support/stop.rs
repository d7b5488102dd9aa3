//! Telling tasks to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Told to stop, or not yet. Copies are told together.
#[derive(Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Not yet, again.
    pub fn clear(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
