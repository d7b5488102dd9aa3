//! What a server leaves behind that was killed: processes, shared memory, files.

use std::path::Path;
use std::{fs, io};

use rustix::process::{Signal, kill_process};

use super::procfs;

/// Removes a server's folder, and what else is left of the server.
pub(super) fn clear(folder: &Path) -> io::Result<()> {
    // Children of a Postgres that was killed while it stood still.
    for pid in procfs::working_in(folder) {
        let _gone = kill_process(pid, Signal::KILL);
    }
    if let Some(segment) = segment(&folder.join("data/postmaster.pid")) {
        segment.remove();
    }
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A segment of System V shared memory. Every Postgres has one, of 56 bytes, to
/// tell whether another one uses its data folder. A killed one leaves it to the
/// next start; the kernel allows some thousand on a machine.
struct Segment {
    key: u64,
    id: i32,
}

/// The one that a lock file speaks of, in its seventh line (Postgres' pidfile.h,
/// `LOCK_FILE_LINE_SHMEM_KEY`). A server that ended in peace has removed the file.
fn segment(lock_file: &Path) -> Option<Segment> {
    let text = fs::read_to_string(lock_file).ok()?;
    let mut numbers = text.lines().nth(6)?.split_whitespace();
    Some(Segment { key: numbers.next()?.parse().ok()?, id: numbers.next()?.parse().ok()? })
}

impl Segment {
    /// Removes it, if it still is that server's. Where a killed child of the server is not
    /// quite gone yet, the kernel does so once it is (shmctl(2), `IPC_RMID`): to wait for
    /// nobody being attached would leave it for ever, since the file that names it goes now.
    fn remove(&self) {
        let segments = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
        let is_left = |line: &str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // key, shmid, perms, size, …: proc_sysvipc_shm(5).
            let [key, id, ..] = fields.as_slice() else { return false };
            // Postgres prints the signed key as an unsigned number.
            key.parse::<i64>().is_ok_and(|key| key.cast_unsigned() == self.key)
                && id.parse() == Ok(self.id)
        };
        if segments.lines().any(is_left) {
            #[expect(unsafe_code, reason = "the standard library knows nothing of System V")]
            // SAFETY: IPC_RMID takes no buffer, and no pointer of ours leads into the segment.
            let _gone = unsafe { libc::shmctl(self.id, libc::IPC_RMID, std::ptr::null_mut()) };
        }
    }
}
