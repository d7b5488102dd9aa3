//! What is done to tables and to the publication while they are streamed.

use std::time::{Duration, Instant};

use super::OFTEN;
use crate::stage::Stage;
use crate::support::{PATIENCE, World};
use crate::what::{Identity, Table};

/// As it is, as SQL that makes it again.
const PUBLICATION: &str = "select format(
    'create publication unstale for table %s with (publish_via_partition_root = true)',
    string_agg(format('%I.%I', schemaname, tablename), ', '))
    from pg_publication_tables where pubname = 'unstale'";

/// What a daemon takes until it streams, if nothing hinders it.
const STREAMS: Duration = Duration::from_secs(10);

/// All versions are other ones afterwards, and their type.
const REWRITE: &str = "do $$ begin
    if (select atttypid = 'bigint'::regtype from pg_attribute
        where attrelid = 'item'::regclass and attname = 'version') then
        alter table item alter version type numeric(20) using version + 1;
    else
        alter table item alter version type bigint using version + 1;
    end if; end $$";

impl Stage {
    pub(super) async fn unpublish(&self, table: Table, lasts: Duration) {
        if !self.has_streamed().await {
            return;
        }
        let table = table.name();
        self.ledger.overlooks();
        self.must(&format!("alter publication unstale drop table {table}")).await;
        tokio::time::sleep(lasts).await;
        self.must(&format!("alter publication unstale add table {table}")).await;
        self.ledger.hears();
        self.ledger.count("unpublished");
    }

    pub(super) async fn drop_publication(&self, lasts: Duration) {
        if !self.has_streamed().await {
            return;
        }
        let again = World::ask(self.primary(), PUBLICATION).await;
        self.ledger.overlooks();
        self.must("drop publication unstale").await;
        tokio::time::sleep(lasts).await;
        self.must(&again).await;
        self.ledger.hears();
        self.ledger.count("publications_dropped");
    }

    /// A daemon that never had what it needs says so and ends. One that is hindered by something
    /// else is not waited for.
    async fn has_streamed(&self) -> bool {
        let daemon = self.daemon.lock().await;
        let start = Instant::now();
        while !daemon.log().contains(" streaming slot=") && start.elapsed() < STREAMS {
            tokio::time::sleep(OFTEN).await;
        }
        start.elapsed() < STREAMS
    }

    /// Nobody has mapped it: no gap comes of that.
    pub(super) async fn publish_stranger(&self, lasts: Duration) {
        self.must("create table stranger (n int)").await;
        self.must("alter publication unstale add table stranger").await;
        self.must("insert into stranger select generate_series(1, 100)").await;
        tokio::time::sleep(lasts).await;
        self.must("drop table stranger").await;
        self.ledger.count("strangers");
    }

    pub(super) async fn rewrite_table(&self, lasts: Duration) {
        self.ledger.overlooks();
        self.must(REWRITE).await;
        self.ledger.hears();
        self.ledger.count("rewritten");
        tokio::time::sleep(lasts).await;
    }

    /// Without any the server refuses who writes.
    pub(super) async fn change_identity(&self, table: Table, identity: Identity, lasts: Duration) {
        let table = table.name();
        let identity = match identity {
            Identity::Default => "default".to_owned(),
            Identity::Index => format!("using index {table}_pkey"),
            Identity::Nothing => "nothing".to_owned(),
        };
        let alter = |identity: &str| format!("alter table {table} replica identity {identity}");
        self.must(&alter(&identity)).await;
        tokio::time::sleep(lasts).await;
        self.must(&alter("full")).await;
        self.ledger.count("identities_changed");
    }

    /// Others hold locks, for a moment.
    async fn must(&self, sql: &str) {
        let start = Instant::now();
        loop {
            let client = self.primary().client().await.unwrap();
            client.batch_execute("set lock_timeout = '200ms'").await.unwrap();
            match client.batch_execute(sql).await {
                Ok(()) => return,
                Err(error) => {
                    let code = error.code().map(|code| code.code().to_owned());
                    let locked = matches!(code.as_deref(), Some("55P03" | "40P01"));
                    assert!(locked && start.elapsed() < PATIENCE, "{sql}: {error:?}");
                }
            }
            tokio::time::sleep(OFTEN).await;
        }
    }
}
