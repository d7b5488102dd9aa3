//! What was ordered, and what became of it: for a while, and not for ever more of it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::api::own::Action;
use crate::manage::selection::Request;

/// So many may wait, or be under way.
const WAITING: usize = 16;

/// So many are remembered.
const KEPT: usize = 200;

/// How long, once they have ended.
const FOR: Duration = Duration::from_secs(3600);

/// All of them.
pub(in crate::api) struct Jobs {
    jobs: Mutex<VecDeque<Job>>,
    turn: Semaphore,
}

/// One.
#[derive(Clone)]
pub(super) struct Job {
    id: String,
    action: Action,
    request: Request,
    by: String,
    state: State,
    counts: Value,
    error: Option<String>,
    ordered: SystemTime,
    begun: Option<SystemTime>,
    ended: Option<(SystemTime, Instant)>,
}

/// How far one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Waiting,
    Running,
    Done,
    Failed,
    CutOff,
}

impl State {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Running => "running",
            State::Done => "done",
            State::Failed => "failed",
            State::CutOff => "cut_off",
        }
    }
}

impl Default for Jobs {
    fn default() -> Self {
        Jobs { jobs: Mutex::default(), turn: Semaphore::new(1) }
    }
}

impl Jobs {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives its id; `None`: too many wait.
    pub(super) fn add(&self, job: Job) -> Option<String> {
        let mut jobs = self.lock();
        if jobs.iter().filter(|job| job.ended.is_none()).count() >= WAITING {
            return None;
        }
        forget(&mut jobs, Instant::now());
        let id = job.id.clone();
        jobs.push_back(job);
        Some(id)
    }

    pub(super) fn get(&self, id: &str) -> Option<Job> {
        let mut jobs = self.lock();
        forget(&mut jobs, Instant::now());
        jobs.iter().find(|job| job.id == id).cloned()
    }

    /// Its turn, once it comes: in the order in which they were given.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // Nobody closes it.
        self.turn.acquire().await.ok()
    }

    pub(super) fn begin(&self, id: &str) {
        self.change(id, |job| {
            job.state = State::Running;
            job.begun = Some(SystemTime::now());
        });
    }

    pub(super) fn end(&self, id: &str, state: State, counts: Value, error: Option<String>) {
        self.change(id, |job| {
            (job.state, job.counts, job.error) = (state, counts, error);
            job.ended = Some((SystemTime::now(), Instant::now()));
        });
    }

    fn change(&self, id: &str, change: impl FnOnce(&mut Job)) {
        if let Some(job) = self.lock().iter_mut().find(|job| job.id == id) {
            change(job);
        }
    }

    /// How many wait or are under way.
    pub(super) fn unfinished(&self) -> usize {
        self.lock().iter().filter(|job| job.ended.is_none()).count()
    }
}

/// The oldest that have ended go first.
fn forget(jobs: &mut VecDeque<Job>, now: Instant) {
    let old = |job: &Job| job.ended.is_some_and(|(_, at)| now.saturating_duration_since(at) > FOR);
    jobs.retain(|job| !old(job));
    while jobs.len() >= KEPT
        && let Some(at) = jobs.iter().position(|job| job.ended.is_some())
    {
        jobs.remove(at);
    }
}

impl Job {
    pub(super) fn new(action: Action, request: Request, by: &str) -> Job {
        Job {
            id: format!("{:032x}", fastrand::u128(..)),
            action,
            request,
            by: by.to_owned(),
            state: State::Waiting,
            counts: Value::Null,
            error: None,
            ordered: SystemTime::now(),
            begun: None,
            ended: None,
        }
    }

    /// Whose entries it is about; `None`: of all.
    pub(super) fn organization(&self) -> Option<&str> {
        self.request.organization.as_deref()
    }

    /// As it is answered.
    pub(super) fn told(&self) -> Value {
        let time = |at: SystemTime| humantime::format_rfc3339_micros(at).to_string();
        json!({
            "id": self.id,
            "action": self.action.as_str(),
            "state": self.state.as_str(),
            "cache_type": self.request.cache_type,
            "organization_id": self.request.organization,
            "user_id": self.request.user,
            "ordered_by": self.by,
            "ordered_at": time(self.ordered),
            "begun_at": self.begun.map(time),
            "ended_at": self.ended.map(|(at, _)| time(at)),
            "counts": self.counts,
            "error": self.error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(jobs: &Jobs) -> Option<String> {
        jobs.add(Job::new(Action::Warm, Request::default(), "7"))
    }

    #[test]
    fn only_so_many_wait_and_the_oldest_that_ended_are_forgotten() {
        let jobs = Jobs::default();
        let first = add(&jobs).unwrap();
        for _ in 1..WAITING {
            add(&jobs).unwrap();
        }
        assert_eq!(add(&jobs), None);
        jobs.end(&first, State::Done, Value::Null, None);
        assert_eq!(jobs.get(&first).unwrap().told()["state"], "done");
        for _ in 0..KEPT {
            let id = add(&jobs).unwrap();
            jobs.end(&id, State::Done, Value::Null, None);
        }
        assert!(jobs.get(&first).is_none());
        assert!(jobs.lock().len() <= KEPT);
        assert_eq!(jobs.unfinished(), WAITING - 1, "what has not ended is never forgotten");
    }
}
