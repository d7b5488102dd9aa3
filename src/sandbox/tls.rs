//! What a server shows of itself, and asks of its clients, over TLS.

use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::account::Account;
use super::error::SandboxError;

const CERTIFICATE: &str = "server.crt";
const KEY: &str = "server.key";
pub(super) const CLIENT_CA: &str = "client-ca.crt";

/// A server's certificate and key, in PEM; for
/// [`PostgresBuilder::tls`](super::PostgresBuilder::tls) and
/// [`RedisBuilder::tls`](super::RedisBuilder::tls).
#[derive(Clone)]
pub struct ServerTls {
    /// The certificate, and after it those that lead to the root, if any.
    pub certificate: String,
    /// Its private key.
    pub key: String,
    /// Who signs client certificates. Redis then demands one of every client,
    /// Postgres where a line of `pg_hba.conf` says so.
    pub client_ca: Option<String>,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").finish_non_exhaustive()
    }
}

/// Where [`ServerTls::write`] has put it.
pub(super) struct Files {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    pub(super) client_ca: Option<PathBuf>,
}

impl ServerTls {
    /// Writes it into a server's folder, readable by the server alone: Postgres
    /// refuses a key that others may read.
    pub(super) fn write(&self, folder: &Path, account: Account) -> Result<Files, SandboxError> {
        let put = |name: &str, pem: &str| {
            let path = folder.join(name);
            // One of an earlier start would keep its permissions.
            let _none = fs::remove_file(&path);
            File::options()
                .create_new(true)
                .write(true)
                .mode(0o600)
                .open(&path)
                .and_then(|mut file| file.write_all(pem.as_bytes()))
                .and_then(|()| account.own(&path))
                .map_err(SandboxError::io(format!("write {}", path.display())))?;
            Ok(path)
        };
        Ok(Files {
            certificate: put(CERTIFICATE, &self.certificate)?,
            key: put(KEY, &self.key)?,
            client_ca: self.client_ca.as_deref().map(|pem| put(CLIENT_CA, pem)).transpose()?,
        })
    }
}
