//! Where Postgres is and how to log in there, as the configuration and what it points to say.

use secrecy::{ExposeSecret, SecretString};

use crate::config::model::Config;
use crate::postgres::conninfo::ConnectOptions;

/// The primary.
///
/// # Errors
/// What is wrong with it, in words.
pub fn connect_options(config: &Config) -> Result<ConnectOptions, String> {
    ConnectOptions::load(config.postgres.url.expose_secret(), password(config)?)
        .map_err(|e| format!("postgres.url: {e}"))
}

/// The replica that may be read, if there is one.
///
/// # Errors
/// What is wrong with it, in words.
pub fn replica_options(config: &Config) -> Result<Option<ConnectOptions>, String> {
    let Some(url) = &config.postgres.replica_url else { return Ok(None) };
    ConnectOptions::load(url.expose_secret(), password(config)?)
        .map(Some)
        .map_err(|e| format!("postgres.replica_url: {e}"))
}

fn password(config: &Config) -> Result<Option<SecretString>, String> {
    let postgres = &config.postgres;
    match (&postgres.password, &postgres.password_file) {
        (Some(password), _) => Ok(Some(password.clone())),
        (None, Some(path)) => std::fs::read_to_string(path)
            .map(|text| Some(text.trim_end_matches(['\r', '\n']).into()))
            .map_err(|e| format!("cannot read postgres.password_file {}: {e}", path.display())),
        (None, None) => Ok(None),
    }
}
