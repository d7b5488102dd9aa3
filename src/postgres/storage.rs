//! The files that tables are stored in, and what belongs to them: what tells of rows that no
//! stream tells of.
//!
//! `ALTER TABLE … TYPE … USING` changes every row and is decoded as an empty transaction;
//! TRUNCATE of a single partition is not replicated by way of its root; ATTACH PARTITION and
//! INHERIT bring rows that were written elsewhere. Each gives a table another file (manual,
//! `pg_class.relfilenode`), or ties another table to it (`pg_inherits`). A partition may be
//! detached, changed and attached again between two looks: its tie is another row of the
//! catalog then.

use super::client::SqlClient;
use super::error::PgError;
use crate::snapshot::Xid;

/// A table, or one of which the rows belong to it, and its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// The mapped table (OID).
    pub table: u32,
    /// It, or a partition or child of it, at any depth (OID).
    pub part: u32,
    /// The file's number; 0 of what holds no rows itself.
    pub file: u32,
    /// What ties it to what is above it: another text after it was cut off and tied again.
    pub ties: String,
    /// Who wrote the catalog's entry last: whoever gave it another file, or changed it since.
    pub writer: Xid,
}

// Temporary children are their own session's alone.
const FILES: &str = "\
WITH RECURSIVE tree AS (
       SELECT given.oid AS above, given.oid AS part, NULL::text AS tie
         FROM unnest($1::oid[]) AS given (oid)
       UNION ALL
       SELECT tree.above, i.inhrelid, concat_ws(' ', i.inhparent, i.xmin)
         FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.part)
SELECT tree.above, c.oid, c.relfilenode, c.xmin::text::int8,
       coalesce(string_agg(DISTINCT tree.tie, ',' ORDER BY tree.tie), '')
  FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.part
 WHERE c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't'
 GROUP BY tree.above, c.oid, c.relfilenode, c.xmin::text ORDER BY tree.above, c.oid";

/// The files of `tables` (OIDs) and of all below them.
pub async fn files(client: &SqlClient, tables: &[u32]) -> Result<Vec<File>, PgError> {
    let asked = async { client.query(&client.known(FILES).await?, &[&tables]).await };
    let rows =
        asked.await.map_err(|error| PgError::from(error).during("looking at the tables' files"))?;
    rows.iter()
        .map(|row| {
            let xid: i64 = row.try_get(3)?;
            let writer = u32::try_from(xid)
                .map_err(|_| PgError::protocol(format!("{xid} where an xid belongs")))?;
            Ok(File {
                table: row.try_get(0)?,
                part: row.try_get(1)?,
                file: row.try_get(2)?,
                ties: row.try_get(4)?,
                writer: Xid(writer),
            })
        })
        .collect()
}
