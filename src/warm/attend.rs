//! The task that does what the agenda says.
//!
//! A warm-up fills what is not there, highest priority first, at rewarming's pace and
//! only where rewarming leaves room. The run of the pipeline that it lives in may end at any
//! time: then it is due again in the next one, and what it has filled is passed over at
//! the price of a question to Redis.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{info, warn};

use super::agenda::{Agenda, Next, Order, Reason};
use super::filling::Filling;
use super::once::{Counts, Means, Plan, Progress, Warmed};
use super::population::{PopulationError, Whose};
use super::turns::Turns;
use crate::config::model::{Config, Scalar, Task, Warm};
use crate::mapping::model::CacheId;
use crate::metrics::Metrics;
use crate::postgres::client::SqlClient;
use crate::postgres::conninfo::ConnectOptions;
use crate::postgres::error::PgError;
use crate::rules::Rules;

/// The warm-ups of a daemon; cloning shares the agenda.
#[derive(Clone)]
pub struct WarmUps {
    shared: Arc<Shared>,
}

struct Shared {
    config: Warm,
    agenda: Mutex<Agenda>,
    changed: Notify,
    rules: Rules,
    /// The caches that can be warmed.
    all: BTreeSet<CacheId>,
    turns: Arc<Turns>,
    metrics: Metrics,
}

impl WarmUps {
    /// The schedule of the configuration begins now; at start, if that is wanted, in a moment.
    ///
    /// # Errors
    /// If a population is no query, or a schedule names no cache.
    pub fn new(
        config: &Config,
        rules: &Rules,
        turns: Arc<Turns>,
        metrics: Metrics,
    ) -> Result<Self, String> {
        let all = rules.mapping.caches().map(|(id, _)| id).collect();
        let plan = Plan::new(rules, &all);
        let plan = plan.map_err(|error: PopulationError| error.to_string())?;
        let all: BTreeSet<CacheId> = plan.caches().map(|(id, _)| id).collect();
        let now = Instant::now();
        let mut agenda = Agenda::default();
        for schedule in &config.schedule {
            let Task::Warm = schedule.task;
            let caches = rules.mapping.select(&schedule.cache_type);
            let caches = caches.map_err(|reason| format!("schedule.cache_type: {reason}"))?;
            let organization = schedule.organization.as_ref().map(|scalar| match scalar {
                Scalar::Number(id) => id.to_string(),
                Scalar::Text(name) => name.clone(),
            });
            let every = schedule.every.get();
            agenda.regularly(every, caches, organization, now, fastrand::f64());
        }
        if config.warm.on_start {
            agenda.urgently(Reason::Start, all.clone(), now, fastrand::f64());
        }
        let shared = Shared {
            config: config.warm.clone(),
            agenda: Mutex::new(agenda),
            changed: Notify::new(),
            rules: rules.clone(),
            all,
            turns,
            metrics,
        };
        Ok(WarmUps { shared: Arc::new(shared) })
    }

    /// Everything was dropped.
    pub fn gap(&self) {
        self.urgently(Reason::Gap, self.shared.all.clone());
    }

    /// These caches were dropped as a whole.
    pub fn dropped(&self, caches: &BTreeSet<CacheId>) {
        self.urgently(Reason::Drop, caches & &self.shared.all);
    }

    fn urgently(&self, reason: Reason, caches: BTreeSet<CacheId>) {
        if self.shared.config.after_gap && !caches.is_empty() {
            self.shared.lock().urgently(reason, caches, Instant::now(), fastrand::f64());
            self.shared.changed.notify_one();
        }
    }

    /// Warms up whenever it is time, for ever.
    pub async fn run(self, filling: Filling, connect: ConnectOptions, timeout: Duration) {
        if !self.shared.config.enabled {
            return std::future::pending().await;
        }
        let Shared { agenda: _, changed, .. } = &*self.shared;
        self.shared.cut_off();
        loop {
            let next = self.shared.lock().next(Instant::now(), fastrand::f64());
            match next {
                Next::Now(order) => tokio::select! {
                    result = self.shared.warm_up(&order, &filling, &connect, timeout) => {
                        self.shared.end(&order, result);
                    }
                    () = self.shared.interrupted() => self.shared.cut_off(),
                },
                Next::At(at) => tokio::select! {
                    () = tokio::time::sleep_until(at) => {}
                    () = changed.notified() => {}
                },
                Next::Never => changed.notified().await,
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Agenda> {
        self.agenda.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until what is under way has to make room.
    async fn interrupted(&self) {
        loop {
            let at = self.lock().interrupted_at();
            match at {
                Some(at) => return tokio::time::sleep_until(at).await,
                None => self.changed.notified().await,
            }
        }
    }

    fn cut_off(&self) {
        let cut_off = self.lock().cut_off(Instant::now());
        if let Some(reason) = cut_off {
            info!(reason = reason.as_str(), "a warm-up was cut off and begins anew");
            self.count(reason, "cut_off");
        }
    }

    async fn warm_up(
        &self,
        order: &Order,
        filling: &Filling,
        connect: &ConnectOptions,
        timeout: Duration,
    ) -> Result<(Warmed, Duration), PgError> {
        let start = Instant::now();
        // It was made once before, of all caches.
        let Ok(plan) = Plan::new(&self.rules, &order.caches) else { return Ok(Default::default()) };
        info!(
            reason = order.reason.as_str(),
            organization = order.organization.as_deref(),
            caches = plan.caches().map(|(_, name)| name).collect::<Vec<_>>().join(","),
            "warming up"
        );
        let client = SqlClient::connect_read_only(connect, timeout).await?;
        let means = Means {
            filling,
            client: &client,
            turns: &self.turns,
            workers: self.config.concurrency,
            patient: true,
        };
        let organization = order.organization.as_deref();
        let whose = Whose { organization, users: self.config.users, ..Whose::default() };
        let warmed = plan.run(means, whose, &Unwatched).await?;
        Ok((warmed, start.elapsed()))
    }

    fn end(&self, order: &Order, result: Result<(Warmed, Duration), PgError>) {
        let reason = order.reason.as_str();
        match result {
            Ok((warmed, took)) => {
                self.lock().done();
                let mut total = Counts::default();
                for (_, counts) in &warmed.caches {
                    total += *counts;
                }
                let Counts { stored, present, absent, voided, unleased, too_large, failed } = total;
                info!(
                    reason,
                    stored,
                    present,
                    absent,
                    voided,
                    unleased,
                    too_large,
                    failed,
                    ?took,
                    "warmed up"
                );
                for failure in &warmed.failures {
                    warn!(reason, %failure, "entries could not be warmed");
                }
                if let Some(organization) = order.organization.as_deref()
                    && total.is_empty()
                {
                    warn!(
                        organization,
                        "there is nothing to warm for this organization: give its exact name or its id in [[schedule]]"
                    );
                }
                self.count(order.reason, "done");
            }
            Err(error) => {
                self.lock().failed(Instant::now(), fastrand::f64());
                warn!(reason, %error, "a warm-up has failed; it is tried again");
                self.count(order.reason, "failed");
            }
        }
    }

    fn count(&self, reason: Reason, result: &str) {
        self.metrics.warm_ups.with_label_values(&[reason.as_str(), result]).inc();
    }
}

/// Nobody looks on.
struct Unwatched;

impl Progress for Unwatched {
    fn cache(&self, _: &str, _: usize) {}
    fn one(&self) {}
}
