//! Reading values together with the certificate (rule 11), in one command.
//!
//! `MGET` is atomic: if the certificate is there, then at that moment somebody kept these
//! values fresh, and everything below the watermark that it holds was applied to them. While
//! the state is invalid (a gap) there is no certificate, so what is still to be purged is not
//! served.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;

use super::error::StoreError;
use super::keys::ControlKeys;
use super::session::{Address, Session};
use crate::lsn::Lsn;

/// How long Redis is left alone after it did not answer: readers have a database to go to.
const REST: Duration = Duration::from_millis(500);

/// One connection for all reads, made when needed.
pub struct Reader {
    address: Address,
    keys: ControlKeys,
    line: Mutex<Option<MultiplexedConnection>>,
    /// One at a time connects.
    connecting: tokio::sync::Mutex<()>,
    /// Not to be asked before.
    rests_until: Mutex<Option<Instant>>,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// The watermark that the certificate holds; `None`: nobody keeps the values fresh.
    pub certificate: Option<Lsn>,
    /// The values, in the order of their keys.
    pub values: Vec<Option<Vec<u8>>>,
}

impl Reader {
    /// Does not connect yet.
    #[must_use]
    pub fn new(address: Address, keys: ControlKeys) -> Self {
        Reader {
            address,
            keys,
            line: Mutex::new(None),
            connecting: tokio::sync::Mutex::new(()),
            rests_until: Mutex::new(None),
        }
    }

    /// Reads these keys, and the certificate with them.
    ///
    /// # Errors
    /// If Redis does not answer, or did not a moment ago.
    pub async fn get(&self, keys: &[impl AsRef<[u8]>]) -> Result<Found, StoreError> {
        self.may_ask()?;
        match self.try_get(keys).await {
            Ok(found) => {
                *lock(&self.rests_until) = None;
                Ok(found)
            }
            Err(error) => {
                *lock(&self.line) = None;
                *lock(&self.rests_until) = Some(Instant::now() + REST);
                Err(error)
            }
        }
    }

    /// Whoever comes first after a rest tries; the others still go to the database.
    fn may_ask(&self) -> Result<(), StoreError> {
        let mut rests_until = lock(&self.rests_until);
        let now = Instant::now();
        match *rests_until {
            Some(until) if until > now => {
                Err(StoreError::Lost("it did not answer a moment ago".to_owned()))
            }
            Some(_) => {
                *rests_until = Some(now + REST);
                Ok(())
            }
            None => Ok(()),
        }
    }

    async fn try_get(&self, keys: &[impl AsRef<[u8]>]) -> Result<Found, StoreError> {
        let mut line = self.line().await?;
        let mut command = redis::cmd("MGET");
        command.arg(&self.keys.fresh);
        for key in keys {
            command.arg(key.as_ref());
        }
        let mut values: Vec<Option<Vec<u8>>> = command.query_async(&mut line).await?;
        if values.len() != keys.len() + 1 {
            return Err(StoreError::Lost(
                "another number of values than were asked for".to_owned(),
            ));
        }
        let certificate = values.remove(0);
        let certificate = certificate.and_then(|text| str::from_utf8(&text).ok()?.parse().ok());
        Ok(Found { certificate, values })
    }

    async fn line(&self) -> Result<MultiplexedConnection, StoreError> {
        let there = || lock(&self.line).clone();
        if let Some(line) = there() {
            return Ok(line);
        }
        let _one = self.connecting.lock().await;
        if let Some(line) = there() {
            return Ok(line);
        }
        let line = Session::open(&self.address, self.keys.clone()).await?.connection();
        *lock(&self.line) = Some(line.clone());
        Ok(line)
    }
}

/// Each change under these locks is one assignment: nothing is left half done.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
