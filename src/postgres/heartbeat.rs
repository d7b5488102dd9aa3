//! Writing a logical message to the WAL, on a connection of its own.

use std::time::Duration;

use super::client::SqlClient;
use super::conninfo::ConnectOptions;
use super::error::PgError;

/// What the messages are written under.
pub const PREFIX: &str = "unstale";

/// Whatever the role's own settings are. `local`: a commit that waits for a standby would be no
/// measure of anything but the standby.
const SESSION: &str = "SET synchronous_commit = 'local'; SET default_transaction_read_only = 'off'";

const EMIT: &str = "SELECT pg_catalog.pg_logical_emit_message(true, $1::text, $2::text)::text";

/// The connection; made when needed, and given up after any error.
pub struct Emitter {
    connect: ConnectOptions,
    statement_timeout: Duration,
    client: Option<SqlClient>,
}

impl Emitter {
    /// Does not connect yet.
    #[must_use]
    pub fn new(connect: &ConnectOptions, statement_timeout: Duration) -> Self {
        let name = format!("{} heartbeat", connect.application_name());
        let connect = connect.clone().with_application_name(&name);
        Emitter { connect, statement_timeout, client: None }
    }

    /// Makes sure that there is a connection.
    ///
    /// # Errors
    /// If the server cannot be reached.
    pub async fn ready(&mut self) -> Result<(), PgError> {
        if self.client.as_ref().is_none_or(SqlClient::is_lost) {
            let client = SqlClient::connect(&self.connect, self.statement_timeout).await?;
            client.answered(async { Ok(client.batch_execute(SESSION).await?) }).await?;
            self.client = Some(client);
        }
        Ok(())
    }

    /// Writes a message in a transaction of its own, and says where it stands. It is committed
    /// when this returns; after an error it may be.
    ///
    /// # Errors
    /// If the server does not answer, or refuses.
    pub async fn emit(&mut self, content: &str) -> Result<String, PgError> {
        self.ready().await?;
        let Some(client) = self.client.take() else {
            return Err(PgError::lost("there is no connection"));
        };
        let emitted = async { Ok(client.query_one(EMIT, &[&PREFIX, &content]).await?) };
        let row = client.answered(emitted).await.map_err(explained)?;
        let at = row.try_get(0)?;
        self.client = Some(client);
        Ok(at)
    }
}

fn explained(error: PgError) -> PgError {
    match error.sqlstate() {
        Some("42501") => error.with_remedy(
            "let the daemon's role execute pg_logical_emit_message, which Postgres grants to PUBLIC (`unstale check` has the statement), or set postgres.heartbeat = \"0s\"",
        ),
        Some("25006") => {
            error.with_remedy("this server takes no writes: let postgres.url name the primary")
        }
        _ => error,
    }
}
