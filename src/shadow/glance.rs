//! Looking into Redis: all that a daemon in shadow mode ever asks of it. Nothing here writes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::Value;
use sha2::{Digest as _, Sha256};
use tracing::{info, warn};

use super::awaiting::Sight;
use crate::pipeline::end::End;
use crate::status::{Health, Status};
use crate::store::error::StoreError;
use crate::store::keys::ControlKeys;
use crate::store::scan::Scan;
use crate::store::session::{Address, Session};

/// How many entries are asked for in one round trip: their values are in memory for a moment.
const AT_ONCE: usize = 32;

/// How long Redis is left alone after it did not answer. Nothing waits for it.
const REST: Duration = Duration::from_secs(1);

/// How many steps of a scan are made for some entries of one cache.
const STEPS: usize = 20;

/// A way to Redis that reads.
pub struct Glance {
    address: Address,
    keys: ControlKeys,
    session: Option<Session>,
    rests_until: Option<Instant>,
    status: Arc<Status>,
}

/// An entry.
#[derive(Debug)]
pub struct Seen {
    /// What is remembered of it.
    pub sight: Sight,
    /// Its bytes.
    pub value: Vec<u8>,
}

/// What was found of some keys.
#[derive(Debug, Default)]
pub struct Looked {
    /// Redis' time in ms, before the first look.
    pub clock: i64,
    /// In the order of the keys. `None`: not there, or no string.
    pub entries: Vec<Option<Seen>>,
}

impl Glance {
    /// Connects once, and makes sure that nobody keeps this cache by the same slot.
    ///
    /// # Errors
    /// If Redis cannot be read, or the cache is kept.
    pub async fn open(
        address: Address,
        keys: ControlKeys,
        status: Arc<Status>,
    ) -> Result<Self, End> {
        let mut glance = Glance { address, keys, session: None, rests_until: None, status };
        glance.try_check().await.inspect_err(|error| glance.lose(error))?.map_or(Ok(()), Err)?;
        Ok(glance)
    }

    /// Looks whether Redis is there, and nobody keeps the cache by this slot.
    ///
    /// # Errors
    /// If somebody does.
    pub async fn check(&mut self) -> Result<(), End> {
        if self.rests() {
            return Ok(());
        }
        match self.try_check().await {
            Ok(None) => Ok(()),
            Ok(Some(end)) => Err(end),
            Err(error) => {
                self.lose(&error);
                Ok(())
            }
        }
    }

    async fn try_check(&mut self) -> Result<Option<End>, StoreError> {
        let state = self.session().await?.state().await?;
        self.works();
        Ok(state.filter(|state| state.valid).map(|_| {
            End::Hopeless(format!(
                "{} in Redis is valid: a daemon keeps this cache by this slot, or did, and shadow mode would read its changes away; let postgres.slot name another one in shadow mode, or set shadow = false",
                self.keys.state
            ))
        }))
    }

    /// Looks at some entries. `None`: Redis did not answer, or did not a moment ago.
    pub async fn look(&mut self, keys: &[&[u8]]) -> Option<Looked> {
        if self.rests() {
            return None;
        }
        match self.try_look(keys).await {
            Ok(looked) => {
                self.works();
                Some(looked)
            }
            Err(error) => {
                self.lose(&error);
                None
            }
        }
    }

    async fn try_look(&mut self, keys: &[&[u8]]) -> Result<Looked, StoreError> {
        let mut connection = self.session().await?.connection();
        let (seconds, micros): (i64, i64) = redis::cmd("TIME").query_async(&mut connection).await?;
        let mut looked = Looked {
            clock: seconds.saturating_mul(1000).saturating_add(micros / 1000),
            entries: Vec::with_capacity(keys.len()),
        };
        for some in keys.chunks(AT_ONCE) {
            let mut pipeline = redis::pipe();
            pipeline.ignore_errors();
            for key in some {
                pipeline.cmd("GET").arg(*key).cmd("PEXPIRETIME").arg(*key);
            }
            let answers: Vec<Value> = pipeline.query_async(&mut connection).await?;
            if answers.len() != 2 * some.len() {
                return Err(StoreError::Lost("another number of answers".to_owned()));
            }
            let mut answers = answers.into_iter();
            while let (Some(value), Some(expires)) = (answers.next(), answers.next()) {
                looked.entries.push(entry(value, expires)?);
            }
        }
        Ok(looked)
    }

    /// Some keys that begin with `prefix`, at most so many.
    pub async fn some_under(&mut self, prefix: &[u8], at_most: usize) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        if self.rests() {
            return found;
        }
        let mut scan = Scan::new(vec![prefix.to_vec()]);
        for _ in 0..STEPS {
            let step = match self.session().await {
                Ok(session) => scan.next(&mut session.connection()).await,
                Err(error) => Err(error),
            };
            match step {
                Ok(Some(keys)) => found.extend(keys),
                Ok(None) => break,
                Err(error) => {
                    self.lose(&error);
                    break;
                }
            }
            if found.len() >= at_most {
                break;
            }
        }
        found.truncate(at_most);
        found
    }

    fn rests(&mut self) -> bool {
        let rests = self.rests_until.is_some_and(|until| until > Instant::now());
        if !rests {
            self.rests_until = None;
        }
        rests
    }

    async fn session(&mut self) -> Result<&mut Session, StoreError> {
        let session = match self.session.take() {
            Some(session) => session,
            None => Session::open(&self.address, self.keys.clone()).await?,
        };
        Ok(self.session.insert(session))
    }

    fn works(&mut self) {
        if self.status.redis(Health::Up)
            && let Some(session) = &self.session
        {
            let server = session.server();
            info!(
                version = server.version,
                run_id = server.run_id,
                "connected to Redis, to look on"
            );
        }
    }

    fn lose(&mut self, error: &StoreError) {
        self.session = None;
        self.rests_until = Some(Instant::now() + REST);
        if self.status.redis(Health::Down(error.to_string())) {
            warn!(%error, "Redis is not available: what changes meanwhile is not looked at");
        }
    }
}

/// Something else than a string is nobody's entry.
fn entry(value: Value, expires: Value) -> Result<Option<Seen>, StoreError> {
    let value = match value.extract_error() {
        Ok(Value::BulkString(value)) => value,
        Ok(_) => return Ok(None),
        Err(error) if error.code() == Some("WRONGTYPE") => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let expires = match expires.extract_error()? {
        Value::Int(ms) => Some(ms).filter(|ms| *ms >= 0),
        _ => None,
    };
    let digest = Sha256::digest(&value).into();
    Ok(Some(Seen { sight: Sight { digest, expires }, value }))
}
