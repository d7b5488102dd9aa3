//! A real Django, from PyPI, as a process beside the test.
//!
//! Its virtual environment lies under `target/tmp` and is made once: what its name is made
//! of are the requirements and the Python, so that it is made again when either changes.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use xxhash_rust::xxh3::xxh3_64;

use crate::support::{PATIENCE, World, root};

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

/// The environment's Python; makes the environment where there is none. Blocks meanwhile:
/// call it before anything runs that could suffer.
pub(crate) fn python() -> PathBuf {
    let requirements = root().join("tests/django/requirements.txt");
    let mut text = Vec::new();
    File::open(&requirements).unwrap().read_to_end(&mut text).unwrap();
    let remedy = format!(
        "this test needs Python {OLDEST_PYTHON} or later that can make virtual environments \
         (on Debian: python3, python3-venv): run scripts/setup.sh"
    );
    text.extend(run(Command::new("python3").args(["-c", PROBE]), &remedy).stdout);
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = temporary.join(format!("django-{:016x}", xxh3_64(&text)));
    let finished = folder.join("finished");

    // Tests run as several processes at once: one of them makes it, the others wait.
    let lock = File::create(temporary.join("django.lock")).unwrap();
    lock.lock().unwrap();
    if !finished.exists() {
        // An environment whose making was interrupted is of no use.
        if folder.exists() {
            std::fs::remove_dir_all(&folder).unwrap();
        }
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder), &remedy);
        let mut pip = Command::new(folder.join("bin/python"));
        // Nothing is compiled, and nothing comes along that is not pinned.
        pip.args(["-m", "pip", "install", "--no-input", "--disable-pip-version-check"])
            .args(["--quiet", "--no-deps", "--only-binary", ":all:", "--requirement"])
            .arg(&requirements);
        run(
            &mut pip,
            "pip could not install Django. It is needed once, from PyPI or from a mirror that \
             PIP_INDEX_URL names; then try again",
        );
        File::create(finished).unwrap();
    }
    folder.join("bin/python")
}

/// `tests/django/worker.py`, connected with a world's Postgres and Redis.
pub(crate) struct Django {
    requests: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

impl Django {
    pub(crate) fn start(python: &Path, world: &World) -> Django {
        let mut process = tokio::process::Command::new(python)
            .arg(root().join("tests/django/worker.py"))
            .env("TEST_POSTGRES_HOST", world.postgres.host())
            .env("TEST_POSTGRES_PORT", world.postgres.port().to_string())
            .env("TEST_REDIS_URL", world.redis.url_db(1))
            .env("PYTHONDONTWRITEBYTECODE", "1") // the sources' folder stays as it is
            .env_remove("PYTHONPATH")
            .env_remove("PYTHONHOME")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("Python starts");
        let requests = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap()).lines();
        Django { requests, answers, _process: process }
    }

    /// Has a command of `worker.py` done: its name and arguments, as an array.
    pub(crate) async fn call(&mut self, request: Value) -> Value {
        self.requests.write_all(format!("{request}\n").as_bytes()).await.expect("Django listens");
        let answer = tokio::time::timeout(PATIENCE, self.answers.next_line())
            .await
            .unwrap_or_else(|_| panic!("Django does not answer {request}"))
            .unwrap()
            .unwrap_or_else(|| panic!("Django has ended instead of answering {request}"));
        let mut answer: Value = serde_json::from_str(&answer).unwrap();
        if let Some(error) = answer.get("error").and_then(Value::as_str) {
            panic!("Django failed at {request}:\n{error}");
        }
        answer["ok"].take()
    }
}
