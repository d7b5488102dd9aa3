//! Fillers in a process of their own, which can be stopped as a whole: the test's own binary,
//! started once more for the one test below.

use std::io::{Read as _, Write as _};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::case::Sink;
use crate::filler::{self, Filling};
use crate::oracle::Seen;
use crate::support::stop::Stop;

const TASK: &str = "PROOF_FILLING";

/// Begins a line that tells of an attempt; the test harness prints lines as well.
const MARK: &str = "attempt ";

/// A running process. It ends when its standard input does.
pub struct Filler {
    child: Child,
    listening: JoinHandle<()>,
}

impl Filler {
    pub fn start(task: &Filling, seen: Sink) -> Filler {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "process::the_process_of_fillers", "--ignored", "--nocapture"])
            .env(TASK, serde_json::to_string(task).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let listening = tokio::spawn(async move {
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some(attempt) = line.strip_prefix(MARK) {
                    let attempt = serde_json::from_str(attempt).unwrap();
                    drop(seen.send(Seen::Attempt(attempt)));
                }
            }
        });
        Filler { child, listening }
    }

    pub fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
        kill_process(pid.expect("it runs"), signal).unwrap();
    }

    /// Lets it finish what it does.
    pub async fn stop(mut self) {
        drop(self.child.stdin.take());
        let status = tokio::time::timeout(crate::support::PATIENCE, self.child.wait()).await;
        assert!(status.expect("the fillers end").unwrap().success());
        self.listening.await.unwrap();
    }
}

#[tokio::test]
#[ignore = "the body of a process that the other tests start"]
async fn the_process_of_fillers() {
    let Ok(task) = std::env::var(TASK) else { return };
    let task: Filling = serde_json::from_str(&task).unwrap();
    let stop = Stop::default();
    let ended = stop.clone();
    std::thread::spawn(move || {
        let _end = std::io::stdin().read(&mut [0]);
        ended.set();
    });
    let (seen, mut sight) = mpsc::unbounded_channel();
    let mut fillers = filler::start(&task, &seen, &stop);
    drop(seen);
    // The harness may have begun a line.
    println!();
    while let Some(seen) = sight.recv().await {
        let Seen::Attempt(attempt) = seen else { continue };
        let line = format!("{MARK}{}\n", serde_json::to_string(&attempt).unwrap());
        std::io::stdout().write_all(line.as_bytes()).unwrap();
    }
    while fillers.join_next().await.transpose().unwrap().is_some() {}
}
