//! Threads that serve requests, each with a runtime of its own.
//!
//! A hit is a few microseconds of work between four wake-ups: the request is read, joins a command,
//! its answer is read, it is answered. On a runtime of several threads each of them may wake another thread, and
//! what a request needs is in another core's cache: that cost half as much as the work. Here a connection
//! stays with its thread, and so do the readers that share a command
//! ([`Reader`](crate::store::reader::Reader) has a connection to Redis for each thread).
//!
//! What is woken from outside (a load by a connection that another thread made, a watermark) is woken as
//! everywhere. What a request begins and does not wait for, such as an ordered job, runs on its thread,
//! too; so these live until the daemon has said of its jobs that they were cut off.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// See the module. They end when this is dropped, with all that runs on them.
pub struct Threads {
    runtimes: Vec<Handle>,
    next: AtomicUsize,
    _end: DropGuard,
}

impl Threads {
    /// Starts so many.
    ///
    /// # Errors
    /// If the system refuses one.
    pub fn start(number: usize) -> io::Result<Threads> {
        let end = CancellationToken::new();
        let mut runtimes = Vec::with_capacity(number);
        let guard = end.clone().drop_guard();
        for number in 0..number {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            runtimes.push(runtime.handle().clone());
            let end = end.clone();
            std::thread::Builder::new()
                .name(format!("unstale-api-{number}"))
                .spawn(move || runtime.block_on(end.cancelled_owned()))?;
        }
        Ok(Threads { runtimes, next: AtomicUsize::new(0), _end: guard })
    }

    /// Runs it on one of them, in turns.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        if let Some(runtime) =
            turn.checked_rem(self.runtimes.len()).and_then(|at| self.runtimes.get(at))
        {
            runtime.spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    #[tokio::test]
    async fn work_is_shared_out_and_stays_where_it_began() {
        let threads = Threads::start(3).unwrap();
        let (tell, mut told) = mpsc::unbounded_channel();
        for _ in 0..30 {
            let tell = tell.clone();
            threads.spawn(async move {
                let first = std::thread::current().id();
                for _ in 0..10 {
                    tokio::task::yield_now().await;
                    assert_eq!(std::thread::current().id(), first);
                }
                tell.send(first).unwrap();
            });
        }
        drop(tell);
        let mut by_thread = std::collections::HashMap::new();
        while let Some(thread) = told.recv().await {
            *by_thread.entry(thread).or_insert(0) += 1;
        }
        assert_eq!(by_thread.into_values().collect::<Vec<_>>(), [10, 10, 10]);
    }

    #[tokio::test]
    async fn they_end_with_their_owner() {
        let threads = Threads::start(1).unwrap();
        let (tell, mut told) = mpsc::unbounded_channel::<()>();
        threads.spawn(async move {
            std::future::pending::<()>().await;
            drop(tell);
        });
        drop(threads);
        assert_eq!(told.recv().await, None, "what ran there was dropped");
    }
}
