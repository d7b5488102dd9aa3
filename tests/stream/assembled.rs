//! The same history, once in blocks while its transactions are in progress and once in whole
//! transactions after their commits, touches the same.

#![allow(clippy::cast_possible_truncation, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use unstale::config::model::StreamInProgress;
use unstale::lsn::Lsn;
use unstale::mapping::Mapping;
use unstale::pgoutput::decode::{Protocol, Streaming};
use unstale::pgoutput::encode;
use unstale::pgoutput::message::Value;
use unstale::pipeline::assemble::{Assembler, Bounds, Dialect, Unbelieved};

const CONFIG: &str = r#"
[postgres]
url = "postgres://nowhere"
[redis]
url = "redis://nowhere"
[caches.item]
key = "item:{id}"
[caches.looked]
key = "looked:{id}"
[caches.every]
key = "every:{id}"
[caches.big]
key = "big:{id}"
[[tables]]
name = "item"
invalidates = [
    { cache = "item", id = "id" },
    { cache = "looked", via = "select changed.id from changed" },
]
[[tables]]
name = "other"
invalidates = [{ cache = "every", whole = true }]
[[tables]]
name = "big"
invalidates = [{ cache = "big", id = "id" }]
"#;

static MAPPING: LazyLock<Arc<Mapping>> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("unstale.toml");
    std::fs::write(&path, CONFIG).expect("written");
    let loaded = unstale::config::load(Some(&path), &[]).expect("a configuration");
    Arc::new(Mapping::new(&loaded.config).expect("a mapping"))
});

const ITEM: u32 = 41;
const OTHER: u32 = 42;

fn assembler(dialect: Dialect, limit: usize) -> Assembler {
    let bounds = Bounds { transaction: limit, in_progress: limit };
    Assembler::new(Arc::clone(&MAPPING), dialect, bounds, Unbelieved::default())
}

/// What a session does.
#[derive(Debug, Clone, Copy)]
enum Act {
    Item(u8),
    Other,
    Truncate,
    /// `id` moves behind a new column: another shape of the table.
    Alter,
    Savepoint,
    Release,
    RollBackTo,
    Commit,
    RollBack,
    /// Everything up to here is sent.
    Send,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Write {
    Item(u8),
    Other,
    Truncate,
}

/// A write, who made it, and in which shape the table was.
type Written = (u32, u8, Write);

#[derive(Default)]
struct Subtransaction {
    xid: Option<u32>,
    released: Vec<u32>,
    written: Vec<Written>,
    /// How often the table had been altered when it began.
    shape: u8,
}

/// One session's transaction, and what the server has not sent of it.
#[derive(Default)]
struct Session {
    open: Vec<Subtransaction>,
    unsent: Vec<Written>,
    /// Whom the consumer knows.
    sent: BTreeSet<u32>,
    /// In which shape the table was described to it, and whether the other was.
    described: (Option<u8>, bool),
    /// How often it has altered the table.
    shape: u8,
}

/// A server, as far as it matters here.
struct Server {
    sessions: Vec<Session>,
    next: u32,
    /// The stream with `streaming`, and without.
    blocks: Vec<Vec<u8>>,
    whole: Vec<Vec<u8>>,
    /// The table as it is, and as it was described to all, with `streaming` and without.
    shape: u8,
    described: (Option<u8>, bool),
    described_whole: (Option<u8>, bool),
    commits: u64,
    altering: Option<usize>,
}

impl Server {
    fn run(sessions: usize, acts: &[(usize, Act)]) -> Server {
        let mut server = Server {
            sessions: Vec::new(),
            next: 100,
            blocks: Vec::new(),
            whole: Vec::new(),
            shape: 0,
            described: (None, false),
            described_whole: (None, false),
            commits: 0,
            altering: None,
        };
        server.sessions.resize_with(sessions, Session::default);
        for (session, act) in acts {
            server.act(session % sessions, *act);
        }
        for session in 0..sessions {
            server.act(session, Act::Commit);
        }
        server
    }

    fn act(&mut self, at: usize, act: Act) {
        if self.sessions[at].open.is_empty() {
            let shape = self.shape;
            self.sessions[at].shape = shape;
            self.sessions[at].open.push(Subtransaction { shape, ..Subtransaction::default() });
        }
        let locked = self.altering.is_some_and(|by| by != at);
        match act {
            Act::Item(id) if !locked => self.write(at, Write::Item(id)),
            Act::Truncate if !locked => self.write(at, Write::Truncate),
            Act::Other => self.write(at, Write::Other),
            // Needs a lock that excludes all who have written, and all who would.
            Act::Alter if !locked && self.others_idle(at) => {
                self.altering = Some(at);
                self.sessions[at].shape += 1;
                self.assign(at);
            }
            Act::Savepoint => {
                let shape = self.sessions[at].shape;
                let new = Subtransaction { shape, ..Subtransaction::default() };
                self.sessions[at].open.push(new);
            }
            Act::Release if self.sessions[at].open.len() > 1 => {
                let ended = self.sessions[at].open.pop().unwrap();
                let parent = self.sessions[at].open.last_mut().unwrap();
                parent.released.extend(ended.released);
                parent.released.extend(ended.xid);
                parent.written.extend(ended.written);
            }
            Act::RollBackTo if self.sessions[at].open.len() > 1 => self.roll_back_to(at),
            Act::Send => self.send(at),
            Act::Commit => self.commit(at),
            Act::RollBack => {
                while self.sessions[at].open.len() > 1 {
                    self.roll_back_to(at);
                }
                self.roll_back_to(at);
                self.end(at);
            }
            _ => {}
        }
    }

    fn others_idle(&self, at: usize) -> bool {
        let touched = |s: &Session| {
            s.open.iter().any(|open| open.written.iter().any(|(.., write)| *write != Write::Other))
        };
        self.sessions.iter().enumerate().all(|(i, s)| i == at || !touched(s))
    }

    fn assign(&mut self, at: usize) -> u32 {
        for open in &mut self.sessions[at].open {
            if open.xid.is_none() {
                self.next += 1;
                open.xid = Some(self.next);
            }
        }
        self.sessions[at].open.last().and_then(|open| open.xid).unwrap()
    }

    fn write(&mut self, at: usize, write: Write) {
        let xid = self.assign(at);
        let session = &mut self.sessions[at];
        // A session that only reads follows the others' changes of the table.
        if self.altering != Some(at) {
            session.shape = self.shape;
        }
        let written = (xid, session.shape, write);
        session.open.last_mut().unwrap().written.push(written);
        session.unsent.push(written);
    }

    /// A block, if there is anything to send.
    fn send(&mut self, at: usize) {
        let session = &mut self.sessions[at];
        let Some(top) = session.open[0].xid else { return };
        let first = session.sent.insert(top);
        self.blocks.push([b"S".as_slice(), &top.to_be_bytes(), &[first.into()]].concat());
        for (xid, shape, write) in std::mem::take(&mut session.unsent) {
            session.sent.insert(xid);
            for message in messages(shape, write, &mut session.described) {
                self.blocks.push(of(xid, message));
            }
        }
        self.blocks.push(b"E".to_vec());
    }

    fn roll_back_to(&mut self, at: usize) {
        let session = &mut self.sessions[at];
        let top = session.open[0].xid;
        let ended = session.open.pop().unwrap();
        let mut gone = ended.released;
        gone.sort_unstable();
        gone.extend(ended.xid);
        session.unsent.retain(|(xid, ..)| !gone.contains(xid));
        if session.shape != ended.shape {
            session.shape = ended.shape;
            if session.shape == self.shape {
                self.altering = None;
            }
        }
        for xid in gone {
            if session.sent.remove(&xid) {
                let top = top.unwrap();
                self.blocks
                    .push([b"A".as_slice(), &top.to_be_bytes(), &xid.to_be_bytes()].concat());
                session.described = (None, false);
            }
        }
    }

    fn commit(&mut self, at: usize) {
        while self.sessions[at].open.len() > 1 {
            self.act(at, Act::Release);
        }
        let Some(top) = self.sessions[at].open[0].xid else { return self.end(at) };
        self.commits += 1;
        let commit = commit(self.commits);
        if self.sessions[at].sent.contains(&top) {
            self.send(at);
            self.blocks.push({
                let mut bytes = commit.clone();
                bytes.splice(0..1, [b"c".as_slice(), &top.to_be_bytes()].concat());
                bytes
            });
            // What was described to it counts to all.
            let own = self.sessions[at].described;
            self.described = (own.0.or(self.described.0), own.1 || self.described.1);
        } else {
            self.blocks.push(begin(top, self.commits));
            let written = std::mem::take(&mut self.sessions[at].unsent);
            for (_, shape, write) in written {
                self.blocks.extend(messages(shape, write, &mut self.described));
            }
            self.blocks.push(commit.clone());
        }
        self.whole.push(begin(top, self.commits));
        for (_, shape, write) in std::mem::take(&mut self.sessions[at].open[0].written) {
            self.whole.extend(messages(shape, write, &mut self.described_whole));
        }
        self.whole.push(commit);
        if self.altering == Some(at) {
            self.shape = self.sessions[at].shape;
            // The cache's entry was invalidated.
            if self.described.0 != Some(self.shape) {
                self.described.0 = None;
            }
        }
        self.end(at);
    }

    fn end(&mut self, at: usize) {
        if self.altering == Some(at) {
            self.altering = None;
        }
        self.sessions[at] = Session::default();
    }
}

/// A write, after what must be described before it.
fn messages(shape: u8, write: Write, described: &mut (Option<u8>, bool)) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    if write == Write::Other {
        if !std::mem::replace(&mut described.1, true) {
            messages.push(relation(OTHER, "other", &["id"]));
        }
        messages.push(insert(OTHER, &["1"]));
        return messages;
    }
    if described.0.replace(shape) != Some(shape) {
        let mut columns = vec!["more"; usize::from(shape)];
        columns.push("id");
        messages.push(relation(ITEM, "item", &columns));
    }
    match write {
        Write::Item(id) => {
            let id = id.to_string();
            let mut values = vec!["x"; usize::from(shape)];
            values.push(&id);
            messages.push(insert(ITEM, &values));
        }
        _ => {
            let mut bytes = b"T".to_vec();
            bytes.extend(1_u32.to_be_bytes());
            bytes.push(0);
            bytes.extend(ITEM.to_be_bytes());
            messages.push(bytes);
        }
    }
    messages
}

fn begin(xid: u32, number: u64) -> Vec<u8> {
    [b"B".as_slice(), &(number * 10).to_be_bytes(), &0_u64.to_be_bytes(), &xid.to_be_bytes()]
        .concat()
}

fn commit(number: u64) -> Vec<u8> {
    let (at, end) = ((number * 10).to_be_bytes(), (number * 10 + 5).to_be_bytes());
    [b"C\0".as_slice(), &at, &end, &0_u64.to_be_bytes()].concat()
}

fn relation(oid: u32, name: &str, columns: &[&str]) -> Vec<u8> {
    let mut bytes = b"R".to_vec();
    bytes.extend(oid.to_be_bytes());
    bytes.extend(format!("public\0{name}\0f").as_bytes());
    bytes.extend(u16::try_from(columns.len()).unwrap().to_be_bytes());
    for name in columns {
        bytes.push(1);
        bytes.extend(format!("{name}\0").as_bytes());
        bytes.extend(23_u32.to_be_bytes());
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

/// A message as it is inside of a block, where each tells whose it is.
fn of(xid: u32, mut message: Vec<u8>) -> Vec<u8> {
    message.splice(1..1, xid.to_be_bytes());
    message
}

/// A transaction's end, and what it touches: keys, rows to look up, caches as a whole.
type Touched = (Lsn, BTreeSet<String>, BTreeSet<String>, BTreeSet<u16>, BTreeMap<String, u64>);

fn assembled(mut assembler: Assembler, messages: &[Vec<u8>]) -> Vec<Touched> {
    let mut transactions = Vec::new();
    for message in messages {
        if let Some(transaction) = assembler.take(Lsn(1), message).expect("in order") {
            let changes = transaction.changes;
            let lookups = changes.lookups().flat_map(|(_, rows)| {
                rows.batches(1).map(|columns| format!("{columns:?}")).collect::<Vec<_>>()
            });
            for (rule, _) in changes.lookups() {
                assert!(transaction.plans.get(rule).is_some(), "the lookup was not compiled");
            }
            transactions.push((
                transaction.end_lsn,
                changes.keys().map(|(key, _)| key.to_string()).collect(),
                lookups.collect(),
                changes.whole().map(|(cache, ..)| cache.0).collect(),
                changes.counts().map(|(t, op, n)| (format!("{t:?} {op:?}"), n)).collect(),
            ));
        }
    }
    assert_eq!(assembler.in_progress(), (0, 0), "nothing is left behind");
    transactions
}

fn acts() -> impl Strategy<Value = Vec<(usize, Act)>> {
    let act = prop_oneof![
        10 => (0u8..8).prop_map(Act::Item),
        2 => Just(Act::Other),
        1 => Just(Act::Truncate),
        2 => Just(Act::Alter),
        4 => Just(Act::Savepoint),
        2 => Just(Act::Release),
        3 => Just(Act::RollBackTo),
        2 => Just(Act::Commit),
        1 => Just(Act::RollBack),
        6 => Just(Act::Send),
    ];
    proptest::collection::vec((0usize..4, act), 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn blocks_and_whole_transactions_say_the_same(sessions in 1usize..4, acts in acts()) {
        let server = Server::run(sessions, &acts);
        let streamed = Dialect::of_server(150_000, StreamInProgress::On);
        let blocks = assembled(assembler(streamed, usize::MAX), &server.blocks);
        let whole = assembled(assembler(Dialect::WHOLE, usize::MAX), &server.whole);
        prop_assert_eq!(blocks, whole);
    }

    #[test]
    fn under_a_limit_of_all_no_less_is_dropped(limit in 1usize..8, acts in acts()) {
        let server = Server::run(3, &acts);
        let streamed = Dialect::of_server(150_000, StreamInProgress::On);
        let blocks = assembled(assembler(streamed, limit), &server.blocks);
        let whole = assembled(assembler(Dialect::WHOLE, usize::MAX), &server.whole);
        prop_assert_eq!(blocks.len(), whole.len());
        let cache = |name: &str| MAPPING.cache_by_name(name).unwrap().0.0;
        for (blocks, whole) in blocks.iter().zip(&whole) {
            prop_assert!(blocks.3.is_superset(&whole.3));
            prop_assert!(blocks.3.contains(&cache("item")) || blocks.1.is_superset(&whole.1));
            prop_assert!(blocks.3.contains(&cache("looked")) || blocks.2.is_superset(&whole.2));
        }
    }
}

#[test]
fn a_servers_own_blocks_are_assembled() {
    let captured = crate::golden::read("streamed").messages;
    let first = captured.iter().map(|message| (message.lsn, &message.bytes));
    let streamed = Dialect { protocol: Protocol::V2, streaming: Streaming::On };
    let mut assembler = assembler(streamed, usize::MAX);
    let mut transactions = first.filter_map(|(lsn, bytes)| assembler.take(lsn, bytes).unwrap());
    let mut next = || {
        let changes = transactions.next().expect("a transaction").changes;
        let ids = changes.keys().filter_map(|(key, _)| key.to_string()[4..].parse().ok());
        let mut ids: Vec<u32> = ids.collect();
        ids.sort_unstable();
        // Where a block ends, the capture keeps some more.
        ids.retain(|id| !(704..=1200).contains(id));
        (ids, changes.whole().count())
    };
    assert_eq!(next(), (vec![0], 0));
    // 101 to 700 were rolled back. TRUNCATE drops a cache.
    assert_eq!(next(), (vec![1, 2, 3, 701, 702, 703, 1_000_000], 1));
    let (ids, _) = next();
    assert!(ids.starts_with(&[3001, 3002]), "2001 to 2700 were rolled back: {ids:?}");
    assert!(transactions.next().is_none());
    assert_eq!(assembler.in_progress(), (0, 0));
}
