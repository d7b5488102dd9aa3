//! Dropping everything under a prefix: by SCAN and UNLINK, in steps small enough that no
//! other client notices ([`pace`](super::pace)). Never KEYS, never FLUSHDB: others may live in
//! this Redis.
//!
//! SCAN promises every key that is there from its beginning to its end. So where nothing can be
//! stored any more, one pass removes all: whatever is there was there when it began. What a pass
//! costs is the whole Redis, not what goes: others' keys are looked at, too. So there is
//! no pass more than must be.
//!
//! * *A gap* ([`Shut::State`]): while the state is invalid no lease is given, and no fill accepted
//!   (`fill.lua` looks), whatever lease it has. One pass takes leases and values as they come. (Were
//!   a fill accepted, by a script that does not look: its lease would go in this pass, and what it
//!   stored in the gap's second purge. `tests/model/` has it that way.)
//! * *A cache* ([`Shut::Caches`]): it is closed in a state that is valid. No lease is given for it,
//!   but a fill under a lease from before is accepted: it names its key and not its
//!   cache. In one pass it could be stored where the scan has been, and its lease be gone when
//!   the scan comes to that. So a pass removes all leases, and only then one removes values.
//!
//! If Redis comes back with an older, valid state meanwhile, the session is lost, and whoever
//! called begins anew.

use std::time::Instant;

use redis::aio::MultiplexedConnection;

use super::error::StoreError;
use super::pace::Pace;
use super::scan::{Scan, way};
use super::session::Session;

/// What keeps fills away while a purge goes on; the caller has seen to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shut {
    /// The state is invalid.
    State,
    /// The state is valid, and the caches are closed.
    Caches,
}

/// Removes all keys under `prefixes` and their leases; says how many values there were.
pub async fn purge(session: &Session, prefixes: &[&[u8]], shut: Shut) -> Result<u64, StoreError> {
    if prefixes.is_empty() {
        return Ok(0);
    }
    let leases: Vec<Vec<u8>> =
        prefixes.iter().map(|prefix| session.keys().leases_of(prefix)).collect();
    let values: Vec<Vec<u8>> = prefixes.iter().map(|prefix| prefix.to_vec()).collect();
    let passes = match shut {
        Shut::State => vec![[leases.clone(), values].concat()],
        Shut::Caches => vec![leases.clone(), values],
    };
    let mut connection = session.connection();
    let mut removed = 0;
    for pass in passes {
        removed += unlink_under(&mut connection, pass, &leases).await?;
    }
    Ok(removed)
}

/// Says how many there were that are no leases.
async fn unlink_under(
    connection: &mut MultiplexedConnection,
    prefixes: Vec<Vec<u8>>,
    leases: &[Vec<u8>],
) -> Result<u64, StoreError> {
    let mut pace = Pace::new(way(connection).await?);
    let mut scan = Scan::new(prefixes);
    let mut removed = 0;
    while let Some(keys) = scan.next(connection).await? {
        let is_lease = |key: &Vec<u8>| leases.iter().any(|lease| key.starts_with(lease));
        let (leases, values): (Vec<_>, Vec<_>) = keys.into_iter().partition(is_lease);
        unlink(connection, &mut pace, &leases).await?;
        removed += unlink(connection, &mut pace, &values).await?;
    }
    Ok(removed)
}

async fn unlink(
    connection: &mut MultiplexedConnection,
    pace: &mut Pace,
    mut keys: &[Vec<u8>],
) -> Result<u64, StoreError> {
    let mut removed = 0;
    while !keys.is_empty() {
        let (some, rest) = keys.split_at(keys.len().min(pace.keys()));
        let asked = Instant::now();
        removed += redis::cmd("UNLINK").arg(some).query_async::<u64>(connection).await?;
        pace.took(some.len(), asked.elapsed());
        keys = rest;
    }
    Ok(removed)
}
