//! `unstale config schema`, `unstale config openapi`

use clap::{Args, Subcommand};

use super::{Common, Exit, output};
use crate::api::openapi;

/// What the configuration may hold, and what it makes of the read API
#[derive(Debug, Args)]
pub(super) struct ConfigCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print the JSON Schema of the configuration, for editors and linters
    Schema,
    /// Print the OpenAPI document of the endpoints, as `GET /api/openapi.json` serves it
    Openapi,
}

impl ConfigCommand {
    pub(super) fn execute(&self, common: &Common) -> Exit {
        match self.try_execute(common) {
            Ok(exit) | Err(exit) => exit,
        }
    }

    fn try_execute(&self, common: &Common) -> Result<Exit, Exit> {
        match self.what {
            What::Schema => output::line(crate::config::schema::json().trim_end()),
            What::Openapi => {
                let loaded = common.load()?;
                let document = openapi::document(&common.rules(&loaded)?);
                output::line(openapi::text(&document).trim_end());
            }
        }
        Ok(Exit::Done)
    }
}
