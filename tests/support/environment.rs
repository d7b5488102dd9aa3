//! Programs from PyPI that tests need, in a virtual environment that they share.
//!
//! It lies under `target/tmp` and is made once: what its name is made of are the requirements
//! and the Python, so that it is made again when either changes.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use xxhash_rust::xxh3::xxh3_64;

use super::root;

/// Whose `requirements.txt` is that of all tests.
pub const TESTS: &str = "tests";

const OLDEST_PYTHON: &str = "3.10";

/// Says which Python this is, and fails where it cannot make virtual environments.
const PROBE: &str = "import ensurepip, platform, sys, venv; \
    assert sys.version_info >= (3, 10), platform.python_version(); \
    print(sys.executable, platform.platform(), sys.version)";

/// Runs a program; if it fails, the test's message is what to do and what the program said.
fn run(command: &mut Command, remedy: &str) -> Output {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}: {remedy}"));
    assert!(
        output.status.success(),
        "{command:?} failed: {remedy}\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// The folder of the environment's programs; makes the environment where there is none, of
/// the `requirements.txt` in a folder such as [`TESTS`]. Blocks meanwhile: call it before
/// anything runs that could suffer.
pub fn environment(of: &str) -> PathBuf {
    let requirements = root().join(of).join("requirements.txt");
    let name = of.rsplit('/').next().unwrap_or(of);
    let mut text = Vec::new();
    File::open(&requirements).unwrap().read_to_end(&mut text).unwrap();
    let remedy = format!(
        "this test needs Python {OLDEST_PYTHON} or later that can make virtual environments \
         (on Debian: python3, python3-venv): run scripts/setup.sh"
    );
    text.extend(run(Command::new("python3").args(["-c", PROBE]), &remedy).stdout);
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = temporary.join(format!("{name}-{:016x}", xxh3_64(&text)));
    let finished = folder.join("finished");

    // Tests run as several processes at once: one of them makes it, the others wait.
    let lock = File::create(temporary.join(format!("{name}.lock"))).unwrap();
    lock.lock().unwrap();
    if !finished.exists() {
        // An environment whose making was interrupted is of no use.
        if folder.exists() {
            std::fs::remove_dir_all(&folder).unwrap();
        }
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder), &remedy);
        let mut pip = Command::new(folder.join("bin/python"));
        // Nothing is built, and nothing comes along that is not pinned.
        pip.args(["-m", "pip", "install", "--no-input", "--disable-pip-version-check"])
            .args(["--quiet", "--no-deps", "--only-binary", ":all:"])
            .arg("--requirement")
            .arg(&requirements);
        run(
            &mut pip,
            "pip could not install what the test needs. It is needed once, from PyPI or from a mirror that \
             PIP_INDEX_URL names; then try again",
        );
        File::create(finished).unwrap();
    }
    folder.join("bin")
}

/// Where the packages of an environment lie.
pub fn packages(of: &str) -> PathBuf {
    let libraries = environment(of).with_file_name("lib");
    let python = std::fs::read_dir(libraries).unwrap().next().unwrap().unwrap();
    python.path().join("site-packages")
}

/// A program of an environment, or its `python`. The tests' own folders stay as they are.
pub fn command(of: &str, program: &str) -> Command {
    let mut command = Command::new(environment(of).join(program));
    command
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env_remove("PYTHONPATH")
        .env_remove("PYTHONHOME")
        .stdin(Stdio::null());
    command
}
