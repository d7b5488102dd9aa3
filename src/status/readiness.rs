//! `/readyz`: whether the cache can be trusted, and if not, why and what to do.

use serde::{Deserialize, Serialize};

use super::{Health, Phase, SILENCE, SlotSeen, Status, unix};

/// The answer of `/readyz`.
#[derive(Debug, Clone, Serialize)]
pub struct Readiness {
    /// Whether the cache can be trusted now; in shadow mode: whether nothing hinders looking on.
    pub ready: bool,
    /// Shadow mode: whatever else is said here, nobody keeps the cache.
    pub shadow: bool,
    /// Why not, each with what to do.
    pub problems: Vec<String>,
    /// What the pipeline is doing.
    #[serde(flatten)]
    pub phase: Phase,
    /// The watermark.
    pub applied_lsn: String,
    /// Where the server's WAL ended when it was last heard of.
    pub server_lsn: String,
    /// What lies between, in bytes.
    pub lag_bytes: u64,
    /// Age of the oldest change that is not applied.
    pub lag_seconds: f64,
    /// Committed, not yet visible.
    pub parked_transactions: usize,
    /// May never come through the stream; watched.
    pub suspects: usize,
    /// How long the last heartbeat took to be applied.
    pub heartbeat_seconds: Option<f64>,
    /// How long ago a transaction or a heartbeat was applied.
    pub proven_seconds_ago: Option<f64>,
    /// The slot, as it was last seen.
    pub slot: Option<SlotSeen>,
    /// When the last gap was declared (Unix time) and why.
    pub last_gap: Option<LastGap>,
}

/// The last gap.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LastGap {
    /// Unix time.
    pub at: u64,
    /// The label in `unstale_gaps_total`.
    pub reason: String,
}

impl Status {
    /// Whether the cache can be trusted, and if not, why.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let inner = self.lock();
        let mut problems = Vec::new();
        for (name, health) in [("postgres", &inner.postgres), ("redis", &inner.redis)] {
            if let Health::Down(reason) = health {
                problems.push(format!("{name}: {reason}"));
            }
        }
        match &inner.phase {
            Phase::Streaming => {}
            Phase::Connecting => problems.push("not streaming: connecting".to_owned()),
            Phase::WaitingForSlot { pid } => problems.push(format!(
                "not streaming: another session{} holds the slot; stop it if it is not a daemon that stands in for this one",
                pid.map(|pid| format!(" (PID {pid})")).unwrap_or_default()
            )),
            Phase::CreatingSlot => problems.push(
                "not streaming: the slot is being created, the server waits for open transactions to end".to_owned(),
            ),
            Phase::Purging { reason } => problems.push(format!("a gap ({reason}): everything managed is being dropped")),
            Phase::Blocked { reason } => problems.push(reason.clone()),
            Phase::Draining => problems.push("shutting down".to_owned()),
        }
        if inner.phase == Phase::Streaming
            && inner.heard.is_none_or(|at| at.monotonic().elapsed() >= SILENCE)
        {
            problems
                .push("the replication stream is silent: check the network to Postgres".to_owned());
        }
        if inner.is_late(self.max_lag) {
            problems
                .push(format!("changes wait for more than {:?} (pipeline.max_lag)", self.max_lag));
        }
        if inner.unsure_of_publication {
            problems.push(
                "what altered the publication or a table is not visible yet (does it wait for a synchronous standby?): \
                 what is written meanwhile may not be streamed, so nothing is certified. If it stays so, bring the standby \
                 back, or take it out of synchronous_standby_names"
                    .to_owned(),
            );
        }
        problems.extend(
            inner
                .table_problems
                .iter()
                .chain(inner.lookup_problems.values())
                .chain(&inner.reload_problem)
                .cloned(),
        );
        let (lag_bytes, lag_seconds) = inner.lag();
        Readiness {
            ready: problems.is_empty(),
            shadow: inner.looks_on,
            problems,
            phase: inner.phase.clone(),
            applied_lsn: inner.watermark.to_string(),
            server_lsn: inner.server_end.to_string(),
            lag_bytes,
            lag_seconds,
            parked_transactions: inner.parked,
            suspects: inner.suspects,
            heartbeat_seconds: inner.last_beat.map(|took| took.as_secs_f64()),
            proven_seconds_ago: inner.proven.map(|at| at.elapsed().as_secs_f64()),
            slot: inner.slot.clone(),
            last_gap: inner
                .last_gap
                .map(|(at, reason)| LastGap { at: unix(at), reason: reason.as_str().to_owned() }),
        }
    }
}
