//! `unstale run`, as a process of its own, and what it takes.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use unstale::lsn::Lsn;
use unstale::sandbox::{peak_rss_bytes, rss_bytes};

use super::ground::Ground;
use super::http::Connection;
use super::machine::cpu_seconds;
use super::{PATIENCE, progress, root};

pub struct Daemon {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
    slot: String,
    config: PathBuf,
    settings: Vec<String>,
    redis: MultiplexedConnection,
    pub started: Instant,
    pub admin: u16,
}

/// A port that nobody listens on now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port()
}

/// The program, with this configuration but for these settings.
fn unstale(subcommand: &str, config: &Path, settings: &[String]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_unstale"));
    command
        .arg(subcommand)
        .arg("--config")
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true);
    for setting in settings {
        command.args(["--set", setting]);
    }
    command
}

impl Daemon {
    /// With the default configuration but for these settings. It does not warm: that would
    /// load from the very server that sends the stream, at its own pace.
    pub async fn start(ground: &Ground, slot: &str, settings: &[String]) -> Daemon {
        let config = root().join("config/unstale.toml");
        Daemon::with(ground, slot, config, settings).await
    }

    /// The same with another configuration.
    pub async fn with(ground: &Ground, slot: &str, config: PathBuf, settings: &[String]) -> Daemon {
        let redis = ground.redis.connection_db(1).await.expect("Redis answers");
        let admin = free_port();
        let mut all = vec![
            format!("postgres.url={}", ground.postgres.url()),
            format!("redis.url={}", ground.redis.url_db(1)),
            format!("postgres.slot={slot}"),
            format!("admin.listen=127.0.0.1:{admin}"),
            "warm.enabled=false".to_owned(),
        ];
        all.extend_from_slice(settings);
        let started = Instant::now();
        let mut command = unstale("run", &config, &all);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the daemon starts");
        let log = BufReader::new(child.stderr.take().expect("its log")).lines();
        Daemon { child, log, slot: slot.to_owned(), config, settings: all, redis, started, admin }
    }

    pub fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// When it says that it streams.
    pub async fn until_streaming(&mut self) -> Instant {
        let mut seen = String::new();
        let waiting = async {
            while let Ok(Some(line)) = self.log.next_line().await {
                if line.contains("streaming") {
                    return Some(Instant::now());
                }
                seen.push_str(&line);
                seen.push('\n');
            }
            None
        };
        let streaming = tokio::time::timeout(PATIENCE, waiting).await.ok().flatten();
        streaming.unwrap_or_else(|| panic!("the daemon does not stream:\n{seen}"))
    }

    /// When it says that the cache can be trusted and changes flow.
    pub async fn until_ready(&self) {
        let begun = Instant::now();
        while Connection::open(self.admin).is_none_or(|mut c| c.get("/readyz", None).status != 200)
        {
            assert!(begun.elapsed() < PATIENCE, "the daemon does not become ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// When Redis holds a watermark at or past `end`.
    pub async fn until_applied(&mut self, end: Lsn) -> Instant {
        let key = format!("unstale:{}:state", self.slot);
        let waiting = Instant::now();
        while waiting.elapsed() < PATIENCE {
            let watermark: Option<String> =
                self.redis.hget(&key, "watermark").await.expect("Redis answers");
            if watermark.and_then(|lsn| lsn.parse::<Lsn>().ok()).is_some_and(|lsn| lsn >= end) {
                return Instant::now();
            }
            // Often enough for what takes seconds, and no load worth the name.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("the daemon did not reach {end}")
    }

    /// Compares every entry that is cached with the database: a benchmark that measured stale
    /// values has measured nothing.
    pub async fn verify(&self) {
        progress("comparing what is cached with the database");
        let mut command = unstale("verify", &self.config, &self.settings);
        let run = command.arg("--all").stderr(Stdio::inherit()).status();
        let status = tokio::time::timeout(PATIENCE, run).await.expect("verify ends in time");
        assert!(status.expect("verify starts").success(), "verify found what is wrong");
    }

    /// How many entries differ from the database, of all that are cached.
    pub async fn stale(&self) -> u64 {
        let mut command = unstale("verify", &self.config, &self.settings);
        let run = command.args(["--all", "--json"]).stdout(Stdio::piped()).output();
        let output = tokio::time::timeout(PATIENCE, run).await.expect("verify ends in time");
        let found = output.expect("verify starts").stdout;
        let found: serde_json::Value = serde_json::from_slice(&found).expect("what verify found");
        let keys = found["stale_keys"].as_array().expect("the keys that are stale");
        u64::try_from(keys.len()).expect("it fits")
    }

    /// `unstale invalidate` of a cache.
    pub async fn invalidate(&self, cache: &str) {
        let mut command = unstale("invalidate", &self.config, &self.settings);
        let run = command.args(["--cache-type", cache]).stderr(Stdio::inherit()).status();
        let status = tokio::time::timeout(PATIENCE, run).await.expect("invalidate ends in time");
        assert!(status.expect("invalidate starts").success(), "invalidate failed");
    }

    pub fn rss(&self) -> u64 {
        rss_bytes(self.pid()).expect("it runs")
    }

    pub fn peak_rss(&self) -> u64 {
        peak_rss_bytes(self.pid()).expect("it runs")
    }

    /// User and system time since its start, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        cpu_seconds(self.pid())
    }

    pub async fn stop(mut self) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).expect("a pid");
        kill_process(pid, Signal::TERM).expect("it runs");
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let status = status.expect("it ends in time").expect("an exit status");
        assert!(status.success(), "the daemon ended with {status}");
    }
}

/// Maintenance would take away what a benchmark caches beside the protocol.
pub const NO_SCHEDULE: &str = "schedule=[]";

/// Where its log goes if nobody reads it: the cost of writing it stays.
pub fn log_to(folder: &Path) -> String {
    format!("log.file={}", folder.join("unstale.log").display())
}
