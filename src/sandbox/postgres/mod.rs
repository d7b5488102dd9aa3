//! A private Postgres.

mod binaries;
mod builder;
mod standby;
mod template;

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustix::process::Signal;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

pub use builder::PostgresBuilder;
pub use standby::StandbyBuilder;

use super::account::Account;
use super::error::SandboxError;
use super::folder::Folder;
use super::log;
use super::ports::Port;
use super::process::{END_BOUND, Process};
use super::proxy::Proxy;
use binaries::Binaries;

/// A start may include a long recovery on a busy machine.
const READY_BOUND: Duration = Duration::from_secs(60);
const STOP_BOUND: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);
const NAME: &str = "Postgres";

/// How Postgres is told to stop (manual, "Shutting Down the Server").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Ends sessions, writes a checkpoint; waits for replication to catch up.
    Fast,
    /// Ends at once; the next start recovers from the WAL.
    Immediate,
}

/// A private Postgres server, which ends and is removed when dropped.
///
/// Superuser `postgres`, database `postgres`, no password (unless
/// [`PostgresBuilder::hba`] asks for one), `wal_level = logical`.
#[derive(Debug)]
pub struct Postgres {
    /// Before the folder: fields are dropped in this order.
    process: Mutex<Option<Arc<Process>>>,
    binaries: Binaries,
    account: Account,
    port: Port,
    folder: Folder,
    environment: Vec<(String, String)>,
}

impl Postgres {
    /// Starts with the sandbox's defaults; see [`PostgresBuilder`] for what can be set.
    ///
    /// # Errors
    /// Postgres is not installed, or it did not start.
    pub async fn start() -> Result<Postgres, SandboxError> {
        Postgres::builder().start().await
    }

    /// What to start, setting by setting.
    pub fn builder() -> PostgresBuilder {
        PostgresBuilder::default()
    }

    /// A standby that follows this server by streaming replication.
    pub fn standby(&self) -> StandbyBuilder<'_> {
        StandbyBuilder::new(self)
    }

    /// `postgres://postgres@127.0.0.1:PORT/postgres`: the superuser.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_for("postgres", "postgres")
    }

    /// The same for another user and database. Append `?…` for parameters.
    #[must_use]
    pub fn url_for(&self, user: &str, database: &str) -> String {
        url(user, self.port(), database)
    }

    /// The same for a connection that goes through a proxy.
    #[must_use]
    pub fn url_through(&self, proxy: &Proxy, user: &str, database: &str) -> String {
        url(user, proxy.port(), database)
    }

    /// The same over the unix socket: `postgres:///DATABASE?host=FOLDER&port=PORT&user=USER`.
    #[must_use]
    pub fn socket_url(&self, user: &str, database: &str) -> String {
        format!(
            "postgres:///{}?host={}&port={}&user={}",
            encode(database),
            encode(&self.socket_dir().to_string_lossy()),
            self.port(),
            encode(user),
        )
    }

    /// `127.0.0.1`
    #[must_use]
    pub fn host(&self) -> &'static str {
        "127.0.0.1"
    }

    /// The port, also of the unix socket. It stays the same over restarts.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Host and port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The folder of the unix socket.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        self.folder.path()
    }

    /// `PGDATA`.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        data_dir(&self.folder)
    }

    /// Lets a command run under the account that the server runs under.
    pub fn run_as_owner(&self, command: &mut Command) {
        self.account.run(command);
    }

    /// A program of this server's installation, such as `pg_recvlogical`.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.binaries.program(name)
    }

    /// The end of the server's log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        log::tail(&self.log())
    }

    /// The postmaster's process id; `None` while stopped.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.running().filter(|process| process.ended().is_none()).map(|process| process.pid())
    }

    /// A connection as superuser, by the unix socket. It is driven by a task of
    /// its own, which ends with it.
    ///
    /// # Errors
    /// The server is down or refuses.
    pub async fn client(&self) -> Result<Client, SandboxError> {
        self.client_for("postgres", "postgres").await
    }

    /// The same for another user and database.
    ///
    /// # Errors
    /// The server is down or refuses.
    pub async fn client_for(&self, user: &str, database: &str) -> Result<Client, SandboxError> {
        let (client, connection) = tokio_postgres::Config::new()
            .host_path(self.socket_dir())
            .port(self.port())
            .user(user)
            .dbname(database)
            .application_name("sandbox")
            .connect(NoTls)
            .await
            .map_err(SandboxError::postgres(format!("connect {user} to {database}")))?;
        // How it ends is told to whoever uses the client next.
        tokio::spawn(connection);
        Ok(client)
    }

    /// Runs one or more statements as superuser, on a connection of their own.
    ///
    /// # Errors
    /// The server is down or refuses.
    pub async fn execute(&self, sql: &str) -> Result<(), SandboxError> {
        let client = self.client().await?;
        client.batch_execute(sql).await.map_err(SandboxError::postgres(format!("run {sql:?}")))
    }

    /// Changes a setting and waits until new sessions have it. (One that needs a
    /// restart gets it by [`Postgres::restart`].)
    ///
    /// # Errors
    /// There is no such setting, or the server is down.
    pub async fn set(&self, setting: &str, value: &str) -> Result<(), SandboxError> {
        let before = self.loaded_at().await?;
        self.execute(&format!("alter system set {setting} = {}", builder::quote_literal(value)))
            .await?;
        self.execute("select pg_reload_conf()").await?;
        let start = Instant::now();
        while self.loaded_at().await? == before {
            if start.elapsed() > READY_BOUND {
                return Err(self.late("load its configuration", READY_BOUND));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// When a session that starts now says that its configuration was loaded.
    async fn loaded_at(&self) -> Result<String, SandboxError> {
        let client = self.client().await?;
        let row = client.query_one("select pg_conf_load_time()::text", &[]).await;
        let row = row.map_err(SandboxError::postgres("say when it loaded its configuration"))?;
        Ok(row.get(0))
    }

    /// Stops and starts again, with the same data and port.
    ///
    /// # Errors
    /// It did not stop, or did not come back.
    pub async fn restart(&self, how: Shutdown) -> Result<(), SandboxError> {
        self.stop(how).await?;
        self.start_again().await
    }

    /// Stops. Does nothing where it is stopped.
    ///
    /// # Errors
    /// It did not stop within a minute: a fast shutdown waits for replication
    /// clients to confirm everything.
    pub async fn stop(&self, how: Shutdown) -> Result<(), SandboxError> {
        let Some(process) = self.running() else { return Ok(()) };
        process.signal(match how {
            Shutdown::Fast => Signal::INT,
            Shutdown::Immediate => Signal::QUIT,
        });
        if !process.wait(STOP_BOUND).await {
            return Err(self.late("stop", STOP_BOUND));
        }
        *self.process() = None;
        Ok(())
    }

    /// Starts what was stopped or killed, and waits until it answers.
    ///
    /// # Errors
    /// It runs, or did not start.
    pub async fn start_again(&self) -> Result<(), SandboxError> {
        if self.pid().is_some() {
            return Err(SandboxError::State {
                server: NAME,
                state: "running",
                remedy: "call stop or kill9 first",
            });
        }
        let process = self.launch()?;
        self.ready(&process).await?;
        *self.process() = Some(Arc::new(process));
        Ok(())
    }

    /// Kills the postmaster and all its children, as a crash would.
    ///
    /// # Errors
    /// Something survived it.
    pub async fn kill9(&self) -> Result<(), SandboxError> {
        let Some(process) = self.running() else { return Ok(()) };
        if !process.kill().await {
            return Err(self.late("die", END_BOUND));
        }
        *self.process() = None;
        Ok(())
    }

    /// Freezes the whole server: connections stay open, nothing answers.
    pub async fn pause(&self) {
        if let Some(process) = self.running() {
            process.pause().await;
        }
    }

    /// Ends a [`Postgres::pause`].
    pub fn resume(&self) {
        if let Some(process) = self.running() {
            process.resume();
        }
    }

    /// Makes a standby a primary, and waits until it is.
    ///
    /// # Errors
    /// It is no standby, or it is down.
    pub async fn promote(&self) -> Result<(), SandboxError> {
        let client = self.client().await?;
        let promoted = client.query_one("select pg_promote(true, 60)", &[]).await;
        let promoted = promoted.map_err(SandboxError::postgres("promote itself"))?;
        if promoted.get(0) { Ok(()) } else { Err(self.late("promote itself", READY_BOUND)) }
    }

    fn process(&self) -> MutexGuard<'_, Option<Arc<Process>>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was started, unless it was stopped since. (It may have ended by itself.)
    fn running(&self) -> Option<Arc<Process>> {
        self.process().clone()
    }

    /// The file of the server's log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    fn late(&self, what: &'static str, bound: Duration) -> SandboxError {
        SandboxError::Late { server: NAME, what, bound, log: self.log_tail() }
    }

    /// Starts the postmaster on a data folder that is ready for it.
    fn launch(&self) -> Result<Process, SandboxError> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .map_err(SandboxError::io("open Postgres' log"))?;
        let errors = log.try_clone().map_err(SandboxError::io("open Postgres' log"))?;
        let mut command = Command::new(self.binaries.program("postgres"));
        // What belongs to this place goes by the command line, which a standby's
        // copy of the files and ALTER SYSTEM cannot override.
        command
            .arg("-D")
            .arg(self.data_dir())
            .args(["-c", &format!("listen_addresses={}", Ipv4Addr::LOCALHOST)])
            .args(["-c", &format!("port={}", self.port())])
            .arg("-c")
            .arg(format!("unix_socket_directories={}", self.socket_dir().display()))
            .current_dir(self.folder.path())
            .env("LC_ALL", "C")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
        self.account.run(&mut command);
        Process::start(command, "postgres", Signal::QUIT)
            .map_err(SandboxError::io("start postgres"))
    }

    /// Waits until the server answers, or has ended.
    async fn ready(&self, process: &Process) -> Result<(), SandboxError> {
        let start = Instant::now();
        loop {
            if let Some(status) = process.ended() {
                return Err(SandboxError::Ended { server: NAME, status, log: self.log_tail() });
            }
            match self.client().await {
                Ok(_) => return Ok(()),
                // Not to us, but it answers.
                Err(SandboxError::Postgres { source, .. })
                    if source.code().is_some_and(|code| *code != SqlState::CANNOT_CONNECT_NOW) =>
                {
                    return Ok(());
                }
                Err(_) => {}
            }
            if start.elapsed() > READY_BOUND {
                return Err(self.late("answer", READY_BOUND));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

fn data_dir(folder: &Folder) -> PathBuf {
    folder.path().join("data")
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn url(user: &str, port: u16, database: &str) -> String {
    // Names are mostly plain, and read better so.
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let encode = |text: &str| if plain(text) { text.to_owned() } else { encode(text) };
    format!("postgres://{}@{}:{port}/{}", encode(user), Ipv4Addr::LOCALHOST, encode(database))
}
