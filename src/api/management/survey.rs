//! What is in Redis, counted at most every so often: looking through it costs Redis something,
//! and who asks must not wait for it longer than he likes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::debug;

use crate::api::service::Serving;
use crate::manage::ground::ManageError;
use crate::manage::organization::select;
use crate::manage::scheduled::{Scheduled, scheduled};
use crate::manage::selection::Request;
use crate::manage::survey::{Held, survey};
use crate::report::keep::newest;
use crate::report::model::Report;

/// How long a count is good for.
const FOR: Duration = Duration::from_secs(15);

/// How long a request waits for one. The counting goes on for the next.
const PATIENCE: Duration = Duration::from_secs(2);

/// The last count.
pub(in crate::api) struct Surveyor {
    last: watch::Sender<Option<Arc<Surveyed>>>,
    busy: AtomicBool,
}

/// What was found, and when.
#[derive(Debug, Serialize)]
pub(super) struct Surveyed {
    #[serde(skip)]
    at: Instant,
    counted_at: String,
    memory_bytes: Option<u64>,
    caches: BTreeMap<String, Held>,
    #[serde(skip)]
    pub(super) schedule: Vec<Scheduled>,
    /// Told apart from the rest.
    #[serde(skip)]
    pub(super) last_report: Option<Value>,
}

impl Default for Surveyor {
    fn default() -> Self {
        Surveyor { last: watch::Sender::new(None), busy: AtomicBool::new(false) }
    }
}

impl Surveyor {
    /// The last count; one that is not older than `FOR` if that can be had in time. `None`: Redis
    /// has not answered yet.
    pub(super) async fn look(self: &Arc<Self>, serving: &Arc<Serving>) -> Option<Arc<Surveyed>> {
        let fresh = |last: &Option<Arc<Surveyed>>| {
            last.as_ref().is_some_and(|last| last.at.elapsed() < FOR)
        };
        if !fresh(&self.last.borrow()) {
            let mut last = self.last.subscribe();
            if !self.busy.swap(true, Ordering::AcqRel) {
                let (me, serving) = (Arc::clone(self), Arc::clone(serving));
                tokio::spawn(async move {
                    // Serving is let go of when a reload ends it.
                    let counted = tokio::select! {
                        () = serving.ended.cancelled() => None,
                        counted = Box::pin(count(&serving)) => {
                            counted.inspect_err(|error| debug!(%error, "not counted")).ok()
                        }
                    };
                    me.busy.store(false, Ordering::Release);
                    me.last.send_modify(|last| {
                        if let Some(counted) = counted {
                            *last = Some(Arc::new(counted));
                        }
                    });
                });
            }
            _ = tokio::time::timeout(PATIENCE, last.changed()).await;
        }
        self.last.borrow().clone()
    }
}

async fn count(serving: &Serving) -> Result<Surveyed, ManageError> {
    let ground = &serving.ground;
    let request = Request::default();
    let wanted = ground.mapping().caches().map(|(id, _)| id).collect();
    let selection = select(ground, &request, &wanted, None)?;
    let session = ground.redis().await?;
    let held = survey(ground, &session, &selection, &()).await?;
    let last = newest(&mut session.connection(), session.keys()).await;
    // Rights of an older line: there is none to tell of.
    let last =
        last.inspect_err(|error| debug!(%error, "the last report is not known")).ok().flatten();
    let named = |(id, held)| Some((ground.mapping().cache(id)?.name.to_string(), held));
    Ok(Surveyed {
        at: Instant::now(),
        counted_at: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        memory_bytes: session.used_memory().await,
        schedule: scheduled(&session, &ground.planned).await?,
        caches: held.into_iter().filter_map(named).collect(),
        last_report: last.as_ref().map(summary),
    })
}

/// What an organization's administrator may know of a report: no key, no other organization.
fn summary(report: &Report) -> Value {
    let reads = &report.reads;
    json!({
        "id": report.id,
        "made_at": report.made_at,
        "window_seconds": report.window.seconds,
        "hit_rate": reads.hit_rate,
        "miss_rate": reads.miss_rate,
        "hit_rate_points": reads.hit_rate_points,
        "inconsistent_p99_ms": report.invalidation.inconsistent.latency.p99_ms,
        "regressions": report.regressions.len(),
        "bottlenecks": report.bottlenecks.len(),
        "recommendations": report.recommendations.len(),
    })
}
