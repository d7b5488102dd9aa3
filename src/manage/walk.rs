//! Looking through keys without hurry: as long as Redis has worked for us, it is left to others.

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;

use crate::store::error::StoreError;
use crate::store::scan::Scan;

/// The shortest pause that is worth its timer: commands are shorter.
const SHORTEST: Duration = Duration::from_millis(2);

/// The longest pause.
pub(super) const LONGEST: Duration = Duration::from_millis(50);

/// A paced [`Scan`].
pub(super) struct Walk {
    scan: Scan,
    /// For how long Redis has worked for us since the last pause.
    took: Duration,
}

impl Walk {
    pub(super) fn new(prefixes: Vec<Vec<u8>>) -> Self {
        Walk { scan: Scan::new(prefixes), took: Duration::ZERO }
    }

    /// The next keys, which may be none; `None` once all were seen.
    pub(super) async fn next(
        &mut self,
        connection: &mut MultiplexedConnection,
    ) -> Result<Option<Vec<Vec<u8>>>, StoreError> {
        if self.took >= SHORTEST {
            tokio::time::sleep(self.took.min(LONGEST)).await;
            self.took = Duration::ZERO;
        }
        let start = Instant::now();
        let keys = self.scan.next(connection).await?;
        self.took += start.elapsed();
        Ok(keys)
    }
}
