//! What a change costs as everything around it grows: rules, tables, cached keys. A change that
//! reaches one key should cost the same whatever else there is.
//!
//! *Instructions* are counted by callgrind of a run without servers (decode, map, gate, collect;
//! `counts/`): the same on every machine in every mood. The rest is of the daemon at work, per
//! change, in bursts: it is stopped (SIGSTOP) while a burst is committed and goes on when all of it
//! waits, so that batches do not depend on who was faster. What was removed is cached again before
//! the next burst. CPU time is the process', by its own clock, from where it is stopped for one burst
//! to where it is for the next: what is done after Redis has acknowledged is of the change, too.
//! Commands and bytes are what Redis counted.
//!
//! Of a round's bursts the median counts: what the daemon does once a second, whatever changes, falls
//! into some of them. Sizes take turns, several rounds.
//!
//! Smaller and quicker: `BENCH_ROUNDS=1 BENCH_BURSTS=20 BENCH_GROWING=rules,tables,keys`.

mod counts;
mod support;

use counts::shape::{PREFIX, Shape};
use counts::work::Case;
use counts::{callgrind, judge::FLAT};
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use rustix::process::{Pid, Signal, kill_process};
use support::daemon::{Daemon, NO_SCHEDULE};
use support::goal::{Goal, Goals, Line};
use support::ground::{Ground, position};
use support::report::{Samples, Section, Table, publish};
use support::traffic::Traffic;
use support::{machine, progress, size};

/// The rows that a burst changes.
const BURST: usize = 1000;

fn main() {
    if callgrind::is_counted() {
        return;
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    #[expect(clippy::expect_used, reason = "without a runtime there is no benchmark")]
    runtime.expect("a runtime").block_on(run());
}

/// One size of one thing.
struct Size {
    name: String,
    shape: Shape,
    cached: usize,
    measured: Measured,
}

/// A change's costs, round by round, or burst by burst.
struct Measured {
    instructions: Samples,
    cpu: Samples,
    commands: Samples,
    bytes: Samples,
    redis: Samples,
}

impl Measured {
    fn nothing() -> Measured {
        let samples = || Samples::new("a change");
        Measured {
            instructions: samples(),
            cpu: samples(),
            commands: samples(),
            bytes: samples(),
            redis: samples(),
        }
    }
}

impl Size {
    fn new(name: String, shape: Shape, cached: usize) -> Size {
        Size { name, shape, cached, measured: Measured::nothing() }
    }
}

/// What grows, by what it is called.
fn growing() -> Vec<(&'static str, Vec<Size>)> {
    let rules = [10, 70, 500].map(|rules| {
        Size::new(format!("{rules} rules of one table"), Shape { tables: 1, rules }, BURST)
    });
    let tables = [1, 8, 64]
        .map(|tables| Size::new(format!("{tables} tables"), Shape { tables, rules: 5 }, BURST));
    let keys = [1000, 30_000, 1_000_000].map(|cached| {
        Size::new(format!("{cached} cached keys"), Shape { tables: 1, rules: 5 }, cached)
    });
    vec![("rules", rules.into()), ("tables", tables.into()), ("keys", keys.into())]
}

async fn run() {
    let rounds = size("BENCH_ROUNDS", 3);
    let bursts = size("BENCH_BURSTS", 100);
    let mut all = growing();
    if let Ok(named) = std::env::var("BENCH_GROWING") {
        all.retain(|(what, _)| named.split(',').any(|name| name == *what));
    }
    let mut counted: Vec<(Shape, f64)> = Vec::new();
    for size in all.iter_mut().flat_map(|(_, sizes)| sizes) {
        let known = counted.iter().find(|(shape, _)| *shape == size.shape);
        let instructions = known.map(|(_, instructions)| *instructions).unwrap_or_else(|| {
            progress(&format!("counting instructions: {}", size.name));
            let costs = callgrind::count(&[&Case::of(size.shape)], |_| {});
            let each = costs.first().map_or(f64::NAN, |cost| cost.instructions);
            counted.push((size.shape, each));
            each
        });
        size.measured.instructions.values.push(instructions);
    }
    let mut machine = None;
    for round in 0..rounds {
        for (what, sizes) in &mut all {
            for size in sizes.iter_mut() {
                progress(&format!("{what}: {}, round {} of {rounds}", size.name, round + 1));
                let ground = Ground::bare().await;
                machine.get_or_insert_with(|| machine::describe(&ground.postgres));
                Lab::new(ground, size).await.measure(bursts, &mut size.measured).await;
            }
        }
    }
    let tables: Vec<Table> = all.iter().map(|(what, sizes)| table(what, sizes)).collect();
    let goals = Goals(all.iter().flat_map(|(what, sizes)| goals(what, sizes)).collect());
    let mut sections: Vec<&dyn Section> =
        tables.iter().map(|table| table as &dyn Section).collect();
    sections.push(&goals);
    publish("growth", &machine.unwrap_or_default(), &sections);
}

struct Burst {
    /// What the daemon had taken when it was stopped for it.
    cpu: f64,
    /// What Redis counted.
    traffic: Traffic,
}

/// Two servers and a daemon of that size.
struct Lab {
    redis: MultiplexedConnection,
    daemon: Daemon,
    writer: tokio_postgres::Client,
    shape: Shape,
    _ground: Ground,
    _folder: tempfile::TempDir,
}

#[expect(clippy::expect_used, reason = "a benchmark fails by panicking")]
impl Lab {
    async fn new(ground: Ground, size: &Size) -> Lab {
        let shape = size.shape;
        let writer = ground.postgres.client().await.expect("a client");
        writer.batch_execute(&shape.schema(BURST)).await.expect("the tables are made");
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("bench.toml");
        std::fs::write(&config, shape.config()).expect("the configuration is written");
        let redis = ground.redis.connection_db(1).await.expect("Redis answers");
        let settings = ["api.enabled=false", NO_SCHEDULE].map(str::to_owned);
        let daemon = Daemon::with(&ground, "growth", config, &settings).await;
        daemon.until_ready().await;
        let lab = Lab { redis, daemon, writer, shape, _ground: ground, _folder: folder };
        // Its first start has dropped what was there. What is cached beyond a burst is never
        // changed.
        lab.cache(0..size.cached).await;
        lab
    }

    async fn measure(mut self, bursts: u64, measured: &mut Measured) {
        // Until caches, allocators and tables are warm.
        for _ in 0..5 {
            self.burst().await;
        }
        let mut each = Measured::nothing();
        let mut begun = self.burst().await;
        for _ in 0..bursts {
            let next = self.burst().await;
            let micros = |seconds: f64| seconds / BURST as f64 * 1e6;
            each.cpu.values.push(micros(next.cpu - begun.cpu));
            each.commands.values.push(begun.traffic.commands / BURST as f64);
            each.bytes.values.push(begun.traffic.bytes / BURST as f64);
            each.redis.values.push(micros(begun.traffic.cpu));
            begun = next;
        }
        let Measured { cpu, commands, bytes, redis, .. } = each;
        let of_rounds =
            [&mut measured.cpu, &mut measured.commands, &mut measured.bytes, &mut measured.redis];
        let medians = [cpu, commands, bytes, redis].map(|bursts| bursts.median());
        for (rounds, median) in of_rounds.into_iter().zip(medians) {
            rounds.values.push(median);
        }
        let [cpu, commands, bytes, redis] = medians;
        progress(&format!(
            "a change: {cpu:.2} µs, {commands:.3} commands, {bytes:.1} bytes, Redis {redis:.2} µs"
        ));
        assert_eq!(self.cached().await, 0, "keys that were changed are still there");
        self.daemon.stop().await;
    }

    /// Caches what a burst changes, commits it, and lets the daemon work it off.
    async fn burst(&mut self) -> Burst {
        self.cache(0..BURST).await;
        self.signal(Signal::STOP);
        let cpu = self.daemon.cpu_seconds();
        self.writer.batch_execute(&self.shape.burst(BURST)).await.expect("the changes");
        let end = position(&self.writer).await;
        // Whoever reads up to a position needs something to come after it.
        let more = "update t0 set c1 = c1 + 1 where id = 0";
        self.writer.batch_execute(more).await.expect("one more commit");
        let before = Traffic::read(&mut self.redis).await;
        self.signal(Signal::CONT);
        self.daemon.until_applied(end).await;
        Burst { cpu, traffic: Traffic::read(&mut self.redis).await - before }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.daemon.pid()).ok().and_then(Pid::from_raw).expect("a pid");
        kill_process(pid, signal).expect("it runs");
    }

    async fn cache(&self, ids: std::ops::Range<usize>) {
        let mut redis = self.redis.clone();
        let keys: Vec<(String, &str)> =
            ids.map(|id| (self.shape.key(id), r#"{"value":"as long as a small one"}"#)).collect();
        for some in keys.chunks(1000) {
            let _: () = redis.mset(some).await.expect("Redis answers");
        }
    }

    /// How many of those that a burst changes are there.
    async fn cached(&self) -> usize {
        let keys: Vec<String> = (0..BURST).map(|id| self.shape.key(id)).collect();
        assert!(keys.iter().all(|key| key.starts_with(PREFIX)));
        let mut redis = self.redis.clone();
        redis.exists(keys).await.expect("Redis answers")
    }
}

const COSTS: [(&str, &str, usize); 5] = [
    ("instructions (decode, map, gate)", "", 0),
    ("the daemon's CPU", " µs", 2),
    ("Redis commands", "", 3),
    ("bytes to Redis", "", 1),
    ("Redis' CPU", " µs", 2),
];

fn medians(size: &Size) -> [f64; 5] {
    let Measured { instructions, cpu, commands, bytes, redis } = &size.measured;
    [instructions, cpu, commands, bytes, redis].map(Samples::median)
}

fn table(what: &str, sizes: &[Size]) -> Table {
    let ratio = |size: &Size| {
        let smallest = sizes.first().map_or([f64::NAN; 5], medians);
        medians(size).into_iter().zip(smallest).map(|(cost, least)| cost / least).collect()
    };
    let rows = sizes.iter().map(|size| (size.name.clone(), medians(size).to_vec()));
    let ratios = sizes.iter().skip(1).map(|size| (format!("{}, ratio", size.name), ratio(size)));
    Table {
        name: format!("A change, with ever more {what}"),
        columns: vec![
            ("instructions", 2),
            ("CPU µs", 2),
            ("Redis commands", 3),
            ("bytes to Redis", 2),
            ("Redis' CPU µs", 2),
        ],
        rows: rows.chain(ratios).collect(),
        notes: vec![
            "medians of rounds, each the median of its bursts; ratios to the smallest".to_owned(),
        ],
    }
}

/// The largest beside the smallest.
fn goals(what: &str, sizes: &[Size]) -> Vec<Line> {
    let (Some(smallest), Some(largest)) = (sizes.first(), sizes.last()) else { return Vec::new() };
    let costs = COSTS.iter().zip(medians(smallest)).zip(medians(largest));
    costs
        .map(|(((cost, unit, decimals), least), most)| Line {
            what: format!("growth, {what}: {cost} a change"),
            ours: format!("{}: {most:.decimals$}{unit}", largest.name),
            beside: format!("{}: {least:.decimals$}{unit}", smallest.name),
            reached: most / least,
            unit: "times",
            goal: Some(Goal::AtMost(FLAT)),
        })
        .collect()
}
