//! Where to connect, as whom, and how safely.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

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
    pub(super) host: Host,
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) database: String,
    pub(super) password: Option<SecretString>,
    pub(super) application_name: String,
    /// `options`: server settings for the session.
    pub(super) server_options: Option<String>,
    pub(super) ssl_mode: SslMode,
    pub(super) ssl_root_cert: Option<RootCert>,
    /// Certificate and key.
    pub(super) ssl_client_cert: Option<(PathBuf, PathBuf)>,
    pub(super) channel_binding: ChannelBinding,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) keepalive: Option<Keepalive>,
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

impl From<ConnInfoError> for PgError {
    fn from(error: ConnInfoError) -> PgError {
        PgError::settings(error.what, error.hint)
    }
}

impl ConnectOptions {
    /// Reads a URL. Looks at nothing else: no environment, no files.
    pub fn parse(url: &str) -> Result<ConnectOptions, ConnInfoError> {
        super::url::parse(url)
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
