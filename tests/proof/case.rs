//! One environment: its servers, its load, what disturbs it.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use unstale::sandbox::{Postgres, Redis};

use crate::filler::{self, Filling, Reads};
use crate::history::History;
use crate::oracle::{Oracle, Progress, Report, Seen};
use crate::process::Filler as Process;
use crate::reader;
use crate::support::standby::follow;
use crate::support::stop::Stop;
use crate::support::{Daemon, PATIENCE, World, until};
use crate::writer::{Acks, Writer};

const SCHEMA: &str = "
    create table item (id int primary key, grp int not null, version bigint not null);
    alter table item replica identity full;
    insert into item select i, i % 4, 1 from generate_series(1, 20) i;
    create publication unstale for table item;
";

const RULES: &str = r#"
    [redis]
    key_prefix = "proof:"
    [caches.item]
    key = "item:{id}"
    query = "select jsonb_build_object(id::text, version) from item where id = $id"
    ttl = "1h"
    rewarm = "if_cached"
    [caches.grp]
    key = "grp:{grp}"
    query = "select jsonb_object_agg(id::text, version) from item where grp = $grp having count(*) > 0"
    ttl = "1h"
    rewarm = "if_cached"
    [[tables]]
    name = "item"
    invalidates = [ { cache = "item", id = "id" }, { cache = "grp", grp = "grp" } ]
"#;

const CHAIN_BROKEN: &str = "unstale_gaps_total{reason=\"chain_broken\"}";

/// What happens beside the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disturbance {
    None,
    /// A process of fillers gets SIGSTOP for longer than any lease.
    StopFillers,
    /// The table is truncated and filled again.
    DropWholeCaches,
    /// Redis is killed and comes back, then once more with an older dump.
    LoseRedis,
    /// The daemon is killed and started again.
    KillDaemon,
    /// The standby stops replaying for a while, and goes on.
    PauseReplay,
}

/// One environment.
#[derive(Debug, Clone)]
pub struct Case {
    /// With a standby, commits wait for it as this says.
    pub synchronous_commit: Option<&'static str>,
    /// Which server the fillers, and the daemon, read.
    pub reads: Reads,
    /// How much later the standby applies.
    pub apply_delay: Duration,
    pub writers: u32,
    /// How long a transaction stays open at most.
    pub transaction: Duration,
    /// How long a filler stops at most, at each point.
    pub pause: Duration,
    /// A lease's life.
    pub lease: Duration,
    /// The daemon fills what it removed.
    pub rewarm: bool,
    /// Changes leave the old value for so long (`on_change = "refresh"`).
    pub max_staleness: Option<Duration>,
    /// The oracle allows only this part of it.
    pub allowed: f64,
    pub disturbance: Disturbance,
    /// The daemon does not wait for visibility.
    pub without_gate: bool,
    /// Fillers SET whatever they have read.
    pub without_leases: bool,
}

impl Default for Case {
    fn default() -> Self {
        Case {
            synchronous_commit: None,
            reads: Reads::Primary,
            apply_delay: Duration::ZERO,
            writers: 5,
            transaction: Duration::from_millis(10),
            pause: Duration::from_millis(20),
            lease: Duration::from_secs(1),
            rewarm: false,
            max_staleness: None,
            allowed: 1.0,
            disturbance: Disturbance::None,
            without_gate: false,
            without_leases: false,
        }
    }
}

impl Case {
    /// Runs the load for `time`, and on until `enough` has happened; lets everything settle,
    /// and says what was found.
    pub async fn run(&self, time: Duration, enough: fn(Progress) -> bool) -> Report {
        let (world, standby) = self.servers().await;
        let history = History::begin(world.postgres.client().await.unwrap()).await;
        let mut daemon = self.daemon(&world);
        daemon.until_ready().await;

        let acks = Acks::default();
        let (seen, sight) = mpsc::unbounded_channel();
        let (oracle, progress) = Oracle::new(history, acks.clone());
        let oracle = tokio::spawn(oracle.run(sight));
        let (writing, filling, reading) = (Stop::default(), Stop::default(), Stop::default());

        let mut readers = JoinSet::new();
        for _ in 0..2 {
            let (url, may_lack) = (world.redis.url_db(1), self.may_lack());
            readers.spawn(reader::read(url, may_lack, seen.clone(), reading.clone()));
        }
        let task = self.filling(&world, standby.as_ref());
        let mut fillers = filler::start(&task, &seen, &filling);
        let process = Process::start(&task, seen.clone());
        let mut writers = JoinSet::new();
        for number in 0..self.writers {
            let writer = Writer::new(&world, self, number, acks.clone()).await;
            writers.spawn(writer.write(writing.clone()));
        }
        let start = Instant::now();
        while start.elapsed() < time
            || (start.elapsed() < time + PATIENCE && !enough(*progress.borrow()))
        {
            let step = (time / 6).clamp(Duration::from_millis(500), Duration::from_secs(12));
            tokio::time::sleep(step).await;
            // Who loses Redis over and over is made to wait longer each time.
            if self.disturbance == Disturbance::LoseRedis && start.elapsed() >= time {
                continue;
            }
            let standby = standby.as_ref();
            self.disturb(&world, standby, &process, &mut daemon, &acks).await;
        }

        writing.set();
        while writers.join_next().await.transpose().unwrap().is_some() {}
        daemon.until_ready().await;
        world.settle().await;
        // What was due by then has gone, or is refreshed.
        tokio::time::sleep(self.max_staleness.map_or(Duration::ZERO, |may| may * 2)).await;
        filling.set();
        while fillers.join_next().await.transpose().unwrap().is_some() {}
        process.stop().await;
        reading.set();
        while readers.join_next().await.transpose().unwrap().is_some() {}
        drop(seen);
        let mut report = oracle.await.unwrap();
        report.look_at_rest(&world).await;
        report.gaps = daemon.gaps().await;
        for cache in ["item", "grp"] {
            let metric = |name: &str, rest: &str| format!("{name}{{cache=\"{cache}\",{rest}\"}}");
            let stored = metric("unstale_fills_total", "outcome=\"stored");
            report.rewarmed += daemon.metric(&stored).await;
            let drops = metric("unstale_escalations_total", "reason=\"truncate");
            report.whole_drops += daemon.metric(&drops).await;
            // On a slow machine, after the old value had gone.
            for outcome in ["refreshed", "expired"] {
                let stored = format!("outcome=\"{outcome}");
                let stored = metric("unstale_refreshes_total", &stored);
                report.refreshed += daemon.metric(&stored).await;
            }
        }
        report.log = daemon.log();
        assert!(daemon.stop().await.success());
        report
    }

    /// How long a change was applied at most that a value lacks which is read.
    fn may_lack(&self) -> Duration {
        // Redis looks at its clock once for each round of commands.
        let clock = Duration::from_millis(20);
        self.max_staleness.map_or(Duration::ZERO, |may| may.mul_f64(self.allowed) + clock)
    }

    fn daemon(&self, world: &World) -> Daemon {
        let command = world.run_without(self.without_gate.then_some("gate"));
        world.spawn_with(command, world.admin)
    }

    async fn servers(&self) -> (World, Option<Postgres>) {
        let postgres = Postgres::start().await.unwrap();
        postgres.execute(SCHEMA).await.unwrap();
        let mut standby = None;
        if self.synchronous_commit.is_some() || self.reads != Reads::Primary {
            standby = Some(follow(&postgres, self.apply_delay, self.synchronous_commit).await);
        }
        let redis = Redis::start().await.unwrap();
        let mut world = World::bare(postgres, redis, "none".as_ref());
        let refresh = self.max_staleness.map(|may| {
            format!("on_change = \"refresh\"\nmax_staleness = \"{}ms\"", may.as_millis())
        });
        let rewarm = "rewarm = \"if_cached\"";
        let rules = format!("{rewarm}\n{}", refresh.unwrap_or_default());
        world.configure(&RULES.replace(rewarm, &rules));
        world.set(&format!("warm.enabled={}", self.rewarm));
        if let Some(standby) = standby.as_ref().filter(|_| self.reads == Reads::Standby) {
            world.set(&format!("postgres.replica_url={}", standby.url()));
        }
        // Thousands of lines a second would slow down what they tell of.
        world.set("log.level=info");
        (world, standby)
    }

    fn filling(&self, world: &World, standby: Option<&Postgres>) -> Filling {
        let read = match self.reads {
            Reads::Primary | Reads::Standby => &world.postgres,
            Reads::StandbyUnasked | Reads::StandbyAskedLate => standby.expect("a standby"),
        };
        Filling {
            config: world.config.clone(),
            settings: world.settings.clone(),
            redis: world.redis.url_db(1),
            postgres: read.url(),
            fillers: 5,
            pause: self.pause,
            lease: self.lease,
            by_lease: !self.without_leases,
            max_staleness: self.max_staleness,
            reads: self.reads,
        }
    }

    /// One step of what disturbs.
    async fn disturb(
        &self,
        world: &World,
        standby: Option<&Postgres>,
        process: &Process,
        daemon: &mut Daemon,
        acks: &Acks,
    ) {
        match self.disturbance {
            Disturbance::None => {}
            Disturbance::PauseReplay => {
                let standby = standby.expect("a standby");
                standby.execute("select pg_wal_replay_pause()").await.unwrap();
                tokio::time::sleep(Duration::from_millis(fastrand::u64(20..400))).await;
                standby.execute("select pg_wal_replay_resume()").await.unwrap();
            }
            Disturbance::StopFillers => {
                process.signal(Signal::STOP);
                tokio::time::sleep(self.lease * 3).await;
                process.signal(Signal::CONT);
            }
            Disturbance::DropWholeCaches => {
                Writer::new(world, self, 0, acks.clone()).await.truncate().await;
            }
            Disturbance::KillDaemon => {
                daemon.child.kill().await.unwrap();
                *daemon = self.daemon(world);
                daemon.until_ready().await;
            }
            Disturbance::LoseRedis => {
                world.redis.kill9().await.unwrap();
                world.redis.start_again().await.unwrap();
                until("the state to be valid", async || {
                    (world.state("valid").await? == "1").then_some(())
                })
                .await;
                // Something worth restoring must be there.
                tokio::time::sleep(Duration::from_millis(300)).await;
                let dump = world.redis.save_dump().await.unwrap();
                // It must have become stale: until a step was done since, it is the present,
                // and nothing is broken by restoring it.
                let nonce = world.state("nonce").await;
                until("another step", async || {
                    (world.state("nonce").await? != *nonce.as_ref()?).then_some(())
                })
                .await;
                tokio::time::sleep(Duration::from_millis(300)).await;
                let broken = async || daemon.metric(CHAIN_BROKEN).await;
                let before = broken().await;
                world.redis.restore_dump(&dump).await.unwrap();
                // The daemon may pause between two tries to connect. If Redis were killed again
                // before it looked, it would never see what was restored.
                until("what was restored to be noticed", async || {
                    (broken().await > before).then_some(())
                })
                .await;
            }
        }
    }
}

/// Where the load goes: a row or a group of rows.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    pub cache: &'static str,
    pub number: u32,
}

impl Target {
    pub fn any() -> Target {
        match fastrand::u32(0..24) {
            number @ 0..4 => Target { cache: "grp", number },
            number => Target { cache: "item", number: number - 3 },
        }
    }

    /// What `key` in Redis is of.
    pub fn of(key: &str) -> Option<Target> {
        let (cache, number) = key.strip_prefix("proof:")?.split_once(':')?;
        let cache = if cache == "grp" { "grp" } else { "item" };
        Some(Target { cache, number: number.parse().ok()? })
    }

    pub fn key(self) -> String {
        format!("proof:{}:{}", self.cache, self.number)
    }

    /// The same as the cache's query.
    pub fn query(self) -> String {
        let mut sql = String::from("select jsonb_object_agg(id::text, version)::text from item");
        let column = if self.cache == "grp" { "grp" } else { "id" };
        write!(sql, " where {column} = {} having count(*) > 0", self.number).unwrap();
        sql
    }
}

/// Sends what is left to see.
pub type Sink = mpsc::UnboundedSender<Seen>;
