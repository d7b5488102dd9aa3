//! What the daemon takes of a machine: memory and processor time when nothing happens, under a
//! steady load, and while one huge transaction goes by.
//!
//! *Idle* is the default configuration with its read API, heartbeats, audit and schedule, and
//! nobody who writes: what is left are clocks. How often it wakes (a voluntary switch of context)
//! is told beside the processor's time, for that is what keeps a laptop or a small machine awake.
//!
//! *Steady* is one row a commit, each of which reaches eight keys. Writers, Postgres and Redis share
//! the cores: `reached` says how many commits a second that gave.
//!
//! *One transaction* is inserted at once, once with ten keys among all its rows, once with one of its
//! own for each (past the limit their cache is dropped as a whole, as it should).
//!
//! Peaks are `VmHWM`, from the process's start on. A part of it is the program itself (`RssFile`):
//! pages of the file that the kernel may drop and share.
//!
//! Smaller and quicker: `BENCH_IDLE_SECONDS=10 BENCH_SECONDS=5 BENCH_RATE=1000 BENCH_ROWS=200000`.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::daemon::{Daemon, free_port, log_to};
use support::goal::{Goal, Goals, Line};
use support::ground::Ground;
use support::machine;
use support::report::{Section, Table, publish};
use support::{progress, size};

const CONFIG: &str = r#"
[postgres]
url = "postgres://is.set/by-the-benchmark"
[redis]
url = "redis://is.set"
key_prefix = "bench:"
[caches.few]
key = "few:{group}"
[caches.each]
key = "each:{id}"
[[tables]]
name = "many"
invalidates = [{ cache = "few", group = "group_id" }]
[[tables]]
name = "distinct_many"
invalidates = [{ cache = "each", id = "id" }]
"#;

/// Until what a start costs is over.
const SETTLING: Duration = Duration::from_secs(5);

fn main() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    #[expect(clippy::expect_used, reason = "without a runtime there is no benchmark")]
    runtime.expect("a runtime").block_on(run());
}

#[expect(clippy::expect_used, reason = "a benchmark fails by panicking")]
async fn run() {
    let ground = Ground::with_deals(50_000).await;
    let folder = tempfile::tempdir().expect("a folder");
    let machine = machine::describe(&ground.postgres);
    let lab = Lab { ground, folder };
    let memory = Table {
        name: "Memory, MiB".to_owned(),
        columns: vec![("peak RSS", 1), ("RSS", 1), ("of it the program's file", 1)],
        rows: Vec::new(),
        notes: Vec::new(),
    };
    let work = Table {
        name: "Processor".to_owned(),
        columns: vec![
            ("% of a core", 2),
            ("wakeups/s", 1),
            ("commits/s reached", 0),
            ("CPU µs a commit", 1),
            ("wakeups a commit", 2),
        ],
        rows: Vec::new(),
        notes: Vec::new(),
    };
    let mut report = Report { memory, work, goals: Goals(Vec::new()) };
    lab.idle(&mut report).await;
    lab.steady(&mut report).await;
    lab.large(&mut report).await;
    let Report { memory, work, goals } = &report;
    let sections: [&dyn Section; 3] = [memory, work, goals];
    publish("footprint", &machine, &sections);
}

struct Report {
    memory: Table,
    work: Table,
    goals: Goals,
}

impl Report {
    fn aim(&mut self, what: &str, reached: f64, unit: &'static str, at_most: f64) {
        self.goals.0.push(Line {
            what: format!("footprint: {what}"),
            ours: format!("{reached:.2} {unit}"),
            beside: String::new(),
            reached,
            unit,
            goal: Some(Goal::AtMost(at_most)),
        });
    }

    /// What the daemon holds now, and has held at the most.
    fn remember(&mut self, name: &str, daemon: &Daemon, at_most: f64) {
        #[expect(clippy::cast_precision_loss, reason = "bytes of memory fit")]
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let figures = [daemon.peak_rss(), daemon.rss(), machine::rss_of_files(daemon.pid())];
        let [peak, now, file] = figures.map(mebibytes);
        progress(&format!("{name}: peak {peak:.1} MiB"));
        self.memory.rows.push((name.to_owned(), vec![peak, now, file]));
        self.aim(&format!("peak RSS, {name}"), peak, "MiB", at_most);
    }
}

struct Lab {
    ground: Ground,
    folder: tempfile::TempDir,
}

#[expect(clippy::expect_used, reason = "a benchmark fails by panicking")]
#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark fit")]
impl Lab {
    /// As it is shipped, but for a warm-up that would be a load.
    async fn daemon(&self) -> Daemon {
        let settings = [
            "warm.enabled=true".to_owned(),
            "warm.after_gap=false".to_owned(),
            format!("api.listen=127.0.0.1:{}", free_port()),
            log_to(self.folder.path()),
        ];
        let daemon = Daemon::start(&self.ground, "footprint", &settings).await;
        daemon.until_ready().await;
        tokio::time::sleep(SETTLING).await;
        daemon
    }

    async fn end(&self, daemon: Daemon) {
        daemon.stop().await;
        self.ground.drop_slots().await;
    }

    async fn idle(&self, report: &mut Report) {
        let seconds = size("BENCH_IDLE_SECONDS", 60);
        let daemon = self.daemon().await;
        progress(&format!("idle for {seconds} s"));
        let before = Seen::of(&daemon);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let (cpu, wakeups) = Seen::of(&daemon).since(&before);
        let seconds = seconds as f64;
        report.remember("idle", &daemon, 20.0);
        let share = cpu / seconds * 100.0;
        report.aim("processor, idle", share, "% of a core", 0.5);
        let figures = vec![share, wakeups / seconds, f64::NAN, f64::NAN, f64::NAN];
        report.work.rows.push(("idle".to_owned(), figures));
        self.end(daemon).await;
    }

    async fn steady(&self, report: &mut Report) {
        let rate = size("BENCH_RATE", 5_000);
        let seconds = size("BENCH_SECONDS", 20);
        let mut daemon = self.daemon().await;
        progress(&format!("{rate} commits/s for {seconds} s"));
        let before = Seen::of(&daemon);
        let commits = rate * seconds;
        let took = self.write(rate, commits).await;
        daemon.until_applied(self.ground.end().await).await;
        let (cpu, wakeups) = Seen::of(&daemon).since(&before);
        let (commits, took) = (commits as f64, took.as_secs_f64());
        let name = format!("steady, {rate} commits/s");
        report.remember(&name, &daemon, 40.0);
        let figures = vec![
            cpu / took * 100.0,
            wakeups / took,
            commits / took,
            cpu / commits * 1e6,
            wakeups / commits,
        ];
        report.work.rows.push((name, figures));
        self.end(daemon).await;
    }

    /// Commits one row each at that rate, as far as the machine does.
    async fn write(&self, rate: u64, commits: u64) -> Duration {
        let client = self.ground.writer().await;
        let ids = client.query("select id::text from deals_deal", &[]).await.expect("deals");
        let ids: Arc<Vec<String>> = Arc::new(ids.iter().map(|row| row.get(0)).collect());
        let next = Arc::new(AtomicU64::new(0));
        let base = Instant::now();
        let mut writing = tokio::task::JoinSet::new();
        for _ in 0..(rate / 250).clamp(1, 16) {
            let client = self.ground.writer().await;
            let (ids, next) = (Arc::clone(&ids), Arc::clone(&next));
            writing.spawn(async move {
                let update =
                    "update deals_deal set deal_value = deal_value + 1 where id = $1::text::uuid";
                let update = client.prepare(update).await.expect("a statement");
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= commits {
                        return;
                    }
                    // When this one is due, whoever writes it. Who is late writes at once.
                    let due = base + Duration::from_nanos(1_000_000_000 / rate * number);
                    tokio::time::sleep_until(due.into()).await;
                    // Spread over all organizations.
                    let at = usize::try_from(number).expect("it fits").wrapping_mul(7919);
                    let id = ids.get(at % ids.len()).expect("a deal");
                    client.execute(&update, &[id]).await.expect("the change");
                }
            });
        }
        writing.join_all().await;
        base.elapsed()
    }

    async fn large(&self, report: &mut Report) {
        let rows = size("BENCH_ROWS", 5_000_000);
        let postgres = &self.ground.postgres;
        let tables = "create table many (id int primary key, group_id int not null, filler text); \
             create table distinct_many (id int primary key); \
             alter publication unstale set table many, distinct_many";
        postgres.execute(tables).await.expect("the tables are made");
        let config = self.folder.path().join("bench.toml");
        std::fs::write(&config, CONFIG).expect("the configuration is written");
        for (name, insert) in [
            (
                format!("one transaction, {rows} rows, 10 keys"),
                format!(
                    "insert into many select i, i % 10, 'some text' from generate_series(1, {rows}) i"
                ),
            ),
            (
                format!("one transaction, {rows} rows, as many keys"),
                format!("insert into distinct_many select i from generate_series(1, {rows}) i"),
            ),
        ] {
            let settings = [log_to(self.folder.path())];
            let config = config.clone();
            let mut daemon = Daemon::with(&self.ground, "large", config, &settings).await;
            daemon.until_ready().await;
            progress(&name);
            let writer = self.ground.writer().await;
            writer.batch_execute(&insert).await.expect("the transaction");
            daemon.until_applied(self.ground.end().await).await;
            report.remember(&name, &daemon, 84.0);
            self.end(daemon).await;
        }
    }
}

/// What a process has used so far.
struct Seen {
    cpu: f64,
    wakeups: u64,
}

#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark fit")]
impl Seen {
    fn of(daemon: &Daemon) -> Seen {
        Seen { cpu: daemon.cpu_seconds(), wakeups: machine::wakeups(daemon.pid()) }
    }

    /// Seconds, and how often it woke.
    fn since(&self, before: &Seen) -> (f64, f64) {
        (self.cpu - before.cpu, self.wakeups.saturating_sub(before.wakeups) as f64)
    }
}
