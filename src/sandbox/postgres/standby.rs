//! A standby by `pg_basebackup`.

use std::process::Command;
use std::time::Duration;

use super::builder::{Place, append_settings};
use super::{Postgres, data_dir, template};
use crate::sandbox::error::SandboxError;

/// What kind of standby to start: [`Postgres::standby`].
#[derive(Debug, Clone)]
#[must_use]
pub struct StandbyBuilder<'a> {
    primary: &'a Postgres,
    application_name: String,
    slot: Option<String>,
    settings: Vec<(String, String)>,
}

impl<'a> StandbyBuilder<'a> {
    pub(super) fn new(primary: &'a Postgres) -> Self {
        StandbyBuilder {
            primary,
            application_name: "standby".to_owned(),
            slot: None,
            settings: Vec::new(),
        }
    }

    /// What `synchronous_standby_names` calls it; `standby` by default.
    pub fn application_name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.application_name);
        self
    }

    /// Makes a physical replication slot on the primary, and follows by that.
    pub fn slot(mut self, name: &str) -> Self {
        self.slot = Some(name.to_owned());
        self
    }

    /// `recovery_min_apply_delay`: commits are replayed this much later.
    pub fn apply_delay(self, delay: Duration) -> Self {
        self.setting("recovery_min_apply_delay", format!("{}ms", delay.as_millis()))
    }

    /// A line of its `postgresql.conf`, after those of the primary.
    pub fn setting(mut self, name: &str, value: impl ToString) -> Self {
        self.settings.push((name.to_owned(), value.to_string()));
        self
    }

    /// Copies the primary, starts the copy and waits until it answers queries.
    ///
    /// # Errors
    /// The primary is down, or the standby did not start.
    pub async fn start(self) -> Result<Postgres, SandboxError> {
        let conninfo = format!(
            "host={} port={} user=postgres application_name={}",
            self.primary.socket_dir().display(),
            self.primary.port(),
            self.application_name,
        );
        let (slot, settings) = (self.slot, self.settings);
        // The primary's own version, whichever would be found.
        let binaries = self.primary.binaries.clone();
        let prepare = move |place: &Place| {
            let data = data_dir(&place.folder);
            let mut backup = Command::new(place.binaries.program("pg_basebackup"));
            backup
                .args(["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast"])
                .args(["--no-sync", "--dbname", &conninfo, "--pgdata"])
                .arg(&data);
            if let Some(slot) = &slot {
                backup.args(["--create-slot", "--slot", slot]);
            }
            template::run(place.account, &mut backup)?;
            append_settings(&data, &settings)
        };
        Place::prepared(move || Ok(binaries), prepare).await?.start().await
    }
}
