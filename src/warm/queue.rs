//! What is filled next.
//!
//! Three strict priorities, with a floor: every so often the lowest that waits goes first, so
//! that it never starves. The same key waiting twice is one job. Past its bound the queue
//! drops the lowest first: the newest of them, since the oldest has waited longest. A job that
//! failed waits apart until its time has come.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use tokio::time::Instant;

use crate::config::model::Priority;
use crate::mapping::model::CacheId;

/// Of this many jobs one is the lowest that waits.
const FLOOR: u32 = 16;

/// An entry to be filled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The full Redis key.
    pub key: Arc<[u8]>,
    /// Its cache.
    pub cache: CacheId,
    /// What it goes by.
    pub priority: Priority,
    /// Until when it would have lived; `None`: its cache's TTL, from when it is filled.
    pub until: Option<Instant>,
    /// How often it was tried and failed.
    pub failures: u32,
    /// How often it was filled in vain: a newer change came before the value was stored.
    pub overtaken: u32,
}

/// The jobs that wait.
#[derive(Debug)]
pub struct Queue {
    lanes: [VecDeque<Arc<[u8]>>; 3],
    /// What waits for its time; the number tells apart what has the same.
    later: BTreeMap<(Instant, u64), Arc<[u8]>>,
    jobs: HashMap<Arc<[u8]>, Job, RandomState>,
    counts: [usize; 3],
    capacity: usize,
    since_floor: u32,
    next_number: u64,
}

impl Queue {
    /// Holds at most `capacity` jobs.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Queue {
            lanes: Default::default(),
            later: BTreeMap::new(),
            jobs: HashMap::default(),
            counts: [0; 3],
            capacity,
            since_floor: 0,
            next_number: 0,
        }
    }

    /// Adds a job. If its key waits already it is the same job, with the life that is known
    /// now. Gives the job that had to go for it.
    pub fn push(&mut self, job: Job) -> Option<Job> {
        let job = self.merge(job)?;
        if let Some(lane) = self.lanes.get_mut(lane(job.priority)) {
            lane.push_back(Arc::clone(&job.key));
        }
        self.insert(job)
    }

    /// Adds a job whose time comes at `at`. As [`Queue::push`].
    pub fn push_later(&mut self, job: Job, at: Instant) -> Option<Job> {
        let job = self.merge(job)?;
        self.next_number += 1;
        self.later.insert((at, self.next_number), Arc::clone(&job.key));
        self.insert(job)
    }

    /// Gives the job back unless its key waits already.
    fn merge(&mut self, job: Job) -> Option<Job> {
        let Some(waiting) = self.jobs.get_mut(&job.key) else { return Some(job) };
        if job.until.is_some() {
            waiting.until = job.until;
        }
        None
    }

    fn insert(&mut self, job: Job) -> Option<Job> {
        if let Some(count) = self.counts.get_mut(lane(job.priority)) {
            *count += 1;
        }
        self.jobs.insert(Arc::clone(&job.key), job);
        if self.jobs.len() <= self.capacity {
            return None;
        }
        let lowest = self.lanes.iter_mut().rev().find(|lane| !lane.is_empty());
        let key = match lowest {
            Some(lane) => lane.pop_back(),
            None => self.later.pop_last().map(|(_, key)| key),
        };
        self.remove(&key?)
    }

    fn remove(&mut self, key: &[u8]) -> Option<Job> {
        let job = self.jobs.remove(key)?;
        if let Some(count) = self.counts.get_mut(lane(job.priority)) {
            *count -= 1;
        }
        Some(job)
    }

    /// Puts those in line whose time has come.
    fn line_up(&mut self, now: Instant) {
        while let Some(first) = self.later.first_entry().filter(|first| first.key().0 <= now) {
            let key = first.remove();
            let priority = self.jobs.get(&key).map_or(Priority::Low, |job| job.priority);
            if let Some(lane) = self.lanes.get_mut(lane(priority)) {
                lane.push_back(key);
            }
        }
    }

    /// Takes the next job.
    pub fn pop(&mut self, now: Instant) -> Option<Job> {
        self.line_up(now);
        self.since_floor += 1;
        let mut lanes = self.lanes.iter_mut();
        let waits = |lane: &&mut VecDeque<Arc<[u8]>>| !lane.is_empty();
        let next = if self.since_floor >= FLOOR {
            self.since_floor = 0;
            lanes.rev().find(waits)
        } else {
            lanes.find(waits)
        };
        let key = next?.pop_front()?;
        self.remove(&key)
    }

    /// When the next job can be taken, if there is any.
    #[must_use]
    pub fn next_at(&self, now: Instant) -> Option<Instant> {
        if self.lanes.iter().any(|lane| !lane.is_empty()) {
            return Some(now);
        }
        self.later.first_key_value().map(|((at, _), _)| (*at).max(now))
    }

    /// Takes all jobs.
    pub fn clear(&mut self) -> Vec<Job> {
        self.lanes.iter_mut().for_each(VecDeque::clear);
        self.later.clear();
        self.counts = [0; 3];
        self.jobs.drain().map(|(_, job)| job).collect()
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Whether none does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// How many wait of a priority.
    #[must_use]
    pub fn waiting(&self, priority: Priority) -> usize {
        self.counts.get(lane(priority)).copied().unwrap_or_default()
    }
}

fn lane(priority: Priority) -> usize {
    match priority {
        Priority::High => 0,
        Priority::Medium => 1,
        Priority::Low => 2,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn job(key: &str, priority: Priority) -> Job {
        Job {
            key: key.as_bytes().into(),
            cache: CacheId(0),
            priority,
            until: None,
            failures: 0,
            overtaken: 0,
        }
    }

    fn keys(queue: &mut Queue) -> Vec<String> {
        let now = Instant::now();
        let taken = std::iter::from_fn(|| queue.pop(now));
        taken.map(|job| String::from_utf8(job.key.to_vec()).unwrap()).collect()
    }

    #[test]
    fn the_highest_goes_first_and_within_it_the_oldest() {
        let mut queue = Queue::new(10);
        for (key, priority) in [
            ("l", Priority::Low),
            ("m1", Priority::Medium),
            ("h1", Priority::High),
            ("m2", Priority::Medium),
            ("h2", Priority::High),
        ] {
            assert_eq!(queue.push(job(key, priority)), None);
        }
        assert_eq!(keys(&mut queue), ["h1", "h2", "m1", "m2", "l"]);
    }

    #[test]
    fn the_same_key_twice_is_one_job() {
        let mut queue = Queue::new(10);
        queue.push(job("a", Priority::Low));
        queue.push(job("a", Priority::Low));
        assert_eq!(queue.len(), 1);
        assert_eq!(keys(&mut queue), ["a"]);
        queue.push(job("a", Priority::Low));
        assert_eq!(queue.len(), 1, "what was taken may come again");
    }

    #[test]
    fn the_lowest_never_starves() {
        let mut queue = Queue::new(100);
        queue.push(job("low", Priority::Low));
        let mut served = 0;
        for i in 0..100 {
            queue.push(job(&format!("h{i}"), Priority::High));
            served += usize::from(
                queue.pop(Instant::now()).is_some_and(|job| job.priority == Priority::Low),
            );
        }
        assert_eq!(served, 1);
    }

    #[test]
    fn past_the_bound_the_lowest_and_newest_goes() {
        let mut queue = Queue::new(2);
        queue.push(job("l1", Priority::Low));
        queue.push(job("l2", Priority::Low));
        assert_eq!(queue.push(job("h", Priority::High)), Some(job("l2", Priority::Low)));
        assert_eq!(queue.push(job("l3", Priority::Low)), Some(job("l3", Priority::Low)));
        assert_eq!(queue.push(job("l2", Priority::Low)), Some(job("l2", Priority::Low)));
        assert_eq!(keys(&mut queue), ["h", "l1"]);
    }

    #[test]
    fn a_key_that_waits_has_the_life_that_was_known_last() {
        let (now, mut queue) = (Instant::now(), Queue::new(10));
        let lives = |seconds| Some(now + Duration::from_secs(seconds));
        for until in [lives(5), lives(90), None] {
            queue.push(Job { until, ..job("a", Priority::Low) });
        }
        assert_eq!(queue.pop(now).unwrap().until, lives(90), "it was there once more, then not");
    }

    #[test]
    fn what_failed_waits_apart_until_its_time_has_come() {
        let (now, mut queue) = (Instant::now(), Queue::new(3));
        let soon = now + Duration::from_secs(1);
        queue.push_later(job("h", Priority::High), soon);
        assert_eq!((queue.pop(now), queue.next_at(now)), (None, Some(soon)));
        queue.push(job("h", Priority::High));
        assert_eq!((queue.len(), queue.waiting(Priority::High)), (1, 1), "it is one job");
        queue.push(job("l", Priority::Low));
        assert_eq!(queue.next_at(now), Some(now));
        assert_eq!(queue.pop(soon), Some(job("h", Priority::High)));
        assert_eq!(queue.pop(soon), Some(job("l", Priority::Low)));
        assert_eq!((queue.pop(soon), queue.next_at(soon)), (None, None));
        for key in ["a", "b", "c", "d"] {
            queue.push_later(job(key, Priority::Low), soon);
        }
        assert_eq!(queue.len(), 3, "it is bounded all the same");
        assert_eq!(queue.clear().len(), 3);
        assert_eq!((queue.pop(soon), queue.waiting(Priority::Low)), (None, 0));
    }
}
