//! Runs the steps of a set-up, so that the application never waits behind them.
//!
//! `ALTER TABLE … REPLICA IDENTITY` shuts everybody out for a moment. Whoever wants such a
//! lock stands in line behind those who have the table, and everybody who comes later
//! stands in line behind him, readers too. So each attempt waits a tenth of a second at
//! most, and steps back.

use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;

use super::step::{How, Step};
use crate::postgres::client::SqlClient;
use crate::postgres::error::PgError;

/// How long one attempt stands in line.
const LOCK_TIMEOUT: &str = "SET lock_timeout = '100ms'";
const PAUSE: Duration = Duration::from_millis(500);
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Why a step was not done.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The server refused it.
    #[error("{0}")]
    Postgres(#[from] PgError),
    /// Somebody kept the table.
    #[error(
        "{table} was never free for {waited:?}: {holders}; end what holds it, or try again at a \
         quieter time (nothing is left half-done, and what is done stays)"
    )]
    Busy {
        /// The table.
        table: String,
        /// How long it was tried.
        waited: Duration,
        /// Who held it.
        holders: String,
    },
}

/// Runs one step. Tells `progress` why it takes longer than a moment.
pub async fn step(
    client: &SqlClient,
    step: &Step,
    patience: Duration,
    progress: &mut (dyn FnMut(&str) + Send),
) -> Result<(), StepError> {
    match &step.how {
        How::Briefly { table } => briefly(client, step, table, patience, progress).await,
        How::Concurrently { index, drops } => {
            client.batch_execute("SET lock_timeout = 0").await.map_err(PgError::from)?;
            let done = patiently(client, &step.sql, progress).await;
            if done.is_err() && !drops {
                // What it leaves behind would take space and time, and serve nobody.
                _ = client
                    .batch_execute(&format!("DROP INDEX CONCURRENTLY IF EXISTS {index}"))
                    .await;
            }
            Ok(done.map_err(PgError::from)?)
        }
        How::AtOnce | How::First | How::CreatePublication | How::AddTable { .. } => {
            client.batch_execute("SET lock_timeout = '10s'").await.map_err(PgError::from)?;
            let done = client.batch_execute(&step.sql).await;
            if done.is_err() && step.sql.starts_with("BEGIN") {
                _ = client.batch_execute("ROLLBACK").await;
            }
            Ok(done.map_err(PgError::from)?)
        }
    }
}

/// An index takes as long as it takes: it reads the table twice, and waits for transactions
/// that are open.
async fn patiently(
    client: &SqlClient,
    sql: &str,
    progress: &mut (dyn FnMut(&str) + Send),
) -> Result<(), tokio_postgres::Error> {
    let running = client.batch_execute(sql);
    tokio::pin!(running);
    let started = Instant::now();
    loop {
        tokio::select! {
            done = &mut running => return done,
            () = tokio::time::sleep(TELL_EVERY) => progress(&format!(
                "at it for {} s: it reads the table, and waits for open transactions to end; \
                 nobody waits for it",
                started.elapsed().as_secs()
            )),
        }
    }
}

async fn briefly(
    client: &SqlClient,
    step: &Step,
    table: &str,
    patience: Duration,
    progress: &mut (dyn FnMut(&str) + Send),
) -> Result<(), StepError> {
    client.batch_execute(LOCK_TIMEOUT).await.map_err(PgError::from)?;
    let started = Instant::now();
    let mut told = None::<Instant>;
    loop {
        match client.batch_execute(&step.sql).await {
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {}
            done => return Ok(done.map_err(PgError::from)?),
        }
        let waited = started.elapsed();
        let tell = told.is_none_or(|told| told.elapsed() > TELL_EVERY);
        if tell || waited >= patience {
            let holders = holders(client, table).await?;
            if waited >= patience {
                return Err(StepError::Busy { table: table.to_owned(), waited: patience, holders });
            }
            progress(&format!("{table} is in use ({holders}): trying again, nobody waits for it"));
            told = Some(Instant::now());
        }
        // Not in step with whoever comes at regular times.
        tokio::time::sleep(PAUSE.mul_f64(0.5 + fastrand::f64())).await;
    }
}

/// Who holds the table, the longest first.
async fn holders(client: &SqlClient, table: &str) -> Result<String, PgError> {
    let rows = client
        .query(
            "SELECT l.pid, coalesce(a.usename::text, '?'),
                    coalesce(extract(epoch FROM clock_timestamp() - a.xact_start), 0)::int8
               FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a USING (pid)
              WHERE l.relation = $1::text::regclass AND l.granted AND l.pid <> pg_backend_pid()
              GROUP BY 1, 2, 3 ORDER BY 3 DESC LIMIT 3",
            &[&table],
        )
        .await?;
    let mut told = Vec::new();
    for row in &rows {
        let (pid, user, seconds): (i32, String, i64) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        told.push(format!("PID {pid} ({user}), in a transaction for {seconds} s"));
    }
    Ok(if told.is_empty() { "by short transactions".to_owned() } else { told.join("; ") })
}
