//! A real Django, from PyPI, as a process beside the test.

use std::process::{Command, Stdio};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};

use crate::support::{PATIENCE, World, environment, root};

/// The Python that knows Django.
pub(crate) fn python() -> Command {
    environment::command(environment::TESTS, "python")
}

/// `tests/django/worker.py`, connected with a world's Postgres and Redis.
pub(crate) struct Django {
    requests: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

impl Django {
    pub(crate) fn start(python: Command, world: &World) -> Django {
        let mut process = tokio::process::Command::from(python)
            .arg(root().join("tests/django/worker.py"))
            .env("TEST_POSTGRES_HOST", world.postgres.host())
            .env("TEST_POSTGRES_PORT", world.postgres.port().to_string())
            .env("TEST_REDIS_URL", world.redis.url_db(1))
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
