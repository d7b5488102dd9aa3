//! What kind of Redis to start.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Mutex;

use super::{CONF, NAME, Redis};
use crate::sandbox::account::Account;
use crate::sandbox::error::SandboxError;
use crate::sandbox::folder::Folder;
use crate::sandbox::log;
use crate::sandbox::ports::Port;
use crate::sandbox::tls::ServerTls;

const ATTEMPTS: usize = 5;
const PROGRAM: &str = "redis-server";

/// What kind of Redis to start: [`Redis::builder`].
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct RedisBuilder {
    settings: Vec<(String, String)>,
    tls: Option<ServerTls>,
    program: Option<PathBuf>,
}

impl RedisBuilder {
    /// Another program than the `redis-server` of this machine: another version, or Valkey.
    pub fn program(mut self, program: PathBuf) -> Self {
        self.program = Some(program);
        self
    }

    /// A line of `redis.conf`, as it stands there: quote what holds spaces and is
    /// one word. May be given more than once (`user`, `save`). By default
    /// nothing is saved: a restart comes back empty.
    pub fn setting(mut self, name: &str, value: impl ToString) -> Self {
        self.settings.push((name.to_owned(), value.to_string()));
        self
    }

    /// Listens for TLS too, on another port: [`Redis::tls_url`].
    pub fn tls(mut self, tls: ServerTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Starts the server and waits until it answers.
    ///
    /// # Errors
    /// Redis is not installed, a setting is wrong, or it did not start.
    pub async fn start(self) -> Result<Redis, SandboxError> {
        let program = self.program.map_or_else(program, Ok)?;
        let password = self
            .settings
            .iter()
            .rfind(|(name, _)| name.eq_ignore_ascii_case("requirepass"))
            .map(|(_, value)| value.trim_matches('"').to_owned());
        let mut server = Redis {
            process: Mutex::new(None),
            program,
            password,
            port: Port::reserve()?,
            tls_port: self.tls.as_ref().map(|_| Port::reserve()).transpose()?,
            folder: Folder::create("redis", Account::OURS)?,
        };
        let mut attempt = 1;
        loop {
            configure(&server, self.tls.as_ref(), &self.settings)?;
            match server.start_again().await {
                Err(SandboxError::Ended { log, .. })
                    if attempt < ATTEMPTS && log::says_port_taken(&log) =>
                {
                    attempt += 1;
                    server.port = Port::reserve()?;
                    server.tls_port = self.tls.as_ref().map(|_| Port::reserve()).transpose()?;
                }
                Ok(()) => break,
                Err(error) => return Err(error),
            }
        }
        tracing::debug!(server = NAME, port = server.port(), "sandbox server started");
        Ok(server)
    }
}

fn configure(
    server: &Redis,
    tls: Option<&ServerTls>,
    settings: &[(String, String)],
) -> Result<(), SandboxError> {
    let mut lines = vec![
        format!("bind {}", Ipv4Addr::LOCALHOST),
        format!("port {}", server.port()),
        format!("unixsocket {}", server.socket().display()),
        "unixsocketperm 700".to_owned(),
        format!("dir {}", server.folder.path().display()),
        "save \"\"".to_owned(),
        "daemonize no".to_owned(),
        "databases 16".to_owned(),
        // DEBUG SLEEP and its like, for tests.
        "enable-debug-command local".to_owned(),
    ];
    if let (Some(tls), Some(port)) = (tls, &server.tls_port) {
        let files = tls.write(server.folder.path(), Account::OURS)?;
        lines.push(format!("tls-port {}", port.number()));
        lines.push(format!("tls-cert-file {}", files.certificate.display()));
        lines.push(format!("tls-key-file {}", files.key.display()));
        match files.client_ca {
            Some(ca) => lines.push(format!("tls-ca-cert-file {}", ca.display())),
            None => lines.push("tls-auth-clients no".to_owned()),
        }
    }
    lines.extend(settings.iter().map(|(name, value)| format!("{name} {value}")));
    let file = server.folder.path().join(CONF);
    fs::write(&file, lines.join("\n") + "\n")
        .map_err(SandboxError::io(format!("write {}", file.display())))
}

/// `UNSTALE_REDIS_SERVER` where it is set, else from PATH.
fn program() -> Result<PathBuf, SandboxError> {
    let missing = |looked: String| SandboxError::Missing {
        program: PROGRAM,
        looked,
        remedy: "run `apt-get install redis-server`, or set UNSTALE_REDIS_SERVER to the program",
    };
    if let Some(program) = std::env::var_os("UNSTALE_REDIS_SERVER") {
        let program = PathBuf::from(program);
        return if program.is_file() {
            Ok(program)
        } else {
            Err(missing(format!("UNSTALE_REDIS_SERVER is {}", program.display())))
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(PROGRAM))
        .find(|program| program.is_file())
        .ok_or_else(|| missing("looked in PATH".to_owned()))
}
