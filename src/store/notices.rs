//! What was removed by hand is told to the daemon that keeps this cache fresh, by way of Redis.
//!
//! That daemon holds some entries itself ([`crate::fill::held`]): it drops them with each change
//! that it applies, but a removal by hand changes no row. Whoever may remove entries from Redis
//! may write here, so no other way to the daemon has to be open, and nobody has to know where it
//! runs: there is one for each slot, and it looks here, several times a second.
//!
//! A notice is posted *after* Redis has acknowledged the removal. The daemon drops what it holds
//! and *then* notes `done`. So once that is read, nothing that was removed is used any more, by
//! anybody. What happens otherwise:
//!
//! * *Nobody keeps the cache fresh now* (no certificate): then nothing that anybody holds counts,
//!   and a daemon that begins holds nothing. Nobody has to be told. (One that was frozen, and goes
//!   on, finds the notice as soon as it looks: it is kept for longer than anything is held.)
//! * *The daemon dies between the two*: nothing that it held is left. The next one finds the notice
//!   and does it again, which is harmless.
//! * *It has a certificate and does not answer*: whoever asked says so.
//! * *Redis loses the notices*: the same.
//! * *Two commands at once*: each has ids of its own.
//!
//! A notice also names the keys that were there, so that the daemon may fill them again.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Script, Value};

use super::error::StoreError;
use super::keys::ControlKeys;
use super::script::{call, evaluate, unexpected};

static NOTICE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/notice.lua")));

/// How long a notice is kept.
const KEPT: Duration = Duration::from_secs(600);

/// What stands in place of a notice that the daemon knows.
const DONE: &str = "done";

/// How many keys one notice names.
const KEYS: usize = 500;

/// A key that was removed, and the name of its cache.
pub type Removed = (String, String);

/// What a daemon is to know.
#[derive(Debug, PartialEq, Eq)]
pub struct Notice {
    /// Which.
    pub id: String,
    /// What was there and was removed, as far as it is named.
    pub removed: Vec<Removed>,
}

/// What was posted.
#[derive(Debug)]
pub struct Posted {
    ids: Vec<String>,
}

/// Posts what was removed. With nothing to name there is still a notice.
///
/// # Errors
/// If Redis did not answer: it may be posted.
pub async fn post(
    connection: &mut MultiplexedConnection,
    control: &ControlKeys,
    removed: &[Removed],
) -> Result<Posted, StoreError> {
    let mut chunks: Vec<&[Removed]> = removed.chunks(KEYS).collect();
    if chunks.is_empty() {
        chunks.push(&[]);
    }
    let mut ids = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        let id = format!("{:032x}", fastrand::u128(..));
        let text = serde_json::to_string(chunk)
            .map_err(|error| StoreError::Unusable(format!("a notice: {error}")))?;
        write(connection, control, &[(&id, &text)]).await?;
        ids.push(id);
    }
    Ok(Posted { ids })
}

/// Whether the daemon knows all of it.
///
/// # Errors
/// If Redis did not answer.
pub async fn is_done(
    connection: &mut MultiplexedConnection,
    control: &ControlKeys,
    posted: &Posted,
) -> Result<bool, StoreError> {
    let mut command = redis::cmd("HMGET");
    command.arg(&control.notices).arg(&posted.ids);
    let found: Vec<Option<String>> = command.query_async(connection).await?;
    Ok(found.iter().all(|text| text.as_deref() == Some(DONE)))
}

/// The notices that no daemon has taken yet.
///
/// # Errors
/// If Redis did not answer.
pub async fn waiting(
    connection: &mut MultiplexedConnection,
    control: &ControlKeys,
) -> Result<Vec<Notice>, StoreError> {
    let found: HashMap<String, String> =
        redis::cmd("HGETALL").arg(&control.notices).query_async(connection).await?;
    let waiting = found.into_iter().filter(|(_, text)| text != DONE);
    // Of one that is not understood (another version's) the names are lost, and nothing else.
    let read = |text: &str| serde_json::from_str(text).unwrap_or_default();
    Ok(waiting.map(|(id, text)| Notice { removed: read(&text), id }).collect())
}

/// The daemon knows these.
///
/// # Errors
/// If Redis did not answer: they will be found again.
pub async fn done(
    connection: &mut MultiplexedConnection,
    control: &ControlKeys,
    notices: &[Notice],
) -> Result<(), StoreError> {
    let notices: Vec<(&str, &str)> = notices.iter().map(|n| (n.id.as_str(), DONE)).collect();
    write(connection, control, &notices).await
}

async fn write(
    connection: &mut MultiplexedConnection,
    control: &ControlKeys,
    notices: &[(&str, &str)],
) -> Result<(), StoreError> {
    let mut command = call(&NOTICE);
    command.arg(1).arg(&control.notices);
    command.arg(u64::try_from(KEPT.as_millis()).unwrap_or(u64::MAX));
    for (id, text) in notices {
        command.arg(id).arg(text);
    }
    match evaluate(connection, &NOTICE, &command).await? {
        Value::Int(_) => Ok(()),
        answer => Err(unexpected(&answer)),
    }
}
