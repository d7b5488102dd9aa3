//! The task that tells Postgres how far everything is applied (rule 6): after Redis has
//! acknowledged it, never before.
//!
//! It has a half of the connection of its own and waits for nothing but its clock, so
//! that no slow Redis, slow lookup or full queue can cost the replication connection.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::end::End;
use super::points::{Point, Points};
use crate::lsn::Lsn;
use crate::postgres::feedback::FeedbackWriter;
use crate::status::Status;

/// Acknowledgements are not sent more often than this: each costs both sides a system call and
/// wakes the server's process, and Postgres only uses them to free WAL. Who asks is answered
/// at once: a server that shuts down waits for it.
const PACE: Duration = Duration::from_millis(50);

/// The writing end.
pub struct Feedback {
    /// To the server.
    pub writer: FeedbackWriter,
    /// What Redis has acknowledged. Its end is the pipeline's.
    pub applied: watch::Receiver<Lsn>,
    /// The server wants to hear from us.
    pub asked: Arc<Notify>,
    /// How often the server hears from us at least.
    pub interval: Duration,
    /// What is known.
    pub status: Arc<Status>,
    /// Nowhere, but in tests.
    pub points: Points,
    /// The run was asked to stop.
    pub stop: CancellationToken,
    /// Cancelled when goodbye was said.
    pub goodbye: CancellationToken,
}

impl Feedback {
    /// Reports until the pipeline ends, then says goodbye.
    pub async fn run(mut self) -> Result<(), End> {
        let mut clock = tokio::time::interval(self.interval);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = clock.tick() => {}
                () = self.asked.notified() => {}
                changed = self.applied.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    tokio::select! {
                        () = tokio::time::sleep(PACE) => {}
                        () = self.asked.notified() => {}
                    }
                }
            }
            self.report().await?;
        }
        // The pipeline may also have ended because a part of it failed: that part says why,
        // and a goodbye would only hide it behind the server's own.
        if !self.stop.is_cancelled() {
            return Ok(());
        }
        self.report().await?;
        self.writer.finish().await?;
        self.goodbye.cancel();
        Ok(())
    }

    async fn report(&mut self) -> Result<(), End> {
        self.points.reach(Point::Report).await;
        let applied = *self.applied.borrow_and_update();
        let received = self.status.received().max(applied);
        // A server that was not heard for a while is asked for a sign of life.
        let silent = self.status.last_heard().is_none_or(|at| at.elapsed() >= self.interval);
        self.writer.status(received, applied, applied, silent).await?;
        Ok(())
    }
}
