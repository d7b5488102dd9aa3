//! Partitioned tables whose partitions log other old values than their root says.
//!
//! With `publish_via_partition_root` the stream speaks of the root: its Relation message
//! carries the root's replica identity, and whether an old tuple is sent as whole or as key
//! goes by it. But what is *in* the old tuple was logged by the partition, by the
//! partition's own identity, and a new partition does not inherit its root's. Under a FULL
//! root a DEFAULT partition's old rows come as whole rows full of nulls. Nothing in the
//! stream tells.

use super::client::SqlClient;
use super::error::PgError;

// The identity's columns as text, by which root and partition are compared: FULL, NOTHING,
// or the names of the key's columns.
const MISMATCHED: &str = "\
WITH identity AS (
       SELECT c.oid,
              CASE c.relreplident
                WHEN 'f' THEN 'full'
                WHEN 'n' THEN 'nothing'
                ELSE coalesce((SELECT pg_catalog.string_agg(a.attname, ',' ORDER BY a.attname)
                                 FROM pg_catalog.pg_index i
                                 JOIN pg_catalog.pg_attribute a
                                   ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
                                WHERE i.indrelid = c.oid
                                  AND CASE c.relreplident WHEN 'i' THEN i.indisreplident
                                                          ELSE i.indisprimary END), 'nothing')
              END AS columns
         FROM pg_catalog.pg_class c)
SELECT root.oid,
       pg_catalog.bool_or(of_leaf.columns <> of_root.columns)
  FROM unnest($1::oid[]) AS given (oid)
  JOIN pg_catalog.pg_class root ON root.oid = given.oid AND root.relkind = 'p'
  JOIN identity of_root ON of_root.oid = root.oid
  LEFT JOIN LATERAL pg_catalog.pg_partition_tree(root.oid::regclass) leaf ON leaf.isleaf
  LEFT JOIN identity of_leaf ON of_leaf.oid = leaf.relid
 GROUP BY root.oid ORDER BY root.oid";

/// Of `relations` (OIDs) those that are partitioned, each with whether one of its
/// partitions has another identity than the root.
pub async fn partitioned(
    client: &SqlClient,
    relations: &[u32],
) -> Result<Vec<(u32, bool)>, PgError> {
    let asked = async { client.query(&client.known(MISMATCHED).await?, &[&relations]).await };
    let rows = asked.await.map_err(|error| {
        PgError::from(error).during("comparing the partitions' replica identities")
    })?;
    rows.iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get::<_, Option<bool>>(1)?.unwrap_or(false))))
        .collect()
}
