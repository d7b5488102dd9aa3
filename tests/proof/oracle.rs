//! What was seen, against what happened.
//!
//! A value was in the cache, or was accepted into it, after the watermark had been read. So it
//! must contain every version whose commit ends at or below that watermark: those had been
//! applied. One that does not is stale for good: a *stale fill*, seen as it was made or
//! later by a reader. (Of a cache with `on_change = "refresh"` a reader asks for less: all that was
//! applied `max_staleness` before the value was read. A fill must contain all that was applied
//! before its lease in any case.) What a reader finds older than a commit that has returned, but not yet
//! applied, is a *stale hit*: allowed, and measured.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use unstale::lsn::Lsn;

use crate::case::Target;
use crate::filler::Attempt;
use crate::history::{History, Versions};
use crate::support::World;
use crate::writer::Acks;

/// How often the history is read.
const OFTEN: Duration = Duration::from_millis(200);

/// This value was in the cache although everything below the watermark had been applied.
#[derive(Debug, Serialize, Deserialize)]
pub struct Claim {
    pub key: String,
    pub value: String,
    pub watermark: String,
}

#[derive(Debug)]
pub enum Seen {
    Attempt(Attempt),
    Read { claim: Claim, started: Instant },
}

/// What was counted.
#[derive(Debug, Default)]
pub struct Report {
    pub versions: usize,
    pub stored: u64,
    /// Those of the stored that a standby gave.
    pub from_standby: u64,
    pub voided: u64,
    pub expired: u64,
    pub waited: u64,
    pub closed: u64,
    pub nothing: u64,
    pub abandoned: u64,
    pub failed: u64,
    /// Accepted although a change that they lack was applied.
    pub stale_fills: u64,
    /// Accepted although the lease had ended.
    pub overdue_fills: u64,
    pub reads: u64,
    /// Read although a change that they lack was applied.
    pub stale_reads: u64,
    /// Still cached when all was applied, and not what the database says.
    pub stale_at_rest: u64,
    pub at_rest: u64,
    /// By duration.
    pub stale_hits: Vec<Duration>,
    pub gaps: BTreeMap<String, u32>,
    pub rewarmed: f64,
    pub refreshed: f64,
    pub whole_drops: f64,
    /// The first few that should not be.
    pub examples: Vec<String>,
    pub log: String,
}

/// How far it is: a case goes on until enough has happened, however slow the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    pub versions: usize,
    pub stored: u64,
    pub from_standby: u64,
    pub voided: u64,
    pub expired: u64,
    pub reads: u64,
    pub stale_fills: u64,
    pub stale_reads: u64,
}

impl Progress {
    /// Whether an absence of stale fills says anything.
    pub fn is_enough(self) -> bool {
        self.versions > 50 && self.stored > 50 && self.reads > 50 && self.voided > 0
    }
}

pub struct Oracle {
    history: History,
    acks: Acks,
    report: Report,
    progress: watch::Sender<Progress>,
}

impl Oracle {
    pub fn new(history: History, acks: Acks) -> (Oracle, watch::Receiver<Progress>) {
        let (progress, shown) = watch::channel(Progress::default());
        (Oracle { history, acks, report: Report::default(), progress }, shown)
    }

    /// Judges until nobody sees anything any more.
    pub async fn run(mut self, mut sight: mpsc::UnboundedReceiver<Seen>) -> Report {
        let mut open = true;
        while open {
            tokio::time::sleep(OFTEN).await;
            let mut seen = Vec::new();
            loop {
                match sight.try_recv() {
                    Ok(one) => seen.push(one),
                    Err(mpsc::error::TryRecvError::Empty) => break,
                    Err(mpsc::error::TryRecvError::Disconnected) => {
                        open = false;
                        break;
                    }
                }
            }
            // Whatever a watermark tells of was written by now.
            self.history.follow().await;
            for one in seen {
                self.judge(one);
            }
            self.report.versions = self.history.len();
            self.progress.send_replace(self.report.progress());
        }
        self.report.stale_hits.sort_unstable();
        self.report
    }

    fn judge(&mut self, seen: Seen) {
        let report = &mut self.report;
        match seen {
            Seen::Attempt(Attempt::Stored { claim, overdue, standby }) => {
                report.stored += 1;
                report.from_standby += u64::from(standby);
                report.overdue_fills += u64::from(overdue);
                let (_, stale) = self.weigh(&claim, "stored");
                self.report.stale_fills += u64::from(stale);
            }
            Seen::Attempt(Attempt::Hit) => {}
            Seen::Attempt(Attempt::Voided) => report.voided += 1,
            Seen::Attempt(Attempt::Expired) => report.expired += 1,
            Seen::Attempt(Attempt::Waited) => report.waited += 1,
            Seen::Attempt(Attempt::Closed) => report.closed += 1,
            Seen::Attempt(Attempt::Nothing) => report.nothing += 1,
            Seen::Attempt(Attempt::Abandoned) => report.abandoned += 1,
            Seen::Attempt(Attempt::Failed) => report.failed += 1,
            Seen::Read { claim, started } => {
                report.reads += 1;
                let (value, stale) = self.weigh(&claim, "read");
                self.report.stale_reads += u64::from(stale);
                self.report.stale_hits.extend(self.acks.overdue(&value, started));
            }
        }
    }

    fn weigh(&mut self, claim: &Claim, how: &str) -> (Versions, bool) {
        let value: Versions = serde_json::from_str(&claim.value).expect("a value");
        let watermark: Lsn = claim.watermark.parse().expect("an LSN");
        let lacking = self.history.lacks(&value, watermark);
        if let Some((id, version, end)) = &lacking
            && self.report.examples.len() < 5
        {
            self.report.examples.push(format!(
                "{} = {} {how} at watermark {watermark} lacks version {version} of {id}, committed at {end}",
                claim.key, claim.value
            ));
        }
        (value, lacking.is_some())
    }
}

impl Report {
    fn progress(&self) -> Progress {
        Progress {
            versions: self.versions,
            stored: self.stored,
            from_standby: self.from_standby,
            voided: self.voided,
            expired: self.expired,
            reads: self.reads,
            stale_fills: self.stale_fills,
            stale_reads: self.stale_reads,
        }
    }

    /// Everything is applied and nobody writes or fills: what is cached is what the database says.
    pub async fn look_at_rest(&mut self, world: &World) {
        let mut values = world.values().await;
        let keys: Vec<String> =
            redis::cmd("KEYS").arg("proof:*").query_async(&mut values).await.unwrap();
        for key in keys {
            let cached: String =
                redis::cmd("GET").arg(&key).query_async(&mut values).await.unwrap();
            let target = Target::of(&key).expect("a key of ours");
            let current = world.query_one(&target.query()).await;
            let versions = |text: &str| serde_json::from_str::<Versions>(text).unwrap_or_default();
            self.at_rest += 1;
            if versions(&cached) != versions(&current) {
                self.stale_at_rest += 1;
                self.examples.push(format!("{key} = {cached} at rest, not {current}"));
            }
        }
    }

    /// Nothing stale was stored, and there was enough to see it.
    pub fn assert_fresh(&self) {
        let stale = self.stale_fills + self.stale_reads + self.stale_at_rest + self.overdue_fills;
        assert_eq!(stale, 0, "{self}\n{:#?}\n{}", self.examples, self.log);
        let enough = self.progress().is_enough() && self.at_rest > 0;
        assert!(enough, "too little has happened to say anything: {self}\n{}", self.log);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |percent: usize| {
            let hits = &self.stale_hits;
            hits.get((hits.len() * percent / 100).min(hits.len().saturating_sub(1)))
                .map_or(0.0, |hit| hit.as_secs_f64() * 1e3)
        };
        let (versions, standby) = (self.versions, self.from_standby);
        writeln!(f, "  versions={versions} fills={} of_standby={standby}", self.stored)?;
        writeln!(
            f,
            "  rejected: voided={} expired={} waited={} closed={} failed={}; given up: no_row={} abandoned={}",
            self.voided,
            self.expired,
            self.waited,
            self.closed,
            self.failed,
            self.nothing,
            self.abandoned
        )?;
        writeln!(
            f,
            "  stale_fills={} stale_reads={} stale_at_rest={} of {} overdue_fills={}",
            self.stale_fills,
            self.stale_reads,
            self.stale_at_rest,
            self.at_rest,
            self.overdue_fills
        )?;
        writeln!(
            f,
            "  stale_hits={} of {} p50={:.1}ms p99={:.1}ms max={:.1}ms",
            self.stale_hits.len(),
            self.reads,
            at(50),
            at(99),
            at(100)
        )?;
        write!(
            f,
            "  rewarmed={} refreshed={} whole_drops={} gaps={:?}",
            self.rewarmed, self.refreshed, self.whole_drops, self.gaps
        )
    }
}
