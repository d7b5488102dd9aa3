//! A walsender connection: identify, query, create a slot, start the stream (manual,
//! "Streaming Replication Protocol").

use bytes::BytesMut;
use postgres_protocol::escape::escape_literal;
use postgres_protocol::message::frontend;

use super::about::{About, Doing, SLOT_LOST_REMEDY, WAL_LEVEL_REMEDY};
use super::auth;
use super::backend;
use super::conninfo::ConnectOptions;
use super::error::{Class, Kind, PgError};
use super::feedback::FeedbackWriter;
use super::frames::FrameReader;
use super::socket::Stream;
use super::wire::{Wire, tag};
use crate::lsn::Lsn;
use crate::pgoutput::decode;

/// The most that one query may return. What is asked here answers in a few rows.
const RESULT_LIMIT: usize = 16 << 20;

/// Session settings, so that values are printed the same whatever the server's or the
/// role's defaults are. The first six are what Postgres' own subscriber sets; the timeouts
/// would otherwise end a slot's creation, which may wait long behind open transactions.
const SESSION: [(&str, &str); 9] = [
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO"),
    ("IntervalStyle", "postgres"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("TimeZone", "UTC"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_session_timeout", "0"),
];

/// A connection with `replication=database`: it takes replication commands and SQL.
pub struct ReplicationConnection {
    wire: Wire,
    backend_pid: i32,
    about: About,
}

/// What IDENTIFY_SYSTEM answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemIdentity {
    /// Unique to the cluster since `initdb`; kept by standbys and physical copies.
    pub system_id: String,
    /// The timeline; a promotion starts another.
    pub timeline: u32,
    /// How far the WAL is flushed.
    pub wal_flush: Lsn,
    /// The database that this connection is to.
    pub database: String,
}

/// What is asked of `pgoutput` (manual, "Logical Streaming Replication Parameters").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PgoutputOptions {
    /// 1 to 4. Postgres 15 takes 3 at most.
    pub protocol: u32,
    /// At least one.
    pub publications: Vec<String>,
    /// Whether transactions are sent before they end. Needs protocol 2 (parallel: 4).
    pub streaming: Streaming,
    /// Whether `pg_logical_emit_message` is sent.
    pub messages: bool,
    /// Whether values come in their types' binary form.
    pub binary: bool,
}

/// Whether large transactions are sent before they end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streaming {
    /// No: the server spills them to its disk.
    Off,
    /// Yes.
    On,
    /// Yes, with what a parallel apply needs to know.
    Parallel,
}

impl From<decode::Streaming> for Streaming {
    fn from(streaming: decode::Streaming) -> Self {
        match streaming {
            decode::Streaming::Off => Streaming::Off,
            decode::Streaming::On => Streaming::On,
            decode::Streaming::Parallel => Streaming::Parallel,
        }
    }
}

impl ReplicationConnection {
    /// Connects and logs in, within `connect_timeout`.
    pub async fn connect(options: &ConnectOptions) -> Result<ReplicationConnection, PgError> {
        match options.connect_timeout() {
            None => ReplicationConnection::log_in(options).await,
            Some(limit) => {
                tokio::time::timeout(limit, Box::pin(ReplicationConnection::log_in(options)))
                    .await
                    .unwrap_or_else(|_| Err(connect_timed_out(options)))
            }
        }
        .map_err(|error| error.during("replication connection"))
    }

    async fn log_in(options: &ConnectOptions) -> Result<ReplicationConnection, PgError> {
        let about =
            About::new(options.user(), options.database(), Doing::Login { replication: true });
        let mut wire = Wire::new(Stream::open(options).await?);
        wire.send(&startup(options)?).await?;
        auth::authenticate(&mut wire, options, &about).await?;
        wire.logged_in();
        let mut backend_pid = 0;
        loop {
            let message = wire.receive(&about).await?;
            match message.tag {
                tag::BACKEND_KEY_DATA => backend_pid = backend::backend_pid(&message.body)?,
                tag::READY_FOR_QUERY => break,
                other => return Err(unexpected(other, "after the login")),
            }
        }
        let about = about.now(Doing::Query);
        Ok(ReplicationConnection { wire, backend_pid, about })
    }

    /// The server process at the other end, as `pg_stat_replication` and
    /// `pg_replication_slots.active_pid` name it.
    #[must_use]
    pub fn backend_pid(&self) -> i32 {
        self.backend_pid
    }

    /// What the server said of itself at the start, such as `server_version`.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.wire.parameter(name)
    }

    /// Which server this is.
    pub async fn identify_system(&mut self) -> Result<SystemIdentity, PgError> {
        let rows = self.query("IDENTIFY_SYSTEM").await?;
        let identity = match rows.as_slice() {
            [row] => match row.as_slice() {
                [Some(system_id), Some(timeline), Some(wal_flush), Some(database), ..] => {
                    timeline.parse().ok().zip(wal_flush.parse().ok()).map(
                        |(timeline, wal_flush)| SystemIdentity {
                            system_id: system_id.clone(),
                            timeline,
                            wal_flush,
                            database: database.clone(),
                        },
                    )
                }
                _ => None,
            },
            _ => None,
        };
        identity.ok_or_else(|| PgError::protocol("IDENTIFY_SYSTEM was answered in another form"))
    }

    /// Runs SQL or a replication command; the rows of all its statements, in text form.
    ///
    /// Not cancel-safe: a connection whose query was given up must be dropped.
    pub async fn query(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, PgError> {
        let about = self.about.now(Doing::Query);
        self.run(sql, &about).await
    }

    async fn run(&mut self, sql: &str, about: &About) -> Result<Vec<Vec<Option<String>>>, PgError> {
        self.wire.send_query(sql).await?;
        let mut rows = Vec::new();
        let mut size = 0_usize;
        loop {
            let message = match self.wire.receive(about).await {
                Ok(message) => message,
                Err(error) => {
                    // Of an error that the server reported the connection recovers.
                    if error.sqlstate().is_some() && self.wire.resynchronize().await.is_err() {
                        tracing::debug!("the connection ended with the error");
                    }
                    return Err(error);
                }
            };
            match message.tag {
                tag::DATA_ROW => {
                    size = size.saturating_add(message.body.len());
                    if size > RESULT_LIMIT {
                        return Err(PgError::protocol("a query returned more than 16 MiB"));
                    }
                    rows.push(backend::data_row(&message.body)?);
                }
                tag::ROW_DESCRIPTION | tag::COMMAND_COMPLETE | tag::EMPTY_QUERY_RESPONSE => {}
                tag::READY_FOR_QUERY => return Ok(rows),
                other => return Err(unexpected(other, "in answer to a query")),
            }
        }
    }

    /// Creates a permanent logical slot for `pgoutput`; its consistent point.
    ///
    /// This waits until every transaction that was writing when it began has ended, which
    /// may take as long as the longest of them. Dropping the future (and with it the
    /// connection) gives up; the server then removes the unfinished slot.
    pub async fn create_slot(&mut self, name: &str) -> Result<Lsn, PgError> {
        self.create(name, "", "").await
    }

    /// The same, and standbys that synchronize slots keep a copy of it (Postgres 17 and later).
    pub async fn create_failover_slot(&mut self, name: &str) -> Result<Lsn, PgError> {
        self.create(name, "", ", FAILOVER true").await
    }

    /// Lets standbys keep a copy of a slot that is there (Postgres 17 and later).
    pub async fn let_fail_over(&mut self, name: &str) -> Result<(), PgError> {
        let sql = format!("ALTER_REPLICATION_SLOT \"{}\" (FAILOVER true)", slot_name(name)?);
        match self.run(&sql, &self.about.now(Doing::Query)).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.explain(error, name).await.during("altering the slot")),
        }
    }

    /// Creates a slot that ends with this connection. Otherwise as
    /// [`ReplicationConnection::create_slot`], the waiting included.
    pub async fn create_temporary_slot(&mut self, name: &str) -> Result<Lsn, PgError> {
        self.create(name, "TEMPORARY ", "").await
    }

    async fn create(&mut self, name: &str, kind: &str, more: &str) -> Result<Lsn, PgError> {
        let about = self.about.now(Doing::CreateSlot);
        let name = slot_name(name)?;
        let sql = format!(
            "CREATE_REPLICATION_SLOT \"{name}\" {kind}LOGICAL pgoutput (SNAPSHOT 'nothing'{more})"
        );
        let rows = match self.run(&sql, &about).await {
            Ok(rows) => rows,
            Err(error) => return Err(self.explain(error, name).await.during("creating the slot")),
        };
        let point = rows.first().and_then(|row| row.get(1)).and_then(Option::as_deref);
        point.and_then(|lsn| lsn.parse().ok()).ok_or_else(|| {
            PgError::protocol("CREATE_REPLICATION_SLOT was answered in another form")
        })
    }

    /// Starts the stream. The server sends from the later of `from` and the slot's
    /// `confirmed_flush_lsn`, whole transactions only.
    ///
    /// That the publications exist is found out only when the first change comes: the
    /// reader then fails with [`Kind::Missing`].
    pub async fn start_replication(
        mut self,
        slot: &str,
        from: Lsn,
        options: &PgoutputOptions,
    ) -> Result<(FrameReader, FeedbackWriter), PgError> {
        let about = self.about.now(Doing::Stream {
            slot: slot.to_owned(),
            publications: options.publications.clone(),
        });
        self.wire.send_query(&start_command(slot_name(slot)?, from, options)).await?;
        match self.wire.receive(&about).await {
            Ok(message) if message.tag == tag::COPY_BOTH_RESPONSE => {
                let (stream, received) = self.wire.into_parts();
                let (read, write) = tokio::io::split(stream);
                Ok((FrameReader::new(read, &received, about), FeedbackWriter::new(write)))
            }
            Ok(message) => Err(unexpected(message.tag, "in answer to START_REPLICATION")),
            Err(error) => {
                let error = match error.sqlstate() {
                    Some(_) if self.wire.resynchronize().await.is_ok() => {
                        self.explain(error, slot).await
                    }
                    _ => error,
                };
                Err(error.during(&format!("reading the slot {slot}")))
            }
        }
    }

    /// Asks the server for what an error code alone does not tell.
    async fn explain(&mut self, error: PgError, slot: &str) -> PgError {
        match error.sqlstate() {
            // In use: by whom?
            Some("55006") => {
                let sql = format!(
                    "SELECT active_pid FROM pg_catalog.pg_replication_slots WHERE slot_name = {}",
                    escape_literal(slot)
                );
                let pid = self.ask(&sql).await.and_then(|pid| pid.parse::<i32>().ok());
                let remedy = match pid {
                    Some(pid) => format!(
                        "another connection reads the slot: stop that consumer, or wait for it \
                         (SELECT * FROM pg_stat_replication WHERE pid = {pid})"
                    ),
                    None => "another connection was reading the slot and has just ended".to_owned(),
                };
                error.refined(Kind::SlotBusy { pid }, Class::Retry, remedy)
            }
            // Not supported: because this is a standby?
            Some("0A000") => match self.ask("SELECT pg_catalog.pg_is_in_recovery()").await {
                Some(answer) if answer == "t" => error.refined(
                    Kind::Standby,
                    Class::Stop,
                    "this server is a standby: connect to the primary".to_owned(),
                ),
                _ => error,
            },
            // Not in the state that it needs: which of three reasons is it?
            Some("55000") => self.explain_state(error, slot).await,
            _ => error,
        }
    }

    async fn explain_state(&mut self, error: PgError, slot: &str) -> PgError {
        if self.ask("SHOW wal_level").await.is_some_and(|level| level != "logical") {
            return error.refined(Kind::WalLevel, Class::Stop, WAL_LEVEL_REMEDY.to_owned());
        }
        let about_slot = |column: &str| {
            format!(
                "SELECT {column} FROM pg_catalog.pg_replication_slots WHERE slot_name = {}",
                escape_literal(slot)
            )
        };
        if self.ask(&about_slot("wal_status")).await.as_deref() == Some("lost") {
            return error.refined(Kind::SlotLost, Class::Stop, SLOT_LOST_REMEDY.to_owned());
        }
        let elsewhere = about_slot("coalesce(database::text, 'none: it is a physical slot')");
        match self.ask(&elsewhere).await {
            Some(database) => {
                let remedy = format!(
                    "the slot's database is {database}: connect to that one, or name another slot"
                );
                error.refined(Kind::Server, Class::Stop, remedy)
            }
            None => error,
        }
    }

    async fn ask(&mut self, sql: &str) -> Option<String> {
        let rows = self.query(sql).await.ok()?;
        rows.into_iter().next()?.into_iter().next()?
    }
}

pub(super) fn connect_timed_out(options: &ConnectOptions) -> PgError {
    PgError::timeout(format!("no connection to Postgres at {} in time", options.address()))
        .with_remedy("check that the server runs and no firewall drops its packets, or raise connect_timeout")
}

fn unexpected(tag: u8, moment: &str) -> PgError {
    PgError::protocol(format!("the server sent a message of type {:?} {moment}", char::from(tag)))
}

fn startup(options: &ConnectOptions) -> Result<BytesMut, PgError> {
    let mut parameters = vec![
        ("user", options.user()),
        ("database", options.database()),
        ("replication", "database"),
        ("application_name", options.application_name()),
    ];
    parameters.extend(options.server_options().map(|options| ("options", options)));
    parameters.extend(SESSION);
    let mut message = BytesMut::new();
    frontend::startup_message(parameters, &mut message).map_err(|_| {
        PgError::settings("a connection parameter holds a zero byte", "take it out")
    })?;
    Ok(message)
}

/// What can be a slot's name. The grammar of replication commands has no way to write a
/// double quote in one.
fn slot_name(name: &str) -> Result<&str, PgError> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if (1..64).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(name);
    }
    Err(PgError::settings(
        format!("{name:?} cannot be a slot's name"),
        "use lower-case letters, digits and underscores, 63 at the most",
    ))
}

/// In the list of publications, names are quoted as in SQL.
fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// In the grammar of replication commands, there is no `E''`: a backslash is a backslash.
fn quote_string(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn start_command(slot: &str, from: Lsn, options: &PgoutputOptions) -> String {
    let publications = options
        .publications
        .iter()
        .map(|name| quote_identifier(name))
        .collect::<Vec<_>>()
        .join(",");
    let mut command = format!(
        "START_REPLICATION SLOT \"{slot}\" LOGICAL {from} (proto_version '{}', publication_names {}",
        options.protocol,
        quote_string(&publications),
    );
    let mut option = |text: &str| {
        command.push_str(", ");
        command.push_str(text);
    };
    match options.streaming {
        Streaming::Off => {}
        Streaming::On => option("streaming 'on'"),
        Streaming::Parallel => option("streaming 'parallel'"),
    }
    if options.messages {
        option("messages 'true'");
    }
    if options.binary {
        option("binary 'true'");
    }
    command.push(')');
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_postgres_takes_is_a_slot_s_name() {
        assert!(slot_name("unstale_2").is_ok());
        let long = "x".repeat(64);
        for wrong in ["", "A", "a b", "a\"b", "ä", "a-b", long.as_str()] {
            assert!(slot_name(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn no_name_breaks_out_of_the_command() {
        let options = PgoutputOptions {
            protocol: 1,
            publications: vec!["plain".into(), r#"a"b'c,d\"#.into()],
            streaming: Streaming::On,
            messages: true,
            binary: false,
        };
        assert_eq!(
            start_command("slot", Lsn(0x16_B374_D848), &options),
            r#"START_REPLICATION SLOT "slot" LOGICAL 16/B374D848 (proto_version '1', publication_names '"plain","a""b''c,d\"', streaming 'on', messages 'true')"#
        );
    }
}
