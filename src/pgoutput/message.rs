//! What `pgoutput` says (manual, "Logical Replication Message Formats").
//!
//! Times are microseconds since 2000-01-01 00:00 UTC
//! ([`timestamp`](super::timestamp) converts them).

use std::fmt;

pub use super::tuple::{OldTuple, Tuple, Value, Values};
use crate::lsn::Lsn;
use crate::snapshot::Xid;

/// A message, and who sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// The transaction or subtransaction that made the change. Only changes,
    /// relations, types and logical messages inside a block of a streamed
    /// transaction carry one; elsewhere the enclosing [`Begin`] tells.
    pub xid: Option<Xid>,
    /// What was said.
    pub message: Message<'a>,
}

/// Every message of protocols 1 to 4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<'a> {
    /// A committed transaction begins.
    Begin(Begin),
    /// It ends.
    Commit(Commit),
    /// The transaction was replicated to this server from elsewhere.
    Origin(Origin<'a>),
    /// What a table looks like, ahead of its changes.
    Relation(Relation),
    /// What a type that is not built in is called, ahead of its relation.
    Type(Type<'a>),
    /// A new row.
    Insert(Insert<'a>),
    /// A changed row.
    Update(Update<'a>),
    /// A row gone.
    Delete(Delete<'a>),
    /// All rows of some tables gone.
    Truncate(Truncate<'a>),
    /// Written by `pg_logical_emit_message()`.
    Logical(LogicalMessage<'a>),
    /// A block of a transaction in progress begins (protocol 2).
    StreamStart(StreamStart),
    /// It ends, though not the transaction.
    StreamStop,
    /// A transaction that came in blocks is committed.
    StreamCommit(StreamCommit),
    /// A transaction that came in blocks, or a subtransaction of one, is rolled back.
    StreamAbort(StreamAbort),
    /// A prepared transaction begins (protocol 3, `two_phase`).
    BeginPrepare(BeginPrepare<'a>),
    /// It ends, prepared.
    Prepare(Prepare<'a>),
    /// A prepared transaction is committed.
    CommitPrepared(CommitPrepared<'a>),
    /// A prepared transaction is rolled back.
    RollbackPrepared(RollbackPrepared<'a>),
    /// A transaction that came in blocks is prepared.
    StreamPrepare(Prepare<'a>),
}

/// `B`: a committed transaction begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begin {
    /// Where its commit record starts; the same as [`Commit::commit_lsn`].
    pub final_lsn: Lsn,
    /// When it was committed.
    pub commit_time: i64,
    /// Which it is.
    pub xid: Xid,
}

/// `C`: the transaction of the last [`Begin`] ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// Not used by any server yet: 0.
    pub flags: u8,
    /// Where the commit record starts.
    pub commit_lsn: Lsn,
    /// Where the commit record ends.
    pub end_lsn: Lsn,
    /// When it was committed.
    pub commit_time: i64,
}

/// `O`: where a transaction was first committed. Inside of a stream's block
/// it follows [`StreamStart`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin<'a> {
    /// The commit's position on the origin; zero where it is not known.
    pub commit_lsn: Lsn,
    /// The replication origin's name.
    pub name: &'a str,
}

/// A table (or its partition root) as the stream announces it before its first change
/// and after every change of its shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// The table's OID, by which row changes name it.
    pub id: u32,
    /// The schema; never empty (the stream's empty name for `pg_catalog` is filled in).
    pub namespace: Box<str>,
    /// The table.
    pub name: Box<str>,
    /// Which old values UPDATE and DELETE carry.
    pub identity: ReplicaIdentity,
    /// The columns, in the order of the tuples.
    pub columns: Vec<RelationColumn>,
}

/// A column of a [`Relation`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelationColumn {
    /// Whether it is part of the replica identity's key (under FULL: every column).
    pub key: bool,
    /// Its name.
    pub name: Box<str>,
    /// The OID of its type.
    pub type_id: u32,
    /// Its type modifier (`atttypmod`), -1 for none.
    pub type_modifier: i32,
}

/// Which old values a table's UPDATE and DELETE carry (manual, `REPLICA IDENTITY`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReplicaIdentity {
    /// The primary key's.
    Default,
    /// None.
    Nothing,
    /// All.
    Full,
    /// Those of a unique index over NOT NULL columns.
    Index,
}

/// `Y`: the name of a column's type that is not built in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Type<'a> {
    /// The type's OID, as [`RelationColumn::type_id`] names it.
    pub id: u32,
    /// The schema; never empty (the stream's empty name for `pg_catalog` is filled in).
    pub namespace: &'a str,
    /// The type.
    pub name: &'a str,
}

/// `I`: a new row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Insert<'a> {
    /// The table: [`Relation::id`].
    pub relation: u32,
    /// The row.
    pub new: Tuple<'a>,
}

/// `U`: a changed row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Update<'a> {
    /// The table: [`Relation::id`].
    pub relation: u32,
    /// The row as it was. Without FULL it is only sent if the replica
    /// identity's key changed (or was TOASTed); absent, the key is the new row's.
    pub old: Option<OldTuple<'a>>,
    /// The row as it is.
    pub new: Tuple<'a>,
}

/// `D`: a row gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delete<'a> {
    /// The table: [`Relation::id`].
    pub relation: u32,
    /// The row, as far as the replica identity carries it.
    pub old: OldTuple<'a>,
}

/// `T`: tables emptied by one TRUNCATE, those reached by CASCADE included if
/// they are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truncate<'a> {
    /// `CASCADE` was said.
    pub cascade: bool,
    /// `RESTART IDENTITY` was said.
    pub restart_identity: bool,
    /// The tables.
    pub relations: RelationIds<'a>,
}

/// The tables of a [`Truncate`], by their [`Relation::id`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RelationIds<'a> {
    wire: &'a [[u8; 4]],
}

impl<'a> RelationIds<'a> {
    /// From OIDs as they go over the wire, in network byte order.
    #[must_use]
    pub fn from_wire(wire: &'a [[u8; 4]]) -> Self {
        Self { wire }
    }

    /// How many tables.
    #[must_use]
    pub fn len(&self) -> usize {
        self.wire.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.wire.is_empty()
    }

    /// The tables, in the order they were sent.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = u32> + use<'a> {
        self.wire.iter().map(|id| u32::from_be_bytes(*id))
    }
}

impl fmt::Debug for RelationIds<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// `M`: written by `pg_logical_emit_message()`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LogicalMessage<'a> {
    /// Whether it belongs to a transaction. One that does not arrives at once,
    /// outside of every transaction, and says nothing of any commit.
    pub transactional: bool,
    /// Where it stands in the WAL.
    pub lsn: Lsn,
    /// Whom it is meant for.
    pub prefix: &'a str,
    /// Whatever the writer wrote.
    pub content: &'a [u8],
}

impl fmt::Debug for LogicalMessage<'_> {
    /// The content's length only: what an application writes may be private.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogicalMessage")
            .field("transactional", &self.transactional)
            .field("lsn", &self.lsn)
            .field("prefix", &self.prefix)
            .field("content", &format_args!("{} bytes", self.content.len()))
            .finish()
    }
}

/// `S`: a block of a transaction in progress begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamStart {
    /// The transaction (never a subtransaction).
    pub xid: Xid,
    /// Whether it is the transaction's first block.
    pub first_segment: bool,
}

/// `c`: a transaction that came in blocks is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamCommit {
    /// The transaction.
    pub xid: Xid,
    /// Not used by any server yet: 0.
    pub flags: u8,
    /// Where the commit record starts.
    pub commit_lsn: Lsn,
    /// Where the commit record ends.
    pub end_lsn: Lsn,
    /// When it was committed.
    pub commit_time: i64,
}

/// `A`: a transaction that came in blocks, or a part of it, is rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamAbort {
    /// The transaction.
    pub xid: Xid,
    /// What is rolled back of it: a subtransaction, or `xid` itself for all.
    pub subxid: Xid,
    /// Where and when; only with `streaming = parallel` (protocol 4).
    pub at: Option<AbortedAt>,
}

/// Where and when a transaction was rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortedAt {
    /// Where the abort record ends.
    pub abort_lsn: Lsn,
    /// When; 0 where the server does not know.
    pub abort_time: i64,
}

/// `b`: a transaction that was prepared begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BeginPrepare<'a> {
    /// Where the prepare record starts.
    pub prepare_lsn: Lsn,
    /// Where the prepare record ends.
    pub end_lsn: Lsn,
    /// When it was prepared.
    pub prepare_time: i64,
    /// The transaction.
    pub xid: Xid,
    /// The name that `PREPARE TRANSACTION` gave it.
    pub gid: &'a str,
}

/// `P`: the transaction of the last [`BeginPrepare`] ends, prepared; or `p`: one
/// that came in blocks is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prepare<'a> {
    /// Not used by any server yet: 0.
    pub flags: u8,
    /// Where the prepare record starts.
    pub prepare_lsn: Lsn,
    /// Where the prepare record ends.
    pub end_lsn: Lsn,
    /// When it was prepared.
    pub prepare_time: i64,
    /// The transaction.
    pub xid: Xid,
    /// The name that `PREPARE TRANSACTION` gave it.
    pub gid: &'a str,
}

/// `K`: a prepared transaction is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitPrepared<'a> {
    /// Not used by any server yet: 0.
    pub flags: u8,
    /// Where the commit record starts.
    pub commit_lsn: Lsn,
    /// Where the commit record ends.
    pub end_lsn: Lsn,
    /// When it was committed.
    pub commit_time: i64,
    /// The transaction.
    pub xid: Xid,
    /// The name that `PREPARE TRANSACTION` gave it.
    pub gid: &'a str,
}

/// `r`: a prepared transaction is rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RollbackPrepared<'a> {
    /// Not used by any server yet: 0.
    pub flags: u8,
    /// Where the prepare record ends.
    pub prepare_end_lsn: Lsn,
    /// Where the rollback record ends.
    pub rollback_end_lsn: Lsn,
    /// When it was prepared.
    pub prepare_time: i64,
    /// When it was rolled back.
    pub rollback_time: i64,
    /// The transaction.
    pub xid: Xid,
    /// The name that `PREPARE TRANSACTION` gave it.
    pub gid: &'a str,
}
