//! Which timeline a server is on: asked again and again of one server, for many who ask.
//!
//! # Which source
//!
//! A standby tells its timeline in several places. Found on Postgres 15, by a standby that
//! went over to another primary, which had been promoted to timeline 2:
//!
//! | source | says | of what | who may ask |
//! |---|---|---|---|
//! | `pg_control_checkpoint()` | 1, for minutes | the last restart point | everybody |
//! | `pg_control_recovery()` | 1, for a while | the last page written | everybody |
//! | `pg_stat_wal_receiver.received_tli` | 2, or nothing | what was received, not replayed; nothing while WAL comes from an archive | `pg_read_all_stats` |
//! | `pg_walfile_name()` | an error | – | – |
//! | IDENTIFY_SYSTEM | 2, at once | what was replayed | REPLICATION |
//!
//! The first two are late. That is harmless where it makes a good standby look bad, and not
//! the other way round: a standby that has left timeline 2 for 3 still says 2, and what
//! was committed on 2 after the fork is not there. So only the last will do
//! (`GetStandbyFlushRecPtr` in Postgres' `walsender.c` takes it from the replay itself, under
//! the lock under which the replayed position is set). It needs a walsender, and one is
//! enough: a [`TimelineWatch`] is shared, and whoever asks while it is being asked waits for
//! the answer to the next question.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::client::SqlClient;
use super::conninfo::ConnectOptions;
use super::error::{Class, Kind, PgError};
use super::replication::{ReplicationConnection, SystemIdentity};

/// How many questions wait at the most; who comes later waits to ask.
const QUESTIONS: usize = 256;

/// A replication connection that is asked for the server's identity.
///
/// Dropping it ends the connection. So does an answer that does not come.
pub struct TimelineWatch {
    /// Nobody else's in `pg_stat_activity`.
    name: String,
    questions: mpsc::Sender<oneshot::Sender<SystemIdentity>>,
    patience: Duration,
}

impl TimelineWatch {
    /// Connects. An answer may take as long as `patience`.
    ///
    /// # Errors
    /// If the server cannot be reached, or refuses: the role needs REPLICATION.
    pub async fn open(
        options: &ConnectOptions,
        patience: Duration,
    ) -> Result<TimelineWatch, PgError> {
        let name = format!("unstale timeline {:016x}", fastrand::u64(..));
        let options = options.clone().with_application_name(&name);
        let connection = ReplicationConnection::connect(&options).await?;
        let (questions, asked) = mpsc::channel(QUESTIONS);
        tokio::spawn(answer(connection, asked, patience));
        Ok(TimelineWatch { name, questions, patience })
    }

    /// The server's identity as it is after this call began. Cancel-safe.
    ///
    /// # Errors
    /// If no answer came: the watch is of no use any more.
    pub async fn identify(&self) -> Result<SystemIdentity, PgError> {
        let lost = || PgError::lost("the connection that asks for the timeline has ended");
        let asking = async {
            let (tell, told) = oneshot::channel();
            self.questions.send(tell).await.map_err(|_| lost())?;
            told.await.map_err(|_| lost())
        };
        // Twice: a question may be under way already.
        tokio::time::timeout(self.patience * 2, asking).await.unwrap_or_else(|_| {
            Err(PgError::timeout(format!("no answer within {:?}", self.patience * 2)))
        })
    }

    /// Whether an ordinary connection of the same role is to the same running server: it
    /// then sees the watch among the server's sessions.
    ///
    /// # Errors
    /// If it is not, or the server refuses.
    pub async fn is_beside(name: &str, client: &SqlClient) -> Result<(), PgError> {
        const SQL: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_activity \
             WHERE application_name = $1::text AND backend_type = 'walsender')";
        if client.query_one(SQL, &[&name]).await?.try_get(0)? {
            return Ok(());
        }
        let what = "two connections reached two servers";
        Err(PgError::new(Kind::Settings, Class::Retry, what)
            .with_remedy("let the URL name one server, without a pooler or a balancer between"))
    }

    /// Its name among the server's sessions.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Asks once for all who have come until then. Ends with the last who could ask, and with
/// the first answer that does not come.
async fn answer(
    mut connection: ReplicationConnection,
    mut asked: mpsc::Receiver<oneshot::Sender<SystemIdentity>>,
    patience: Duration,
) {
    let mut waiting = Vec::new();
    while asked.recv_many(&mut waiting, QUESTIONS).await > 0 {
        match tokio::time::timeout(patience, connection.identify_system()).await {
            Ok(Ok(identity)) => {
                for tell in waiting.drain(..) {
                    // Whoever has gone meanwhile need not know.
                    _ = tell.send(identity.clone());
                }
            }
            Ok(Err(error)) => return tracing::debug!(%error, "the timeline could not be asked"),
            Err(_) => return tracing::debug!(?patience, "no answer about the timeline"),
        }
    }
}
