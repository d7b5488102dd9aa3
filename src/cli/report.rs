//! `unstale report`

use clap::Args;

use super::{Common, Exit, shadow};

/// Say what the daemon has seen
#[derive(Debug, Args)]
pub(super) struct ReportCommand {
    /// In shadow mode: which entries the application's own invalidation misses, by table,
    /// operation, cache and key. The running daemon is asked; it counts from its start
    #[arg(long, required = true)]
    shadow: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

impl ReportCommand {
    pub(super) fn execute(&self, common: &Common) -> Exit {
        match shadow::report(common, self.json) {
            Ok(exit) | Err(exit) => exit,
        }
    }
}
