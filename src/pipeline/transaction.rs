//! A committed transaction as the pipeline carries it: what it touches, never its rows.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::OwnedSemaphorePermit;

use super::lookups::LookupPlans;
use crate::lsn::Lsn;
use crate::mapping::changes::ChangeSet;
use crate::snapshot::Xid;
use crate::status::heartbeat::Beat;

/// A committed transaction, decoded and mapped.
#[derive(Debug)]
pub struct Transaction {
    /// As the stream names it.
    pub xid: Xid,
    /// Where its commit record begins.
    pub commit_lsn: Lsn,
    /// Where its commit record ends: what is acknowledged once it is applied.
    pub end_lsn: Lsn,
    /// The server's clock at the commit: microseconds since 2000-01-01 UTC.
    pub committed_at: i64,
    /// How long after that it was sent, by the same clock; in microseconds.
    pub sent_after: i64,
    /// When its commit was read from the stream.
    pub received_at: Instant,
    /// The heartbeat that it carries.
    pub heartbeat: Option<Beat>,
    /// From its commit on a publication may be another one.
    pub alters_publication: bool,
    /// What it touches.
    pub changes: ChangeSet,
    /// The lookups as they were compiled for its rows.
    pub plans: Arc<LookupPlans>,
    /// Its share of what may be decoded ahead; given back when it is applied or parked.
    pub share: Option<OwnedSemaphorePermit>,
}
