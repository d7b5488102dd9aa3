//! A wall clock that a test can set, for a process of its own: libfaketime (on Debian: faketime).
//! The monotonic clock goes on as it does when an administrator sets the other.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

pub struct Clock {
    library: PathBuf,
    folder: tempfile::TempDir,
}

impl Clock {
    /// Right, for now.
    pub fn new() -> Clock {
        let library = std::env::var_os("LIBFAKETIME").map(PathBuf::from).or_else(|| {
            let folders = std::fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path());
            let files = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1"));
            files.into_iter().find(|file| file.is_file())
        });
        let library = library
            .expect("libfaketime is missing (on Debian: faketime): run `scripts/setup.sh tests`");
        // Servers read it under another account.
        let open = std::fs::Permissions::from_mode(0o755);
        let folder = tempfile::Builder::new().permissions(open).tempdir().expect("a folder");
        let clock = Clock { library, folder };
        clock.set("+0");
        clock
    }

    /// Sets it by so much beside the right time, such as `-9h` or `+30d`.
    pub fn set(&self, by: &str) {
        let draft = self.folder.path().join("draft");
        std::fs::write(&draft, format!("{by}\n")).expect("the clock's file");
        // Whole or not at all: it is read at any time.
        std::fs::rename(draft, self.file()).expect("the clock's file");
    }

    /// The environment of whoever is to go by it.
    pub fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file().display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DISABLE_SHM", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("clock")
    }
}
