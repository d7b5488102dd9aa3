//! The daemon tells systemd how it goes, and the unit that says so is a valid one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram as StdDatagram};
use support::{Daemon, PATIENCE, World};
use tokio::net::UnixDatagram;

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

    /// Reads what has come already.
    fn drain(&self) {
        let mut buffer = [0; 4000];
        while self.0.try_recv(&mut buffer).is_ok() {}
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

#[tokio::test]
async fn the_watchdog_is_fed_through_an_abstract_socket_while_redis_is_frozen() {
    let world = World::new().await;
    let (systemd, socket) = Systemd::abstract_name();
    let daemon = start(&world, &socket, "2000000");
    systemd.until("STATUS=streaming").await;
    systemd.until("WATCHDOG=1").await;
    world.redis.pause().await;
    daemon.until_not_ready().await;
    systemd.until("STATUS=not ready: redis: ").await;
    systemd.drain();
    // No restart would thaw Redis: nothing but the answers of others is waited for.
    for _ in 0..4 {
        systemd.until("WATCHDOG=1").await;
    }
    world.redis.resume();
    systemd.until("STATUS=streaming").await;
    assert!(daemon.stop().await.success());
}
