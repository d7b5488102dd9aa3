//! Leases that their holder lost: with the answer that told of them, or with the answer to
//! their fill.
//!
//! Nobody will ever fill by them, and until they end, every reader of their keys waits in vain.
//! So they are given back with the next command that goes out. That is safe whenever it happens:
//! a lease is only given back by its own token, which nobody else has; and if the fill was
//! accepted after all, its lease is gone already.

use std::sync::{Mutex, PoisonError};

/// More are left to end by themselves.
const MOST: usize = 10_000;

/// A lease's key, and its token.
pub(super) type Token = (Vec<u8>, String);

#[derive(Default)]
pub(super) struct Lost(Mutex<Vec<Token>>);

impl Lost {
    pub(super) fn note(&self, leases: impl IntoIterator<Item = Token>) {
        let mut lost = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MOST.saturating_sub(lost.len());
        lost.extend(leases.into_iter().take(room));
    }

    pub(super) fn take(&self) -> Vec<Token> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
