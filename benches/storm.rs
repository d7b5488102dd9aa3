//! A storm: very many changes of one organization in a few seconds, while many read just what
//! each of them changes.
//!
//! In turns, on the same servers and the same rows:
//!
//! * *leases off*: as people write it. Each reader GETs; on a miss it asks the database, and SETs.
//!   Removals are Unstale's own, by the same daemon, so that the readers are the only difference.
//! * *leases*: the same readers come to the read API, with the default configuration.
//! * *refresh*: the same, with `on_change = "refresh"` and `max_staleness = "1s"`.
//!
//! Each first in a calm, then in the storm, at the same pace. Loads are counted in the server, by
//! what the queries say as they begin and end (into its log), whoever fills; so is how many of
//! one key were under way at once. What the audit loads is not counted: it compares one entry a
//! second, whatever happens. A reader's time is from the question to the answer.
//!
//! Writers, Postgres, Redis, the daemon and the readers share the machine's cores: part of what
//! a reader waits for in the storm is his turn. Commits are not flushed to disk.
//!
//! Smaller and quicker: `BENCH_UPDATES=20000 BENCH_SECONDS=4 BENCH_READERS=50 BENCH_ROUNDS=1`.

mod support;

use std::collections::BTreeMap;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use support::daemon::{Daemon, free_port, log_to};
use support::goal::{Goal, Goals, Line};
use support::ground::Ground;
use support::http::{SECRET, bearer};
use support::readers::{OfApi, Reader, read_while};
use support::report::{Column, Samples, Table, publish};
use support::{machine, progress, size};
use tokio_postgres::{Client, Statement};

/// The demo's first and largest, and a superuser of it.
const ORGANIZATION: i64 = 1;
const SUPERUSER: u64 = 1;

/// What each of the updates changes, and all that is read.
const ENTRIES: [Entry; 5] = [
    Entry { days: None },
    Entry { days: Some(7) },
    Entry { days: Some(30) },
    Entry { days: Some(90) },
    Entry { days: Some(365) },
];

/// Connections to the database of those who load by themselves: what a pool gives an
/// application of this size.
const CONNECTIONS: usize = 50;

const WRITERS: u64 = 4;

/// As [`Lab::settings`] has it.
const MAX_STALENESS: Duration = Duration::from_secs(1);

/// What the lines of the server's log have that the audit's connection is the cause of.
/// (Before LOG stands the application's name.)
const OF_AUDIT: &str = " unstale audit LOG:";

/// The queries as they are, but telling the server's log of it.
const COUNTED: [(&str, &str, &str); 2] = [
    ("org_data", "org_id bigint", include_str!("../sql/caches/org_data.sql")),
    (
        "deal_stats",
        "org_id bigint, days int, timezone text",
        include_str!("../sql/caches/deal_stats.sql"),
    ),
];

/// One row a transaction, each another one, never two writers the same; evenly over the time, or as
/// fast as the server can.
const WRITER: &str = "
    create procedure storm(number bigint, writers bigint, updates bigint, seconds float8) language plpgsql as $$
    declare
        ids uuid[] := array(select id from (select id, row_number() over (order by id) as n from deals_deal where organization_id = 1) d where n % writers = number);
        began timestamptz := clock_timestamp();
        early float8;
    begin
        for i in 1 .. updates loop
            update deals_deal set deal_value = deal_value + 1 where id = ids[1 + i % cardinality(ids)];
            commit;
            if i % 20 = 0 then
                early := i * seconds / updates - extract(epoch from clock_timestamp() - began);
                if early > 0 then perform pg_sleep(early); end if;
            end if;
        end loop;
    end $$";

/// One of those updates.
const CHANGE: &str = "update deals_deal set deal_value = deal_value + 1
    where id = (select id from deals_deal where organization_id = 1 limit 1)";

#[derive(Clone, Copy)]
struct Entry {
    /// Of its statistics; none: what is told of the organization itself.
    days: Option<i32>,
}

impl Entry {
    fn path(self) -> String {
        match self.days {
            None => format!("/api/cached/organizations/{ORGANIZATION}/info/"),
            Some(days) => {
                format!("/api/cached/organizations/{ORGANIZATION}/statistics/?days={days}")
            }
        }
    }

    fn key(self) -> String {
        match self.days {
            None => format!("prs_cache:1:v1:org:data:{ORGANIZATION}"),
            Some(days) => format!("prs_cache:1:v1:deal_stats:{ORGANIZATION}:{days}"),
        }
    }
}

/// Who reads, and what keeps the cache.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    LeasesOff,
    Leases,
    Refresh,
}

const WAYS: [(Way, &str); 3] = [
    (Way::LeasesOff, "leases off: GET, query, SET"),
    (Way::Leases, "leases, by the read API"),
    (Way::Refresh, "refresh, max_staleness = 1s, by the read API"),
];

fn main() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    #[expect(clippy::expect_used, reason = "without a runtime there is no benchmark")]
    runtime.expect("a runtime").block_on(run());
}

async fn run() {
    let rounds = size("BENCH_ROUNDS", 3);
    let ground = Ground::with_deals(size("BENCH_DEALS", 50_000)).await;
    prepare(&ground).await;
    let machine = machine::describe(&ground.postgres);
    #[expect(clippy::expect_used, reason = "a benchmark fails by panicking")]
    let folder = tempfile::tempdir().expect("a folder");
    let lab = Lab {
        ground,
        folder,
        readers: size("BENCH_READERS", 200),
        pause: Duration::from_millis(size("BENCH_PAUSE_MS", 100)),
        updates: size("BENCH_UPDATES", 100_000),
        seconds: size("BENCH_SECONDS", 10),
    };
    let mut all = WAYS.map(|(way, name)| (way, Contender::new(name)));
    for round in 0..rounds {
        for (way, contender) in &mut all {
            progress(&format!("{}: round {} of {rounds}", contender.name, round + 1));
            lab.round(*way, contender).await;
        }
    }
    let asked = u128::from(lab.readers) * 1000 / lab.pause.as_millis().max(1);
    let table = Table {
        name: format!(
            "{} updates of one organization in {} s, under {} readers of what each of them changes ({} entries, {asked} reads/s)",
            lab.updates,
            lab.seconds,
            lab.readers,
            ENTRIES.len(),
        ),
        columns: COLUMNS.iter().map(|(name, decimals, _)| (*name, *decimals)).collect(),
        rows: all.iter().map(|(_, contender)| contender.row()).collect(),
        notes: vec![
            format!("{rounds} rounds, in turns: medians; of loads a key, of those at once and of what is stale, the most"),
            "updates/s: what the writers reached; behind: from their last commit until all of it is applied".to_owned(),
            "loads: of all entries, from the first update until nothing is due any more, but for the audit's; a key: of the entry that was loaded the most; the goal for refresh is one a second that the storm took, and one more".to_owned(),
            "fsync = off; readers, writers and servers share the machine's cores".to_owned(),
        ],
    };
    publish("storm", &machine, &[&table, &goals(&table)]);
}

/// Loads of a key, and what readers wait for.
fn goals(table: &Table) -> Goals {
    let [(_, off), (_, leases), (_, refresh)] = WAYS;
    let line = |name: &str, way: &str, column: &str, unit: &'static str, at_most: f64| {
        let (ours, theirs) = (table.get(way, column), table.get(off, column));
        Line {
            what: format!("storm, {way}: {name}"),
            ours: format!("{ours:.1}"),
            beside: format!("{off}: {theirs:.1}"),
            reached: ours,
            unit,
            goal: Some(Goal::AtMost(at_most)),
        }
    };
    // One a second, and one more. (On a busy machine the updates take longer than they are to.)
    let loads = (table.get(refresh, "took s") / MAX_STALENESS.as_secs_f64()).floor() + 1.0;
    Goals(vec![
        line("loads of a key at once", leases, "at once of a key", "", 1.0),
        line("loads of a key", refresh, "loads a key", "", loads),
        line("readers' p99", leases, "p99: times calm", "times calm", 5.0),
        line("readers' p99", refresh, "p99: times calm", "times calm", 5.0),
    ])
}

/// What is told of each way, with how many decimals, and what becomes of its rounds.
const COLUMNS: [Column; 14] = [
    ("updates/s", 0, Samples::median),
    ("behind s", 1, Samples::median),
    ("took s", 1, Samples::median),
    ("reads/s", 0, Samples::median),
    ("hits %", 1, Samples::median),
    ("loads", 0, Samples::median),
    ("loads a key", 0, Samples::max),
    ("at once of a key", 0, Samples::max),
    ("calm p50 ms", 2, Samples::median),
    ("calm p99 ms", 2, Samples::median),
    ("storm p50 ms", 2, Samples::median),
    ("storm p99 ms", 2, Samples::median),
    ("p99: times calm", 1, Samples::median),
    ("stale at the end", 0, Samples::max),
];

/// The counted queries, and the writers.
#[expect(clippy::expect_used, reason = "a benchmark fails by panicking")]
async fn prepare(ground: &Ground) {
    for (cache, parameters, query) in COUNTED {
        let query = query.replace('$', &format!("load_{cache}."));
        let entry = if cache == "org_data" { "org_id::text" } else { "org_id || ' ' || days" };
        let sql = format!(
            "create function load_{cache}({parameters}) returns setof json language plpgsql as $function$
             begin
                 raise log 'load begins: {cache} %', {entry};
                 return query {query};
                 raise log 'load ends: {cache} %', {entry};
             end $function$"
        );
        ground.postgres.execute(&sql).await.expect("a counted query");
    }
    ground.postgres.execute(WRITER).await.expect("a writer");
    ground.postgres.execute("alter system set log_error_verbosity = terse").await.expect("set");
    ground.postgres.execute("select pg_reload_conf()").await.expect("set");
}

struct Lab {
    ground: Ground,
    folder: tempfile::TempDir,
    readers: u64,
    pause: Duration,
    updates: u64,
    seconds: u64,
}

/// What one way gave, round by round.
struct Contender {
    name: &'static str,
    rounds: [Samples; COLUMNS.len()],
}

impl Contender {
    fn new(name: &'static str) -> Contender {
        Contender { name, rounds: COLUMNS.map(|(column, ..)| Samples::new(column)) }
    }

    fn add(&mut self, round: [f64; COLUMNS.len()]) {
        for ((samples, value), (column, decimals, _)) in
            self.rounds.iter_mut().zip(round).zip(COLUMNS)
        {
            samples.values.push(value);
            progress(&format!("{column}: {value:.decimals$}"));
        }
    }

    fn row(&self) -> (String, Vec<f64>) {
        let rounds = self.rounds.iter().zip(COLUMNS);
        (self.name.to_owned(), rounds.map(|(samples, (.., of))| of(samples)).collect())
    }
}

/// What happened meanwhile.
struct Storm {
    updates_per_second: f64,
    behind: f64,
    took: f64,
}

#[expect(clippy::expect_used, reason = "a benchmark fails by panicking")]
impl Lab {
    async fn round(&self, way: Way, contender: &mut Contender) {
        self.ground.postgres.execute("vacuum deals_deal").await.expect("a vacuum");
        let port = free_port();
        let mut daemon = Daemon::start(&self.ground, "storm", &self.settings(way, port)).await;
        daemon.until_ready().await;
        let mut seen = if way == Way::LeasesOff {
            self.observe(self.by_hand().await, &mut daemon).await
        } else {
            self.observe(self.of_api(port).await, &mut daemon).await
        };
        let stale = daemon.stale().await;
        // Without leases that is what is to be shown.
        assert!(stale == 0 || way == Way::LeasesOff, "{stale} entries are stale");
        if let Some(last) = seen.last_mut() {
            *last = count(stale);
        }
        contender.add(seen);
        daemon.stop().await;
        self.ground.drop_slots().await;
    }

    fn settings(&self, way: Way, port: u16) -> Vec<String> {
        let mut settings = vec![
            log_to(self.folder.path()),
            "caches.org_data.query=select load_org_data($org_id::bigint) as value".to_owned(),
            "caches.deal_stats.query=select load_deal_stats($org_id::bigint, $days::int, $timezone::text) as value".to_owned(),
        ];
        if way == Way::LeasesOff {
            settings.push("api.enabled=false".to_owned());
            return settings;
        }
        settings.extend([
            format!("api.listen=127.0.0.1:{port}"),
            format!("api.jwt.secret={SECRET}"),
            "warm.enabled=true".to_owned(),
            // Entries that nobody here reads.
            "warm.after_gap=false".to_owned(),
        ]);
        if way == Way::Refresh {
            for cache in ["org_data", "deal_stats"] {
                settings.push(format!("caches.{cache}.on_change=refresh"));
                settings.push(format!("caches.{cache}.max_staleness=1s"));
            }
        }
        settings
    }

    async fn of_api(&self, port: u16) -> Vec<OfApi> {
        let paths = ENTRIES.map(Entry::path);
        let mut readers = Vec::new();
        for _ in 0..self.readers {
            readers.push(OfApi::connect(port, &bearer(SUPERUSER), &paths).await);
        }
        readers
    }

    async fn by_hand(&self) -> Vec<ByHand> {
        let mut pool = Vec::new();
        for _ in 0..CONNECTIONS {
            pool.push(Arc::new(Database::connect(&self.ground).await));
        }
        let mut readers = Vec::new();
        for database in pool.iter().cycle().take(usize::try_from(self.readers).expect("it fits")) {
            let redis = self.ground.redis.connection_db(1).await.expect("Redis answers");
            readers.push(ByHand { redis, database: Arc::clone(database) });
        }
        readers
    }

    /// In a calm, then in a storm.
    async fn observe<R: Reader>(
        &self,
        mut readers: Vec<R>,
        daemon: &mut Daemon,
    ) -> [f64; COLUMNS.len()] {
        let calm = Duration::from_secs(self.seconds.min(5));
        // All is filled, and connections are open. It has changed before, as it has wherever a daemon has
        // run for a while.
        read_while(&mut readers, self.pause, tokio::time::sleep(calm / 2)).await;
        self.ground.postgres.execute(CHANGE).await.expect("a change");
        read_while(&mut readers, self.pause, tokio::time::sleep(2 * MAX_STALENESS)).await;
        let (before, ()) = read_while(&mut readers, self.pause, tokio::time::sleep(calm)).await;
        let log = self.ground.postgres.log();
        let from = std::fs::metadata(&log).expect("the server's log").len();
        let (within, storm) = read_while(&mut readers, self.pause, self.storm(daemon)).await;
        // What is due is refreshed.
        tokio::time::sleep(2 * MAX_STALENESS).await;
        let loads = Loads::since(&log, from);
        let p99 = [&before, &within].map(|seen| seen.millis.percentile(99));
        [
            storm.updates_per_second,
            storm.behind,
            storm.took,
            count(u64::try_from(within.millis.values.len()).expect("it fits")) / storm.took,
            within.hit_percent(),
            count(loads.all()),
            count(loads.most(|key| key.loads)),
            count(loads.most(|key| key.at_once)),
            before.millis.median(),
            p99[0],
            within.millis.median(),
            p99[1],
            p99[1] / p99[0],
            f64::NAN,
        ]
    }

    async fn storm(&self, daemon: &mut Daemon) -> Storm {
        let start = Instant::now();
        let mut writing = tokio::task::JoinSet::new();
        for number in 0..WRITERS {
            let writer = self.ground.writer().await;
            let sql = format!(
                "call storm({number}, {WRITERS}, {}, {})",
                self.updates / WRITERS,
                self.seconds
            );
            writing.spawn(async move { writer.batch_execute(&sql).await.expect("the updates") });
        }
        writing.join_all().await;
        let written = start.elapsed().as_secs_f64();
        let end = self.ground.end().await;
        let applied = daemon.until_applied(end).await.duration_since(start).as_secs_f64();
        Storm {
            updates_per_second: count(self.updates) / written,
            behind: applied - written,
            took: applied,
        }
    }
}

/// Who asks Redis and the database himself.
struct ByHand {
    redis: MultiplexedConnection,
    database: Arc<Database>,
}

struct Database {
    client: Client,
    org_data: Statement,
    deal_stats: Statement,
}

#[expect(clippy::expect_used, reason = "a benchmark fails by panicking")]
impl Database {
    async fn connect(ground: &Ground) -> Database {
        let client = ground.postgres.client().await.expect("a client");
        let prepare = async |sql| client.prepare(sql).await.expect("a statement");
        let org_data = prepare("select load_org_data($1::bigint)::text").await;
        let deal_stats = prepare("select load_deal_stats($1::bigint, $2::int, 'UTC')::text").await;
        Database { client, org_data, deal_stats }
    }

    async fn load(&self, entry: Entry) -> String {
        let row = match entry.days {
            None => self.client.query_one(&self.org_data, &[&ORGANIZATION]).await,
            Some(days) => self.client.query_one(&self.deal_stats, &[&ORGANIZATION, &days]).await,
        };
        row.expect("a value").get(0)
    }
}

#[expect(clippy::expect_used, clippy::indexing_slicing, reason = "a benchmark fails by panicking")]
impl Reader for ByHand {
    async fn read(&mut self, number: usize) -> bool {
        let entry = ENTRIES[number % ENTRIES.len()];
        let key = entry.key();
        let found: Option<String> = self.redis.get(&key).await.expect("Redis answers");
        if found.is_some() {
            return true;
        }
        let value = self.database.load(entry).await;
        let () = self.redis.set_ex(&key, value, 900).await.expect("Redis answers");
        false
    }
}

/// What the server's log tells of loads, by entry; without the audit's.
#[derive(Default)]
struct Loads(BTreeMap<String, OfKey>);

#[derive(Default)]
struct OfKey {
    loads: u64,
    running: u64,
    at_once: u64,
}

#[expect(clippy::expect_used, reason = "a benchmark fails by panicking")]
impl Loads {
    fn since(log: &Path, from: u64) -> Loads {
        let mut file = std::fs::File::open(log).expect("the server's log");
        file.seek(SeekFrom::Start(from)).expect("a place in it");
        let mut text = Vec::new();
        file.read_to_end(&mut text).expect("the server's log");
        let mut loads = Loads::default();
        for line in String::from_utf8_lossy(&text).lines() {
            if line.contains(OF_AUDIT) {
                continue;
            }
            if let Some((_, key)) = line.split_once("load begins: ") {
                let of = loads.0.entry(key.to_owned()).or_default();
                of.loads += 1;
                of.running += 1;
                of.at_once = of.at_once.max(of.running);
            } else if let Some((_, key)) = line.split_once("load ends: ") {
                let of = loads.0.get_mut(key).expect("it has begun");
                of.running -= 1;
            }
        }
        loads
    }

    fn all(&self) -> u64 {
        self.0.values().map(|of| of.loads).sum()
    }

    fn most(&self, what: impl Fn(&OfKey) -> u64) -> u64 {
        self.0.values().map(what).max().unwrap_or(0)
    }
}

fn count(of: u64) -> f64 {
    f64::from(u32::try_from(of).unwrap_or(u32::MAX))
}
