//! `unstale invalidate`

use std::time::Instant;

use clap::Args;

use super::output::error;
use super::progress::Bar;
use super::removal::{Tell, refuse, tell, told};
use super::selection::Which;
use super::{Common, Exit, runtime, shadow};
use crate::manage::ground::Ground;
use crate::manage::{organization, remove};
use crate::store::remove::Act;

/// Remove entries, although nothing has changed
///
/// Of a cache, a group, an organization, a user: at least one of them must be said. What is being
/// computed for these entries now is not stored. Safe at any time, whether the daemon runs or not,
/// and never needed for freshness: the daemon removes what changes. The daemon is told, wherever
/// it runs: it drops what it holds itself, and fills again what was there of caches with
/// `rewarm`; the rest is filled by the next reader, or `unstale warm`.
#[derive(Debug, Args)]
pub(super) struct InvalidateCommand {
    #[command(flatten)]
    which: Which,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Say which caches are left out, and why
    #[arg(long)]
    verbose: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

impl InvalidateCommand {
    pub(super) fn execute(&self, common: &Common) -> Exit {
        match self.try_execute(common) {
            Ok(exit) | Err(exit) => exit,
        }
    }

    fn try_execute(&self, common: &Common) -> Result<Exit, Exit> {
        if !self.which.says_whose() {
            error(
                "say what to invalidate: --cache-type, --organization or --user-id; --cache-type all means everything",
            );
            return Err(Exit::Usage);
        }
        let loaded = common.load()?;
        if !self.dry_run {
            shadow::refuse(&loaded.config, "a removal")?;
        }
        let rules = common.rules(&loaded)?;
        let (request, wanted) = self.which.request(&rules.mapping)?;
        let act = if self.dry_run { Act::Count } else { Act::Remove };
        let ground = Ground::new(&loaded.config, &rules, "unstale invalidate")
            .map_err(|reason| refuse(&reason, Act::Count))?;
        let start = Instant::now();
        runtime()?.block_on(async {
            let (organization, selection) =
                Box::pin(organization::resolve(&ground, &request, &wanted))
                    .await
                    .map_err(|reason| refuse(&reason, Act::Count))?;
            let bar = Bar::new("looking for entries");
            let removed = Box::pin(remove::remove(&ground, &request, &selection, act, &bar)).await;
            drop(bar);
            let removal = removed.map_err(|reason| refuse(&reason, act))?;
            let told = told(&ground, &removal, act).await;
            let how = Tell { act, json: self.json, verbose: self.verbose };
            let asked = (&request, &selection);
            let seconds = start.elapsed().as_secs_f64();
            Ok(tell(how, asked, organization.as_ref(), (&removal, told), seconds))
        })
    }
}
