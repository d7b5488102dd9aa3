//! What the integration tests share: a private Postgres with the demo schema, a private
//! Redis, and the real daemon between them.
#![allow(
    dead_code,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::print_stderr,
    missing_docs,
    unreachable_pub,
    unused_imports,
    reason = "a test fails by panicking, and no test uses all of this"
)]

pub mod points;
pub mod reader;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use rustix::fs::FlockOperation;
use tokio::process::Command;
use unstale::config::{TEST_POINTS, TEST_WITHOUT};
use unstale::lsn::Lsn;
use unstale::sandbox::{Postgres, Redis};

pub mod acl;
pub mod api;
pub mod browser;
pub mod clock;
mod daemon;
pub mod environment;
pub mod items;
mod organizations;
mod servers;
pub mod standby;
pub mod stop;

pub use daemon::Daemon;
pub use organizations::org;

/// How long anything may take that is expected to happen.
pub const PATIENCE: Duration =
    Duration::from_secs(if cfg!(feature = "long-tests") { 300 } else { 30 });

/// Waits until `condition` gives something, and fails with `what` if it never does.
pub async fn until<T, F: AsyncFnMut() -> Option<T>>(what: &str, condition: F) -> T {
    until_for(PATIENCE, what, condition).await
}

/// The same of what is much work for a small machine.
pub async fn until_for<T, F: AsyncFnMut() -> Option<T>>(
    patience: Duration,
    what: &str,
    mut condition: F,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(start.elapsed() < patience, "waited in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Below the ports that the kernel hands out to connections, and above the sandbox's own:
/// between here and the daemon's start nobody takes it.
///
/// Other tests on this machine look for theirs meanwhile: a locked file a port keeps it for this
/// process until its end.
pub fn free_port() -> u16 {
    let ports = std::env::temp_dir().join("unstale-test-ports");
    std::fs::create_dir_all(&ports).expect("a folder");
    loop {
        let port = fastrand::u16(30_000..32_768);
        // Of somebody else's file there is another port.
        let Ok(file) = std::fs::File::create(ports.join(port.to_string())) else { continue };
        let locked = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        if locked && std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            std::mem::forget(file);
            return port;
        }
    }
}

/// Both servers, a folder for files, and what the daemon is started with.
pub struct World {
    pub postgres: Postgres,
    pub redis: Redis,
    pub folder: tempfile::TempDir,
    pub admin: u16,
    /// `--set` arguments.
    pub settings: Vec<String>,
    pub config: PathBuf,
    /// Where daemons look for orders to die: [`World::points`].
    pub points: Option<PathBuf>,
}

/// Whether this server's installation lacks a program, which a test then says it was skipped
/// for: some packages hold little but the server.
pub fn lacks(postgres: &Postgres, program: &str) -> bool {
    let program = postgres.program(program);
    let lacks = !program.is_file();
    if lacks {
        eprintln!("skipped: there is no {}", program.display());
    }
    lacks
}

/// The tables of the default mapping.
pub const TABLES: [&str; 8] = [
    "organization_organization",
    "authentication_user",
    "permissions_role",
    "permissions_role_permissions",
    "auth_permission",
    "django_content_type",
    "deals_deal",
    "clients_client",
];

impl World {
    /// Default servers, the demo schema without rows, published, FULL identities, the default mapping.
    pub async fn new() -> World {
        let postgres = Postgres::builder().start().await.expect("Postgres starts");
        World::with(postgres, Redis::start().await.expect("Redis starts")).await
    }

    /// The same with servers of one's own.
    pub async fn with(postgres: Postgres, redis: Redis) -> World {
        let schema =
            std::fs::read_to_string(root().join("sql/demo/schema.sql")).expect("the schema");
        postgres.execute(&schema).await.expect("the schema loads");
        for table in TABLES {
            postgres
                .execute(&format!("alter table {table} replica identity full"))
                .await
                .expect("identity");
        }
        let publish = format!(
            "create publication unstale for table {} with (publish_via_partition_root = true)",
            TABLES.join(", ")
        );
        postgres.execute(&publish).await.expect("publication");
        World::bare(postgres, redis, &root().join("config/unstale.toml"))
    }

    /// A world of its own: `schema` makes the tables and the publication, `rules` are the caches and
    /// what reaches them.
    pub async fn of(postgres: Postgres, redis: Redis, schema: &str, rules: &str) -> World {
        postgres.execute(schema).await.unwrap_or_else(|error| panic!("{schema}: {error:?}"));
        let mut world = World::bare(postgres, redis, "none".as_ref());
        world.configure(&format!("[redis]\nkey_prefix = \"prs_cache:1:\"\n{rules}"));
        world
    }

    /// Nothing is loaded; the configuration is `config`.
    pub fn bare(postgres: Postgres, redis: Redis, config: &Path) -> World {
        let admin = free_port();
        World {
            settings: vec![
                format!("postgres.url={}", postgres.url()),
                format!("redis.url={}", redis.url_db(1)),
                format!("admin.listen=127.0.0.1:{admin}"),
                "log.level=info,unstale=debug".to_owned(),
                // What is removed stays away, so that it can be seen. Tests of warming say otherwise.
                "warm.enabled=false".to_owned(),
                // And only what a test is about is filled then.
                "warm.after_gap=false".to_owned(),
                // Nor is what tests put there compared with the database.
                "audit.per_second=0".to_owned(),
                // Nor is anything done now and then.
                "schedule=[]".to_owned(),
                // Nor is anything written to the WAL but by the tests.
                "postgres.heartbeat=0s".to_owned(),
                // Nor does everybody serve at the same address.
                "api.enabled=false".to_owned(),
            ],
            folder: tempfile::tempdir().expect("a folder"),
            postgres,
            redis,
            admin,
            config: config.to_owned(),
            points: None,
        }
    }

    /// Writes a configuration of one's own and uses it from here on.
    pub fn configure(&mut self, toml: &str) {
        self.config = self.folder.path().join("unstale.toml");
        std::fs::write(&self.config, toml).expect("the configuration is written");
    }

    /// Uses the default configuration from here on, edited.
    pub fn reconfigure(&mut self, edit: impl Fn(String) -> String) {
        let toml = std::fs::read_to_string(root().join("config/unstale.toml")).expect("a file");
        let edited = edit(toml.clone());
        assert_ne!(edited, toml, "there was nothing to edit");
        self.configure(&edited.replace("../sql/", &format!("{}/sql/", root().display())));
    }

    /// Adds a setting for daemons started from here on; the last one of a name wins.
    pub fn set(&mut self, setting: &str) {
        let name = setting.split('=').next().unwrap_or_default().to_owned();
        self.settings.retain(|other| !other.starts_with(&format!("{name}=")));
        self.settings.push(setting.to_owned());
    }

    /// The binary with this world's configuration.
    pub fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_unstale"));
        command
            .arg(subcommand)
            .arg("--config")
            .arg(&self.config)
            .kill_on_drop(true)
            .stdin(Stdio::null());
        for setting in &self.settings {
            command.arg("--set").arg(setting);
        }
        match &self.points {
            Some(folder) => _ = command.env(TEST_POINTS, folder),
            None => _ = command.env_remove(TEST_POINTS),
        }
        for variable in ["PGPASSWORD", "PGPASSFILE", "UNSTALE_CONFIG"] {
            command.env_remove(variable);
        }
        command
    }

    /// Starts the daemon without waiting for anything.
    pub fn spawn(&self) -> Daemon {
        self.spawn_with(self.command("run"), self.admin)
    }

    /// Another daemon with the same configuration, but for its admin listener.
    pub fn spawn_another(&self) -> Daemon {
        let admin = free_port();
        let mut command = self.command("run");
        command.arg("--set").arg(format!("admin.listen=127.0.0.1:{admin}"));
        self.spawn_with(command, admin)
    }

    /// The daemon, which leaves a rule of the protocol out, or none.
    pub fn run_without(&self, rule: Option<&str>) -> Command {
        let mut command = self.command("run");
        match rule {
            Some(rule) => _ = command.env(TEST_WITHOUT, rule),
            None => _ = command.env_remove(TEST_WITHOUT),
        }
        command
    }

    /// Starts a daemon by a command of one's own.
    pub fn spawn_with(&self, command: Command, admin: u16) -> Daemon {
        Daemon::spawn(command, admin)
    }

    /// Starts the daemon and waits until it is ready.
    pub async fn daemon(&self) -> Daemon {
        let daemon = self.spawn();
        daemon.until_ready().await;
        daemon
    }

    /// A connection to the database that the values live in.
    pub async fn values(&self) -> MultiplexedConnection {
        self.redis.connection_db(1).await.expect("Redis answers")
    }

    /// What `unstale status` says.
    pub async fn status(&self) -> serde_json::Value {
        let output = self.command("status").arg("--json").output().await.expect("it runs");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Stores a value as a filler would that has just read the database.
    pub async fn put(&self, keys: &[&str]) {
        let mut values = self.values().await;
        for key in keys {
            let _: () = values.set_ex(format!("prs_cache:1:{key}"), "{}", 3600).await.expect("SET");
        }
    }

    /// Which managed keys there are, without the prefix.
    pub async fn keys(&self) -> std::collections::BTreeSet<String> {
        let found: Vec<String> = redis::cmd("KEYS")
            .arg("prs_cache:1:*")
            .query_async(&mut self.values().await)
            .await
            .expect("KEYS");
        found.into_iter().map(|key| key.trim_start_matches("prs_cache:1:").to_owned()).collect()
    }

    /// One field of the daemon's state.
    pub async fn state(&self, field: &str) -> Option<String> {
        self.values().await.hget("unstale:unstale:state", field).await.expect("HGET")
    }

    /// Where the WAL ends now.
    pub async fn wal_end(&self) -> Lsn {
        self.query_one("select pg_current_wal_flush_lsn()::text").await.parse().expect("an LSN")
    }

    /// One text from the database.
    pub async fn query_one(&self, sql: &str) -> String {
        World::ask(&self.postgres, sql).await
    }

    /// One text from a server.
    pub async fn ask(server: &Postgres, sql: &str) -> String {
        let client = server.client().await.expect("a client");
        let rows = client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        rows.iter()
            .find_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => {
                    Some(row.get(0).unwrap_or_default().to_owned())
                }
                _ => None,
            })
            .unwrap_or_default()
    }

    /// Publishes a table that no rule is for, so that [`World::settle_quickly`] can be used.
    /// Before the daemon starts: afterwards it would be a change of the publication.
    pub async fn publish_heartbeat(&self) {
        let sql = "create table heartbeat (n int); alter publication unstale add table heartbeat";
        self.postgres.execute(sql).await.expect("the heartbeat is published");
    }

    /// Waits until everything that `client` has committed is applied. Of an idle stream the
    /// watermark is only written once a second, which [`World::settle`] has to wait for; this
    /// commits a row of `heartbeat` of its own, and takes some milliseconds.
    pub async fn settle_quickly(
        &self,
        client: &tokio_postgres::Client,
        values: &mut MultiplexedConnection,
    ) {
        // One transaction: the position is below its commit, and above all that went before.
        let beat = "insert into heartbeat values (1); select pg_current_wal_insert_lsn()::text";
        let messages = client.simple_query(beat).await.expect("the heart beats");
        let end = messages.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0)?.parse::<Lsn>().ok(),
            _ => None,
        });
        let end = end.expect("a position");
        let start = Instant::now();
        loop {
            let watermark: Option<String> =
                values.hget("unstale:unstale:state", "watermark").await.expect("HGET");
            if watermark.and_then(|text| text.parse::<Lsn>().ok()).is_some_and(|w| w >= end) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "waited in vain for the watermark to pass {end}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits until everything committed so far is applied.
    pub async fn settle(&self) {
        self.settle_with(&self.postgres).await;
    }

    /// The same of another server, if the daemon follows that one by now.
    pub async fn settle_with(&self, server: &Postgres) {
        let end = World::committed(server).await;
        let what = format!("the watermark to pass {end}");
        until(&what, async || self.has_applied(end).await.then_some(())).await;
    }

    /// The same after much was written.
    pub async fn settle_within(&self, patience: Duration) {
        let end = World::committed(&self.postgres).await;
        let what = format!("the watermark to pass {end}");
        until_for(patience, &what, async || self.has_applied(end).await.then_some(())).await;
    }

    /// Past whatever this server has committed. A commit of our own carries the watermark there.
    pub async fn committed(server: &Postgres) -> Lsn {
        let below = "select pg_logical_emit_message(true, 'test', '')::text; select pg_current_wal_insert_lsn()::text";
        let below = World::ask(server, below).await.parse().unwrap_or_default();
        let flushed = World::ask(server, "select pg_current_wal_flush_lsn()::text").await;
        flushed.parse::<Lsn>().expect("an LSN").max(below)
    }

    /// Whether everything below is applied.
    pub async fn has_applied(&self, end: Lsn) -> bool {
        let watermark = self.state("watermark").await;
        watermark.and_then(|text| text.parse::<Lsn>().ok()).is_some_and(|is| is >= end)
    }
}
