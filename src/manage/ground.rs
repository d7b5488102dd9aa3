//! What the operations stand on: the rules, and the ways to both servers.

use std::time::Duration;

use super::scheduled::{Planned, planned};
use crate::config::model::Config;
use crate::loader::load::LoadError;
use crate::mapping::Mapping;
use crate::mapping::model::CacheModel;
use crate::postgres::client::SqlClient;
use crate::postgres::conninfo::ConnectOptions;
use crate::postgres::error::PgError;
use crate::rules::Rules;
use crate::servers::connect_options;
use crate::store::error::StoreError;
use crate::store::keys::ControlKeys;
use crate::store::session::{Address, Session};
use crate::warm::population::{Population, PopulationError};

/// The rules, and the ways to both servers. Does not connect by itself.
pub struct Ground {
    /// Which keys are whose, and the queries behind them.
    pub rules: Rules,
    /// What stands before every cache's key.
    pub key_prefix: String,
    /// Where Redis is.
    pub address: Address,
    /// The daemon's keys there.
    pub keys: ControlKeys,
    /// The replication slot.
    pub slot: String,
    /// Where Postgres is.
    pub connect: ConnectOptions,
    /// How long a statement may run.
    pub statement_timeout: Duration,
    /// Shadow mode: what is cached is the application's.
    pub shadow: bool,
    /// Of how many users of an organization a warm-up fills the entries.
    pub users: u32,
    /// What is done now and then.
    pub planned: Vec<Planned>,
}

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum ManageError {
    /// Redis did not answer, or refused. What was under way may have happened: to do it again
    /// is harmless.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Postgres did not answer, or refused.
    #[error(transparent)]
    Postgres(#[from] PgError),
    /// A population of the configuration is none.
    #[error(transparent)]
    Population(#[from] PopulationError),
    /// A value could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Nothing would be stored now.
    #[error(
        "nothing can be stored yet: {0} is not valid; start `unstale run` with this configuration and wait until /readyz says so"
    )]
    Invalid(String),
    /// The configuration cannot be used.
    #[error("{0}")]
    Unusable(String),
}

impl Ground {
    /// Reads what the configuration points to.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(
        config: &Config,
        rules: &Rules,
        application_name: &str,
    ) -> Result<Ground, ManageError> {
        // Redis' client takes the process's provider.
        _ = rustls::crypto::ring::default_provider().install_default();
        let connect = connect_options(config).map_err(ManageError::Unusable)?;
        Ok(Ground {
            rules: rules.clone(),
            key_prefix: config.redis.key_prefix.clone(),
            address: Address::new(&config.redis)?,
            keys: ControlKeys::new(&config.postgres.slot),
            slot: config.postgres.slot.clone(),
            connect: connect.with_application_name(application_name),
            statement_timeout: config.postgres.statement_timeout.get(),
            shadow: config.shadow,
            users: config.warm.users,
            planned: planned(config),
        })
    }

    /// The mapping.
    #[must_use]
    pub fn mapping(&self) -> &Mapping {
        &self.rules.mapping
    }

    /// A connection to Redis.
    ///
    /// # Errors
    /// If it does not answer, or is a replica.
    pub async fn redis(&self) -> Result<Session, StoreError> {
        Session::open(&self.address, self.keys.clone()).await
    }

    /// A connection to Postgres that reads.
    ///
    /// # Errors
    /// If it does not answer, or refuses.
    pub async fn postgres(&self) -> Result<SqlClient, PgError> {
        SqlClient::connect_read_only(&self.connect, self.statement_timeout).await
    }

    /// The population of a cache, if it has one.
    ///
    /// # Errors
    /// If it is no query.
    pub fn population(&self, cache: &CacheModel) -> Result<Option<Population>, PopulationError> {
        if cache.generation_key.is_some() {
            return Ok(None);
        }
        let text = self.rules.populations.get(&*cache.name);
        text.map(|text| Population::new(cache, text)).transpose()
    }
}
