//! webdis: Redis by HTTP, without a login, a certificate or an envelope.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use unstale::sandbox::{Process, Redis};

/// Its own setting for a worker's connections to Redis. 2 is what it takes if nothing is set;
/// with more it was slower here.
const CONNECTIONS: u64 = 2;

pub struct Webdis {
    process: Process,
    pub port: u16,
}

impl Webdis {
    /// In front of that database, with two threads as its package has it, logging nothing.
    pub async fn start(redis: &Redis, database: u32, folder: &Path) -> Webdis {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
        let port = port.port();
        let config = json!({
            "redis_host": "127.0.0.1", "redis_port": redis.port(), "redis_auth": null,
            "http_host": "127.0.0.1", "http_port": port, "database": database,
            "threads": 2, "pool_size": super::size("BENCH_WEBDIS_POOL", CONNECTIONS),
            "daemonize": false, "websockets": false, "verbosity": 0, "logfile": "/dev/null",
        });
        let file = folder.join("webdis.json");
        std::fs::write(&file, config.to_string()).expect("its configuration is written");
        let mut command = Command::new("webdis");
        command.arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = Process::start(command, "webdis", Signal::TERM)
            .expect("webdis starts (scripts/setup.sh bench installs it)");
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(30), "webdis does not listen");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Webdis { process, port }
    }

    pub fn cpu_seconds(&self) -> f64 {
        super::machine::cpu_seconds(self.process.pid())
    }
}
