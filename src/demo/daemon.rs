//! The daemon under test: a process of its own, seen as any operator sees it, by its exit
//! code, its log and its admin listener.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustix::process::Signal;
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::error::DemoError;
use crate::lsn::Lsn;
use crate::sandbox::Process;

/// A start, or catching up, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than `pipeline.drain_timeout`.
const STOP_BOUND: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(2);
const LOG_TAIL: usize = 4000;

/// This program as anyone would start it: with nothing but a configuration to go by.
pub(super) fn ourselves(subcommand: &str, config: &Path) -> Result<Command, DemoError> {
    let program = std::env::current_exe().map_err(DemoError::io("find this program"))?;
    let mut command = Command::new(program);
    command.arg(subcommand).arg("--config").arg(config).stdin(Stdio::null());
    // What is set for the user's own daemon must not lead this one to the user's servers.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("UNSTALE_") || name.starts_with("PG"))
        {
            command.env_remove(name);
        }
    }
    Ok(command)
}

/// A running `unstale run`; killed when dropped.
pub(super) struct Daemon {
    process: Process,
    admin: SocketAddr,
    log: PathBuf,
}

/// The part of `/readyz` that is looked at.
#[derive(Debug, Deserialize)]
pub(super) struct Readiness {
    pub(super) ready: bool,
    pub(super) problems: Vec<String>,
    pub(super) applied_lsn: String,
}

/// What the daemon has counted since it started.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counters {
    pub(super) transactions: u64,
    pub(super) changes: u64,
    pub(super) invalidated: u64,
    pub(super) present: u64,
    pub(super) rewarmed: u64,
    /// Fills of its own that were refused, since a change came in between.
    pub(super) overtaken: u64,
    pub(super) whole_caches: u64,
    pub(super) gaps: u64,
}

/// An address of loopback that nobody listens on now.
pub(super) fn free_address() -> Result<SocketAddr, DemoError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(DemoError::io("find a free port"))
}

impl Daemon {
    /// Starts it; see [`ourselves`].
    pub(super) fn start(
        config: &Path,
        admin: SocketAddr,
        log: PathBuf,
    ) -> Result<Daemon, DemoError> {
        let output = File::create(&log).map_err(DemoError::io("open the daemon's log"))?;
        let mut command = ourselves("run", config)?;
        command.stdout(Stdio::null()).stderr(output);
        let process = Process::start(command, "unstale", Signal::KILL)
            .map_err(DemoError::io("start the daemon"))?;
        Ok(Daemon { process, admin, log })
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Waits until `/readyz` says that the cache can be trusted.
    pub(super) async fn until_ready(&self) -> Result<(), DemoError> {
        let start = Instant::now();
        loop {
            // Until it listens it refuses connections: only its end is an error.
            let why = match self.readiness().await {
                Ok(readiness) if readiness.ready => return Ok(()),
                Ok(readiness) => readiness.problems.join("; "),
                Err(error) => error.to_string(),
            };
            if let Some(status) = self.process.ended() {
                return Err(self.error(format!("the daemon ended ({status})")));
            }
            if start.elapsed() > PATIENCE {
                return Err(self.error(format!("the daemon was not ready in time: {why}")));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until everything committed below `end` is applied.
    pub(super) async fn until_applied(&self, end: Lsn) -> Result<(), DemoError> {
        let start = Instant::now();
        loop {
            let readiness = self.readiness().await?;
            let applied: Lsn = readiness.applied_lsn.parse().unwrap_or_default();
            if applied >= end {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                return Err(self.error(format!(
                    "the daemon has applied {applied} and not {end} after {PATIENCE:?}: {}",
                    readiness.problems.join("; ")
                )));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    pub(super) async fn readiness(&self) -> Result<Readiness, DemoError> {
        let body = self.get("/readyz").await?;
        serde_json::from_str(&body)
            .map_err(|error| self.error(format!("/readyz is not as expected ({error}): {body}")))
    }

    pub(super) async fn counters(&self) -> Result<Counters, DemoError> {
        let text = self.get("/metrics").await?;
        let total = |name| sum(&text, name);
        let fills = |outcome: &str| {
            let outcome = format!("\"{outcome}\"");
            let lines = text.lines().filter(|line| line.contains(&outcome));
            sum(&lines.flat_map(|line| [line, "\n"]).collect::<String>(), "unstale_fills_total")
        };
        Ok(Counters {
            transactions: total("unstale_transactions_total"),
            changes: total("unstale_changes_total"),
            invalidated: total("unstale_invalidations_total"),
            present: total("unstale_invalidated_present_total"),
            rewarmed: fills("stored"),
            overtaken: fills("voided"),
            whole_caches: total("unstale_escalations_total"),
            gaps: total("unstale_gaps_total"),
        })
    }

    /// What it knows of a key's last removal, as JSON.
    pub(super) async fn why(&self, key: &str) -> Result<String, DemoError> {
        let key = utf8_percent_encode(key, NON_ALPHANUMERIC);
        self.get(&format!("/why?key={key}")).await
    }

    /// Asks it to stop, and looks at how it does.
    pub(super) async fn stop(self) -> Result<(), DemoError> {
        self.process.signal(Signal::TERM);
        if !self.process.wait(STOP_BOUND).await {
            return Err(self.error(format!("the daemon did not stop within {STOP_BOUND:?}")));
        }
        match self.process.exit_code() {
            Some(0) => Ok(()),
            _ => {
                let status = self.process.ended().unwrap_or_default();
                Err(self.error(format!("the daemon was asked to stop and ended with {status}")))
            }
        }
    }

    fn error(&self, what: String) -> DemoError {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let tail = log.char_indices().rev().nth(LOG_TAIL).and_then(|(at, _)| log.get(at..));
        DemoError::Daemon { what, log: tail.unwrap_or(&log).to_owned() }
    }

    /// The body of the answer, whatever its status: `/readyz` tells why not with a 503.
    async fn get(&self, path: &str) -> Result<String, DemoError> {
        let ask = async {
            let mut stream = TcpStream::connect(self.admin).await?;
            let request =
                format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.admin);
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            Ok(answer)
        };
        let answer = match tokio::time::timeout(PATIENCE, ask).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(self.unreachable(path, &error)),
            Err(_) => return Err(self.unreachable(path, &std::io::ErrorKind::TimedOut.into())),
        };
        let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        Ok(body.to_owned())
    }

    fn unreachable(&self, path: &str, error: &std::io::Error) -> DemoError {
        let ended =
            self.process.ended().map_or_else(String::new, |how| format!(": it ended ({how})"));
        self.error(format!("the daemon did not answer {path} ({error}){ended}"))
    }
}

/// The sum of a metric over its labels, from Prometheus' text format.
fn sum(text: &str, name: &str) -> u64 {
    text.lines()
        .filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let labelled = rest.starts_with('{') || rest.starts_with(' ');
            labelled.then(|| rest.rsplit(' ').next()?.parse::<u64>().ok()).flatten()
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels_and_not_taken_for_a_longer_name() {
        let text =
            "# HELP a_total Of a.\na_total{x=\"1 2\"} 3\na_total{x=\"b\"} 4\na_total_more 9\nb 1\n";
        assert_eq!(sum(text, "a_total"), 7);
        assert_eq!(sum(text, "b"), 1);
        assert_eq!(sum(text, "c"), 0);
    }
}
