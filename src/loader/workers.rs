//! The loaders' connections: a bounded number, each with its statements prepared once.

use std::collections::HashMap;
use std::time::Duration;

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use tokio_postgres::Statement;

use crate::postgres::client::SqlClient;
use crate::postgres::conninfo::ConnectOptions;
use crate::postgres::error::PgError;

/// A connection and what was prepared on it.
pub(super) struct Worker {
    pub(super) client: SqlClient,
    prepared: HashMap<String, Statement>,
}

impl Worker {
    /// The statement, prepared once a connection.
    pub(super) async fn prepare(&mut self, sql: &str) -> Result<Statement, PgError> {
        if let Some(statement) = self.prepared.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await?;
        self.prepared.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

/// Makes connections for the pool.
pub(super) struct Connector {
    pub(super) options: ConnectOptions,
    pub(super) statement_timeout: Duration,
}

impl Manager for Connector {
    type Type = Worker;
    type Error = PgError;

    async fn create(&self) -> Result<Worker, PgError> {
        let client = SqlClient::connect_read_only(&self.options, self.statement_timeout).await?;
        Ok(Worker { client, prepared: HashMap::new() })
    }

    async fn recycle(&self, worker: &mut Worker, _: &Metrics) -> RecycleResult<PgError> {
        if worker.client.is_lost() {
            return Err(RecycleError::message("the connection has ended"));
        }
        Ok(())
    }
}
