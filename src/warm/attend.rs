//! The task that does what the agenda says.
//!
//! A warm-up fills what is not there, highest priority first, at rewarming's pace and
//! only where rewarming leaves room. The run of the pipeline that it lives in may end at any
//! time: then it is due again in the next one, and what it has filled is passed over at
//! the price of a question to Redis.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tracing::{info, warn};

use super::agenda::{Agenda, Next, Order, Reason, Ticket};
use super::filling::Filling;
use super::once::{Counts, Means, Plan, Progress, Warmed};
use super::population::{PopulationError, Whose};
use super::turns::Turns;
use crate::config::model::{Config, Warm};
use crate::mapping::model::CacheId;
use crate::metrics::Metrics;
use crate::postgres::client::SqlClient;
use crate::postgres::conninfo::ConnectOptions;
use crate::postgres::error::PgError;
use crate::rules::Rules;

/// The values of the label `result` of `unstale_warm_ups_total`.
pub const RESULTS: [&str; 3] = ["done", "failed", "cut_off"];

/// What came of an order, in words.
type Outcome = Result<String, String>;

/// Takes the order back, if nobody waits for it any more.
struct Ordered<'a>(&'a Shared, Ticket);

impl Drop for Ordered<'_> {
    fn drop(&mut self) {
        self.0.orders().remove(&self.1);
        self.0.lock().withdraw(self.1);
    }
}

/// The warm-ups of a daemon; cloning shares the agenda.
#[derive(Clone)]
pub struct WarmUps {
    shared: Arc<Shared>,
}

struct Shared {
    config: Warm,
    agenda: Mutex<Agenda>,
    changed: Notify,
    /// Who waits for what was ordered.
    orders: Mutex<BTreeMap<Ticket, oneshot::Sender<Outcome>>>,
    rules: Rules,
    /// The caches that can be warmed.
    all: BTreeSet<CacheId>,
    turns: Arc<Turns>,
    metrics: Metrics,
}

impl WarmUps {
    /// Nothing is due; at start, if that is wanted, something is in a moment.
    ///
    /// # Errors
    /// If a population is no query.
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
        let mut agenda = Agenda::default();
        if config.warm.on_start {
            agenda.urgently(Reason::Start, all.clone(), Instant::now(), fastrand::f64());
        }
        let shared = Shared {
            config: config.warm.clone(),
            agenda: Mutex::new(agenda),
            changed: Notify::new(),
            orders: Mutex::default(),
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

    /// Orders a warm-up of these caches, and waits for its end. Dropped, it takes the order back.
    ///
    /// # Errors
    /// If it failed: why, in words.
    pub async fn ordered(
        &self,
        caches: BTreeSet<CacheId>,
        organization: Option<String>,
    ) -> Result<String, String> {
        let (tell, told) = oneshot::channel();
        let ordered = {
            let mut agenda = self.shared.lock();
            let ticket = agenda.order(caches, organization);
            self.shared.orders().insert(ticket, tell);
            Ordered(&self.shared, ticket)
        };
        self.shared.changed.notify_one();
        let outcome = told.await;
        drop(ordered);
        outcome.unwrap_or_else(|_| Err("it was given up".to_owned()))
    }

    /// Warms up whenever it is time, for ever.
    pub async fn run(self, filling: Filling, connect: ConnectOptions, timeout: Duration) {
        if !self.shared.config.enabled {
            return std::future::pending().await;
        }
        let Shared { agenda: _, changed, .. } = &*self.shared;
        self.shared.cut_off();
        loop {
            let next = self.shared.lock().next(Instant::now());
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

    fn orders(&self) -> MutexGuard<'_, BTreeMap<Ticket, oneshot::Sender<Outcome>>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, ticket: Option<Ticket>, outcome: Outcome) {
        if let Some(tell) = ticket.and_then(|ticket| self.orders().remove(&ticket)) {
            // Who does not wait any more does not need to know.
            _ = tell.send(outcome);
        }
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
                let ticket = self.lock().done();
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
                let told =
                    format!("{stored} entries stored, {present} were there, {failed} failed");
                self.tell(ticket, Ok(told));
            }
            Err(error) => {
                let ticket = self.lock().failed(Instant::now(), fastrand::f64());
                warn!(reason, %error, "a warm-up has failed; it is tried again");
                self.count(order.reason, "failed");
                self.tell(ticket, Err(error.to_string()));
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
