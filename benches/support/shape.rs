//! Tables and rules in any number, and one change's way through them without a server.
//!
//! Each table has ten columns beside its `id`, and its rules go by the columns that have changed
//! (`columns`), each to a cache of its own. A change is of one row, of which it changes `c0`:
//! by that it reaches the table's last rule and no other.

use std::sync::Arc;

use unstale::lsn::Lsn;
use unstale::mapping::Mapping;
use unstale::pgoutput::decode::{Protocol, Streaming};
use unstale::pgoutput::encode;
use unstale::pgoutput::message::{
    Begin, Commit, Decoded, Message, OldTuple, Relation, RelationColumn, ReplicaIdentity, Tuple,
    Update, Value,
};
use unstale::pipeline::assemble::{Assembler, Bounds, Dialect, Unbelieved};
use unstale::pipeline::batch::Batch;
use unstale::pipeline::waiting::{Arrival, Waiting};
use unstale::snapshot::{Snapshot, Xid};

/// Columns of a table beside its `id`: c0, c1, …
const COLUMNS: usize = 10;

/// What all keys begin with.
pub const PREFIX: &str = "bench:";

/// How many tables, and how many rules each of them has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub tables: usize,
    pub rules: usize,
}

impl Shape {
    /// As `unstale.toml` has it.
    pub fn config(self) -> String {
        let mut caches = String::new();
        let mut tables = String::new();
        for table in 0..self.tables {
            let mut rules = String::new();
            for rule in 0..self.rules {
                let cache = cache(table, rule);
                let column = match self.rules - 1 - rule {
                    0 => 0,
                    other => 1 + other % (COLUMNS - 1),
                };
                caches.push_str(&format!("[caches.{cache}]\nkey = \"{cache}:{{id}}\"\n"));
                rules.push_str(&format!(
                    "  {{ cache = \"{cache}\", id = \"id\", columns = [\"c{column}\"] }},\n"
                ));
            }
            tables
                .push_str(&format!("[[tables]]\nname = \"t{table}\"\ninvalidates = [\n{rules}]\n"));
        }
        format!(
            "[postgres]\nurl = \"postgres://is.set/by-the-benchmark\"\n\
             [redis]\nurl = \"redis://is.set\"\nkey_prefix = \"{PREFIX}\"\n{caches}{tables}"
        )
    }

    /// The tables with rows of these ids, spread over them, and their publication.
    pub fn schema(self, rows: usize) -> String {
        let columns: String =
            (0..COLUMNS).map(|c| format!(", c{c} bigint not null default 0")).collect();
        let tables = self.tables;
        let each = (0..tables).map(|table| {
            format!(
                "create table t{table} (id bigint primary key{columns}); \
                 alter table t{table} replica identity full; \
                 insert into t{table} select i from generate_series(0, {rows} - 1) i where i % {tables} = {table}; "
            )
        });
        let names: Vec<String> = (0..tables).map(|table| format!("t{table}")).collect();
        let publication = format!("create publication unstale for table {}", names.join(", "));
        each.chain([publication]).collect()
    }

    /// Changes the rows `0..rows`, a transaction each.
    pub fn burst(self, rows: usize) -> String {
        let tables = self.tables;
        format!(
            "do $$ begin for i in 0..{rows} - 1 loop \
               execute format('update t%s set c0 = c0 + 1 where id = $1', i % {tables}) using i; \
               commit; \
             end loop; end $$"
        )
    }

    /// What depends on a row's `c0`.
    pub fn key(self, id: usize) -> String {
        format!("{PREFIX}{}:{id}", cache(id % self.tables, self.rules - 1))
    }

    /// What the server would send of so many changes, encoded beforehand; the tables are
    /// described already.
    pub fn stream(self, changes: usize) -> Stream {
        let mut assembler = Assembler::new(
            Arc::new(self.mapping()),
            Dialect { protocol: Protocol::V1, streaming: Streaming::Off },
            Bounds { transaction: 100_000, in_progress: 100_000 },
            Unbelieved::default(),
        );
        for table in 0..self.tables {
            let described = encoded(Message::Relation(relation(table)));
            assembler.take(Lsn(1), &described).expect("a table");
        }
        let transactions = (0..changes).map(|n| transaction(n, n % self.tables)).collect();
        Stream { assembler, transactions }
    }

    fn mapping(self) -> Mapping {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("unstale.toml");
        std::fs::write(&path, self.config()).expect("the configuration is written");
        let loaded = unstale::config::load(Some(&path), &[]).expect("a configuration");
        Mapping::new(&loaded.config).expect("a mapping")
    }
}

/// A stream that lies ready.
pub struct Stream {
    assembler: Assembler,
    /// The messages of each.
    transactions: Vec<[Vec<u8>; 3]>,
}

/// Decodes and maps a stream's changes, lets them through the gate and collects what they
/// reach, as the daemon does it; says how many keys that were. No server, no clock, no other
/// thread decides what is done: its instructions can be counted.
#[inline(never)]
pub fn decode_map_gate(stream: &mut Stream) -> usize {
    let Stream { assembler, transactions } = stream;
    let mut waiting = Waiting::new(Lsn::ZERO);
    let mut keys = 0;
    let mut xid = FIRST_XID;
    for some in transactions.chunks(A_BATCH) {
        for message in some.iter().flatten() {
            let taken = assembler.take(Lsn(1), message).expect("the stream can be followed");
            if let Some(transaction) = taken {
                waiting.arrive(Arrival::Transaction(transaction));
                xid += 1;
            }
        }
        let snapshot: Snapshot = format!("{xid}:{xid}:").parse().expect("a snapshot");
        let admitted = waiting.admit(&snapshot);
        let mut batch = Batch { watermark: admitted.watermark, ..Batch::default() };
        for transaction in admitted.transactions {
            std::hint::black_box(batch.take(transaction));
        }
        batch.settle();
        keys += std::hint::black_box(batch).keys.len();
    }
    keys
}

/// How many transactions become visible together.
const A_BATCH: usize = 64;

const FIRST_XID: u32 = 1000;
const FIRST_OID: u32 = 20_000;

fn cache(table: usize, rule: usize) -> String {
    format!("t{table:02}r{rule:03}")
}

fn number(n: usize) -> u32 {
    u32::try_from(n).expect("it fits")
}

fn relation(table: usize) -> Relation {
    let names = (0..COLUMNS).map(|c| format!("c{c}"));
    let columns = std::iter::once("id".to_owned()).chain(names).map(|name| RelationColumn {
        key: true,
        name: name.into(),
        type_id: 20,
        type_modifier: -1,
    });
    Relation {
        id: FIRST_OID + number(table),
        namespace: "public".into(),
        name: format!("t{table}").into(),
        identity: ReplicaIdentity::Full,
        columns: columns.collect(),
    }
}

/// The change number `n`, of this table.
fn transaction(n: usize, table: usize) -> [Vec<u8>; 3] {
    let id = n.to_string();
    let row = |c0: &[u8]| {
        let mut row = [Value::Text(b"0"); 1 + COLUMNS];
        row[0] = Value::Text(id.as_bytes());
        row[1] = Value::Text(c0);
        encode::tuple(&row)
    };
    let (old, new) = (row(b"41"), row(b"42"));
    let parsed = |tuple| Tuple::parse(tuple).expect("a tuple").0;
    let end = u64::from(number(n)) * 100;
    let (commit_lsn, end_lsn, commit_time) = (Lsn(end + 90), Lsn(end + 100), 0);
    let xid = Xid(FIRST_XID + number(n));
    let update = Update {
        relation: FIRST_OID + number(table),
        old: Some(OldTuple::Full(parsed(&old))),
        new: parsed(&new),
    };
    [
        encoded(Message::Begin(Begin { final_lsn: commit_lsn, commit_time, xid })),
        encoded(Message::Update(update)),
        encoded(Message::Commit(Commit { flags: 0, commit_lsn, end_lsn, commit_time })),
    ]
}

fn encoded(message: Message<'_>) -> Vec<u8> {
    encode::message(&Decoded { xid: None, message })
}
