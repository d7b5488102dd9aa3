//! What Redis knows of a key.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use serde::Serialize;

use super::key::Key;
use crate::store::error::StoreError;
use crate::store::keys::ControlKeys;
use crate::store::session::{Address, Session};

/// What Redis has.
#[derive(Debug, Serialize)]
pub struct Stored {
    pub(super) present: bool,
    /// How long it lives yet; `null`: for ever, or it is not there.
    pub(super) ttl_ms: Option<i64>,
    /// How long its lease stands; `null`: nobody has one.
    pub(super) lease_ttl_ms: Option<i64>,
    /// Of a cache that is refreshed: the entry may lack a change, and goes after this unless it
    /// is refreshed before; `null`: it lacks nothing.
    pub(super) due_in_ms: Option<i64>,
    /// The scope's generation now; `null`: the key is of no scope, or there is none yet.
    pub(super) generation: Option<String>,
    /// Whether the state says that what is cached is good; `null`: there is no state.
    pub(super) valid: Option<bool>,
    /// Everything below it is applied.
    pub(super) watermark: Option<String>,
    /// Whether a daemon certifies it now.
    pub(super) certified: bool,
}

/// Asks Redis, on a connection of its own.
///
/// # Errors
/// If it does not answer.
pub async fn ask_redis(
    address: &Address,
    control: ControlKeys,
    key: &Key<'_>,
) -> Result<Stored, StoreError> {
    let mut session = Session::open(address, control).await?;
    let state = session.state().await?;
    let mut connection = session.connection();
    let lease = session.keys().lease_of(key.full.as_bytes());
    let ttl = life(&mut connection, key.full.as_bytes()).await?;
    let lease_ttl = life(&mut connection, &lease).await?;
    let certificate = life(&mut connection, session.keys().fresh.as_bytes()).await?;
    let generation: Option<String> = match &key.generation {
        Some((key, _)) => redis::cmd("GET").arg(key).query_async(&mut connection).await?,
        None => None,
    };
    let stays = key.cache.and_then(|cache| cache.max_staleness);
    let due = |ms: &i64| {
        let life = u64::try_from(*ms).ok().map(Duration::from_millis);
        stays.zip(life).is_some_and(|(stays, life)| life <= stays)
    };
    Ok(Stored {
        present: ttl != ABSENT,
        due_in_ms: Some(ttl).filter(due),
        ttl_ms: Some(ttl).filter(|ms| *ms >= 0),
        lease_ttl_ms: Some(lease_ttl).filter(|ms| *ms >= 0),
        generation,
        valid: state.as_ref().map(|state| state.valid),
        watermark: state.as_ref().map(|state| state.watermark.to_string()),
        certified: certificate != ABSENT,
    })
}

/// What PTTL says of a key that is not there.
const ABSENT: i64 = -2;

async fn life(connection: &mut MultiplexedConnection, key: &[u8]) -> Result<i64, StoreError> {
    Ok(redis::cmd("PTTL").arg(key).query_async(connection).await?)
}

#[cfg(test)]
impl Stored {
    /// What Redis says of a life of so many milliseconds.
    pub(super) fn of_life(ms: i64) -> Stored {
        Stored {
            present: ms != ABSENT,
            ttl_ms: Some(ms).filter(|ms| *ms >= 0),
            lease_ttl_ms: None,
            due_in_ms: None,
            generation: None,
            valid: Some(true),
            watermark: None,
            certified: true,
        }
    }
}
