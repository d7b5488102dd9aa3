//! What holds for every message and for every sequence of bytes.

#![allow(clippy::cast_possible_truncation, reason = "a test fails by panicking")]

use proptest::collection::vec;
use proptest::prelude::*;
use unstale::lsn::Lsn;
use unstale::pgoutput::decode::{Context, Protocol, Streaming, decode};
use unstale::pgoutput::encode;
use unstale::pgoutput::message::{
    AbortedAt, Begin, BeginPrepare, Commit, CommitPrepared, Decoded, Delete, Insert,
    LogicalMessage, Message, OldTuple, Origin, Prepare, Relation, RelationColumn, RelationIds,
    ReplicaIdentity, RollbackPrepared, StreamAbort, StreamCommit, StreamStart, Truncate, Tuple,
    Type, Update, Value,
};
use unstale::snapshot::Xid;

use crate::allocations::so_far;

/// A value that owns its bytes.
#[derive(Debug, Clone)]
enum Owned {
    Null,
    Unchanged,
    Text(Vec<u8>),
    Binary(Vec<u8>),
}

impl Owned {
    fn borrow(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Unchanged => Value::Unchanged,
            Self::Text(value) => Value::Text(value),
            Self::Binary(value) => Value::Binary(value),
        }
    }
}

fn row() -> impl Strategy<Value = Vec<Owned>> {
    let value = prop_oneof![
        Just(Owned::Null),
        Just(Owned::Unchanged),
        vec(any::<u8>(), 0..20).prop_map(Owned::Text),
        vec(any::<u8>(), 0..20).prop_map(Owned::Binary),
    ];
    vec(value, 0..8)
}

fn encode_row(row: &[Owned]) -> Vec<u8> {
    encode::tuple(&row.iter().map(Owned::borrow).collect::<Vec<_>>())
}

/// What any message can be made of.
#[derive(Debug, Clone)]
struct Parts {
    kind: u8,
    flags: u8,
    bits: [bool; 3],
    ids: [u32; 2],
    lsns: [u64; 2],
    times: [i64; 2],
    names: [String; 2],
    old: Option<Vec<u8>>,
    new: Vec<u8>,
    relations: Vec<[u8; 4]>,
    columns: Vec<(bool, String, u32, i32)>,
    content: Vec<u8>,
}

const KINDS: u8 = 19;

prop_compose! {
    fn parts()(
        kind in 0..KINDS, flags: u8, bits: [bool; 3], ids: [u32; 2],
        lsns: [u64; 2], times: [i64; 2],
        names in ["[^\0]{1,12}", "[^\0]{1,12}"],
        old in proptest::option::of(row()), new in row(),
        relations in vec(any::<[u8; 4]>(), 0..5),
        columns in vec((any::<bool>(), "[^\0]{0,12}", any::<u32>(), any::<i32>()), 0..6),
        content in vec(any::<u8>(), 0..40),
    ) -> Parts {
        let (old, new) = (old.map(|row| encode_row(&row)), encode_row(&new));
        Parts { kind, flags, bits, ids, lsns, times, names, old, new, relations, columns, content }
    }
}

impl Parts {
    /// Whether the message may come inside of a stream's block, and with an xid.
    fn is_change(&self) -> bool {
        matches!(self.kind, 3..=9)
    }

    fn context(&self) -> Context {
        let in_stream = match self.kind {
            3..=9 => self.bits[2],
            11 => true,
            _ => false,
        };
        Context { protocol: Protocol::V4, streaming: Streaming::Parallel, in_stream }
    }

    fn old_tuple(&self) -> Option<OldTuple<'_>> {
        let old = whole(self.old.as_ref()?);
        Some(if self.bits[0] { OldTuple::Key(old) } else { OldTuple::Full(old) })
    }

    fn prepare(&self) -> Prepare<'_> {
        Prepare {
            flags: self.flags,
            prepare_lsn: Lsn(self.lsns[0]),
            end_lsn: Lsn(self.lsns[1]),
            prepare_time: self.times[0],
            xid: Xid(self.ids[0]),
            gid: &self.names[0],
        }
    }

    fn relation(&self) -> Relation {
        let identity = match (self.bits[0], self.bits[1]) {
            (false, false) => ReplicaIdentity::Default,
            (false, true) => ReplicaIdentity::Nothing,
            (true, false) => ReplicaIdentity::Full,
            (true, true) => ReplicaIdentity::Index,
        };
        let column = |(key, name, type_id, type_modifier): &(bool, String, u32, i32)| {
            let (key, type_id, type_modifier) = (*key, *type_id, *type_modifier);
            RelationColumn { key, name: name.as_str().into(), type_id, type_modifier }
        };
        Relation {
            id: self.ids[0],
            namespace: self.names[0].as_str().into(),
            name: self.names[1].as_str().into(),
            identity,
            columns: self.columns.iter().map(column).collect(),
        }
    }

    fn decoded(&self) -> Decoded<'_> {
        let [first, second] = self.lsns.map(Lsn);
        let [time, later] = self.times;
        let [id, other] = self.ids;
        let (xid, relation, flags) = (Xid(id), id, self.flags);
        let new = whole(&self.new);
        let message = match self.kind {
            0 => Message::Begin(Begin { final_lsn: first, commit_time: time, xid }),
            1 => Message::Commit(Commit {
                flags,
                commit_lsn: first,
                end_lsn: second,
                commit_time: time,
            }),
            2 => Message::Origin(Origin { commit_lsn: first, name: &self.names[0] }),
            3 => Message::Relation(self.relation()),
            4 => Message::Type(Type { id, namespace: &self.names[0], name: &self.names[1] }),
            5 => Message::Insert(Insert { relation, new }),
            6 => Message::Update(Update { relation, old: self.old_tuple(), new }),
            7 => Message::Delete(Delete {
                relation,
                old: self.old_tuple().unwrap_or(OldTuple::Full(new)),
            }),
            8 => Message::Truncate(Truncate {
                cascade: self.bits[0],
                restart_identity: self.bits[1],
                relations: RelationIds::from_wire(&self.relations),
            }),
            9 => Message::Logical(LogicalMessage {
                transactional: self.bits[0],
                lsn: first,
                prefix: &self.names[0],
                content: &self.content,
            }),
            10 => Message::StreamStart(StreamStart { xid, first_segment: self.bits[0] }),
            11 => Message::StreamStop,
            12 => Message::StreamCommit(StreamCommit {
                xid,
                flags,
                commit_lsn: first,
                end_lsn: second,
                commit_time: time,
            }),
            13 => Message::StreamAbort(StreamAbort {
                xid,
                subxid: Xid(other),
                at: Some(AbortedAt { abort_lsn: first, abort_time: time }),
            }),
            14 => Message::BeginPrepare(BeginPrepare {
                prepare_lsn: first,
                end_lsn: second,
                prepare_time: time,
                xid,
                gid: &self.names[0],
            }),
            15 => Message::Prepare(self.prepare()),
            16 => Message::StreamPrepare(self.prepare()),
            17 => Message::CommitPrepared(CommitPrepared {
                flags,
                commit_lsn: first,
                end_lsn: second,
                commit_time: time,
                xid,
                gid: &self.names[0],
            }),
            _ => Message::RollbackPrepared(RollbackPrepared {
                flags,
                prepare_end_lsn: first,
                rollback_end_lsn: second,
                prepare_time: time,
                rollback_time: later,
                xid,
                gid: &self.names[0],
            }),
        };
        let xid = (self.is_change() && self.context().in_stream).then_some(Xid(other));
        Decoded { xid, message }
    }
}

fn whole(bytes: &[u8]) -> Tuple<'_> {
    let (tuple, rest) = Tuple::parse(bytes).expect("a tuple");
    assert!(rest.is_empty());
    tuple
}

proptest! {
    #[test]
    fn every_message_survives_encoding(parts in parts()) {
        let decoded = parts.decoded();
        let bytes = encode::message(&decoded);
        prop_assert_eq!(decode(&bytes, parts.context()), Ok(decoded));
    }

    #[test]
    fn every_row_survives_encoding(row in row(), behind: Vec<u8>) {
        let mut bytes = encode_row(&row);
        bytes.extend(&behind);
        let (tuple, rest) = Tuple::parse(&bytes).expect("a tuple");
        prop_assert_eq!(rest, behind);
        prop_assert_eq!(tuple.len(), row.len());
        prop_assert_eq!(tuple.iter().len(), row.len());
        prop_assert!(tuple.iter().eq(row.iter().map(Owned::borrow)));
    }

    #[test]
    fn a_message_cut_short_or_too_long_is_an_error(parts in parts(), more: u8) {
        let mut bytes = encode::message(&parts.decoded());
        for end in 0..bytes.len() {
            let error = decode(&bytes[..end], parts.context()).expect_err("cut short");
            prop_assert!(error.offset() <= end);
        }
        bytes.push(more);
        let error = decode(&bytes, parts.context()).expect_err("too long");
        prop_assert_eq!((error.offset(), error.expected()), (bytes.len() - 1, "the end of the message"));
    }

    #[test]
    fn arbitrary_bytes_are_a_message_or_an_error(bytes: Vec<u8>) {
        crate::property::check(&bytes);
    }

    /// 0xEE stands for a row's values: no kind, no likely length, no UTF-8.
    #[test]
    fn no_error_shows_a_byte_of_a_row(
        row in vec(prop_oneof![Just(None), (0usize..30).prop_map(Some)], 1..8),
        operation in 0..4u8, in_stream: bool, said_in_stream: bool,
        position: prop::sample::Index, byte in any::<u8>().prop_filter("a value's", |b| *b != 0xEE),
        cut: prop::sample::Index,
    ) {
        const SECRET: [u8; 30] = [0xEE; 30];
        let values: Vec<_> =
            row.iter().map(|n| n.map_or(Value::Null, |n| Value::Text(&SECRET[..n]))).collect();
        let encoded = encode::tuple(&values);
        let (tuple, _) = Tuple::parse(&encoded).expect("a tuple");
        let relation = 16_401;
        let message = match operation {
            0 => Message::Insert(Insert { relation, new: tuple }),
            1 => Message::Update(Update { relation, old: Some(OldTuple::Full(tuple)), new: tuple }),
            2 => Message::Delete(Delete { relation, old: OldTuple::Key(tuple) }),
            _ => Message::Logical(LogicalMessage {
                transactional: true, lsn: Lsn(1), prefix: "p", content: &SECRET,
            }),
        };
        let xid = in_stream.then_some(Xid(784));
        let decoded = Decoded { xid, message };
        prop_assert!(!format!("{decoded:?}").contains("238"), "{decoded:?}");
        let whole = encode::message(&decoded);
        let mut altered = whole.clone();
        altered[position.index(whole.len())] = byte;
        altered.truncate(whole.len() - cut.index(whole.len()) / 2);
        let context = Context {
            protocol: Protocol::V4, streaming: Streaming::Parallel, in_stream: said_in_stream,
        };
        if let Err(error) = decode(&altered, context) {
            let shown = error.excerpt().split('<').map(|part| part.split('>').next_back().unwrap_or(""));
            for digits in shown.flat_map(str::split_whitespace) {
                let bytes = crate::golden::bytes(digits);
                prop_assert!(!bytes.contains(&0xEE), "{error}");
            }
        }
    }
}

#[test]
fn an_error_names_the_message_the_place_and_the_structure_only() {
    let values = [Value::Text(b"secret"), Value::Null, Value::Binary(b"secret too")];
    let encoded = encode::tuple(&values);
    let (new, _) = Tuple::parse(&encoded).expect("a tuple");
    let message = Message::Insert(Insert { relation: 0x4001, new });
    let mut bytes = encode::message(&Decoded { xid: None, message });
    bytes[19] = b'?';
    let error =
        decode(&bytes, Context::new(Protocol::V1, Streaming::Off)).expect_err("no such kind");
    assert_eq!(error.tag(), Some(b'I'));
    assert_eq!(error.offset(), 19);
    assert_eq!(error.expected(), "a column's kind: n, u, t or b");
    assert_eq!(error.excerpt(), "49 00004001 4e 0003 74 00000006 <6 bytes> <16 bytes>");
}

#[test]
fn a_row_under_the_wrong_tag_shows_no_value_either() {
    let encoded = encode::tuple(&[Value::Text(&[0xEE; 200])]);
    let (new, _) = Tuple::parse(&encoded).expect("a tuple");
    for xid in [None, Some(Xid(784))] {
        let message = Message::Insert(Insert { relation: 0x4001, new });
        let mut bytes = encode::message(&Decoded { xid, message });
        for tag in (0..=u8::MAX).filter(|tag| ![b'I', 0xEE].contains(tag)) {
            bytes[0] = tag;
            for in_stream in [false, true] {
                let context =
                    Context { protocol: Protocol::V4, streaming: Streaming::Parallel, in_stream };
                match decode(&bytes, context) {
                    Ok(decoded) => assert_eq!(tag, b'U', "the same layout: {decoded:?}"),
                    Err(error) => assert!(!error.excerpt().contains("ee"), "{error}"),
                }
            }
        }
    }
}

#[test]
fn a_wrong_count_costs_no_memory() {
    // A relation that claims 65,535 columns and a truncate of four billion tables.
    let v1 = Context::new(Protocol::V1, Streaming::Off);
    let allocations = |hex: &str| {
        let bytes = crate::golden::bytes(hex);
        let before = so_far();
        assert!(decode(&bytes, v1).is_err(), "{hex}");
        so_far() - before
    };
    let without_a_count = allocations("52 00004001 7000 7400 64");
    assert_eq!(allocations("52 00004001 7000 7400 64 ffff"), without_a_count);
    let one_too_many = allocations("54 00000002 00 00004001");
    assert_eq!(allocations("54 ffffffff 00 00004001"), one_too_many);
}

/// The fuzz target's bounded twin: the same inputs each time.
#[test]
fn altered_captures_are_messages_or_errors() {
    const INPUTS: usize = 200_000;
    let seeds: Vec<Vec<u8>> = crate::golden::SCENARIOS
        .iter()
        .flat_map(|scenario| crate::golden::read(scenario).messages)
        .map(|captured| captured.bytes)
        // The long values are long for Postgres' sake.
        .filter(|bytes| bytes.len() < 500)
        .collect();
    let mut random = fastrand::Rng::with_seed(0x0715_7a1e);
    let mut input = Vec::new();
    let mut messages = 0;
    for _ in 0..INPUTS {
        input.clear();
        input.push(random.u8(..4));
        input.extend(random.choice(&seeds).expect("seeds"));
        for _ in 0..random.u8(0..4) {
            alter(&mut input, &seeds, &mut random);
        }
        messages += usize::from(crate::property::check(&input));
    }
    // Both ways were taken often, or the inputs say nothing.
    assert!((INPUTS / 10..INPUTS / 2).contains(&messages), "{messages} of {INPUTS} were messages");
}

fn alter(input: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut fastrand::Rng) {
    let at = random.usize(1..=input.len());
    match random.u8(..6) {
        0 => input.truncate(at),
        1 => input.insert(at, random.u8(..)),
        2 => input.extend(random.choice(seeds).expect("seeds")),
        3 if at < input.len() => input[at] ^= 1 << random.u8(..8),
        4 if at < input.len() => {
            input[at] = *random.choice(b"\x00\x01\x7f\xffnutbNKO").expect("one")
        }
        _ => {
            let _ = input.drain(at..(at + random.usize(..5)).min(input.len()));
        }
    }
}
