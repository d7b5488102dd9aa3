//! What is filled next.
//!
//! Three strict priorities, with a floor: every so often the lowest that waits goes first, so
//! that it never starves. The same key waiting twice is one job. Past its bound the queue
//! drops the lowest first: the newest of them, since the oldest has waited longest.

use std::collections::VecDeque;

use foldhash::fast::RandomState;
use hashbrown::HashSet;

use crate::config::model::Priority;
use crate::mapping::model::CacheId;

/// Of this many jobs one is the lowest that waits.
const FLOOR: u32 = 16;

/// An entry to be filled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The full Redis key.
    pub key: Vec<u8>,
    /// Its cache.
    pub cache: CacheId,
    /// What it goes by.
    pub priority: Priority,
    /// How long it may live, in milliseconds; `None`: its cache's TTL.
    pub remaining: Option<u64>,
    /// How often it was tried and failed.
    pub failures: u32,
}

/// The jobs that wait.
#[derive(Debug)]
pub struct Queue {
    lanes: [VecDeque<Job>; 3],
    waiting: HashSet<Vec<u8>, RandomState>,
    capacity: usize,
    since_floor: u32,
}

impl Queue {
    /// Holds at most `capacity` jobs.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Queue { lanes: Default::default(), waiting: HashSet::default(), capacity, since_floor: 0 }
    }

    /// Adds a job, unless its key waits already. Gives the job that had to go for it.
    pub fn push(&mut self, job: Job) -> Option<Job> {
        if !self.waiting.insert(job.key.clone()) {
            return None;
        }
        if let Some(lane) = self.lanes.get_mut(lane(job.priority)) {
            lane.push_back(job);
        }
        if self.len() <= self.capacity {
            return None;
        }
        let lowest = self.lanes.iter_mut().rev().find(|lane| !lane.is_empty());
        let dropped = lowest.and_then(VecDeque::pop_back)?;
        self.waiting.remove(&dropped.key);
        Some(dropped)
    }

    /// Takes the next job.
    pub fn pop(&mut self) -> Option<Job> {
        self.since_floor += 1;
        let mut lanes = self.lanes.iter_mut();
        let waits = |lane: &&mut VecDeque<Job>| !lane.is_empty();
        let next = if self.since_floor >= FLOOR {
            self.since_floor = 0;
            lanes.rev().find(waits)
        } else {
            lanes.find(waits)
        };
        let job = next?.pop_front()?;
        self.waiting.remove(&job.key);
        Some(job)
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lanes.iter().map(VecDeque::len).sum()
    }

    /// Whether none does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lanes.iter().all(VecDeque::is_empty)
    }

    /// How many wait of a priority.
    #[must_use]
    pub fn waiting(&self, priority: Priority) -> usize {
        self.lanes.get(lane(priority)).map_or(0, VecDeque::len)
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
    use super::*;

    fn job(key: &str, priority: Priority) -> Job {
        Job { key: key.into(), cache: CacheId(0), priority, remaining: None, failures: 0 }
    }

    fn keys(queue: &mut Queue) -> Vec<String> {
        std::iter::from_fn(|| queue.pop()).map(|job| String::from_utf8(job.key).unwrap()).collect()
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
            served += usize::from(queue.pop().is_some_and(|job| job.priority == Priority::Low));
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
}
