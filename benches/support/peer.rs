//! The consumer that people write by hand, as a process of its own.

use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::environment::environment;
use super::ground::Ground;
use super::machine::cpu_seconds;
use super::{PATIENCE, root};

pub struct Peer {
    child: Child,
}

impl Peer {
    /// Makes its environment, once.
    pub fn prepare() -> std::path::PathBuf {
        environment("benches/peer").join("python")
    }

    /// From a slot of its own, until it streams.
    pub async fn start(
        python: &Path,
        ground: &Ground,
        slot: &str,
        table: &str,
        prefix: &str,
    ) -> Peer {
        let mut command = Command::new(python);
        command
            .arg(root().join("benches/peer/consumer.py"))
            .args([&ground.postgres.url(), slot, &ground.redis.url_db(1), table, prefix])
            .env_remove("PYTHONPATH")
            .env_remove("PYTHONHOME")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().expect("the consumer starts");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let line =
            tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("it is ready in time");
        assert_eq!(line.expect("its output").as_deref(), Some("ready"), "the consumer failed");
        Peer { child }
    }

    pub fn cpu_seconds(&self) -> f64 {
        cpu_seconds(self.child.id().expect("it runs"))
    }

    pub async fn stop(mut self) {
        self.child.kill().await.expect("it runs");
    }
}
