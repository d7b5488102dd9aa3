//! The servers, the ways to them, and the daemon of the moment.

use std::os::unix::process::ExitStatusExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use unstale::pipeline::points::Point;
use unstale::postgres::announce;
use unstale::sandbox::{Postgres, Proxy, Redis};

use crate::audit;
use crate::ledger::Ledger;
use crate::schedule::Place;
use crate::support::api::{Client, Site};
use crate::support::points::Points;
use crate::support::standby::follow;
use crate::support::stop::Stop;
use crate::support::{Daemon, PATIENCE, World, free_port, root};
use crate::what::Part;

/// After everything is mended: longer than any pause of the daemon's, on a machine that is busy
/// with other things, too.
const RECOVERY: Duration = PATIENCE.saturating_mul(4);

const SIGKILL: i32 = 9;

/// How long the server waits for a sign of life.
const SILENCE: &str = "5s";

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

pub struct Stage {
    pub world: World,
    pub standby: Option<Postgres>,
    /// The standby has taken over.
    promoted: AtomicBool,
    pub to_redis: Proxy,
    pub to_postgres: Proxy,
    pub points: Points,
    pub daemon: Mutex<Daemon>,
    pub ledger: Ledger,
    /// In the order of [`Part::ALL`]: held by the fault that occupies it.
    pub parts: [Mutex<()>; Part::ALL.len()],
    pub writing: Stop,
    pub reading: Stop,
    /// Nobody waits until the WAL is written.
    pub hasty: Stop,
    /// Where the daemon of the moment serves.
    api: AtomicU16,
    without_gate: bool,
}

impl Stage {
    pub async fn new(place: Place, without_gate: bool) -> Arc<Stage> {
        let postgres = Postgres::builder()
            .setting("max_prepared_transactions", 20)
            .setting("logical_decoding_work_mem", "64kB")
            // What nobody waits for stays unwritten.
            .setting("wal_writer_delay", "10s")
            .start();
        let redis = if place.appends {
            Redis::builder().setting("appendonly", "yes").start()
        } else {
            Redis::builder().start()
        };
        let (postgres, redis) = tokio::try_join!(postgres, redis).unwrap();
        let mut world = World::with(postgres, redis).await;
        world.postgres.execute(ITEM_TABLE).await.unwrap();
        if place.announced {
            world.postgres.execute(announce::CREATE).await.unwrap();
        }
        world.reconfigure(|toml| toml + ITEMS);
        let mut standby = None;
        if let Some(commit) = place.standby {
            let started = follow(&world.postgres, Duration::ZERO, Some(commit)).await;
            world.set(&format!("postgres.replica_url={}", started.url()));
            standby = Some(started);
        }
        // Not before: who copies a server on a busy machine may be silent for that long.
        world.postgres.set("wal_sender_timeout", SILENCE).await.unwrap();
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
            "api.access_log=all",
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
            promoted: AtomicBool::new(false),
            to_redis,
            to_postgres,
            points,
            daemon: Mutex::new(daemon),
            ledger: Ledger::new(place.announced),
            parts: Default::default(),
            writing: Stop::default(),
            reading: Stop::default(),
            hasty: Stop::default(),
            api,
            without_gate,
        })
    }

    /// Who is written to, by now.
    pub fn primary(&self) -> &Postgres {
        match &self.standby {
            Some(standby) if self.promoted.load(Ordering::Relaxed) => standby,
            _ => &self.world.postgres,
        }
    }

    /// As long as it is one.
    pub fn standby(&self) -> Option<&Postgres> {
        self.standby.as_ref().filter(|_| !self.promoted.load(Ordering::Relaxed))
    }

    /// The primary is dead. Whoever asks for it from here on is led to the standby.
    pub async fn take_over(&self) {
        let Some(standby) = self.standby() else { return };
        standby.promote().await.unwrap();
        standby.set("wal_sender_timeout", SILENCE).await.unwrap();
        self.promoted.store(true, Ordering::Relaxed);
        self.to_postgres.redirect(standby.address());
        self.to_postgres.cut();
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
            for (reason, count) in audit::gaps(&daemon.log()) {
                *tally.gaps.entry(reason).or_default() += count;
            }
        });
    }

    /// Everything runs and can be reached.
    pub async fn mend(&self) {
        self.to_redis.resume().await;
        self.to_postgres.resume().await;
        self.world.redis.resume();
        self.primary().resume();
        if self.world.redis.pid().is_none() {
            self.world.redis.start_again().await.unwrap();
        }
        if self.primary().pid().is_none() {
            self.primary().start_again().await.unwrap();
        }
    }

    /// Waits until the daemon of the moment is ready.
    pub async fn until_ready(&self) {
        self.daemon.lock().await.until_ready().await;
    }

    /// Waits until the daemon has recovered and has applied everything.
    pub async fn settle(&self) {
        let mut daemon = self.daemon.lock().await;
        let committed = World::committed(self.primary()).await;
        let start = Instant::now();
        loop {
            self.look_at(&mut daemon, false);
            let readiness = daemon.readyz().await;
            let settled =
                readiness.as_ref().is_some_and(|r| r["ready"] == true && r["suspects"] == 0)
                    && self.world.has_applied(committed).await;
            if settled || daemon.child.try_wait().unwrap().is_some() {
                return;
            }
            if start.elapsed() > RECOVERY {
                let servers = self.servers().await;
                panic!(
                    "the daemon has not applied {committed}: {readiness:?}\n{servers}\n{}",
                    daemon.log()
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What the servers say of themselves.
    async fn servers(&self) -> String {
        let state: Result<Vec<String>, _> = redis::cmd("HGETALL")
            .arg("unstale:unstale:state")
            .query_async(&mut self.world.values().await)
            .await;
        let mut said = format!("{state:?}");
        for view in
            ["pg_replication_slots", "pg_stat_replication", "pg_stat_activity", "pg_prepared_xacts"]
        {
            let sql = format!(
                "select coalesce(string_agg(to_jsonb(v)::text, chr(10)), 'none') from {view} v"
            );
            said += &format!("\n{view}: {}", World::ask(self.primary(), &sql).await);
        }
        said
    }
}

fn start(world: &World, without_gate: bool, elsewhere: Option<(u16, u16)>) -> Daemon {
    let mut command = world.run_without(without_gate.then_some("gate"));
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
