//! Dropping everything under a prefix: by SCAN and UNLINK, in steps small enough that no
//! other client notices ([`pace`](super::pace)). Never KEYS, never FLUSHDB: others may live in
//! this Redis.
//!
//! SCAN promises every key that is there from its beginning to its end. So with leases
//! refused and all leases gone, no fill can add a value any more, and one pass over the
//! values removes them all: that is why leases go first, and why the caller makes the
//! state invalid (or closes the cache) before it calls.

use std::time::Instant;

use redis::aio::MultiplexedConnection;

use super::error::StoreError;
use super::pace::Pace;
use super::scan::{Scan, way};
use super::session::Session;

/// Removes the leases of all keys under `prefixes`, then the values; says how many values
/// there were.
pub async fn purge(session: &Session, prefixes: &[&[u8]]) -> Result<u64, StoreError> {
    if prefixes.is_empty() {
        return Ok(0);
    }
    let leases = prefixes.iter().map(|prefix| session.keys().leases_of(prefix)).collect();
    let values = prefixes.iter().map(|prefix| prefix.to_vec()).collect();
    let mut connection = session.connection();
    unlink_under(&mut connection, leases).await?;
    unlink_under(&mut connection, values).await
}

async fn unlink_under(
    connection: &mut MultiplexedConnection,
    prefixes: Vec<Vec<u8>>,
) -> Result<u64, StoreError> {
    let mut pace = Pace::new(way(connection).await?);
    let mut scan = Scan::new(prefixes);
    let mut removed = 0;
    while let Some(keys) = scan.next(connection).await? {
        let mut keys = keys.as_slice();
        while !keys.is_empty() {
            let (some, rest) = keys.split_at(keys.len().min(pace.keys()));
            let asked = Instant::now();
            removed += redis::cmd("UNLINK").arg(some).query_async::<u64>(connection).await?;
            pace.took(some.len(), asked.elapsed());
            keys = rest;
        }
    }
    Ok(removed)
}
