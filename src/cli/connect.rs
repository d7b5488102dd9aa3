//! What commands share that talk to a server.

use secrecy::ExposeSecret as _;

use super::{Exit, output};
use crate::config::model::Config;
use crate::postgres::conninfo::ConnectOptions;
use crate::postgres::error::{Kind, PgError};

/// Where the configuration's database is.
pub(super) fn options(config: &Config) -> Result<ConnectOptions, Exit> {
    let refuse = |reason: String| {
        output::error(&reason);
        Exit::Configuration
    };
    let password = crate::daemon::password(config).map_err(refuse)?;
    ConnectOptions::load(config.postgres.url.expose_secret(), password)
        .map_err(|error| refuse(format!("postgres.url: {error}")))
}

/// The exit code that says what an error of Postgres means.
pub(super) fn exit_of(error: &PgError) -> Exit {
    match error.kind() {
        Kind::Unreachable | Kind::Lost | Kind::Timeout | Kind::Starting | Kind::Limit => {
            Exit::Unreachable
        }
        Kind::Settings
        | Kind::Tls
        | Kind::Login
        | Kind::NoDatabase
        | Kind::Privilege
        | Kind::WalLevel => Exit::Configuration,
        _ => Exit::Failed,
    }
}
