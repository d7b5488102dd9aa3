//! Replication slots, as SQL sees them.

use tokio_postgres::types::PgLsn;

use super::client::SqlClient;
use super::error::PgError;
use crate::lsn::Lsn;

/// A row of `pg_replication_slots`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotState {
    /// The slot's name, unique in the cluster.
    pub name: String,
    /// The output plug-in; `None` for a physical slot.
    pub plugin: Option<String>,
    /// The database; `None` for a physical slot.
    pub database: Option<String>,
    /// The walsender that reads it.
    pub active_pid: Option<i32>,
    /// What its consumer has acknowledged.
    pub confirmed_flush: Option<Lsn>,
    /// The oldest WAL that it holds back; `None` once it is lost.
    pub restart_lsn: Option<Lsn>,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// How much more WAL may be written until it may be lost; `None` if nothing limits it.
    pub safe_wal_size: Option<i64>,
    /// Whether prepared transactions are decoded at PREPARE.
    pub two_phase: bool,
    /// Whether it ends with its session.
    pub temporary: bool,
    /// Why it is lost (Postgres 17 and later).
    pub invalidation_reason: Option<String>,
    /// Whether it is synchronized to standbys (Postgres 17 and later).
    pub failover: bool,
}

// What a version lacks is null: the row is looked into as JSON.
const SLOT: &str = "\
SELECT slot_name::text, plugin::text, database::text, active_pid, confirmed_flush_lsn,
       restart_lsn, wal_status, safe_wal_size,
       coalesce((to_jsonb(s) ->> 'two_phase')::bool, false), temporary,
       coalesce(to_jsonb(s) ->> 'invalidation_reason', to_jsonb(s) ->> 'conflict_reason'),
       coalesce((to_jsonb(s) ->> 'failover')::bool, false)
  FROM pg_catalog.pg_replication_slots s
 WHERE slot_name = $1::text::name";

impl SlotState {
    /// Looks for a slot in the whole cluster.
    pub async fn read(client: &SqlClient, name: &str) -> Result<Option<SlotState>, PgError> {
        let asked = async { client.query_opt(&client.known(SLOT).await?, &[&name]).await };
        let row =
            asked.await.map_err(|error| PgError::from(error).during("reading the slot's state"))?;
        let Some(row) = row else { return Ok(None) };
        let position = |column: usize| -> Result<Option<Lsn>, PgError> {
            Ok(row.try_get::<_, Option<PgLsn>>(column)?.map(|lsn| Lsn(lsn.into())))
        };
        Ok(Some(SlotState {
            name: row.try_get(0)?,
            plugin: row.try_get(1)?,
            database: row.try_get(2)?,
            active_pid: row.try_get(3)?,
            confirmed_flush: position(4)?,
            restart_lsn: position(5)?,
            wal_status: row.try_get(6)?,
            safe_wal_size: row.try_get(7)?,
            two_phase: row.try_get(8)?,
            temporary: row.try_get(9)?,
            invalidation_reason: row.try_get(10)?,
            failover: row.try_get(11)?,
        }))
    }

    /// Whether the server has removed WAL that the slot needed, or invalidated it otherwise:
    /// it can never be read again.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.wal_status.as_deref() == Some("lost") || self.invalidation_reason.is_some()
    }

    /// Whether it is a permanent slot of `pgoutput` in `database`: one that this program
    /// could have made.
    #[must_use]
    pub fn fits(&self, database: &str) -> bool {
        self.plugin.as_deref() == Some("pgoutput")
            && self.database.as_deref() == Some(database)
            && !self.temporary
    }
}

/// Drops a slot; false if there was none. Needs that nobody reads it.
pub async fn drop_slot(client: &SqlClient, name: &str) -> Result<bool, PgError> {
    // In one statement, so that a slot that is not there is no error.
    const DROP: &str = "\
SELECT pg_catalog.pg_drop_replication_slot(slot_name)
  FROM pg_catalog.pg_replication_slots WHERE slot_name = $1::text::name";
    let dropped = client
        .query(DROP, &[&name])
        .await
        .map_err(|error| PgError::from(error).during(&format!("dropping the slot {name}")))?;
    Ok(!dropped.is_empty())
}

/// Who is writing in a transaction that is still open, the oldest first: whom the making of
/// a slot waits for. What the role may not see is left out.
pub async fn writers(client: &SqlClient) -> Result<Vec<String>, PgError> {
    // A prepared transaction has no process, and may have been forgotten by whoever made it.
    const WRITERS: &str = "\
SELECT format('%s, open for %s s', who, coalesce(extract(epoch FROM now() - since)::int8::text, '?'))
  FROM (SELECT format('PID %s (%s)', pid, coalesce(usename, '?')) AS who, xact_start AS since
          FROM pg_catalog.pg_stat_activity
         WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
         UNION ALL
        SELECT format('the prepared transaction %L (%s, database %I), which COMMIT PREPARED or ROLLBACK PREPARED ends',
                      gid, owner, database), prepared
          FROM pg_catalog.pg_prepared_xacts) AS open
 ORDER BY since LIMIT 5";
    let rows = client.query(WRITERS, &[]).await?;
    rows.iter().map(|row| row.try_get(0).map_err(PgError::from)).collect()
}
