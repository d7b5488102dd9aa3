//! How long a backlog takes: Unstale, with all that it does, beside programs that only
//! read it, and beside the server's decoding of it without anybody to send it to.
//!
//! Each contender drains the same backlog, from a slot of its own that was made before the
//! backlog was written; in turn, several rounds, on the same servers. Times count from the
//! start of the process (for the bare reader: of its connection) until its last position is
//! reached: for Unstale, until Redis has acknowledged it.
//!
//! All of them ask for the same: whole transactions after their commits. Of a large one Unstale
//! is also told as it asks for it by default, in blocks while it is in progress: then the server
//! need not write it to its disk first.
//!
//! Smaller and quicker: `BENCH_TRANSACTIONS=20000 BENCH_ROWS=100000 BENCH_ROUNDS=3 make bench`.

mod support;

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::process::Command;
use unstale::lsn::Lsn;
use unstale::postgres::conninfo::ConnectOptions;
use unstale::postgres::frames::Frame;
use unstale::postgres::replication::{PgoutputOptions, ReplicationConnection, Streaming};

use support::daemon::Daemon;
use support::goal::{Goal, Goals, Line};
use support::ground::Ground;
use support::report::{Case, Samples, publish};
use support::{PATIENCE, machine, progress, size};

fn main() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    #[expect(clippy::expect_used, reason = "without a runtime there is no benchmark")]
    runtime.expect("a runtime").block_on(run());
}

async fn run() {
    let transactions = size("BENCH_TRANSACTIONS", 200_000);
    let rows = size("BENCH_ROWS", 1_000_000);
    let rounds = size("BENCH_ROUNDS", 3);
    let ground = Ground::with_deals(rows.max(50_000)).await;
    let machine = machine::describe(&ground.postgres);
    let small = format!(
        "do $$ declare ids uuid[] := array(select id from deals_deal order by hashtext(id::text) limit {transactions}); \
         begin for i in 1..{transactions} loop \
           update deals_deal set deal_value = deal_value + 1 where id = ids[1 + i % cardinality(ids)]; commit; \
         end loop; end $$"
    );
    let large = format!(
        "update deals_deal set deal_value = deal_value + 1, updated_at = now() \
          where id in (select id from deals_deal limit {rows})"
    );
    let transactions = format!("{transactions} transactions of one row");
    let rows = format!("one transaction of {rows} rows");
    let small = case(&ground, transactions, "t", &small, rounds).await;
    let large = case(&ground, rows, "r", &large, rounds).await;
    let goals = Goals([goals(&small), goals(&large)].concat());
    publish("drain", &machine, &[&small, &large, &goals]);
}

const WHOLE: &str = "Unstale";
const SINCE: &str = "Unstale, from where it streams";
const BLOCKS: &str = "Unstale, in blocks, as by default";
const SERVER: &str = "the server's decoding alone";
const READER: &str = "bare reader (Unstale's client)";
const RECVLOGICAL: &str = "pg_recvlogical";

/// How many times as fast as each of the others.
fn goals(case: &Case) -> Vec<Line> {
    let took = |name: &str| {
        let samples = case.contenders.iter().find(|samples| samples.name == name);
        samples.map_or(f64::NAN, Samples::median)
    };
    let line = |ours: &str, other: &str, goal: Option<Goal>| Line {
        what: format!("drain: {}{}", case.name, ours.strip_prefix(WHOLE).unwrap_or(ours)),
        ours: format!("{:.2} s", took(ours)),
        beside: format!("{other}: {:.2} s", took(other)),
        reached: took(other) / took(ours),
        unit: "times its speed",
        goal,
    };
    let mut lines = vec![
        line(WHOLE, RECVLOGICAL, Some(Goal::AtLeast(1.0))),
        line(WHOLE, READER, Some(Goal::AtLeast(0.95))),
        line(WHOLE, SERVER, None),
    ];
    if case.contenders.iter().any(|samples| samples.name == BLOCKS) {
        lines.push(line(BLOCKS, RECVLOGICAL, Some(Goal::AtLeast(1.0))));
        lines.push(line(BLOCKS, SERVER, None));
    }
    lines
}

/// Writes one backlog, and lets everybody drain it.
async fn case(ground: &Ground, name: String, letter: &str, backlog: &str, rounds: u64) -> Case {
    let slot = |contender: &str, round: u64| format!("{letter}_{contender}_{round}");
    // Blocks are only of what is larger than the server's memory for decoding.
    let in_blocks = letter == "r";
    let mut idle = u64::MAX;
    for round in 0..rounds {
        let unstale = slot("unstale", round);
        idle = idle.min(first_life(ground, &unstale, WHOLE_TRANSACTIONS).await);
        if in_blocks {
            first_life(ground, &slot("blocks", round), AS_BY_DEFAULT).await;
        }
        ground.create_slot(&slot("recvlogical", round)).await;
        ground.create_slot(&slot("reader", round)).await;
    }
    // Who only peeks moves nothing.
    ground.create_slot(&slot("server", 0)).await;
    progress(&format!("writing {name}"));
    write(ground, backlog).await;
    let end = ground.end().await;

    let mut whole = Samples::new(WHOLE);
    let mut streaming = Samples::new(SINCE);
    let mut blocks = Samples::new(BLOCKS);
    let mut server = Samples::new(SERVER);
    let mut reader = Samples::new(READER);
    let mut recvlogical = Samples::new(RECVLOGICAL);
    let mut cpu = Samples::new("");
    let mut peak = 0;
    for round in 0..rounds {
        progress(&format!("round {} of {rounds}: {name}", round + 1));
        let drained = unstale(ground, &slot("unstale", round), WHOLE_TRANSACTIONS, end).await;
        whole.values.push(drained.whole);
        streaming.values.push(drained.streaming);
        cpu.values.push(drained.cpu);
        peak = peak.max(drained.peak);
        if in_blocks {
            let drained = unstale(ground, &slot("blocks", round), AS_BY_DEFAULT, end).await;
            blocks.values.push(drained.whole);
            peak = peak.max(drained.peak);
        }
        recvlogical.values.push(pg_recvlogical(ground, &slot("recvlogical", round), end).await);
        reader.values.push(bare_reader(ground, &slot("reader", round), end).await);
        server.values.push(decoded_by_the_server(ground, &slot("server", 0), end).await);
        let all = [&whole, &blocks, &recvlogical, &reader, &server].into_iter();
        let last = all.filter_map(|samples| Some((samples.name, samples.values.last()?)));
        let took: Vec<String> = last.map(|(name, took)| format!("{name} {took:.2} s")).collect();
        progress(&took.join(", "));
    }
    ground.drop_slots().await;
    let over_idle = peak.saturating_sub(idle);
    let mut contenders = vec![whole, streaming, blocks, server, reader, recvlogical];
    contenders.retain(|samples| !samples.values.is_empty());
    Case {
        name,
        contenders,
        notes: vec![
            ("Unstale's CPU seconds, median".to_owned(), json!(cpu.median())),
            ("Unstale's RSS idle, MiB".to_owned(), json!(mebibytes(idle))),
            ("Unstale's peak RSS over idle, MiB".to_owned(), json!(mebibytes(over_idle))),
        ],
    }
}

/// What all contenders ask for.
const WHOLE_TRANSACTIONS: &[&str] = &["api.enabled=false", "postgres.streaming=off"];
const AS_BY_DEFAULT: &[&str] = &["api.enabled=false"];

fn owned(settings: &[&str]) -> Vec<String> {
    settings.iter().map(|&setting| setting.to_owned()).collect()
}

/// It makes its slot and a valid state, as in a life before the backlog. Gives its memory then.
async fn first_life(ground: &Ground, slot: &str, settings: &[&str]) -> u64 {
    let mut daemon = Daemon::start(ground, slot, &owned(settings)).await;
    daemon.until_streaming().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let idle = daemon.rss();
    daemon.stop().await;
    idle
}

/// What one drain took: seconds and bytes.
struct Drained {
    whole: f64,
    streaming: f64,
    cpu: f64,
    peak: u64,
}

async fn unstale(ground: &Ground, slot: &str, settings: &[&str], end: Lsn) -> Drained {
    let mut daemon = Daemon::start(ground, slot, &owned(settings)).await;
    let streams = daemon.until_streaming().await;
    let done = daemon.until_applied(end).await;
    let drained = Drained {
        whole: (done - daemon.started).as_secs_f64(),
        streaming: (done - streams).as_secs_f64(),
        cpu: daemon.cpu_seconds(),
        peak: daemon.peak_rss(),
    };
    daemon.stop().await;
    drained
}

#[expect(clippy::cast_precision_loss, reason = "megabytes fit")]
fn mebibytes(bytes: u64) -> f64 {
    (bytes as f64 / f64::from(1 << 20) * 10.0).round() / 10.0
}

#[expect(clippy::expect_used, reason = "a benchmark fails by panicking")]
async fn write(ground: &Ground, sql: &str) {
    ground.writer().await.batch_execute(sql).await.expect("the backlog is written");
}

/// The server's decoding and the output plug-in's work, with nobody to send it to: the messages
/// are counted where they are made.
#[expect(clippy::expect_used, reason = "a benchmark fails by panicking")]
async fn decoded_by_the_server(ground: &Ground, slot: &str, end: Lsn) -> f64 {
    let client = ground.postgres.client().await.expect("a client");
    // A function's rows are all made before the first is counted: they need not go to disk.
    client.batch_execute("set work_mem = '2000MB'").await.expect("a setting");
    let sql = format!(
        "select count(*) from pg_logical_slot_peek_binary_changes('{slot}', '{end}', null, \
           'proto_version', '1', 'publication_names', 'unstale')"
    );
    let start = Instant::now();
    let counted = tokio::time::timeout(PATIENCE, client.query_one(&sql, &[])).await;
    let counted = counted.expect("it ends in time").expect("the server decodes");
    assert!(counted.get::<_, i64>(0) > 0, "the server decoded nothing");
    start.elapsed().as_secs_f64()
}

/// Postgres' own client, which throws everything away.
#[expect(clippy::expect_used, reason = "a benchmark fails by panicking")]
async fn pg_recvlogical(ground: &Ground, slot: &str, end: Lsn) -> f64 {
    let start = Instant::now();
    let status = Command::new(ground.postgres.program("pg_recvlogical"))
        .arg(format!("--dbname={}", ground.postgres.url()))
        .arg(format!("--slot={slot}"))
        .args(["--start", "--no-loop", "--file=/dev/null", "--fsync-interval=0"])
        .args(["--option=proto_version=1", "--option=publication_names=unstale"])
        .arg(format!("--endpos={end}"))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .status();
    let status = tokio::time::timeout(PATIENCE, status).await.expect("it ends in time");
    assert!(status.expect("pg_recvlogical starts").success(), "pg_recvlogical failed");
    start.elapsed().as_secs_f64()
}

/// Unstale's replication client alone: reads the socket and tells how far.
#[expect(clippy::expect_used, clippy::panic, reason = "a benchmark fails by panicking")]
async fn bare_reader(ground: &Ground, slot: &str, end: Lsn) -> f64 {
    let start = Instant::now();
    let options = ConnectOptions::load(&ground.postgres.url(), None).expect("options");
    let connection = ReplicationConnection::connect(&options).await.expect("a connection");
    let pgoutput = PgoutputOptions {
        protocol: 1,
        publications: vec!["unstale".to_owned()],
        streaming: Streaming::Off,
        messages: false,
        binary: false,
    };
    let (mut reader, mut writer) =
        connection.start_replication(slot, Lsn::ZERO, &pgoutput).await.expect("a stream");
    let mut told = Instant::now();
    let mut position = Lsn::ZERO;
    while position < end {
        while let Some(frame) = reader.next().expect("a frame") {
            match frame {
                Frame::XLogData { wal_start, data, .. } => {
                    std::hint::black_box(data);
                    position = position.max(wal_start);
                }
                Frame::Keepalive { wal_end, .. } => position = position.max(wal_end),
                Frame::CopyDone => panic!("the server ended the stream"),
            }
        }
        if told.elapsed() > Duration::from_secs(1) {
            writer.status(position, position, position, false).await.expect("feedback");
            told = Instant::now();
        }
        if position < end {
            reader.fill().await.expect("the stream goes on");
        }
    }
    start.elapsed().as_secs_f64()
}
