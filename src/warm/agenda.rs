//! Which warm-up is due when. Pure: whoever asks says what time it is.
//!
//! There is one at a time, so no two overlap. What somebody orders (the schedule) has its turn in
//! order. What was dropped is urgent: it waits a moment, in
//! which more of it becomes one warm-up, and it interrupts what was ordered, which then
//! begins anew. Drops that follow one another have growing pauses between their warm-ups: a
//! cache that is dropped every second must not have its whole population loaded every second.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::mapping::model::CacheId;

/// How long what was dropped waits.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
/// And how long if it is dropped again and again.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Drops further apart than this have nothing to do with each other.
const CALM: Duration = Duration::from_secs(600);

/// Why a warm-up is due. The names are the label `reason` of `unstale_warm_ups_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The schedule ordered it.
    Schedule,
    /// Everything was dropped.
    Gap,
    /// A whole cache was dropped.
    Drop,
    /// The daemon has started.
    Start,
}

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 4] = [Reason::Schedule, Reason::Gap, Reason::Drop, Reason::Start];

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
    /// What was ordered, in order.
    ordered: VecDeque<(Ticket, Order)>,
    tickets: u64,
    urgent: Option<Urgent>,
    under_way: Option<UnderWay>,
    /// How many urgent ones have followed one another.
    streak: u32,
    /// When the last urgent one was begun.
    last: Option<Instant>,
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
    /// Of what was ordered, unless nobody waits for it any more; `None`: an urgent one.
    ticket: Option<Ticket>,
    withdrawn: bool,
}

/// What an order is known by to who gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

impl Agenda {
    /// Takes an order.
    pub fn order(&mut self, caches: BTreeSet<CacheId>, organization: Option<String>) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let order = Order { reason: Reason::Schedule, caches, organization };
        self.ordered.push_back((ticket, order));
        ticket
    }

    /// Nobody waits for it any more: it is not begun, and not begun anew.
    pub fn withdraw(&mut self, ticket: Ticket) {
        self.ordered.retain(|(waiting, _)| *waiting != ticket);
        if let Some(under_way) = &mut self.under_way {
            under_way.withdrawn |= under_way.ticket == Some(ticket);
        }
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

    /// What comes next. What it gives is under way from then on.
    pub fn next(&mut self, now: Instant) -> Next {
        if let Some(urgent) = self.urgent.take_if(|urgent| urgent.due <= now) {
            self.last = Some(now);
            let Urgent { reason, caches, .. } = urgent;
            return self.begin(Order { reason, caches, organization: None }, None);
        }
        if let Some((ticket, order)) = self.ordered.pop_front() {
            return self.begin(order, Some(ticket));
        }
        self.urgent.as_ref().map_or(Next::Never, |urgent| Next::At(urgent.due))
    }

    /// When what is under way has to make room; `None`: not, as far as is known.
    #[must_use]
    pub fn interrupted_at(&self) -> Option<Instant> {
        self.urgent.as_ref().map(|urgent| urgent.due)
    }

    fn begin(&mut self, order: Order, ticket: Option<Ticket>) -> Next {
        self.under_way = Some(UnderWay { order: order.clone(), ticket, withdrawn: false });
        Next::Now(order)
    }

    /// What was under way has come to its end. Gives the ticket, if it was ordered.
    pub fn done(&mut self) -> Option<Ticket> {
        self.under_way.take()?.ticket
    }

    /// What was under way could not be done: what was dropped is due again, later. Gives the
    /// ticket, if it was ordered: who did may order it again.
    pub fn failed(&mut self, now: Instant, chance: f64) -> Option<Ticket> {
        let UnderWay { order, ticket, .. } = self.under_way.take()?;
        if ticket.is_none() {
            self.urgently(order.reason, order.caches, now, chance);
        }
        ticket
    }

    /// What was under way, if anything, was cut off: it is due again. Says which.
    pub fn cut_off(&mut self, now: Instant) -> Option<Reason> {
        let UnderWay { order, ticket, withdrawn } = self.under_way.take()?;
        let reason = order.reason;
        match (ticket, &mut self.urgent) {
            (Some(_), _) if withdrawn => {}
            (Some(ticket), _) => self.ordered.push_front((ticket, order)),
            (None, Some(waiting)) => waiting.caches.extend(order.caches),
            (None, None) => self.urgent = Some(Urgent { reason, caches: order.caches, due: now }),
        }
        Some(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn caches(ids: &[u16]) -> BTreeSet<CacheId> {
        ids.iter().map(|id| CacheId(*id)).collect()
    }

    fn order(reason: Reason, ids: &[u16]) -> Next {
        Next::Now(Order { reason, caches: caches(ids), organization: None })
    }

    #[test]
    fn orders_have_their_turn_in_order_and_one_at_a_time() {
        let now = Instant::now();
        let mut agenda = Agenda::default();
        let first = agenda.order(caches(&[1, 2]), None);
        let second = agenda.order(caches(&[3]), None);
        assert_eq!(agenda.next(now), order(Reason::Schedule, &[1, 2]));
        assert_eq!(agenda.done(), Some(first));
        assert_eq!(agenda.next(now), order(Reason::Schedule, &[3]));
        assert_eq!(agenda.failed(now, 0.5), Some(second), "who ordered it decides what follows");
        assert_eq!(agenda.next(now), Next::Never);
    }

    #[test]
    fn what_nobody_waits_for_is_not_begun_and_not_begun_anew() {
        let now = Instant::now();
        let mut agenda = Agenda::default();
        let (first, second) = (agenda.order(caches(&[1]), None), agenda.order(caches(&[2]), None));
        agenda.withdraw(second);
        assert_eq!(agenda.next(now), order(Reason::Schedule, &[1]));
        agenda.withdraw(first);
        assert_eq!(agenda.cut_off(now), Some(Reason::Schedule));
        assert_eq!(agenda.next(now), Next::Never);
    }

    #[test]
    fn drops_at_the_same_time_are_one_warm_up_and_a_gap_outweighs_them() {
        let start = Instant::now();
        let mut agenda = Agenda::default();
        assert_eq!(agenda.next(start), Next::Never);
        agenda.urgently(Reason::Drop, caches(&[1]), start, 0.0);
        agenda.urgently(Reason::Drop, caches(&[2]), start + SECOND / 2, 0.0);
        assert_eq!(agenda.next(start + SECOND / 2), Next::At(start + SECOND));
        agenda.urgently(Reason::Gap, caches(&[1, 2, 3]), start + SECOND / 2, 0.0);
        assert_eq!(agenda.next(start + SECOND), order(Reason::Gap, &[1, 2, 3]));
        agenda.done();
        assert_eq!(agenda.next(start + SECOND), Next::Never);
    }

    #[test]
    fn what_is_dropped_again_and_again_is_warmed_ever_less_often() {
        let mut agenda = Agenda::default();
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..12 {
            agenda.urgently(Reason::Drop, caches(&[1]), now, 0.0);
            let Next::At(due) = agenda.next(now) else { panic!("it waits") };
            pauses.push(due - now);
            now = due;
            assert_eq!(agenda.next(now), order(Reason::Drop, &[1]));
            agenda.done();
        }
        assert!(pauses.is_sorted(), "{pauses:?}");
        assert_eq!((pauses[0], pauses[3], pauses[11]), (SECOND, 8 * SECOND, LONGEST_PAUSE));
        agenda.urgently(Reason::Drop, caches(&[1]), now + CALM + SECOND, 0.0);
        assert_eq!(agenda.interrupted_at(), Some(now + CALM + 2 * SECOND), "calm again");
    }

    #[test]
    fn what_is_cut_off_begins_anew_after_what_cut_it_off() {
        let now = Instant::now();
        let mut agenda = Agenda::default();
        let ticket = agenda.order(caches(&[1, 2]), None);
        assert_eq!(agenda.next(now), order(Reason::Schedule, &[1, 2]));
        assert_eq!(agenda.interrupted_at(), None);
        agenda.urgently(Reason::Drop, caches(&[2]), now, 0.0);
        let now = agenda.interrupted_at().unwrap();
        assert_eq!(agenda.cut_off(now), Some(Reason::Schedule));
        assert_eq!(agenda.next(now), order(Reason::Drop, &[2]));
        // A run that ends cuts off, too.
        assert_eq!(agenda.cut_off(now), Some(Reason::Drop));
        agenda.urgently(Reason::Gap, caches(&[1, 2]), now, 0.0);
        assert_eq!(agenda.next(now), order(Reason::Gap, &[1, 2]));
        assert_eq!(agenda.done(), None);
        assert_eq!(agenda.next(now), order(Reason::Schedule, &[1, 2]));
        assert_eq!(agenda.done(), Some(ticket));
        assert_eq!(agenda.cut_off(now), None);
        assert_eq!(agenda.next(now), Next::Never);
    }

    #[test]
    fn what_was_dropped_and_failed_is_due_again_later() {
        let now = Instant::now();
        let mut agenda = Agenda::default();
        agenda.urgently(Reason::Gap, caches(&[1]), now, 0.0);
        assert_eq!(agenda.next(now + SECOND), order(Reason::Gap, &[1]));
        assert_eq!(agenda.failed(now + SECOND, 0.0), None);
        assert_eq!(agenda.next(now + SECOND), Next::At(now + 3 * SECOND));
    }
}
