//! Why a value could not be loaded.

use crate::postgres::error::{Class, Kind, PgError};

/// Why there is no value.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LoadError {
    /// The cache has no query.
    #[error("the cache {0} has no query: add `query = …` to [caches.{0}]")]
    NoQuery(String),
    /// The query names a parameter that was not given.
    #[error("the query of {cache} reads ${parameter}, which its key does not have")]
    MissingParameter {
        /// The cache.
        cache: String,
        /// The parameter.
        parameter: String,
    },
    /// More than one row came.
    #[error(
        "the query of {0} gave more than one row: it must give one, or none if there is nothing to cache"
    )]
    SeveralRows(String),
    /// The row was null.
    #[error(
        "the query of {0} gave null: it must give a JSON text, or no row if there is nothing to cache"
    )]
    Null(String),
    /// The row is no JSON text.
    #[error("the query of {0} must give one column of type json, jsonb or text")]
    NotJson(String),
    /// No connection was free in time.
    #[error("no connection for {0} was free in time: the database is slow, or too few may be open")]
    Busy(String),
    /// Postgres refused, or is not there.
    #[error("loading {cache}: {source}")]
    Postgres {
        /// The cache.
        cache: String,
        /// What it said.
        source: PgError,
    },
}

impl LoadError {
    /// Whether the server refused a value: none of the type, or out of its range.
    #[must_use]
    pub fn is_data_exception(&self) -> bool {
        let LoadError::Postgres { source, .. } = self else { return false };
        source.sqlstate().is_some_and(|state| state.starts_with("22"))
    }

    /// Whether no other value could be loaded either: the server is away, takes no more
    /// connections, or refuses this login. Everything else is the matter of one query.
    #[must_use]
    pub fn concerns_all(&self) -> bool {
        /// SQLSTATE classes: connection, login, no such database, resources, shutdown.
        const ALL: [&str; 5] = ["08", "28", "3D", "53", "57P"];
        let LoadError::Postgres { source, .. } = self else { return false };
        match source.sqlstate() {
            Some(state) => ALL.iter().any(|class| state.starts_with(class)),
            None => source.class() != Class::Bug,
        }
    }

    /// Whether the database did not answer in time: it, or this query, is slow.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        match self {
            LoadError::Busy(_) => true,
            LoadError::Postgres { source, .. } => {
                matches!(source.kind(), Kind::Timeout | Kind::Canceled)
            }
            _ => false,
        }
    }
}
