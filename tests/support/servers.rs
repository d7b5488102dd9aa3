//! What stands between the daemon and its servers, and how far they have come with each other.

use unstale::lsn::Lsn;
use unstale::sandbox::Proxy;

use super::{World, until};

impl World {
    /// Puts a proxy between the daemons started from here on and Redis.
    pub async fn redis_proxy(&mut self) -> Proxy {
        let proxy = Proxy::start(self.redis.address()).await.expect("a proxy");
        self.set(&format!("redis.url={}", self.redis.url_through(&proxy, 1)));
        proxy
    }

    /// Puts a proxy between the daemons started from here on and Postgres.
    pub async fn postgres_proxy(&mut self) -> Proxy {
        let proxy = Proxy::start(self.postgres.address()).await.expect("a proxy");
        self.set(&format!(
            "postgres.url={}",
            self.postgres.url_through(&proxy, "postgres", "postgres")
        ));
        proxy
    }

    /// What the slot's consumer has acknowledged.
    pub async fn confirmed_flush(&self) -> Lsn {
        self.query_one("select confirmed_flush_lsn::text from pg_replication_slots where slot_name = 'unstale'")
            .await
            .parse()
            .expect("an LSN")
    }

    /// The watermark in Redis.
    pub async fn watermark(&self) -> Lsn {
        self.state("watermark").await.and_then(|w| w.parse().ok()).expect("a watermark")
    }

    /// The server process that serves the slot.
    pub async fn walsender(&self) -> Option<i32> {
        self.query_one(
            "select active_pid::text from pg_replication_slots where slot_name = 'unstale'",
        )
        .await
        .parse()
        .ok()
    }

    /// Sends a signal to a process of the server, or to another of ours.
    pub fn signal(pid: &str, signal: &str) {
        let status = std::process::Command::new("kill").args([&format!("-{signal}"), pid]).status();
        assert!(status.expect("kill runs").success());
    }

    /// Waits until a managed key is gone.
    pub async fn until_gone(&self, key: &str) {
        until(&format!("{key} to go"), async || (!self.keys().await.contains(key)).then_some(()))
            .await;
    }
}
