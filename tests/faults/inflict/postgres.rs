//! What happens to Postgres and its processes.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use unstale::lsn::Lsn;

use super::OFTEN;
use crate::stage::Stage;
use crate::what::What;

/// What a file of the walsender may hold while the disk is full.
const FULL_AT: &str = "--fsize=64:64";

const WALSENDER: &str =
    "select active_pid::text from pg_replication_slots where slot_name = 'unstale' and active";

impl Stage {
    /// If nobody is in the way.
    pub(super) async fn write(&self, sql: &str) {
        let Ok(client) = self.primary().client().await else { return };
        if client.batch_execute("set lock_timeout = '1s'").await.is_ok() {
            _ = client.batch_execute(sql).await;
        }
    }

    async fn walsender(&self) -> Option<i32> {
        self.answer(WALSENDER).await?.parse().ok()
    }

    /// One text from the database, if it answers.
    pub(super) async fn answer(&self, sql: &str) -> Option<String> {
        let client = self.primary().client().await.ok()?;
        let rows = client.query(sql, &[]).await.ok()?;
        rows.first()?.try_get(0).ok()
    }

    pub(super) async fn freeze_walsender(&self, lasts: Duration) {
        if let Some(pid) = self.walsender().await {
            signal("-STOP", pid);
            tokio::time::sleep(lasts).await;
            signal("-CONT", pid);
        }
    }

    pub(super) async fn end_walsender(&self) {
        if let Some(pid) = self.walsender().await {
            _ = self.answer(&format!("select pg_terminate_backend({pid}, 1000)::text")).await;
        }
    }

    /// The daemon may be back before the slot can be dropped.
    pub(super) async fn drop_slot(&self, lasts: Duration) {
        let start = Instant::now();
        while start.elapsed() < lasts {
            self.end_walsender().await;
            let drop = "select pg_drop_replication_slot('unstale')";
            if self.primary().execute(drop).await.is_ok() {
                return self.ledger.count("slots_dropped");
            }
        }
    }

    /// No file system of a bounded size is to be had everywhere. So the kernel bounds the files
    /// of the process that serves the slot (`RLIMIT_FSIZE`): what it spills and what it saves of
    /// the slot ends in a short write, which Postgres reports as a full disk (53100).
    pub(super) async fn fill_disk(&self, lasts: Duration) {
        let start = Instant::now();
        let mut bounded = None;
        while start.elapsed() < lasts {
            let pid = self.walsender().await;
            if pid != bounded
                && let Some(pid) = pid
                && let Ok(process) = std::fs::metadata(format!("/proc/{pid}"))
            {
                // As the server's own account, which may always bound itself.
                let mut command = Command::new("prlimit");
                command.arg("--pid").arg(pid.to_string()).arg(FULL_AT);
                command.gid(process.gid()).uid(process.uid());
                if command.output().is_ok_and(|output| output.status.success()) {
                    self.ledger.count("disks_filled");
                }
                bounded = Some(pid);
            }
            tokio::time::sleep(OFTEN).await;
        }
        // Whoever is bounded stays so: the next one is not.
        self.end_walsender().await;
    }

    /// For a while nobody waits for the WAL to be written (`synchronous_commit = off`), and then
    /// it is lost.
    pub(super) async fn lose_commits(&self, lasts: Duration) {
        self.hasty.set();
        tokio::time::sleep(lasts).await;
        let postgres = self.primary();
        postgres.kill9().await.unwrap();
        let written = self.ledger.forget_hasty();
        self.hasty.clear();
        postgres.start_again().await.unwrap();
        // Where the WAL ended that the recovery has found.
        let found = self.answer("select redo_lsn::text from pg_control_checkpoint()").await;
        let found = found.and_then(|text| text.parse::<Lsn>().ok());
        if found.zip(written).is_some_and(|(found, written)| found < written) {
            self.ledger.count("commits_lost");
        }
    }

    pub(super) async fn hold_standby(&self, what: What, lasts: Duration) {
        let Some(standby) = self.standby() else { return };
        if what == What::StandbyFrozen {
            standby.pause().await;
            tokio::time::sleep(lasts).await;
            standby.resume();
        } else {
            standby.execute("select pg_wal_replay_pause()").await.unwrap();
            tokio::time::sleep(lasts).await;
            standby.execute("select pg_wal_replay_resume()").await.unwrap();
        }
    }
}

fn signal(signal: &str, pid: i32) {
    _ = Command::new("kill").args([signal, &pid.to_string()]).status();
}
