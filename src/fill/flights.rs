//! One way to a value at a time: readers of one key in this process share what it costs.
//!
//! The first reader of a key opens a *flight*: a task of its own asks Redis, waits for
//! another's lease or takes one, loads, stores. Whoever asks for the key meanwhile comes
//! aboard. The flight is a task so that a reader who goes away (his client hung up) neither
//! strands the others nor leaves a lease behind.
//!
//! # Who may share what
//!
//! A reader must get what he would have got alone: at the least, a value that lacks nothing
//! whose invalidation was applied before he asked. Else somebody who waits for his own write
//! to be applied, and then reads, could be handed a value from before it. So an outcome is only
//! for those who were aboard before the *deciding command* was sent:
//!
//! | outcome | deciding command | why it lacks nothing |
//! |---|---|---|
//! | found in the cache | the acquire that found it | what was applied before it had removed it |
//! | loaded and stored | the *fill* | the fill was accepted, so since the lease nothing was applied to the key; what was before it, the load saw (rules 1 and 4) |
//! | loaded, not stored | the acquire that gave the lease | the snapshot is later, or a standby's that has replayed what was applied then (rule 5) |
//! | loaded without a lease | the load | the snapshot is later, and the primary's |
//! | an error | as without it | |
//!
//! (Of a cache with `on_change = "refresh"` all of them mean: lacks nothing for longer than its
//! `max_staleness`. What a fill stores there may lack what came after its lease, and so may what
//! others read.)
//!
//! The load of a value that is stored may have begun long before its reader asked: that is
//! the point of it. It is the fill that says that the value is still right.
//!
//! "Before it was sent" is counted, not timed: each reader draws a number when he comes
//! aboard, and the flight reads how many were drawn just before it sends the command
//! ([`Pilot::mark`]). Both are steps of one atomic counter, so who is counted has drawn his
//! number, and asked, before. An answer that is still on its way when a reader comes aboard is
//! thus not for him: the fill may have been accepted, and the key removed since.
//!
//! If all readers have gone before there was anything to compute, the flight ends: nobody pays
//! for what nobody waits for. A load that has begun goes on, and is stored for the next one.
//!
//! Whoever was aboard too late is flown again, at once and together with all others of his
//! kind: the second flight's commands are all sent after he asked. So a reader waits for two
//! flights at the most, and a thousand readers at once are two flights, not a thousand.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// What is under way, by key.
pub(super) struct Flights<T> {
    open: Mutex<HashMap<Vec<u8>, Arc<Flight<T>>>>,
}

struct Flight<T> {
    key: Vec<u8>,
    /// How many have come aboard.
    aboard: AtomicU64,
    landed: watch::Sender<Option<Landing<T>>>,
}

struct Landing<T> {
    /// How many of those aboard it is for: the first ones.
    covers: u64,
    outcome: T,
}

/// A reader's place.
pub(super) struct Seat<T> {
    number: u64,
    landed: watch::Receiver<Option<Landing<T>>>,
}

/// The one who flies. If it is dropped, the readers are told.
pub(super) struct Pilot<T> {
    flights: Arc<Flights<T>>,
    flight: Arc<Flight<T>>,
}

/// How many had come aboard at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark(u64);

impl<T: Clone> Flights<T> {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Flights { open: Mutex::default() })
    }

    /// A place in the flight for this key; with it the duty to fly, if there was none.
    pub(super) fn board(self: &Arc<Self>, key: &[u8]) -> (Seat<T>, Option<Pilot<T>>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = open.get(key) {
            let number = flight.aboard.fetch_add(1, Ordering::SeqCst);
            return (Seat { number, landed: flight.landed.subscribe() }, None);
        }
        let (landed, seat) = watch::channel(None);
        let flight = Arc::new(Flight { key: key.to_vec(), aboard: AtomicU64::new(1), landed });
        open.insert(key.to_vec(), Arc::clone(&flight));
        let pilot = Pilot { flights: Arc::clone(self), flight };
        (Seat { number: 0, landed: seat }, Some(pilot))
    }
}

impl<T: Clone> Seat<T> {
    /// Whether this reader opened the flight.
    pub(super) fn is_first(&self) -> bool {
        self.number == 0
    }

    /// The outcome that is for this reader; `None` if the flight ended without one.
    pub(super) async fn outcome(mut self) -> Option<T> {
        let number = self.number;
        let mine = |landing: &Option<Landing<T>>| {
            landing.as_ref().is_some_and(|landing| landing.covers > number)
        };
        let landing = self.landed.wait_for(mine).await.ok()?;
        landing.as_ref().map(|landing| landing.outcome.clone())
    }
}

impl<T> Pilot<T> {
    /// To be read just before a command is sent that may decide.
    pub(super) fn mark(&self) -> Mark {
        Mark(self.flight.aboard.load(Ordering::SeqCst))
    }

    /// The mark up to which everybody has gone away, if nobody is left at all.
    pub(super) fn deserted(&self) -> Option<Mark> {
        let mark = self.mark();
        // Whoever came aboard before the mark and is still there has a receiver.
        (self.flight.landed.receiver_count() == 0).then_some(mark)
    }

    /// Hands the outcome to those who were aboard at that mark. Gives the pilot back if
    /// there are others: they are to be flown again.
    pub(super) fn land(self, Mark(covers): Mark, outcome: T) -> Option<Pilot<T>> {
        let mut open = self.flights.open.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody comes aboard while the lock is held.
        let all = self.flight.aboard.load(Ordering::SeqCst) <= covers;
        if all {
            open.remove(&self.flight.key);
        }
        self.flight.landed.send_replace(Some(Landing { covers, outcome }));
        drop(open);
        (!all).then_some(self)
    }
}

impl<T> Drop for Pilot<T> {
    fn drop(&mut self) {
        let mut open = self.flights.open.lock().unwrap_or_else(PoisonError::into_inner);
        // After a landing for all, somebody else may have opened the next one.
        if open.get(&self.flight.key).is_some_and(|open| Arc::ptr_eq(open, &self.flight)) {
            open.remove(&self.flight.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn flights() -> Arc<Flights<&'static str>> {
        Flights::new()
    }

    #[test]
    fn one_flies_and_all_who_were_aboard_in_time_share_it() {
        let flights = flights();
        let (first, pilot) = flights.board(b"k");
        let (second, none) = flights.board(b"k");
        assert!(none.is_none() && first.is_first() && !second.is_first());
        assert!(flights.board(b"other").1.is_some());
        let pilot = pilot.unwrap();
        let mark = pilot.mark();
        assert!(pilot.land(mark, "value").is_none());
        assert_eq!(first.outcome().now_or_never(), Some(Some("value")));
        assert_eq!(second.outcome().now_or_never(), Some(Some("value")));
        assert!(flights.board(b"k").1.is_some(), "it is over");
    }

    #[test]
    fn who_comes_after_the_deciding_command_is_flown_again() {
        let flights = flights();
        let (first, pilot) = flights.board(b"k");
        let pilot = pilot.unwrap();
        let mark = pilot.mark();
        let (late, _) = flights.board(b"k");
        let pilot = pilot.land(mark, "old").expect("somebody is left");
        assert_eq!(first.outcome().now_or_never(), Some(Some("old")));
        let waiting = late.outcome();
        tokio::pin!(waiting);
        assert_eq!(waiting.as_mut().now_or_never(), None, "the old value is not for him");
        let (later, none) = flights.board(b"k");
        assert!(none.is_none());
        let mark = pilot.mark();
        assert!(pilot.land(mark, "new").is_none());
        assert_eq!(waiting.now_or_never(), Some(Some("new")));
        assert_eq!(later.outcome().now_or_never(), Some(Some("new")));
    }

    #[test]
    fn a_flight_that_ends_by_itself_strands_nobody() {
        let flights = flights();
        let (seat, pilot) = flights.board(b"k");
        drop(pilot);
        assert_eq!(seat.outcome().now_or_never(), Some(None));
        assert!(flights.board(b"k").1.is_some());
    }

    #[test]
    fn a_flight_is_deserted_when_its_last_reader_has_gone() {
        let flights = flights();
        let (first, pilot) = flights.board(b"k");
        let (second, _) = flights.board(b"k");
        let pilot = pilot.unwrap();
        drop(first);
        assert_eq!(pilot.deserted(), None);
        drop(second);
        let gone = pilot.deserted().expect("nobody is left");
        // Who comes aboard after that is flown all the same.
        let (late, none) = flights.board(b"k");
        assert!(none.is_none());
        let pilot = pilot.land(gone, "nothing").expect("somebody is there");
        let mark = pilot.mark();
        assert!(pilot.land(mark, "value").is_none());
        assert_eq!(late.outcome().now_or_never(), Some(Some("value")));
    }

    #[test]
    fn the_end_of_one_flight_leaves_the_next_alone() {
        let flights = flights();
        let (_seat, pilot) = flights.board(b"k");
        let pilot = pilot.unwrap();
        let mark = pilot.mark();
        pilot.land(mark, "value");
        let (_next, pilot) = flights.board(b"k");
        assert!(pilot.is_some() && flights.board(b"k").1.is_none());
    }
}
