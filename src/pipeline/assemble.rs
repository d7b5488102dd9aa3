//! From messages to transactions: keeps what a transaction touches while its rows go by.
//! Pure: bytes in, transactions out.
//!
//! Two ways lead here. A transaction that comes after its commit, as a whole, is simply
//! added up. One that comes in blocks while it is in progress is in [`streams`](super::streams)
//! until its end is known.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::lookups::LookupPlans;
pub use super::relations::Unbelieved;
use super::relations::{Relations, Table};
use super::streams::{Committed, Limits, OutOfPlace, Stream, Streams};
use super::transaction::Transaction;
use crate::config::model::{Operation, StreamInProgress};
use crate::lsn::Lsn;
use crate::mapping::Mapping;
use crate::mapping::changes::{ChangeSet, ChangeSink, Escalation, Origin, Room};
use crate::mapping::model::TableId;
use crate::pgoutput::decode::{Decoder, Protocol, Streaming};
use crate::pgoutput::error::DecodeError;
use crate::pgoutput::message::{Begin, Commit, Message, OldTuple, StreamCommit, Truncate, Tuple};
use crate::postgres::announce::{self, Announced};
use crate::snapshot::Xid;
use crate::status::heartbeat::Beat;

/// What is asked of the server, and so what may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    /// The version of the protocol.
    pub protocol: Protocol,
    /// Whether large transactions come while they are in progress.
    pub streaming: Streaming,
}

impl Dialect {
    /// Every transaction comes after its commit.
    pub const WHOLE: Dialect = Dialect { protocol: Protocol::V1, streaming: Streaming::Off };

    /// The best that a server of this version (`server_version_num`) offers, as far as it is
    /// wanted.
    #[must_use]
    pub fn of_server(version_num: u32, wanted: StreamInProgress) -> Dialect {
        match wanted {
            StreamInProgress::Off => Dialect::WHOLE,
            StreamInProgress::On if version_num >= 160_000 => {
                Dialect { protocol: Protocol::V4, streaming: Streaming::Parallel }
            }
            StreamInProgress::On => Dialect { protocol: Protocol::V2, streaming: Streaming::On },
        }
    }
}

/// How much may be kept.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Past this many keys a transaction drops whole caches.
    pub transaction: usize,
    /// Past this many keys of all transactions in progress, the largest does.
    pub in_progress: usize,
}

/// Why the stream cannot be followed any further.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The bytes are no message.
    #[error(
        "malformed message at {lsn}: {source}; report it with this line, and drop the slot to start anew if it persists"
    )]
    Malformed {
        /// Where in the WAL.
        lsn: Lsn,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// A message came where none of its kind can.
    #[error("at {lsn}, {what}: the stream does not follow the protocol; report it with this line")]
    OutOfPlace {
        /// Where in the WAL.
        lsn: Lsn,
        /// What came.
        what: &'static str,
    },
}

/// Assembles the transactions of one replication connection.
pub struct Assembler {
    max_keys: usize,
    decoder: Decoder,
    relations: Relations,
    /// A transaction that has committed and of which rows still come.
    open: Option<Open>,
    /// What the last one left for the next.
    room: Room,
    /// Those in progress.
    streams: Streams,
    /// The heartbeat that came last in a block, and whose it is.
    streamed_beat: Option<(Xid, Beat)>,
    /// The mapped tables by OID: of them a message may tell that they are rewritten.
    mapped: BTreeMap<u32, TableId>,
    mapping: Arc<Mapping>,
}

struct Open {
    begin: Begin,
    changes: ChangeSet,
    heartbeat: Option<Beat>,
    alters_publication: bool,
}

/// A row's change, as one message has it.
struct Row<'a> {
    relation: u32,
    operation: Operation,
    old: Option<OldTuple<'a>>,
    new: Option<Tuple<'a>>,
}

impl Assembler {
    /// For a new connection.
    #[must_use]
    pub fn new(
        mapping: Arc<Mapping>,
        dialect: Dialect,
        bounds: Bounds,
        unbelieved: Unbelieved,
    ) -> Self {
        Assembler {
            max_keys: bounds.transaction,
            decoder: Decoder::new(dialect.protocol, dialect.streaming),
            relations: Relations::new(Arc::clone(&mapping), unbelieved),
            open: None,
            room: Room::default(),
            streams: Streams::new(Limits { each: bounds.transaction, all: bounds.in_progress }),
            streamed_beat: None,
            mapped: BTreeMap::new(),
            mapping,
        }
    }

    /// Takes messages that tell of rewrites of these tables, too.
    #[must_use]
    pub fn told_of(self, mapped: BTreeMap<u32, TableId>) -> Self {
        Assembler { mapped, ..self }
    }

    /// Whether a transaction that has committed has begun to come and not ended.
    #[must_use]
    pub fn is_inside_transaction(&self) -> bool {
        self.open.is_some()
    }

    /// How many transactions in progress there are of which blocks have come, and how many
    /// keys they hold.
    #[must_use]
    pub fn in_progress(&self) -> (usize, usize) {
        (self.streams.len(), self.streams.held())
    }

    /// What is wrong with the tables as they are now: mapped columns that are gone. `None`:
    /// the same as when this was last asked.
    pub fn news_of_problems(&mut self) -> Option<Vec<String>> {
        self.relations.take_news().then(|| self.relations.problems())
    }

    /// Takes one message. `Some`: a transaction is complete.
    pub fn take(&mut self, lsn: Lsn, data: &[u8]) -> Result<Option<Transaction>, StreamError> {
        let decoded =
            self.decoder.decode(data).map_err(|source| StreamError::Malformed { lsn, source })?;
        let xid = decoded.xid;
        let taken = match decoded.message {
            Message::Insert(row) => {
                let (operation, new) = (Operation::Insert, Some(row.new));
                self.row(lsn, xid, Row { relation: row.relation, operation, old: None, new })
            }
            Message::Update(row) => {
                let (operation, new) = (Operation::Update, Some(row.new));
                self.row(lsn, xid, Row { relation: row.relation, operation, old: row.old, new })
            }
            Message::Delete(row) => {
                let (operation, old) = (Operation::Delete, Some(row.old));
                self.row(lsn, xid, Row { relation: row.relation, operation, old, new: None })
            }
            Message::Truncate(truncate) => self.truncate(xid, truncate),
            Message::Begin(begin) => self.begin(begin),
            Message::Commit(commit) => match self.open.take() {
                Some(open) => return Ok(Some(self.complete(open, commit))),
                None => Err("a transaction ends that never began"),
            },
            Message::Relation(relation) => {
                match self.streams.block() {
                    Some(stream) => self.relations.describe_in(&mut stream.tables, relation),
                    None => self.relations.describe(relation),
                }
                Ok(())
            }
            Message::Type(named) => {
                self.relations.name_type(named);
                Ok(())
            }
            Message::StreamStart(_) if self.open.is_some() => {
                Err("a block begins inside of a transaction")
            }
            Message::StreamStart(start) => {
                let plans = self.relations.tables().plans();
                self.streams.start(start.xid, start.first_segment, plans)
            }
            Message::StreamStop => self.streams.stop(),
            Message::StreamAbort(abort) => {
                self.streams.abort(abort.xid, abort.subxid);
                Ok(())
            }
            Message::StreamCommit(commit) => match self.complete_stream(commit) {
                Ok(transaction) => return Ok(Some(transaction)),
                Err(what) => Err(what),
            },
            Message::Logical(message) => match Beat::read(&message) {
                Some(beat) => {
                    self.beat(xid, beat);
                    Ok(())
                }
                None => match Announced::read(&message) {
                    Some(Announced::Rewritten(tables)) => self.rewritten(xid, tables),
                    Some(Announced::Publication) => self.publication_altered(xid),
                    None => Ok(()),
                },
            },
            Message::Origin(_) => Ok(()),
            Message::BeginPrepare(_)
            | Message::Prepare(_)
            | Message::CommitPrepared(_)
            | Message::RollbackPrepared(_)
            | Message::StreamPrepare(_) => {
                Err("a message of a prepared transaction, which was not asked for")
            }
        };
        taken.map(|()| None).map_err(|what| StreamError::OutOfPlace { lsn, what })
    }

    fn begin(&mut self, begin: Begin) -> Result<(), OutOfPlace> {
        if self.open.is_some() {
            return Err("a transaction begins inside of another");
        }
        let changes = ChangeSet::with_room(&mut self.room);
        self.open = Some(Open { begin, changes, heartbeat: None, alters_publication: false });
        Ok(())
    }

    /// `xid`: of whom it is, inside of a block.
    fn row(&mut self, lsn: Lsn, xid: Option<Xid>, row: Row<'_>) -> Result<(), OutOfPlace> {
        match xid {
            Some(xid) => {
                let relations = &self.relations;
                self.streams.change(|Stream { changes, tables, .. }| {
                    let table = tables.get(row.relation);
                    let table = table.or_else(|| relations.tables().get(row.relation));
                    let table = table.ok_or(NOT_DESCRIBED)?;
                    row.check(table)?;
                    changes.written_by(xid);
                    // Where it commits is not known yet: further on than it was written.
                    row.apply(table, lsn, changes);
                    Ok(())
                })
            }
            None => {
                let table = self.relations.tables().get(row.relation).ok_or(NOT_DESCRIBED)?;
                let open = self.open.as_mut().ok_or("a row outside of a transaction")?;
                row.check(table)?;
                row.apply(table, open.begin.final_lsn, &mut open.changes);
                open.changes.limit(self.max_keys);
                Ok(())
            }
        }
    }

    fn truncate(&mut self, xid: Option<Xid>, truncate: Truncate<'_>) -> Result<(), OutOfPlace> {
        let known = self.relations.tables();
        for oid in truncate.relations.iter() {
            if let Some(xid) = xid {
                self.streams.change(|Stream { changes, tables, .. }| {
                    let table = tables.get(oid).or_else(|| known.get(oid)).ok_or(NOT_DESCRIBED)?;
                    changes.written_by(xid);
                    table.plan.iter().for_each(|plan| plan.truncate(changes));
                    Ok(())
                })?;
            } else {
                let table = known.get(oid).ok_or(NOT_DESCRIBED)?;
                let open = self.open.as_mut().ok_or("a row outside of a transaction")?;
                table.plan.iter().for_each(|plan| plan.truncate(&mut open.changes));
            }
        }
        Ok(())
    }

    fn beat(&mut self, xid: Option<Xid>, beat: Beat) {
        match (xid, &mut self.open) {
            (Some(xid), _) => self.streamed_beat = Some((xid, beat)),
            (None, Some(open)) => open.heartbeat = Some(beat),
            (None, None) => {}
        }
    }

    /// Tables are about to be rewritten: all that depends on them goes when that commits.
    ///
    /// In a block it names the transaction, not the subtransaction that wrote it (`pgoutput.c`,
    /// `pgoutput_message`): if that alone is rolled back, more goes than must. Whoever is
    /// rolled back later and began earlier takes it with him, but then it was his.
    fn rewritten(&mut self, xid: Option<Xid>, content: &[u8]) -> Result<(), OutOfPlace> {
        let tables = announce::tables(content).filter_map(|oid| self.mapped.get(&oid));
        let rules = tables.flat_map(|table| self.mapping.rules_of(*table));
        let origins = rules.map(|(rule, model)| Origin {
            rule,
            cache: model.cache,
            operation: Operation::Update,
        });
        match (xid, &mut self.open) {
            (Some(xid), _) => self.streams.change(|Stream { changes, .. }| {
                changes.written_by(xid);
                origins.for_each(|origin| changes.escalate(Escalation::Rewritten, origin));
                Ok(())
            }),
            (None, Some(open)) => {
                origins.for_each(|origin| open.changes.escalate(Escalation::Rewritten, origin));
                Ok(())
            }
            (None, None) => Err(OUTSIDE),
        }
    }

    /// What a publication is once that commits, the gate will ask.
    fn publication_altered(&mut self, xid: Option<Xid>) -> Result<(), OutOfPlace> {
        match (xid, &mut self.open) {
            (Some(_), _) => self.streams.change(|stream| {
                stream.alters_publication = true;
                Ok(())
            }),
            (None, Some(open)) => {
                open.alters_publication = true;
                Ok(())
            }
            (None, None) => Err(OUTSIDE),
        }
    }

    fn complete(&mut self, mut open: Open, commit: Commit) -> Transaction {
        open.changes.leave_room(&mut self.room);
        let plans = Arc::clone(self.relations.tables().plans());
        let mut whole = transaction(open.begin.xid, commit, open.changes, plans);
        whole.heartbeat = open.heartbeat;
        whole.alters_publication = open.alters_publication;
        whole
    }

    fn complete_stream(&mut self, commit: StreamCommit) -> Result<Transaction, OutOfPlace> {
        let StreamCommit { xid, flags, commit_lsn, end_lsn, commit_time } = commit;
        let Committed { changes, tables, alters_publication } = self.streams.commit(xid)?;
        let plans = Arc::clone(tables.plans());
        self.relations.adopt(tables);
        let commit = Commit { flags, commit_lsn, end_lsn, commit_time };
        let mut whole = transaction(xid, commit, changes, plans);
        let beat = self.streamed_beat.take_if(|(of, _)| *of == xid);
        whole.heartbeat = beat.map(|(_, beat)| beat);
        whole.alters_publication = alters_publication;
        Ok(whole)
    }
}

const OUTSIDE: &str = "a message of a transaction outside of any";

const NOT_DESCRIBED: &str = "a row of a table that was not described";

impl Row<'_> {
    fn check(&self, table: &Table) -> Result<(), OutOfPlace> {
        let fits = |tuple: Tuple<'_>| tuple.len() == table.relation.columns.len();
        if self.new.is_none_or(fits) && self.old.is_none_or(|old| fits(old.tuple())) {
            return Ok(());
        }
        Err("a row with another number of columns than its table")
    }

    /// `at` is where it was committed, or as far as that is not known, written.
    fn apply(self, table: &Table, at: Lsn, out: &mut impl ChangeSink) {
        let (plan, old_counts) = table.plan(at);
        let Some(plan) = plan else { return };
        // A DELETE needs an old row, if only to say that all of it is unknown.
        let old = match (self.old, self.operation) {
            (Some(old), _) if old_counts => Some(old),
            (Some(old), Operation::Delete) => Some(OldTuple::Key(old.tuple())),
            _ => None,
        };
        plan.apply(self.operation, old, self.new, out);
    }
}

fn transaction(
    xid: Xid,
    commit: Commit,
    changes: ChangeSet,
    plans: Arc<LookupPlans>,
) -> Transaction {
    Transaction {
        xid,
        commit_lsn: commit.commit_lsn,
        end_lsn: commit.end_lsn,
        committed_at: commit.commit_time,
        sent_after: 0,
        received_at: Instant::now(),
        heartbeat: None,
        alters_publication: false,
        changes,
        plans,
        share: None,
    }
}
