//! Transactions that the stream may never carry (rule 8, *suspects*).
//!
//! A transaction may have written its commit record before the slot's start, so that it is
//! never streamed, and still be invisible, so that a fill made now lacks it. It is in
//! progress in a snapshot taken after the slot exists, and it still holds its table locks:
//! Postgres makes a transaction visible first and releases its locks then
//! (`CommitTransaction`), and a waiter for a synchronous standby has done neither.

use super::client::SqlClient;
use super::error::PgError;
use crate::snapshot::FullXid;

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XactStatus {
    /// It committed.
    Committed,
    /// It was rolled back, or lost in a crash.
    Aborted,
    /// It runs, or waits for a standby, or is prepared.
    InProgress,
    /// So long ago that the server has forgotten.
    TooOld,
}

// The snapshot is the statement's own, taken before the locks are read. What ends in
// between is not found, and need not be: it is visible to whoever reads from now on.
// One reading of `pg_locks` serves both sides of the join. A prepared transaction holds its
// locks under a virtual id of its own, so the join finds it, too.
const SUSPECTS: &str = "\
WITH locks AS MATERIALIZED (
       SELECT locktype, database, relation, transactionid, virtualtransaction, mode
         FROM pg_catalog.pg_locks WHERE granted),
     watched AS (
       SELECT coalesce(p.relid, given.oid) AS oid
         FROM unnest($1::oid[]) AS given (oid)
         LEFT JOIN LATERAL pg_catalog.pg_partition_tree(given.oid::regclass) AS p ON true),
     writers AS (
       SELECT own.transactionid::text::int8 AS xid
         FROM locks AS held
         JOIN locks AS own USING (virtualtransaction)
        WHERE held.locktype = 'relation'
          AND held.database = (SELECT oid FROM pg_catalog.pg_database
                                WHERE datname = pg_catalog.current_database())
          AND held.relation IN (SELECT oid FROM watched)
          AND held.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock',
                            'AccessExclusiveLock')
          AND own.locktype = 'transactionid' AND own.mode = 'ExclusiveLock')
SELECT running.xid::text
  FROM pg_catalog.pg_snapshot_xip(pg_catalog.pg_current_snapshot()) AS running (xid)
 WHERE (running.xid::text::numeric % 4294967296)::int8 IN (SELECT xid FROM writers)
 ORDER BY running.xid";

/// The transactions in progress that may have written to any of `relations` (OIDs; their
/// partitions are included).
///
/// Call it after the slot exists. It first assigns and ends an xid of its own: without
/// one, the snapshot of an otherwise idle server ends before the transactions that
/// run, and lists none of them.
pub async fn suspects(client: &SqlClient, relations: &[u32]) -> Result<Vec<FullXid>, PgError> {
    let during = |error| PgError::from(error).during("looking for suspects");
    client.query_one("SELECT pg_catalog.pg_current_xact_id()::text", &[]).await.map_err(during)?;
    let rows = client.query(SUSPECTS, &[&relations]).await.map_err(during)?;
    rows.iter()
        .map(|row| {
            let xid: &str = row.try_get(0)?;
            xid.parse()
                .map(FullXid)
                .map_err(|_| PgError::protocol(format!("{xid:?} where an xid belongs")))
        })
        .collect()
}

/// What became of a transaction (`pg_xact_status`).
pub async fn xact_status(client: &SqlClient, xid: FullXid) -> Result<XactStatus, PgError> {
    const STATUS: &str = "SELECT pg_catalog.pg_xact_status($1::text::xid8)";
    let row = client
        .query_one(STATUS, &[&xid.to_string()])
        .await
        .map_err(|error| PgError::from(error).during("asking for a transaction's status"))?;
    match row.try_get::<_, Option<&str>>(0)? {
        Some("committed") => Ok(XactStatus::Committed),
        Some("aborted") => Ok(XactStatus::Aborted),
        Some("in progress") => Ok(XactStatus::InProgress),
        None => Ok(XactStatus::TooOld),
        Some(other) => Err(PgError::protocol(format!("{other:?} where a status belongs"))),
    }
}
