//! Where Postgres' server programs are.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::sandbox::error::SandboxError;

/// Protocol version 3 of `pgoutput` and `pg_stat_replication_slots` need it.
const OLDEST: u32 = 15;

/// A folder with Postgres' server programs.
#[derive(Debug, Clone)]
pub(super) struct Binaries {
    folder: PathBuf,
    /// As `postgres --version` prints it.
    version: String,
}

impl Binaries {
    /// `UNSTALE_PG_BIN` where it is set; else the first that will do of
    /// `pg_config --bindir`, Debian's folders (newest first), and PATH.
    pub(super) fn find() -> Result<Binaries, SandboxError> {
        let candidates = match env::var_os("UNSTALE_PG_BIN") {
            // Who names a folder wants that one, or to know what is wrong with it.
            Some(folder) => vec![PathBuf::from(folder)],
            None => pg_config().into_iter().chain(debian()).chain(path()).collect(),
        };
        let mut looked = Vec::new();
        for folder in candidates {
            match Binaries::in_folder(&folder) {
                Ok(found) => return Ok(found),
                Err(why) => looked.push(format!("{}: {why}", folder.display())),
            }
        }
        Err(SandboxError::Missing {
            program: "postgres",
            looked: if looked.is_empty() {
                "looked everywhere".to_owned()
            } else {
                looked.join("; ")
            },
            remedy: "run `apt-get install postgresql` (15 or later), \
                     or point UNSTALE_PG_BIN at the folder that holds initdb and postgres",
        })
    }

    /// Those in this folder.
    pub(super) fn of(folder: PathBuf) -> Result<Binaries, SandboxError> {
        Binaries::in_folder(&folder).map_err(|why| SandboxError::Missing {
            program: "postgres",
            looked: format!("{}: {why}", folder.display()),
            remedy: "name the folder that holds initdb and postgres",
        })
    }

    fn in_folder(folder: &Path) -> Result<Binaries, String> {
        for program in ["postgres", "initdb"] {
            if !folder.join(program).is_file() {
                return Err(format!("no {program}"));
            }
        }
        let version = output(Command::new(folder.join("postgres")).arg("--version"))
            .ok_or("postgres --version failed")?;
        match major(&version) {
            Some(major) if major >= OLDEST => Ok(Binaries { folder: folder.to_owned(), version }),
            _ => Err(format!("{version:?} is older than {OLDEST}")),
        }
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Whether the installation has this program: some are packaged with little but the server.
    pub(super) fn has(&self, name: &str) -> bool {
        self.program(name).is_file()
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn version(&self) -> &str {
        &self.version
    }
}

/// 15 of `postgres (PostgreSQL) 15.8 (Debian 15.8-0+deb12u1)`, 18 of `… 18beta1`.
fn major(version: &str) -> Option<u32> {
    let number =
        version.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number.get(..digits)?.parse().ok()
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

fn pg_config() -> Option<PathBuf> {
    output(Command::new("pg_config").arg("--bindir")).map(PathBuf::from)
}

fn debian() -> Vec<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    versions.into_iter().map(|(_, folder)| folder).collect()
}

fn path() -> Vec<PathBuf> {
    env::var_os("PATH")
        .map(|path| {
            env::split_paths(&path).filter(|folder| folder.join("postgres").is_file()).collect()
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_every_form() {
        for (text, expected) in [
            ("postgres (PostgreSQL) 15.8 (Debian 15.8-0+deb12u1)", Some(15)),
            ("postgres (PostgreSQL) 18beta1", Some(18)),
            ("postgres (PostgreSQL) 17", Some(17)),
            ("postgres (PostgreSQL)", None),
            ("", None),
        ] {
            assert_eq!(major(text), expected, "{text:?}");
        }
    }
}
