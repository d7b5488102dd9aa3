//! A data folder without the wait for `initdb`.
//!
//! `initdb` takes half a second to two, a copy of what it made some
//! milliseconds. So the first sandbox makes a template, and every other one on
//! this machine copies it: one template for each server version and account.
//! Processes that run side by side agree by a lock on a file beside it. A
//! template gets its name when it is whole, so a killed `initdb` leaves none;
//! one that something has nibbled at since (a cleaner of temporary folders) is
//! told by its size, and made anew.
//!
//! Copies would share the template's system identifier, and one server must not
//! be taken for another: each copy gets an identifier of its own, by `pg_resetwal`. An
//! installation without that program (some packages hold little but the server) waits for
//! `initdb` each time.

use std::fs::{self, File, Permissions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::FlockOperation;

use super::binaries::Binaries;
use crate::sandbox::account::Account;
use crate::sandbox::error::SandboxError;
use crate::sandbox::folder;

const INITDB: [&str; 7] = [
    "--no-sync",
    "--username=postgres",
    "--auth=trust",
    "--encoding=UTF8",
    "--locale=C.UTF-8",
    "--no-instructions",
    "--lc-messages=C",
];

/// The files of a template and the sum of their sizes.
#[derive(Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Extent {
    files: u64,
    bytes: u64,
}

/// Fills `data`, which must not exist, with a fresh database of its own.
///
/// Blocks: for some milliseconds, or as long as `initdb` takes where there is
/// no template yet.
pub(super) fn instantiate(
    binaries: &Binaries,
    account: Account,
    data: &Path,
) -> Result<(), SandboxError> {
    if !binaries.has("pg_resetwal") {
        return initialize(binaries, account, data);
    }
    let template = Template::named(binaries, account)?;
    loop {
        // Shared while it is copied, so that nobody replaces it meanwhile.
        let shared = folder::lock(&template.lock, FlockOperation::LockShared)?;
        if template.is_whole() {
            run(
                Account::OURS,
                Command::new("cp").args(["-a", "--reflink=auto"]).arg(&template.path).arg(data),
            )?;
            break;
        }
        drop(shared);
        let _exclusive = folder::lock(&template.lock, FlockOperation::LockExclusive)?;
        // Somebody else may have been first.
        if !template.is_whole() {
            template.make(binaries, account)?;
        }
    }
    identify(binaries, account, data)
}

/// Forgets the template from which a server did not start: the next is made anew.
pub(super) fn forget(binaries: &Binaries, account: Account) -> Result<(), SandboxError> {
    let template = Template::named(binaries, account)?;
    let _exclusive = folder::lock(&template.lock, FlockOperation::LockExclusive)?;
    remove(&template.path).map_err(SandboxError::io("remove a broken template"))
}

struct Template {
    path: PathBuf,
    extent: PathBuf,
    lock: PathBuf,
}

impl Template {
    fn named(binaries: &Binaries, account: Account) -> Result<Template, SandboxError> {
        // Everything that makes two templates differ.
        let recipe = format!("{:?} {} {INITDB:?}", binaries.folder(), binaries.version());
        let name = format!(
            "template-{}-{:016x}",
            account.uid(),
            xxhash_rust::xxh3::xxh3_64(recipe.as_bytes())
        );
        let root = folder::root()?;
        Ok(Template {
            path: root.join(&name),
            extent: root.join(format!("{name}.json")),
            lock: root.join(format!("{name}.lock")),
        })
    }

    fn is_whole(&self) -> bool {
        let recorded = fs::read(&self.extent)
            .ok()
            .and_then(|json| serde_json::from_slice::<Extent>(&json).ok());
        recorded.is_some() && recorded == measure(&self.path).ok()
    }

    fn make(&self, binaries: &Binaries, account: Account) -> Result<(), SandboxError> {
        let doing = || format!("make the template {}", self.path.display());
        let half = self.path.with_extension("half");
        remove(&self.path).and_then(|()| remove(&half)).map_err(SandboxError::io(doing()))?;
        initialize(binaries, account, &half)?;
        // 16 MB that `identify` writes anew in each copy.
        remove_wal(&half)
            .and_then(|()| measure(&half))
            .and_then(|extent| fs::write(&self.extent, serde_json::to_vec(&extent)?))
            .and_then(|()| fs::rename(&half, &self.path))
            .map_err(SandboxError::io(doing()))
    }
}

fn initialize(binaries: &Binaries, account: Account, data: &Path) -> Result<(), SandboxError> {
    fs::create_dir(data)
        .and_then(|()| fs::set_permissions(data, Permissions::from_mode(0o700)))
        .and_then(|()| account.own(data))
        .map_err(SandboxError::io(format!("make {}", data.display())))?;
    let mut initdb = Command::new(binaries.program("initdb"));
    run(account, initdb.args(INITDB).arg("--pgdata").arg(data))
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn remove_wal(data: &Path) -> io::Result<()> {
    for entry in fs::read_dir(data.join("pg_wal"))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn measure(folder: &Path) -> io::Result<Extent> {
    let mut extent = Extent { files: 0, bytes: 0 };
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let found = entry.metadata()?;
        let inner = if found.is_dir() {
            measure(&entry.path())?
        } else {
            Extent { files: 1, bytes: found.len() }
        };
        extent.files = extent.files.saturating_add(inner.files);
        extent.bytes = extent.bytes.saturating_add(inner.bytes);
    }
    Ok(extent)
}

/// Gives a copy a system identifier of its own.
///
/// The identifier is the first field of `pg_control` (`ControlFileData` in
/// Postgres' pg_control.h) and stands in the WAL as well. `pg_resetwal` carries
/// it over to both; it needs `--force` because the changed field no longer
/// matches the checksum, which it writes anew.
fn identify(binaries: &Binaries, account: Account, data: &Path) -> Result<(), SandboxError> {
    let control = data.join("global/pg_control");
    // Never zero, and positive where it is read as a signed number.
    let identifier = fastrand::u64(1 << 32..1 << 62);
    File::options()
        .write(true)
        .open(&control)
        .and_then(|mut file| {
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&identifier.to_ne_bytes())
        })
        .map_err(SandboxError::io(format!("write {}", control.display())))?;
    run(
        account,
        Command::new(binaries.program("pg_resetwal")).args(["--force", "--pgdata"]).arg(data),
    )
}

/// Runs a program to its end; what it says goes into the error.
pub(super) fn run(account: Account, command: &mut Command) -> Result<(), SandboxError> {
    let program = command.get_program().to_string_lossy().into_owned();
    account.run(command);
    // Our working folder may be closed to the other account.
    let output = command
        .current_dir("/")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(SandboxError::io(format!("run {program}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(SandboxError::Tool {
        program,
        status: output.status.to_string(),
        output: String::from_utf8_lossy(&said).into_owned(),
    })
}
