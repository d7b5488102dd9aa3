//! A stream that does not follow the protocol ends at that message: it is never guessed,
//! never skipped, and no row's value is shown.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use unstale::config::model::StreamInProgress;
use unstale::lsn::Lsn;
use unstale::mapping::Mapping;
use unstale::pgoutput::encode;
use unstale::pgoutput::message::Value;
use unstale::pipeline::assemble::{Assembler, Bounds, Dialect, Unbelieved};

const AT: Lsn = Lsn(0x1_0000_0042);

static MAPPING: LazyLock<Arc<Mapping>> = LazyLock::new(|| {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/unstale.toml");
    let loaded = unstale::config::load(Some(&config), &[]).expect("the default configuration");
    Arc::new(Mapping::new(&loaded.config).expect("the default mapping"))
});

fn assembler_of(dialect: Dialect) -> Assembler {
    let bounds = Bounds { transaction: 1000, in_progress: 1000 };
    Assembler::new(Arc::clone(&MAPPING), dialect, bounds, Unbelieved::default())
}

fn assembler() -> Assembler {
    assembler_of(Dialect::WHOLE)
}

/// One that takes transactions in progress, as Postgres 15 sends them.
fn streaming() -> Assembler {
    assembler_of(Dialect::of_server(150_000, StreamInProgress::On))
}

fn begin() -> Vec<u8> {
    let mut bytes = b"B".to_vec();
    bytes.extend(9_u64.to_be_bytes());
    bytes.extend(0_i64.to_be_bytes());
    bytes.extend(7_u32.to_be_bytes());
    bytes
}

fn commit() -> Vec<u8> {
    let mut bytes = b"C\0".to_vec();
    bytes.extend(9_u64.to_be_bytes());
    bytes.extend(10_u64.to_be_bytes());
    bytes.extend(0_i64.to_be_bytes());
    bytes
}

/// `organization_organization (id bigint key, name text)`
fn relation() -> Vec<u8> {
    let mut bytes = b"R".to_vec();
    bytes.extend(42_u32.to_be_bytes());
    bytes.extend(b"public\0organization_organization\0d");
    bytes.extend(2_u16.to_be_bytes());
    for (flags, name, r#type) in [(1_u8, "id", 20_u32), (0, "name", 25)] {
        bytes.push(flags);
        bytes.extend(name.as_bytes());
        bytes.push(0);
        bytes.extend(r#type.to_be_bytes());
        bytes.extend((-1_i32).to_be_bytes());
    }
    bytes
}

fn insert(relation: u32, values: &[&str]) -> Vec<u8> {
    let values: Vec<Value<'_>> = values.iter().map(|v| Value::Text(v.as_bytes())).collect();
    let mut bytes = b"I".to_vec();
    bytes.extend(relation.to_be_bytes());
    bytes.push(b'N');
    bytes.extend(encode::tuple(&values));
    bytes
}

/// Feeds the messages; the last one must be refused.
fn refused(messages: &[Vec<u8>]) -> String {
    refused_by(assembler(), messages)
}

fn refused_by(mut assembler: Assembler, messages: &[Vec<u8>]) -> String {
    let (last, before) = messages.split_last().expect("a message");
    for message in before {
        assembler.take(AT, message).expect("fine so far");
    }
    let error = assembler.take(AT, last).expect_err("the last message is wrong");
    let told = error.to_string();
    assert!(told.contains("1/42"), "no position: {told}");
    assert!(!told.contains("private"), "a row's value is shown: {told}");
    told
}

#[test]
fn what_comes_in_order_is_a_transaction() {
    let mut assembler = assembler();
    for message in [begin(), relation(), insert(42, &["5", "private"])] {
        assembler.take(AT, &message).unwrap();
    }
    assert!(assembler.is_inside_transaction());
    let transaction = assembler.take(AT, &commit()).unwrap().expect("a transaction");
    assert_eq!((transaction.xid.0, transaction.end_lsn), (7, Lsn(10)));
    assert!(!transaction.changes.is_empty());
}

#[test]
fn a_message_that_is_cut_off_is_told_with_an_excerpt_but_no_value() {
    let whole = insert(42, &["5", "private"]);
    for length in 1..whole.len() {
        let cut = whole[..length].to_vec();
        let told = refused(&[begin(), relation(), cut]);
        assert!(told.contains("malformed message"), "{told}");
    }
    let mut long = whole;
    long.push(0);
    refused(&[begin(), relation(), long]);
    let told = refused(&[b"\xfeprivate".to_vec()]);
    assert!(told.contains("fe"), "no excerpt: {told}");
    refused(&[vec![]]);
}

#[test]
fn what_comes_out_of_place_is_told() {
    let row = insert(42, &["5", "private"]);
    assert!(refused(&[relation(), row.clone()]).contains("outside of a transaction"));
    assert!(refused(&[begin(), row.clone()]).contains("not described"));
    assert!(refused(&[begin(), relation(), insert(43, &["5"])]).contains("not described"));
    assert!(refused(&[begin(), begin()]).contains("inside of another"));
    assert!(refused(&[commit()]).contains("never began"));
    for wrong in [vec![], vec!["5"], vec!["5", "private", "private"]] {
        let told = refused(&[begin(), relation(), insert(42, &wrong)]);
        assert!(told.contains("number of columns"), "{told}");
    }
    // The server was not asked for streamed or prepared transactions.
    for tag in [b'S', b'E', b'c', b'A', b'b', b'P', b'K', b'r', b'p'] {
        refused(&[begin(), vec![tag; 60]]);
    }
}

/// Postgres 18 tells of rollbacks of what it never sent, in any protocol.
#[test]
fn a_rollback_of_what_never_came_is_passed_over() {
    for mut assembler in [assembler(), streaming()] {
        let blocks = assembler.in_progress();
        let mut abort = [b"A".as_slice(), &7_u32.to_be_bytes(), &8_u32.to_be_bytes()].concat();
        for _ in 0..2 {
            assert!(assembler.take(Lsn(1), &abort).expect("it is passed over").is_none());
            // The whole of it, too.
            abort.copy_within(1..5, 5);
        }
        assert_eq!(assembler.in_progress(), blocks);
        for message in [begin(), relation(), insert(42, &["5", "private"])] {
            assert!(assembler.take(Lsn(2), &message).expect("it goes on").is_none());
        }
        assert!(assembler.take(Lsn(3), &commit()).expect("it goes on").is_some());
    }
}

fn block(xid: u32, first: u8) -> Vec<u8> {
    [b"S".as_slice(), &xid.to_be_bytes(), &[first]].concat()
}

fn stream_commit(xid: u32) -> Vec<u8> {
    let mut bytes = commit();
    bytes.splice(0..1, [b"c".as_slice(), &xid.to_be_bytes()].concat());
    bytes
}

/// A message as it is inside of a block, where each tells whose it is.
fn of(xid: u32, mut message: Vec<u8>) -> Vec<u8> {
    message.splice(1..1, xid.to_be_bytes());
    message
}

#[test]
fn what_comes_out_of_place_in_blocks_is_told() {
    let row = || of(7, insert(42, &["5", "private"]));
    let stop = || b"E".to_vec();
    let told = |messages: &[Vec<u8>]| refused_by(streaming(), messages);
    assert!(told(&[begin(), block(7, 1)]).contains("inside of a transaction"));
    assert!(told(&[block(7, 0)]).contains("never began"));
    assert!(told(&[stream_commit(7)]).contains("never began"));
    assert!(told(&[block(7, 1), row()]).contains("not described"));
    told(&[block(7, 1), block(8, 1)]);
    told(&[block(7, 1), begin()]);
    told(&[block(7, 1), stream_commit(7)]);
    told(&[stop()]);
    // What one transaction was told of a table is nothing to another before its commit.
    let described = [block(7, 1), of(7, relation()), row(), stop(), begin()];
    let messages = [described.to_vec(), vec![insert(42, &["5", "private"])]].concat();
    assert!(told(&messages).contains("not described"));
    // Prepared transactions were not asked for.
    for tag in [b'b', b'P', b'K', b'r', b'p'] {
        told(&[vec![tag; 60]]);
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(streamed in any::<bool>(), messages in prop::collection::vec(
        prop_oneof![
            Just(begin()), Just(commit()), Just(relation()),
            Just(insert(42, &["5", "private"])),
            (7u32..9, any::<bool>()).prop_map(|(xid, first)| block(xid, first.into())),
            (7u32..9).prop_map(|xid| of(xid, insert(42, &["5", "private"]))),
            (7u32..9).prop_map(|xid| of(xid, relation())),
            (7u32..9, 7u32..12).prop_map(|(xid, sub)| [b"A".as_slice(), &xid.to_be_bytes(), &sub.to_be_bytes()].concat()),
            (7u32..9).prop_map(stream_commit),
            Just(b"E".to_vec()),
            prop::collection::vec(any::<u8>(), 0..80),
            (prop::sample::select(b"BCORYIUDTMSEcAbPKrp".to_vec()), prop::collection::vec(any::<u8>(), 0..60))
                .prop_map(|(tag, mut rest)| { rest.insert(0, tag); rest }),
        ], 0..24,
    )) {
        let mut assembler = if streamed { streaming() } else { assembler() };
        for message in &messages {
            if let Err(error) = assembler.take(AT, message) {
                prop_assert!(!error.to_string().contains("private"));
                break;
            }
        }
    }
}
