//! Looking at everything under some prefixes, by SCAN: in steps that no other client notices.

use redis::aio::MultiplexedConnection;

use super::error::StoreError;
use super::purge::{common_prefix, pattern};

/// How many keys one SCAN looks at.
const STEP: usize = 1000;

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
}

impl Scan {
    /// From the beginning.
    #[must_use]
    pub fn new(prefixes: Vec<Vec<u8>>) -> Self {
        let borrowed: Vec<&[u8]> = prefixes.iter().map(Vec::as_slice).collect();
        let pattern = pattern(common_prefix(&borrowed));
        let cursor = (!prefixes.is_empty()).then_some(0);
        Scan { prefixes, pattern, cursor }
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
        let (next, mut keys): (u64, Vec<Vec<u8>>) = redis::cmd("SCAN")
            .arg(cursor)
            .arg("MATCH")
            .arg(&self.pattern)
            .arg("COUNT")
            .arg(STEP)
            .query_async(connection)
            .await?;
        keys.retain(|key| self.prefixes.iter().any(|prefix| key.starts_with(prefix)));
        self.cursor = (next != 0).then_some(next);
        Ok(Some(keys))
    }
}
