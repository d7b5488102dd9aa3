//! What kind of Postgres to start.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::binaries::Binaries;
use super::{NAME, Postgres, data_dir, template};
use crate::sandbox::account::Account;
use crate::sandbox::error::SandboxError;
use crate::sandbox::folder::Folder;
use crate::sandbox::log;
use crate::sandbox::ports::Port;
use crate::sandbox::tls::{self, ServerTls};

const ATTEMPTS: usize = 5;

/// Small and quick, and able to stream. What a caller sets comes after these, and wins.
const DEFAULTS: [(&str, &str); 10] = [
    ("wal_level", "logical"),
    ("max_wal_senders", "20"),
    ("max_replication_slots", "20"),
    // Nobody pulls the plug here: a killed process loses nothing that it has
    // handed to the kernel.
    ("fsync", "off"),
    ("shared_buffers", "32MB"),
    // Files in the data folder go with it; those in /dev/shm outlive a kill -9.
    ("dynamic_shared_memory_type", "mmap"),
    ("log_line_prefix", "%m [%p] %q%u@%d %a "),
    ("log_replication_commands", "on"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
];

/// What kind of Postgres to start: [`Postgres::builder`].
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct PostgresBuilder {
    settings: Vec<(String, String)>,
    hba: Vec<String>,
    tls: Option<ServerTls>,
    programs: Option<PathBuf>,
    environment: Vec<(String, String)>,
}

impl PostgresBuilder {
    /// The installation to start, by the folder of its programs; else the one that is found.
    pub fn programs(mut self, folder: &Path) -> Self {
        self.programs = Some(folder.to_owned());
        self
    }

    /// A variable of the server's environment, such as `LD_PRELOAD`.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A line of `postgresql.conf`; it is quoted here. `fsync` is off by
    /// default, `wal_level` is `logical`.
    pub fn setting(mut self, name: &str, value: impl ToString) -> Self {
        self.settings.push((name.to_owned(), value.to_string()));
        self
    }

    /// Lines of `pg_hba.conf` that come before those that trust everyone on
    /// loopback, such as `host all app 127.0.0.1/32 scram-sha-256`. Leave `local
    /// all postgres trust` true: the sandbox itself comes that way.
    pub fn hba(mut self, lines: &str) -> Self {
        self.hba.push(lines.to_owned());
        self
    }

    /// Lets clients come by TLS as well (`ssl = on`); `hostssl` lines of
    /// [`PostgresBuilder::hba`] make them.
    pub fn tls(mut self, tls: ServerTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Makes a database, starts its server and waits until it answers.
    ///
    /// # Errors
    /// Postgres is not installed, a setting is wrong, or it did not start.
    pub async fn start(self) -> Result<Postgres, SandboxError> {
        let plain = self.settings.is_empty() && self.hba.is_empty();
        let mut settings: Vec<_> =
            DEFAULTS.iter().map(|(name, value)| setting(name, *value)).collect();
        let (own, hba, identity) = (self.settings, self.hba.join("\n"), self.tls);
        let (programs, environment) = (self.programs, self.environment);
        let prepare = move |place: &Place| {
            let data = data_dir(&place.folder);
            template::instantiate(&place.binaries, place.account, &data)?;
            if let Some(identity) = identity {
                // Named by the defaults of ssl_cert_file and ssl_key_file. Relative to the
                // data folder, so that a standby finds its own copies.
                let files = identity.write(&data, place.account)?;
                settings.push(setting("ssl", "on"));
                if files.client_ca.is_some() {
                    settings.push(setting("ssl_ca_file", tls::CLIENT_CA));
                }
            }
            settings.extend(own);
            append_settings(&data, &settings)?;
            let file = data.join("pg_hba.conf");
            fs::read_to_string(&file)
                .and_then(|trusting| fs::write(&file, format!("{hba}\n{trusting}")))
                .map_err(SandboxError::io(format!("write {}", file.display())))
        };
        let find = move || programs.map_or_else(Binaries::find, Binaries::of);
        let place = Place::prepared(find, prepare).await?.with(environment);
        let (binaries, account) = (place.binaries.clone(), place.account);
        let started = place.start().await;
        if plain && matches!(started, Err(SandboxError::Ended { .. })) {
            // No setting of the caller's can be to blame, so the template may be.
            template::forget(&binaries, account)?;
        }
        started
    }
}

/// Where a server is about to run.
pub(super) struct Place {
    pub(super) binaries: Binaries,
    pub(super) account: Account,
    pub(super) folder: Folder,
    /// Of the server alone.
    environment: Vec<(String, String)>,
}

impl Place {
    /// Finds the programs and makes the folder; `prepare` fills it. All of this
    /// blocks, so it leaves the runtime's workers alone.
    pub(super) async fn prepared(
        find: impl FnOnce() -> Result<Binaries, SandboxError> + Send + 'static,
        prepare: impl FnOnce(&Place) -> Result<(), SandboxError> + Send + 'static,
    ) -> Result<Place, SandboxError> {
        let work = tokio::task::spawn_blocking(move || {
            let binaries = find()?;
            let account = Account::for_postgres()?;
            let folder = Folder::create("postgres", account)?;
            let place = Place { binaries, account, folder, environment: Vec::new() };
            prepare(&place)?;
            Ok(place)
        });
        work.await.map_err(|error| SandboxError::io("prepare Postgres")(error.into()))?
    }

    fn with(mut self, environment: Vec<(String, String)>) -> Place {
        self.environment = environment;
        self
    }

    /// Starts the server; on another port if somebody was quicker.
    pub(super) async fn start(self) -> Result<Postgres, SandboxError> {
        let mut server = Postgres {
            process: Mutex::new(None),
            binaries: self.binaries,
            account: self.account,
            port: Port::reserve()?,
            folder: self.folder,
            environment: self.environment,
        };
        let mut attempt = 1;
        loop {
            match server.start_again().await {
                Err(SandboxError::Ended { log, .. })
                    if attempt < ATTEMPTS && log::says_port_taken(&log) =>
                {
                    attempt += 1;
                    server.port = Port::reserve()?;
                }
                Ok(()) => break,
                Err(error) => return Err(error),
            }
        }
        tracing::debug!(server = NAME, port = server.port(), "sandbox server started");
        Ok(server)
    }
}

fn setting(name: &str, value: impl Into<String>) -> (String, String) {
    (name.to_owned(), value.into())
}

pub(super) fn append_settings(
    data: &Path,
    settings: &[(String, String)],
) -> Result<(), SandboxError> {
    let file = data.join("postgresql.conf");
    let mut lines = String::from("\n");
    for (name, value) in settings {
        // In this file a backslash escapes as well (manual, "Parameter Interaction via the
        // Configuration File").
        let value = quote_literal(&value.replace('\\', "\\\\"));
        let _infallible = writeln!(lines, "{name} = {value}");
    }
    fs::read_to_string(&file)
        .and_then(|before| fs::write(&file, before + &lines))
        .map_err(SandboxError::io(format!("write {}", file.display())))
}

/// A string literal of SQL.
pub(super) fn quote_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_cannot_end_its_own_quotes() {
        let data = tempfile::tempdir().unwrap();
        fs::write(data.path().join("postgresql.conf"), "# as initdb left it").unwrap();
        append_settings(data.path(), &[("a".into(), r"it's \ this".into())]).unwrap();
        let written = fs::read_to_string(data.path().join("postgresql.conf")).unwrap();
        assert_eq!(written, "# as initdb left it\na = 'it''s \\\\ this'\n");
    }
}
