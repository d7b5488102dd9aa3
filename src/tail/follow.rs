//! The connection: a temporary slot, its stream, and the queries of the commit lines.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::MissedTickBehavior;

use super::line::Commit;
pub use super::line::Format;
pub use super::transaction::Selection;
use super::transaction::{Committed, Printer, Step};
use crate::config::problem::nearest;
use crate::lsn::Lsn;
use crate::mapping::Mapping;
use crate::mapping::name::{Quoted, TableName};
use crate::pgoutput::message::{Relation, ReplicaIdentity};
use crate::pipeline::assemble::{Dialect, StreamError};
use crate::pipeline::lookups::Lookups;
use crate::postgres::client::SqlClient;
use crate::postgres::conninfo::ConnectOptions;
use crate::postgres::error::PgError;
use crate::postgres::feedback::FeedbackWriter;
use crate::postgres::frames::{Frame, FrameReader};
use crate::postgres::gate::Gate;
use crate::postgres::publication::Publication;
use crate::postgres::relation::TableShape;
use crate::postgres::replication::{PgoutputOptions, ReplicationConnection};
use crate::postgres::server::ServerFacts;
use crate::postgres::slot::writers;
use crate::snapshot::Xid;

/// Lines are handed on in pieces of about this size while there is more to read.
const PIECE: usize = 64 << 10;

/// How long a commit line waits for its transaction to become visible. Behind a hung
/// synchronous standby that may take for ever, and the lines after it wait, too.
const VISIBLE_WITHIN: Duration = Duration::from_secs(5);

/// A stream that is silent this long is dead: the server answers the feedback.
const DEAD: Duration = Duration::from_secs(60);

/// What is followed.
pub struct Follow {
    /// Where.
    pub connect: ConnectOptions,
    /// The publication whose tables are followed.
    pub publication: String,
    /// How long a rule's query may run.
    pub statement_timeout: Duration,
    /// The rules.
    pub mapping: Arc<Mapping>,
    /// Past so many keys a transaction drops whole caches.
    pub max_keys: usize,
    /// What is printed.
    pub selection: Selection,
}

/// Why it ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Everything asked for was printed.
    Done,
    /// Nobody reads any more.
    ReaderGone,
}

/// Why it cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// Postgres failed, or cannot be reached.
    #[error(transparent)]
    Postgres(#[from] PgError),
    /// What came is no stream.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The database is not set up for it: what, and how to mend it.
    #[error("{0}")]
    NotSetUp(String),
    /// There is no such table.
    #[error("{0}")]
    NoSuchTable(String),
}

impl Follow {
    /// Follows until everything asked for is printed or nobody reads any more. Lines go to
    /// `lines`, in pieces that end with a line; what is worth telling beside them to `say`.
    pub async fn run(
        self,
        lines: mpsc::Sender<Vec<u8>>,
        say: impl Fn(&str),
    ) -> Result<Ended, FollowError> {
        let client = SqlClient::connect(&self.connect, self.statement_timeout).await?;
        let facts = ServerFacts::read(&client).await?;
        self.check(&client, &facts, &say).await?;

        let mut replication = ReplicationConnection::connect(&self.connect).await?;
        let slot = format!("unstale_tail_{}_{:08x}", std::process::id(), fastrand::u32(..));
        let from = create_slot(&client, &mut replication, &slot, &say).await?;
        let options = PgoutputOptions {
            protocol: Dialect::WHOLE.protocol.number(),
            publications: vec![self.publication.clone()],
            streaming: Dialect::WHOLE.streaming.into(),
            messages: false,
            binary: false,
        };
        let (reader, writer) = replication.start_replication(&slot, from, &options).await?;
        say(&format!(
            "following from LSN {from}: publication {}, temporary slot {slot}",
            self.publication
        ));

        let heard = watch::Sender::new((from, from));
        let asked = Notify::new();
        let every = facts
            .wal_sender_timeout
            .map_or(Duration::from_secs(1), |timeout| (timeout / 3).min(Duration::from_secs(1)));
        let feedback = feedback(writer, heard.subscribe(), &asked, every);
        let reading = Reading {
            resolver: Resolver {
                gate: Gate::open(client).await?,
                lookups: Lookups::new(self.max_keys),
            },
            printer: Printer::new(Arc::clone(&self.mapping), self.selection.clone(), self.max_keys),
            follow: &self,
            reader,
            lines,
            heard: &heard,
            asked: &asked,
        };
        // Reading first: the server's own words say more than a feedback that failed.
        tokio::select! {
            biased;
            ended = Box::pin(reading.run(&say)) => ended,
            error = feedback => Err(error.into()),
        }
    }

    async fn check(
        &self,
        client: &SqlClient,
        facts: &ServerFacts,
        say: &impl Fn(&str),
    ) -> Result<(), FollowError> {
        if facts.in_recovery {
            return Err(FollowError::NotSetUp(
                "this server is a standby, whose snapshots do not tell what is in progress: let postgres.url name the primary"
                    .to_owned(),
            ));
        }
        if facts.wal_level != "logical" {
            return Err(FollowError::NotSetUp(format!(
                "wal_level is {}: run ALTER SYSTEM SET wal_level = 'logical'; and restart Postgres",
                facts.wal_level
            )));
        }
        let name = &self.publication;
        let Some(publication) = Publication::read(client, name).await? else {
            return Err(FollowError::NotSetUp(format!(
                "publication {name} does not exist: run `unstale setup`, or `unstale setup --print` for the SQL"
            )));
        };
        let published: Vec<TableName> =
            publication.tables.iter().map(|t| TableName::new(&t.schema, &t.name)).collect();
        for table in &self.selection.tables {
            if published.contains(table) {
                continue;
            }
            if TableShape::read(client, &table.schema, &table.table).await?.is_some() {
                return Err(FollowError::NotSetUp(format!(
                    "publication {name} lacks {table}: run ALTER PUBLICATION {} ADD TABLE {table}; (give the table its replica identity first, see `unstale setup --print`)",
                    Quoted(name)
                )));
            }
            let known: Vec<String> = published.iter().map(ToString::to_string).collect();
            let near = nearest(&table.to_string(), known.iter().map(String::as_str));
            let hint = match near {
                Some(near) => format!("did you mean {near}?"),
                None => format!("publication {name} has {}", known.join(", ")),
            };
            return Err(FollowError::NoSuchTable(format!("there is no table {table}; {hint}")));
        }
        let missing: Vec<String> = self
            .mapping
            .tables()
            .filter(|(_, table)| !published.contains(&table.name))
            .map(|(_, table)| table.name.to_string())
            .collect();
        if !missing.is_empty() {
            say(&format!(
                "warning: publication {name} lacks {}: their changes do not come through (`unstale setup` adds them)",
                missing.join(", ")
            ));
        }
        Ok(())
    }
}

/// Creates the slot; the server waits for every transaction that is writing to end, so
/// says whom for.
async fn create_slot(
    client: &SqlClient,
    replication: &mut ReplicationConnection,
    slot: &str,
    say: &impl Fn(&str),
) -> Result<Lsn, FollowError> {
    let creating = replication.create_temporary_slot(slot);
    tokio::pin!(creating);
    loop {
        match tokio::time::timeout(Duration::from_secs(3), &mut creating).await {
            Ok(created) => return Ok(created?),
            Err(_) => say(&format!(
                "Postgres makes the slot when open writing transactions have ended; waiting for {}",
                writers(client).await?.join("; ")
            )),
        }
    }
}

/// Tells the server what was received and handed on, until the connection ends.
async fn feedback(
    mut writer: FeedbackWriter,
    mut heard: watch::Receiver<(Lsn, Lsn)>,
    asked: &Notify,
    every: Duration,
) -> PgError {
    let mut clock = tokio::time::interval(every);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = clock.tick() => {}
            () = asked.notified() => {}
        }
        let (received, handed_on) = *heard.borrow_and_update();
        // It always answers: a dead connection is noticed, and how far it has read is known.
        if let Err(error) = writer.status(received, handed_on, handed_on, true).await {
            return error;
        }
    }
}

struct Reading<'a> {
    follow: &'a Follow,
    reader: FrameReader,
    printer: Printer,
    resolver: Resolver,
    lines: mpsc::Sender<Vec<u8>>,
    /// What was received, and what was handed on.
    heard: &'a watch::Sender<(Lsn, Lsn)>,
    asked: &'a Notify,
}

impl Reading<'_> {
    async fn run(mut self, say: &impl Fn(&str)) -> Result<Ended, FollowError> {
        let until = self.follow.selection.until;
        let mut out = Vec::new();
        loop {
            let (mut received, mut ended) = (Lsn::ZERO, None);
            while let Some(frame) = self.reader.next()? {
                match frame {
                    Frame::XLogData { wal_start, data, .. } => {
                        match self.printer.take(wal_start, data, &mut out)? {
                            Step::Nothing => {}
                            Step::Done => ended = Some(Ended::Done),
                            Step::Relation(relation) => {
                                let key = self.resolver.primary_key(&relation).await?;
                                for problem in self.printer.describe(relation, &key) {
                                    say(&format!("warning: {problem}"));
                                }
                            }
                            Step::Committed(committed) => {
                                received = committed.end;
                                if until.is_some_and(|until| committed.end >= until) {
                                    ended = Some(Ended::Done);
                                }
                                let (follow, format) = (self.follow, self.follow.selection.format);
                                if committed.changes > 0 {
                                    let line =
                                        self.resolver.resolve(&follow.mapping, committed).await?;
                                    line.write(format, &mut out);
                                }
                            }
                        }
                    }
                    Frame::Keepalive { wal_end, reply_requested, .. } => {
                        if reply_requested {
                            self.asked.notify_one();
                        }
                        if !self.printer.is_inside_transaction() {
                            received = received.max(wal_end);
                            if until.is_some_and(|until| wal_end >= until) {
                                ended = Some(Ended::Done);
                            }
                        }
                    }
                    Frame::CopyDone => {
                        return Err(PgError::lost("the server ended the stream").into());
                    }
                }
                if ended.is_some() {
                    break;
                }
                if out.len() >= PIECE && self.lines.send(std::mem::take(&mut out)).await.is_err() {
                    return Ok(Ended::ReaderGone);
                }
            }
            if !out.is_empty() && self.lines.send(std::mem::take(&mut out)).await.is_err() {
                return Ok(Ended::ReaderGone);
            }
            if let Some(ended) = ended {
                return Ok(ended);
            }
            self.heard.send_if_modified(|heard| {
                let later = received > heard.0;
                if later {
                    *heard = (received, received);
                }
                later
            });
            tokio::select! {
                filled = tokio::time::timeout(DEAD, self.reader.fill()) => match filled {
                    Ok(filled) => filled?,
                    Err(_) => {
                        return Err(PgError::timeout(format!("Postgres was silent for {DEAD:?}")).into());
                    }
                },
                () = self.lines.closed() => return Ok(Ended::ReaderGone),
            }
        }
    }
}

/// Asks the database what the stream does not say.
struct Resolver {
    gate: Gate,
    lookups: Lookups,
}

impl Resolver {
    /// The primary key as the catalog has it now. Of a table that is gone by now: none.
    async fn primary_key(&self, relation: &Relation) -> Result<Vec<Box<str>>, PgError> {
        if relation.identity == ReplicaIdentity::Default {
            let keys = relation.columns.iter().filter(|column| column.key);
            return Ok(keys.map(|column| column.name.clone()).collect());
        }
        let (schema, name) = (&*relation.namespace, &*relation.name);
        let shape = TableShape::read(self.gate.client(), schema, name).await?;
        Ok(shape.map(|shape| shape.primary_key).unwrap_or_default())
    }

    /// Runs the rules' queries for a transaction; its commit line.
    async fn resolve<'m>(
        &mut self,
        mapping: &'m Mapping,
        committed: Committed,
    ) -> Result<Commit<'m>, PgError> {
        let Committed { head, end, changes, mut reached, plans } = committed;
        let mut line = Commit::new(head, end, changes);
        if reached.lookups().next().is_some() {
            if !self.wait_until_visible(head.xid).await? {
                line.problems.push(format!(
                    "the queries ran before the transaction was visible: after {VISIBLE_WITHIN:?} it still waits for a synchronous standby"
                ));
            }
            let outcomes =
                self.lookups.run(self.gate.client(), mapping, &plans, &mut reached).await?;
            line.problems.extend(outcomes.into_iter().filter_map(|(_, complaint)| complaint));
        }
        for (cache, reason, origin) in reached.whole() {
            line.drops_whole(mapping, cache, reason, origin.rule);
        }
        let found = |rule| mapping.rule(rule).is_some_and(|rule| rule.via().is_some());
        line.keys = reached
            .keys()
            .filter(|(_, origin)| found(origin.rule))
            .map(|(key, _)| key.to_string())
            .collect();
        line.keys.sort_unstable();
        Ok(line)
    }

    async fn wait_until_visible(&self, xid: Xid) -> Result<bool, PgError> {
        let start = Instant::now();
        let mut pause = Duration::from_millis(1);
        loop {
            if self.gate.snapshot().await?.shows(xid) {
                return Ok(true);
            }
            if start.elapsed() > VISIBLE_WITHIN {
                return Ok(false);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }
}
