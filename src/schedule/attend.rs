//! The task that does what the schedule says, for as long as a run of the pipeline lasts.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use tracing::{debug, info, warn};

use super::entry::Entry;
use crate::config::model::Task;
use crate::fill::held::Held;
use crate::manage::ground::{Ground, ManageError};
use crate::manage::maintain::{Maintained, Unfit, maintain};
use crate::manage::organization::resolve;
use crate::manage::remove::{Counts, remove};
use crate::manage::selection::Request;
use crate::manage::tell::tell;
use crate::mapping::model::CacheId;
use crate::metrics::Metrics;
use crate::moment::Moment;
use crate::report::reporter::Reporter;
use crate::store::remove::Act;
use crate::store::schedule::{self, Begin, Records, TURN};
use crate::warm::attend::WarmUps;

/// Records are looked at this often, however far off something is due: they may have been lost.
const LOOK: Duration = Duration::from_secs(60);

/// How long to wait after Redis did not answer. The pipeline tells of it; this need not.
const PAUSE: Duration = Duration::from_secs(5);

/// What may come of a task: the label `result` of `unstale_schedule_runs_total`.
pub const RESULTS: [&str; 3] = ["done", "failed", "lost"];

/// How often it is told that a task has ended, if Redis does not answer.
const TRIES: u32 = 3;

/// Everything that is done now and then. Cloning shares the token.
#[derive(Clone)]
pub struct Schedule {
    entries: Arc<[Entry]>,
    /// This process's, for all its runs.
    token: Arc<str>,
}

/// What it is done with.
pub struct Means {
    /// The ways to both servers.
    pub ground: Ground,
    /// Those who warm.
    pub warm_ups: WarmUps,
    /// What this process holds of the cache itself.
    pub held: Arc<Held>,
    /// Where it counts.
    pub metrics: Metrics,
    /// Makes reports.
    pub reporter: Arc<Reporter>,
}

impl Schedule {
    /// Of these.
    #[must_use]
    pub fn new(entries: Vec<Entry>) -> Self {
        Schedule { entries: entries.into(), token: format!("{:032x}", fastrand::u128(..)).into() }
    }

    /// Does it, for ever. To be dropped with the run of the pipeline.
    pub async fn run(self, means: Means) {
        let records = Records::new(means.ground.address.clone(), means.ground.keys.clone());
        let attendant = Attendant { means, records };
        let _leaving = Leaving(&attendant.means.metrics, &self.entries);
        let each = self.entries.iter();
        join_all(each.map(|entry| attendant.attend(entry, &self.token))).await;
    }
}

/// Takes the gauge along: a daemon that does not stream knows nothing of the next time.
struct Leaving<'a>(&'a Metrics, &'a [Entry]);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        for entry in self.1 {
            _ = self.0.schedule_next.remove_label_values(&[&entry.name]);
        }
    }
}

struct Attendant {
    means: Means,
    records: Records,
}

impl Attendant {
    async fn attend(&self, entry: &Entry, token: &str) {
        let task = schedule::Task::new(&self.means.ground.keys, &entry.name, token, entry.every);
        let mut failures = 0;
        loop {
            let first = entry.first(fastrand::f64());
            match self.records.begin(&task, first, entry.longest()).await {
                Ok(Begin::Go { anew }) => {
                    if anew {
                        info!(task = entry.name, "begun anew: whoever began it has not ended it");
                    }
                    self.take_turn(entry, &task, &mut failures).await;
                }
                Ok(Begin::Wait(wait)) => {
                    let next = self.means.metrics.schedule_next.with_label_values(&[&entry.name]);
                    next.set(now() + wait.as_secs_f64());
                    // A little more than the rest of a millisecond, or it would be asked twice.
                    tokio::time::sleep(wait.min(LOOK) + Duration::from_millis(2)).await;
                }
                Err(error) => {
                    debug!(task = entry.name, %error, "the schedule cannot be asked");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn take_turn(&self, entry: &Entry, task: &schedule::Task, failures: &mut u32) {
        let start = Instant::now();
        let outcome = tokio::select! {
            outcome = Box::pin(self.perform(entry)) => outcome,
            () = self.until_lost(task) => {
                warn!(task = entry.name, "the turn was lost while the task was under way: it is left to whoever has it now");
                self.count(entry, "lost");
                return;
            }
        };
        let took = start.elapsed();
        let (result, detail) = match &outcome {
            Ok(detail) => {
                *failures = 0;
                info!(task = entry.name, detail, ?took, "a scheduled task was done");
                ("done", detail)
            }
            Err(error) => {
                *failures += 1;
                warn!(task = entry.name, %error, ?took, failures, "a scheduled task has failed; it is tried again");
                ("failed", error)
            }
        };
        self.count(entry, result);
        let metrics = &self.means.metrics;
        metrics.schedule_last.with_label_values(&[&entry.name]).set(now());
        metrics.schedule_seconds.with_label_values(&[&entry.name]).set(took.as_secs_f64());
        metrics.schedule_ok.with_label_values(&[&entry.name]).set(outcome.is_ok().into());
        let again = entry.again(*failures, fastrand::f64());
        for _ in 0..TRIES {
            match self.records.end(task, again, result, detail).await {
                Ok(_) => return,
                Err(error) => debug!(task = entry.name, %error, "the schedule cannot be told"),
            }
            tokio::time::sleep(PAUSE / 10).await;
        }
        // The turn expires by itself, and the task is done once more.
    }

    fn count(&self, entry: &Entry, result: &str) {
        self.means.metrics.schedule_runs.with_label_values(&[&*entry.name, result]).inc();
    }

    /// Renews the turn until it is lost, or must be taken for lost.
    async fn until_lost(&self, task: &schedule::Task) {
        let mut held_since = Moment::now();
        loop {
            tokio::time::sleep(TURN / 3).await;
            // From before the question: Redis counts from a later moment.
            let asked = Moment::now();
            match self.records.renew(task).await {
                Ok(true) => held_since = asked,
                Ok(false) => return,
                Err(error) => debug!(%error, "a turn of the schedule cannot be renewed"),
            }
            if held_since.elapsed() > TURN {
                return;
            }
        }
    }

    /// What came of it, in words.
    async fn perform(&self, entry: &Entry) -> Result<String, String> {
        let ground = &self.means.ground;
        match entry.task {
            Task::Warm => {
                let (caches, organization) = (entry.caches.clone(), entry.organization.clone());
                self.means.warm_ups.ordered(caches, organization).await
            }
            Task::Invalidate => self.invalidate(entry).await.map_err(|error| error.to_string()),
            Task::Maintenance => {
                let maintained = Box::pin(maintain(ground)).await.map_err(|e| e.to_string())?;
                maintained.count(ground, &self.means.metrics);
                Ok(told(&maintained))
            }
            Task::Report => {
                let report = self.means.reporter.make(true).await.map_err(|e| e.to_string())?;
                let (regressions, recommended) =
                    (report.regressions.len(), report.recommendations.len());
                Ok(format!(
                    "report {}: {regressions} regressions, {recommended} recommendations",
                    report.id
                ))
            }
        }
    }

    async fn invalidate(&self, entry: &Entry) -> Result<String, ManageError> {
        let ground = &self.means.ground;
        let request = Request {
            cache_type: entry.cache_type.clone(),
            organization: entry.organization.clone(),
            ..Request::default()
        };
        let wanted: &BTreeSet<CacheId> = &entry.caches;
        let (organization, selection) = Box::pin(resolve(ground, &request, wanted)).await?;
        let removed = Box::pin(remove(ground, &request, &selection, Act::Remove, &())).await;
        // After it went from Redis, so that nobody who has read it there before puts it back.
        self.means.held.forget_all();
        let removed = removed?;
        // What was there is filled again, as after a command.
        if let Some(warning) = tell(ground, &removed).await?.warning() {
            warn!(task = entry.name, warning);
        }
        let Counts { entries, scopes, leases } = removed.total();
        if organization.is_some_and(|organization| organization.known == Some(false)) {
            warn!(
                task = entry.name,
                "the database knows no such organization: give its exact name or its id in [[schedule]]"
            );
        }
        Ok(format!("{entries} entries, {scopes} scopes and {leases} leases removed"))
    }
}

fn told(maintained: &Maintained) -> String {
    let [beside, superseded, orphaned] = [Unfit::NoExpiry, Unfit::Superseded, Unfit::OrphanedLease]
        .map(|reason| maintained.removed_for(reason));
    if beside > 0 {
        warn!(
            entries = beside,
            "entries without an expiry were removed: something writes managed keys beside the protocol; give it read access only (docs/PERMISSIONS.md)"
        );
    }
    let (keys, bytes) = maintained.total();
    format!(
        "{keys} values, {bytes} bytes; removed: {beside} without an expiry, {superseded} of replaced generations, {orphaned} orphaned leases"
    )
}

#[expect(clippy::cast_precision_loss, reason = "seconds since 1970")]
fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_millis() as f64 / 1000.0)
}
