//! `unstale why`
use clap::Args;

use super::{Common, Exit};

/// x
#[derive(Debug, Args)]
pub(super) struct WhyCommand {}
impl WhyCommand {
    pub(super) fn execute(&self, _: &Common) -> Exit {
        Exit::Done
    }
}
