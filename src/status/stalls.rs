//! Streams that were given up because they brought nothing.

use std::fmt;
use std::time::Duration;

use super::{Loop, Status};
use crate::lsn::Lsn;

/// The longest that a stream is waited for, however often it was in vain.
pub const LONGEST: Duration = Duration::from_secs(3600);

/// What is wrong with a stream. The names are the label `reason` of `unstale_stalls_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stall {
    /// Nothing was heard for so long.
    Silent(Duration),
    /// It has not come past this position for so long, while the server's WAL went on to that.
    Standstill {
        /// How long.
        waited: Duration,
        /// Where it stands.
        position: Lsn,
        /// Where the WAL ended when that began.
        server_end: Lsn,
    },
    /// A loop of the pipeline stands still.
    Loop(Loop),
}

impl Stall {
    /// The names of all.
    pub const REASONS: [&'static str; 3] = ["silent", "standstill", "loop"];

    /// The name in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Stall::Silent(_) => "silent",
            Stall::Standstill { .. } => "standstill",
            Stall::Loop(_) => "loop",
        }
    }
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stall::Silent(waited) => write!(
                f,
                "the replication stream was silent for {waited:?} (postgres.stream_timeout): connecting anew; \
                 check the network to Postgres, and whether its walsender is stopped or waits for a lock (pg_stat_activity)"
            ),
            Stall::Standstill { waited, position, server_end } => write!(
                f,
                "the replication stream has not come past {position} for {waited:?}, although the server's WAL had reached {server_end} before: \
                 connecting anew; see pg_stat_replication and the server's log for what its walsender does (a very large transaction? a slot that waits for a standby?)"
            ),
            Stall::Loop(of) => write!(
                f,
                "the task {} of the pipeline stands still, which is a fault of this program: beginning a new run; please report this log",
                of.as_str()
            ),
        }
    }
}

/// How often in a row a stream was given up, and where.
#[derive(Debug, Default, Clone, Copy)]
pub struct Stalls {
    streak: u32,
    at: Lsn,
}

impl Stalls {
    /// Another one, there.
    pub fn another(&mut self, at: Lsn) {
        self.streak = self.streak.saturating_add(1);
        self.at = self.at.max(at);
    }

    /// Where it stood.
    #[must_use]
    pub fn at(self) -> Lsn {
        self.at
    }

    /// The stream has gone past that.
    pub fn over(&mut self) {
        self.streak = 0;
    }

    /// How long is waited this time for what is first waited for so long.
    #[must_use]
    pub fn patience(self, wait: Duration) -> Duration {
        wait.saturating_mul(1 << self.streak.min(16)).min(LONGEST.max(wait))
    }
}

impl Status {
    /// How often in a row a stream was given up.
    #[must_use]
    pub fn stalls(&self) -> Stalls {
        self.lock().stalls
    }

    /// The stream was given up, after those that `before` counts.
    pub fn stalled(&self, before: Stalls, position: Lsn, stall: Stall) {
        self.metrics.stalls.with_label_values(&[stall.as_str()]).inc();
        let mut inner = self.lock();
        inner.stalls = before;
        inner.stalls.another(position);
    }
}
