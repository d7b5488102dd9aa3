//! Under which account a server runs.

use std::io;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::error::SandboxError;

/// The account that a server runs under: ours, or another one where we are root.
#[derive(Debug, Clone, Copy)]
pub(super) struct Account {
    /// `None`: as ourselves.
    other: Option<(u32, u32)>,
}

impl Account {
    /// As ourselves.
    pub(super) const OURS: Account = Account { other: None };

    /// For Postgres, which refuses to run as root: then as `postgres`.
    pub(super) fn for_postgres() -> Result<Account, SandboxError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Account::OURS);
        }
        let account = "postgres";
        // `id` asks every source of accounts that the system knows, not /etc/passwd alone.
        let id = |which: &str| -> Option<u32> {
            let output = Command::new("id").args([which, account]).output().ok()?;
            String::from_utf8(output.stdout).ok()?.trim().parse().ok()
        };
        match (id("-u"), id("-g")) {
            (Some(uid), Some(gid)) => Ok(Account { other: Some((uid, gid)) }),
            _ => Err(SandboxError::Account { account }),
        }
    }

    /// Lets a command run under this account.
    pub(super) fn run(self, command: &mut Command) {
        if let Some((uid, gid)) = self.other {
            command.uid(uid).gid(gid);
        }
    }

    /// Makes this account the owner of a file or folder.
    pub(super) fn own(self, path: &Path) -> io::Result<()> {
        match self.other {
            Some((uid, gid)) => chown(path, Some(uid), Some(gid)),
            None => Ok(()),
        }
    }

    /// The user id that servers run under.
    pub(super) fn uid(self) -> u32 {
        self.other.map_or_else(|| rustix::process::geteuid().as_raw(), |(uid, _)| uid)
    }
}
