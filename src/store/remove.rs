//! Removing entries that nothing has changed: because somebody wants them gone.
//!
//! It goes beside the chain of the daemon, at any time, whether one runs or not. Why that is
//! safe although it neither asks for the nonce nor moves it on:
//!
//! * *The guarantee is about what is stored.* A key that is not there is no stale one. The state
//!   (watermark, frontier, suspects) says what was applied, not what is cached: it stays true.
//! * *A fill is under way.* Its lease goes with the key, in the same script: it will be
//!   voided. What is filled after that has taken its lease after it, and read the database
//!   after that.
//! * *The daemon removes the same key now.* Each finds it or does not; both leave it gone.
//! * *The command arrives late*, after a failover, a restore, a new owner of the slot: it
//!   removes keys that may just have been filled. That costs their next readers a miss.
//! * *The answer was lost.* It may have happened; to do it again is harmless.

use std::sync::LazyLock;

use redis::aio::MultiplexedConnection;
use redis::{Script, Value};

use super::error::StoreError;
use super::keys::ControlKeys;
use super::script::{call, evaluate, unexpected};

static REMOVE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/remove.lua")));

/// How many keys one script takes at the most: it holds Redis for less than a millisecond.
pub const AT_ONCE: usize = 250;

/// What to do with entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Remove them.
    Remove,
    /// See what removing them would remove.
    Count,
}

/// What there was of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Was {
    /// A value.
    pub value: bool,
    /// A lease: somebody computes a value.
    pub lease: bool,
}

/// Removes entries with their leases, at most [`AT_ONCE`] in one atomic step. Says of each, in
/// order, what there was.
///
/// # Errors
/// If Redis did not answer: some may be removed.
pub async fn remove(
    connection: &mut MultiplexedConnection,
    control: &ControlKeys,
    keys: &[Vec<u8>],
    act: Act,
) -> Result<Vec<Was>, StoreError> {
    let mut all = Vec::with_capacity(keys.len());
    for some in keys.chunks(AT_ONCE) {
        let mut command = call(&REMOVE);
        command.arg(some.len()).arg(some).arg(&control.lease_prefix).arg(match act {
            Act::Remove => "remove",
            Act::Count => "count",
        });
        let answer = evaluate(connection, &REMOVE, &command).await?;
        let Value::Array(found) = &answer else { return Err(unexpected(&answer)) };
        for was in found {
            let Value::Int(was @ 0..=3) = was else { return Err(unexpected(was)) };
            all.push(Was { value: was & 1 != 0, lease: was & 2 != 0 });
        }
    }
    Ok(all)
}
