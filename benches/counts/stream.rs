//! The fixed input: what the server would send, byte for byte, for changes of the demo's tables
//! under REPLICA IDENTITY FULL, the identity that sends the most.

use unstale::lsn::Lsn;
use unstale::pgoutput::encode::{message, tuple};
use unstale::pgoutput::message::{
    Begin, Commit, Decoded, Insert, Message, OldTuple, Relation, RelationColumn, ReplicaIdentity,
    StreamCommit, StreamStart, Tuple, Update, Value,
};
use unstale::snapshot::Xid;

const DEALS: u32 = 16_500;
const USERS: u32 = 16_400;

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

/// Messages, each at the position of its commit.
pub(crate) struct Stream {
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

/// Spread evenly, and always the same.
fn spread(n: u64) -> u64 {
    n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20
}

fn row(values: &[String]) -> Vec<u8> {
    let values: Vec<Value<'_>> = values
        .iter()
        .map(|text| if text == "\\N" { Value::Null } else { Value::Text(text.as_bytes()) })
        .collect();
    tuple(&values)
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
    fn new() -> Stream {
        Stream { messages: Vec::new(), lsn: 0x1_0000_0000 }
    }

    fn push(&mut self, xid: Option<Xid>, message_: Message<'_>) {
        self.messages.push((Lsn(self.lsn), message(&Decoded { xid, message: message_ })));
    }

    fn describe(&mut self, xid: Option<Xid>) {
        self.push(xid, Message::Relation(relation(DEALS, "deals_deal", &DEAL_COLUMNS)));
        self.push(xid, Message::Relation(relation(USERS, "authentication_user", &USER_COLUMNS)));
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

    fn update(&mut self, xid: Option<Xid>, n: u64) {
        let (old, new) = (deal(n, 1000 + n), deal(n, 1001 + n));
        let (old, new) = (Some(OldTuple::Full(read(&old))), read(&new));
        self.push(xid, Message::Update(Update { relation: DEALS, old, new }));
    }

    /// Transactions that update one deal each.
    pub(crate) fn of_small(transactions: u64) -> Stream {
        let mut stream = Stream::new();
        stream.describe(None);
        for n in 0..transactions {
            stream.begin(1000 + u32::try_from(n).expect("few"));
            stream.update(None, n);
            stream.commit();
        }
        stream
    }

    /// One transaction that updates many deals.
    pub(crate) fn of_large(rows: u64) -> Stream {
        let mut stream = Stream::new();
        stream.describe(None);
        stream.begin(1000);
        (0..rows).for_each(|n| stream.update(None, n));
        stream.commit();
        stream
    }

    /// The same, in blocks while it is in progress.
    pub(crate) fn of_streamed(rows: u64) -> Stream {
        let mut stream = Stream::new();
        let xid = Xid(1000);
        for block in 0..rows.div_ceil(100) {
            stream.push(None, Message::StreamStart(StreamStart { xid, first_segment: block == 0 }));
            if block == 0 {
                stream.describe(Some(xid));
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
        let mut stream = Stream::new();
        stream.describe(None);
        stream.begin(1000);
        for n in 0..rows {
            let new = user(n);
            stream.push(None, Message::Insert(Insert { relation: USERS, new: read(&new) }));
        }
        stream.commit();
        stream
    }
}
