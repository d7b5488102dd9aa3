//! What happens to Redis, by those who may use it, too.

use std::time::Duration;

use crate::stage::Stage;
use crate::support::free_port;

impl Stage {
    pub(super) async fn redis(&self, command: &[&str]) {
        _ = self.said::<redis::Value>(command).await;
    }

    async fn said<T: redis::FromRedisValue>(&self, command: &[&str]) -> Option<T> {
        let mut connection = self.world.redis.connection_db(1).await.ok()?;
        redis::cmd(command[0]).arg(&command[1..]).query_async(&mut connection).await.ok()
    }

    /// What the other database has got by the second time is of old.
    pub(super) async fn swap_redis(&self, lasts: Duration) {
        self.redis(&["SWAPDB", "1", "2"]).await;
        tokio::time::sleep(lasts).await;
        self.redis(&["SWAPDB", "1", "2"]).await;
    }

    pub(super) async fn fill_redis(&self, lasts: Duration) {
        self.redis(&["CONFIG", "SET", "maxmemory", "1"]).await;
        tokio::time::sleep(lasts).await;
        self.redis(&["CONFIG", "SET", "maxmemory", "0"]).await;
    }

    /// The state is as likely to go as anything else.
    pub(super) async fn evict(&self, lasts: Duration) {
        let Some(text) = self.said::<String>(&["INFO", "memory"]).await else { return };
        let used = text.lines().find_map(|line| line.strip_prefix("used_memory:"));
        let used: u64 = used.unwrap().trim().parse().unwrap();
        let most = (used - used / 20).to_string();
        self.redis(&["CONFIG", "SET", "maxmemory", &most, "maxmemory-policy", "allkeys-random"])
            .await;
        self.ledger.count("evicting");
        tokio::time::sleep(lasts).await;
        self.redis(&["CONFIG", "SET", "maxmemory", "0", "maxmemory-policy", "noeviction"]).await;
    }

    pub(super) async fn demote_redis(&self, lasts: Duration) {
        // A port that nobody listens on.
        self.redis(&["REPLICAOF", "127.0.0.1", &free_port().to_string()]).await;
        tokio::time::sleep(lasts).await;
        self.redis(&["REPLICAOF", "NO", "ONE"]).await;
    }
}
