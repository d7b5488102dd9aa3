//! Looking at everything under some prefixes, by SCAN: in steps that no other client notices.

use std::collections::BTreeSet;
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
        let pattern = pattern(&prefixes);
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

/// How long the way to Redis and back takes.
pub(super) async fn way(connection: &mut MultiplexedConnection) -> Result<Duration, StoreError> {
    let mut shortest = Duration::MAX;
    for _ in 0..3 {
        let asked = Instant::now();
        // Allowed to the daemon, as PING need not be.
        redis::cmd("TIME").exec_async(connection).await?;
        shortest = shortest.min(asked.elapsed());
    }
    Ok(shortest)
}

/// A glob that matches what begins with one of these, whatever characters they hold, and little
/// else: one SCAN over the server serves all of them, and answers with few keys of others.
fn pattern(prefixes: &[Vec<u8>]) -> Vec<u8> {
    let length = prefixes.iter().map(Vec::len).min().unwrap_or_default();
    let mut pattern = Vec::with_capacity(length + 1);
    for at in 0..length {
        let bytes: BTreeSet<u8> = prefixes.iter().filter_map(|p| p.get(at)).copied().collect();
        match (bytes.len(), bytes.first()) {
            (1, Some(&byte)) => {
                if matches!(byte, b'*' | b'?' | b'[' | b']' | b'\\' | b'^') {
                    pattern.push(b'\\');
                }
                pattern.push(byte);
            }
            _ => {
                pattern.push(b'[');
                pattern.extend(bytes.into_iter().flat_map(|byte| [b'\\', byte]));
                pattern.push(b']');
            }
        }
    }
    pattern.push(b'*');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(prefixes: &[&[u8]]) -> String {
        let prefixes: Vec<Vec<u8>> = prefixes.iter().map(|prefix| prefix.to_vec()).collect();
        String::from_utf8(pattern(&prefixes)).unwrap()
    }

    #[test]
    fn a_prefix_is_taken_literally() {
        assert_eq!(of(&[b"a*b[c]\\d?:"]), "a\\*b\\[c\\]\\\\d\\?:*");
    }

    #[test]
    fn one_scan_serves_all_prefixes() {
        assert_eq!(of(&[b"p:v1:org:", b"p:v1:user:", b"p:v1:us"]), "p:v1:[\\o\\u][\\r\\s]*");
        assert_eq!(of(&[b"a", b"]", b"^", b"-"]), "[\\-\\]\\^\\a]*");
        assert_eq!(of(&[b"ab", b""]), "*");
        assert_eq!(of(&[b"ab"]), "ab*");
    }
}
