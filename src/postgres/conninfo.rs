//! Where to connect, as whom, and how safely: a URL as libpq reads it (manual,
//! "Connection Strings" and "Parameter Key Words").
//!
//! What differs from libpq, on purpose: an unknown parameter is an error that lists the
//! known ones; user, database and host must be named, since a daemon has no use for a
//! guess; several hosts and `sslmode=allow` are refused; no certificate is picked up from
//! a home folder. Errors never quote what may be a part of a password: one that holds an
//! unescaped `@` or `/` shifts every part of the URL.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use secrecy::SecretString;

use super::error::PgError;
use super::password::PasswordSources;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A name or an address.
    Tcp(String),
    /// The folder of a unix socket.
    Unix(PathBuf),
}

/// `sslmode`, without `allow`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    /// Never encrypt.
    Disable,
    /// Encrypt if the server can; verify nothing. libpq's default, and so ours.
    Prefer,
    /// Encrypt. Without `sslrootcert` the certificate is not verified; with it as by `verify-ca`.
    Require,
    /// The certificate must come from a trusted authority.
    VerifyCa,
    /// The certificate must also be the host's.
    VerifyFull,
}

/// `sslrootcert`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootCert {
    /// What the operating system trusts.
    System,
    /// A file of PEM certificates.
    File(PathBuf),
}

/// `channel_binding`: ties a SCRAM login to the TLS session, so that nobody can relay it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Do not.
    Disable,
    /// When the server offers it.
    Prefer,
    /// Refuse any login without it.
    Require,
}

/// TCP keepalive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Idle time before the first probe.
    pub idle: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Lost probes until the connection counts as lost.
    pub count: u32,
}

/// Everything that it takes to connect. Debug output leaves the password out.
#[derive(Clone)]
pub struct ConnectOptions {
    host: Host,
    port: u16,
    user: String,
    database: String,
    password: Option<SecretString>,
    application_name: String,
    /// `options`: server settings for the session.
    server_options: Option<String>,
    ssl_mode: SslMode,
    ssl_root_cert: Option<RootCert>,
    /// Certificate and key.
    ssl_client_cert: Option<(PathBuf, PathBuf)>,
    channel_binding: ChannelBinding,
    connect_timeout: Option<Duration>,
    keepalive: Option<Keepalive>,
}

/// Why a connection URL was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {hint}")]
pub struct ConnInfoError {
    /// What is wrong.
    pub what: String,
    /// What is allowed.
    pub hint: String,
}

fn wrong(what: impl Into<String>, hint: impl Into<String>) -> ConnInfoError {
    ConnInfoError { what: what.into(), hint: hint.into() }
}

impl From<ConnInfoError> for PgError {
    fn from(error: ConnInfoError) -> PgError {
        PgError::settings(error.what, error.hint)
    }
}

const SHAPE: &str = "write postgres://user@host:port/database, or \
                     postgres:///database?host=/socket/folder&user=user";
const ESCAPE: &str = "write special characters of a user, password or database as %XX \
                      (@ is %40, : is %3A, / is %2F, ? is %3F, % is %25)";

/// The parameters behind `?`, in the order in which an error lists them.
const PARAMETERS: [&str; 18] = [
    "host",
    "port",
    "user",
    "password",
    "dbname",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "channel_binding",
    "application_name",
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "options",
    "client_encoding",
];

impl ConnectOptions {
    /// Reads a URL. Looks at nothing else: no environment, no files.
    pub fn parse(url: &str) -> Result<ConnectOptions, ConnInfoError> {
        let rest = url
            .strip_prefix("postgres://")
            .or_else(|| url.strip_prefix("postgresql://"))
            .ok_or_else(|| wrong("this is no Postgres URL", SHAPE))?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(end);
        if tail.contains('@') {
            return Err(wrong("an @ stands behind the host", ESCAPE));
        }
        let (path, query) = match tail.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (tail, None),
        };

        let mut draft = Draft::default();
        draft.authority(authority)?;
        draft.database = non_empty(decode(path.strip_prefix('/').unwrap_or(path), "database")?);
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            draft.parameter(&decode(name, "parameter")?, decode(value, "parameter")?)?;
        }
        draft.finish()
    }

    /// Reads a URL and finds the password: the URL's own, else `explicit` (the
    /// configuration's), else `PGPASSWORD`, else `.pgpass`.
    pub fn load(url: &str, explicit: Option<SecretString>) -> Result<ConnectOptions, PgError> {
        ConnectOptions::parse(url)?.find_password(explicit, &PasswordSources::from_environment())
    }

    pub(super) fn find_password(
        mut self,
        explicit: Option<SecretString>,
        sources: &PasswordSources,
    ) -> Result<ConnectOptions, PgError> {
        if self.password.is_none() {
            self.password = match explicit {
                Some(password) => Some(password),
                None => sources.find(&self)?,
            };
        }
        Ok(self)
    }

    /// Under another name in `pg_stat_activity`.
    #[must_use]
    pub fn with_application_name(mut self, name: &str) -> ConnectOptions {
        name.clone_into(&mut self.application_name);
        self
    }

    /// To the same place as another role.
    #[must_use]
    pub fn with_user(mut self, user: &str, password: Option<SecretString>) -> ConnectOptions {
        user.clone_into(&mut self.user);
        self.password = password;
        self
    }

    /// Where the server listens.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port; of a unix socket, the number in its file's name.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The role.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The database.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The name in `pg_stat_activity`.
    #[must_use]
    pub fn application_name(&self) -> &str {
        &self.application_name
    }

    /// How safe the connection must be.
    #[must_use]
    pub fn ssl_mode(&self) -> SslMode {
        self.ssl_mode
    }

    pub(super) fn password(&self) -> Option<&SecretString> {
        self.password.as_ref()
    }

    pub(super) fn server_options(&self) -> Option<&str> {
        self.server_options.as_deref()
    }

    pub(super) fn ssl_root_cert(&self) -> Option<&RootCert> {
        self.ssl_root_cert.as_ref()
    }

    pub(super) fn ssl_client_cert(&self) -> Option<&(PathBuf, PathBuf)> {
        self.ssl_client_cert.as_ref()
    }

    pub(super) fn channel_binding(&self) -> ChannelBinding {
        self.channel_binding
    }

    pub(super) fn connect_timeout(&self) -> Option<Duration> {
        self.connect_timeout
    }

    pub(super) fn keepalive(&self) -> Option<Keepalive> {
        self.keepalive
    }

    /// The address, for messages: `host:port` or the socket's path.
    pub(super) fn address(&self) -> String {
        match &self.host {
            Host::Tcp(host) if host.contains(':') => format!("[{host}]:{}", self.port),
            Host::Tcp(host) => format!("{host}:{}", self.port),
            Host::Unix(folder) => {
                folder.join(format!(".s.PGSQL.{}", self.port)).display().to_string()
            }
        }
    }
}

impl fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectOptions")
            .field("address", &self.address())
            .field("user", &self.user)
            .field("database", &self.database)
            .field("ssl_mode", &self.ssl_mode)
            .field("application_name", &self.application_name)
            .finish_non_exhaustive()
    }
}

/// What has been read of a URL so far.
#[derive(Default)]
struct Draft {
    host: Option<String>,
    port: Option<u16>,
    user: Option<String>,
    password: Option<SecretString>,
    database: Option<String>,
    application_name: Option<String>,
    server_options: Option<String>,
    ssl_mode: Option<SslMode>,
    ssl_root_cert: Option<RootCert>,
    ssl_cert: Option<PathBuf>,
    ssl_key: Option<PathBuf>,
    channel_binding: Option<ChannelBinding>,
    connect_timeout: Option<u32>,
    keepalives: Option<bool>,
    keepalives_idle: Option<u32>,
    keepalives_interval: Option<u32>,
    keepalives_count: Option<u32>,
}

impl Draft {
    /// `user:password@host:port`
    fn authority(&mut self, authority: &str) -> Result<(), ConnInfoError> {
        let (login, place) = match authority.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, authority),
        };
        if let Some(login) = login {
            let (user, password) = match login.split_once(':') {
                Some((user, password)) => (user, Some(password)),
                None => (login, None),
            };
            self.user = non_empty(decode(user, "user")?);
            if let Some(password) = password {
                self.password = non_empty(decode(password, "password")?).map(SecretString::from);
            }
        }
        let (host, port) = match place.strip_prefix('[') {
            Some(bracketed) => {
                let (address, behind) = bracketed
                    .split_once(']')
                    .ok_or_else(|| wrong("an IPv6 address has no closing bracket", SHAPE))?;
                let port = match behind.strip_prefix(':') {
                    None if behind.is_empty() => None,
                    Some(port) => Some(port),
                    None => return Err(wrong("text stands behind an IPv6 address", SHAPE)),
                };
                (address, port)
            }
            None => match place.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (place, None),
            },
        };
        self.host = non_empty(decode(host, "host")?);
        self.port = port.filter(|port| !port.is_empty()).map(read_port).transpose()?;
        Ok(())
    }

    fn parameter(&mut self, name: &str, value: String) -> Result<(), ConnInfoError> {
        match name {
            "host" => self.host = non_empty(value),
            "port" => self.port = Some(read_port(&value)?),
            "user" => self.user = non_empty(value),
            "password" => self.password = non_empty(value).map(SecretString::from),
            "dbname" => self.database = non_empty(value),
            "sslmode" => self.ssl_mode = Some(read_ssl_mode(&value)?),
            "sslrootcert" => {
                self.ssl_root_cert = non_empty(value).map(|value| match value.as_str() {
                    "system" => RootCert::System,
                    _ => RootCert::File(value.into()),
                });
            }
            "sslcert" => self.ssl_cert = non_empty(value).map(PathBuf::from),
            "sslkey" => self.ssl_key = non_empty(value).map(PathBuf::from),
            "channel_binding" => {
                self.channel_binding = Some(match value.as_str() {
                    "disable" => ChannelBinding::Disable,
                    "prefer" => ChannelBinding::Prefer,
                    "require" => ChannelBinding::Require,
                    _ => return Err(one_of(name, &value, "disable, prefer, require")),
                });
            }
            "application_name" => self.application_name = non_empty(value),
            "options" => self.server_options = non_empty(value),
            "connect_timeout" => self.connect_timeout = Some(read_number(name, &value)?),
            "keepalives" => {
                self.keepalives = Some(match value.as_str() {
                    "0" => false,
                    "1" => true,
                    _ => return Err(one_of(name, &value, "0, 1")),
                });
            }
            "keepalives_idle" => self.keepalives_idle = Some(read_number(name, &value)?),
            "keepalives_interval" => self.keepalives_interval = Some(read_number(name, &value)?),
            "keepalives_count" => self.keepalives_count = Some(read_number(name, &value)?),
            // Written by many tools. The stream is always read as UTF-8.
            "client_encoding" => match value.to_ascii_lowercase().as_str() {
                "utf8" | "utf-8" | "unicode" => {}
                _ => return Err(one_of(name, &value, "UTF8")),
            },
            _ => {
                return Err(wrong(
                    format!("the parameter {name:?} is not known"),
                    format!("known are: {}", PARAMETERS.join(", ")),
                ));
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<ConnectOptions, ConnInfoError> {
        let host = self.host.ok_or_else(|| wrong("the URL names no host", SHAPE))?;
        if host.contains(',') {
            return Err(wrong(
                "the URL names several hosts",
                "name the primary alone: a slot lives on one server",
            ));
        }
        let host = match host.as_bytes().first() {
            Some(b'/') => Host::Unix(host.into()),
            Some(b'@') => {
                return Err(wrong(
                    "abstract unix sockets are not supported",
                    "name the folder of a socket in the file system",
                ));
            }
            _ => Host::Tcp(host),
        };
        // With the system's authorities anybody can have a certificate: only the name tells
        // the server apart (libpq has the same rule).
        let system = self.ssl_root_cert == Some(RootCert::System);
        let ssl_mode = match self.ssl_mode {
            None if system => SslMode::VerifyFull,
            Some(mode) if system && mode != SslMode::VerifyFull => {
                return Err(wrong(
                    "sslrootcert=system needs sslmode=verify-full",
                    "leave sslmode out, or name a file of your own authority",
                ));
            }
            mode => mode.unwrap_or(SslMode::Prefer),
        };
        if ssl_mode == SslMode::VerifyCa && self.ssl_root_cert.is_none() {
            return Err(wrong(
                "sslmode=verify-ca needs sslrootcert",
                "name the file of your authority's certificate, or use sslmode=verify-full",
            ));
        }
        let ssl_client_cert = match (self.ssl_cert, self.ssl_key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return Err(wrong("sslcert and sslkey go together", "name both, or none")),
        };
        let channel_binding = self.channel_binding.unwrap_or(ChannelBinding::Prefer);
        let encrypted = ssl_mode != SslMode::Disable && !matches!(host, Host::Unix(_));
        if channel_binding == ChannelBinding::Require && !encrypted {
            return Err(wrong(
                "channel_binding=require needs TLS, which a unix socket and sslmode=disable lack",
                "use sslmode=require or better on a TCP connection, or leave channel_binding out",
            ));
        }
        let seconds = |given: Option<u32>, default: u32| {
            Duration::from_secs(given.filter(|&n| n > 0).unwrap_or(default).into())
        };
        Ok(ConnectOptions {
            host,
            port: self.port.unwrap_or(5432),
            user: self.user.ok_or_else(|| wrong("the URL names no user", SHAPE))?,
            database: self.database.ok_or_else(|| wrong("the URL names no database", SHAPE))?,
            password: self.password,
            application_name: self.application_name.unwrap_or_else(|| "unstale".to_owned()),
            server_options: self.server_options,
            ssl_mode,
            ssl_root_cert: self.ssl_root_cert,
            ssl_client_cert,
            channel_binding,
            connect_timeout: match self.connect_timeout {
                Some(0) => None, // as libpq: wait for ever
                given => Some(seconds(given, 10)),
            },
            // The system's default of two hours would leave a vanished server unnoticed.
            keepalive: self.keepalives.unwrap_or(true).then(|| Keepalive {
                idle: seconds(self.keepalives_idle, 30),
                interval: seconds(self.keepalives_interval, 10),
                count: self.keepalives_count.filter(|&n| n > 0).unwrap_or(3),
            }),
        })
    }
}

fn non_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// Takes %XX apart. Unlike the crate's own decoder, a lone % is an error: it is nearly
/// always a password that somebody forgot to escape.
fn decode(text: &str, part: &str) -> Result<String, ConnInfoError> {
    let mut rest = text.as_bytes();
    while let Some(at) = memchr::memchr(b'%', rest) {
        let (_, tail) = rest.split_at(at);
        match tail {
            [_, a, b, tail @ ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => rest = tail,
            _ => return Err(wrong(format!("a % without two digits in the {part}"), ESCAPE)),
        }
    }
    let text = percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| wrong(format!("the {part} is not UTF-8"), ESCAPE))?;
    if text.contains('\0') {
        return Err(wrong(format!("the {part} holds a zero byte"), ESCAPE));
    }
    Ok(text.into_owned())
}

fn read_port(text: &str) -> Result<u16, ConnInfoError> {
    if text.contains(',') {
        return Err(wrong(
            "the URL names several ports",
            "name the primary alone: a slot lives on one server",
        ));
    }
    // Not quoted: behind an unescaped password it may be a part of that.
    text.parse::<u16>().ok().filter(|&port| port > 0).ok_or_else(|| {
        wrong("the port is not a number between 1 and 65535", format!("{SHAPE}; {ESCAPE}"))
    })
}

fn read_ssl_mode(value: &str) -> Result<SslMode, ConnInfoError> {
    Ok(match value {
        "disable" => SslMode::Disable,
        "prefer" => SslMode::Prefer,
        "require" => SslMode::Require,
        "verify-ca" => SslMode::VerifyCa,
        "verify-full" => SslMode::VerifyFull,
        "allow" => {
            return Err(wrong(
                "sslmode=allow is not supported",
                "it encrypts only when the server insists: use prefer, or better verify-full",
            ));
        }
        _ => {
            let allowed = "disable, prefer, require, verify-ca, verify-full";
            return Err(one_of("sslmode", value, allowed));
        }
    })
}

fn read_number(name: &str, value: &str) -> Result<u32, ConnInfoError> {
    value.trim().parse().map_err(|_| one_of(name, value, "a whole number (of seconds)"))
}

fn one_of(name: &str, value: &str, allowed: &str) -> ConnInfoError {
    wrong(format!("{name}={value} is not understood"), format!("allowed: {allowed}"))
}
