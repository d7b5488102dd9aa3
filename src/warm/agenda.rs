//! Which warm-up is due when. Pure: whoever asks says what time it is.
//!
//! There is one at a time, so no two overlap. What was dropped is urgent: it waits a moment, in
//! which more of it becomes one warm-up, and it interrupts one of the schedule, which then
//! begins anew. Drops that follow one another have growing pauses between their warm-ups: a
//! cache that is dropped every second must not have its whole population loaded every second.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::mapping::model::CacheId;

/// How long what was dropped waits.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
/// And how long if it is dropped again and again.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Drops further apart than this have nothing to do with each other.
const CALM: Duration = Duration::from_secs(600);
/// When one of the schedule that failed is tried again.
const RETRY: Duration = Duration::from_secs(60);
/// By how much a schedule's period varies, to both sides.
const JITTER: f64 = 0.1;

/// Why a warm-up is due. The names are the label `reason` of `unstale_warm_ups_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Its time has come.
    Schedule,
    /// Everything was dropped.
    Gap,
    /// A whole cache was dropped.
    Drop,
    /// The daemon has started.
    Start,
}

impl Reason {
    /// The name in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Schedule => "schedule",
            Reason::Gap => "gap",
            Reason::Drop => "drop",
            Reason::Start => "start",
        }
    }
}

/// A warm-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Why.
    pub reason: Reason,
    /// Of which caches; those that cannot be warmed are passed over.
    pub caches: BTreeSet<CacheId>,
    /// Of this organization alone.
    pub organization: Option<String>,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// This, now. It counts as under way until its end is told.
    Now(Order),
    /// Nothing before then.
    At(Instant),
    /// Nothing that is known of.
    Never,
}

/// What is due when.
#[derive(Debug, Default)]
pub struct Agenda {
    regular: Vec<Regular>,
    urgent: Option<Urgent>,
    under_way: Option<UnderWay>,
    /// How many urgent ones have followed one another.
    streak: u32,
    /// When the last urgent one was begun.
    last: Option<Instant>,
}

#[derive(Debug)]
struct Regular {
    order: Order,
    every: Duration,
    due: Instant,
}

#[derive(Debug)]
struct Urgent {
    reason: Reason,
    caches: BTreeSet<CacheId>,
    due: Instant,
}

#[derive(Debug)]
struct UnderWay {
    order: Order,
    /// Which of the regular ones; `None`: an urgent one.
    regular: Option<usize>,
}

impl Agenda {
    /// Adds a warm-up that is due every so often, for the first time that long from now.
    /// `chance` is between 0 and 1.
    pub fn regularly(
        &mut self,
        every: Duration,
        caches: BTreeSet<CacheId>,
        organization: Option<String>,
        now: Instant,
        chance: f64,
    ) {
        let order = Order { reason: Reason::Schedule, caches, organization };
        self.regular.push(Regular { order, every, due: now + jittered(every, chance) });
    }

    /// These caches have been emptied, or may be empty.
    pub fn urgently(
        &mut self,
        reason: Reason,
        caches: BTreeSet<CacheId>,
        now: Instant,
        chance: f64,
    ) {
        if let Some(waiting) = &mut self.urgent {
            waiting.caches.extend(caches);
            // A gap is about all of them.
            if reason == Reason::Gap {
                waiting.reason = reason;
            }
            return;
        }
        let calm = self.last.is_none_or(|last| now.saturating_duration_since(last) > CALM);
        self.streak = if calm { 0 } else { self.streak.saturating_add(1) };
        let pause = SHORTEST_PAUSE.saturating_mul(1 << self.streak.min(16)).min(LONGEST_PAUSE);
        let due = now + pause.mul_f64(1.0 + chance / 2.0);
        self.urgent = Some(Urgent { reason, caches, due });
    }

    /// What comes next; `chance` is between 0 and 1. What it gives is under way from then on.
    pub fn next(&mut self, now: Instant, chance: f64) -> Next {
        if let Some(urgent) = self.urgent.take_if(|urgent| urgent.due <= now) {
            self.last = Some(now);
            let Urgent { reason, caches, .. } = urgent;
            return self.begin(Order { reason, caches, organization: None }, None);
        }
        let due = self.regular.iter().position(|regular| regular.due <= now);
        if let Some((at, regular)) = due.and_then(|at| Some((at, self.regular.get_mut(at)?))) {
            regular.due = now + jittered(regular.every, chance);
            let order = regular.order.clone();
            return self.begin(order, Some(at));
        }
        let urgent = self.urgent.iter().map(|urgent| urgent.due);
        let dues = self.regular.iter().map(|regular| regular.due).chain(urgent);
        dues.min().map_or(Next::Never, Next::At)
    }

    /// When what is under way has to make room; `None`: not, as far as is known.
    #[must_use]
    pub fn interrupted_at(&self) -> Option<Instant> {
        self.urgent.as_ref().map(|urgent| urgent.due)
    }

    fn begin(&mut self, order: Order, regular: Option<usize>) -> Next {
        self.under_way = Some(UnderWay { order: order.clone(), regular });
        Next::Now(order)
    }

    /// What was under way has come to its end.
    pub fn done(&mut self) {
        self.under_way = None;
    }

    /// What was under way could not be done: it is due again, later.
    pub fn failed(&mut self, now: Instant, chance: f64) {
        let Some(UnderWay { order, regular }) = self.under_way.take() else { return };
        match regular.and_then(|at| self.regular.get_mut(at)) {
            Some(regular) => regular.due = regular.due.min(now + jittered(RETRY, chance)),
            None => self.urgently(order.reason, order.caches, now, chance),
        }
    }

    /// What was under way, if anything, was cut off: it is due again. Says which.
    pub fn cut_off(&mut self, now: Instant) -> Option<Reason> {
        let UnderWay { order, regular } = self.under_way.take()?;
        let reason = order.reason;
        match (regular.and_then(|at| self.regular.get_mut(at)), &mut self.urgent) {
            (Some(regular), _) => regular.due = now,
            (None, Some(waiting)) => waiting.caches.extend(order.caches),
            (None, None) => self.urgent = Some(Urgent { reason, caches: order.caches, due: now }),
        }
        Some(reason)
    }
}

fn jittered(every: Duration, chance: f64) -> Duration {
    every.mul_f64(1.0 - JITTER + 2.0 * JITTER * chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const SECOND: Duration = Duration::from_secs(1);

    fn caches(ids: &[u16]) -> BTreeSet<CacheId> {
        ids.iter().map(|id| CacheId(*id)).collect()
    }

    fn order(reason: Reason, ids: &[u16]) -> Next {
        Next::Now(Order { reason, caches: caches(ids), organization: None })
    }

    /// Two caches every 4 h.
    fn agenda(now: Instant) -> Agenda {
        let mut agenda = Agenda::default();
        agenda.regularly(4 * HOUR, caches(&[1, 2]), None, now, 0.5);
        agenda
    }

    #[test]
    fn what_is_regular_comes_again_and_again_but_not_twice_at_once() {
        let start = Instant::now();
        let mut agenda = agenda(start);
        assert_eq!(agenda.next(start, 0.5), Next::At(start + 4 * HOUR));
        // It takes longer than its period: the next one follows, and nothing piles up.
        let mut now = start + 4 * HOUR;
        for _ in 0..3 {
            assert_eq!(agenda.next(now, 0.5), order(Reason::Schedule, &[1, 2]));
            now += 9 * HOUR;
            agenda.done();
        }
        assert_eq!(agenda.next(now, 0.5), order(Reason::Schedule, &[1, 2]));
        assert_eq!(agenda.next(now, 0.5), Next::At(now + 4 * HOUR));
    }

    #[test]
    fn chance_moves_a_period_by_a_tenth_at_the_most() {
        assert_eq!(jittered(HOUR, 0.0), HOUR.mul_f64(0.9));
        assert_eq!(jittered(HOUR, 1.0), HOUR.mul_f64(1.1));
    }

    #[test]
    fn drops_at_the_same_time_are_one_warm_up_and_a_gap_outweighs_them() {
        let start = Instant::now();
        let mut agenda = Agenda::default();
        assert_eq!(agenda.next(start, 0.0), Next::Never);
        agenda.urgently(Reason::Drop, caches(&[1]), start, 0.0);
        agenda.urgently(Reason::Drop, caches(&[2]), start + SECOND / 2, 0.0);
        assert_eq!(agenda.next(start + SECOND / 2, 0.0), Next::At(start + SECOND));
        agenda.urgently(Reason::Gap, caches(&[1, 2, 3]), start + SECOND / 2, 0.0);
        assert_eq!(agenda.next(start + SECOND, 0.0), order(Reason::Gap, &[1, 2, 3]));
        agenda.done();
        assert_eq!(agenda.next(start + SECOND, 0.0), Next::Never);
    }

    #[test]
    fn what_is_dropped_again_and_again_is_warmed_ever_less_often() {
        let mut agenda = Agenda::default();
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..12 {
            agenda.urgently(Reason::Drop, caches(&[1]), now, 0.0);
            let Next::At(due) = agenda.next(now, 0.0) else { panic!("it waits") };
            pauses.push(due - now);
            now = due;
            assert_eq!(agenda.next(now, 0.0), order(Reason::Drop, &[1]));
            agenda.done();
        }
        assert!(pauses.is_sorted(), "{pauses:?}");
        assert_eq!((pauses[0], pauses[3], pauses[11]), (SECOND, 8 * SECOND, LONGEST_PAUSE));
        agenda.urgently(Reason::Drop, caches(&[1]), now + CALM + SECOND, 0.0);
        assert_eq!(agenda.interrupted_at(), Some(now + CALM + 2 * SECOND), "calm again");
    }

    #[test]
    fn what_is_cut_off_begins_anew_after_what_cut_it_off() {
        let start = Instant::now();
        let mut agenda = agenda(start);
        let now = start + 4 * HOUR;
        assert_eq!(agenda.next(now, 0.5), order(Reason::Schedule, &[1, 2]));
        assert_eq!(agenda.interrupted_at(), None);
        agenda.urgently(Reason::Drop, caches(&[2]), now, 0.0);
        let now = agenda.interrupted_at().unwrap();
        assert_eq!(agenda.cut_off(now), Some(Reason::Schedule));
        assert_eq!(agenda.next(now, 0.5), order(Reason::Drop, &[2]));
        // A run that ends cuts off, too.
        assert_eq!(agenda.cut_off(now), Some(Reason::Drop));
        agenda.urgently(Reason::Gap, caches(&[1, 2]), now, 0.0);
        assert_eq!(agenda.next(now, 0.5), order(Reason::Gap, &[1, 2]));
        agenda.done();
        assert_eq!(agenda.next(now, 0.5), order(Reason::Schedule, &[1, 2]));
        agenda.done();
        assert_eq!(agenda.cut_off(now), None);
        assert_eq!(agenda.next(now, 0.5), Next::At(now + 4 * HOUR));
    }

    #[test]
    fn what_failed_is_due_again_later() {
        let start = Instant::now();
        let mut agenda = agenda(start);
        let now = start + 4 * HOUR;
        agenda.next(now, 0.5);
        agenda.failed(now, 0.5);
        assert_eq!(agenda.next(now, 0.5), Next::At(now + RETRY));
        agenda.urgently(Reason::Gap, caches(&[1]), now, 0.0);
        assert_eq!(agenda.next(now + SECOND, 0.5), order(Reason::Gap, &[1]));
        agenda.failed(now + SECOND, 0.0);
        assert_eq!(agenda.next(now + SECOND, 0.5), Next::At(now + 3 * SECOND));
    }
}
