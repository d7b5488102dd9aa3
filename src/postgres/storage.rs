//! The files that tables are stored in: what tells of a rewrite that no stream tells of.
//!
//! `ALTER TABLE … TYPE … USING` changes every row and is decoded as an empty transaction;
//! TRUNCATE of a single partition is not replicated by way of its root; ATTACH PARTITION
//! brings rows that were written elsewhere. Each gives a table another file, or another
//! set of partitions (manual, `pg_class.relfilenode`).

use super::client::SqlClient;
use super::error::PgError;
use crate::snapshot::Xid;

/// A table, or a partition of one, and its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct File {
    /// The mapped table (OID).
    pub table: u32,
    /// It, or the partition of it (OID).
    pub part: u32,
    /// The file's number.
    pub file: u32,
    /// Who wrote the catalog's entry last: whoever gave it another file, or changed it since.
    pub writer: Xid,
}

const FILES: &str = "\
SELECT given.oid, c.oid, c.relfilenode, c.xmin::text::int8
  FROM unnest($1::oid[]) AS given (oid)
  LEFT JOIN LATERAL pg_catalog.pg_partition_tree(given.oid::regclass) AS part ON true
  JOIN pg_catalog.pg_class c ON c.oid = coalesce(part.relid, given.oid)
 WHERE c.relkind = 'r' ORDER BY given.oid, c.oid";

/// The files of `tables` (OIDs) and their partitions.
pub async fn files(client: &SqlClient, tables: &[u32]) -> Result<Vec<File>, PgError> {
    let rows = client
        .query(FILES, &[&tables])
        .await
        .map_err(|error| PgError::from(error).during("looking at the tables' files"))?;
    rows.iter()
        .map(|row| {
            let xid: i64 = row.try_get(3)?;
            let writer = u32::try_from(xid)
                .map_err(|_| PgError::protocol(format!("{xid} where an xid belongs")))?;
            Ok(File {
                table: row.try_get(0)?,
                part: row.try_get(1)?,
                file: row.try_get(2)?,
                writer: Xid(writer),
            })
        })
        .collect()
}
