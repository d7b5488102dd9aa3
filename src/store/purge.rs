//! Dropping everything under a prefix: by SCAN and UNLINK, in steps small enough that no
//! other client notices. Never KEYS, never FLUSHDB: others may live in this Redis.
//!
//! SCAN promises every key that is there from its beginning to its end. So with leases
//! refused and all leases gone, no fill can add a value any more, and one pass over the
//! values removes them all: that is why leases go first, and why the caller makes the
//! state invalid (or closes the cache) before it calls.

use redis::aio::MultiplexedConnection;

use super::error::StoreError;
use super::session::Session;

/// How many keys one SCAN looks at, and one UNLINK removes at the most.
const STEP: usize = 1000;

/// Removes the leases of all keys under `prefixes`, then the values; says how many values
/// there were.
pub async fn purge(session: &Session, prefixes: &[&[u8]]) -> Result<u64, StoreError> {
    if prefixes.is_empty() {
        return Ok(0);
    }
    let leases: Vec<Vec<u8>> =
        prefixes.iter().map(|prefix| session.keys().leases_of(prefix)).collect();
    let leases: Vec<&[u8]> = leases.iter().map(Vec::as_slice).collect();
    let mut connection = session.connection();
    unlink_under(&mut connection, &leases).await?;
    unlink_under(&mut connection, prefixes).await
}

async fn unlink_under(
    connection: &mut MultiplexedConnection,
    prefixes: &[&[u8]],
) -> Result<u64, StoreError> {
    let pattern = pattern(common_prefix(prefixes));
    let mut cursor = 0_u64;
    let mut removed = 0;
    loop {
        let (next, mut keys): (u64, Vec<Vec<u8>>) = redis::cmd("SCAN")
            .arg(cursor)
            .arg("MATCH")
            .arg(&pattern)
            .arg("COUNT")
            .arg(STEP)
            .query_async(connection)
            .await?;
        keys.retain(|key| prefixes.iter().any(|prefix| key.starts_with(prefix)));
        for some in keys.chunks(STEP) {
            removed += redis::cmd("UNLINK").arg(some).query_async::<u64>(connection).await?;
        }
        if next == 0 {
            return Ok(removed);
        }
        cursor = next;
    }
}

/// The longest prefix that all share: one SCAN over the server serves every cache.
pub(super) fn common_prefix<'a>(prefixes: &[&'a [u8]]) -> &'a [u8] {
    let mut prefixes = prefixes.iter().copied();
    let first = prefixes.next().unwrap_or_default();
    prefixes.fold(first, |common, other| {
        let shared = common.iter().zip(other).take_while(|(a, b)| a == b).count();
        common.get(..shared).unwrap_or_default()
    })
}

/// A glob that matches what begins with `prefix`, whatever characters it holds.
pub(super) fn pattern(prefix: &[u8]) -> Vec<u8> {
    let mut pattern = Vec::with_capacity(prefix.len() + 1);
    for &byte in prefix {
        if matches!(byte, b'*' | b'?' | b'[' | b']' | b'\\' | b'^') {
            pattern.push(b'\\');
        }
        pattern.push(byte);
    }
    pattern.push(b'*');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_taken_literally() {
        assert_eq!(pattern(b"a*b[c]\\d?:"), b"a\\*b\\[c\\]\\\\d\\?:*");
    }

    #[test]
    fn one_scan_serves_all_prefixes() {
        assert_eq!(common_prefix(&[b"p:1:v1:org:", b"p:1:v1:user:", b"p:1:v1:x"]), b"p:1:v1:");
        assert_eq!(common_prefix(&[b"a", b"b"]), b"");
        assert_eq!(common_prefix(&[b"ab"]), b"ab");
    }
}
