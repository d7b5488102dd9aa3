//! The present day of the caches' time zone, by the clock of the server that runs the queries.
//!
//! # When a day begins
//!
//! At the first instant that has its date. That is mostly its midnight, but where the clock changes
//! at night there may be no midnight (Santiago in September: 23:59:59 is followed by 01:00), or
//! two (the Azores and Havana in autumn: 00:59:59 is followed by 00:00 of the same date). Of two
//! Postgres means the later one (`AT TIME ZONE` takes what comes after the change), and a value of the
//! day before would have lived for an hour of the new one. So what lies between the two is taken
//! off: by how much the clock had gone past midnight just before the later one.
//!
//! # How long it lasts
//!
//! The server says how long it lasts still, and what passed since it was asked is taken off
//! ([`Moment`]). Our wall clock is never held against the server's: it may be hours away, and
//! may be set.

use std::time::{Duration, SystemTime};

use crate::moment::Moment;

/// The first instant of the day that an expression gives; `$1` is the time zone.
macro_rules! begins {
    ($day:literal) => {
        concat!(
            "(SELECT twice.later - greatest(interval '0', (twice.later - interval '1 us') \
              AT TIME ZONE $1::text - given.day::timestamp + interval '1 us') FROM (SELECT ",
            $day,
            " AS day) AS given, LATERAL (SELECT given.day::timestamp AT TIME ZONE $1::text AS later) AS twice)"
        )
    };
}

/// When the present day ends; `$1` is the time zone.
pub const ENDS: &str = begins!("(now() AT TIME ZONE $1::text)::date + 1");

/// When it began.
pub const BEGAN: &str = begins!("(now() AT TIME ZONE $1::text)::date");

/// What the primary said of the present day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Day {
    /// When it ends, by the primary's clock: only to be compared with what a standby says of it.
    pub ends: SystemTime,
    /// For how long it still lasted,
    pub left: Duration,
    /// at this moment, or later.
    pub asked: Moment,
}

impl Day {
    /// For how long it still lasts, at the most; zero: it is over.
    #[must_use]
    pub fn left(&self, now: Moment) -> Duration {
        self.left.saturating_sub(now.since(self.asked))
    }
}
