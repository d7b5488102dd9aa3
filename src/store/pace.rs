//! How many keys one command of a long walk takes. Pure.
//!
//! Redis does one command after the other, so each command of ours is a wait for everybody else.
//! How long it takes depends on the machine, on what its caches hold, on how many keys are there: a SCAN
//! that looks at 1000 keys takes a quarter of a millisecond on one server and four on
//! another. So it is measured, and the number of keys follows: a command holds Redis for some
//! [`AIM`]; much less would cost Redis more for going back and forth than for the work.
//!
//! What is measured here contains the way there and back, and the wait for others' commands, and
//! for this process' turn. The way is taken off, as the shortest answer told it; of the rest, the
//! shortest of several commands of the same size counts: waits only ever add to it. So a
//! far or a busy Redis does not make the walk crawl, and where the measure is wrong the bounds hold.

use std::time::Duration;

/// How long a command shall hold Redis.
const AIM: Duration = Duration::from_micros(250);

/// The bounds of one command. It begins with the fewest, and never takes fewer: on a machine that
/// starves, each answer is late whatever was asked, and a walk in crumbs would take for ever, with
/// everybody waiting for its end. So many hold no server for a millisecond that is fit for use.
const FEWEST: usize = 250;
const MOST: usize = 1000;

/// So many commands tell what one takes,
const WINDOW: u32 = 16;

/// and so many that it takes far too long.
const ALARM: u32 = 5;

/// The size of the commands of one kind.
#[derive(Debug)]
pub(super) struct Pace {
    keys: usize,
    /// The way there and back: the shortest answer that ever came.
    way: Duration,
    /// The shortest of the commands of this size, and how many there were.
    shortest: Duration,
    seen: u32,
}

impl Pace {
    /// For a Redis whose answer to nothing at all takes so long.
    pub(super) fn new(way: Duration) -> Self {
        Pace { keys: FEWEST, way, shortest: Duration::MAX, seen: 0 }
    }

    /// How many keys the next command takes.
    pub(super) fn keys(&self) -> usize {
        self.keys
    }

    /// The answer to a command of that many keys took so long.
    pub(super) fn took(&mut self, keys: usize, took: Duration) {
        self.way = self.way.min(took);
        // The rest of a batch says nothing of a whole one.
        if keys < self.keys {
            return;
        }
        self.shortest = self.shortest.min(took);
        self.seen += 1;
        let held = self.shortest.saturating_sub(self.way);
        let alarm = self.seen >= ALARM && held >= AIM * 4;
        if self.seen < WINDOW && !alarm {
            return;
        }
        self.keys = match held {
            held if held > AIM * 2 => self.keys / 2,
            held if held > AIM => self.keys - self.keys / 4,
            held if held < AIM / 2 => self.keys + self.keys / 2,
            _ => self.keys,
        }
        .clamp(FEWEST, MOST);
        self.shortest = Duration::MAX;
        self.seen = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAY: Duration = Duration::from_micros(80);

    /// The size after many commands, each of which holds Redis so long for each key.
    fn settled(pace: &mut Pace, nanos_a_key: u64, wait: impl Fn(u64) -> u64) -> usize {
        for number in 0..1000 {
            let keys = pace.keys();
            let held = Duration::from_nanos(nanos_a_key * u64::try_from(keys).unwrap());
            pace.took(keys, WAY + held + Duration::from_micros(wait(number)));
        }
        pace.keys()
    }

    #[test]
    fn a_command_holds_redis_for_about_as_long_as_it_may() {
        for nanos in [300, 500, 700, 900] {
            let keys = settled(&mut Pace::new(WAY), nanos, |_| 0);
            let held = Duration::from_nanos(nanos * u64::try_from(keys).unwrap());
            assert!(held >= AIM / 2 && held <= AIM, "{nanos} ns a key: {keys} keys, {held:?}");
        }
    }

    #[test]
    fn no_server_is_so_fast_or_so_slow_that_the_bounds_do_not_hold() {
        assert_eq!(settled(&mut Pace::new(WAY), 10, |_| 0), MOST);
        assert_eq!(settled(&mut Pace::new(WAY), 100_000, |_| 0), FEWEST);
    }

    #[test]
    fn waits_for_others_do_not_make_it_crawl() {
        let busy = settled(&mut Pace::new(WAY), 300, |number| 700 * (number % 5));
        assert_eq!(busy, settled(&mut Pace::new(WAY), 300, |_| 0));
    }

    #[test]
    fn a_server_that_becomes_slow_soon_gets_smaller_commands() {
        let mut pace = Pace::new(WAY);
        assert_eq!(settled(&mut pace, 10, |_| 0), MOST);
        pace.took(MOST, WAY + Duration::from_millis(4));
        assert_eq!(pace.keys(), MOST, "that may have been somebody else's turn");
        let mut commands = 1;
        while pace.keys() == MOST {
            pace.took(MOST, WAY + Duration::from_millis(4));
            commands += 1;
        }
        assert_eq!(pace.keys(), MOST / 2);
        assert!(commands <= WINDOW + ALARM, "{commands}");
    }

    #[test]
    fn a_batch_that_was_not_full_says_nothing() {
        let mut pace = Pace::new(WAY);
        for _ in 0..100 {
            pace.took(1, WAY);
        }
        assert_eq!(pace.keys(), FEWEST);
    }
}
