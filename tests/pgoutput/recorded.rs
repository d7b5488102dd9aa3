//! What a real Postgres 15 sent (`tests/golden`, captured by `capture.sh`) is
//! decoded to exactly what the scenarios did.

#![allow(clippy::cast_possible_truncation, reason = "a test fails by panicking")]

use crate::golden::{Captured, Golden};
use pretty::render;
use unstale::lsn::Lsn;
use unstale::pgoutput::decode::{Context, Decoder, Protocol, Streaming, decode};
use unstale::pgoutput::encode;
use unstale::pgoutput::message::{AbortedAt, Decoded, Message, Prepare, StreamAbort};
use unstale::snapshot::Xid;

/// Decodes a scenario, compares each message's positions, times and xids with
/// what the server said of them, and gives the rest as text.
fn decoded(scenario: &str, protocol: Protocol, streaming: Streaming) -> String {
    let golden = crate::golden::read(scenario);
    let mut decoder = Decoder::new(protocol, streaming);
    let mut transaction = Transaction::default();
    let mut text = String::new();
    for captured in &golden.messages {
        let decoded = decoder
            .decode(&captured.bytes)
            .unwrap_or_else(|e| panic!("{scenario} at {}: {e}", captured.lsn));
        transaction.check(&decoded, captured, &golden);
        assert_eq!(encode::message(&decoded), captured.bytes, "encoded again: {decoded:?}");
        text += &render(&decoded, captured.xid, &golden);
        text.push('\n');
    }
    assert!(!decoder.context().in_stream, "{scenario} ends within a block");
    text
}

/// What must agree between a transaction's first message and its last.
#[derive(Default)]
struct Transaction {
    announced: Option<(Lsn, i64)>,
    prepared: Option<(Lsn, Lsn, i64)>,
    streamed: Option<Xid>,
}

impl Transaction {
    fn check(&mut self, decoded: &Decoded<'_>, captured: &Captured, golden: &Golden) {
        let xid = Xid(captured.xid);
        let committed = || golden.commit_times[&captured.xid];
        match &decoded.message {
            Message::Begin(begin) => {
                assert_eq!((begin.xid, begin.commit_time), (xid, committed()));
                self.announced = Some((begin.final_lsn, begin.commit_time));
            }
            Message::Commit(commit) => {
                assert_eq!(self.announced.take(), Some((commit.commit_lsn, commit.commit_time)));
                assert_eq!((commit.flags, commit.end_lsn), (0, captured.lsn));
                assert!(commit.commit_lsn < commit.end_lsn);
            }
            Message::StreamStart(start) => {
                assert_eq!(start.xid, xid);
                self.streamed = Some(xid);
            }
            Message::StreamCommit(commit) => {
                assert_eq!((commit.xid, commit.commit_time), (xid, committed()));
                assert_eq!((commit.flags, commit.end_lsn), (0, captured.lsn));
                assert!(commit.commit_lsn < commit.end_lsn);
            }
            Message::StreamAbort(abort) => {
                assert_eq!((Some(abort.xid), abort.subxid), (self.streamed, xid));
                assert_eq!(abort.at, None);
            }
            Message::BeginPrepare(begin) => {
                assert_eq!(begin.xid, xid);
                self.prepared = Some((begin.prepare_lsn, begin.end_lsn, begin.prepare_time));
            }
            Message::Prepare(prepare) => {
                let announced = (prepare.prepare_lsn, prepare.end_lsn, prepare.prepare_time);
                assert_eq!(self.prepared, Some(announced));
                Self::check_prepare(prepare, captured);
            }
            Message::StreamPrepare(prepare) => Self::check_prepare(prepare, captured),
            Message::CommitPrepared(commit) => {
                assert_eq!((commit.xid, commit.commit_time), (xid, committed()));
                assert_eq!((commit.flags, commit.end_lsn), (0, captured.lsn));
                assert!(commit.commit_lsn < commit.end_lsn);
            }
            Message::RollbackPrepared(rollback) => {
                let (_, prepare_end, prepare_time) = self.prepared.expect("a prepare before");
                assert_eq!(rollback.prepare_end_lsn, prepare_end);
                assert_eq!(rollback.prepare_time, prepare_time);
                assert!(rollback.rollback_time > prepare_time);
                assert_eq!(
                    (rollback.flags, rollback.xid, rollback.rollback_end_lsn),
                    (0, xid, captured.lsn)
                );
            }
            Message::Logical(message) => assert_eq!(message.lsn, captured.lsn),
            _ => {}
        }
    }

    fn check_prepare(prepare: &Prepare<'_>, captured: &Captured) {
        assert_eq!(
            (prepare.flags, prepare.xid, prepare.end_lsn),
            (0, Xid(captured.xid), captured.lsn)
        );
        assert!(prepare.prepare_lsn < prepare.end_lsn);
    }
}

/// Messages as a reader would write them down.
mod pretty {
    use crate::golden::Golden;
    use unstale::pgoutput::message::{
        Decoded, Message, OldTuple, Relation, RelationColumn, Tuple, Value,
    };
    use unstale::snapshot::Xid;

    pub(crate) fn render(decoded: &Decoded<'_>, top: u32, golden: &Golden) -> String {
        let xid = decoded.xid.map_or(String::new(), |xid| format!("[{}] ", transaction(xid, top)));
        let name = |id: u32| golden.names.get(&id).cloned().unwrap_or_else(|| id.to_string());
        let text = match &decoded.message {
            Message::Begin(_) => "BEGIN".to_owned(),
            Message::Commit(_) => "COMMIT".to_owned(),
            Message::Origin(origin) => format!("ORIGIN {} {}", origin.name, origin.commit_lsn),
            Message::Relation(it) => {
                assert_eq!(name(it.id), *it.name);
                relation(it, name)
            }
            Message::Type(it) => format!("TYPE {} is {}.{}", name(it.id), it.namespace, it.name),
            Message::Insert(insert) => {
                format!("INSERT {} {}", name(insert.relation), row(insert.new))
            }
            Message::Update(update) => {
                let old = update.old.map_or(String::new(), |old| format!("{} to ", old_row(old)));
                format!("UPDATE {} {old}{}", name(update.relation), row(update.new))
            }
            Message::Delete(delete) => {
                format!("DELETE {} {}", name(delete.relation), old_row(delete.old))
            }
            Message::Truncate(truncate) => {
                let relations: Vec<_> = truncate.relations.iter().map(name).collect();
                let cascade = if truncate.cascade { " CASCADE" } else { "" };
                let restart = if truncate.restart_identity { " RESTART IDENTITY" } else { "" };
                format!("TRUNCATE {}{restart}{cascade}", relations.join(", "))
            }
            Message::Logical(it) => format!(
                "MESSAGE{} {} '{}'",
                if it.transactional { " transactional" } else { "" },
                it.prefix,
                it.content.escape_ascii()
            ),
            Message::StreamStart(start) => {
                format!("STREAM START{}", if start.first_segment { " first" } else { "" })
            }
            Message::StreamStop => "STREAM STOP".to_owned(),
            Message::StreamCommit(_) => "STREAM COMMIT".to_owned(),
            Message::StreamAbort(abort) => {
                format!("STREAM ABORT {}", transaction(abort.subxid, abort.xid.0))
            }
            Message::BeginPrepare(it) => format!("BEGIN PREPARE '{}'", it.gid),
            Message::Prepare(it) => format!("PREPARE '{}'", it.gid),
            Message::CommitPrepared(it) => format!("COMMIT PREPARED '{}'", it.gid),
            Message::RollbackPrepared(it) => format!("ROLLBACK PREPARED '{}'", it.gid),
            Message::StreamPrepare(it) => format!("STREAM PREPARE '{}'", it.gid),
        };
        xid + &text
    }

    /// Subtransactions are numbered after their transaction.
    fn transaction(xid: Xid, top: u32) -> String {
        if xid.0 == top { "top".to_owned() } else { format!("sub {}", xid.0 - top) }
    }

    fn relation(relation: &Relation, name: impl Fn(u32) -> String) -> String {
        let column = |it: &RelationColumn| {
            let key = if it.key { "*" } else { "" };
            let modifier = match it.type_modifier {
                -1 => String::new(),
                modifier => format!("({modifier})"),
            };
            format!("{}{key} {}{modifier}", it.name, name(it.type_id))
        };
        let columns: Vec<_> = relation.columns.iter().map(column).collect();
        let Relation { namespace, name, identity, .. } = relation;
        format!("RELATION {namespace}.{name} {identity:?} ({})", columns.join(", "))
    }

    fn old_row(old: OldTuple<'_>) -> String {
        match old {
            OldTuple::Key(tuple) => format!("key {}", row(tuple)),
            OldTuple::Full(tuple) => format!("full {}", row(tuple)),
        }
    }

    fn row(tuple: Tuple<'_>) -> String {
        let values: Vec<_> = tuple.iter().map(value).collect();
        assert_eq!(values.len(), tuple.len());
        format!("({})", values.join(", "))
    }

    fn value(value: Value<'_>) -> String {
        match value {
            Value::Null => "NULL".to_owned(),
            Value::Unchanged => "unchanged".to_owned(),
            Value::Text(text) => match std::str::from_utf8(text).expect("UTF-8") {
                long if long.len() > 100 => {
                    assert_eq!(long, long[..1].repeat(long.len()));
                    format!("'{}'x{}", &long[..1], long.len())
                }
                text => format!("'{text}'"),
            },
            Value::Binary(bytes) => {
                bytes.iter().fold("0x".to_owned(), |hex, byte| format!("{hex}{byte:02x}"))
            }
        }
    }
}

#[track_caller]
fn assert_lines(decoded: &str, expected: &str) {
    let expected: String = expected
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .map(|l| format!("{l}\n"))
        .collect();
    assert!(decoded == expected, "--- decoded\n{decoded}--- expected\n{expected}");
}

#[test]
fn each_replica_identity_carries_its_old_values() {
    assert_lines(
        &decoded("identities", Protocol::V1, Streaming::Off),
        "
        BEGIN
        RELATION public.by_primary_key Default (id* 20, org 23, name 25)
        INSERT by_primary_key ('1', '10', 'one')
        UPDATE by_primary_key ('1', '11', 'one')
        UPDATE by_primary_key key ('1', NULL, NULL) to ('2', '11', 'one')
        DELETE by_primary_key key ('2', NULL, NULL)
        COMMIT
        BEGIN
        RELATION public.by_index Index (id* 20, org* 23, name 25)
        INSERT by_index ('1', '10', 'one')
        UPDATE by_index ('1', '10', 'eins')
        UPDATE by_index key ('1', '10', NULL) to ('1', '11', 'eins')
        DELETE by_index key ('1', '11', NULL)
        COMMIT
        BEGIN
        RELATION public.by_nothing Nothing (id 20, org 23, name 25)
        INSERT by_nothing ('1', '10', 'one')
        COMMIT
        BEGIN
        RELATION public.by_full Full (id* 20, org* 23, name* 1043(24))
        INSERT by_full ('1', '10', NULL)
        UPDATE by_full full ('1', '10', NULL) to ('1', '11', NULL)
        DELETE by_full full ('1', '11', NULL)
        COMMIT
        ",
    );
}

#[test]
fn null_unchanged_toast_and_value_are_told_apart() {
    // A domain's column is announced under the domain's OID with its base type's name;
    // a generated column is not announced at all before Postgres 18.
    assert_lines(
        &decoded("values", Protocol::V1, Streaming::Off),
        r#"
        BEGIN
        TYPE status is public.status
        TYPE amount is pg_catalog.numeric
        RELATION public.deal Default (id* 2950, status status, amount amount, remarks 25)
        INSERT deal ('00000000-0000-0000-0000-000000000001', 'pending', '12.50', 'r'x2100)
        INSERT deal ('00000000-0000-0000-0000-000000000002', NULL, NULL, '')
        UPDATE deal ('00000000-0000-0000-0000-000000000001', 'verified', '12.50', unchanged)
        COMMIT
        BEGIN
        RELATION public.full_deal Full (id* 23, org* 23, remarks* 25)
        INSERT full_deal ('1', '10', 'r'x2100)
        UPDATE full_deal full ('1', '10', 'r'x2100) to ('1', '11', unchanged)
        COMMIT
        BEGIN
        TYPE pg_rules is pg_catalog.pg_rules
        RELATION public.Größe "x" Default (a b* 25, rule pg_rules)
        INSERT Größe "x" ('ä', NULL)
        RELATION public.no_columns Default ()
        INSERT no_columns ()
        RELATION public.visit_2024 Default (id* 23, day* 1082)
        INSERT visit_2024 ('1', '2024-02-29')
        COMMIT
        BEGIN
        INSERT full_deal ('2', NULL, NULL)
        RELATION public.full_deal Full (id* 23, notes* 25)
        INSERT full_deal ('3', 'n')
        COMMIT
        BEGIN
        RELATION public.visit Default (id* 23, day* 1082)
        RELATION public.visit_2024 Default (id* 23, day* 1082)
        INSERT visit ('2', '2024-02-29')
        COMMIT
        "#,
    );
}

#[test]
fn binary_values_are_told_from_text() {
    // aclitem has no binary form: it comes as text even then.
    assert_lines(
        &decoded("binary_values", Protocol::V1, Streaming::Off),
        "
        BEGIN
        RELATION public.item Default (id* 20, active 16, name 25, acl 1033)
        INSERT item (0x0000000000000102, 0x01, 0x7468696e67, NULL)
        UPDATE item (0x0000000000000102, 0x01, 0x7468696e67, 'postgres=r/postgres')
        UPDATE item key (0x0000000000000102, NULL, NULL, NULL) to (0x0000000000000103, 0x01, 0x7468696e67, 'postgres=r/postgres')
        COMMIT
        ",
    );
}

#[test]
fn truncate_messages_and_origins_come_with_their_options() {
    assert_lines(
        &decoded("transactions", Protocol::V1, Streaming::Off),
        r"
        BEGIN
        RELATION public.parent Default (id* 23)
        RELATION public.child Default (id* 23, parent 23)
        TRUNCATE parent, child CASCADE
        RELATION public.other Default (id* 23)
        TRUNCATE other RESTART IDENTITY
        RELATION public.other Default (id* 23)
        RELATION public.child Default (id* 23, parent 23)
        TRUNCATE other, child
        RELATION public.parent Default (id* 23)
        RELATION public.child Default (id* 23, parent 23)
        TRUNCATE parent, child RESTART IDENTITY CASCADE
        COMMIT
        BEGIN
        MESSAGE transactional unstale 'in the transaction'
        RELATION public.other Default (id* 23)
        INSERT other ('1')
        COMMIT
        MESSAGE unstale '\x00\xff'
        BEGIN
        ORIGIN upstream 1/2345678
        INSERT other ('2')
        COMMIT
        ",
    );
}

#[test]
fn streamed_blocks_carry_the_xid_of_each_change() {
    assert_lines(
        &decoded("streamed", Protocol::V2, Streaming::On),
        "
        BEGIN
        TYPE kind is public.kind
        RELATION public.big Default (id* 23, kind kind)
        INSERT big ('0', 'a')
        COMMIT
        STREAM START first
        [top] TYPE kind is public.kind
        [top] RELATION public.big Default (id* 23, kind kind)
        [top] INSERT big ('1', 'b')
        [top] INSERT big ('2', 'b')
        [top] INSERT big ('3', 'b')
        [sub 1] INSERT big ('101', 'b')
        [sub 1] INSERT big ('102', 'b')
        [sub 1] INSERT big ('103', 'b')
        STREAM STOP
        STREAM ABORT sub 1
        STREAM START
        [top] MESSAGE transactional unstale 'in a block'
        [sub 2] TYPE kind is public.kind
        [sub 2] RELATION public.big Default (id* 23, kind kind)
        [sub 2] UPDATE big key ('1', NULL) to ('1000000', 'b')
        [sub 2] DELETE big key ('2', NULL)
        [sub 2] RELATION public.other Default (id* 23)
        [sub 2] TRUNCATE other
        [sub 2] INSERT big ('701', 'b')
        [sub 2] INSERT big ('702', 'b')
        [sub 2] INSERT big ('703', 'b')
        STREAM STOP
        STREAM START
        [sub 2] INSERT big ('1173', 'b')
        [sub 2] INSERT big ('1174', 'b')
        [sub 2] INSERT big ('1175', 'b')
        STREAM STOP
        STREAM COMMIT
        STREAM START first
        [top] TYPE kind is public.kind
        [top] RELATION public.big Default (id* 23, kind kind)
        [top] INSERT big ('2001', 'a')
        [top] INSERT big ('2002', 'a')
        [top] INSERT big ('2003', 'a')
        STREAM STOP
        STREAM ABORT top
        STREAM START first
        ORIGIN elsewhere 0/0
        [top] TYPE kind is public.kind
        [top] RELATION public.big Default (id* 23, kind kind)
        [top] INSERT big ('3001', 'a')
        [top] INSERT big ('3002', 'a')
        [top] INSERT big ('3003', 'a')
        STREAM STOP
        STREAM START
        [top] INSERT big ('3483', 'a')
        [top] INSERT big ('3484', 'a')
        [top] INSERT big ('3485', 'a')
        STREAM STOP
        STREAM COMMIT
        ",
    );
}

#[test]
fn prepared_transactions_are_followed_to_their_end() {
    assert_lines(
        &decoded("prepared", Protocol::V3, Streaming::On),
        "
        BEGIN PREPARE 'to commit'
        RELATION public.big Default (id* 23)
        INSERT big ('0')
        PREPARE 'to commit'
        COMMIT PREPARED 'to commit'
        BEGIN PREPARE 'to roll back'
        INSERT big ('-1')
        PREPARE 'to roll back'
        ROLLBACK PREPARED 'to roll back'
        STREAM START first
        [top] RELATION public.big Default (id* 23)
        [top] INSERT big ('1')
        [top] INSERT big ('2')
        [top] INSERT big ('3')
        STREAM STOP
        STREAM START
        [top] INSERT big ('498')
        [top] INSERT big ('499')
        [top] INSERT big ('500')
        STREAM STOP
        STREAM PREPARE 'large'
        COMMIT PREPARED 'large'
        ",
    );
}

/// Postgres 15 speaks protocol 3 at most: these bytes are after the manual of 16.
#[test]
fn a_parallel_abort_says_where_and_when() {
    let bytes = crate::golden::bytes("41 00000310 00000311 00000016b374d848 0002b58341728614");
    let parallel = Context::new(Protocol::V4, Streaming::Parallel);
    let abort = StreamAbort {
        xid: Xid(784),
        subxid: Xid(785),
        at: Some(AbortedAt { abort_lsn: Lsn(0x16_B374_D848), abort_time: 762_525_296_789_012 }),
    };
    let expected = Decoded { xid: None, message: Message::StreamAbort(abort) };
    assert_eq!(decode(&bytes, parallel), Ok(expected));
    let on = Context::new(Protocol::V4, Streaming::On);
    assert_eq!(decode(&bytes, on).map_err(|e| e.offset()), Err(9), "sent to one who did not ask");
    assert_eq!(decode(&bytes[..9], parallel).map_err(|e| e.offset()), Err(9), "not sent");
}

#[test]
fn messages_of_a_later_protocol_or_another_place_are_refused() {
    let streamed = crate::golden::read("streamed");
    let start = &streamed.messages.iter().find(|m| m.bytes[0] == b'S').expect("a start").bytes;
    let refused = |bytes: &[u8], context| {
        let error = decode(bytes, context).expect_err("a message out of place");
        assert_eq!(error.offset(), 0, "{error}");
    };
    let v1 = Context::new(Protocol::V1, Streaming::Off);
    let v3 = Context::new(Protocol::V3, Streaming::On);
    let within = Context { in_stream: true, ..v3 };
    refused(start, v1);
    refused(start, within);
    refused(b"E", v3);
    for message in &crate::golden::read("prepared").messages {
        if b"bPKrp".contains(&message.bytes[0]) {
            refused(&message.bytes, Context::new(Protocol::V2, Streaming::On));
            refused(&message.bytes, within);
        }
    }
    for message in &crate::golden::read("identities").messages {
        if b"BC".contains(&message.bytes[0]) {
            refused(&message.bytes, within);
        }
    }
}
