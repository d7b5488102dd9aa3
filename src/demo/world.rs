//! Where the demo plays: a private Postgres and Redis, loaded, and a configuration that
//! says where they are.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use tempfile::TempDir;
use tokio::process::Command;
use tokio_postgres::Client;
use toml_edit::{DocumentMut, value};

use super::daemon::{self, Daemon};
use super::error::DemoError;
use crate::config::model::Config;
use crate::config::{Diagnostics, File, Layers, Style};
use crate::fill::filler::Filler;
use crate::loader::load::{Bounds, Loader};
use crate::lsn::Lsn;
use crate::metrics::Metrics;
use crate::postgres::conninfo::ConnectOptions;
use crate::rules::Rules;
use crate::sandbox::{Postgres, Redis};
use crate::store::fills::Fills;
use crate::store::keys::ControlKeys;
use crate::store::session::Address;

const SCHEMA: &str = include_str!("../../sql/demo/schema.sql");
const DATA: &str = include_str!("../../sql/demo/data.sql");
const CONFIG: &str = include_str!("../../config/unstale.toml");
/// As `config/unstale.toml` names them.
const FILES: [(&str, &str); 20] = [
    ("caches/README.md", include_str!("../../sql/caches/README.md")),
    (
        "caches/api_analytics.schema.json",
        include_str!("../../sql/caches/api_analytics.schema.json"),
    ),
    ("caches/api_analytics.sql", include_str!("../../sql/caches/api_analytics.sql")),
    (
        "caches/api_dashboard.schema.json",
        include_str!("../../sql/caches/api_dashboard.schema.json"),
    ),
    ("caches/api_dashboard.sql", include_str!("../../sql/caches/api_dashboard.sql")),
    ("caches/api_search.schema.json", include_str!("../../sql/caches/api_search.schema.json")),
    ("caches/api_search.sql", include_str!("../../sql/caches/api_search.sql")),
    (
        "caches/api_statistics.schema.json",
        include_str!("../../sql/caches/api_statistics.schema.json"),
    ),
    ("caches/api_statistics.sql", include_str!("../../sql/caches/api_statistics.sql")),
    ("caches/deal_stats.schema.json", include_str!("../../sql/caches/deal_stats.schema.json")),
    ("caches/deal_stats.sql", include_str!("../../sql/caches/deal_stats.sql")),
    ("caches/identity.sql", include_str!("../../sql/caches/identity.sql")),
    ("caches/org_data.schema.json", include_str!("../../sql/caches/org_data.schema.json")),
    ("caches/org_data.sql", include_str!("../../sql/caches/org_data.sql")),
    ("caches/role_info.schema.json", include_str!("../../sql/caches/role_info.schema.json")),
    ("caches/role_info.sql", include_str!("../../sql/caches/role_info.sql")),
    ("caches/user_perms.schema.json", include_str!("../../sql/caches/user_perms.schema.json")),
    ("caches/user_perms.sql", include_str!("../../sql/caches/user_perms.sql")),
    ("population/organizations.sql", include_str!("../../sql/population/organizations.sql")),
    ("population/users.sql", include_str!("../../sql/population/users.sql")),
];

/// The account that owns the tables, as Django's does.
const OWNER: &str = "app";
const DATABASE: &str = "app";
/// The account that the daemon logs in as.
const DAEMON: &str = "unstale";
const REDIS_DATABASE: u32 = 1;

/// Private servers with the demo's data, and what leads to them.
pub(super) struct World {
    pub(super) postgres: Postgres,
    pub(super) redis: Redis,
    pub(super) admin: SocketAddr,
    pub(super) config: Config,
    pub(super) rules: Rules,
    folder: TempDir,
}

impl World {
    /// Starts the servers and loads them. `rules` is a configuration whose caches and
    /// tables take the place of the default ones.
    pub(super) async fn build(rules: Option<&Path>) -> Result<World, DemoError> {
        let text = match rules {
            None => CONFIG.to_owned(),
            Some(path) => std::fs::read_to_string(path)
                .map_err(DemoError::io(format!("read {}", path.display())))?,
        };
        let (postgres, redis) = tokio::try_join!(Postgres::start(), Redis::start())?;
        let admin = daemon::free_address()?;
        let folder = tempfile::Builder::new()
            .prefix("unstale-demo-")
            .tempdir()
            .map_err(DemoError::io("make a folder for the configuration"))?;
        let text = lead_to(&text, &postgres, &redis, admin)?;
        let file = write(folder.path(), &text)?;

        let layers =
            Layers { file: File::At(file), environment: Vec::new(), overrides: Vec::new() };
        let refuse =
            |diagnostics: Diagnostics| DemoError::Config(diagnostics.render(100, Style::Plain));
        let loaded = layers.load().map_err(refuse)?;
        let rules = Rules::compile(&loaded).map_err(refuse)?;
        let world = World { postgres, redis, admin, config: loaded.config, rules, folder };
        world.load().await?;
        Ok(world)
    }

    /// The demo's configuration file.
    pub(super) fn config_file(&self) -> PathBuf {
        config_file(self.folder.path())
    }

    /// The daemon's log.
    pub(super) fn log_file(&self) -> PathBuf {
        self.folder.path().join("unstale.log")
    }

    pub(super) fn database_url(&self) -> String {
        self.postgres.url_for(OWNER, DATABASE)
    }

    pub(super) fn redis_url(&self) -> String {
        self.redis.url_db(REDIS_DATABASE)
    }

    /// A connection as the application, which owns the tables.
    pub(super) async fn application(&self) -> Result<Client, DemoError> {
        let client = self.postgres.client_for(OWNER, DATABASE).await?;
        // The planner takes a list of parameters for more work than it is.
        client.batch_execute("set jit = off").await.map_err(DemoError::postgres("set jit"))?;
        Ok(client)
    }

    /// A connection to the Redis database that the caches live in.
    pub(super) async fn cache(&self) -> Result<MultiplexedConnection, DemoError> {
        Ok(self.redis.connection_db(REDIS_DATABASE).await?)
    }

    /// One way through the cache, with a connection to each server of its own.
    pub(super) fn filler(&self, metrics: Metrics) -> Result<Filler, DemoError> {
        let refused = |error: &dyn std::fmt::Display| DemoError::Config(error.to_string());
        let connect = ConnectOptions::load(&self.database_url(), None);
        let statement_timeout = self.config.postgres.statement_timeout.get();
        let bounds = Bounds { connections: 1, statement_timeout, wait: statement_timeout };
        let loader = Loader::new(&self.rules, connect.map_err(|e| refused(&e))?, bounds);
        let address = Address::new(&self.config.redis).map_err(|e| refused(&e))?;
        Ok(Filler::new(
            Fills::new(address, ControlKeys::new(&self.config.postgres.slot)),
            loader.map_err(|e| refused(&e))?,
            Arc::clone(&self.rules.mapping),
            &self.config.redis.key_prefix,
            metrics,
        ))
    }

    pub(super) fn start_daemon(&self) -> Result<Daemon, DemoError> {
        Daemon::start(&self.config_file(), self.admin, self.log_file())
    }

    /// A position past everything that has been committed.
    pub(super) async fn end_of_wal(&self, client: &Client) -> Result<Lsn, DemoError> {
        let row = client
            .query_one("select pg_current_wal_flush_lsn()::text", &[])
            .await
            .map_err(DemoError::postgres("say where its WAL ends"))?;
        let text: &str = row.try_get(0).map_err(DemoError::postgres("say where its WAL ends"))?;
        text.parse()
            .map_err(|error: crate::lsn::ParseLsnError| DemoError::Config(error.to_string()))
    }

    /// What a team has before it hears of Unstale, and then what `unstale setup` adds.
    async fn load(&self) -> Result<(), DemoError> {
        let accounts =
            format!("create role {OWNER} login;\ncreate role {DAEMON} login replication;");
        self.postgres.execute(&accounts).await?;
        self.postgres.execute(&format!("create database {DATABASE} owner {OWNER}")).await?;
        let owner = self.postgres.client_for(OWNER, DATABASE).await?;
        for (what, sql) in [("make the demo's tables", SCHEMA), ("take the demo's data", DATA)] {
            owner.batch_execute(sql).await.map_err(DemoError::postgres(what))?;
        }
        self.set_up().await
    }

    /// `unstale setup`, as the tables' owner would run it.
    async fn set_up(&self) -> Result<(), DemoError> {
        let mut command: Command = daemon::ourselves("setup", &self.config_file())?.into();
        command.arg("--as-owner").arg(self.database_url()).kill_on_drop(true);
        let output = command.output().await.map_err(DemoError::io("start unstale setup"))?;
        if output.status.success() {
            return Ok(());
        }
        Err(DemoError::Setup {
            status: output.status,
            said: String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        })
    }
}

fn config_file(folder: &Path) -> PathBuf {
    folder.join("config").join("unstale.toml")
}

/// The configuration as it is, but for where things are.
fn lead_to(
    text: &str,
    postgres: &Postgres,
    redis: &Redis,
    admin: SocketAddr,
) -> Result<String, DemoError> {
    let mut document: DocumentMut =
        text.parse().map_err(|error: toml_edit::TomlError| DemoError::Config(error.to_string()))?;
    for (table, name, setting) in [
        ("postgres", "url", value(postgres.url_for(DAEMON, DATABASE))),
        ("redis", "url", value(redis.url_db(REDIS_DATABASE))),
        ("admin", "listen", value(admin.to_string())),
        ("api", "enabled", value(false)),
    ] {
        let table = document.entry(table).or_insert_with(toml_edit::table);
        match table.as_table_like_mut() {
            Some(table) => _ = table.insert(name, setting),
            None => return Err(DemoError::Config(format!("{name} stands in no table"))),
        }
    }
    Ok(document.to_string())
}

/// Lays out the files as in the repository, so that relative paths hold.
fn write(folder: &Path, config: &str) -> Result<PathBuf, DemoError> {
    let file = config_file(folder);
    let sql = folder.join("sql");
    let lay_out = || {
        std::fs::create_dir_all(folder.join("config"))?;
        std::fs::write(&file, config)?;
        for kind in ["caches", "population"] {
            std::fs::create_dir_all(sql.join(kind))?;
        }
        FILES.iter().try_for_each(|(name, text)| std::fs::write(sql.join(name), text))
    };
    lay_out().map_err(DemoError::io(format!("write to {}", folder.display())))?;
    Ok(file)
}
