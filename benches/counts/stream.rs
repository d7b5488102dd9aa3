//! The fixed input: what the server would send, byte for byte, for changes of the demo's tables, or
//! of a [`Shape`]'s, under REPLICA IDENTITY FULL, the identity that sends the most.

use unstale::lsn::Lsn;
use unstale::pgoutput::encode;
use unstale::pgoutput::message::{
    Begin, Commit, Decoded, Insert, Message, OldTuple, Relation, RelationColumn, ReplicaIdentity,
    StreamCommit, StreamStart, Tuple, Update, Value,
};
use unstale::snapshot::Xid;

use super::shape::Shape;

const DEALS: u32 = 16_500;
const USERS: u32 = 16_400;

const FIRST_XID: u32 = 1000;

/// Organizations, so that keys come again as they do in life.
const ORGANIZATIONS: u64 = 500;

/// `deals_deal`, as `sql/demo/schema.sql` has it, with the types' OIDs.
const DEAL_COLUMNS: [(&str, u32); 17] = [
    ("id", 2950),
    ("deal_id", 1043),
    ("organization_id", 20),
    ("client_id", 20),
    ("project_id", 20),
    ("deal_name", 1043),
    ("deal_value", 1700),
    ("currency", 1043),
    ("verification_status", 1043),
    ("payment_status", 1043),
    ("payment_method", 1043),
    ("source_type", 1043),
    ("deal_date", 1082),
    ("due_date", 1082),
    ("deal_remarks", 25),
    ("created_at", 1184),
    ("updated_at", 1184),
];

/// `authentication_user`.
const USER_COLUMNS: [(&str, u32); 13] = [
    ("id", 20),
    ("password", 1043),
    ("last_login", 1184),
    ("is_superuser", 16),
    ("email", 1043),
    ("first_name", 1043),
    ("last_name", 1043),
    ("phone", 1043),
    ("is_staff", 16),
    ("is_active", 16),
    ("date_joined", 1184),
    ("organization_id", 20),
    ("role_id", 20),
];

pub(crate) struct Stream {
    /// The tables, which the server describes before their first change.
    pub(crate) described: Vec<Vec<u8>>,
    /// Messages, each at the position of its commit.
    pub(crate) messages: Vec<(Lsn, Vec<u8>)>,
    lsn: u64,
}

fn relation(id: u32, name: &str, columns: &[(&str, u32)]) -> Relation {
    let columns = columns.iter().map(|(name, type_id)| RelationColumn {
        key: true, // FULL: every column is
        name: (*name).into(),
        type_id: *type_id,
        type_modifier: -1,
    });
    Relation {
        id,
        namespace: "public".into(),
        name: name.into(),
        identity: ReplicaIdentity::Full,
        columns: columns.collect(),
    }
}

/// The demo's.
fn demo() -> [Relation; 2] {
    [
        relation(DEALS, "deals_deal", &DEAL_COLUMNS),
        relation(USERS, "authentication_user", &USER_COLUMNS),
    ]
}

/// A shape's.
fn table_id(table: usize) -> u32 {
    20_000 + u32::try_from(table).expect("few")
}

fn encoded(xid: Option<Xid>, message: Message<'_>) -> Vec<u8> {
    encode::message(&Decoded { xid, message })
}

/// Spread evenly, and always the same.
fn spread(n: u64) -> u64 {
    n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20
}

fn row(values: &[String]) -> Vec<u8> {
    let values: Vec<Value<'_>> = values
        .iter()
        .map(|text| if text == "\\N" { Value::Null } else { Value::Text(text.as_bytes()) })
        .collect();
    encode::tuple(&values)
}

fn deal(n: u64, value: u64) -> Vec<u8> {
    let organization = 1 + spread(n) % ORGANIZATIONS;
    row(&[
        format!("6f1c{:04x}-5b1e-4c2a-9d3f-{:012x}", n & 0xFFFF, spread(n)),
        format!("DEAL-{n:06}"),
        organization.to_string(),
        (1 + spread(n + 7) % 20_000).to_string(),
        "\\N".to_owned(),
        format!("Annual licence {n} for a client of ours"),
        format!("{value}.00"),
        "USD".to_owned(),
        "verified".to_owned(),
        "partial_payment".to_owned(),
        "bank".to_owned(),
        "referral".to_owned(),
        "2026-03-14".to_owned(),
        "2026-04-14".to_owned(),
        "Paid in two parts; the second is due in April.".to_owned(),
        "2026-03-14 09:26:53.589793+00".to_owned(),
        "2026-03-15 10:27:54.690804+00".to_owned(),
    ])
}

fn user(n: u64) -> Vec<u8> {
    row(&[
        n.to_string(),
        "pbkdf2_sha256$720000$Zm9yIHRlc3Rz$3Fv4m0nHqQ8Zs1Jm0bX5cQy3t1m8n0l2k4j6h8g0f2d=".to_owned(),
        "2026-03-14 09:26:53.589793+00".to_owned(),
        "f".to_owned(),
        format!("user{n}@example.com"),
        "Ada".to_owned(),
        "Lovelace".to_owned(),
        String::new(),
        "f".to_owned(),
        "t".to_owned(),
        "2026-01-01 00:00:00+00".to_owned(),
        (1 + n % ORGANIZATIONS).to_string(),
        (1 + n % 2000).to_string(),
    ])
}

fn read(bytes: &[u8]) -> Tuple<'_> {
    Tuple::parse(bytes).expect("a tuple").0
}

impl Stream {
    fn of(described: impl IntoIterator<Item = Relation>) -> Stream {
        let described =
            described.into_iter().map(|relation| encoded(None, Message::Relation(relation)));
        Stream { described: described.collect(), messages: Vec::new(), lsn: 0x1_0000_0000 }
    }

    fn push(&mut self, xid: Option<Xid>, message: Message<'_>) {
        self.messages.push((Lsn(self.lsn), encoded(xid, message)));
    }

    fn begin(&mut self, xid: u32) {
        let (final_lsn, commit_time) = (Lsn(self.lsn + 400), 826_000_000_000_000);
        self.push(None, Message::Begin(Begin { final_lsn, commit_time, xid: Xid(xid) }));
    }

    fn commit(&mut self) {
        let (commit_lsn, end_lsn) = (Lsn(self.lsn + 400), Lsn(self.lsn + 448));
        let commit_time = 826_000_000_000_000;
        self.push(None, Message::Commit(Commit { flags: 0, commit_lsn, end_lsn, commit_time }));
        self.lsn += 512;
    }

    /// A transaction of its own.
    fn small(&mut self, n: u64, change: impl FnOnce(&mut Stream)) {
        self.begin(FIRST_XID + u32::try_from(n).expect("few"));
        change(self);
        self.commit();
    }

    fn update(&mut self, xid: Option<Xid>, n: u64) {
        self.change(xid, DEALS, &deal(n, 1000 + n), &deal(n, 1001 + n));
    }

    /// Of a row, both sides of which are sent.
    fn change(&mut self, xid: Option<Xid>, relation: u32, old: &[u8], new: &[u8]) {
        let (old, new) = (Some(OldTuple::Full(read(old))), read(new));
        self.push(xid, Message::Update(Update { relation, old, new }));
    }

    /// Transactions that change `c0` of a row each, of one of the shape's tables after the other.
    pub(crate) fn of_shape(shape: Shape, transactions: u64) -> Stream {
        let tables = (0..shape.tables).map(|table| {
            let columns: Vec<String> = Shape::columns().collect();
            let columns: Vec<(&str, u32)> =
                columns.iter().map(|name| (name.as_str(), 20)).collect();
            relation(table_id(table), &Shape::table(table), &columns)
        });
        let mut stream = Stream::of(tables);
        let row = |n: u64, c0: &str| {
            let zeros = Shape::columns().skip(2).map(|_| "0".to_owned());
            row(&[n.to_string(), c0.to_owned()].into_iter().chain(zeros).collect::<Vec<_>>())
        };
        for (n, table) in (0..transactions).zip((0..shape.tables).cycle()) {
            stream.small(n, |stream| {
                stream.change(None, table_id(table), &row(n, "41"), &row(n, "42"))
            });
        }
        stream
    }

    /// Transactions that update one deal each.
    pub(crate) fn of_small(transactions: u64) -> Stream {
        let mut stream = Stream::of(demo());
        for n in 0..transactions {
            stream.small(n, |stream| stream.update(None, n));
        }
        stream
    }

    /// One transaction that updates many deals.
    pub(crate) fn of_large(rows: u64) -> Stream {
        let mut stream = Stream::of(demo());
        stream.begin(FIRST_XID);
        (0..rows).for_each(|n| stream.update(None, n));
        stream.commit();
        stream
    }

    /// The same, in blocks while it is in progress.
    pub(crate) fn of_streamed(rows: u64) -> Stream {
        let mut stream = Stream::of([]);
        let xid = Xid(FIRST_XID);
        for block in 0..rows.div_ceil(100) {
            stream.push(None, Message::StreamStart(StreamStart { xid, first_segment: block == 0 }));
            if block == 0 {
                // Within a transaction that is read while it is in progress, it is of that.
                demo()
                    .into_iter()
                    .for_each(|table| stream.push(Some(xid), Message::Relation(table)));
            }
            (100 * block..(100 * block + 100).min(rows)).for_each(|n| stream.update(Some(xid), n));
            stream.push(None, Message::StreamStop);
        }
        let (commit_lsn, end_lsn) = (Lsn(stream.lsn + 400), Lsn(stream.lsn + 448));
        let commit_time = 826_000_000_000_000;
        let commit = StreamCommit { xid, flags: 0, commit_lsn, end_lsn, commit_time };
        stream.push(None, Message::StreamCommit(commit));
        stream
    }

    /// One transaction that adds many users: each has keys of its own.
    pub(crate) fn of_distinct(rows: u64) -> Stream {
        let mut stream = Stream::of(demo());
        stream.begin(FIRST_XID);
        for n in 0..rows {
            let new = user(n);
            stream.push(None, Message::Insert(Insert { relation: USERS, new: read(&new) }));
        }
        stream.commit();
        stream
    }
}
