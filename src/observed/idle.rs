//! Asking Redis for how long entries are idle. It is the one thing that Redis knows of reads which
//! do not go through the daemon.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tracing::{debug, info};

use super::Observed;
use super::lives::Question;
use crate::store::error::StoreError;
use crate::store::keys::ControlKeys;
use crate::store::session::{Address, Session};

/// How often what is followed is asked for: what dies younger, and is read by others than the read
/// API, counts as unknown.
pub const EVERY: Duration = Duration::from_secs(10);

/// How many are asked for in one round trip.
const AT_ONCE: usize = 128;

/// Asks these questions, and notes what was answered. That Redis will not say is noted too, and
/// no error.
///
/// # Errors
/// If Redis does not answer.
pub async fn ask(
    connection: &mut MultiplexedConnection,
    observed: &Observed,
    questions: &[Question],
) -> Result<(), StoreError> {
    for some in questions.chunks(AT_ONCE) {
        let mut look = redis::pipe();
        for question in some {
            look.cmd("OBJECT").arg("IDLETIME").arg(&*question.key);
        }
        let answers: Result<Vec<Option<u64>>, StoreError> =
            look.query_async(connection).await.map_err(StoreError::from);
        match answers {
            Ok(idle) => {
                observed.answered(some.iter().zip(idle));
                observed.blind(None);
            }
            Err(StoreError::Refused { code, message }) => {
                observed.blind(Some(match code.as_str() {
                    "NOPERM" => {
                        "the Redis user may not run OBJECT IDLETIME: grant +object|idletime"
                            .to_owned()
                    }
                    _ => format!("Redis does not say for how long entries are idle: {message}"),
                }));
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Asks for all that is followed, for ever.
pub async fn watch(observed: Arc<Observed>, address: Address, keys: ControlKeys) {
    let mut session: Option<Session> = None;
    let mut told = false;
    loop {
        tokio::time::sleep(EVERY).await;
        let questions = observed.questions();
        if questions.is_empty() {
            continue;
        }
        if session.is_none() {
            session = Session::open(&address, keys.clone())
                .await
                .inspect_err(|error| debug!(%error, "nobody is asked which entries are idle"))
                .ok();
        }
        let Some(open) = &session else { continue };
        if let Err(error) = ask(&mut open.connection(), &observed, &questions).await {
            debug!(%error, "nobody is asked which entries are idle");
            session = None;
        }
        if let Some(reason) = observed.why_blind().filter(|_| !told) {
            info!(%reason, "reports cannot tell which entries were read straight from Redis");
            told = true;
        }
    }
}
