//! Bytes to messages.

use super::error::DecodeError;
use super::message::{
    AbortedAt, Begin, BeginPrepare, Commit, CommitPrepared, Decoded, Delete, Insert,
    LogicalMessage, Message, OldTuple, Origin, Prepare, Relation, RelationColumn, RelationIds,
    ReplicaIdentity, RollbackPrepared, StreamAbort, StreamCommit, StreamStart, Truncate, Tuple,
    Type, Update,
};
use super::reader::{Malformed, Reader};

/// The protocol that START_REPLICATION asked for (`proto_version`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Whole transactions, each after its commit (Postgres 10).
    V1,
    /// Transactions in progress, in blocks (Postgres 14).
    V2,
    /// Prepared transactions (Postgres 15).
    V3,
    /// Blocks to be applied in parallel (Postgres 16).
    V4,
}

impl Protocol {
    /// The value of `proto_version`.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
            Self::V3 => 3,
            Self::V4 => 4,
        }
    }
}

/// What START_REPLICATION asked for as `streaming`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Streaming {
    /// `off`: transactions after their commit only.
    Off,
    /// `on`: large ones in blocks while they run.
    On,
    /// `parallel`: like `on`, and rollbacks say where and when.
    Parallel,
}

/// What a message's layout depends on beside its own bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Context {
    /// The negotiated protocol.
    pub protocol: Protocol,
    /// The negotiated streaming.
    pub streaming: Streaming,
    /// Whether a [`StreamStart`] came and its [`Message::StreamStop`] did not.
    pub in_stream: bool,
}

impl Context {
    /// At the start of a replication connection.
    #[must_use]
    pub fn new(protocol: Protocol, streaming: Streaming) -> Self {
        Self { protocol, streaming, in_stream: false }
    }
}

/// Decodes one connection's messages in their order, and so knows when a block
/// of a streamed transaction is open. A new connection needs a new one.
#[derive(Debug, Clone)]
pub struct Decoder {
    context: Context,
}

impl Decoder {
    /// For a connection that was started with these options.
    #[must_use]
    pub fn new(protocol: Protocol, streaming: Streaming) -> Self {
        Self { context: Context::new(protocol, streaming) }
    }

    /// Where the connection stands.
    #[must_use]
    pub fn context(&self) -> Context {
        self.context
    }

    /// Decodes the connection's next message.
    ///
    /// # Errors
    /// As [`decode`]. The connection cannot be read any further then.
    #[inline]
    pub fn decode<'a>(&mut self, bytes: &'a [u8]) -> Result<Decoded<'a>, DecodeError> {
        let decoded = decode(bytes, self.context)?;
        match decoded.message {
            Message::StreamStart(_) => self.context.in_stream = true,
            Message::StreamStop => self.context.in_stream = false,
            _ => {}
        }
        Ok(decoded)
    }
}

/// Decodes one message, the payload of one `XLogData`.
///
/// # Errors
/// If the bytes are not exactly one message that may come in this context.
#[inline]
pub fn decode(bytes: &[u8], context: Context) -> Result<Decoded<'_>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let malformed = match read(&mut reader, context) {
        Ok(decoded) if reader.rest().is_empty() => return Ok(decoded),
        Ok(_) => reader.malformed("the end of the message"),
        Err(malformed) => malformed,
    };
    Err(DecodeError::in_message(bytes, context, malformed))
}

#[inline]
fn read<'a>(reader: &mut Reader<'a>, context: Context) -> Result<Decoded<'a>, Malformed> {
    let tag = reader.u8("a message")?;
    if !matches!(tag, b'I' | b'U' | b'D' | b'T' | b'R' | b'Y' | b'M') {
        return control(tag, reader, context).map(|message| Decoded { xid: None, message });
    }
    let xid = if context.in_stream { Some(reader.xid("the xid of the change")?) } else { None };
    let message = match tag {
        b'I' => insert(reader)?,
        b'U' => update(reader)?,
        b'D' => delete(reader)?,
        b'T' => truncate(reader)?,
        b'R' => Message::Relation(relation(reader)?),
        b'Y' => Message::Type(Type {
            id: reader.u32("the type's OID")?,
            namespace: namespace(reader)?,
            name: reader.string("the type's name")?,
        }),
        _ => Message::Logical(LogicalMessage {
            // The other bits have no meaning yet, and none could change what follows.
            transactional: reader.u8("the message's flags")? & 1 != 0,
            lsn: reader.lsn("the message's LSN")?,
            prefix: reader.string("the message's prefix")?,
            content: reader.counted("the content's length", "the content")?,
        }),
    };
    Ok(Decoded { xid, message })
}

const OLD_OR_NEW: &str = "a tuple's kind: K, O or N";

#[inline]
fn insert<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, Malformed> {
    let relation = reader.u32("the relation's OID")?;
    new_tuple_follows(reader)?;
    Ok(Message::Insert(Insert { relation, new: Tuple::read(reader)? }))
}

#[inline]
fn update<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, Malformed> {
    let relation = reader.u32("the relation's OID")?;
    let old = match reader.u8(OLD_OR_NEW)? {
        b'N' => None,
        b'K' => Some(OldTuple::Key(Tuple::read(reader)?)),
        b'O' => Some(OldTuple::Full(Tuple::read(reader)?)),
        _ => return Err(reader.malformed_before(1, OLD_OR_NEW)),
    };
    if old.is_some() {
        new_tuple_follows(reader)?;
    }
    Ok(Message::Update(Update { relation, old, new: Tuple::read(reader)? }))
}

#[inline]
fn delete<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, Malformed> {
    const OLD: &str = "a tuple's kind: K or O";
    let relation = reader.u32("the relation's OID")?;
    let old = match reader.u8(OLD)? {
        b'K' => OldTuple::Key(Tuple::read(reader)?),
        b'O' => OldTuple::Full(Tuple::read(reader)?),
        _ => return Err(reader.malformed_before(1, OLD)),
    };
    Ok(Message::Delete(Delete { relation, old }))
}

#[inline]
fn new_tuple_follows(reader: &mut Reader<'_>) -> Result<(), Malformed> {
    const NEW: &str = "a tuple's kind: N";
    match reader.u8(NEW)? {
        b'N' => Ok(()),
        _ => Err(reader.malformed_before(1, NEW)),
    }
}

fn truncate<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, Malformed> {
    let count = reader.u32("the number of relations")?;
    let options = reader.u8("the options")?;
    let relations = usize::try_from(count)
        .ok()
        .and_then(|count| reader.arrays(count))
        .ok_or_else(|| reader.malformed("as many OIDs as there are relations"))?;
    Ok(Message::Truncate(Truncate {
        cascade: options & 1 != 0,
        restart_identity: options & 2 != 0,
        relations: RelationIds::from_wire(relations),
    }))
}

fn relation(reader: &mut Reader<'_>) -> Result<Relation, Malformed> {
    const IDENTITY: &str = "the replica identity: d, n, f or i";
    /// A column without a name: flags, the name's end, type and modifier.
    const SHORTEST_COLUMN: usize = 10;

    let id = reader.u32("the relation's OID")?;
    let namespace = namespace(reader)?.into();
    let name = reader.string("the relation's name")?.into();
    let identity = match reader.u8(IDENTITY)? {
        b'd' => ReplicaIdentity::Default,
        b'n' => ReplicaIdentity::Nothing,
        b'f' => ReplicaIdentity::Full,
        b'i' => ReplicaIdentity::Index,
        _ => return Err(reader.malformed_before(1, IDENTITY)),
    };
    let count = reader.u16("the number of columns")?;
    // Never more than the bytes could hold: a wrong count must not cost memory.
    let room = usize::from(count).min(reader.rest().len() / SHORTEST_COLUMN);
    let mut columns = Vec::with_capacity(room);
    for _ in 0..count {
        columns.push(RelationColumn {
            key: reader.u8("a column's flags")? & 1 != 0,
            name: reader.string("a column's name")?.into(),
            type_id: reader.u32("a column's type")?,
            type_modifier: reader.i32("a column's type modifier")?,
        });
    }
    Ok(Relation { id, namespace, name, identity, columns })
}

/// The stream's empty name stands for `pg_catalog`.
fn namespace<'a>(reader: &mut Reader<'a>) -> Result<&'a str, Malformed> {
    let name = reader.string("a schema's name")?;
    Ok(if name.is_empty() { "pg_catalog" } else { name })
}

/// Everything about transactions rather than rows; never inside of a block of a
/// streamed transaction, except for the block's own end and its origin.
fn control<'a>(
    tag: u8,
    reader: &mut Reader<'a>,
    context: Context,
) -> Result<Message<'a>, Malformed> {
    let (since, in_stream) = match tag {
        b'B' | b'C' => (Protocol::V1, false),
        b'O' => (Protocol::V1, context.in_stream),
        // Postgres 18 drops what it holds of a transaction that it finds aborted, takes its
        // subtransactions for streamed by that, and tells so of each: in any protocol.
        b'A' => (Protocol::V1, false),
        b'S' | b'c' => (Protocol::V2, false),
        b'E' => (Protocol::V2, true),
        b'b' | b'P' | b'K' | b'r' | b'p' => (Protocol::V3, false),
        _ => return Err(reader.malformed_before(1, "the tag of a message of protocols 1 to 4")),
    };
    if context.protocol < since {
        return Err(reader.malformed_before(1, "a message of the negotiated protocol"));
    }
    if context.in_stream != in_stream {
        let expected = if in_stream {
            "a message that may come outside of a stream's block"
        } else {
            "a message that may come inside of a stream's block"
        };
        return Err(reader.malformed_before(1, expected));
    }
    Ok(match tag {
        b'B' => Message::Begin(Begin {
            final_lsn: reader.lsn(COMMIT_LSN)?,
            commit_time: reader.i64(COMMIT_TIME)?,
            xid: reader.xid(XID)?,
        }),
        b'C' => Message::Commit(Commit {
            flags: reader.u8(FLAGS)?,
            commit_lsn: reader.lsn(COMMIT_LSN)?,
            end_lsn: reader.lsn(END_LSN)?,
            commit_time: reader.i64(COMMIT_TIME)?,
        }),
        b'O' => Message::Origin(Origin {
            commit_lsn: reader.lsn(COMMIT_LSN)?,
            name: reader.string("the origin's name")?,
        }),
        b'S' => Message::StreamStart(StreamStart {
            xid: reader.xid(XID)?,
            first_segment: first_segment(reader)?,
        }),
        b'E' => Message::StreamStop,
        b'c' => Message::StreamCommit(StreamCommit {
            xid: reader.xid(XID)?,
            flags: reader.u8(FLAGS)?,
            commit_lsn: reader.lsn(COMMIT_LSN)?,
            end_lsn: reader.lsn(END_LSN)?,
            commit_time: reader.i64(COMMIT_TIME)?,
        }),
        b'A' => Message::StreamAbort(StreamAbort {
            xid: reader.xid(XID)?,
            subxid: reader.xid("the subtransaction's xid")?,
            at: match context.streaming {
                Streaming::Parallel => Some(AbortedAt {
                    abort_lsn: reader.lsn("the abort's LSN")?,
                    abort_time: reader.i64("the abort's time")?,
                }),
                Streaming::Off | Streaming::On => None,
            },
        }),
        b'b' => Message::BeginPrepare(BeginPrepare {
            prepare_lsn: reader.lsn(PREPARE_LSN)?,
            end_lsn: reader.lsn(END_LSN)?,
            prepare_time: reader.i64(PREPARE_TIME)?,
            xid: reader.xid(XID)?,
            gid: reader.string(GID)?,
        }),
        b'P' => Message::Prepare(prepare(reader)?),
        b'p' => Message::StreamPrepare(prepare(reader)?),
        b'K' => Message::CommitPrepared(CommitPrepared {
            flags: reader.u8(FLAGS)?,
            commit_lsn: reader.lsn(COMMIT_LSN)?,
            end_lsn: reader.lsn(END_LSN)?,
            commit_time: reader.i64(COMMIT_TIME)?,
            xid: reader.xid(XID)?,
            gid: reader.string(GID)?,
        }),
        // What is left of the tags above.
        _ => Message::RollbackPrepared(RollbackPrepared {
            flags: reader.u8(FLAGS)?,
            prepare_end_lsn: reader.lsn("the prepare record's end")?,
            rollback_end_lsn: reader.lsn("the rollback record's end")?,
            prepare_time: reader.i64(PREPARE_TIME)?,
            rollback_time: reader.i64("the rollback's time")?,
            xid: reader.xid(XID)?,
            gid: reader.string(GID)?,
        }),
    })
}

const XID: &str = "the transaction's xid";
const FLAGS: &str = "the flags";
const COMMIT_LSN: &str = "the commit's LSN";
const COMMIT_TIME: &str = "the commit's time";
const PREPARE_LSN: &str = "the prepare record's LSN";
const PREPARE_TIME: &str = "the time of the prepare";
const END_LSN: &str = "the end LSN";
const GID: &str = "the prepared transaction's name";

fn first_segment(reader: &mut Reader<'_>) -> Result<bool, Malformed> {
    const FIRST: &str = "whether it is the first block: 0 or 1";
    match reader.u8(FIRST)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(reader.malformed_before(1, FIRST)),
    }
}

fn prepare<'a>(reader: &mut Reader<'a>) -> Result<Prepare<'a>, Malformed> {
    Ok(Prepare {
        flags: reader.u8(FLAGS)?,
        prepare_lsn: reader.lsn(PREPARE_LSN)?,
        end_lsn: reader.lsn(END_LSN)?,
        prepare_time: reader.i64(PREPARE_TIME)?,
        xid: reader.xid(XID)?,
        gid: reader.string(GID)?,
    })
}
