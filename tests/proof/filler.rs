//! Who fills the cache: by the library's leases, with a pause wherever something can come in
//! between.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use redis::{AsyncCommands, RedisError};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};
use unstale::config::{Loaded, Override};
use unstale::loader::load::{Bounds, Loader};
use unstale::loader::replica::Replica;
use unstale::loader::standby::Needed;
use unstale::lsn::Lsn;
use unstale::metrics::Metrics;
use unstale::rules::Rules;
use unstale::servers::{connect_options, replica_options};
use unstale::store::fills::{Acquired, Due, Entry, Filled, Fills, Lease};
use unstale::store::keys::ControlKeys;
use unstale::store::session::Address;

use crate::case::{Sink, Target};
use crate::oracle::{Claim, Seen};
use crate::reader::Values;
use crate::support::stop::Stop;

const LIFE: Duration = Duration::from_secs(3600);

/// What a process of fillers is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Filling {
    pub config: PathBuf,
    pub settings: Vec<String>,
    pub redis: String,
    pub postgres: String,
    pub fillers: usize,
    pub pause: Duration,
    pub lease: Duration,
    pub by_lease: bool,
    pub max_staleness: Option<Duration>,
    pub reads: Reads,
}

/// Which server the fillers read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reads {
    Primary,
    /// The standby where the library reads it, else the primary.
    Standby,
    /// The standby, whatever it has replayed: rule 5 broken.
    StandbyUnasked,
    /// The standby on a snapshot that is older than the question what it has replayed: rule
    /// 5 broken as well.
    StandbyAskedLate,
}

/// How one attempt went.
#[derive(Debug, Serialize, Deserialize)]
pub enum Attempt {
    /// It was there.
    Hit,
    /// It is in the cache now. `overdue`: although its lease had ended.
    /// `standby`: the value is from there.
    Stored { claim: Claim, overdue: bool, standby: bool },
    /// Refused: a change was applied since the lease.
    Voided,
    /// Refused: the lease had ended.
    Expired,
    /// Another has the lease.
    Waited,
    /// No lease is given now.
    Closed,
    /// There is no such row; the lease was given back.
    Nothing,
    /// The filler forgot about it.
    Abandoned,
    /// Redis did not answer.
    Failed,
}

/// Starts fillers, each with connections of its own.
pub fn start(task: &Filling, seen: &Sink, stop: &Stop) -> JoinSet<()> {
    let mut fillers = JoinSet::new();
    for _ in 0..task.fillers {
        let (task, seen, stop) = (task.clone(), seen.clone(), stop.clone());
        fillers.spawn(async move {
            let mut filler = Filler::new(task).await;
            while !stop.is_set() {
                let attempt = filler.attempt(Target::any()).await;
                if matches!(attempt, Attempt::Failed) {
                    filler.values.forget();
                }
                drop(seen.send(Seen::Attempt(attempt)));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
    }
    fillers
}

/// The library's way to the value, with the replica of the configuration.
fn loader(loaded: &Loaded) -> (Metrics, Loader) {
    let config = &loaded.config;
    let (metrics, rules) = (Metrics::new().unwrap(), Rules::compile(loaded).unwrap());
    let bounds = Bounds { connections: 1, statement_timeout: LIFE, wait: LIFE };
    let replica = replica_options(config).unwrap().expect("a replica");
    let replica = Replica::new(replica, Bounds::of_replica(1, &config.postgres), &metrics);
    let loader = Loader::new(&rules, connect_options(config).unwrap(), bounds).unwrap();
    (metrics, loader.with_replica(Some(replica)))
}

struct Filler {
    task: Filling,
    fills: Fills,
    values: Values,
    database: Client,
    /// Where the library does the reading: what it counts, and it.
    loader: Option<(Metrics, Loader)>,
}

impl Filler {
    async fn new(task: Filling) -> Filler {
        let overrides: Vec<Override> = task.settings.iter().map(|s| s.parse().unwrap()).collect();
        let loaded = unstale::config::load(Some(&task.config), &overrides).unwrap();
        let address = Address::new(&loaded.config.redis).unwrap();
        let (database, connection) = tokio_postgres::connect(&task.postgres, NoTls).await.unwrap();
        tokio::spawn(connection);
        let loader = (task.reads == Reads::Standby).then(|| loader(&loaded));
        Filler {
            loader,
            fills: Fills::new(address, ControlKeys::new("unstale")),
            values: Values::new(task.redis.clone()),
            database,
            task,
        }
    }

    async fn attempt(&mut self, target: Target) -> Attempt {
        if !self.task.by_lease {
            return self.set(target).await.unwrap_or(Attempt::Failed);
        }
        let entry =
            Entry { key: target.key().into_bytes(), cache: target.cache.to_owned(), scope: None };
        // Of a key that is refreshed, a change after the lease may be missing.
        let Ok(before) = self.values.watermark().await else { return Attempt::Failed };
        // Half of them refresh what the daemon refreshes, too.
        if let Some(stays) = self.task.max_staleness.filter(|_| fastrand::bool()) {
            return match self.fills.refresh(&entry, self.task.lease, stays).await {
                Ok(Due::Fresh) => Attempt::Hit,
                Ok(Due::Wait) => Attempt::Waited,
                Ok(Due::Closed) => Attempt::Closed,
                Ok(Due::Lease(lease)) => self.fill(target, lease, before).await,
                Err(_) => Attempt::Failed,
            };
        }
        match self.fills.acquire(&entry, self.task.lease).await {
            Ok(Acquired::Hit { .. }) => Attempt::Hit,
            Ok(Acquired::Wait { .. }) => Attempt::Waited,
            Ok(Acquired::Closed) => Attempt::Closed,
            Ok(Acquired::Lease(lease)) => self.fill(target, lease, before).await,
            Err(_) => Attempt::Failed,
        }
    }

    async fn fill(&mut self, target: Target, lease: Lease, before: Lsn) -> Attempt {
        let since = Instant::now();
        self.pause().await;
        let (value, standby) = self.load_leased(target, &lease).await;
        self.pause().await;
        if fastrand::u32(0..100) == 0 {
            return Attempt::Abandoned;
        }
        let Some(value) = value else {
            return lease.release().await.map_or(Attempt::Failed, |()| Attempt::Nothing);
        };
        let Ok(now) = self.values.watermark().await else { return Attempt::Failed };
        let watermark = if self.task.max_staleness.is_some() { before } else { now };
        // Redis looks at its clock once for each round of commands.
        let overdue = since.elapsed() > self.task.lease + Duration::from_millis(20);
        match lease.fill(value.as_bytes(), LIFE).await {
            Ok(Filled::Stored) => Attempt::Stored {
                claim: Claim { key: target.key(), value, watermark: watermark.to_string() },
                overdue,
                standby,
            },
            Ok(Filled::Voided) if since.elapsed() >= self.task.lease => Attempt::Expired,
            Ok(Filled::Voided) => Attempt::Voided,
            Err(_) => Attempt::Failed,
        }
    }

    /// What applications do that know no leases.
    async fn set(&mut self, target: Target) -> Result<Attempt, RedisError> {
        if self.values.connection().await?.exists(target.key()).await? {
            return Ok(Attempt::Hit);
        }
        let Some(value) = self.load(target).await else { return Ok(Attempt::Nothing) };
        self.pause().await;
        let watermark = self.values.watermark().await?.to_string();
        let connection = self.values.connection().await?;
        let _: () = connection.set_ex(target.key(), &value, LIFE.as_secs()).await?;
        let claim = Claim { key: target.key(), value, watermark };
        Ok(Attempt::Stored { claim, overdue: false, standby: false })
    }

    /// Reads a value to store under the lease, and says whether a standby gave it.
    async fn load_leased(&self, target: Target, lease: &Lease) -> (Option<String>, bool) {
        match (self.task.reads, &self.loader) {
            (Reads::Standby, Some((metrics, loader))) => {
                let needed = Needed {
                    frontier: lease.frontier,
                    system_id: &lease.system_id,
                    timeline: lease.timeline,
                    day_ends: None,
                };
                let read = metrics.replica_reads.with_label_values(&["replica"]);
                let before = read.get();
                let number = target.number.to_string();
                let name = if target.cache == "grp" { "grp" } else { "id" };
                let value = loader.load_leased(target.cache, &[(name, &number)], &needed).await;
                let value = value.expect("a value").map(|text| String::from_utf8(text).unwrap());
                (value, read.get() > before)
            }
            (Reads::StandbyAskedLate, _) => (self.load_asked_late(target, lease).await, true),
            (reads, _) => (self.load(target).await, reads == Reads::StandbyUnasked),
        }
    }

    /// First the snapshot, then the question, then the value.
    async fn load_asked_late(&self, target: Target, lease: &Lease) -> Option<String> {
        let begin = "begin isolation level repeatable read read only; select 1";
        self.database.simple_query(begin).await.expect("a snapshot");
        let ask = format!("select 1 where pg_last_wal_replay_lsn() >= '{}'", lease.frontier);
        for _ in 0..500 {
            let answer = self.database.simple_query(&ask).await.expect("an answer");
            if answer.iter().any(|message| matches!(message, SimpleQueryMessage::Row(_))) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let value = self.query(target).await;
        self.database.simple_query("commit").await.expect("an end");
        value
    }

    /// Reads the database, by a statement or by a transaction that has its snapshot for a
    /// while before it reads.
    async fn load(&self, target: Target) -> Option<String> {
        let transaction = fastrand::u32(0..4) == 0;
        if transaction {
            let begin = "begin isolation level repeatable read read only; select 1";
            self.database.simple_query(begin).await.expect("a snapshot");
            self.pause().await;
        }
        let value = self.query(target).await;
        if transaction {
            self.database.simple_query("commit").await.expect("an end");
        }
        value
    }

    async fn query(&self, target: Target) -> Option<String> {
        let answer = self.database.simple_query(&target.query()).await.expect("a value");
        answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        })
    }

    /// Mostly none, often short, now and then long.
    async fn pause(&self) {
        let most = match fastrand::u32(0..8) {
            0..4 => return,
            4..7 => self.task.pause / 8,
            _ => self.task.pause,
        };
        tokio::time::sleep(most.mul_f64(fastrand::f64())).await;
    }
}
