//! How long a backlog takes: Unstale, with all that it does, beside programs that only
//! read it.
//!
//! Each contender drains the same backlog, from a slot of its own that was made before the
//! backlog was written; in turn, several rounds, on the same servers. Times count from the
//! start of the process (for the bare reader: of its connection) until its last position is
//! reached: for Unstale, until Redis has acknowledged it.
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
    let rounds = size("BENCH_ROUNDS", 5);
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
    let cases = [
        case(&ground, format!("{transactions} transactions of one row"), "t", &small, rounds).await,
        case(&ground, format!("one transaction of {rows} rows"), "r", &large, rounds).await,
    ];
    publish("drain", &machine, &[&cases[0], &cases[1]]);
}

/// Writes one backlog, and lets everybody drain it.
async fn case(ground: &Ground, name: String, letter: &str, backlog: &str, rounds: u64) -> Case {
    let slot = |contender: &str, round: u64| format!("{letter}_{contender}_{round}");
    let without_api = ["api.enabled=false".to_owned()];
    let mut idle = u64::MAX;
    for round in 0..rounds {
        // It makes its slot and a valid state, as in a life before the backlog.
        let mut daemon = Daemon::start(ground, &slot("unstale", round), &without_api).await;
        daemon.until_streaming().await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        idle = idle.min(daemon.rss());
        daemon.stop().await;
        ground.create_slot(&slot("recvlogical", round)).await;
        ground.create_slot(&slot("reader", round)).await;
    }
    progress(&format!("writing {name}"));
    write(ground, backlog).await;
    let end = ground.end().await;

    let mut whole = Samples::new("Unstale");
    let mut streaming = Samples::new("Unstale, from where it streams");
    let mut reader = Samples::new("bare reader (Unstale's client)");
    let mut recvlogical = Samples::new("pg_recvlogical");
    let (mut peak, mut cpu) = (0, Vec::new());
    for round in 0..rounds {
        progress(&format!("round {} of {rounds}: {name}", round + 1));
        let mut daemon = Daemon::start(ground, &slot("unstale", round), &without_api).await;
        let streams = daemon.until_streaming().await;
        let done = daemon.until_applied(end).await;
        whole.values.push((done - daemon.started).as_secs_f64());
        streaming.values.push((done - streams).as_secs_f64());
        peak = peak.max(daemon.peak_rss());
        cpu.push(daemon.cpu_seconds());
        daemon.stop().await;
        recvlogical.values.push(pg_recvlogical(ground, &slot("recvlogical", round), end).await);
        reader.values.push(bare_reader(ground, &slot("reader", round), end).await);
        let took = [&whole, &streaming, &recvlogical, &reader].map(|samples| {
            format!("{} {:.2} s", samples.name, samples.values.last().unwrap_or(&f64::NAN))
        });
        progress(&took.join(", "));
    }
    ground.drop_slots().await;
    let over_idle = peak.saturating_sub(idle);
    let cpu = Samples { name: "", values: cpu };
    Case {
        name,
        contenders: vec![whole, streaming, reader, recvlogical],
        notes: vec![
            ("Unstale's CPU seconds, median".to_owned(), json!(cpu.median())),
            ("Unstale's RSS idle, MiB".to_owned(), json!(mebibytes(idle))),
            ("Unstale's peak RSS over idle, MiB".to_owned(), json!(mebibytes(over_idle))),
        ],
    }
}

#[expect(clippy::cast_precision_loss, reason = "megabytes fit")]
fn mebibytes(bytes: u64) -> f64 {
    (bytes as f64 / f64::from(1 << 20) * 10.0).round() / 10.0
}

#[expect(clippy::expect_used, reason = "a benchmark fails by panicking")]
async fn write(ground: &Ground, sql: &str) {
    ground.writer().await.batch_execute(sql).await.expect("the backlog is written");
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
