//! A private Postgres with the demo schema, and a private Redis.

use std::time::{Duration, Instant};

use tokio_postgres::Client;
use unstale::lsn::Lsn;
use unstale::sandbox::{Postgres, Redis};

use super::{PATIENCE, progress};

/// The tables of the default mapping.
const TABLES: [&str; 8] = [
    "organization_organization",
    "authentication_user",
    "permissions_role",
    "permissions_role_permissions",
    "auth_permission",
    "django_content_type",
    "deals_deal",
    "clients_client",
];

/// Both servers. Crash safety is off, as in every sandbox: what is measured is decoding.
pub struct Ground {
    pub postgres: Postgres,
    pub redis: Redis,
}

impl Ground {
    /// The demo's schema with that many deals, published, with REPLICA IDENTITY FULL: the
    /// identity that sends the most.
    pub async fn with_deals(deals: u64) -> Ground {
        let ground = Ground::bare().await;
        ground.load_demo(deals).await;
        ground
    }

    /// Without any table.
    pub async fn bare() -> Ground {
        let postgres = Postgres::builder()
            .setting("shared_buffers", "256MB")
            .setting("max_wal_size", "16GB")
            .setting("checkpoint_timeout", "1h")
            .setting("autovacuum", "off")
            .setting("max_replication_slots", "64")
            .start()
            .await
            .expect("Postgres starts");
        let redis = Redis::start().await.expect("Redis starts");
        Ground { postgres, redis }
    }

    async fn load_demo(&self, deals: u64) {
        progress(&format!("loading the demo's data with {deals} deals"));
        let client = self.postgres.client().await.expect("a client");
        let load = |sql: String| {
            let client = &client;
            async move { client.batch_execute(&sql).await.expect("the demo's SQL runs") }
        };
        load(include_str!("../../sql/demo/schema.sql").to_owned()).await;
        // The data is sound: checking its foreign keys would take longer than loading it.
        load(format!("set session_replication_role = replica; set demo.deals = {deals}")).await;
        load(include_str!("../../sql/demo/data.sql").to_owned()).await;
        for table in TABLES {
            load(format!("alter table {table} replica identity full")).await;
        }
        load(format!("create publication unstale for table {}", TABLES.join(", "))).await;
        // Neither runs in the transaction that several statements at once would be.
        load("vacuum analyze".to_owned()).await;
        load("checkpoint".to_owned()).await;
    }

    /// A connection that writes without the checks and waits that are not measured here.
    pub async fn writer(&self) -> Client {
        let client = self.postgres.client().await.expect("a client");
        client
            .batch_execute("set session_replication_role = replica; set synchronous_commit = off")
            .await
            .expect("settings");
        client
    }

    /// A position past every commit so far, with one more commit behind it: whoever reads
    /// up to a position needs something to come after it.
    pub async fn end(&self) -> Lsn {
        let client = self.postgres.client().await.expect("a client");
        let end = position(&client).await;
        client
            .batch_execute("update deals_deal set deal_value = 1 where id = (select min(id::text)::uuid from deals_deal)")
            .await
            .expect("one more commit");
        end
    }

    /// Past every commit so far.
    pub async fn position(&self) -> Lsn {
        position(&self.postgres.client().await.expect("a client")).await
    }

    pub async fn create_slot(&self, name: &str) {
        let sql = format!("select pg_create_logical_replication_slot('{name}', 'pgoutput')");
        self.postgres.execute(&sql).await.expect("the slot is created");
    }

    /// Lets go of the WAL that the slots hold.
    pub async fn drop_slots(&self) {
        let client = self.postgres.client().await.expect("a client");
        let begun = Instant::now();
        // The last reader's process may not have noticed yet that it is alone.
        let busy = "select count(*) from pg_replication_slots where active";
        while client.query_one(busy, &[]).await.expect("a count").get::<_, i64>(0) > 0 {
            assert!(begun.elapsed() < PATIENCE, "a slot stays active");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let sql = "select pg_drop_replication_slot(slot_name) from pg_replication_slots";
        client.batch_execute(sql).await.expect("the slots go");
    }
}

/// Past every commit so far.
pub async fn position(client: &Client) -> Lsn {
    let row = client.query_one("select pg_current_wal_insert_lsn()::text", &[]).await;
    row.expect("a position").get::<_, &str>(0).parse().expect("an LSN")
}
