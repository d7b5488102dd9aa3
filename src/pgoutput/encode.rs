//! Messages to bytes: the inverse of [`decode`](super::decode), for tests,
//! benches and fuzzing. The daemon itself never writes a message.
//!
//! What the format has no room for (a value of 4 GiB, 65,536 columns) is
//! written with the greatest count that it knows, which the decoder refuses.
//! A name with a zero byte in it, which Postgres cannot hold, comes out as two.

use super::message::{
    Decoded, LogicalMessage, Message, OldTuple, Prepare, Relation, ReplicaIdentity, Tuple, Value,
};
use crate::lsn::Lsn;
use crate::snapshot::Xid;

/// A tuple as [`Tuple::parse`] reads it.
#[must_use]
pub fn tuple(values: &[Value<'_>]) -> Vec<u8> {
    let mut out = Writer::default();
    out.u16(u16::try_from(values.len()).unwrap_or(u16::MAX));
    for value in values {
        match *value {
            Value::Null => out.u8(b'n'),
            Value::Unchanged => out.u8(b'u'),
            Value::Text(value) => {
                out.u8(b't');
                out.counted(value);
            }
            Value::Binary(value) => {
                out.u8(b'b');
                out.counted(value);
            }
        }
    }
    out.bytes
}

/// A message as [`decode`](super::decode::decode) reads it: inside of a stream's
/// block if it has an xid. Messages that never carry one do not get it.
#[must_use]
pub fn message(decoded: &Decoded<'_>) -> Vec<u8> {
    let mut out = Writer::default();
    out.u8(tag(&decoded.message));
    let carries_xid = matches!(
        decoded.message,
        Message::Relation(_)
            | Message::Type(_)
            | Message::Insert(_)
            | Message::Update(_)
            | Message::Delete(_)
            | Message::Truncate(_)
            | Message::Logical(_)
    );
    if let Some(xid) = decoded.xid.filter(|_| carries_xid) {
        out.xid(xid);
    }
    body(&mut out, &decoded.message);
    out.bytes
}

fn tag(message: &Message<'_>) -> u8 {
    match message {
        Message::Begin(_) => b'B',
        Message::Commit(_) => b'C',
        Message::Origin(_) => b'O',
        Message::Relation(_) => b'R',
        Message::Type(_) => b'Y',
        Message::Insert(_) => b'I',
        Message::Update(_) => b'U',
        Message::Delete(_) => b'D',
        Message::Truncate(_) => b'T',
        Message::Logical(_) => b'M',
        Message::StreamStart(_) => b'S',
        Message::StreamStop => b'E',
        Message::StreamCommit(_) => b'c',
        Message::StreamAbort(_) => b'A',
        Message::BeginPrepare(_) => b'b',
        Message::Prepare(_) => b'P',
        Message::CommitPrepared(_) => b'K',
        Message::RollbackPrepared(_) => b'r',
        Message::StreamPrepare(_) => b'p',
    }
}

fn body(out: &mut Writer, message: &Message<'_>) {
    match message {
        Message::Begin(begin) => {
            out.lsn(begin.final_lsn);
            out.i64(begin.commit_time);
            out.xid(begin.xid);
        }
        Message::Commit(commit) => {
            out.u8(commit.flags);
            out.lsn(commit.commit_lsn);
            out.lsn(commit.end_lsn);
            out.i64(commit.commit_time);
        }
        Message::Origin(origin) => {
            out.lsn(origin.commit_lsn);
            out.string(origin.name);
        }
        Message::Relation(described) => relation(out, described),
        Message::Type(named) => {
            out.u32(named.id);
            out.namespace(named.namespace);
            out.string(named.name);
        }
        Message::Insert(insert) => {
            out.u32(insert.relation);
            out.new_tuple(insert.new);
        }
        Message::Update(update) => {
            out.u32(update.relation);
            if let Some(old) = update.old {
                out.old_tuple(old);
            }
            out.new_tuple(update.new);
        }
        Message::Delete(delete) => {
            out.u32(delete.relation);
            out.old_tuple(delete.old);
        }
        Message::Truncate(truncate) => {
            out.u32(u32::try_from(truncate.relations.len()).unwrap_or(u32::MAX));
            out.u8(u8::from(truncate.cascade) | u8::from(truncate.restart_identity) << 1);
            truncate.relations.iter().for_each(|id| out.u32(id));
        }
        Message::Logical(logical) => logical_message(out, logical),
        Message::StreamStart(start) => {
            out.xid(start.xid);
            out.u8(u8::from(start.first_segment));
        }
        Message::StreamStop => {}
        Message::StreamCommit(commit) => {
            out.xid(commit.xid);
            out.u8(commit.flags);
            out.lsn(commit.commit_lsn);
            out.lsn(commit.end_lsn);
            out.i64(commit.commit_time);
        }
        Message::StreamAbort(abort) => {
            out.xid(abort.xid);
            out.xid(abort.subxid);
            if let Some(at) = abort.at {
                out.lsn(at.abort_lsn);
                out.i64(at.abort_time);
            }
        }
        Message::BeginPrepare(begin) => {
            out.lsn(begin.prepare_lsn);
            out.lsn(begin.end_lsn);
            out.i64(begin.prepare_time);
            out.xid(begin.xid);
            out.string(begin.gid);
        }
        Message::Prepare(prepared) | Message::StreamPrepare(prepared) => prepare(out, prepared),
        Message::CommitPrepared(commit) => {
            out.u8(commit.flags);
            out.lsn(commit.commit_lsn);
            out.lsn(commit.end_lsn);
            out.i64(commit.commit_time);
            out.xid(commit.xid);
            out.string(commit.gid);
        }
        Message::RollbackPrepared(rollback) => {
            out.u8(rollback.flags);
            out.lsn(rollback.prepare_end_lsn);
            out.lsn(rollback.rollback_end_lsn);
            out.i64(rollback.prepare_time);
            out.i64(rollback.rollback_time);
            out.xid(rollback.xid);
            out.string(rollback.gid);
        }
    }
}

fn relation(out: &mut Writer, relation: &Relation) {
    out.u32(relation.id);
    out.namespace(&relation.namespace);
    out.string(&relation.name);
    out.u8(match relation.identity {
        ReplicaIdentity::Default => b'd',
        ReplicaIdentity::Nothing => b'n',
        ReplicaIdentity::Full => b'f',
        ReplicaIdentity::Index => b'i',
    });
    out.u16(u16::try_from(relation.columns.len()).unwrap_or(u16::MAX));
    for column in &relation.columns {
        out.u8(u8::from(column.key));
        out.string(&column.name);
        out.u32(column.type_id);
        out.raw(&column.type_modifier.to_be_bytes());
    }
}

fn logical_message(out: &mut Writer, logical: &LogicalMessage<'_>) {
    out.u8(u8::from(logical.transactional));
    out.lsn(logical.lsn);
    out.string(logical.prefix);
    out.counted(logical.content);
}

fn prepare(out: &mut Writer, prepare: &Prepare<'_>) {
    out.u8(prepare.flags);
    out.lsn(prepare.prepare_lsn);
    out.lsn(prepare.end_lsn);
    out.i64(prepare.prepare_time);
    out.xid(prepare.xid);
    out.string(prepare.gid);
}

/// Writes fields as [`Reader`](super::reader::Reader) reads them.
#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    fn u16(&mut self, value: u16) {
        self.raw(&value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.raw(&value.to_be_bytes());
    }

    fn i64(&mut self, value: i64) {
        self.raw(&value.to_be_bytes());
    }

    fn lsn(&mut self, value: Lsn) {
        self.raw(&value.0.to_be_bytes());
    }

    fn xid(&mut self, value: Xid) {
        self.u32(value.0);
    }

    fn counted(&mut self, value: &[u8]) {
        self.u32(u32::try_from(value.len()).unwrap_or(u32::MAX));
        self.raw(value);
    }

    fn string(&mut self, value: &str) {
        self.raw(value.as_bytes());
        self.u8(0);
    }

    fn namespace(&mut self, name: &str) {
        self.string(if name == "pg_catalog" { "" } else { name });
    }

    fn tuple(&mut self, tuple: Tuple<'_>) {
        let (columns, body) = tuple.wire();
        self.u16(columns);
        self.raw(body);
    }

    fn new_tuple(&mut self, tuple: Tuple<'_>) {
        self.u8(b'N');
        self.tuple(tuple);
    }

    fn old_tuple(&mut self, old: OldTuple<'_>) {
        self.u8(match old {
            OldTuple::Key(_) => b'K',
            OldTuple::Full(_) => b'O',
        });
        self.tuple(old.tuple());
    }
}
