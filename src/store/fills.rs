//! Leases and fills (rules 4 and 5): how a value gets into the cache without ever being
//! older than what was removed.
//!
//! Who misses takes a *lease*, then reads the database, then stores, and the store is
//! accepted only while that very lease still lives. Whatever removes the key removes
//! its lease in the same step. So a value is stored only if nothing was applied to its key
//! between the lease and the store; and what had been applied before the lease was visible to
//! every snapshot taken after it, because the daemon applies nothing that is not (rule 1).
//!
//! * *The filler sleeps for an hour.* Its lease has expired, and its token is in no key.
//! * *Two fill the same key.* Only one has the lease; the others wait for it, bounded, and
//!   then load without storing.
//! * *Redis comes back with an older state, in which the lease lives again.* A lease belongs
//!   to the connection that took it: after an error on it the holder has none. What
//!   still slips through is purged: the chain is broken, and that is a gap.
//! * *The answer to a fill is lost.* It may have been stored: then it was accepted.
//! * *The answer that told of a lease is lost.* Nobody fills by it; it is given back
//!   ([`lost`](super::lost)).
//! * *A scope is dropped.* Its generation is gone, and a fill names the generation it is for.
//!
//! Of a cache with `on_change = "refresh"` (rule 12) a change leaves the value for a while, and
//! the lease: a value that is computed again and again while its key changes would never come to
//! be stored. Instead both get a *due*: the time (Redis' own) at which the first change that the
//! value may lack was applied, and `max_staleness` later.
//!
//! * *Where the due of a value lives.* It is the value's own expiry, so the two cannot be
//!   lost apart. Changes only ever bring the expiry forward: the first due wins, a batch that is
//!   applied again moves nothing, and no due lengthens a life.
//! * *Where the due of a lease lives.* In the lease, behind the token.
//! * *A change comes while the value is computed.* The first one gives the lease its due,
//!   and the store hands it on to the value: it contains all that was applied before the
//!   lease, so the first change that it may lack is that one.
//! * *A load that comes past its due* is not stored.
//! * *Whoever refreshes dies.* The value goes at its due; its readers then take leases as
//!   for every other.
//! * *A gap, a whole cache*: leases and values go, whatever their dues.
//!
//! `docs/PROTOCOL.md` says the same for clients in other languages.

use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use redis::{Script, Value};

use super::error::StoreError;
use super::keys::ControlKeys;
use super::lines::{Line, Lines};
use super::lost::{Lost, Token};
use super::script::{call, evaluate, evaluate_all, unexpected};
use super::session::Address;
use crate::lsn::Lsn;

static ACQUIRE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/acquire.lua")));
static REFRESH: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/refresh.lua")));
static FILL: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/fill.lua")));
static RELEASE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/release.lua")));
static GENERATION: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/generation.lua")));

/// What is stored where there is nothing to cache, of a cache with `negative_ttl`. Who reads
/// it by GET and parses it has what he has after a miss: nothing.
pub const NOTHING: &[u8] = b"null";

/// What a value is stored under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The full Redis key.
    pub key: Vec<u8>,
    /// The cache's name.
    pub cache: String,
    /// For a scoped cache: the key of the generation, and the generation in `key`.
    pub scope: Option<(Vec<u8>, String)>,
}

/// The way to Redis for those who read and fill. Connects when needed.
pub struct Fills {
    lines: Arc<Lines>,
    keys: ControlKeys,
    lost: Arc<Lost>,
}

/// What asking for an entry gave.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it is taken apart at once")]
pub enum Acquired {
    /// The value.
    Hit {
        /// As it was stored.
        value: Vec<u8>,
        /// How long it still lives; `None`: without end.
        remaining: Option<Duration>,
    },
    /// Nothing is there, and it is for the caller to compute it.
    Lease(Lease),
    /// Nothing is there, and somebody computes it: ask again soon.
    Wait {
        /// When that lease ends at the latest.
        at_most: Duration,
    },
    /// Nothing is there, and nothing would be accepted: a gap is under way, or the
    /// generation is not the scope's any more. Load without storing.
    Closed,
}

/// What asking for the right to compute an entry anew gave.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it is one at a time, and mostly a lease")]
pub enum Due {
    /// What is cached lacks nothing that was applied.
    Fresh,
    /// It may lack something, or is not there, and it is for the caller to compute it.
    Lease(Lease),
    /// Somebody computes it.
    Wait,
    /// Nothing would be accepted.
    Closed,
}

/// The right to store one value. Take the database's snapshot after it, never before.
pub struct Lease {
    line: Arc<Line>,
    lost: Arc<Lost>,
    keys: ControlKeys,
    entry: Entry,
    token: String,
    /// What a replica must have replayed before it may be read (rule 5).
    pub frontier: Lsn,
    /// The database that the frontier is of.
    pub system_id: String,
    /// Its timeline.
    pub timeline: u32,
}

/// How a fill went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filled {
    /// Others can read it now.
    Stored,
    /// A change was applied since the lease, or the lease has expired; of a cache that is
    /// refreshed, such a change was applied too long ago. The value is as fresh as its read all
    /// the same: the caller may use it.
    Voided,
}

impl Fills {
    /// Does not connect yet.
    #[must_use]
    pub fn new(address: Address, keys: ControlKeys) -> Self {
        Fills { lines: Arc::new(Lines::new(address, keys.clone())), keys, lost: Arc::default() }
    }

    /// Asks for an entry: its value, or the right to compute it for at most `life`.
    pub async fn acquire(&self, entry: &Entry, life: Duration) -> Result<Acquired, StoreError> {
        let none = || StoreError::Lost("nothing was answered".to_owned());
        self.acquire_all(&[entry], life).await.pop().unwrap_or_else(|| Err(none()))
    }

    /// Asks for several entries in one round trip. The answers are in the entries' order.
    pub async fn acquire_all(
        &self,
        entries: &[&Entry],
        life: Duration,
    ) -> Vec<Result<Acquired, StoreError>> {
        let line = match self.lines.line().await {
            Ok(line) => line,
            Err(error) => return entries.iter().map(|_| Err(error.clone())).collect(),
        };
        self.give_back_lost(&line).await;
        let answers = match self.try_acquire_all(&line, entries, life).await {
            Ok(answers) => answers,
            Err(error) => entries.iter().map(|_| Err(error.clone())).collect(),
        };
        if answers.iter().any(Result::is_err) {
            self.lines.give_up(&line);
        }
        answers
    }

    async fn try_acquire_all(
        &self,
        line: &Arc<Line>,
        entries: &[&Entry],
        life: Duration,
    ) -> Result<Vec<Result<Acquired, StoreError>>, StoreError> {
        let mut tokens = Vec::with_capacity(entries.len());
        let mut commands = Vec::with_capacity(entries.len());
        for entry in entries {
            let token = token()?;
            let mut command = call(&ACQUIRE);
            entry.keys_into(&mut command, &self.keys);
            command.arg(&token).arg(millis(life)).arg(&entry.cache);
            entry.generation_into(&mut command);
            commands.push(command);
            tokens.push(token);
        }
        let (mut connection, _under_way) = line.carry(commands.len());
        let lost = |entry: &Entry, token| (self.keys.lease_of(&entry.key), token);
        let answers = match evaluate_all(&mut connection, &ACQUIRE, &commands).await {
            Ok(answers) => answers,
            Err(error) => {
                let all = entries.iter().zip(tokens);
                self.lost.note(all.map(|(entry, token)| lost(entry, token)));
                return Err(error);
            }
        };
        let answers = answers.into_iter().zip(entries.iter().zip(tokens));
        Ok(answers
            .map(|(answer, (entry, token))| match answer {
                Ok(answer) => self.acquired(line, entry, token, &answer),
                Err(error) => {
                    self.lost.note([lost(entry, token)]);
                    Err(error)
                }
            })
            .collect())
    }

    /// Before anything else, so that who asks for such a key need not wait.
    async fn give_back_lost(&self, line: &Arc<Line>) {
        let lost = self.lost.take();
        if lost.is_empty() {
            return;
        }
        let command = |(lease, token): &Token| {
            let mut command = call(&RELEASE);
            command.arg(1).arg(lease).arg(token);
            command
        };
        let commands: Vec<_> = lost.iter().map(command).collect();
        let (mut connection, _under_way) = line.carry(commands.len());
        if evaluate_all(&mut connection, &RELEASE, &commands).await.is_err() {
            self.lost.note(lost);
        }
    }

    fn acquired(
        &self,
        line: &Arc<Line>,
        entry: &Entry,
        token: String,
        answer: &Value,
    ) -> Result<Acquired, StoreError> {
        let Value::Array(parts) = answer else { return Err(unexpected(answer)) };
        match (text(parts.first()).as_deref(), parts.get(1), parts.get(2)) {
            (Some("hit"), Some(Value::BulkString(value)), Some(Value::Int(ms))) => {
                let remaining = u64::try_from(*ms).ok().map(Duration::from_millis);
                Ok(Acquired::Hit { value: value.clone(), remaining })
            }
            (Some("wait"), Some(Value::Int(ms)), _) => {
                let at_most = Duration::from_millis(u64::try_from(*ms).unwrap_or_default());
                Ok(Acquired::Wait { at_most })
            }
            (Some("closed"), ..) => Ok(Acquired::Closed),
            (Some("lease"), ..) => self
                .lease(line, entry, token, parts)
                .map(Acquired::Lease)
                .ok_or_else(|| unexpected(answer)),
            _ => Err(unexpected(answer)),
        }
    }

    /// The lease that a script's answer gives.
    fn lease(
        &self,
        line: &Arc<Line>,
        entry: &Entry,
        token: String,
        parts: &[Value],
    ) -> Option<Lease> {
        Some(Lease {
            line: Arc::clone(line),
            lost: Arc::clone(&self.lost),
            keys: self.keys.clone(),
            entry: entry.clone(),
            token,
            frontier: text(parts.get(1))?.parse().ok()?,
            system_id: text(parts.get(2))?,
            timeline: text(parts.get(3))?.parse().ok()?,
        })
    }

    /// Asks for the right to compute an entry anew for at most `life`, although it may be
    /// there: an old value may stay for `max_staleness`.
    pub async fn refresh(
        &self,
        entry: &Entry,
        life: Duration,
        max_staleness: Duration,
    ) -> Result<Due, StoreError> {
        let line = self.lines.line().await?;
        self.give_back_lost(&line).await;
        let token = token()?;
        let mut command = call(&REFRESH);
        entry.keys_into(&mut command, &self.keys);
        command.arg(&token).arg(millis(life)).arg(&entry.cache).arg(millis(max_staleness));
        let (mut connection, _under_way) = line.carry(1);
        let answer = match evaluate(&mut connection, &REFRESH, &command).await {
            Ok(answer) => answer,
            Err(error) => {
                self.lost.note([(self.keys.lease_of(&entry.key), token)]);
                self.lines.give_up(&line);
                return Err(error);
            }
        };
        let Value::Array(parts) = &answer else { return Err(unexpected(&answer)) };
        match text(parts.first()).as_deref() {
            Some("fresh") => Ok(Due::Fresh),
            Some("wait") => Ok(Due::Wait),
            Some("closed") => Ok(Due::Closed),
            Some("lease") => self
                .lease(&line, entry, token, parts)
                .map(Due::Lease)
                .ok_or_else(|| unexpected(&answer)),
            _ => Err(unexpected(&answer)),
        }
    }

    /// The generation of a scope, made if there is none; `None` while fills are not
    /// accepted. It lives for `life`: longer than what is stored under it.
    pub async fn generation(
        &self,
        key: &[u8],
        life: Duration,
    ) -> Result<Option<String>, StoreError> {
        let line = self.lines.line().await?;
        let mut command = call(&GENERATION);
        command.arg(2).arg(key).arg(&self.keys.state).arg(token()?).arg(millis(life));
        let (mut connection, _under_way) = line.carry(1);
        match evaluate(&mut connection, &GENERATION, &command).await {
            Ok(Value::BulkString(generation)) => {
                Ok(Some(String::from_utf8_lossy(&generation).into_owned()))
            }
            Ok(Value::Nil) => Ok(None),
            Ok(answer) => Err(unexpected(&answer)),
            Err(error) => {
                self.lines.give_up(&line);
                Err(error)
            }
        }
    }
}

impl Lease {
    /// Stores the value for `life`, if the lease still lives.
    ///
    /// # Errors
    /// If the answer did not come: it may have been stored. On a full Redis: refused.
    pub async fn fill(self, value: &[u8], life: Duration) -> Result<Filled, StoreError> {
        let mut command = call(&FILL);
        self.entry.keys_into(&mut command, &self.keys);
        command.arg(&self.token).arg(value).arg(millis(life));
        self.entry.generation_into(&mut command);
        let (mut connection, _under_way) = self.line.carry(1);
        let answer = match evaluate(&mut connection, &FILL, &command).await {
            Ok(answer) => answer,
            Err(error) => {
                self.lost.note([(self.keys.lease_of(&self.entry.key), self.token)]);
                return Err(error);
            }
        };
        match &answer {
            Value::BulkString(word) if word == b"stored" => Ok(Filled::Stored),
            Value::BulkString(word) if word == b"voided" => Ok(Filled::Voided),
            _ => Err(unexpected(&answer)),
        }
    }

    /// Gives the lease back unused: the value could not be computed, or there is none.
    pub async fn release(self) -> Result<(), StoreError> {
        let mut command = call(&RELEASE);
        command.arg(1).arg(self.keys.lease_of(&self.entry.key)).arg(&self.token);
        let (mut connection, _under_way) = self.line.carry(1);
        evaluate(&mut connection, &RELEASE, &command).await.map(drop)
    }

    /// What it is for.
    #[must_use]
    pub fn entry(&self) -> &Entry {
        &self.entry
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("entry", &self.entry)
            .field("frontier", &self.frontier)
            .finish()
    }
}

impl Entry {
    fn keys_into(&self, command: &mut redis::Cmd, keys: &ControlKeys) {
        command.arg(3 + usize::from(self.scope.is_some()));
        command.arg(&self.key).arg(keys.lease_of(&self.key)).arg(&keys.state);
        if let Some((generation_key, _)) = &self.scope {
            command.arg(generation_key);
        }
    }

    fn generation_into(&self, command: &mut redis::Cmd) {
        if let Some((_, generation)) = &self.scope {
            command.arg(generation);
        }
    }
}

fn text(part: Option<&Value>) -> Option<String> {
    match part {
        Some(Value::BulkString(bytes)) => Some(String::from_utf8_lossy(bytes).into_owned()),
        _ => None,
    }
}

/// A text that nobody used before: 128 random bits.
fn token() -> Result<String, StoreError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|e| StoreError::Unusable(format!("no random numbers: {e}")))?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

/// At least one: Redis refuses an expiry of nothing.
fn millis(life: Duration) -> u64 {
    u64::try_from(life.as_millis()).unwrap_or(u64::MAX).max(1)
}
