//! The loaders' connections: a bounded number, each with its statements prepared once.

use std::collections::HashMap;
use std::time::Duration;

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use futures_util::{TryStreamExt, pin_mut};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};

use super::error::LoadError;
use super::text::{Json, Text};
use crate::postgres::client::SqlClient;
use crate::postgres::conninfo::ConnectOptions;
use crate::postgres::error::PgError;
use crate::postgres::timeline::TimelineWatch;

/// A connection and what was prepared on it.
pub(super) struct Worker {
    client: SqlClient,
    prepared: HashMap<String, Statement>,
    /// A statement is under way. If it stays so, whoever asked has gone without waiting for
    /// the answer, and the next one would wait behind it.
    engaged: bool,
}

impl Worker {
    /// The statement, prepared once a connection.
    async fn prepare(&mut self, sql: &str) -> Result<Statement, PgError> {
        if let Some(statement) = self.prepared.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await?;
        self.prepared.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    /// The only row of a statement that gives one.
    pub(super) async fn row(&mut self, sql: &str, values: &[Text<'_>]) -> Result<Row, PgError> {
        self.engaged = true;
        let statement = self.prepare(sql).await?;
        let parameters: Vec<_> = values.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
        let row = self.client.query_one(&statement, &parameters).await?;
        self.engaged = false;
        Ok(row)
    }

    /// The value that a cache's query gives; `None`: no row.
    pub(super) async fn value(
        &mut self,
        cache: &str,
        sql: &str,
        values: &[Text<'_>],
    ) -> Result<Option<Vec<u8>>, LoadError> {
        self.engaged = true;
        let answered = self.run(cache, sql, values).await;
        // An error ends the statement as well.
        self.engaged = false;
        answered
    }

    async fn run(
        &mut self,
        cache: &str,
        sql: &str,
        values: &[Text<'_>],
    ) -> Result<Option<Vec<u8>>, LoadError> {
        let failed = |source: PgError| LoadError::Postgres { cache: cache.to_owned(), source };
        let statement = self.prepare(sql).await.map_err(failed)?;
        let parameters = values.iter().map(|value| value as &(dyn ToSql + Sync));
        let rows = self.client.query_raw(&statement, parameters).await;
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
}

/// Makes connections for the pool.
pub(super) struct Connector {
    pub(super) options: ConnectOptions,
    pub(super) statement_timeout: Duration,
    /// Only to the server on which a watch of this name runs.
    pub(super) beside: Option<String>,
}

impl Manager for Connector {
    type Type = Worker;
    type Error = PgError;

    async fn create(&self) -> Result<Worker, PgError> {
        let client = SqlClient::connect_read_only(&self.options, self.statement_timeout).await?;
        if let Some(watch) = &self.beside {
            TimelineWatch::is_beside(watch, &client).await?;
        }
        Ok(Worker { client, prepared: HashMap::new(), engaged: false })
    }

    async fn recycle(&self, worker: &mut Worker, _: &Metrics) -> RecycleResult<PgError> {
        if worker.client.is_lost() {
            return Err(RecycleError::message("the connection has ended"));
        }
        if worker.engaged {
            return Err(RecycleError::message("a statement that nobody waits for is under way"));
        }
        Ok(())
    }
}
