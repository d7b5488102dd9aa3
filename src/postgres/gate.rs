//! What is visible now: the question that the visibility gate (rule 1) asks.

use std::sync::Arc;

use tokio_postgres::Statement;

use super::client::SqlClient;
use super::error::{Class, Kind, PgError};
use crate::snapshot::Snapshot;

/// A connection to the primary that streams, ready to ask for snapshots.
///
/// A standby would answer, and wrongly: its snapshots list nothing in progress. So the
/// question includes whether this is one, for a server may become a primary and, restored
/// from a copy, a standby again.
pub struct Gate {
    client: Arc<SqlClient>,
    statement: Statement,
}

impl Gate {
    /// Prepares the question once.
    pub async fn open(client: SqlClient) -> Result<Gate, PgError> {
        let statement = client.prepare(QUESTION).await?;
        Ok(Gate { client: Arc::new(client), statement })
    }

    /// A snapshot taken after this call began: one round trip.
    pub async fn snapshot(&self) -> Result<Snapshot, PgError> {
        let asked = async { answer(&self.client.query_one(&self.statement, &[]).await?) };
        self.client.answered(asked).await
    }

    /// The connection, for other questions to the same server.
    #[must_use]
    pub fn client(&self) -> &Arc<SqlClient> {
        &self.client
    }
}

const QUESTION: &str =
    "SELECT pg_catalog.pg_current_snapshot()::text, pg_catalog.pg_is_in_recovery()";

/// A single snapshot, where there is no [`Gate`].
pub async fn current_snapshot(client: &SqlClient) -> Result<Snapshot, PgError> {
    answer(&client.query_one(&client.known(QUESTION).await?, &[]).await?)
}

fn answer(row: &tokio_postgres::Row) -> Result<Snapshot, PgError> {
    if row.try_get(1)? {
        return Err(PgError::new(
            Kind::Standby,
            Class::Stop,
            "this server is a standby, whose snapshots do not tell what is in progress",
        )
        .with_remedy("connect to the primary"));
    }
    let text: &str = row.try_get(0)?;
    text.parse().map_err(|error| PgError::protocol(format!("pg_current_snapshot(): {error}")))
}
