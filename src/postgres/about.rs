//! What a server's error code means for what was being done, and what mends it.
//!
//! Codes are those of the manual's appendix A. The same code means different things at
//! different moments (55000 is a missing `wal_level` while a slot is created, and a slot
//! that has lost its WAL while it is read), so the verdict needs to know the moment.

use postgres_protocol::escape::escape_identifier;

use super::error::{Class, Kind};

/// A connection and what it was doing.
#[derive(Debug, Clone)]
pub(super) struct About {
    role: Option<String>,
    database: Option<String>,
    doing: Doing,
}

/// What was being done.
#[derive(Debug, Clone)]
pub(super) enum Doing {
    /// Connecting; `replication` as a walsender.
    Login { replication: bool },
    /// Creating a slot.
    CreateSlot,
    /// Starting to read a slot, or reading it.
    Stream { slot: String, publications: Vec<String> },
    /// Any SQL.
    Query,
}

/// What an error code means.
pub(super) struct Verdict {
    pub(super) kind: Kind,
    pub(super) class: Class,
    pub(super) remedy: Option<String>,
}

impl About {
    pub(super) fn new(role: &str, database: &str, doing: Doing) -> About {
        About { role: Some(role.to_owned()), database: Some(database.to_owned()), doing }
    }

    /// A query on a connection of which nothing is known.
    pub(super) fn a_query() -> About {
        About { role: None, database: None, doing: Doing::Query }
    }

    pub(super) fn now(&self, doing: Doing) -> About {
        About { doing, ..self.clone() }
    }

    /// The role, as SQL names it.
    fn role(&self) -> String {
        self.role.as_deref().map_or_else(|| "ROLE".to_owned(), escape_identifier)
    }

    fn database(&self) -> String {
        self.database.as_deref().map_or_else(|| "DATABASE".to_owned(), escape_identifier)
    }

    /// What the code means, and what to do.
    pub(super) fn judge(&self, sqlstate: &str) -> Verdict {
        let (kind, class, remedy) = self.known(sqlstate).unwrap_or_else(|| by_class(sqlstate));
        Verdict { kind, class, remedy }
    }

    fn known(&self, sqlstate: &str) -> Option<(Kind, Class, Option<String>)> {
        use Class::{Bug, Retry, Stop};
        let (role, database) = (self.role(), self.database());
        let verdict = match (sqlstate, &self.doing) {
            ("28P01", _) => (
                Kind::Login,
                Stop,
                format!(
                    "check the password of {role}: it is taken from the URL, the configuration, \
                 PGPASSWORD or .pgpass, in this order; \
                 ALTER ROLE {role} PASSWORD '…' sets another"
                ),
            ),
            ("28000", _) => (
                Kind::Login,
                Stop,
                format!(
                    "check that the role exists and may log in (CREATE ROLE {role} LOGIN REPLICATION), \
                 and that pg_hba.conf lets it in by this address and with or without TLS as asked \
                 for by sslmode: a line such as `hostssl {database} {role} ADDRESS/32 \
                 scram-sha-256` (`local` for a unix socket; the database by its name, not \
                 `replication`), then SELECT pg_reload_conf(); if the server wants a client certificate, give sslcert \
                     and sslkey"
                ),
            ),
            ("3D000", _) => (
                Kind::NoDatabase,
                Stop,
                format!("check the database's name in the URL, or CREATE DATABASE {database}"),
            ),
            (
                "42501",
                Doing::Login { replication: true } | Doing::CreateSlot | Doing::Stream { .. },
            ) => (
                Kind::Privilege,
                Stop,
                format!(
                    "run as a superuser: ALTER ROLE {role} REPLICATION \
                     (on managed services: GRANT rds_replication TO {role}, or as they name it)"
                ),
            ),
            ("42501", Doing::Login { .. }) => {
                (Kind::Privilege, Stop, format!("GRANT CONNECT ON DATABASE {database} TO {role}"))
            }
            ("42501", Doing::Query) => (
                Kind::Privilege,
                Stop,
                format!(
                    "grant it, such as GRANT SELECT ON TABLE … TO {role} and GRANT USAGE ON SCHEMA … TO {role}"
                ),
            ),
            ("42704", Doing::Stream { slot, publications }) => (
                Kind::Missing,
                Stop,
                format!(
                    "check that the slot {} and the publication {} exist in {database}: \
                 SELECT * FROM pg_replication_slots; SELECT * FROM pg_publication",
                    escape_identifier(slot),
                    publications
                        .iter()
                        .map(|p| escape_identifier(p))
                        .collect::<Vec<_>>()
                        .join(", "),
                ),
            ),
            ("42704" | "42P01" | "42703" | "42883" | "3F000", _) => (
                Kind::Missing,
                Stop,
                "check the name: the object does not exist in this database, or not under this \
                 role's search_path"
                    .to_owned(),
            ),
            ("42710", Doing::CreateSlot) => (
                Kind::Server,
                Stop,
                "a slot of this name exists already: use it, choose another name, or \
                 SELECT pg_drop_replication_slot('…') if nobody needs it"
                    .to_owned(),
            ),
            ("55006", Doing::Stream { .. }) => (
                Kind::SlotBusy { pid: None },
                Retry,
                "another connection reads the slot: stop it, or wait for it to end".to_owned(),
            ),
            ("55000", Doing::CreateSlot) => (Kind::WalLevel, Stop, WAL_LEVEL_REMEDY.to_owned()),
            ("55000", Doing::Stream { .. }) => (Kind::SlotLost, Stop, SLOT_LOST_REMEDY.to_owned()),
            ("53300", _) => (
                Kind::Limit,
                Retry,
                "too many connections: raise max_connections (for replication also \
                 max_wal_senders) and restart Postgres, or close others"
                    .to_owned(),
            ),
            ("53400", _) => (
                Kind::Limit,
                Stop,
                "all replication slots are in use: ALTER SYSTEM SET max_replication_slots = '…' \
                 and restart Postgres, or drop one that nobody reads \
                 (SELECT slot_name, active FROM pg_replication_slots)"
                    .to_owned(),
            ),
            ("57P01" | "57P02" | "57P05", _) => (
                Kind::Lost,
                Retry,
                "the server ended the connection (a shutdown, a crash, or an operator): \
                 it is tried again"
                    .to_owned(),
            ),
            ("57P03", _) => (
                Kind::Starting,
                Retry,
                "the server is starting up, shutting down or recovering: it is tried again"
                    .to_owned(),
            ),
            ("57P04", _) => (Kind::NoDatabase, Stop, "the database was dropped".to_owned()),
            ("57014", _) => (
                Kind::Canceled,
                Retry,
                "the statement ran longer than statement_timeout, or somebody canceled it: raise \
                 postgres.statement_timeout, or make the query faster"
                    .to_owned(),
            ),
            ("25006", _) => (
                Kind::Server,
                Stop,
                "nothing can be written here: the session reads only (a lookup must not write), \
                 or the server is a standby (connect to the primary)"
                    .to_owned(),
            ),
            ("0A000" | "22023", Doing::CreateSlot | Doing::Stream { .. }) => (
                Kind::Server,
                Stop,
                "the slot must be one of pgoutput, and the server must know what is asked of it: \
                 Postgres 15 takes protocol 3 at most, 16 also 4"
                    .to_owned(),
            ),
            ("42601", Doing::Login { .. } | Doing::CreateSlot | Doing::Stream { .. }) => (
                Kind::Protocol,
                Bug,
                "the server does not know this replication command: it needs Postgres 15 or later"
                    .to_owned(),
            ),
            _ => return None,
        };
        Some((verdict.0, verdict.1, Some(verdict.2)))
    }
}

/// What makes logical decoding possible.
pub(super) const WAL_LEVEL_REMEDY: &str = "run as a superuser: \
    ALTER SYSTEM SET wal_level = 'logical', then restart Postgres (a reload is not enough)";

/// What to do about a slot that has lost its WAL.
pub(super) const SLOT_LOST_REMEDY: &str = "the slot can never be read again: drop it with \
    pg_drop_replication_slot and create a new one (what happened in between is a gap); \
    to keep it from happening again raise max_slot_wal_keep_size";

/// What a code's first two characters say (manual, appendix A).
fn by_class(sqlstate: &str) -> (Kind, Class, Option<String>) {
    match sqlstate.get(..2) {
        Some("08") if sqlstate == "08P01" => (Kind::Protocol, Class::Bug, None),
        Some("08") => (Kind::Lost, Class::Retry, None),
        Some("53") => (
            Kind::Limit,
            Class::Retry,
            Some("the server has run out of memory, disk or connections: see its log".to_owned()),
        ),
        // Serialization failures and deadlocks; locks and objects in use; operators; the system.
        Some("40" | "55" | "57" | "58" | "XX") => (Kind::Server, Class::Retry, None),
        Some("25") => (Kind::Server, Class::Retry, None),
        _ => (Kind::Server, Class::Stop, None),
    }
}
