//! What can go wrong with a private server, and what to do about it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a private server could not do what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A server's program is not on this machine.
    #[error("{program} was not found ({looked}); {remedy}")]
    Missing {
        /// The program, such as `redis-server`.
        program: &'static str,
        /// Where it was looked for, and what was wrong there.
        looked: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// Servers that refuse to run as root need another account to run under.
    #[error(
        "there is no account {account:?} on this machine, and Postgres refuses to run as root; \
         run `apt-get install postgresql`, which makes one, or run as another user"
    )]
    Account {
        /// The account's name.
        account: &'static str,
    },
    /// The folder that all sandboxes share is not safe to use.
    #[error(
        "{} cannot hold the sandbox: {why}; remove it, or set TMPDIR to another folder",
        path.display()
    )]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The operating system refused something.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program that prepares a server, such as `initdb`, failed.
    #[error("{program} failed ({status}); it said:\n{output}")]
    Tool {
        /// The program.
        program: String,
        /// How it ended.
        status: String,
        /// What it wrote.
        output: String,
    },
    /// A server ended while it was started or used.
    #[error("{server} ended ({status}); the end of its log:\n{log}")]
    Ended {
        /// `Postgres` or `Redis`.
        server: &'static str,
        /// How it ended.
        status: String,
        /// The end of its log.
        log: String,
    },
    /// A server did not do within a bound what it should have.
    #[error("{server} did not {what} within {bound:?}; the end of its log:\n{log}")]
    Late {
        /// `Postgres` or `Redis`.
        server: &'static str,
        /// What was awaited.
        what: &'static str,
        /// How long it was awaited.
        bound: Duration,
        /// The end of its log.
        log: String,
    },
    /// The server is in the wrong state for this.
    #[error("{server} is {state}: {remedy}")]
    State {
        /// `Postgres` or `Redis`.
        server: &'static str,
        /// `running` or `stopped`.
        state: &'static str,
        /// What to call first.
        remedy: &'static str,
    },
    /// Postgres refused a connection or a statement.
    #[error("Postgres refused to {doing}: {}", explain(source))]
    Postgres {
        /// What was being done.
        doing: String,
        /// What it said.
        source: tokio_postgres::Error,
    },
    /// Redis refused a connection or a command.
    #[error("Redis refused to {doing}: {source}")]
    Redis {
        /// What was being done.
        doing: String,
        /// What it said.
        source: redis::RedisError,
    },
}

impl SandboxError {
    pub(super) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| SandboxError::Io { doing, source }
    }

    pub(super) fn postgres(doing: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> Self {
        let doing = doing.into();
        move |source| SandboxError::Postgres { doing, source }
    }

    pub(super) fn redis(doing: impl Into<String>) -> impl FnOnce(redis::RedisError) -> Self {
        let doing = doing.into();
        move |source| SandboxError::Redis { doing, source }
    }
}

/// tokio-postgres prints `db error` and hides what the server said in its source.
fn explain(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(said) => format!("{} (SQLSTATE {})", said.message(), said.code().code()),
        None => error.to_string(),
    }
}
