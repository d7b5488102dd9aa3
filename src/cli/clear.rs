//! `unstale clear`

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::time::Instant;

use clap::Args;

use super::output::{error, warn_on_stderr};
use super::progress::Bar;
use super::removal::{Tell, refuse, tell, told};
use super::selection::Which;
use super::{Common, Exit, runtime, shadow};
use crate::manage::ground::Ground;
use crate::manage::remove::{Removal, remove};
use crate::manage::{organization, remove::Counts};
use crate::store::remove::Act;

/// What has to be typed.
const WORD: &str = "CLEAR";

/// Remove everything that is cached
///
/// As `unstale invalidate --cache-type all`, and asks first: type CLEAR, or give --force. Only what
/// the configuration's caches hold: what others keep in this Redis stays, and so does the daemon's
/// state. The daemon fills again what was there of caches with `rewarm`; every other reader asks the
/// database until the cache is warm again.
#[derive(Debug, Args)]
pub(super) struct ClearCommand {
    #[command(flatten)]
    which: Which,
    /// Do not ask
    #[arg(long)]
    force: bool,
    /// Say what would be removed, and remove nothing
    #[arg(long, conflicts_with = "force")]
    dry_run: bool,
    /// Say which caches are left out, and why
    #[arg(long)]
    verbose: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

impl ClearCommand {
    pub(super) fn execute(&self, common: &Common) -> Exit {
        match self.try_execute(common) {
            Ok(exit) | Err(exit) => exit,
        }
    }

    fn try_execute(&self, common: &Common) -> Result<Exit, Exit> {
        let ask = !self.force && !self.dry_run;
        if ask && !std::io::stdin().is_terminal() {
            error(
                "there is no terminal to ask at: give --force, or --dry-run to see what would be removed",
            );
            return Err(Exit::Usage);
        }
        let loaded = common.load()?;
        if !self.dry_run {
            shadow::refuse(&loaded.config, "a removal")?;
        }
        let rules = common.rules(&loaded)?;
        let (request, wanted) = self.which.request(&rules.mapping)?;
        let ground = Ground::new(&loaded.config, &rules, "unstale clear")
            .map_err(|reason| refuse(&reason, Act::Count))?;
        let runtime = runtime()?;
        let (organization, selection) = runtime
            .block_on(Box::pin(organization::resolve(&ground, &request, &wanted)))
            .map_err(|reason| refuse(&reason, Act::Count))?;
        let work = |act: Act| -> Result<Removal, Exit> {
            let bar = Bar::new("looking for entries");
            let removed =
                runtime.block_on(Box::pin(remove(&ground, &request, &selection, act, &bar)));
            drop(bar);
            removed.map_err(|reason| refuse(&reason, act))
        };
        if ask && !confirm(work(Act::Count)?.total()) {
            warn_on_stderr("nothing was removed");
            return Ok(Exit::Failed);
        }
        let start = Instant::now();
        let act = if self.dry_run { Act::Count } else { Act::Remove };
        let removal = work(act)?;
        let told = runtime.block_on(told(&ground, &removal, act));
        let how = Tell { act, json: self.json, verbose: self.verbose };
        let seconds = start.elapsed().as_secs_f64();
        Ok(tell(how, (&request, &selection), organization.as_ref(), (&removal, told), seconds))
    }
}

/// Asks at the terminal.
fn confirm(total: Counts) -> bool {
    let mut err = std::io::stderr().lock();
    _ = write!(
        err,
        "This removes {} entries and {} scopes; every reader then asks the database. Type {WORD} to go on: ",
        total.entries, total.scopes
    );
    _ = err.flush();
    let mut typed = String::new();
    std::io::stdin().lock().read_line(&mut typed).is_ok() && typed.trim() == WORD
}
