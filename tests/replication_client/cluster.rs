//! A private Postgres, and what these tests do to it.

use std::process::Command;
use std::time::{Duration, Instant};

use unstale::sandbox::{Postgres, PostgresBuilder, Shutdown};

pub struct Cluster {
    postgres: Postgres,
    pub port: u16,
}

/// The superuser's own way in.
const ADMIN: &str = "local all postgres trust\nlocal replication postgres trust\n";

impl Cluster {
    /// Where everybody on this machine is trusted.
    pub async fn start(settings: &[(&str, &str)]) -> Cluster {
        let with =
            |builder: PostgresBuilder, (name, value): &(&str, &str)| builder.setting(name, value);
        let builder = settings.iter().fold(Postgres::builder(), with);
        Cluster::new(builder.start().await.unwrap())
    }

    /// Where nobody is let in but the superuser by the socket, and whom `hba` has.
    pub async fn start_with_hba(hba: &str, builder: PostgresBuilder) -> Cluster {
        let cluster = Cluster::new(builder.start().await.unwrap());
        let file = cluster.postgres.data_dir().join("pg_hba.conf");
        std::fs::write(file, format!("{ADMIN}{hba}")).unwrap();
        // Any setting: the file is read anew with all of them.
        cluster.postgres.set("log_disconnections", "off").await.unwrap();
        cluster
    }

    fn new(postgres: Postgres) -> Cluster {
        Cluster { port: postgres.port(), postgres }
    }

    /// A standby of this server.
    pub async fn standby(&self) -> Cluster {
        Cluster::new(self.postgres.standby().start().await.unwrap())
    }

    /// A superuser's connection.
    pub async fn admin(&self) -> tokio_postgres::Client {
        self.postgres.client().await.unwrap()
    }

    /// Runs SQL as the superuser.
    pub async fn sql(&self, sql: &str) {
        self.postgres.execute(sql).await.unwrap();
    }

    /// A single value, as text.
    pub async fn value(&self, sql: &str) -> Option<String> {
        let messages = self.admin().await.simple_query(sql).await.unwrap();
        messages.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).map(str::to_owned)),
            _ => None,
        })?
    }

    /// Waits until `sql` answers `expected`.
    pub async fn wait_for(&self, sql: &str, expected: Option<&str>) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let found = self.value(sql).await;
            if found.as_deref() == expected {
                return;
            }
            assert!(Instant::now() < deadline, "{sql}: {found:?}, expected {expected:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Changes a setting for whoever connects from here on.
    pub async fn set(&self, setting: &str, value: &str) {
        self.postgres.set(setting, value).await.unwrap();
    }

    /// `postgres://LOGIN@127.0.0.1:PORT/postgres`
    pub fn url(&self, login: &str) -> String {
        format!("postgres://{login}@127.0.0.1:{}/postgres", self.port)
    }

    /// Over the unix socket.
    pub fn socket_url(&self, user: &str) -> String {
        self.postgres.socket_url(user, "postgres")
    }

    /// As by `pg_ctl restart -m fast`.
    pub async fn restart(&self) {
        self.postgres.restart(Shutdown::Fast).await.unwrap();
    }

    /// As by `pg_ctl stop -m fast`.
    pub async fn stop_fast(&self) {
        self.postgres.stop(Shutdown::Fast).await.unwrap();
    }

    /// kill -9 of a child: the postmaster restarts them all and recovers.
    pub async fn crash_child(&self) {
        let pid = "SELECT pid::text FROM pg_stat_activity WHERE backend_type = 'checkpointer'";
        let child = self.value(pid).await.unwrap();
        assert!(Command::new("kill").args(["-KILL", &child]).status().unwrap().success());
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Ok(client) = self.postgres.client().await
                && let Ok(rows) = client.query(pid, &[]).await
                && rows.iter().any(|row| row.get::<_, String>(0) != child)
            {
                return;
            }
            assert!(Instant::now() < deadline, "{}", self.postgres.log_tail());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// kill -9 of all of it.
    pub async fn kill(&self) {
        self.postgres.kill9().await.unwrap();
    }

    /// After [`Cluster::kill`].
    pub async fn launch_again(&self) {
        self.postgres.start_again().await.unwrap();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("server log:\n{}", self.postgres.log_tail());
        }
    }
}
