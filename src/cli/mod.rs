//! The command line: one file a subcommand.
//!
//! What can fail without a server fails first, before any task is started: arguments,
//! configuration, TLS, logging.

mod check;
mod clear;
mod completions;
mod config;
mod demo;
mod explain;
mod invalidate;
mod logging;
mod man;
mod output;
mod progress;
mod removal;
mod report;
mod run;
mod selection;
mod setup;
mod shadow;
mod status;
mod table;
mod tail;
mod test;
mod verify;
mod warm;
mod why;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{Diagnostics, Loaded, Override};
use crate::loader::load::LoadError;
use crate::manage::ground::ManageError;
use crate::postgres::error::{Class, PgError};
use crate::rules::Rules;
use crate::store::error::StoreError;
use output::{error, warn_on_stderr};

/// Keeps Redis as fresh as Postgres.
#[derive(Debug, Parser)]
#[command(name = "unstale", version, about, max_term_width = 100, arg_required_else_help = true)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// What every subcommand takes.
#[derive(Debug, clap::Args)]
struct Common {
    /// The configuration file [default: config/unstale.toml, unstale.toml, /etc/unstale/unstale.toml]
    #[arg(long, short, global = true, value_name = "FILE", env = "UNSTALE_CONFIG")]
    config: Option<PathBuf>,
    /// Set one setting, such as `redis.timeout=5s`; wins over the file and the environment
    #[arg(long = "set", global = true, value_name = "SETTING=VALUE")]
    overrides: Vec<Override>,
}

// A variant without a comment shows its own arguments' one, the longer text included.
#[derive(Debug, Subcommand)]
enum Command {
    /// Follow the database and keep the cache fresh, until SIGTERM
    Run(run::Run),
    /// Say what is missing, and the exact SQL for it; changes nothing
    Check(check::Check),
    /// Prepare the database: grants, replica identities, the publication
    Setup(setup::Setup),
    /// See it at work: private servers, live load, and a comparison of every cached value
    Demo(demo::Demo),
    Explain(explain::ExplainCommand),
    Why(why::WhyCommand),
    Tail(tail::TailCommand),
    Warm(warm::WarmCommand),
    Invalidate(invalidate::InvalidateCommand),
    Clear(clear::ClearCommand),
    Status(status::StatusCommand),
    Test(test::TestCommand),
    Report(report::ReportCommand),
    Verify(verify::VerifyCommand),
    /// What the configuration may hold
    Config(config::ConfigCommand),
    Completions(completions::CompletionsCommand),
    Man(man::ManCommand),
}

/// How a command ends: the exit codes are a contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    /// Done.
    Done,
    /// It failed, or found what it was asked to look for.
    Failed,
    /// An argument makes no sense; clap ends with the same.
    Usage,
    /// A service is unreachable (sysexits' `EX_UNAVAILABLE`). `run` never says so: it waits.
    Unreachable,
    /// The configuration must be mended first, here or on a server (`EX_CONFIG`).
    Configuration,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => ExitCode::SUCCESS,
            Exit::Failed => ExitCode::from(1),
            Exit::Usage => ExitCode::from(2),
            Exit::Unreachable => ExitCode::from(69),
            Exit::Configuration => ExitCode::from(78),
        }
    }
}

/// What a failure of Redis means for a command that tries once.
impl From<&StoreError> for Exit {
    fn from(error: &StoreError) -> Self {
        if error.is_hopeless() { Exit::Configuration } else { Exit::Unreachable }
    }
}

/// What a failure of either means for a command that tries once.
impl From<&ManageError> for Exit {
    fn from(error: &ManageError) -> Self {
        match error {
            ManageError::Store(error) => error.into(),
            ManageError::Postgres(error) => error.into(),
            ManageError::Load(LoadError::Postgres { source, .. }) => source.into(),
            ManageError::Load(_) => Exit::Unreachable,
            ManageError::Invalid(_) => Exit::Failed,
            ManageError::Population(_) | ManageError::Unusable(_) => Exit::Configuration,
        }
    }
}

/// What a failure of Postgres means for a command that tries once.
impl From<&PgError> for Exit {
    fn from(error: &PgError) -> Self {
        match error.class() {
            Class::Retry => Exit::Unreachable,
            Class::Stop => Exit::Configuration,
            Class::Bug => Exit::Failed,
        }
    }
}

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    // Usage errors exit with 2, help and version with 0: clap's own way.
    let arguments = Arguments::parse();
    let exit = match arguments.command {
        Command::Run(command) => command.execute(&arguments.common),
        Command::Check(command) => command.execute(&arguments.common),
        Command::Setup(command) => command.execute(&arguments.common),
        Command::Demo(command) => command.execute(),
        Command::Explain(command) => command.execute(&arguments.common),
        Command::Why(command) => command.execute(&arguments.common),
        Command::Tail(command) => command.execute(&arguments.common),
        Command::Warm(command) => command.execute(&arguments.common),
        Command::Invalidate(command) => command.execute(&arguments.common),
        Command::Clear(command) => command.execute(&arguments.common),
        Command::Status(command) => command.execute(&arguments.common),
        Command::Test(command) => command.execute(&arguments.common),
        Command::Report(command) => command.execute(&arguments.common),
        Command::Verify(command) => command.execute(&arguments.common),
        Command::Config(command) => command.execute(&arguments.common),
        Command::Completions(command) => command.execute(),
        Command::Man(command) => command.execute(),
    };
    exit.into()
}

impl Common {
    /// Loads the configuration, or says all that is wrong with it.
    fn load(&self) -> Result<Loaded, Exit> {
        crate::config::load(self.config.as_deref(), &self.overrides).map_err(|wrong| show(&wrong))
    }

    /// Compiles the rules and reads the queries, or says all that is wrong with them.
    #[expect(clippy::unused_self, reason = "reads as the step after load")]
    fn rules(&self, loaded: &Loaded) -> Result<Rules, Exit> {
        Rules::compile(loaded).map_err(|wrong| show(&wrong))
    }
}

fn show(diagnostics: &Diagnostics) -> Exit {
    warn_on_stderr(&diagnostics.render(output::width(), output::style()));
    Exit::Configuration
}

/// A runtime for one command. Two workers: one decodes while the other talks.
fn runtime() -> Result<tokio::runtime::Runtime, Exit> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(
        |e| {
            error(&format!("cannot start the runtime: {e}"));
            Exit::Failed
        },
    )
}
