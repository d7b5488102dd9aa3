//! Warming and invalidating over HTTP, and how it stands: what the commands do, by the same code
//! ([`crate::manage`]), for who may.
//!
//! Organization administrators order for their own organization, superusers for any or for all.
//! The organization is an id here, never a name: a name could be another's id.
//!
//! An order is answered at once with a job ([`jobs`]): the work may take long, and one job is done
//! after the other. Jobs fill by the rules that they were ordered under. So a reload cuts them
//! off, and waits for the fills that they have begun ([`super::service::Retired`]); what was
//! removed or filled by then stays so. The daemon's end cuts them off, too, and a task that panics
//! leaves a job that has failed: none is left "running".
//!
//! Neither can make anything stale: a fill is by lease, and a removal takes the leases too.

mod allowance;
mod figures;
mod jobs;
mod order;
mod survey;

pub(super) use self::allowance::Allowance;
pub(super) use self::jobs::Jobs;
pub(super) use self::survey::Surveyor;

use std::sync::Arc;
use std::time::Instant;

use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tracing::{info, warn};

use self::jobs::{Job, State, Worker};
use self::order::Order;
use super::access::scope;
use super::identity::Identity;
use super::own::{Action, JOB};
use super::problem::Problem;
use super::respond::{Answer, json as answer};
use super::service::{Api, Serving};
use super::trace::Trace;
use crate::fill::held::Held;
use crate::manage::ground::ManageError;
use crate::manage::organization::{Organization, select};
use crate::manage::remove::remove;
use crate::manage::selection::Request;
use crate::manage::tell::tell;
use crate::manage::warm;
use crate::store::remove::Act;

/// Who asks, known by his token.
pub(super) struct Caller<'a> {
    pub(super) identity: Arc<Identity>,
    pub(super) trace: &'a Trace,
}

impl Api {
    /// An order.
    pub(super) async fn order(
        &self,
        serving: &Arc<Serving>,
        action: Action,
        caller: &Caller<'_>,
        headers: &HeaderMap,
        body: Incoming,
    ) -> Result<Answer, Problem> {
        let ordered = self.try_order(serving, action, caller, headers, body).await;
        if let Err(problem) = &ordered {
            warn!(
                target: "unstale::audit",
                action = action.as_str(),
                by = caller.identity.user_id,
                status = problem.status.as_u16(),
                problem = problem.name,
                request_id = caller.trace.request_id(),
                "a management request was refused"
            );
        }
        ordered
    }

    async fn try_order(
        &self,
        serving: &Arc<Serving>,
        action: Action,
        caller: &Caller<'_>,
        headers: &HeaderMap,
        body: Incoming,
    ) -> Result<Answer, Problem> {
        let identity = &caller.identity;
        // Before the body is looked at: who may nothing learns nothing.
        scope(identity, identity.organization_id.clone())?;
        self.allowance.take(&identity.user_id, Instant::now()).map_err(Problem::too_many)?;
        if self.shadow {
            return Err(Problem::unavailable(
                "this daemon runs in shadow mode: what is cached is not its own",
            ));
        }
        if !is_json(headers) {
            return Err(Problem::not_json());
        }
        let limit = self.settings.max_body_bytes;
        let body = Limited::new(body, limit).collect().await;
        let body = body.map_err(|_| Problem::too_large(limit))?.to_bytes();
        let order = Order::read(&body).map_err(Problem::invalid_body)?;
        let organization = scope(identity, order.organization)?;
        let wanted = serving.mapping.select(&order.cache_type).map_err(Problem::invalid_body)?;
        let request =
            Request { cache_type: order.cache_type, organization, user: order.user, days: None };
        let job = Job::new(action, request.clone(), &identity.user_id);
        let id = self.jobs.add(job).ok_or_else(Problem::too_many_jobs)?;
        info!(
            target: "unstale::audit",
            action = action.as_str(),
            by = identity.user_id,
            superuser = identity.is_superuser,
            cache_type = request.cache_type,
            organization_id = request.organization,
            user_id = request.user,
            job_id = id,
            request_id = caller.trace.request_id(),
            "a management request was taken"
        );
        let (message, path) = (message(action, &request), JOB.replace("{id}", &id));
        let work = Work {
            serving: Arc::clone(serving),
            jobs: Arc::clone(&self.jobs),
            held: Arc::clone(&self.held),
            action,
            request: request.clone(),
            wanted,
        };
        let worker = self.jobs.worker(&id, action);
        self.jobs.tasks.spawn(Box::pin(work.run(worker)));
        let mut answer = answer(
            StatusCode::ACCEPTED,
            &json!({
                "success": true,
                "message": message,
                "job_id": id,
                "job_url": path,
                "cache_type": request.cache_type,
                "organization_id": request.organization,
                "user_id": request.user,
            }),
        );
        if let Ok(location) = HeaderValue::from_str(&path) {
            answer.headers_mut().insert(LOCATION, location);
        }
        Ok(answer)
    }

    /// What became of an order: for who could have given it.
    pub(super) fn job(&self, caller: &Caller<'_>, id: &str) -> Result<Answer, Problem> {
        let identity = &caller.identity;
        scope(identity, identity.organization_id.clone())?;
        let job = self.jobs.get(id).filter(|job| {
            identity.is_superuser
                || job
                    .organization()
                    .is_some_and(|id| Some(id) == identity.organization_id.as_deref())
        });
        let job = job.ok_or_else(Problem::not_found)?;
        Ok(answer(StatusCode::OK, &json!({ "success": true, "job": job.told() })))
    }

    /// How the cache stands.
    pub(super) async fn cache_status(
        &self,
        serving: &Arc<Serving>,
        caller: &Caller<'_>,
    ) -> Result<Answer, Problem> {
        scope(&caller.identity, caller.identity.organization_id.clone())?;
        let status = self.figures(serving).await;
        let info = json!({ "cached": false, "cache_type": "cache_status", "ttl": 0 });
        Ok(answer(StatusCode::OK, &json!({ "cache_status": status, "cache_info": info })))
    }
}

fn message(action: Action, request: &Request) -> String {
    let what = match action {
        Action::Warm => "will be filled",
        Action::Invalidate => "will be removed",
    };
    let whose = match (&request.organization, &request.user) {
        (None, None) => String::new(),
        (Some(organization), None) => format!(" of organization {organization}"),
        (None, Some(user)) => format!(" of user {user}"),
        (Some(organization), Some(user)) => {
            format!(" of user {user} in organization {organization}")
        }
    };
    format!("the entries of {}{whose} {what}", request.cache_type)
}

fn is_json(headers: &HeaderMap) -> bool {
    let mut all = headers.get_all(CONTENT_TYPE).iter();
    let first = all.next().and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = first.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json") && all.next().is_none()
}

/// A job, and all that it is done with.
struct Work {
    serving: Arc<Serving>,
    jobs: Arc<Jobs>,
    held: Arc<Held>,
    action: Action,
    request: Request,
    wanted: std::collections::BTreeSet<crate::mapping::model::CacheId>,
}

impl Work {
    async fn run(self, worker: Worker) {
        let cut_off = |reason: &str| (State::CutOff, Value::Null, Some(reason.to_owned()));
        let (state, counts, error) = tokio::select! {
            biased;
            () = self.jobs.stop.cancelled() => cut_off("the daemon was stopped: order it again"),
            () = self.serving.ended.cancelled() => {
                cut_off("the configuration was loaded anew: order it again")
            }
            done = self.in_turn(&worker) => match done {
                Ok((counts, None)) => (State::Done, counts, None),
                Ok((counts, failure)) => (State::Failed, counts, failure),
                Err(error) => (State::Failed, Value::Null, Some(error.to_string())),
            },
        };
        if state == State::CutOff {
            self.serving.filling.finished(self.serving.patience).await;
        }
        worker.end(state, counts, error);
    }

    /// Gives the counts, and what failed of it.
    async fn in_turn(&self, worker: &Worker) -> Result<(Value, Option<String>), ManageError> {
        let _turn = self.jobs.turn().await;
        worker.begin();
        match self.action {
            Action::Warm => self.warm().await,
            Action::Invalidate => self.invalidate().await,
        }
    }

    async fn warm(&self) -> Result<(Value, Option<String>), ManageError> {
        let Serving { ground, filling, turns, workers, .. } = &*self.serving;
        let plan = warm::plan(&ground.rules, &self.request, self.wanted.clone())?;
        let means = warm::Means { ground, filling, turns, workers: *workers };
        let warmed = Box::pin(means.run(&plan, &self.request, None, &())).await?;
        let mut total = crate::warm::once::Counts::default();
        warmed.caches.iter().for_each(|(_, counts)| total += *counts);
        let caches: Vec<(&str, Value)> =
            warmed.caches.iter().map(|(name, counts)| (name.as_str(), json!(counts))).collect();
        let failure = (!warmed.failures.is_empty()).then(|| warmed.failures.join("; "));
        Ok((counted(&json!(total), caches, &plan.left_out), failure))
    }

    async fn invalidate(&self) -> Result<(Value, Option<String>), ManageError> {
        let ground = &self.serving.ground;
        let organization = self.request.organization.clone();
        let organization = organization.map(|id| Organization { ids: [id].into(), known: None });
        let selection = select(ground, &self.request, &self.wanted, organization.as_ref())?;
        let act = Act::Remove;
        let removed = Box::pin(remove(ground, &self.request, &selection, act, &())).await;
        // What this process holds goes too; after it went from Redis, so that nobody who has
        // read it there before puts it back. So does what the daemon holds that streams, if
        // that is another.
        self.held.forget_all();
        let removed = removed?;
        let failure = tell(ground, &removed).await?.warning().map(str::to_owned);
        let caches: Vec<(&str, Value)> =
            removed.caches.iter().map(|(name, counts)| (name.as_str(), json!(counts))).collect();
        Ok((counted(&json!(removed.total()), caches, &selection.left_out), failure))
    }
}

fn counted(
    total: &Value,
    caches: Vec<(&str, Value)>,
    left_out: &[(String, &'static str)],
) -> Value {
    let caches: serde_json::Map<String, Value> =
        caches.into_iter().map(|(name, counts)| (name.to_owned(), counts)).collect();
    let left_out: serde_json::Map<String, Value> =
        left_out.iter().map(|(name, why)| (name.clone(), json!(why))).collect();
    json!({ "total": total, "caches": caches, "left_out": left_out })
}
