//! The slot, as the server was last seen to speak of it.

use serde::Serialize;

use super::Status;

/// What `wal_status` of a slot may be.
const WAL_STATUS: [&str; 4] = ["reserved", "extended", "unreserved", "lost"];

/// What the server says of the slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SlotSeen {
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// How much more WAL may be written until it may be lost; `null`: nothing limits it.
    pub safe_wal_size: Option<i64>,
    /// Why it is lost (Postgres 17 and later).
    pub invalidation_reason: Option<String>,
    /// How much WAL it holds back.
    pub retained_bytes: u64,
}

impl Status {
    /// What the server says of the slot. Gives its `wal_status` if that is news.
    pub fn slot(&self, seen: SlotSeen) -> Option<String> {
        for status in WAL_STATUS {
            let is = seen.wal_status.as_deref() == Some(status);
            self.metrics.slot_wal_status.with_label_values(&[status]).set(is.into());
        }
        let mut inner = self.lock();
        let before = inner.slot.replace(seen.clone());
        let news = before.is_none_or(|before| before.wal_status != seen.wal_status);
        seen.wal_status.filter(|_| news)
    }
}
