//! `unstale run`, as a process of its own, and what it takes.

use std::net::TcpListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use unstale::lsn::Lsn;
use unstale::sandbox::{peak_rss_bytes, rss_bytes};

use super::PATIENCE;
use super::ground::Ground;

pub struct Daemon {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
    slot: String,
    redis: MultiplexedConnection,
    pub started: Instant,
}

impl Daemon {
    pub async fn start(ground: &Ground, slot: &str) -> Daemon {
        let redis = ground.redis.connection_db(1).await.expect("Redis answers");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
        let started = Instant::now();
        let mut command = Command::new(env!("CARGO_BIN_EXE_unstale"));
        command
            .arg("run")
            .args(["--config", concat!(env!("CARGO_MANIFEST_DIR"), "/config/unstale.toml")])
            .arg("--set")
            .arg(format!("postgres.url={}", ground.postgres.url()))
            .arg("--set")
            .arg(format!("redis.url={}", ground.redis.url_db(1)))
            .arg("--set")
            .arg(format!("postgres.slot={slot}"))
            .arg("--set")
            .arg(format!("admin.listen={port}"))
            .args(["--set", "api.enabled=false"])
            // It would load from the very server that sends the backlog, at its own pace.
            .args(["--set", "warm.enabled=false"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().expect("the daemon starts");
        let log = BufReader::new(child.stderr.take().expect("its log")).lines();
        Daemon { child, log, slot: slot.to_owned(), redis, started }
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

    /// When Redis holds a watermark at or past `end`.
    pub async fn until_applied(&mut self, end: Lsn) -> Instant {
        let key = format!("unstale:{}:state", self.slot);
        while self.started.elapsed() < PATIENCE {
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

    pub fn rss(&self) -> u64 {
        rss_bytes(self.pid()).expect("it runs")
    }

    pub fn peak_rss(&self) -> u64 {
        peak_rss_bytes(self.pid()).expect("it runs")
    }

    /// User and system time since its start, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("it runs");
        let fields: Vec<&str> =
            stat.rsplit_once(')').expect("its name").1.split_whitespace().collect();
        // proc(5): utime and stime are the 14th and 15th field, in ticks of a hundredth.
        let ticks =
            |at: usize| -> f64 { fields.get(at).and_then(|f| f.parse().ok()).unwrap_or(0.0) };
        (ticks(11) + ticks(12)) / 100.0
    }

    pub async fn stop(mut self) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).expect("a pid");
        kill_process(pid, Signal::TERM).expect("it runs");
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let status = status.expect("it ends in time").expect("an exit status");
        assert!(status.success(), "the daemon ended with {status}");
    }
}
