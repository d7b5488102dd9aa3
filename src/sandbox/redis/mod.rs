//! A private Redis.

mod builder;

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use redis::ErrorKind;
use redis::aio::MultiplexedConnection;
use rustix::process::Signal;

pub use builder::RedisBuilder;

use super::error::SandboxError;
use super::folder::Folder;
use super::log;
use super::ports::Port;
use super::process::{END_BOUND, Process};
use super::proxy::Proxy;

const READY_BOUND: Duration = Duration::from_secs(30);
const STOP_BOUND: Duration = Duration::from_secs(30);
/// The crate's default is half a second, which a busy machine may need.
const RESPONSE_BOUND: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(3);
const NAME: &str = "Redis";
const CONF: &str = "redis.conf";

/// A private Redis server, which ends and is removed when dropped.
#[derive(Debug)]
pub struct Redis {
    /// Before the folder: fields are dropped in this order.
    process: Mutex<Option<Arc<Process>>>,
    program: PathBuf,
    password: Option<String>,
    port: Port,
    tls_port: Option<Port>,
    folder: Folder,
}

impl Redis {
    /// Starts with the sandbox's defaults.
    ///
    /// # Errors
    /// Redis is not installed, or it did not start.
    pub async fn start() -> Result<Redis, SandboxError> {
        Redis::builder().start().await
    }

    /// What to start, setting by setting.
    pub fn builder() -> RedisBuilder {
        RedisBuilder::default()
    }

    /// `redis://127.0.0.1:PORT/0`, with the password that `requirepass` set.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_db(0)
    }

    /// The same for another database.
    #[must_use]
    pub fn url_db(&self, database: u32) -> String {
        self.url_at("redis", self.port(), database)
    }

    /// `rediss://127.0.0.1:PORT/DATABASE`, where [`RedisBuilder::tls`] was set.
    #[must_use]
    pub fn tls_url(&self, database: u32) -> Option<String> {
        self.tls_port.as_ref().map(|port| self.url_at("rediss", port.number(), database))
    }

    /// The same for a connection that goes through a proxy.
    #[must_use]
    pub fn url_through(&self, proxy: &Proxy, database: u32) -> String {
        self.url_at("redis", proxy.port(), database)
    }

    fn url_at(&self, scheme: &str, port: u16, database: u32) -> String {
        let password = self.password.as_ref().map_or_else(String::new, |password| {
            format!(":{}@", utf8_percent_encode(password, NON_ALPHANUMERIC))
        });
        format!("{scheme}://{password}{}:{port}/{database}", Ipv4Addr::LOCALHOST)
    }

    /// The unix socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    /// The port. It stays the same over restarts.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Host and port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The process id; `None` while stopped.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.running().filter(|process| process.ended().is_none()).map(|process| process.pid())
    }

    /// The end of the server's log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        log::tail(&self.log())
    }

    /// A connection to database 0, as the default user.
    ///
    /// # Errors
    /// The server is down or refuses.
    pub async fn connection(&self) -> Result<MultiplexedConnection, SandboxError> {
        self.connection_db(0).await
    }

    /// A connection to another database.
    ///
    /// # Errors
    /// The server is down or refuses.
    pub async fn connection_db(
        &self,
        database: u32,
    ) -> Result<MultiplexedConnection, SandboxError> {
        self.connect(database).await.map_err(SandboxError::redis("take a connection"))
    }

    async fn connect(&self, database: u32) -> Result<MultiplexedConnection, redis::RedisError> {
        let config = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(RESPONSE_BOUND))
            .set_response_timeout(Some(RESPONSE_BOUND));
        redis::Client::open(self.url_db(database))?
            .get_multiplexed_async_connection_with_config(&config)
            .await
    }

    /// Stops, and saves first where save points are configured.
    ///
    /// # Errors
    /// It did not stop within half a minute.
    pub async fn stop(&self) -> Result<(), SandboxError> {
        let Some(process) = self.running() else { return Ok(()) };
        process.signal(Signal::TERM);
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

    /// Stops and starts again on the same port; empty, unless save points or
    /// `appendonly` are configured.
    ///
    /// # Errors
    /// It did not stop, or did not come back.
    pub async fn restart(&self) -> Result<(), SandboxError> {
        self.stop().await?;
        self.start_again().await
    }

    /// Kills it: nothing is saved.
    ///
    /// # Errors
    /// It survived.
    pub async fn kill9(&self) -> Result<(), SandboxError> {
        let Some(process) = self.running() else { return Ok(()) };
        if !process.kill().await {
            return Err(self.late("die", END_BOUND));
        }
        *self.process() = None;
        Ok(())
    }

    /// Freezes it: connections stay open, nothing answers.
    pub async fn pause(&self) {
        if let Some(process) = self.running() {
            process.pause().await;
        }
    }

    /// Ends a [`Redis::pause`].
    pub fn resume(&self) {
        if let Some(process) = self.running() {
            process.resume();
        }
    }

    /// Saves all data and puts a copy of the dump aside, which lives as long as
    /// this server's folder.
    ///
    /// # Errors
    /// The server is down, or cannot write.
    pub async fn save_dump(&self) -> Result<PathBuf, SandboxError> {
        let mut connection = self.connection().await?;
        redis::cmd("SAVE")
            .exec_async(&mut connection)
            .await
            .map_err(SandboxError::redis("save a dump"))?;
        let copy = self.folder.path().join(format!("dump-{:016x}.rdb", fastrand::u64(..)));
        fs::copy(self.dump(), &copy).map_err(SandboxError::io("copy Redis' dump"))?;
        Ok(copy)
    }

    /// Kills the server and starts it with an old dump, as a restored backup.
    /// (With `appendonly` on, Redis would not look at it.)
    ///
    /// # Errors
    /// There is no such dump, or the server did not come back.
    pub async fn restore_dump(&self, dump: &Path) -> Result<(), SandboxError> {
        self.kill9().await?;
        fs::copy(dump, self.dump())
            .map_err(SandboxError::io(format!("restore {}", dump.display())))?;
        self.start_again().await
    }

    fn process(&self) -> MutexGuard<'_, Option<Arc<Process>>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dump(&self) -> PathBuf {
        self.folder.path().join("dump.rdb")
    }

    /// What was started, unless it was stopped since. (It may have ended by itself.)
    fn running(&self) -> Option<Arc<Process>> {
        self.process().clone()
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    fn late(&self, what: &'static str, bound: Duration) -> SandboxError {
        SandboxError::Late { server: NAME, what, bound, log: self.log_tail() }
    }

    fn launch(&self) -> Result<Process, SandboxError> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .map_err(SandboxError::io("open Redis' log"))?;
        let errors = log.try_clone().map_err(SandboxError::io("open Redis' log"))?;
        // One that a killed server has left would look like this one's.
        match fs::remove_file(self.socket()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(SandboxError::io("remove Redis' old socket")(error));
            }
            _ => {}
        }
        let mut command = Command::new(&self.program);
        command
            .arg(self.folder.path().join(CONF))
            .current_dir(self.folder.path())
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
        Process::start(command, "redis", Signal::KILL)
            .map_err(SandboxError::io("start redis-server"))
    }

    /// Waits until the server answers, or has ended.
    ///
    /// Redis ends when it cannot have its port, so who answers there is ours,
    /// once it has made the socket in our folder.
    async fn ready(&self, process: &Process) -> Result<(), SandboxError> {
        let start = Instant::now();
        loop {
            if let Some(status) = process.ended() {
                return Err(SandboxError::Ended { server: NAME, status, log: self.log_tail() });
            }
            if self.socket().exists() && self.answers().await {
                return Ok(());
            }
            if start.elapsed() > READY_BOUND {
                return Err(self.late("answer", READY_BOUND));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn answers(&self) -> bool {
        let ping = async {
            let mut connection = self.connect(0).await?;
            redis::cmd("PING").exec_async(&mut connection).await
        };
        match ping.await {
            Ok(()) => true,
            // It answers; not to us, if access lists were set so.
            Err(error) => {
                error.kind() == ErrorKind::AuthenticationFailed
                    || matches!(error.code(), Some("NOAUTH" | "NOPERM" | "WRONGPASS"))
            }
        }
    }
}
