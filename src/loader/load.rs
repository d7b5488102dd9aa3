//! Running one query for one value.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use deadpool::managed::{Object, Pool, PoolError};
use futures_util::{TryStreamExt, pin_mut};
use tokio_postgres::types::ToSql;

use super::parameters::{ParameterError, Parametrized};
use super::text::{Json, Text};
use super::workers::{Connector, Worker};
use crate::lsn::Lsn;
use crate::postgres::conninfo::ConnectOptions;
use crate::postgres::error::{Class, PgError};
use crate::rules::Rules;

/// Loads values.
pub struct Loader {
    pool: Pool<Connector>,
    queries: BTreeMap<String, Parametrized>,
    timezone: String,
    wait: Duration,
}

/// Bounds of the loader.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// How many queries run at once.
    pub connections: usize,
    /// How long one may run.
    pub statement_timeout: Duration,
    /// How long one may wait for a free connection.
    pub wait: Duration,
}

/// Why there is no loader.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A query that is none.
    #[error("the query of {cache}: {source}; {}", source.hint)]
    Query {
        /// The cache.
        cache: String,
        /// What is wrong with it.
        source: ParameterError,
    },
    /// The pool of connections cannot be made.
    #[error("the connections cannot be pooled: {0}")]
    Pool(String),
}

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

    /// Whether the query took too long.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        let LoadError::Postgres { source, .. } = self else { return false };
        source.sqlstate() == Some("57014")
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
}

impl Loader {
    /// Does not connect yet.
    ///
    /// # Errors
    /// If a cache's query is none.
    pub fn new(rules: &Rules, options: ConnectOptions, bounds: Bounds) -> Result<Self, SetupError> {
        let mut queries = BTreeMap::new();
        for (name, text) in &rules.queries {
            let query = Parametrized::parse(text)
                .map_err(|source| SetupError::Query { cache: name.clone(), source })?;
            queries.insert(name.clone(), query);
        }
        let connector = Connector { options, statement_timeout: bounds.statement_timeout };
        let pool = Pool::builder(connector)
            .max_size(bounds.connections.max(1))
            .build()
            .map_err(|error| SetupError::Pool(error.to_string()))?;
        Ok(Loader { pool, queries, timezone: rules.timezone().to_owned(), wait: bounds.wait })
    }

    /// The parameters that a cache's query names.
    #[must_use]
    pub fn parameters(&self, cache: &str) -> &[String] {
        self.queries.get(cache).map(|query| query.names.as_slice()).unwrap_or_default()
    }

    /// When the present day ends in the caches' time zone.
    pub async fn end_of_day(&self) -> Result<SystemTime, LoadError> {
        const SQL: &str = "SELECT to_json(floor(extract(epoch FROM \
             ((now() AT TIME ZONE $1::text)::date + 1)::timestamp AT TIME ZONE $1::text))::int8)";
        let mut worker = self.worker("the end of the day").await?;
        let zone = [Text(&self.timezone)];
        let seconds = run(&mut worker, "the end of the day", SQL, &zone).await?;
        let seconds = seconds.and_then(|text| str::from_utf8(&text).ok()?.parse().ok());
        let since = seconds.ok_or_else(|| LoadError::NotJson("the end of the day".to_owned()))?;
        Ok(UNIX_EPOCH + Duration::from_secs(since))
    }

    /// How far WAL is handed out: past the commit record of everything that a value loaded
    /// before shows.
    pub async fn wal_insert(&self) -> Result<Lsn, LoadError> {
        const WHAT: &str = "the position in the WAL";
        let mut worker = self.worker(WHAT).await?;
        let sql = "SELECT pg_catalog.pg_current_wal_insert_lsn()::text";
        let text = run(&mut worker, WHAT, sql, &[]).await?;
        let lsn = text.and_then(|text| str::from_utf8(&text).ok()?.parse().ok());
        lsn.ok_or_else(|| LoadError::NotJson(WHAT.to_owned()))
    }

    /// How long the present day lasts already in the caches' time zone.
    pub async fn since_midnight(&self) -> Result<Duration, LoadError> {
        const WHAT: &str = "the beginning of the day";
        const SQL: &str = "SELECT floor(extract(epoch FROM now() - \
             (date_trunc('day', now() AT TIME ZONE $1::text) AT TIME ZONE $1::text)))::int8::text";
        let mut worker = self.worker(WHAT).await?;
        let text = run(&mut worker, WHAT, SQL, &[Text(&self.timezone)]).await?;
        let seconds = text.and_then(|text| str::from_utf8(&text).ok()?.parse().ok());
        let seconds = seconds.ok_or_else(|| LoadError::NotJson(WHAT.to_owned()))?;
        Ok(Duration::from_secs(seconds))
    }

    async fn worker(&self, cache: &str) -> Result<Object<Connector>, LoadError> {
        match tokio::time::timeout(self.wait, self.pool.get()).await {
            Ok(Ok(worker)) => Ok(worker),
            Ok(Err(PoolError::Backend(source))) => {
                Err(LoadError::Postgres { cache: cache.to_owned(), source })
            }
            Ok(Err(_)) | Err(_) => Err(LoadError::Busy(cache.to_owned())),
        }
    }

    /// The value of an entry as the database has it now; `None`: there is nothing to cache.
    pub async fn load(
        &self,
        cache: &str,
        parameters: &[(&str, &str)],
    ) -> Result<Option<Vec<u8>>, LoadError> {
        let query = self.queries.get(cache).ok_or_else(|| LoadError::NoQuery(cache.to_owned()))?;
        let mut values = Vec::with_capacity(query.names.len());
        for name in &query.names {
            let given = parameters.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
            let value = match (given, name.as_str()) {
                (Some(value), _) => value,
                (None, "timezone") => self.timezone.as_str(),
                (None, _) => {
                    return Err(LoadError::MissingParameter {
                        cache: cache.to_owned(),
                        parameter: name.clone(),
                    });
                }
            };
            values.push(Text(value));
        }
        let mut worker = self.worker(cache).await?;
        run(&mut worker, cache, &query.sql, &values).await
    }
}

async fn run(
    worker: &mut Worker,
    cache: &str,
    sql: &str,
    values: &[Text<'_>],
) -> Result<Option<Vec<u8>>, LoadError> {
    let failed = |source: PgError| LoadError::Postgres { cache: cache.to_owned(), source };
    let statement = worker.prepare(sql).await.map_err(failed)?;
    let parameters = values.iter().map(|value| value as &(dyn ToSql + Sync));
    let rows = worker.client.query_raw(&statement, parameters).await;
    let rows = rows.map_err(|error| failed(error.into()))?;
    pin_mut!(rows);
    let mut value = None;
    while let Some(row) = rows.try_next().await.map_err(|error| failed(error.into()))? {
        if value.is_some() {
            return Err(LoadError::SeveralRows(cache.to_owned()));
        }
        if row.len() != 1 {
            return Err(LoadError::NotJson(cache.to_owned()));
        }
        let json: Option<Json<'_>> =
            row.try_get(0).map_err(|_| LoadError::NotJson(cache.to_owned()))?;
        let json = json.ok_or_else(|| LoadError::Null(cache.to_owned()))?;
        value = Some(json.0.to_vec());
    }
    Ok(value)
}
