//! The daemon as a process: what it is told, what it answers, and what it must come to say.

use std::collections::BTreeMap;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::{PATIENCE, World, until};

/// A running `unstale run`, killed when dropped.
pub struct Daemon {
    pub child: Child,
    log: Arc<Mutex<String>>,
    admin: u16,
}

impl Daemon {
    /// Starts it, and keeps what it logs.
    pub(super) fn spawn(mut command: Command, admin: u16) -> Daemon {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the daemon starts");
        let stderr = child.stderr.take().expect("its log");
        let log = Arc::new(Mutex::new(String::new()));
        let shared = Arc::clone(&log);
        tokio::spawn(async move {
            let mut lines = BufReader::new(stderr).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let mut log = shared.lock().expect("the log");
                log.push_str(&line);
                log.push('\n');
            }
        });
        Daemon { child, log, admin }
    }

    pub fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    pub fn log(&self) -> String {
        self.log.lock().expect("the log").clone()
    }

    pub fn signal(&self, signal: &str) {
        World::signal(&self.pid().to_string(), signal);
    }

    pub async fn kill9(mut self) {
        self.child.kill().await.expect("it dies");
    }

    /// SIGTERM, and its exit.
    pub async fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        self.exit().await
    }

    /// Waits for its end.
    pub async fn exit(&mut self) -> ExitStatus {
        tokio::time::timeout(PATIENCE, self.child.wait())
            .await
            .unwrap_or_else(|_| panic!("the daemon did not end; its log:\n{}", self.log()))
            .expect("an exit status")
    }

    /// Where the console is.
    pub fn console(&self) -> String {
        format!("http://127.0.0.1:{}/", self.admin)
    }

    /// An answer of the admin listener: status and body; `None` while it does not listen.
    pub async fn get(&self, path: &str) -> Option<(u16, String)> {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
            .await
    }

    /// The answer of the admin listener to a whole request.
    pub async fn send(&self, request: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.admin)).await.ok()?;
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    /// `/readyz` as JSON.
    pub async fn readyz(&self) -> Option<serde_json::Value> {
        let (_, body) = self.get("/readyz").await?;
        serde_json::from_str(&body).ok()
    }

    pub async fn until_ready(&self) {
        let start = Instant::now();
        loop {
            if let Some((200, _)) = self.get("/readyz").await {
                return;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "the daemon did not become ready: {:?}\n{}",
                self.readyz().await,
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until `/readyz` tells of a problem with this in it.
    pub async fn until_problem(&self, part: &str) {
        until(&format!("a problem with {part:?} in /readyz"), async || {
            let readyz = self.readyz().await?;
            let problems = readyz["problems"].as_array()?;
            problems.iter().any(|p| p.as_str().is_some_and(|p| p.contains(part))).then_some(())
        })
        .await;
    }

    /// Waits until `/readyz` says 503, whatever the problem.
    pub async fn until_not_ready(&self) {
        until("a /readyz that fails", async || {
            matches!(self.get("/readyz").await, Some((503, _))).then_some(())
        })
        .await;
    }

    /// How many gaps were declared, by reason, those apart that never were.
    pub async fn gaps(&self) -> BTreeMap<String, u32> {
        let (_, text) = self.get("/metrics").await.expect("metrics");
        text.lines()
            .filter_map(|line| {
                let rest = line.strip_prefix("unstale_gaps_total{reason=\"")?;
                let (reason, count) = rest.split_once("\"} ")?;
                Some((reason.to_owned(), count.parse().ok()?))
            })
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// Exactly these gaps were declared, each once.
    pub async fn assert_gaps(&self, reasons: &[&str]) {
        let expected = reasons.iter().map(|reason| ((*reason).to_owned(), 1)).collect();
        assert_eq!(self.gaps().await, expected, "{}", self.log());
    }

    /// Waits until a gap of this reason was declared and everything stands again.
    pub async fn until_gap(&self, reason: &str) {
        let start = Instant::now();
        while !self.gaps().await.contains_key(reason) {
            assert!(start.elapsed() < PATIENCE, "no gap {reason}; the log:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.until_ready().await;
    }

    /// Waits until a metric is as it should be.
    pub async fn until_metric(&self, name: &str, expected: f64) {
        until(&format!("{name} to be {expected}"), async || {
            (self.metric(name).await == expected).then_some(())
        })
        .await;
    }

    /// Waits until a metric is at least so much.
    pub async fn until_at_least(&self, name: &str, least: f64) {
        let start = Instant::now();
        while self.metric(name).await < least {
            let what = format!("waited in vain for {name} to be {least}");
            assert!(start.elapsed() < PATIENCE, "{what}; the log:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits for a line of the log.
    pub async fn until_log(&self, part: &str) {
        until(&format!("{part:?} in the log"), async || self.log().contains(part).then_some(()))
            .await;
    }

    /// A metric's value; 0 if it was never counted.
    pub async fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.get("/metrics").await.expect("metrics");
        text.lines()
            .filter_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<f64>().ok())
            .next()
            .unwrap_or_default()
    }
}
