//! Rows that nearly every test is content with: organizations, and what changes them.

use super::{Daemon, World, until};

/// The key of an organization's cache that every change of its name reaches.
pub fn org(id: u32) -> String {
    format!("v1:org:data:{id}")
}

impl World {
    /// Organizations 1 to `count`, settled.
    pub async fn organizations(&self, count: u32) {
        let sql = format!(
            "insert into organization_organization (id, name, is_active, created_at, updated_at) \
             select i, 'organization ' || i, true, now(), now() from generate_series(1, {count}) i"
        );
        self.postgres.execute(&sql).await.expect("organizations");
    }

    /// The SQL that changes an organization such that [`org`] must go. As often as one likes: a
    /// name that has become too long begins anew.
    pub fn renaming(id: u32) -> String {
        format!(
            "update organization_organization set name =
                 case length(name) when 255 then rtrim(name, '+') else name || '+' end
             where id = {id}"
        )
    }

    /// Changes an organization and waits for the commit.
    pub async fn rename(&self, id: u32) {
        self.postgres.execute(&World::renaming(id)).await.expect("an update");
    }

    /// Changes organizations 1 to `count`, each in a transaction of its own.
    pub async fn rename_each(&self, count: u32) {
        let client = self.postgres.client().await.expect("a client");
        for id in 1..=count {
            client.batch_execute(&World::renaming(id)).await.expect("an update");
        }
    }

    /// Stores the values of organizations 1 to `count`.
    pub async fn put_each(&self, count: u32) {
        let keys: Vec<String> = (1..=count).map(org).collect();
        self.put(&keys.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }

    /// Organizations 1 to `count`, a daemon that has seen them, and the values of the first three.
    pub async fn started(&self, count: u32) -> Daemon {
        self.organizations(count).await;
        let daemon = self.daemon().await;
        self.settle().await;
        self.put_each(3).await;
        daemon
    }

    /// Shows that the daemon stands, and that changes arrive: one of this organization.
    pub async fn goes_on(&self, daemon: &Daemon, id: u32) {
        daemon.until_ready().await;
        self.put(&[&org(id)]).await;
        self.rename(id).await;
        self.settle().await;
        assert!(!self.keys().await.contains(&org(id)), "{}", daemon.log());
        assert_eq!(self.state("valid").await.as_deref(), Some("1"));
    }

    /// Changes an organization although nobody confirms synchronous commits.
    pub async fn rename_locally(&self, id: u32) {
        let sql = format!("set synchronous_commit = local; {}", World::renaming(id));
        self.postgres.execute(&sql).await.expect("an update");
    }

    /// Commits a change that waits for a standby which does not exist, and waits until its
    /// commit record is written. Ends once [`World::release_standby`] was called.
    pub async fn rename_stuck(&self, id: u32) -> tokio::task::JoinHandle<()> {
        self.stuck(&World::renaming(id)).await
    }

    /// The same with any statement.
    pub async fn stuck(&self, sql: &str) -> tokio::task::JoinHandle<()> {
        self.postgres.set("synchronous_standby_names", "nobody").await.expect("set");
        let client = self.postgres.client().await.expect("a client");
        let sql = sql.to_owned();
        let stuck =
            tokio::spawn(async move { client.batch_execute(&sql).await.expect("a change") });
        until("the commit to wait for a standby", async || {
            let waiting =
                "select count(*)::text from pg_stat_activity where wait_event = 'SyncRep'";
            (self.query_one(waiting).await != "0").then_some(())
        })
        .await;
        stuck
    }

    /// Lets all commits go that wait for a standby.
    pub async fn release_standby(&self) {
        self.postgres.set("synchronous_standby_names", "").await.expect("set");
    }
}
