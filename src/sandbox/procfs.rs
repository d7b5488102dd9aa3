//! What `/proc` knows of a process: its state, its children, its memory.
//!
//! Postgres' backends each lead a session of their own, so no process group
//! holds a whole server: its family is found here.

use std::path::Path;
use std::{fs, io};

use rustix::process::Pid;

/// The memory that a process holds now, in bytes (`VmRSS`).
///
/// # Errors
/// There is no such process, or it has ended.
pub fn rss_bytes(pid: u32) -> io::Result<u64> {
    status_bytes(pid, "VmRSS:")
}

/// The most memory that a process has held since it started, in bytes (`VmHWM`).
///
/// # Errors
/// There is no such process, or it has ended.
pub fn peak_rss_bytes(pid: u32) -> io::Result<u64> {
    status_bytes(pid, "VmHWM:")
}

fn status_bytes(pid: u32, field: &str) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok())
        .map(|kibibytes| kibibytes.saturating_mul(1024))
        .ok_or_else(|| {
            io::Error::other(format!("process {pid} has no {field} in /proc: it has ended"))
        })
}

/// What `/proc/PID/stat` says of a process.
struct Stat {
    state: char,
    parent: i32,
}

fn stat(pid: Pid) -> Option<Stat> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses, and may hold any of them.
    let mut fields = line.rsplit_once(')')?.1.split_whitespace();
    Some(Stat { state: fields.next()?.chars().next()?, parent: fields.next()?.parse().ok()? })
}

/// Whether a process has ended, whoever has yet to ask how.
pub(super) fn is_gone(pid: Pid) -> bool {
    stat(pid).is_none_or(|stat| matches!(stat.state, 'Z' | 'X'))
}

/// Whether a process stands still by SIGSTOP, or is gone.
pub(super) fn is_still(pid: Pid) -> bool {
    stat(pid).is_none_or(|stat| matches!(stat.state, 'T' | 'Z' | 'X'))
}

/// The processes that `parent` has started and that have not ended.
pub(super) fn children(parent: Pid) -> Vec<Pid> {
    every_process()
        .filter(|&pid| {
            stat(pid).is_some_and(|stat| {
                stat.parent == parent.as_raw_nonzero().get() && !matches!(stat.state, 'Z' | 'X')
            })
        })
        .collect()
}

/// The processes that work in a folder or below it.
pub(super) fn working_in(folder: &Path) -> Vec<Pid> {
    every_process()
        .filter(|pid| {
            fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(folder))
        })
        .collect()
}

fn every_process() -> impl Iterator<Item = Pid> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| Pid::from_raw(entry.ok()?.file_name().to_str()?.parse().ok()?))
}
