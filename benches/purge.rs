//! What other clients of Redis notice while a tenth of it is dropped.
//!
//! A million entries of a cache stand among nine million keys that are others'. They go in each way
//! in which so many can: a table that they depend on is truncated (the whole cache goes), somebody
//! invalidates the cache by hand, the configuration has changed while the daemon was away (a gap).
//! Meanwhile others read their own keys, at a steady pace, as in the calm before.
//!
//! A command's time is what Redis itself says (SLOWLOG): all that it executes one after the other
//! waits for that. On a machine whose cores are taken, Redis' clock goes on while it is not run;
//! so commands of the calm are told of, too. That nothing is left, and nothing else gone, is counted.
//!
//! Smaller and quicker: `BENCH_KEYS=100000 BENCH_OTHERS=900000 BENCH_SECONDS=3 BENCH_ROUNDS=1`.

mod support;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use support::daemon::{Daemon, log_to};
use support::goal::{Goal, Goals, Line};
use support::ground::Ground;
use support::readers::{Reader, Seen, read_while};
use support::report::{Column, Samples, Table, publish};
use support::{machine, progress, size};

const SLOT: &str = "purge";
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
[[tables]]
name = "all_items"
invalidates = [{ cache = "item", id = "id" }]
"#;

/// Another query is another mapping, hence a gap.
const CHANGED: &str = "caches.item.query=select row_to_json(value) as value from (select i.id, i.value + 1 as value from item i where i.id = $id::bigint) value";

/// How many others read, and how long each waits between two questions.
const READERS: usize = 8;
const PAUSE: Duration = Duration::from_millis(2);

/// What is slow enough to be told of: far below the goal of 5 ms.
const SLOW_MICROS: u64 = 250;

/// Fills from one number to another. Entries have a life, as all that is filled has.
const FILL: &str = r#"
for i = ARGV[1], ARGV[2] do
  if ARGV[3] == 'entries' then
    redis.call('SET', 'bench:item:' .. i, '{"id":' .. i .. ',"value":0}', 'EX', 3600)
  else
    redis.call('SET', 'other:session:' .. i, 'what others keep ' .. i)
  end
end"#;

#[derive(Clone, Copy)]
enum Way {
    Truncate,
    ByHand,
    Gap,
}

const WAYS: [(Way, &str); 3] = [
    (Way::Truncate, "a whole cache: TRUNCATE"),
    (Way::ByHand, "by hand: unstale invalidate"),
    (Way::Gap, "a gap: another mapping"),
];

/// What is told of each way, with how many decimals, and what becomes of its rounds.
const COLUMNS: [Column; 11] = [
    ("took s", 1, Samples::median),
    ("calm p50 ms", 3, Samples::median),
    ("calm p99 ms", 3, Samples::median),
    ("p50 ms", 3, Samples::median),
    ("p99 ms", 3, Samples::median),
    ("p99: times calm", 2, Samples::median),
    ("its longest command ms", 2, Samples::max),
    ("over 5 ms", 0, Samples::max),
    ("longest in the calm ms", 2, Samples::max),
    ("Redis' CPU s", 1, Samples::median),
    ("entries left", 0, Samples::max),
];

fn main() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    #[expect(clippy::expect_used, reason = "without a runtime there is no benchmark")]
    runtime.expect("a runtime").block_on(run());
}

#[expect(clippy::expect_used, reason = "a benchmark fails by panicking")]
async fn run() {
    let rounds = size("BENCH_ROUNDS", 3);
    let ground = Ground::bare().await;
    let run = |sql: &'static str| {
        let postgres = &ground.postgres;
        async move { postgres.execute(sql).await.expect("the tables are made") }
    };
    run("create table item (id bigint primary key, value bigint not null)").await;
    run("create table all_items (id bigint primary key)").await;
    run("create publication unstale for table item, all_items").await;
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("bench.toml");
    std::fs::write(&config, CONFIG).expect("the configuration is written");
    let machine = machine::describe(&ground.postgres);
    let lab = Lab {
        redis: ground.redis.connection_db(1).await.expect("Redis answers"),
        ground,
        config,
        folder,
        keys: size("BENCH_KEYS", 1_000_000),
        others: size("BENCH_OTHERS", 9_000_000),
        seconds: size("BENCH_SECONDS", 10),
    };
    lab.command(&["CONFIG", "SET", "slowlog-max-len", "100000"]).await;
    progress(&format!("filling {} keys of others", lab.others));
    lab.fill("others", lab.others).await;
    let mut all =
        WAYS.map(|(way, name)| (way, name, COLUMNS.map(|(column, ..)| Samples::new(column))));
    for round in 0..rounds {
        for (way, name, samples) in &mut all {
            progress(&format!("{name}: round {} of {rounds}", round + 1));
            let figures = lab.round(*way).await;
            for ((samples, figure), (column, decimals, _)) in
                samples.iter_mut().zip(figures).zip(COLUMNS)
            {
                samples.values.push(figure);
                progress(&format!("{column}: {figure:.decimals$}"));
            }
        }
    }
    let rows = all.iter().map(|(_, name, samples)| {
        let columns = samples.iter().zip(COLUMNS);
        ((*name).to_owned(), columns.map(|(samples, (.., of))| of(samples)).collect())
    });
    let table = Table {
        name: format!("{} entries are dropped, {} keys in Redis", lab.keys, lab.keys + lab.others),
        columns: COLUMNS.iter().map(|(name, decimals, _)| (*name, *decimals)).collect(),
        rows: rows.collect(),
        notes: vec![
            format!("{rounds} rounds, in turns: medians, and the most of commands"),
            format!("{READERS} others GET what is theirs, each {} ms after the last answer", PAUSE.as_millis()),
            "a command's time is Redis' own (SLOWLOG); a gap purges twice, and contains the daemon's start".to_owned(),
        ],
    };
    let goals = Goals(WAYS.iter().flat_map(|(_, way)| goals(&table, way)).collect());
    publish("purge", &machine, &[&table, &goals]);
}

/// What others notice.
fn goals(table: &Table, way: &str) -> Vec<Line> {
    let longest = table.get(way, "its longest command ms");
    let (p99, calm) = (table.get(way, "p99 ms"), table.get(way, "calm p99 ms"));
    vec![
        Line {
            what: format!("purge, {way}: its longest command"),
            ours: format!("{longest:.2} ms"),
            beside: String::new(),
            reached: longest,
            unit: "ms",
            goal: Some(Goal::AtMost(5.0)),
        },
        Line {
            what: format!("purge, {way}: reads of others, p99"),
            ours: format!("{p99:.3} ms"),
            beside: format!("in the calm: {calm:.3} ms"),
            reached: table.get(way, "p99: times calm"),
            unit: "times calm",
            goal: Some(Goal::AtMost(2.0)),
        },
    ]
}

struct Lab {
    ground: Ground,
    redis: MultiplexedConnection,
    config: PathBuf,
    folder: tempfile::TempDir,
    keys: u64,
    others: u64,
    seconds: u64,
}

#[expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a benchmark fails by panicking"
)]
impl Lab {
    async fn round(&self, way: Way) -> [f64; COLUMNS.len()] {
        let mut daemon = self.daemon(&[]).await;
        daemon.until_ready().await;
        self.fill("entries", self.keys).await;
        let mut readers = self.readers().await;
        let calm = Duration::from_secs(self.seconds);
        read_while(&mut readers, PAUSE, tokio::time::sleep(calm / 5)).await;
        self.watch().await;
        let (before, ()) = read_while(&mut readers, PAUSE, tokio::time::sleep(calm)).await;
        let idle = self.slow().await;
        if matches!(way, Way::Gap) {
            daemon.stop().await;
            daemon = self.daemon(&[CHANGED.to_owned()]).await;
        }
        self.watch().await;
        let cpu = || machine::cpu_seconds(self.ground.redis.pid().expect("Redis runs"));
        let (cpu_before, start) = (cpu(), Instant::now());
        let purging = async {
            match way {
                Way::Truncate => {
                    let sql = "truncate all_items";
                    self.ground.postgres.execute(sql).await.expect("the table is truncated");
                    let end = self.ground.position().await;
                    self.ground
                        .postgres
                        .execute("insert into all_items values (1)")
                        .await
                        .expect("a row");
                    daemon.until_applied(end).await;
                }
                Way::ByHand => daemon.invalidate("item").await,
                Way::Gap => daemon.until_ready().await,
            }
            start.elapsed().as_secs_f64()
        };
        let (within, took) = read_while(&mut readers, PAUSE, purging).await;
        let cpu = cpu() - cpu_before;
        let slow = self.slow().await;
        let left = self.left().await;
        assert_eq!(left, 0, "entries that had to go are there");
        daemon.verify().await;
        daemon.stop().await;
        self.ground.drop_slots().await;
        let p = |seen: &Seen, percent| seen.millis.percentile(percent);
        [
            took,
            p(&before, 50),
            p(&before, 99),
            p(&within, 50),
            p(&within, 99),
            p(&within, 99) / p(&before, 99),
            longest(&slow),
            f64::from(u32::try_from(slow.iter().filter(|ms| **ms > 5.0).count()).expect("it fits")),
            longest(&idle),
            cpu,
            f64::from(u32::try_from(left).expect("it fits")),
        ]
    }

    async fn daemon(&self, more: &[String]) -> Daemon {
        let mut settings = vec!["api.enabled=false".to_owned(), log_to(self.folder.path())];
        settings.extend_from_slice(more);
        Daemon::with(&self.ground, SLOT, self.config.clone(), &settings).await
    }

    async fn fill(&self, what: &str, until: u64) {
        const AT_ONCE: u64 = 10_000;
        let script = redis::Script::new(FILL);
        let mut redis = self.redis.clone();
        for from in (1..=until).step_by(usize::try_from(AT_ONCE).expect("it fits")) {
            let to = until.min(from + AT_ONCE - 1);
            let mut filling = script.prepare_invoke();
            filling.arg(from).arg(to).arg(what);
            filling.invoke_async::<()>(&mut redis).await.expect("Redis takes them");
        }
    }

    async fn readers(&self) -> Vec<Other> {
        let mut readers = Vec::new();
        for _ in 0..READERS {
            let redis = self.ground.redis.connection_db(1).await.expect("Redis answers");
            readers.push(Other { redis, others: self.others });
        }
        readers
    }

    async fn command(&self, words: &[&str]) {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]).exec_async(&mut self.redis.clone()).await.expect("Redis obeys");
    }

    /// From here on, what is slow is told.
    async fn watch(&self) {
        let micros = SLOW_MICROS.to_string();
        self.command(&["CONFIG", "SET", "slowlog-log-slower-than", &micros]).await;
        self.command(&["SLOWLOG", "RESET"]).await;
    }

    /// The commands that were slow, in ms, but for our own here.
    async fn slow(&self) -> Vec<f64> {
        self.command(&["CONFIG", "SET", "slowlog-log-slower-than", "-1"]).await;
        let mut slowlog = redis::cmd("SLOWLOG");
        slowlog.arg("GET").arg(-1);
        let entries: Vec<redis::Value> =
            slowlog.query_async(&mut self.redis.clone()).await.expect("Redis answers");
        let mut slow = Vec::new();
        let mut by_name = std::collections::BTreeMap::<String, (usize, f64)>::new();
        for entry in entries {
            let redis::Value::Array(fields) = entry else { panic!("{entry:?}") };
            let micros: u32 = redis::from_redis_value(fields[2].clone()).expect("its time");
            let words: Vec<String> = redis::from_redis_value(fields[3].clone()).expect("a command");
            let millis = f64::from(micros) / 1e3;
            let (times, most) = by_name.entry(words[0].to_uppercase()).or_default();
            *times += 1;
            *most = most.max(millis);
            slow.push(millis);
        }
        for (name, (times, most)) in by_name {
            progress(&format!(
                "{times} of {name} took over {SLOW_MICROS} µs, {most:.2} ms at most"
            ));
        }
        slow
    }

    /// Entries that are there although they had to go. Others' keys must all be there.
    async fn left(&self) -> u64 {
        let mut redis = self.redis.clone();
        let size: u64 = redis::cmd("DBSIZE").query_async(&mut redis).await.expect("Redis answers");
        assert!(size >= self.others, "keys of others are gone");
        let mut left = 0;
        let mut keys = redis.scan_match::<_, String>(format!("{PREFIX}*")).await.expect("a scan");
        while keys.next_item().await.is_some() {
            left += 1;
        }
        left
    }
}

/// Who reads keys that no purge concerns.
struct Other {
    redis: MultiplexedConnection,
    others: u64,
}

#[expect(clippy::expect_used, reason = "a benchmark fails by panicking")]
impl Reader for Other {
    async fn read(&mut self, _: usize) -> bool {
        let key = format!("other:session:{}", fastrand::u64(1..=self.others));
        let value: Option<String> = self.redis.get(key).await.expect("Redis answers");
        assert!(value.is_some(), "a key of others is gone");
        true
    }
}

fn longest(commands: &[f64]) -> f64 {
    commands.iter().copied().fold(0.0, f64::max)
}
