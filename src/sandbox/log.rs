//! The end of a server's log, for errors.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

const BYTES: u64 = 8 * 1024;
const LINES: usize = 30;

/// The last lines of a log, or why it cannot be read.
pub(super) fn tail(log: &Path) -> String {
    read(log).unwrap_or_else(|error| format!("({} cannot be read: {error})", log.display()))
}

fn read(log: &Path) -> io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default().join("\n"))
}

/// Whether a server that ended says that its port was taken. The text is the
/// operating system's, the same from both servers; they run with `LC_ALL=C`.
pub(super) fn says_port_taken(tail: &str) -> bool {
    tail.contains("Address already in use")
}
