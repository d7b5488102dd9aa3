//! What was ordered, and what became of it: for a while, and not for ever more of it.
//!
//! A job that was taken comes to an end, whatever happens to the task that does it: that task has
//! a [`Worker`], and one that is dropped without a word (a panic) has failed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

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
    /// The tasks that do them.
    pub(super) tasks: TaskTracker,
    /// The daemon ends.
    pub(super) stop: CancellationToken,
}

/// Who does a job.
pub(super) struct Worker {
    jobs: Arc<Jobs>,
    id: String,
    action: Action,
    has_ended: bool,
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
        Jobs {
            jobs: Mutex::default(),
            turn: Semaphore::new(1),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
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

    pub(super) fn worker(self: &Arc<Self>, id: &str, action: Action) -> Worker {
        Worker { jobs: Arc::clone(self), id: id.to_owned(), action, has_ended: false }
    }

    /// What is under way is cut off, and said to be; for so long at the most.
    pub(in crate::api) async fn cut_off(&self, within: Duration) {
        self.stop.cancel();
        self.tasks.close();
        _ = tokio::time::timeout(within, self.tasks.wait()).await;
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

impl Worker {
    /// It is its turn.
    pub(super) fn begin(&self) {
        self.jobs.change(&self.id, |job| {
            job.state = State::Running;
            job.begun = Some(SystemTime::now());
        });
    }

    /// It has come to this.
    pub(super) fn end(mut self, state: State, counts: Value, error: Option<String>) {
        self.note(state, counts, error);
    }

    fn note(&mut self, state: State, counts: Value, error: Option<String>) {
        self.has_ended = true;
        info!(
            target: "unstale::audit",
            action = self.action.as_str(),
            job_id = self.id,
            state = state.as_str(),
            counts = counts.get("total").map(ToString::to_string),
            error,
            "a management job has ended"
        );
        self.jobs.change(&self.id, |job| {
            (job.state, job.counts, job.error) = (state, counts, error);
            job.ended = Some((SystemTime::now(), Instant::now()));
        });
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if !self.has_ended {
            let reason = "the task that did it has ended by itself, a fault of this program that its log tells of: part of it may be done; order it again";
            self.note(State::Failed, Value::Null, Some(reason.to_owned()));
        }
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

    fn end(jobs: &Arc<Jobs>, id: &str) {
        jobs.worker(id, Action::Warm).end(State::Done, Value::Null, None);
    }

    #[tokio::test]
    async fn a_job_whose_task_panics_has_failed_and_the_next_one_has_its_turn() {
        let jobs = Arc::new(Jobs::default());
        let id = add(&jobs).unwrap();
        let worker = jobs.worker(&id, Action::Warm);
        let turn = Arc::clone(&jobs);
        let task = jobs.tasks.spawn(async move {
            let _turn = turn.turn().await;
            worker.begin();
            panic!("as it should");
        });
        assert!(task.await.unwrap_err().is_panic());
        let told = jobs.get(&id).unwrap().told();
        assert_eq!(told["state"], "failed", "{told}");
        assert!(told["error"].as_str().unwrap().contains("by itself"), "{told}");
        assert!(told["ended_at"].is_string(), "{told}");
        assert_eq!(jobs.unfinished(), 0);
        assert!(jobs.turn().await.is_some());
    }

    #[test]
    fn only_so_many_wait_and_the_oldest_that_ended_are_forgotten() {
        let jobs = Arc::new(Jobs::default());
        let first = add(&jobs).unwrap();
        for _ in 1..WAITING {
            add(&jobs).unwrap();
        }
        assert_eq!(add(&jobs), None);
        end(&jobs, &first);
        assert_eq!(jobs.get(&first).unwrap().told()["state"], "done");
        for _ in 0..KEPT {
            let id = add(&jobs).unwrap();
            end(&jobs, &id);
        }
        assert!(jobs.get(&first).is_none());
        assert!(jobs.lock().len() <= KEPT);
        assert_eq!(jobs.unfinished(), WAITING - 1, "what has not ended is never forgotten");
    }
}
