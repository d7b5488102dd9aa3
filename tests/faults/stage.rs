//! The servers, the ways to them, and the daemon of the moment.

use std::os::unix::process::ExitStatusExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use unstale::config::TEST_WITHOUT;
use unstale::pipeline::points::Point;
use unstale::sandbox::{Postgres, Proxy, Redis};

use crate::ledger::Ledger;
use crate::rest;
use crate::schedule::{Part, Place};
use crate::support::api::{Client, Site};
use crate::support::points::Points;
use crate::support::{Daemon, World, free_port, root};

/// After everything is mended: longer than any pause of the daemon's.
const RECOVERY: Duration = Duration::from_secs(60);

const SIGKILL: i32 = 9;

/// How many numbered rows there are whose versions are followed.
pub const ROWS: u32 = 24;

/// What the default configuration does not have: rows that are numbered and have versions. Now
/// and then a load takes its time after its snapshot, and the row changes meanwhile.
const ITEMS: &str = r#"
[caches.item]
key = "v1:item:{id}"
query = """select to_jsonb(version) from item cross join
    (select pg_sleep(case when random() < 0.3 then random() * 0.2 else 0 end)) as slow where id = $id"""
ttl = "1h"
rewarm = "if_cached"

[[tables]]
name = "item"
invalidates = [{ cache = "item", id = "id" }]

[[endpoints]]
path = "/items/{id}/"
cache = "item"
envelope = "item"
who = "anyone"
parameters = { id = { path = "id", type = "integer" } }
"#;

const ITEM_TABLE: &str = "
create table item (id int primary key, version bigint not null);
alter table item replica identity full;
insert into item select i, 1 from generate_series(1, 2000) i;
alter publication unstale add table item;
";

/// Told to stop, or not yet.
#[derive(Default)]
pub struct Stop(AtomicBool);

impl Stop {
    pub fn set(&self, stop: bool) {
        self.0.store(stop, Ordering::Relaxed);
    }

    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

pub struct Stage {
    pub world: World,
    pub standby: Option<Postgres>,
    pub to_redis: Proxy,
    pub to_postgres: Proxy,
    pub points: Points,
    pub daemon: Mutex<Daemon>,
    pub ledger: Ledger,
    /// In the order of [`Part::ALL`]: held by the fault that occupies it.
    pub parts: [Mutex<()>; Part::ALL.len()],
    pub writing: Stop,
    pub reading: Stop,
    /// Where the daemon of the moment serves.
    api: AtomicU16,
    without_gate: bool,
}

impl Stage {
    pub async fn new(place: Place, without_gate: bool) -> Arc<Stage> {
        let postgres = Postgres::builder()
            .setting("max_prepared_transactions", 20)
            .setting("logical_decoding_work_mem", "64kB")
            .setting("wal_sender_timeout", "5s")
            .start();
        let redis = if place.appends {
            Redis::builder().setting("appendonly", "yes").start()
        } else {
            Redis::builder().start()
        };
        let (postgres, redis) = tokio::try_join!(postgres, redis).unwrap();
        let mut world = World::with(postgres, redis).await;
        world.postgres.execute(ITEM_TABLE).await.unwrap();
        world.reconfigure(|toml| toml + ITEMS);
        let mut standby = None;
        if let Some(commit) = place.standby {
            let started = world.postgres.standby().start().await.unwrap();
            world.postgres.set("synchronous_commit", commit).await.unwrap();
            world.postgres.set("synchronous_standby_names", "standby").await.unwrap();
            world.set(&format!("postgres.replica_url={}", started.url()));
            standby = Some(started);
        }
        let (to_redis, to_postgres) = (world.redis_proxy().await, world.postgres_proxy().await);
        let points = world.points();
        for setting in [
            "redis.timeout=700ms",
            "postgres.statement_timeout=3s",
            "pipeline.max_keys_per_script=10",
            "pipeline.max_keys_per_transaction=2000",
            "warm.enabled=true",
            "warm.after_gap=true",
            "audit.per_second=50",
            "api.access_log=off",
        ] {
            world.set(setting);
        }
        world.set(&format!("postgres.streaming={}", if place.streaming { "on" } else { "off" }));
        let Site { world, client } = Site::of(world);
        let api = AtomicU16::new(client.port);
        let daemon = start(&world, without_gate, None);
        daemon.until_ready().await;
        Arc::new(Stage {
            world,
            standby,
            to_redis,
            to_postgres,
            points,
            daemon: Mutex::new(daemon),
            ledger: Ledger::default(),
            parts: Default::default(),
            writing: Stop::default(),
            reading: Stop::default(),
            api,
            without_gate,
        })
    }

    /// Whom to ask.
    pub fn api(&self) -> Client {
        Client { port: self.api.load(Ordering::Relaxed) }
    }

    /// A new daemon in place of one that has gone.
    pub fn start(&self) -> Daemon {
        start(&self.world, self.without_gate, None)
    }

    /// Another one beside the one that runs; it serves elsewhere.
    pub fn start_another(&self) -> (Daemon, u16) {
        let port = free_port();
        (start(&self.world, self.without_gate, Some((free_port(), port))), port)
    }

    /// Whoever asks the API from here on asks there.
    pub fn serves_at(&self, port: u16) {
        self.api.store(port, Ordering::Relaxed);
    }

    /// Looks into the log of a daemon that is about to go or has gone, and whether it has gone
    /// by itself.
    pub fn look_at(&self, daemon: &mut Daemon, killed: bool) {
        let log = daemon.log();
        let panicked = log.lines().filter(|line| line.contains("panicked at"));
        let panicked: Vec<_> = panicked.map(str::to_owned).collect();
        let ended = daemon.child.try_wait().unwrap();
        self.ledger.note(|tally| {
            tally.panics.extend(panicked);
            if let Some(status) = ended.filter(|s| !killed || s.signal() != Some(SIGKILL)) {
                tally.other.push(format!("the daemon ended by itself: {status}\n{log}"));
            }
        });
    }

    /// Whoever runs is killed, and another started.
    pub async fn kill_daemon(&self, at: Option<Point>) {
        let mut daemon = self.daemon.lock().await;
        let at_point = at.is_some_and(|point| self.points.is_reached(point));
        self.look_at(&mut daemon, at_point);
        _ = daemon.child.kill().await;
        self.replace(&mut daemon, self.start());
    }

    /// One that has ended makes place.
    pub fn replace(&self, daemon: &mut Daemon, new: Daemon) {
        let gone = std::mem::replace(daemon, new);
        self.count_gaps(&gone);
    }

    /// Counted once a life, at its end.
    pub fn count_gaps(&self, daemon: &Daemon) {
        self.ledger.note(|tally| {
            for (reason, count) in rest::gaps(&daemon.log()) {
                *tally.gaps.entry(reason).or_default() += count;
            }
        });
    }

    /// Everything runs and can be reached.
    pub async fn mend(&self) {
        self.to_redis.resume().await;
        self.to_postgres.resume().await;
        self.world.redis.resume();
        self.world.postgres.resume();
        if self.world.redis.pid().is_none() {
            self.world.redis.start_again().await.unwrap();
        }
        if self.world.postgres.pid().is_none() {
            self.world.postgres.start_again().await.unwrap();
        }
    }

    /// Waits until the daemon has recovered and has applied everything.
    pub async fn settle(&self) {
        let mut daemon = self.daemon.lock().await;
        let start = Instant::now();
        loop {
            self.look_at(&mut daemon, false);
            let readiness = daemon.readyz().await;
            let settled =
                readiness.as_ref().is_some_and(|r| r["ready"] == true && r["suspects"] == 0);
            if settled || daemon.child.try_wait().unwrap().is_some() {
                break;
            }
            assert!(
                start.elapsed() < RECOVERY,
                "the daemon has not recovered: {readiness:?}\n{}",
                daemon.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if daemon.child.try_wait().unwrap().is_none() {
            self.world.settle().await;
        }
    }
}

fn start(world: &World, without_gate: bool, elsewhere: Option<(u16, u16)>) -> Daemon {
    let mut command = world.command("run");
    command.env_remove(TEST_WITHOUT);
    if without_gate {
        command.env(TEST_WITHOUT, "gate");
    }
    let mut admin = world.admin;
    if let Some((other_admin, api)) = elsewhere {
        admin = other_admin;
        command.arg("--set").arg(format!("admin.listen=127.0.0.1:{admin}"));
        command.arg("--set").arg(format!("api.listen=127.0.0.1:{api}"));
    }
    world.spawn_with(command, admin)
}

/// The default configuration as it is: of what the stage adds the rows are known without it.
pub fn default_configuration() -> unstale::config::Loaded {
    unstale::config::load(Some(&root().join("config/unstale.toml")), &[]).unwrap()
}
