//! The folders that servers live in, and how leftovers go.
//!
//! All lie in one root, `unstale-sandbox-UID` in the system's temporary folder:
//!
//! - `postgres-…`, `redis-…`: one a server. Its `owner` file is locked as long
//!   as the process lives that owns it; the kernel lets go of the lock when
//!   that process ends, however it ends. An unlocked one is a leftover, and the
//!   next sandbox to start removes it.
//! - `template-…`: see `postgres/template.rs`.
//! - `ports/`: see `ports.rs`.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Signal, kill_process};

use super::account::Account;
use super::error::SandboxError;
use super::procfs;

const OWNER: &str = "owner";
const PREFIXES: [&str; 2] = ["postgres-", "redis-"];

/// One server's folder; removed when dropped.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Locked: says that the folder is in use.
    _owner: File,
}

impl Folder {
    /// Makes a folder for a server (`postgres` or `redis`) that runs under `account`.
    pub(super) fn create(server: &str, account: Account) -> Result<Folder, SandboxError> {
        let root = root()?;
        sweep(&root);
        // It gets the name that the sweep looks for once it is locked.
        let fresh = tempfile::Builder::new()
            .prefix("new-")
            .tempdir_in(&root)
            .map_err(SandboxError::io(format!("make a folder in {}", root.display())))?;
        let owner = lock(&fresh.path().join(OWNER), FlockOperation::NonBlockingLockExclusive)?;
        account
            .own(fresh.path())
            .map_err(SandboxError::io(format!("give away {}", fresh.path().display())))?;
        let suffix = fresh.path().file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let path = root.join(suffix.replacen("new", server, 1));
        fs::rename(fresh.path(), &path)
            .map_err(SandboxError::io(format!("make {}", path.display())))?;
        let _moved = fresh.keep();
        Ok(Folder { path, _owner: owner })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(folder = %self.path.display(), %error, "a sandbox's folder was left behind");
        }
    }
}

/// The folder of all sandboxes of this user.
///
/// The temporary folder is everyone's, and the name can be guessed: what
/// somebody else may write to is refused.
pub(super) fn root() -> Result<PathBuf, SandboxError> {
    let uid = rustix::process::geteuid();
    let path = std::env::temp_dir().join(format!("unstale-sandbox-{}", uid.as_raw()));
    // Servers may run under another account: it must be able to pass through.
    match DirBuilder::new().mode(0o711).create(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(SandboxError::io(format!("make {}", path.display()))(error));
        }
        _ => {}
    }
    let refuse = |why: String| Err(SandboxError::Folder { path: path.clone(), why });
    match fs::symlink_metadata(&path) {
        Err(error) => refuse(error.to_string()),
        Ok(found) if !found.is_dir() => refuse("it is not a folder".to_owned()),
        Ok(found) if found.uid() != uid.as_raw() => {
            refuse(format!("it belongs to user {}", found.uid()))
        }
        Ok(found) if found.permissions().mode() & 0o022 != 0 => {
            refuse("others may write to it".to_owned())
        }
        Ok(_) => Ok(path),
    }
}

/// Opens a file and locks it as long as it stays open; waits, unless told not to.
pub(super) fn lock(path: &Path, how: FlockOperation) -> Result<File, SandboxError> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(SandboxError::io(format!("open {}", path.display())))?;
    loop {
        match flock(&file, how) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                return Err(SandboxError::io(format!("lock {}", path.display()))(error.into()));
            }
        }
    }
}

/// Removes what killed processes left behind. What cannot be removed now is
/// left to the next sweep.
fn sweep(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| PREFIXES.iter().any(|p| name.starts_with(p)));
        let path = entry.path();
        let owner = path.join(OWNER);
        if ours
            && owner.exists()
            && let Ok(_owner) = lock(&owner, FlockOperation::NonBlockingLockExclusive)
        {
            // Children of a server that was killed while it stood still.
            for pid in procfs::working_in(&path) {
                let _gone = kill_process(pid, Signal::KILL);
            }
            let _kept = fs::remove_dir_all(&path);
        }
    }
}
