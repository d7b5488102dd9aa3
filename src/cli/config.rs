//! `unstale config schema`

use clap::{Args, Subcommand};

use super::{Exit, output};

/// What the configuration may hold
#[derive(Debug, Args)]
pub(super) struct ConfigCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print the JSON Schema of the configuration, for editors and linters
    Schema,
}

impl ConfigCommand {
    pub(super) fn execute(&self) -> Exit {
        match self.what {
            What::Schema => output::line(crate::config::schema::json().trim_end()),
        }
        Exit::Done
    }
}
