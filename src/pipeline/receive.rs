//! The task that reads the stream: decodes ahead while Redis answers, as far as there is
//! room.
//!
//! When there is none it stops reading. Postgres then stops sending and keeps the WAL:
//! nothing is lost and nothing is buffered without bound. The feedback goes on meanwhile,
//! it has the other half of the connection.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::assemble::Assembler;
use super::end::End;
use super::transaction::Transaction;
use super::waiting::Arrival;
use super::watchdog::Watch;
use crate::lsn::Lsn;
use crate::postgres::frames::{Frame, FrameReader};
use crate::status::Status;
use crate::status::stalls::Stall;

/// The reading end.
pub struct Receiver {
    /// Lends frames.
    pub reader: FrameReader,
    /// Makes transactions of them.
    pub assembler: Assembler,
    /// Where they go.
    pub arrivals: mpsc::Sender<Arrival>,
    /// How many keys may be decoded ahead.
    pub room: Arc<Semaphore>,
    /// All the room that there is.
    pub room_total: u32,
    /// What is known.
    pub status: Arc<Status>,
    /// A stream that is silent this long is dead, though the connection may look alive: the
    /// server answers the feedback, which asks it to.
    pub stream_timeout: Duration,
    /// The server wants feedback now.
    pub asked: Arc<Notify>,
    /// Stop reading, finish.
    pub stop: CancellationToken,
    /// The feedback has said goodbye: the server's answer can be waited for.
    pub goodbye: CancellationToken,
}

impl Receiver {
    /// Reads until it is stopped or the stream fails.
    pub async fn run(mut self) -> Result<(), End> {
        let stopped = self.read().await?;
        if stopped {
            // The channel's end tells the gate that nothing more comes.
            drop(self.arrivals);
            self.goodbye.cancelled().await;
            self.reader.drain(Duration::from_secs(2)).await?;
        }
        Ok(())
    }

    /// `true`: it was stopped.
    async fn read(&mut self) -> Result<bool, End> {
        let mut progress = Lsn::ZERO;
        let mut watch = Watch::new(self.stream_timeout, self.status.stalls(), Instant::now());
        loop {
            // What one read brought came at one time.
            let mut now = Instant::now();
            let mut received = Lsn::ZERO;
            let mut server_end = Lsn::ZERO;
            while let Some(frame) = self.reader.next().map_err(End::of_stream)? {
                match frame {
                    Frame::XLogData { wal_start, wal_end, clock, data } => {
                        server_end = server_end.max(wal_end);
                        watch.heard(wal_end, true, now);
                        if let Some(mut transaction) = self.assembler.take(wal_start, data)? {
                            transaction.sent_after = clock.saturating_sub(transaction.committed_at);
                            received = transaction.end_lsn;
                            if self.hand_on(transaction).await {
                                return Ok(true);
                            }
                            now = Instant::now();
                            watch.begins_to_read(now);
                        }
                    }
                    Frame::Keepalive { wal_end, reply_requested, .. } => {
                        server_end = server_end.max(wal_end);
                        watch.heard(wal_end, false, now);
                        if reply_requested {
                            self.asked.notify_one();
                        }
                        // All that committed before this position has been sent, except
                        // where one that has committed is being sent right now.
                        if wal_end > progress && !self.assembler.is_inside_transaction() {
                            progress = wal_end;
                            received = wal_end;
                            if self.send(Arrival::Progress(wal_end)).await {
                                return Ok(true);
                            }
                            // The gate may have let us wait: that is no silence of the server's.
                            now = Instant::now();
                            watch.heard(wal_end, false, now);
                        }
                    }
                    Frame::CopyDone => {
                        return Err(End::Again("the server ended the stream".to_owned()));
                    }
                }
            }
            if let Some(problems) = self.assembler.news_of_problems() {
                self.status.table_problems(problems);
            }
            self.status.in_progress(self.assembler.in_progress());
            let server_end = self.status.heard(received, watch.position(), server_end);
            let now = Instant::now();
            watch.server_at(server_end, now);
            if let Some(stall) = watch.stalled(now) {
                return Err(self.give_up(&watch, stall));
            }
            tokio::select! {
                () = self.stop.cancelled() => return Ok(true),
                filled = tokio::time::timeout(watch.patience(now), self.reader.fill()) => {
                    match filled {
                        Ok(filled) => filled.map_err(End::of_stream)?,
                        Err(_) => {
                            let stall = Stall::Silent(watch.patience(now));
                            let stall = watch.stalled(Instant::now()).unwrap_or(stall);
                            return Err(self.give_up(&watch, stall));
                        }
                    }
                }
            }
        }
    }

    fn give_up(&self, watch: &Watch, stall: Stall) -> End {
        self.status.stalled(watch.stalls(), watch.position(), stall);
        debug!(stall = stall.as_str(), "stalled");
        End::Again(stall.to_string())
    }

    /// Waits for room, then hands the transaction on. `true`: it was stopped instead.
    async fn hand_on(&mut self, mut transaction: Transaction) -> bool {
        let keys = u32::try_from(transaction.changes.len()).unwrap_or(u32::MAX);
        debug!(xid = transaction.xid.0, lsn = %transaction.end_lsn, keys, "received");
        let share = keys.saturating_add(1).min(self.room_total);
        let room = Arc::clone(&self.room);
        tokio::select! {
            biased;
            share = room.acquire_many_owned(share) => transaction.share = share.ok(),
            () = self.stop.cancelled() => return true,
        }
        self.send(Arrival::Transaction(transaction)).await
    }

    async fn send(&self, arrival: Arrival) -> bool {
        tokio::select! {
            biased;
            // A closed channel: the gate has ended, and its reason ends the run.
            sent = self.arrivals.send(arrival) => sent.is_err(),
            () = self.stop.cancelled() => true,
        }
    }
}
