//! Running one query for one value.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, UNIX_EPOCH};

use deadpool::managed::{Object, Pool, PoolError};

use super::day::{BEGAN, Day, ENDS};
pub use super::error::LoadError;
use super::parameters::{ParameterError, Parametrized};
use super::replica::{Question, Replica};
use super::standby::Needed;
use super::text::Text;
use super::workers::Connector;
use crate::config::model::Postgres;
use crate::lsn::Lsn;
use crate::moment::Moment;
use crate::postgres::conninfo::ConnectOptions;
use crate::rules::Rules;

/// Loads values.
pub struct Loader {
    pool: Pool<Connector>,
    replica: Option<Replica>,
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

impl Bounds {
    /// Those of the replica's connections. A query may take half of its time there, so that
    /// there is time for the primary if it does not end.
    #[must_use]
    pub fn of_replica(connections: usize, postgres: &Postgres) -> Bounds {
        let statement_timeout = postgres.statement_timeout.get() / 2;
        Bounds { connections, statement_timeout, wait: postgres.replica_wait.get() }
    }
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
        let statement_timeout = bounds.statement_timeout;
        let connector = Connector { options, statement_timeout, beside: None };
        let pool = Pool::builder(connector)
            .max_size(bounds.connections.max(1))
            .build()
            .map_err(|error| SetupError::Pool(error.to_string()))?;
        let timezone = rules.timezone().to_owned();
        Ok(Loader { pool, replica: None, queries, timezone, wait: bounds.wait })
    }

    /// What is loaded under a lease is loaded from this replica, where it can be (rule 5).
    #[must_use]
    pub fn with_replica(mut self, replica: Option<Replica>) -> Self {
        self.replica = replica;
        self
    }

    /// The parameters that a cache's query names.
    #[must_use]
    pub fn parameters(&self, cache: &str) -> &[String] {
        self.queries.get(cache).map(|query| query.names.as_slice()).unwrap_or_default()
    }

    /// The present day in the caches' time zone.
    pub async fn day(&self) -> Result<Day, LoadError> {
        const WHAT: &str = "the end of the day";
        static SQL: LazyLock<String> = LazyLock::new(|| {
            format!(
                "SELECT json_build_array(floor(extract(epoch FROM ends))::int8, \
                        floor(extract(epoch FROM ends - now()) * 1000000)::int8) \
                   FROM (SELECT {ENDS} AS ends) AS day"
            )
        });
        let mut worker = self.worker(WHAT).await?;
        // Before the question, so that what is left is rather too little.
        let asked = Moment::now();
        let text = worker.value(WHAT, &SQL, &[Text(&self.timezone)]).await?;
        let told = text.and_then(|text| serde_json::from_slice::<(u64, u64)>(&text).ok());
        let (ends, left) = told.ok_or_else(|| LoadError::NotJson(WHAT.to_owned()))?;
        let ends = UNIX_EPOCH + Duration::from_secs(ends);
        Ok(Day { ends, left: Duration::from_micros(left), asked })
    }

    /// How far WAL is handed out: past the commit record of everything that a value loaded
    /// before shows.
    pub async fn wal_insert(&self) -> Result<Lsn, LoadError> {
        const WHAT: &str = "the position in the WAL";
        let mut worker = self.worker(WHAT).await?;
        let sql = "SELECT pg_catalog.pg_current_wal_insert_lsn()::text";
        let text = worker.value(WHAT, sql, &[]).await?;
        let lsn = text.and_then(|text| str::from_utf8(&text).ok()?.parse().ok());
        lsn.ok_or_else(|| LoadError::NotJson(WHAT.to_owned()))
    }

    /// How long the present day lasts already in the caches' time zone.
    pub async fn since_midnight(&self) -> Result<Duration, LoadError> {
        const WHAT: &str = "the beginning of the day";
        static SQL: LazyLock<String> = LazyLock::new(|| {
            format!("SELECT to_json(floor(extract(epoch FROM now() - {BEGAN}))::int8)")
        });
        let mut worker = self.worker(WHAT).await?;
        let text = worker.value(WHAT, &SQL, &[Text(&self.timezone)]).await?;
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
        let (sql, values) = self.bind(cache, parameters)?;
        self.worker(cache).await?.value(cache, sql, &values).await
    }

    /// The value of an entry, to be stored under the lease that came with `needed`: it shows
    /// all that had been applied when the lease was taken. From the replica if there is one
    /// and it has that, else from the primary.
    pub async fn load_leased(
        &self,
        cache: &str,
        parameters: &[(&str, &str)],
        needed: &Needed<'_>,
    ) -> Result<Option<Vec<u8>>, LoadError> {
        let Some(replica) = self.replica.as_ref().filter(|_| needed.is_known()) else {
            return self.load(cache, parameters).await;
        };
        let (sql, values) = self.bind(cache, parameters)?;
        let question = Question { cache, sql, values: &values, timezone: &self.timezone };
        match replica.load(&question, needed).await {
            Some(value) => Ok(value),
            None => self.worker(cache).await?.value(cache, sql, &values).await,
        }
    }

    /// A cache's query and the values of its parameters.
    fn bind<'a>(
        &'a self,
        cache: &str,
        parameters: &[(&str, &'a str)],
    ) -> Result<(&'a str, Vec<Text<'a>>), LoadError> {
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
        Ok((&query.sql, values))
    }
}
