//! `unstale explain`
use clap::Args;

use super::{Common, Exit};

/// x
#[derive(Debug, Args)]
pub(super) struct ExplainCommand {}
impl ExplainCommand {
    pub(super) fn execute(&self, _: &Common) -> Exit {
        Exit::Done
    }
}
