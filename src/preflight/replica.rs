//! The replica, if there is one: reached, a standby of the same database, as far as it must
//! be, and allowed to be read. Nothing of it is a problem: what it does not give, the
//! primary does.

use std::time::Duration;

use super::finding::{Finding, Section};
use crate::mapping::name::Quoted;
use crate::postgres::catalog::Table;
use crate::postgres::client::SqlClient;
use crate::postgres::conninfo::ConnectOptions;
use crate::postgres::error::{Kind, PgError};
use crate::postgres::replication::SystemIdentity;
use crate::postgres::server::ServerFacts;
use crate::postgres::timeline::TimelineWatch;

const HERE: Section = Section::Replica;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// More than this is not caught up while a load waits.
const FAR: u64 = 64 << 20;

/// What the replica says of itself.
#[derive(Debug, Clone)]
pub struct Replica {
    /// As a server.
    pub server: ServerFacts,
    /// The timeline that it replays, or why nobody can tell.
    pub identity: Result<SystemIdentity, Untold>,
    /// The role that reads it.
    pub role: String,
    /// Tables that are read and that this role may not read.
    pub unreadable: Vec<String>,
    /// `recovery_min_apply_delay`
    pub apply_delay: Duration,
    /// `hot_standby_feedback`
    pub feedback: bool,
    /// `max_standby_streaming_delay`; `None`: for ever.
    pub query_grace: Option<Duration>,
    /// Its operating system has the collation's version that the database was made with.
    pub same_collation: bool,
}

/// Why nobody can tell the timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Untold {
    /// The role lacks REPLICATION.
    Privilege,
    /// Something else, in words.
    Other(String),
}

const SETTINGS: &str = "\
SELECT (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'recovery_min_apply_delay')::int8,
       current_setting('hot_standby_feedback') = 'on',
       (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'max_standby_streaming_delay')::int8,
       (SELECT datcollversion IS NOT DISTINCT FROM pg_catalog.pg_database_collation_actual_version(oid)
          FROM pg_catalog.pg_database WHERE datname = current_database()),
       ARRAY(SELECT c.oid::regclass::text FROM pg_catalog.pg_class c
              WHERE c.oid = ANY ($1) AND NOT has_table_privilege(c.oid, 'SELECT') ORDER BY 1)";

impl Replica {
    /// Looks at it. `tables` are those that queries read.
    ///
    /// # Errors
    /// If it cannot be reached, or refuses the login.
    pub async fn read(
        options: &ConnectOptions,
        timeout: Duration,
        tables: impl IntoIterator<Item = &Table>,
    ) -> Result<Replica, PgError> {
        let options = options.clone().with_application_name("unstale check");
        let client = SqlClient::connect(&options, timeout).await?;
        let server = ServerFacts::read(&client).await?;
        let read: Vec<u32> = tables.into_iter().map(|table| table.oid).collect();
        let row = client.query_one(SETTINGS, &[&read]).await.map_err(PgError::from)?;
        let milliseconds = |n: i64| u64::try_from(n).ok().map(Duration::from_millis);
        let untold = |error: PgError| match error.kind() {
            Kind::Privilege => Untold::Privilege,
            _ => Untold::Other(error.to_string()),
        };
        Ok(Replica {
            identity: identity(&options, &client).await.map_err(untold),
            role: options.user().to_owned(),
            server,
            apply_delay: milliseconds(row.try_get(0)?).unwrap_or_default(),
            feedback: row.try_get(1)?,
            query_grace: milliseconds(row.try_get(2)?),
            same_collation: row.try_get(3)?,
            unreadable: row.try_get(4)?,
        })
    }
}

async fn identity(options: &ConnectOptions, client: &SqlClient) -> Result<SystemIdentity, PgError> {
    let watch = TimelineWatch::open(options, PATIENCE).await?;
    TimelineWatch::is_beside(watch.name(), client).await?;
    watch.identify().await
}

/// It could not be looked at.
#[must_use]
pub fn unreachable(reason: &str) -> Finding {
    Finding::warning(HERE, format!("the replica cannot be reached: {reason}"))
        .hint("until then everything is loaded from the primary")
}

/// What is found of it. `wait` is how long a load waits for it.
#[must_use]
pub fn findings(replica: &Replica, primary: &ServerFacts, wait: Duration) -> Vec<Finding> {
    let server = &replica.server;
    if !server.in_recovery {
        let message = "the replica is no standby: it is never read";
        let hint = "let postgres.replica_url name a standby of the server of postgres.url";
        return vec![Finding::warning(HERE, message).hint(hint)];
    }
    if server.system_id != primary.system_id {
        let message = "the replica is a standby of another database: it is never read";
        let hint = "let postgres.replica_url name a standby of the server of postgres.url";
        return vec![Finding::warning(HERE, message).hint(hint)];
    }
    let mut found = vec![history(replica, primary)];
    let tables = &replica.unreadable;
    if !tables.is_empty() {
        let role = Quoted(&replica.role);
        let message = format!("role {} may not read {} there", replica.role, tables.join(", "));
        let sql = tables.iter().map(|table| format!("GRANT SELECT ON TABLE {table} TO {role}"));
        found.push(Finding::warning(HERE, message).sql(sql).hint("on the primary"));
    }
    found.push(distance(replica, primary, wait));
    found.extend(conflicts(replica));
    if !replica.same_collation {
        let message = "the replica's operating system has another version of the database's collation: what queries sort by text may come in another order than from the primary";
        found.push(Finding::warning(HERE, message).hint("bring both systems to the same release"));
    }
    found
}

/// Whether its history is the primary's, and can be told.
fn history(replica: &Replica, primary: &ServerFacts) -> Finding {
    let never = "so it is never read";
    match &replica.identity {
        Ok(identity) if identity.timeline == primary.timeline => {
            let message = format!("a standby of the primary, on its timeline {}", primary.timeline);
            Finding::ok(HERE, message)
        }
        Ok(identity) => {
            let message = format!(
                "the replica replays timeline {}, the primary writes timeline {}: it is not read",
                identity.timeline, primary.timeline
            );
            let hint = "it still follows another primary: see primary_conninfo and recovery_target_timeline there";
            Finding::warning(HERE, message).hint(hint)
        }
        Err(Untold::Privilege) => {
            let message =
                format!("role {} may not ask the replica for its timeline, {never}", replica.role);
            let sql = format!("ALTER ROLE {} REPLICATION", Quoted(&replica.role));
            Finding::warning(HERE, message).sql([sql]).hint("as a superuser, on the primary (managed: the role that stands for it, such as rds_replication)")
        }
        Err(Untold::Other(reason)) => {
            let message = format!("the replica does not tell its timeline, {never}: {reason}");
            let hint = "its pg_hba.conf must let the role in for replication, by the database's name, and max_wal_senders must leave one free";
            Finding::warning(HERE, message).hint(hint)
        }
    }
}

/// Whether it is near enough to be waited for.
fn distance(replica: &Replica, primary: &ServerFacts, wait: Duration) -> Finding {
    let delay = replica.apply_delay;
    if delay >= wait && !delay.is_zero() {
        let message = format!(
            "the replica replays {delay:?} late (recovery_min_apply_delay), and a load waits {wait:?} for it: after a change it is not read for that long"
        );
        return Finding::warning(HERE, message).hint("take a standby without a delay");
    }
    let behind = primary.wal_flush.bytes_since(replica.server.wal_flush);
    let message = format!("{behind} bytes of WAL behind the primary");
    if behind > FAR {
        let hint = "it is not read until it has caught up: see pg_stat_replication on the primary";
        return Finding::warning(HERE, message).hint(hint);
    }
    Finding::ok(HERE, message)
}

/// Whether replay will end queries.
fn conflicts(replica: &Replica) -> Option<Finding> {
    const SHORT: Duration = Duration::from_secs(5);
    let grace = replica.query_grace.filter(|grace| *grace < SHORT)?;
    if replica.feedback {
        return None;
    }
    let message = format!(
        "the replica ends queries that stand in the way of replay after {grace:?}: they are then loaded from the primary"
    );
    let hint = "hot_standby_feedback = on spares most of them, at the price of dead rows kept on the primary; or raise max_standby_streaming_delay";
    Some(Finding::note(HERE, message).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsn::Lsn;
    use crate::preflight::finding::Level;

    fn server(in_recovery: bool) -> ServerFacts {
        ServerFacts {
            version_num: 150_004,
            in_recovery,
            wal_level: "logical".to_owned(),
            system_id: "7".to_owned(),
            // Of a standby this is late, and does not count.
            timeline: if in_recovery { 1 } else { 2 },
            wal_insert: Lsn(1 << 30),
            wal_flush: Lsn(1 << 30),
            max_replication_slots: 10,
            max_wal_senders: 10,
            wal_sender_timeout: None,
            synchronous_commit: "on".to_owned(),
            synchronous_standby_names: String::new(),
            incarnation: String::new(),
        }
    }

    fn replica() -> Replica {
        let identity = SystemIdentity {
            system_id: "7".to_owned(),
            timeline: 2,
            wal_flush: Lsn(1 << 30),
            database: "app".to_owned(),
        };
        Replica {
            server: server(true),
            identity: Ok(identity),
            role: "unstale".to_owned(),
            unreadable: Vec::new(),
            apply_delay: Duration::ZERO,
            feedback: false,
            query_grace: Some(Duration::from_secs(30)),
            same_collation: true,
        }
    }

    fn said(replica: &Replica) -> Vec<(Level, String)> {
        let found = findings(replica, &server(false), Duration::from_millis(100));
        found.into_iter().map(|finding| (finding.level, finding.message)).collect()
    }

    #[test]
    fn a_good_standby_gives_no_warning() {
        let said = said(&replica());
        assert!(said.iter().all(|(level, _)| *level == Level::Ok), "{said:?}");
        assert!(said.iter().any(|(_, text)| text.contains("on its timeline 2")), "{said:?}");
    }

    #[test]
    fn each_reason_why_it_would_not_be_read_is_told() {
        type Change = fn(&mut Replica);
        let cases: [(Change, Level, &str); 9] = [
            (|r| r.server.in_recovery = false, Level::Warning, "is no standby"),
            (|r| r.server.system_id = "8".to_owned(), Level::Warning, "of another database"),
            (|r| r.identity.as_mut().unwrap().timeline = 1, Level::Warning, "replays timeline 1"),
            (|r| r.identity = Err(Untold::Privilege), Level::Warning, "may not ask"),
            (|r| r.identity = Err(Untold::Other("x".to_owned())), Level::Warning, "read: x"),
            (|r| r.unreadable = vec!["deal".to_owned()], Level::Warning, "may not read deal there"),
            (|r| r.apply_delay = Duration::from_secs(9), Level::Warning, "replays 9s late"),
            (|r| r.server.wal_flush = Lsn(0), Level::Warning, "1073741824 bytes of WAL behind"),
            (|r| r.query_grace = Some(Duration::ZERO), Level::Note, "in the way of replay"),
        ];
        for (change, level, text) in cases {
            let mut replica = replica();
            change(&mut replica);
            let said = said(&replica);
            let found = said.iter().any(|(l, message)| *l == level && message.contains(text));
            assert!(found, "{text}: {said:?}");
        }
    }
}
