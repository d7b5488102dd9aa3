//! Doing what the schedule says. What cannot be done just then (a server that is being asked
//! has gone meanwhile, through another fault) is left: the schedule says what is tried.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use unstale::pipeline::points::Point;
use unstale::sandbox::{Proxy, Shutdown};

use crate::schedule::{Act, Fault, Part, Trouble, Way, What};
use crate::stage::Stage;

/// How much later a chunk of bytes comes on a slow way.
const SLOW: Duration = Duration::from_millis(40);

/// At most, on a slow machine.
const STARTS: Duration = Duration::from_secs(20);

const OFTEN: Duration = Duration::from_millis(20);

/// What a file of the walsender may hold while the disk is full.
const FULL_AT: &str = "--fsize=64:64";

const WALSENDER: &str =
    "select active_pid::text from pg_replication_slots where slot_name = 'unstale' and active";

impl Stage {
    /// Plays an act: each fault at its time, beside the others.
    pub async fn play(&self, act: &Act) {
        let faults = act.faults.iter().map(|fault| async move {
            tokio::time::sleep(fault.at).await;
            self.inflict(fault).await;
        });
        let whole = tokio::time::sleep(crate::schedule::ACT);
        tokio::join!(futures_util::future::join_all(faults), whole);
        self.mend().await;
    }

    /// On a slow machine the one before may still be under way, against the schedule.
    async fn inflict(&self, fault: &Fault) {
        let mut occupied = Vec::new();
        for part in fault.what.occupies() {
            let index = Part::ALL.iter().position(|other| other == part).unwrap();
            occupied.push(self.parts[index].lock().await);
        }
        let Fault { lasts, what, .. } = *fault;
        let (redis, postgres) = (&self.world.redis, &self.world.postgres);
        match what {
            What::DaemonKilled => self.kill_daemon(None).await,
            What::DaemonRestarted => self.restart_daemon().await,
            What::DaemonFrozen => {
                let daemon = self.daemon.lock().await;
                daemon.signal("STOP");
                tokio::time::sleep(lasts).await;
                daemon.signal("CONT");
            }
            What::DaemonKilledAt(point) => self.kill_daemon_at(point, lasts).await,
            What::DaemonReplaced => self.replace_daemon(lasts).await,
            What::RedisFrozen => {
                redis.pause().await;
                tokio::time::sleep(lasts).await;
                redis.resume();
            }
            What::RedisKilled => {
                redis.kill9().await.unwrap();
                tokio::time::sleep(lasts).await;
                redis.start_again().await.unwrap();
            }
            What::RedisRestarted => redis.restart().await.unwrap(),
            What::RedisRestored => {
                let dump = redis.save_dump().await.unwrap();
                tokio::time::sleep(lasts).await;
                redis.restore_dump(&dump).await.unwrap();
            }
            What::RedisFlushed => self.redis(&["FLUSHALL"]).await,
            What::StateDeleted => self.redis(&["DEL", "unstale:unstale:state"]).await,
            What::ScriptsForgotten => self.redis(&["SCRIPT", "FLUSH", "SYNC"]).await,
            What::ClientsKilled => {
                self.redis(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await
            }
            What::RedisFull => {
                self.redis(&["CONFIG", "SET", "maxmemory", "1"]).await;
                tokio::time::sleep(lasts).await;
                self.redis(&["CONFIG", "SET", "maxmemory", "0"]).await;
            }
            What::RedisReadOnly => {
                // A port that nobody listens on.
                let port = crate::support::free_port().to_string();
                self.redis(&["REPLICAOF", "127.0.0.1", &port]).await;
                tokio::time::sleep(lasts).await;
                self.redis(&["REPLICAOF", "NO", "ONE"]).await;
            }
            What::Network(way, trouble) => self.trouble(way, trouble, lasts).await,
            What::PostgresFrozen => {
                postgres.pause().await;
                tokio::time::sleep(lasts).await;
                postgres.resume();
            }
            What::PostgresRestarted => postgres.restart(Shutdown::Fast).await.unwrap(),
            What::PostgresCrashed => {
                postgres.kill9().await.unwrap();
                tokio::time::sleep(lasts).await;
                postgres.start_again().await.unwrap();
            }
            What::WalsenderFrozen => {
                if let Some(pid) = self.walsender().await {
                    signal("-STOP", pid);
                    tokio::time::sleep(lasts).await;
                    signal("-CONT", pid);
                }
            }
            What::WalsenderEnded => self.end_walsender().await,
            What::SlotDropped => self.drop_slot(lasts).await,
            What::DiskFull => self.fill_disk(lasts).await,
            What::StandbyFrozen => {
                let standby = self.standby.as_ref().unwrap();
                standby.pause().await;
                tokio::time::sleep(lasts).await;
                standby.resume();
            }
            What::ReplayPaused => {
                let standby = self.standby.as_ref().unwrap();
                standby.execute("select pg_wal_replay_pause()").await.unwrap();
                tokio::time::sleep(lasts).await;
                standby.execute("select pg_wal_replay_resume()").await.unwrap();
            }
        }
    }

    async fn redis(&self, command: &[&str]) {
        let Ok(mut connection) = self.world.redis.connection_db(1).await else { return };
        let mut sent = redis::cmd(command[0]);
        _ = sent.arg(&command[1..]).exec_async(&mut connection).await;
    }

    async fn trouble(&self, way: Way, trouble: Trouble, lasts: Duration) {
        let proxy: &Proxy = match way {
            Way::ToRedis => &self.to_redis,
            Way::ToPostgres => &self.to_postgres,
        };
        match trouble {
            Trouble::Cut => return proxy.cut(),
            Trouble::Slow => proxy.delay(SLOW),
            Trouble::Silent => proxy.pause(),
            Trouble::AnswersLost => proxy.lose_answers(),
            Trouble::Refused => {
                proxy.refuse().await;
                proxy.cut();
            }
        }
        tokio::time::sleep(lasts).await;
        if trouble == Trouble::AnswersLost {
            proxy.cut();
        }
        proxy.resume().await;
    }

    async fn restart_daemon(&self) {
        let mut daemon = self.daemon.lock().await;
        // Before it listens for signals, this one ends it as it ends any program.
        let start = Instant::now();
        while daemon.get("/healthz").await.is_none() && start.elapsed() < STARTS {
            tokio::time::sleep(OFTEN).await;
        }
        tokio::time::sleep(OFTEN).await;
        self.look_at(&mut daemon, false);
        daemon.signal("TERM");
        let ended = tokio::time::timeout(Duration::from_secs(20), daemon.child.wait()).await;
        let status = ended.expect("it ends within pipeline.drain_timeout").unwrap();
        if !status.success() {
            let wrong = format!("SIGTERM ended it with {status}\n{}", daemon.log());
            self.ledger.note(|tally| tally.other.push(wrong));
        }
        self.replace(&mut daemon, self.start());
    }

    /// Sees to it that the point comes, and starts another one when it has killed.
    async fn kill_daemon_at(&self, point: Point, lasts: Duration) {
        let start = Instant::now();
        self.points.kill(point);
        match point {
            Point::SlotCreated => self.drop_slot(lasts / 2).await,
            Point::SlotTaken | Point::Claimed => self.end_walsender().await,
            Point::Declared | Point::Purged => self.redis(&["DEL", "unstale:unstale:state"]).await,
            Point::Closed => self.truncate().await,
            Point::Admitted
            | Point::Step
            | Point::BetweenSteps
            | Point::Applied
            | Point::Report => {}
        }
        while !self.points.is_reached(point) && start.elapsed() < lasts {
            tokio::time::sleep(OFTEN).await;
        }
        if self.points.is_reached(point) {
            self.ledger.count("killed_at_points");
            tokio::time::sleep(OFTEN).await;
        }
        self.kill_daemon(Some(point)).await;
        self.points.go_on(point);
    }

    /// A mapped table that nothing refers to.
    async fn truncate(&self) {
        let Ok(client) = self.world.postgres.client().await else { return };
        let sql = "set lock_timeout = '1s'; truncate permissions_role_permissions";
        _ = client.batch_execute(sql).await;
    }

    async fn replace_daemon(&self, lasts: Duration) {
        let mut daemon = self.daemon.lock().await;
        let (second, port) = self.start_another();
        tokio::time::sleep(lasts).await;
        self.look_at(&mut daemon, false);
        _ = daemon.child.kill().await;
        self.replace(&mut daemon, second);
        self.serves_at(port);
    }

    async fn walsender(&self) -> Option<i32> {
        self.answer(WALSENDER).await?.parse().ok()
    }

    /// One text from the database, if it answers.
    async fn answer(&self, sql: &str) -> Option<String> {
        let client = self.world.postgres.client().await.ok()?;
        let rows = client.query(sql, &[]).await.ok()?;
        rows.first()?.try_get(0).ok()
    }

    async fn end_walsender(&self) {
        if let Some(pid) = self.walsender().await {
            _ = self.answer(&format!("select pg_terminate_backend({pid}, 1000)::text")).await;
        }
    }

    /// The daemon may be back before the slot can be dropped.
    async fn drop_slot(&self, lasts: Duration) {
        let start = Instant::now();
        while start.elapsed() < lasts {
            self.end_walsender().await;
            let drop = "select pg_drop_replication_slot('unstale')";
            if self.world.postgres.execute(drop).await.is_ok() {
                return self.ledger.count("slots_dropped");
            }
        }
    }

    /// No file system of a bounded size is to be had everywhere. So the kernel bounds the files
    /// of the process that serves the slot (`RLIMIT_FSIZE`): what it spills and what it saves of
    /// the slot ends in a short write, which Postgres reports as a full disk (53100).
    async fn fill_disk(&self, lasts: Duration) {
        let start = Instant::now();
        let mut bounded = None;
        while start.elapsed() < lasts {
            let pid = self.walsender().await;
            if pid != bounded
                && let Some(pid) = pid
                && let Ok(process) = std::fs::metadata(format!("/proc/{pid}"))
            {
                // As the server's own account, which may always bound itself.
                let mut command = Command::new("prlimit");
                command.arg("--pid").arg(pid.to_string()).arg(FULL_AT);
                command.gid(process.gid()).uid(process.uid());
                if command.output().is_ok_and(|output| output.status.success()) {
                    self.ledger.count("disks_filled");
                }
                bounded = Some(pid);
            }
            tokio::time::sleep(OFTEN).await;
        }
        // Whoever is bounded stays so: the next one is not.
        self.end_walsender().await;
    }
}

fn signal(signal: &str, pid: i32) {
    _ = Command::new("kill").args([signal, &pid.to_string()]).status();
}
