//! Reading values together with the certificate (rule 11), in one command.
//!
//! `MGET` is atomic: if the certificate is there, then at that moment somebody kept these
//! values fresh, and everything below the watermark that it holds was applied to them. While
//! the state is invalid (a gap) there is no certificate, so what is still to be purged is not
//! served.

//!
//! # Several readers, one command
//!
//! Readers of one thread who ask in the same moment are answered by one `MGET`, with one certificate for
//! all: whoever comes first lets those come along who are ready in the same turn of the runtime,
//! and nobody waits longer than that. It is sent after each of them has asked, so each has what
//! he would have had alone: values and certificate of one moment, which is after his question.
//! (Sixteen together, and no more: a command must not keep Redis long, and nobody should wait
//! for the values of many others.) Whoever goes away strands nobody: what is sent and what comes
//! back is a task's, not a reader's.
//!
//! A connection that was ended says nothing about Redis: somebody has killed it, or a proxy lets
//! none grow old. So many readers share it that all of them would go to the database at once; what
//! they asked is asked once more on a new one, which is later still. Whoever gets no answer in time
//! asks nobody again.

use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use redis::RedisError;
use redis::aio::MultiplexedConnection;
use tokio::sync::oneshot;

use super::error::StoreError;
use super::keys::ControlKeys;
use super::session::{Address, Session};
use crate::lsn::Lsn;

/// How long Redis is left alone after it did not answer: readers have a database to go to.
const REST: Duration = Duration::from_millis(500);

/// How many readers one command is for, at the most.
const TOGETHER: usize = 16;

/// A connection for the reads of each thread, made when needed.
pub struct Reader(Vec<Arc<Inner>>);

/// Threads by numbers, in the order in which they first read.
fn this_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed));
    NUMBER.with(|number| *number)
}

struct Inner {
    address: Address,
    keys: ControlKeys,
    line: Mutex<Option<MultiplexedConnection>>,
    /// One at a time connects.
    connecting: tokio::sync::Mutex<()>,
    /// Not to be asked before.
    rests_until: Mutex<Option<Instant>>,
    /// Who has asked since the last command was made; the first of them sees to the next.
    asked: Mutex<Vec<Question>>,
}

/// What one reader asks for.
struct Question {
    keys: Vec<Vec<u8>>,
    answer: oneshot::Sender<Result<Found, StoreError>>,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// The watermark that the certificate holds; `None`: nobody keeps the values fresh.
    pub certificate: Option<Lsn>,
    /// What was asked for.
    pub keys: Vec<Vec<u8>>,
    /// The values, in the order of their keys.
    pub values: Vec<Option<Vec<u8>>>,
}

impl Reader {
    /// Does not connect yet. Where more threads read than `threads`, some share a connection.
    #[must_use]
    pub fn new(address: &Address, keys: &ControlKeys, threads: usize) -> Self {
        let inner = || Inner {
            address: address.clone(),
            keys: keys.clone(),
            line: Mutex::new(None),
            connecting: tokio::sync::Mutex::new(()),
            rests_until: Mutex::new(None),
            asked: Mutex::default(),
        };
        Reader((0..threads).map(|_| Arc::new(inner())).collect())
    }

    /// Reads these keys, and the certificate with them.
    ///
    /// # Errors
    /// If Redis does not answer, or did not a moment ago.
    pub async fn get(&self, keys: Vec<Vec<u8>>) -> Result<Found, StoreError> {
        let ours = this_thread().checked_rem(self.0.len()).and_then(|at| self.0.get(at));
        let ours =
            ours.ok_or_else(|| StoreError::Lost("no connection is for reading".to_owned()))?;
        ours.may_ask()?;
        let (answer, found) = oneshot::channel();
        let is_first = {
            let mut asked = lock(&ours.asked);
            asked.push(Question { keys, answer });
            asked.len() == 1
        };
        if is_first {
            tokio::spawn(Arc::clone(ours).answer());
        }
        found.await.unwrap_or_else(|_| Err(StoreError::Lost("nobody asked it".to_owned())))
    }
}

impl Inner {
    /// Whoever comes first after a rest tries; the others still go to the database.
    fn may_ask(&self) -> Result<(), StoreError> {
        let mut rests_until = lock(&self.rests_until);
        let Some(until) = *rests_until else { return Ok(()) };
        let now = Instant::now();
        if until > now {
            return Err(StoreError::Lost("it did not answer a moment ago".to_owned()));
        }
        *rests_until = Some(now + REST);
        Ok(())
    }

    /// Answers all who have asked, and who ask in this turn.
    async fn answer(self: Arc<Self>) {
        tokio::task::yield_now().await;
        let mut asked = mem::take(&mut *lock(&self.asked));
        let mut together = Vec::with_capacity(asked.len().div_ceil(TOGETHER));
        while asked.len() > TOGETHER {
            together.push(self.answer_these(asked.split_off(asked.len() - TOGETHER)));
        }
        together.push(self.answer_these(asked));
        join_all(together).await;
    }

    async fn answer_these(&self, mut asked: Vec<Question>) {
        asked.retain(|question| !question.answer.is_closed());
        if asked.is_empty() {
            return;
        }
        let found = self.try_get(&asked).await;
        *lock(&self.rests_until) = found.is_err().then(|| Instant::now() + REST);
        match found {
            Ok((certificate, values)) => {
                let mut values = values.into_iter();
                for Question { keys, answer } in asked {
                    let values = values.by_ref().take(keys.len()).collect();
                    // Who has gone away needs none.
                    _ = answer.send(Ok(Found { certificate, keys, values }));
                }
            }
            Err(error) => {
                *lock(&self.line) = None;
                for question in asked {
                    _ = question.answer.send(Err(error.clone()));
                }
            }
        }
    }

    async fn try_get(
        &self,
        asked: &[Question],
    ) -> Result<(Option<Lsn>, Vec<Option<Vec<u8>>>), StoreError> {
        let keys = || asked.iter().flat_map(|question| &question.keys);
        let bytes = keys().map(Vec::len).sum::<usize>() + self.keys.fresh.len();
        let number = keys().count();
        let mut command = redis::Cmd::with_capacity(number + 2, bytes + 4);
        command.arg("MGET").arg(&self.keys.fresh);
        for key in keys() {
            command.arg(key);
        }
        let (line, is_new) = self.line().await?;
        let values = match ask(&command, line).await {
            Err(error) if !is_new && error.is_connection_dropped() => {
                *lock(&self.line) = None;
                let (line, _) = self.line().await?;
                ask(&command, line).await
            }
            values => values,
        }?;
        if values.len() != number + 1 {
            return Err(StoreError::Lost(
                "another number of values than were asked for".to_owned(),
            ));
        }
        let mut values = values.into_iter();
        let certificate = values.next().flatten();
        let certificate = certificate.and_then(|text| str::from_utf8(&text).ok()?.parse().ok());
        Ok((certificate, values.collect()))
    }

    /// The connection, and whether it was made just now.
    async fn line(&self) -> Result<(MultiplexedConnection, bool), StoreError> {
        let there = || lock(&self.line).clone().map(|line| (line, false));
        if let Some(line) = there() {
            return Ok(line);
        }
        let _one = self.connecting.lock().await;
        if let Some(line) = there() {
            return Ok(line);
        }
        let line = Session::open(&self.address, self.keys.clone()).await?.connection();
        *lock(&self.line) = Some(line.clone());
        Ok((line, true))
    }
}

async fn ask(
    command: &redis::Cmd,
    mut line: MultiplexedConnection,
) -> Result<Vec<Option<Vec<u8>>>, RedisError> {
    command.query_async(&mut line).await
}

/// Each change under these locks is one assignment: nothing is left half done.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
