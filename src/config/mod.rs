//! The configuration: its model, its layers and its diagnostics.
//!
//! Defaults, then a TOML file, then `UNSTALE_…` variables, then the command line: a later
//! layer wins, setting by setting. Unknown names are errors, and all independent errors
//! are reported at once, each with file, line and column ([`Diagnostics`]). Who judges a
//! configuration later (the mapping, Postgres at `check`) reports [`problem::Problem`]s by
//! path, and [`Source::diagnostics`] finds the place. No secret is ever shown: see `redact`.

mod address;
pub mod api;
mod caches;
mod diagnostics;
pub mod duration;
pub mod endpoints;
mod environment;
mod extract;
mod keyword;
mod layers;
mod literal;
pub mod model;
mod nesting;
mod overrides;
pub mod problem;
mod queries;
mod redact;
pub mod schema;
mod source;
mod validate;
mod validate_api;
mod walk;

use std::collections::BTreeSet;
use std::path::Path;

pub use diagnostics::{Diagnostics, Finding, Place, Style};
pub use environment::{CONFIG, TEST_POINTS, TEST_WITHOUT};
pub use layers::{DEFAULT_FILES, File, Layers};
pub use overrides::{Origin, Override, ParseOverrideError};
pub use queries::{populations, queries, schemas};
pub use source::Source;

use extract::Extracted;
use model::Config;

/// A configuration, and where it came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What it says.
    pub config: Config,
    /// Where it says so.
    pub source: Source,
}

/// Loads this process's configuration: the file at `path` (else where `UNSTALE_CONFIG` says,
/// else the first of [`DEFAULT_FILES`]), the environment, and what the command line sets.
///
/// # Errors
/// Everything that is wrong with it, as far as no server has to be asked.
pub fn load(path: Option<&Path>, overrides: &[Override]) -> Result<Loaded, Diagnostics> {
    Layers::of_process(path, overrides).load()
}

impl Layers {
    /// Loads the configuration that these layers make.
    ///
    /// # Errors
    /// As [`load`].
    pub fn load(&self) -> Result<Loaded, Diagnostics> {
        let mut read = self.merge()?;
        let Extracted { config, stand_ins } = extract::config(&read.values, &mut read.problems);
        // What was no value at all is then also one of a wrong type: once is enough.
        let mut reported = BTreeSet::new();
        read.problems.retain(|problem| reported.insert(problem.path.clone()));
        // What stands in for a wrong setting, or what is left of one, is not judged again.
        reported.extend(stand_ins);
        let judged = config.iter().flat_map(validate::config).filter(|problem| {
            !reported.iter().any(|path| {
                path.0.starts_with(&problem.path.0) || problem.path.0.starts_with(&path.0)
            })
        });
        let problems: Vec<_> = read.problems.into_iter().chain(judged).collect();
        match config {
            Some(config) if problems.is_empty() && read.misnamed.is_empty() => {
                Ok(Loaded { config, source: read.source })
            }
            _ => {
                let mut diagnostics = read.source.diagnostics(problems);
                diagnostics.extend(Source::elsewhere(read.misnamed));
                Err(diagnostics)
            }
        }
    }
}
