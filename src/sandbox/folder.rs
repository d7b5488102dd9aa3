//! The folders that servers live in, and how leftovers go.
//!
//! All lie in one root, `unstale-sandbox-UID` in the system's temporary folder:
//!
//! - `postgres-…`, `redis-…`: one a server. Beside it lies `….owner`, locked as
//!   long as the process lives that owns the server: the kernel lets go of the
//!   lock when that process ends, however it ends. A folder whose lock is free
//!   is a leftover, and the next sandbox to start removes it.
//! - `template-…`: see `postgres/template.rs`.
//! - `ports/`: see `ports.rs`.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, IFlags, flock, ioctl_getflags, ioctl_setflags};

use super::account::Account;
use super::error::SandboxError;
use super::leftovers;

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
        let path = root.join(format!("{server}-{:08x}", fastrand::u32(..)));
        // Before the folder, so that no sweep ever sees one of a living owner unlocked.
        let owner = lock(&owner_of(&path), FlockOperation::NonBlockingLockExclusive)?;
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .and_then(|()| account.own(&path))
            .map_err(SandboxError::io(format!("make {}", path.display())))?;
        Ok(Folder { path, _owner: owner })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            tracing::warn!(folder = %self.path.display(), %error, "a sandbox's folder was left behind");
        }
    }
}

fn owner_of(folder: &Path) -> PathBuf {
    folder.with_extension("owner")
}

/// Removes a folder whose lock we hold. The lock file goes last: while there is a
/// folder, there is something to lock.
fn remove(folder: &Path) -> std::io::Result<()> {
    leftovers::clear(folder)?;
    fs::remove_file(owner_of(folder))
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
        Ok(()) => spread(&path),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(SandboxError::io(format!("make {}", path.display()))(error)),
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

/// Asks the file system to put each server's folder in another place.
///
/// A server is a thousand small files that live for seconds. ext4 keeps away
/// from inodes that were freed a moment ago, and looks at each of them again for
/// every file it makes nearby: after some dozens of servers a copy took a second
/// instead of 40 ms. Folders below a top-level one (`chattr +T`) are spread over
/// the disk. Elsewhere it is not needed, or not known.
fn spread(root: &Path) {
    let _not_known = File::open(root).map(|root| {
        let flags = ioctl_getflags(&root)?;
        ioctl_setflags(&root, flags | IFlags::TOPDIR)
    });
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
        let is_server = |name: &str| PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        let folder = entry.path();
        if name.to_str().is_some_and(is_server)
            && entry.file_type().is_ok_and(|kind| kind.is_dir())
            && let Ok(_owner) = lock(&owner_of(&folder), FlockOperation::NonBlockingLockExclusive)
            && let Err(error) = remove(&folder)
        {
            tracing::debug!(folder = %folder.display(), %error, "left to the next sandbox");
        }
    }
}
