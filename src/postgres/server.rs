//! Facts about the server, read in one query that needs no privilege.
//!
//! # The incarnation
//!
//! After a crash recovery, commits that were visible may be gone (asynchronous ones), and
//! neither timeline nor system identifier tell. What does tell, to everybody: a crash
//! recovery discards the cumulative statistics (manual, "The Cumulative Statistics
//! System"), and each of them then counts from that moment, its `stats_reset`. A clean
//! shutdown writes them to disk and keeps `stats_reset`. Found so on Postgres 15, as a
//! role with nothing but REPLICATION and CONNECT:
//!
//! | event | `stats_reset` | `pg_postmaster_start_time()` | checkpointer's `backend_start` |
//! |---|---|---|---|
//! | `restart -m fast`, `-m smart` | stays | changes | not visible to the role |
//! | `restart -m immediate` | changes | changes | – |
//! | kill -9 of the postmaster | changes | changes | – |
//! | kill -9 of a child process | changes | stays | – |
//!
//! An operator may also reset statistics, one view at a time (`pg_stat_reset_shared`). So
//! the incarnation is the *earliest* `stats_reset` of two views. A crash moves both, so
//! the earliest, too: none is missed. Resetting views by hand
//! leaves it mostly as it was, and at worst declares a gap that was none, which is safe.

use std::time::Duration;

use tokio_postgres::types::PgLsn;

use super::client::SqlClient;
use super::error::PgError;
use crate::lsn::Lsn;

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    /// As `server_version_num`: 150004 is 15.4.
    pub version_num: u32,
    /// Whether it is a standby.
    pub in_recovery: bool,
    /// `wal_level`
    pub wal_level: String,
    /// As in IDENTIFY_SYSTEM.
    pub system_id: String,
    /// The timeline that is written to (standby: that of the last restart point).
    pub timeline: u32,
    /// How far WAL is handed out (standby: replayed).
    pub wal_insert: Lsn,
    /// How far WAL is flushed (standby: replayed).
    pub wal_flush: Lsn,
    /// `max_replication_slots`
    pub max_replication_slots: u32,
    /// `max_wal_senders`
    pub max_wal_senders: u32,
    /// `wal_sender_timeout`; `None` if switched off.
    pub wal_sender_timeout: Option<Duration>,
    /// `synchronous_commit` for this role in this database; others may have set it off.
    pub synchronous_commit: String,
    /// `synchronous_standby_names`
    pub synchronous_standby_names: String,
    /// A text that changes when the server recovers from a crash, and not when it is
    /// restarted cleanly.
    pub incarnation: String,
}

/// Whether a slot that this version creates never begins in the middle of a transaction.
/// Before the minor releases of August 2024, slot creation could take over a snapshot that
/// was serialized for another slot, and what was open then came through in part (Postgres
/// commit bb19b700, in 15.8, 16.4 and 17.0).
#[must_use]
pub fn new_slots_begin_whole(version_num: u32) -> bool {
    match version_num / 10_000 {
        ..=14 => false,
        15 => version_num >= 150_008,
        16 => version_num >= 160_004,
        17.. => true,
    }
}

const FACTS: &str = "\
SELECT pg_is_in_recovery(),
       current_setting('wal_level'),
       (SELECT system_identifier::text FROM pg_control_system()),
       CASE WHEN pg_is_in_recovery() THEN (SELECT timeline_id FROM pg_control_checkpoint())::text
            ELSE ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int8::text
       END,
       CASE WHEN pg_is_in_recovery() THEN coalesce(pg_last_wal_replay_lsn(), '0/0')
            ELSE pg_current_wal_insert_lsn() END,
       CASE WHEN pg_is_in_recovery() THEN coalesce(pg_last_wal_replay_lsn(), '0/0')
            ELSE pg_current_wal_flush_lsn() END,
       current_setting('server_version_num'),
       current_setting('max_replication_slots'),
       current_setting('max_wal_senders'),
       (SELECT setting FROM pg_settings WHERE name = 'wal_sender_timeout'),
       current_setting('synchronous_commit'),
       (SELECT extract(epoch FROM coalesce(least(a.stats_reset, b.stats_reset),
                                           pg_postmaster_start_time()))::text
          FROM pg_stat_archiver a, pg_stat_bgwriter b),
       current_setting('synchronous_standby_names')";

impl ServerFacts {
    /// Asks the server.
    pub async fn read(client: &SqlClient) -> Result<ServerFacts, PgError> {
        let row = client
            .query_one(FACTS, &[])
            .await
            .map_err(|error| PgError::from(error).during("reading facts about the server"))?;
        let number = |column: usize| -> Result<u32, PgError> {
            let text: &str = row.try_get(column)?;
            text.parse().map_err(|_| PgError::protocol(format!("{text:?} where a number belongs")))
        };
        let position = |column: usize| -> Result<Lsn, PgError> {
            Ok(Lsn(row.try_get::<_, PgLsn>(column)?.into()))
        };
        let milliseconds = number(9)?;
        Ok(ServerFacts {
            in_recovery: row.try_get(0)?,
            wal_level: row.try_get(1)?,
            system_id: row.try_get(2)?,
            timeline: number(3)?,
            wal_insert: position(4)?,
            wal_flush: position(5)?,
            version_num: number(6)?,
            max_replication_slots: number(7)?,
            max_wal_senders: number(8)?,
            wal_sender_timeout: (milliseconds > 0)
                .then(|| Duration::from_millis(milliseconds.into())),
            synchronous_commit: row.try_get(10)?,
            incarnation: row.try_get(11)?,
            synchronous_standby_names: row.try_get(12)?,
        })
    }
}

/// `synchronous_standby_names` as it is now.
pub async fn synchronous_standby_names(client: &SqlClient) -> Result<String, PgError> {
    let statement = client.known("SELECT current_setting('synchronous_standby_names')").await?;
    let row = client.query_one(&statement, &[]).await?;
    Ok(row.try_get(0)?)
}

/// Whether a setting of `synchronous_standby_names` means this connection, too. Its grammar
/// (manual, "Replication" settings) is a list of names, in double quotes or not, that may
/// stand in `FIRST n (…)` or `ANY n (…)`; `*` is everybody, and case does not count.
#[must_use]
pub fn counts_as_standby(names: &str, application_name: &str) -> bool {
    let mut names = names.chars().peekable();
    let mut name = String::new();
    let mut found = false;
    let mut end = |name: &mut String| {
        found |= name == "*" || name.eq_ignore_ascii_case(application_name);
        name.clear();
    };
    while let Some(next) = names.next() {
        match next {
            '"' => {
                end(&mut name);
                while let Some(quoted) = names.next() {
                    if quoted != '"' || names.next_if_eq(&'"').is_some() {
                        name.push(quoted);
                    } else {
                        break;
                    }
                }
                // Quoted, a star is still everybody.
                end(&mut name);
            }
            ',' | '(' | ')' => end(&mut name),
            space if space.is_ascii_whitespace() => end(&mut name),
            other => name.push(other),
        }
    }
    end(&mut name);
    found
}

/// How far WAL is handed out on a primary: past every commit record that was written
/// before this call.
pub async fn wal_insert(client: &SqlClient) -> Result<Lsn, PgError> {
    let statement = client.known("SELECT pg_catalog.pg_current_wal_insert_lsn()").await?;
    let row = client.query_one(&statement, &[]).await?;
    Ok(Lsn(row.try_get::<_, PgLsn>(0)?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_synchronous_commits_wait_for() {
        for us in [
            "*",
            "unstale",
            "a, Unstale",
            "FIRST 1 (a, unstale)",
            "ANY 2 (a,*,b)",
            "\"UNSTALE\"",
            "2 (\"*\")",
        ] {
            assert!(counts_as_standby(us, "unstale"), "{us}");
        }
        for others in [
            "",
            "a",
            "unstale2",
            "FIRST 1 (a, b)",
            "\"un stale\"",
            "\"a\"\"unstale\"",
            "ANY 1 (\"a,unstale\")",
        ] {
            assert!(!counts_as_standby(others, "unstale"), "{others}");
        }
        assert!(counts_as_standby("\"a\"\"b\"", "a\"b"));
    }

    #[test]
    fn since_when_a_new_slot_begins_whole() {
        let old = [140_013, 150_000, 150_007, 160_000, 160_003];
        assert!(!old.into_iter().any(new_slots_begin_whole));
        let mended = [150_008, 150_014, 160_004, 170_000, 180_001];
        assert!(mended.into_iter().all(new_slots_begin_whole));
    }
}
