//! `unstale run`

use std::path::Path;

use clap::Args;
use tracing::error;

use super::{Common, Exit, logging, output, runtime};
use crate::config::{self, Diagnostics, Override, Style};
use crate::daemon::{Daemon, Ended};
use crate::rules::Rules;

/// Follow the database and keep the cache fresh, until SIGTERM
///
/// SIGTERM and SIGINT finish what is under way (pipeline.drain_timeout) and stop; SIGHUP
/// reads [caches] and [[tables]] anew, and says so if they cannot be used.
#[derive(Debug, Args)]
pub(super) struct Run {}

impl Run {
    pub(super) fn execute(&self, common: &Common) -> Exit {
        match self.try_execute(common) {
            Ok(exit) | Err(exit) => exit,
        }
    }

    fn try_execute(&self, common: &Common) -> Result<Exit, Exit> {
        let loaded = common.load()?;
        let rules = common.rules(&loaded)?;
        let refuse = |reason: String| {
            output::error(&reason);
            Exit::Configuration
        };
        logging::start(&loaded.config.log).map_err(refuse)?;
        let reload = {
            let (path, overrides) = (common.config.clone(), common.overrides.clone());
            move || read_rules(path.as_deref(), &overrides)
        };
        let daemon = Daemon::new(loaded.config, rules, Box::new(reload)).map_err(refuse)?;
        let ended = runtime()?.block_on(daemon.run());
        Ok(match ended {
            Ended::Stopped => Exit::Done,
            Ended::Hopeless(reason) => {
                error!("{reason}");
                Exit::Configuration
            }
            Ended::Broken(reason) => {
                error!("{reason}");
                Exit::Failed
            }
        })
    }
}

/// The rules of the configuration as it is now, for a reload.
fn read_rules(path: Option<&Path>, overrides: &[Override]) -> Result<Rules, String> {
    let told = |diagnostics: Diagnostics| diagnostics.render(output::width(), Style::Plain);
    Rules::compile(&config::load(path, overrides).map_err(told)?).map_err(told)
}
