//! Shadow mode (`shadow = true`): looking on, before the switch-over from an application that
//! invalidates by itself, and counting what it misses.
//!
//! Everything runs but removal and fills: changes are streamed, gated and mapped to keys as ever.
//! In the place of the applier stands the [`watch::Watcher`]: it looks at the keys of each batch and
//! remembers those that are there. After the grace (`shadow_grace`) the [`judge::Judge`] looks
//! again. `unstale report --shadow` asks the daemon's admin listener for the counts.
//!
//! # What is written
//!
//! To Redis nothing, not even what is the daemon's own: no state, no certificate, no lease. Only
//! `GET`, `PEXPIRETIME`, `SCAN`, `TIME`, `HGETALL` and `INFO` are ever sent, so a Redis user with
//! read access alone will do. No code that writes is reached: of what the pipeline does
//! to Redis, a run in shadow mode has only [`glance::Glance`], which cannot.
//! Without a state no lease is given, without a certificate nobody trusts what is cached: the read
//! API answers from the database, and fillers by lease store nothing. A state of this slot that is
//! valid was made by a daemon that kept the cache, whose next start would count on a slot that
//! nobody read past its watermark: so shadow mode refuses to run beside one.
//!
//! To Postgres the position that was looked at is confirmed at once. Nothing depends on it: what
//! was not looked at is missing in the counts and nowhere else. So a Redis that is
//! away holds back no WAL; its keys are counted as `skipped`.
//! The first start with `shadow = false` finds no state, and that is a gap: whatever the
//! application has cached is dropped, once.
//!
//! # When is an invalidation missed?
//!
//! Of an entry that is there when the change is seen (it is visible by then: the gate) its bytes'
//! digest and its expiry are kept, not the bytes. When its grace has passed:
//!
//! | what is found | outcome |
//! |---|---|
//! | it was not there in the first place | `absent`: never cached, or removed already |
//! | it is gone | `removed`; `expired` if its life was over by then |
//! | it holds other bytes | `replaced` |
//! | the same bytes, equal to what the database gives now | `current` |
//! | the same bytes, which the database does not give any more | `stale`: missed, and proved |
//! | the same bytes, not comparable, but with another expiry | `renewed`: stored anew, or its life was made longer; not judged |
//! | the same bytes, not comparable | `same_bytes`: missed as far as bytes can tell |
//!
//! *Comparable.* An application may store pickle, or members of its own. So a difference from the
//! query's value proves nothing until a value of that cache has been seen that equals it (as
//! bytes, or as JSON). Until then entries that were replaced are compared, too, a few of each cache.
//!
//! *What is not told apart from a missed one by its bytes alone*: an entry that the application
//! removed and filled again before this daemon looked. It looks within milliseconds. A change
//! that was seen late (`LATE`: after a restart, say) counts only where a comparison proves it, and
//! is `undecided` otherwise; so are the entries of a cache that is concerned as a whole (TRUNCATE,
//! an old value that the replica identity does not carry): some of them are looked for, and
//! nobody knows which of them have really changed.
//!
//! *A change comes during the comparison.* The query's value may show a change that is younger
//! than the bytes that were looked at. So, as in [`crate::audit`]: load, then read the WAL's
//! insert position, wait until the watch has passed it, look again. If the entry is untouched
//! and no further change of its key has come, the difference is due to those that were known.
//!
//! *Changes again within the grace* add to the entry that waits; it is judged once the last
//! one has had its grace, at the latest after twice the grace, and then only those count that
//! have had theirs.
//!
//! # What cannot be seen
//!
//! * Scoped caches: their keys hold a generation, which an application that knows nothing
//!   of Unstale does not write. They are left out, and the report says so.
//! * A value that was read before the change and stored after it, in place of one that was
//!   removed: bytes that were not there at the change are not followed.
//! * What waits is bounded. From half of the bound on, keys are taken by chance, fewer and fewer, and
//!   the others are counted as `skipped`.

pub mod awaiting;
pub mod glance;
pub mod judge;
pub mod report;
pub mod tally;
pub mod watch;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::awaiting::{Awaiting, Change, Outcome};
use self::report::Report;
use self::tally::Tally;
use crate::mapping::Mapping;
use crate::mapping::changes::{Key, Origin};
use crate::metrics::Metrics;

/// How many entries may await their grace. One costs some 200 bytes.
const MOST: usize = 50_000;

/// What is watched and what came of it. It outlives the runs of the pipeline.
pub struct Shadow {
    grace: Duration,
    inner: Mutex<Inner>,
}

struct Inner {
    mapping: Arc<Mapping>,
    awaiting: Awaiting,
    tally: Tally,
}

impl Shadow {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(mapping: Arc<Mapping>, grace: Duration) -> Self {
        Shadow { grace, inner: Mutex::new(Inner::new(mapping, grace)) }
    }

    /// How long the application has.
    #[must_use]
    pub fn grace(&self) -> Duration {
        self.grace
    }

    /// A run begins. Rules and caches of another mapping have other numbers: then all begins anew.
    pub fn begin(&self, mapping: &Arc<Mapping>) {
        let mut inner = self.lock();
        if inner.mapping.fingerprint() != mapping.fingerprint() {
            *inner = Inner::new(Arc::clone(mapping), self.grace);
        }
    }

    /// What `unstale report --shadow` shows.
    #[must_use]
    pub fn report(&self) -> Report {
        let inner = self.lock();
        Report::new(&inner.mapping, &inner.tally, inner.awaiting.len(), self.grace)
    }

    /// Changes may have gone by unseen.
    pub fn hole(&self, reason: &'static str) {
        self.with(|_, tally| tally.hole(reason));
    }

    /// Has something decided about what waits, and counts what became of entries by it: in one step,
    /// so that whoever finds that nothing waits finds all of it counted.
    fn decide(
        &self,
        metrics: &Metrics,
        decision: impl FnOnce(&mut Awaiting) -> Vec<(Key, Change, Outcome)>,
    ) -> Vec<(Key, Change, Outcome)> {
        let inner = &mut *self.lock();
        let told = decision(&mut inner.awaiting);
        for (key, change, outcome) in &told {
            inner.tally.count(key, change, *outcome);
            count_one(metrics, &inner.mapping, change.origin, *outcome);
        }
        let waiting = i64::try_from(inner.awaiting.len()).unwrap_or(i64::MAX);
        metrics.shadow_awaiting.set(waiting);
        told
    }

    /// Counts an entry that was not looked at.
    fn skipped(&self, metrics: &Metrics, origin: Origin) {
        let inner = &mut *self.lock();
        inner.tally.count_way(origin, Outcome::Skipped);
        count_one(metrics, &inner.mapping, origin, Outcome::Skipped);
    }

    fn with<T>(&self, use_it: impl FnOnce(&mut Awaiting, &mut Tally) -> T) -> T {
        let inner = &mut *self.lock();
        use_it(&mut inner.awaiting, &mut inner.tally)
    }

    /// A panic while it was locked leaves a count too low at worst: go on.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count_one(metrics: &Metrics, mapping: &Mapping, origin: Origin, outcome: Outcome) {
    let Some(rule) = mapping.rule(origin.rule) else { return };
    let table = mapping.table_name(rule.table);
    let cache = mapping.cache(rule.cache).map(|cache| &*cache.name).unwrap_or_default();
    let labels = [&*table, origin.operation.as_str(), cache, outcome.as_str()];
    metrics.shadow_keys.with_label_values(&labels).inc();
}

impl Inner {
    fn new(mapping: Arc<Mapping>, grace: Duration) -> Self {
        Inner { mapping, awaiting: Awaiting::new(grace, MOST), tally: Tally::default() }
    }
}
