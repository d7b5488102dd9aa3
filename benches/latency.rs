//! How long after a commit its key is gone, taken from outside: from the moment in which the
//! client's commit has returned to the moment in which Redis tells that the key was removed.
//!
//! Beside a consumer as people write it by hand (`benches/peer/`: psycopg2, wal2json, redis-py, a
//! DEL a change), on the same servers, at the same rates, in turns. It deletes as soon as it
//! hears; Unstale asks Postgres first whether everybody sees the change (a round trip), and lets
//! nobody store what was read before. Each commit changes one row, on which one key depends,
//! which is there before.
//!
//! Writers, Postgres, Redis, the consumer and the one who listens share the machine's cores:
//! `reached` says how many commits a second that gave. Commits are not flushed to disk
//! (`fsync = off`), which no two cores would do 10,000 times a second. Where a consumer
//! has heard of a commit before the client has, the time is below zero.
//!
//! Smaller and quicker: `BENCH_RATES=100,1000 BENCH_SECONDS=3 BENCH_ROUNDS=1`.

mod support;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use support::daemon::{Daemon, NO_SCHEDULE, log_to};
use support::goal::{Goal, Goals, Line};
use support::ground::Ground;
use support::machine;
use support::peer::Peer;
use support::report::{Samples, Section, Table, publish};
use support::{progress, size};
use tokio::time::timeout;

const PREFIX: &str = "bench:item:";

const CONFIG: &str = r#"
[postgres]
url = "postgres://is.set/by-the-benchmark"
[redis]
url = "redis://is.set"
key_prefix = "bench:"
[caches.item]
key = "item:{id}"
query = "select row_to_json(value) as value from (select i.id, i.value from item i where i.id = $id::bigint) value"
ttl = "1h"
[[tables]]
name = "item"
invalidates = [{ cache = "item", id = "id" }]
"#;

/// How long is waited for what was committed, after the last commit.
const BEHIND: Duration = Duration::from_secs(60);

fn main() {
    let python = Peer::prepare();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    #[expect(clippy::expect_used, reason = "without a runtime there is no benchmark")]
    runtime.expect("a runtime").block_on(run(python));
}

#[expect(clippy::expect_used, reason = "a benchmark fails by panicking")]
async fn run(python: PathBuf) {
    let seconds = size("BENCH_SECONDS", 10);
    let rounds = size("BENCH_ROUNDS", 3);
    let rates = std::env::var("BENCH_RATES").unwrap_or_else(|_| "100,1000,5000,10000".to_owned());
    let rates: Vec<u64> =
        rates.split(',').map(|r| r.parse().expect("BENCH_RATES: numbers")).collect();
    let rows = rates.iter().max().expect("a rate") * seconds;
    let ground = Ground::bare().await;
    let run = |sql: String| {
        let postgres = &ground.postgres;
        async move { postgres.execute(&sql).await.expect("the table is made") }
    };
    run("create table item (id bigint primary key, value bigint not null)".to_owned()).await;
    run(format!("insert into item select i, 0 from generate_series(1, {rows}) i")).await;
    run("create publication unstale for table item".to_owned()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("bench.toml");
    std::fs::write(&config, CONFIG).expect("the configuration is written");
    let mut redis = ground.redis.connection_db(1).await.expect("Redis answers");
    redis::cmd("CONFIG")
        .arg(&["SET", "notify-keyspace-events", "Eg"])
        .exec_async(&mut redis)
        .await
        .expect("Redis tells of removals");
    let machine = machine::describe(&ground.postgres);
    let lab = Lab { ground, redis, python, config, folder, seconds };
    let (mut tables, mut lines) = (Vec::new(), Vec::new());
    for rate in rates {
        let mut unstale = Contender::new("Unstale");
        let mut consumer = Contender::new("consumer by hand");
        for round in 0..rounds {
            progress(&format!("{rate} commits/s, round {} of {rounds}", round + 1));
            lab.unstale(rate, &mut unstale).await;
            lab.consumer(rate, &mut consumer).await;
        }
        lines.extend(goals(rate, &unstale, &consumer));
        tables.push(Table {
            name: format!("Commit to invalidated, at {rate} commits/s"),
            columns: vec![
                ("reached/s", 0),
                ("invalidated/s", 0),
                ("p50 ms", 2),
                ("p99 ms", 2),
                ("max ms", 1),
                ("its CPU µs a change", 1),
            ],
            rows: vec![unstale.row(), consumer.row()],
            notes: vec![
                format!("medians of {rounds} rounds of {seconds} s (max: of all), fsync = off"),
                format!(
                    "p50: {:.2} times the consumer's",
                    unstale.p50.median() / consumer.p50.median()
                ),
                format!(
                    "never came within {} s: {} of the consumer's, none of Unstale's",
                    BEHIND.as_secs(),
                    consumer.missing
                ),
            ],
        });
    }
    let goals = Goals(lines);
    let mut sections: Vec<&dyn Section> =
        tables.iter().map(|table| table as &dyn Section).collect();
    sections.push(&goals);
    publish("latency", &machine, &sections);
}

/// At the lowest rate the gate's round trip shows; at every other, Unstale should be ahead.
fn goals(rate: u64, unstale: &Contender, consumer: &Contender) -> Vec<Line> {
    let at_p50 = if rate <= 100 { 1.3 } else { 1.0 };
    let line = |name: &str, ours: &Samples, theirs: &Samples, at_most: f64| {
        let (ours, theirs) = (ours.median(), theirs.median());
        Line {
            what: format!("latency: commit to invalidated, {name} at {rate}/s"),
            ours: format!("{ours:.2} ms"),
            beside: format!("consumer by hand: {theirs:.2} ms"),
            reached: ours / theirs,
            unit: "times as long",
            goal: Some(Goal::AtMost(at_most)),
        }
    };
    let p99 = unstale.p99.median();
    let bounded = Line {
        what: format!("latency: p99 at {:.0}/s, as reached", unstale.reached.median()),
        ours: format!("{p99:.2} ms"),
        beside: String::new(),
        reached: p99,
        unit: "ms",
        goal: Some(Goal::AtMost(10.0)),
    };
    vec![
        line("p50", &unstale.p50, &consumer.p50, at_p50),
        line("p99", &unstale.p99, &consumer.p99, 1.0),
        bounded,
    ]
}

struct Lab {
    ground: Ground,
    redis: MultiplexedConnection,
    python: PathBuf,
    config: PathBuf,
    folder: tempfile::TempDir,
    seconds: u64,
}

/// What one of them took, round by round.
struct Contender {
    name: &'static str,
    reached: Samples,
    invalidated: Samples,
    p50: Samples,
    p99: Samples,
    max: Samples,
    cpu: Samples,
    missing: usize,
}

/// What one round gave.
struct Round {
    millis: Samples,
    reached: f64,
    invalidated: f64,
    commits: f64,
    missing: usize,
}

impl Contender {
    fn new(name: &'static str) -> Contender {
        let samples = || Samples::new(name);
        Contender {
            name,
            reached: samples(),
            invalidated: samples(),
            p50: samples(),
            p99: samples(),
            max: samples(),
            cpu: samples(),
            missing: 0,
        }
    }

    fn add(&mut self, round: &Round, cpu_seconds: f64) {
        self.reached.values.push(round.reached);
        self.invalidated.values.push(round.invalidated);
        self.p50.values.push(round.millis.median());
        self.p99.values.push(round.millis.percentile(99));
        self.max.values.push(round.millis.max());
        self.cpu.values.push(cpu_seconds / round.commits * 1e6);
        self.missing += round.missing;
        progress(&format!(
            "{}: {:.0} commits/s, {:.0} invalidated/s, p50 {:.2} ms, p99 {:.2} ms, max {:.1} ms",
            self.name,
            round.reached,
            round.invalidated,
            round.millis.median(),
            round.millis.percentile(99),
            round.millis.max()
        ));
    }

    fn row(&self) -> (String, Vec<f64>) {
        let medians = [&self.reached, &self.invalidated, &self.p50, &self.p99].map(Samples::median);
        (self.name.to_owned(), [&medians[..], &[self.max.max(), self.cpu.median()]].concat())
    }
}

#[expect(clippy::expect_used, reason = "a benchmark fails by panicking")]
impl Lab {
    async fn unstale(&self, rate: u64, contender: &mut Contender) {
        let log = log_to(self.folder.path());
        let settings = ["api.enabled=false", NO_SCHEDULE, &log].map(str::to_owned);
        let slot = "latency";
        let daemon = Daemon::with(&self.ground, slot, self.config.clone(), &settings).await;
        daemon.until_ready().await;
        let before = daemon.cpu_seconds();
        let round = self.round(rate).await;
        contender.add(&round, daemon.cpu_seconds() - before);
        assert_eq!(round.missing, 0, "keys that were changed are still there");
        daemon.verify().await;
        daemon.stop().await;
        self.ground.drop_slots().await;
    }

    async fn consumer(&self, rate: u64, contender: &mut Contender) {
        let peer = Peer::start(&self.python, &self.ground, "by_hand", "item", PREFIX).await;
        let before = peer.cpu_seconds();
        let round = self.round(rate).await;
        contender.add(&round, peer.cpu_seconds() - before);
        peer.stop().await;
        self.ground.drop_slots().await;
    }

    /// Caches every row, changes them one by one at that rate, and listens.
    async fn round(&self, rate: u64) -> Round {
        let changes = usize::try_from(rate * self.seconds).expect("it fits");
        self.cache_rows(changes).await;
        let client = redis::Client::open(self.ground.redis.url_db(1)).expect("an address");
        let mut events = client.get_async_pubsub().await.expect("Redis answers");
        events.subscribe("__keyevent@1__:del").await.expect("Redis tells");

        let base = Instant::now();
        let committed: Arc<Vec<AtomicI64>> =
            Arc::new((0..=changes).map(|_| AtomicI64::new(i64::MIN)).collect());
        let next = Arc::new(AtomicU64::new(1));
        let writers = (rate / 250).clamp(1, 16);
        let mut writing = tokio::task::JoinSet::new();
        for _ in 0..writers {
            let client = self.ground.postgres.client().await.expect("a client");
            let (committed, next) = (Arc::clone(&committed), Arc::clone(&next));
            writing.spawn(async move {
                let update = client.prepare("update item set value = value + 1 where id = $1");
                let update = update.await.expect("a statement");
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let id = i64::try_from(number).expect("it fits");
                    let Some(slot) = committed.get(usize::try_from(number).expect("it fits"))
                    else {
                        return;
                    };
                    // When this one is due, whoever writes it. Who is late writes at once.
                    let due = base + Duration::from_nanos(1_000_000_000 / rate * number);
                    tokio::time::sleep_until(due.into()).await;
                    client.execute(&update, &[&id]).await.expect("the change");
                    slot.store(nanos(base), Ordering::Release);
                }
            });
        }
        let mut removed = vec![i64::MIN; changes + 1];
        let mut events = events.into_on_message();
        let listening = async {
            let mut left = changes;
            while left > 0 {
                let message = events.next().await.expect("Redis goes on");
                let at = nanos(base);
                let id = message.get_payload_bytes().strip_prefix(PREFIX.as_bytes());
                let id = id.and_then(|id| str::from_utf8(id).ok()?.parse::<usize>().ok());
                let slot = id.and_then(|id| removed.get_mut(id)).expect("a key of a row");
                assert_eq!(*slot, i64::MIN, "it is removed once");
                *slot = at;
                left -= 1;
            }
        };
        let within = Duration::from_secs(self.seconds * 4) + BEHIND;
        let all = timeout(within, listening).await;
        writing.join_all().await;

        let millis = |nanos: i64| Duration::from_nanos(nanos.unsigned_abs()).as_secs_f64() * 1e3;
        let mut round = Round {
            millis: Samples::new("ms"),
            reached: 0.0,
            invalidated: 0.0,
            commits: f64::from(u32::try_from(changes).expect("it fits")),
            missing: 0,
        };
        let (mut last_commit, mut last_removed) = (0, 0);
        for (committed, removed) in committed.iter().zip(&removed).skip(1) {
            let committed = committed.load(Ordering::Acquire);
            last_commit = last_commit.max(committed);
            if *removed == i64::MIN {
                round.missing += 1;
                continue;
            }
            last_removed = last_removed.max(*removed);
            let took = removed - committed;
            round.millis.values.push(millis(took) * if took < 0 { -1.0 } else { 1.0 });
        }
        assert_eq!(all.is_err(), round.missing > 0);
        round.reached = round.commits / millis(last_commit) * 1e3;
        round.invalidated = f64::from(u32::try_from(changes - round.missing).expect("it fits"))
            / millis(last_removed.max(1))
            * 1e3;
        round
    }

    /// As the query has them, so that what is not changed is not stale.
    async fn cache_rows(&self, rows: usize) {
        let client = self.ground.postgres.client().await.expect("a client");
        let sql = format!("select id, row_to_json(i)::text from item i where id <= {rows}");
        let rows = client.query(&sql, &[]).await.expect("the rows");
        let mut redis = self.redis.clone();
        for some in rows.chunks(1000) {
            let pairs: Vec<(String, String)> = some
                .iter()
                .map(|row| (format!("{PREFIX}{}", row.get::<_, i64>(0)), row.get(1)))
                .collect();
            let _: () = redis.mset(&pairs).await.expect("Redis answers");
        }
    }
}

fn nanos(base: Instant) -> i64 {
    i64::try_from(base.elapsed().as_nanos()).unwrap_or(i64::MAX)
}
