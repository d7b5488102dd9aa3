//! `unstale completions`

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::output::line;
use super::{Arguments, Exit};

/// Print what a shell needs to complete this program's arguments
///
/// For bash: `unstale completions bash > /etc/bash_completion.d/unstale`; for zsh into a folder of
/// $fpath as _unstale; for fish into ~/.config/fish/completions/unstale.fish.
#[derive(Debug, Args)]
pub(super) struct CompletionsCommand {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl CompletionsCommand {
    pub(super) fn execute(&self) -> Exit {
        let mut script = Vec::new();
        let mut command = Arguments::command();
        clap_complete::generate(self.shell, &mut command, "unstale", &mut script);
        line(String::from_utf8_lossy(&script).trim_end());
        Exit::Done
    }
}
