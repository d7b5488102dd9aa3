//! The connections of those who read and fill.
//!
//! One connection carries many commands at once, and one is enough for most: commands are
//! short. What holds others up is a large value on its way. So another connection is opened
//! when all that there are have much to carry, up to `redis.max_connections`, and a command
//! goes to the one that carries least. Nobody waits for it to be opened, but who finds none
//! at all.
//!
//! A lease is its connection's (rule 4): it holds on to it, and its fill goes the same way.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use redis::aio::MultiplexedConnection;
use tracing::debug;

use super::error::StoreError;
use super::keys::ControlKeys;
use super::session::{Address, Session};

/// So many commands under way are much for a connection.
const MUCH: usize = 32;

pub(super) struct Lines {
    address: Address,
    keys: ControlKeys,
    most: usize,
    open: Mutex<Vec<Arc<Line>>>,
    /// Whoever finds no connection waits here for the first.
    first: tokio::sync::Mutex<()>,
    growing: AtomicBool,
}

/// One connection. Leases that were taken on it are void with it.
pub(super) struct Line {
    connection: MultiplexedConnection,
    under_way: AtomicUsize,
}

/// Commands that are under way on a line.
pub(super) struct UnderWay<'l> {
    line: &'l Line,
    commands: usize,
}

impl Lines {
    pub(super) fn new(address: Address, keys: ControlKeys) -> Self {
        let most = address.max_connections();
        Lines {
            address,
            keys,
            most,
            open: Mutex::default(),
            first: tokio::sync::Mutex::default(),
            growing: AtomicBool::new(false),
        }
    }

    /// The connection that carries least.
    pub(super) async fn line(self: &Arc<Self>) -> Result<Arc<Line>, StoreError> {
        if let Some(line) = self.least() {
            return Ok(line);
        }
        let _first = self.first.lock().await;
        match self.least() {
            Some(line) => Ok(line),
            None => self.add().await,
        }
    }

    fn least(self: &Arc<Self>) -> Option<Arc<Line>> {
        let (line, all) = {
            let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            let line = open.iter().min_by_key(|line| line.under_way.load(Ordering::Relaxed))?;
            (Arc::clone(line), open.len())
        };
        let busy = line.under_way.load(Ordering::Relaxed) >= MUCH;
        if busy && all < self.most && !self.growing.swap(true, Ordering::AcqRel) {
            let lines = Arc::clone(self);
            tokio::spawn(async move {
                if let Err(error) = lines.add().await {
                    debug!(%error, "no further connection to Redis");
                }
                lines.growing.store(false, Ordering::Release);
            });
        }
        Some(line)
    }

    async fn add(&self) -> Result<Arc<Line>, StoreError> {
        let session = Session::open(&self.address, self.keys.clone()).await?;
        let line =
            Arc::new(Line { connection: session.connection(), under_way: AtomicUsize::new(0) });
        self.open.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&line));
        Ok(line)
    }

    /// After an error the line is not used again, by nobody.
    pub(super) fn give_up(&self, broken: &Arc<Line>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|line| !Arc::ptr_eq(line, broken));
    }
}

impl Line {
    /// A handle for so many commands at once; they count as long as the second is held.
    pub(super) fn carry(&self, commands: usize) -> (MultiplexedConnection, UnderWay<'_>) {
        self.under_way.fetch_add(commands, Ordering::Relaxed);
        (self.connection.clone(), UnderWay { line: self, commands })
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.line.under_way.fetch_sub(self.commands, Ordering::Relaxed);
    }
}
