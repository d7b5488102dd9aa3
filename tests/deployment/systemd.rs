//! The daemon tells systemd how it goes, and the unit that says so is a valid one.

#![allow(clippy::print_stderr, reason = "a test fails by panicking")]

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram as StdDatagram};
use std::time::{Duration, Instant};

use crate::support::{Daemon, PATIENCE, World};
use tokio::net::UnixDatagram;

const BINARY: &str = env!("CARGO_BIN_EXE_unstale");

/// What systemd is told.
struct Systemd(UnixDatagram);

impl Systemd {
    fn in_folder(world: &World) -> (Systemd, String) {
        let path = world.folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        (Systemd(socket), path.to_str().unwrap().to_owned())
    }

    fn abstract_name() -> (Systemd, String) {
        let name = format!("unstale-test-{}", std::process::id());
        let socket =
            StdDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        socket.set_nonblocking(true).unwrap();
        (Systemd(UnixDatagram::from_std(socket).unwrap()), format!("@{name}"))
    }

    /// Reads until a message has this in it, and gives it.
    async fn until(&self, part: &str) -> String {
        let reading = async {
            let mut buffer = [0; 4000];
            loop {
                let length = self.0.recv(&mut buffer).await.unwrap();
                let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
                if message.contains(part) {
                    return message;
                }
            }
        };
        tokio::time::timeout(PATIENCE, reading)
            .await
            .unwrap_or_else(|_| panic!("systemd was never told {part:?}"))
    }
}

fn start(world: &World, socket: &str, watchdog: &str) -> Daemon {
    let mut command = world.command("run");
    command.env("NOTIFY_SOCKET", socket).env("WATCHDOG_USEC", watchdog);
    command.env_remove("WATCHDOG_PID");
    world.spawn_with(command, world.admin)
}

#[tokio::test]
async fn ready_is_told_before_postgres_can_be_reached_then_the_phase_and_the_end() {
    let mut world = World::new().await;
    let proxy = world.postgres_proxy().await;
    proxy.refuse().await;
    let (systemd, socket) = Systemd::in_folder(&world);
    let daemon = start(&world, &socket, "0");
    let first = systemd.until("READY=1").await;
    assert!(first.contains("\nSTATUS=not ready: "), "{first}");
    assert!(daemon.get("/healthz").await.is_some(), "what is ready answers");
    proxy.resume().await;
    systemd.until("STATUS=streaming").await;
    assert_eq!(daemon.metric("unstale_ready").await, 1.0);
    assert!(daemon.stop().await.success());
    systemd.until("STOPPING=1").await;
}

/// Servers that are away are waited for without an end, however often the daemon would be
/// started anew.
#[tokio::test]
async fn the_watchdog_is_fed_while_redis_is_frozen_for_longer_than_a_loop_may_stand_still() {
    let mut world = World::new().await;
    // Of these two comes the tolerance: 1 s + 5 s + 3 s, or half of the watchdog's time.
    world.set("postgres.statement_timeout=1s");
    let (systemd, socket) = Systemd::abstract_name();
    let daemon = start(&world, &socket, "2000000");
    systemd.until("STATUS=streaming").await;
    systemd.until("WATCHDOG=1").await;
    world.redis.pause().await;
    systemd.until("STATUS=not ready: redis: ").await;
    let frozen = Instant::now();
    while frozen.elapsed() < Duration::from_secs(12) {
        systemd.until("WATCHDOG=1").await;
    }
    assert!(!daemon.log().contains("stands still"), "{}", daemon.log());
    world.redis.resume();
    systemd.until("STATUS=streaming").await;
    assert!(daemon.stop().await.success());
}

/// A program of systemd's, or a plain word that it is missing here.
fn systemd_analyze(arguments: &[&str]) -> Option<std::process::Output> {
    match std::process::Command::new("systemd-analyze").args(arguments).output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: there is no systemd-analyze on this machine");
            None
        }
        Err(error) => panic!("systemd-analyze: {error}"),
    }
}

#[test]
fn the_unit_is_valid_and_lets_the_daemon_do_little() {
    let unit =
        std::fs::read_to_string(crate::support::root().join("config/systemd/unstale.service"))
            .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("unstale.service");
    // What it starts must be there.
    let here = unit.replace("/usr/local/bin/unstale run", &format!("{BINARY} run"));
    assert_ne!(here, unit);
    std::fs::write(&path, here).unwrap();
    let path = path.to_str().unwrap();
    for arguments in [
        vec!["verify", path],
        // 10.0 is a service without any bounds, 0.2 one that can do nothing.
        vec!["security", "--offline=true", "--threshold=15", "--no-pager", path],
    ] {
        let Some(output) = systemd_analyze(&arguments) else { return };
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "systemd-analyze {arguments:?}: {said}");
        // `verify` calls unknown settings a warning.
        assert!(!said.contains("unstale.service"), "systemd-analyze {arguments:?}: {said}");
    }
}
