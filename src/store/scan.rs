//! Looking at everything under some prefixes, by SCAN: in steps that no other client notices.

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;

use super::error::StoreError;
use super::pace::Pace;

/// A walk over the keys under some prefixes.
///
/// Every key that is there from its beginning to its end is met at least once; one that comes
/// or goes meanwhile may be.
#[derive(Debug)]
pub struct Scan {
    prefixes: Vec<Vec<u8>>,
    pattern: Vec<u8>,
    /// Where to go on; `None`: all was seen.
    cursor: Option<u64>,
    /// How many keys one SCAN looks at, once it is known how far Redis is.
    pace: Option<Pace>,
}

impl Scan {
    /// From the beginning.
    #[must_use]
    pub fn new(prefixes: Vec<Vec<u8>>) -> Self {
        let borrowed: Vec<&[u8]> = prefixes.iter().map(Vec::as_slice).collect();
        let pattern = pattern(common_prefix(&borrowed));
        let cursor = (!prefixes.is_empty()).then_some(0);
        Scan { prefixes, pattern, cursor, pace: None }
    }

    /// The next keys, which may be none; `None` once all were seen.
    ///
    /// # Errors
    /// If Redis did not answer.
    pub async fn next(
        &mut self,
        connection: &mut MultiplexedConnection,
    ) -> Result<Option<Vec<Vec<u8>>>, StoreError> {
        let Some(cursor) = self.cursor else { return Ok(None) };
        if self.pace.is_none() {
            self.pace = Some(Pace::new(way(connection).await?));
        }
        let count = self.pace.as_ref().map_or(1, Pace::keys);
        let asked = Instant::now();
        let (next, mut keys): (u64, Vec<Vec<u8>>) = redis::cmd("SCAN")
            .arg(cursor)
            .arg("MATCH")
            .arg(&self.pattern)
            .arg("COUNT")
            .arg(count)
            .query_async(connection)
            .await?;
        if let Some(pace) = &mut self.pace {
            pace.took(count, asked.elapsed());
        }
        keys.retain(|key| self.prefixes.iter().any(|prefix| key.starts_with(prefix)));
        self.cursor = (next != 0).then_some(next);
        Ok(Some(keys))
    }
}

/// How long the way to Redis and back takes, the next time even if it was long this time.
pub(super) async fn way(connection: &mut MultiplexedConnection) -> Result<Duration, StoreError> {
    let mut shortest = Duration::MAX;
    for _ in 0..3 {
        let asked = Instant::now();
        redis::cmd("PING").exec_async(connection).await?;
        shortest = shortest.min(asked.elapsed());
    }
    Ok(shortest)
}

/// The longest prefix that all share: one SCAN over the server serves every cache.
fn common_prefix<'a>(prefixes: &[&'a [u8]]) -> &'a [u8] {
    let mut prefixes = prefixes.iter().copied();
    let first = prefixes.next().unwrap_or_default();
    prefixes.fold(first, |common, other| {
        let shared = common.iter().zip(other).take_while(|(a, b)| a == b).count();
        common.get(..shared).unwrap_or_default()
    })
}

/// A glob that matches what begins with `prefix`, whatever characters it holds.
fn pattern(prefix: &[u8]) -> Vec<u8> {
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
