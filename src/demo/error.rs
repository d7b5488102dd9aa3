//! What can go wrong with the demo, and what to do about it.

use std::io;
use std::process::ExitStatus;

use crate::fill::filler::ReadError;
use crate::sandbox::SandboxError;

/// Why the demo could not go on.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A private server did not start, or refused.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The operating system refused something.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// The private Postgres refused a statement.
    #[error("the private Postgres refused to {doing}: {}", explain(source))]
    Postgres {
        /// What was being done.
        doing: String,
        /// What it said.
        source: tokio_postgres::Error,
    },
    /// The private Redis refused a command.
    #[error("the private Redis refused to {doing}: {source}")]
    Redis {
        /// What was being done.
        doing: String,
        /// What it said.
        source: redis::RedisError,
    },
    /// A reader got no value.
    #[error("a reader got no value of {cache}: {source}")]
    Read {
        /// The cache.
        cache: String,
        /// Why not.
        source: ReadError,
    },
    /// The configuration cannot be used.
    #[error("the configuration cannot be used:\n{0}")]
    Config(String),
    /// `unstale setup` failed.
    #[error("unstale setup failed ({status}); it said:\n{said}")]
    Setup {
        /// How it ended.
        status: ExitStatus,
        /// What it wrote.
        said: String,
    },
    /// The daemon did not do what it should have.
    #[error("{what}; the end of its log:\n{log}")]
    Daemon {
        /// What it did, or did not.
        what: String,
        /// The end of its log.
        log: String,
    },
}

impl DemoError {
    pub(super) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| DemoError::Io { doing, source }
    }

    pub(super) fn postgres(doing: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> Self {
        let doing = doing.into();
        move |source| DemoError::Postgres { doing, source }
    }

    pub(super) fn redis(doing: impl Into<String>) -> impl FnOnce(redis::RedisError) -> Self {
        let doing = doing.into();
        move |source| DemoError::Redis { doing, source }
    }
}

/// tokio-postgres prints `db error` and hides what the server said in its source.
fn explain(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(said) => format!("{} (SQLSTATE {})", said.message(), said.code().code()),
        None => error.to_string(),
    }
}
