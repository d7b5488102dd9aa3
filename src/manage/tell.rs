//! Telling the daemon what was removed by hand: [`crate::store::notices`] has the argument.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::ground::{Ground, ManageError};
use super::remove::Removal;
use crate::store::notices::{is_done, post};
use crate::store::session::CERTIFICATE_LIFE;

/// How long its answer is waited for. It looks several times a second; the certificate of one
/// that is gone has ended by then.
const PATIENCE: Duration = CERTIFICATE_LIFE.saturating_add(Duration::from_secs(2));

/// How long between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Whether it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// It holds nothing any more of what was removed, and fills again what is to be.
    Told,
    /// None keeps this cache fresh now, so none holds anything that counts.
    Nobody,
    /// One should, and has not answered.
    Silent,
}

/// Tells it, and waits until it knows.
///
/// # Errors
/// If Redis did not answer.
pub async fn tell(ground: &Ground, removal: &Removal) -> Result<Told, ManageError> {
    let session = ground.redis().await?;
    let (mut connection, keys) = (session.connection(), session.keys());
    let posted = post(&mut connection, keys, &removal.removed).await?;
    let start = Instant::now();
    loop {
        if is_done(&mut connection, keys, &posted).await? {
            return Ok(Told::Told);
        }
        if session.certificate().await?.is_none() {
            return Ok(Told::Nobody);
        }
        if start.elapsed() >= PATIENCE {
            return Ok(Told::Silent);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl Told {
    /// What whoever removed has to know; `None`: all is as it should be.
    #[must_use]
    pub fn warning(self) -> Option<&'static str> {
        match self {
            Told::Told | Told::Nobody => None,
            Told::Silent => Some(
                "the daemon that keeps this cache fresh was not reached: for up to five minutes it may still use what it holds itself (who users are, the generations of scopes); do it again once it answers (`unstale status`), or restart it",
            ),
        }
    }
}
