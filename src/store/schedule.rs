//! The records of the schedule: what is due when, whose turn it is, what came of it last.
//!
//! A *turn* is a lease: it has a holder's token and an end, and is renewed. One script decides
//! all of it, by Redis' own clock. The records are no part of the state that carries the
//! guarantee: if they are lost, every task is due a period later, and that is all.

use std::sync::LazyLock;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Script, Value};
use serde::Deserialize;

use super::error::StoreError;
use super::script::{call, evaluate, unexpected};
use super::session::{Address, Session};
use crate::store::keys::ControlKeys;

static SCHEDULE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/schedule.lua")));

/// How long a turn is held without being renewed.
pub const TURN: Duration = Duration::from_secs(15);

/// How much longer than its period a task's record is kept.
const KEPT: Duration = Duration::from_secs(86_400);

/// The answer to whoever would begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// It is this token's turn.
    Go {
        /// The turn of whoever began it before has expired: it was cut off.
        anew: bool,
    },
    /// It is not due yet, or another does it.
    Wait(Duration),
}

/// When a task is due again.
#[derive(Debug, Clone, Copy)]
pub struct Again {
    /// So long after it began.
    pub after_begin: Duration,
    /// And at least so long from now.
    pub at_least: Duration,
}

/// What is known of a task; times are Unix times in ms, by Redis' clock.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Record {
    /// When it is due next, or was, if it is under way.
    pub due: Option<f64>,
    /// Until when its turn is held, if it is under way.
    pub held_until: Option<f64>,
    /// When its last whole run began,
    pub last_began: Option<f64>,
    /// and ended.
    pub last_ended: Option<f64>,
    /// What came of that: `done` or `failed`.
    pub result: Option<String>,
    /// The same in words.
    pub detail: Option<String>,
}

/// The record of one task.
pub struct Task {
    key: String,
    token: String,
    life: Duration,
    turn: Duration,
}

impl Task {
    /// Of the task with that name, which is due every so often; `token` is this process's own.
    #[must_use]
    pub fn new(keys: &ControlKeys, name: &str, token: &str, every: Duration) -> Self {
        let key = keys.schedule_of(name);
        let life = every.saturating_mul(2) + KEPT;
        Task { key, token: token.to_owned(), life, turn: TURN }
    }

    /// With another length of its turns.
    #[must_use]
    pub fn with_turn(mut self, turn: Duration) -> Self {
        self.turn = turn;
        self
    }

    fn call(&self, what: &str) -> Cmd {
        let mut command = call(&SCHEDULE);
        command.arg(1).arg(&self.key).arg(what).arg(&self.token).arg(millis(self.life));
        command
    }
}

/// The way to the records; connects when needed, and anew after any error.
pub struct Records {
    address: Address,
    keys: ControlKeys,
    line: tokio::sync::Mutex<Option<MultiplexedConnection>>,
}

impl Records {
    /// Does not connect yet.
    #[must_use]
    pub fn new(address: Address, keys: ControlKeys) -> Self {
        Records { address, keys, line: tokio::sync::Mutex::new(None) }
    }

    /// Begins the task if it is due and nobody else does it. `first`: how long from now it is due
    /// if nothing is known of it; `longest`: how long at the most, whatever is known. If no answer
    /// came, to ask again is harmless.
    ///
    /// # Errors
    /// If Redis did not answer.
    pub async fn begin(
        &self,
        task: &Task,
        first: Duration,
        longest: Duration,
    ) -> Result<Begin, StoreError> {
        let mut command = task.call("begin");
        command.arg(millis(task.turn)).arg(millis(first)).arg(millis(longest));
        match self.run(&command).await? {
            Value::Array(answer) => match answer.as_slice() {
                [Value::BulkString(go), Value::Int(anew)] if go == b"go" => {
                    Ok(Begin::Go { anew: *anew == 1 })
                }
                [Value::BulkString(wait), Value::Int(ms)] if wait == b"wait" => {
                    Ok(Begin::Wait(Duration::from_millis(u64::try_from(*ms).unwrap_or(0))))
                }
                _ => Err(unexpected(&Value::Array(answer))),
            },
            other => Err(unexpected(&other)),
        }
    }

    /// Holds the turn for its whole length again. `false`: it was lost.
    ///
    /// # Errors
    /// If Redis did not answer.
    pub async fn renew(&self, task: &Task) -> Result<bool, StoreError> {
        let mut command = task.call("renew");
        command.arg(millis(task.turn));
        self.still_ours(&command).await
    }

    /// Ends the turn. `false`: it was lost before, or ended already.
    ///
    /// # Errors
    /// If Redis did not answer.
    pub async fn end(
        &self,
        task: &Task,
        again: Again,
        result: &str,
        detail: &str,
    ) -> Result<bool, StoreError> {
        let mut command = task.call("end");
        command.arg(millis(again.after_begin)).arg(millis(again.at_least)).arg(result).arg(detail);
        self.still_ours(&command).await
    }

    async fn still_ours(&self, command: &Cmd) -> Result<bool, StoreError> {
        match self.run(command).await? {
            Value::Int(ours @ 0..=1) => Ok(ours == 1),
            other => Err(unexpected(&other)),
        }
    }

    async fn run(&self, command: &Cmd) -> Result<Value, StoreError> {
        let mut line = self.line.lock().await;
        let mut connection = match line.take() {
            Some(connection) => connection,
            None => Session::open(&self.address, self.keys.clone()).await?.connection(),
        };
        let answer = evaluate(&mut connection, &SCHEDULE, command).await?;
        *line = Some(connection);
        Ok(answer)
    }
}

/// What is known of these tasks, in their order, and what time it is there, in the same unit.
///
/// # Errors
/// If Redis does not answer.
pub async fn read(
    session: &Session,
    names: impl Iterator<Item = &str>,
) -> Result<(f64, Vec<Record>), StoreError> {
    let keys: Vec<String> = names.map(|name| session.keys().schedule_of(name)).collect();
    let mut connection = session.connection();
    let (seconds, micros): (f64, f64) = redis::cmd("TIME").query_async(&mut connection).await?;
    let now = seconds * 1000.0 + micros / 1000.0;
    if keys.is_empty() {
        return Ok((now, Vec::new()));
    }
    let texts: Vec<Option<Vec<u8>>> =
        redis::cmd("MGET").arg(&keys).query_async(&mut connection).await?;
    // What this program did not write is no record.
    let record = |text: Vec<u8>| serde_json::from_slice(&text).ok();
    Ok((now, texts.into_iter().map(|text| text.and_then(record).unwrap_or_default()).collect()))
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
