//! `unstale run`

use clap::Args;
use tracing::error;

use super::{Common, Exit, logging, output, runtime};
use crate::config::Loaded;
use crate::daemon::{Daemon, Ended};
use crate::mapping::Mapping;

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
        let mapping = common.mapping(&loaded)?;
        let refuse = |reason: String| {
            output::error(&reason);
            Exit::Configuration
        };
        logging::start(&loaded.config.log).map_err(refuse)?;
        let reload = {
            let (path, overrides) = (common.config.clone(), common.overrides.clone());
            move || read_mapping(path.as_deref(), &overrides)
        };
        let daemon = Daemon::new(loaded.config, mapping, Box::new(reload)).map_err(refuse)?;
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

/// The mapping of the configuration as it is now, for a reload.
fn read_mapping(
    path: Option<&std::path::Path>,
    overrides: &[crate::config::Override],
) -> Result<Mapping, String> {
    let plain = crate::config::Style::Plain;
    let loaded =
        crate::config::load(path, overrides).map_err(|d| d.render(output::width(), plain))?;
    compile(&loaded).map_err(|d| d.render(output::width(), plain))
}

fn compile(loaded: &Loaded) -> Result<Mapping, crate::config::Diagnostics> {
    Mapping::new(&loaded.config).map_err(|problems| loaded.source.diagnostics(problems))
}

impl Common {
    /// Compiles the rules, or says all that is wrong with them.
    pub(super) fn mapping(&self, loaded: &Loaded) -> Result<Mapping, Exit> {
        compile(loaded).map_err(|diagnostics| {
            output::warn_on_stderr(&diagnostics.render(output::width(), output::style()));
            Exit::Configuration
        })
    }
}
