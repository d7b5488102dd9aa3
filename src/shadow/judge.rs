//! Looking again, once an entry has had its grace. The room's own documentation has the argument.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;
use tracing::{debug, info};

use super::Shadow;
use super::awaiting::{Awaiting, Change, Due, Evidence, Found, Outcome, Sight, compare};
use super::glance::{Glance, Seen};
use crate::audit::compare::has_passed;
use crate::loader::load::{LoadError, Loader};
use crate::mapping::Mapping;
use crate::mapping::changes::Key;
use crate::mapping::model::{CacheId, CacheModel};
use crate::pipeline::end::End;
use crate::status::Status;
use crate::store::fills::NOTHING;

/// How often it is looked whether any is due.
const LOOK: Duration = Duration::from_millis(100);

/// How many entries are judged together: each wait for the watch serves all of them.
const AT_ONCE: usize = 128;

/// How long the watch may take to pass what a comparison saw.
const PATIENCE: Duration = Duration::from_secs(15);

/// When to try again what could not be looked at.
const AGAIN: Duration = Duration::from_secs(1);

/// The task's state.
pub struct Judge {
    /// What waits, and where it is counted.
    pub shadow: Arc<Shadow>,
    /// A connection of its own.
    pub glance: Glance,
    /// What computes the values. It must ask the primary.
    pub loader: Loader,
    /// How many loads a second at the most (`warm.max_per_second`); 0: no limit.
    pub max_per_second: u32,
    /// Which keys are whose.
    pub mapping: Arc<Mapping>,
    /// How far the watch has come.
    pub status: Arc<Status>,
}

/// What comparing an entry with the database gave.
enum Compared {
    /// Whether it is the same value.
    Value(CacheId, bool),
    /// It differs, and might without any change: it may have been stored yesterday.
    OfAnotherDay,
    /// Nothing.
    Not,
}

/// One with the same bytes that are not the database's.
struct Differing {
    due: Due,
    sight: Sight,
    renewed: bool,
}

impl Judge {
    /// Goes on for ever.
    ///
    /// # Errors
    /// None; as a task of the pipeline it could have.
    pub async fn run(mut self) -> Result<(), End> {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            let due = self.shadow.with(|awaiting, _| awaiting.due(Instant::now(), AT_ONCE));
            if !due.is_empty() {
                self.judge(due).await;
            }
        }
    }

    async fn judge(&mut self, due: Vec<Due>) {
        let names: Vec<&[u8]> = due.iter().map(|due| due.key.as_bytes()).collect();
        let Some(looked) = self.glance.look(&names).await else {
            return self.put_back(due);
        };
        let mut differing = Vec::new();
        for (due, seen) in due.into_iter().zip(looked.entries) {
            let found = compare(&due.first, seen.as_ref().map(|seen| &seen.sight), looked.clock);
            match (found, seen) {
                (Found::Ended(outcome), seen) => {
                    if let Some(seen) = seen.filter(|_| outcome == Outcome::Replaced) {
                        self.learn(&due.key, &seen).await;
                    }
                    self.decide(|awaiting| awaiting.ended(&due, outcome));
                }
                (Found::Still { renewed }, Some(Seen { sight, value })) => {
                    match self.evidence(&due.key, &value).await {
                        Evidence::Differs => differing.push(Differing { due, sight, renewed }),
                        evidence => self.conclude(due, sight, renewed, evidence),
                    }
                }
                (Found::Still { .. }, None) => {}
            }
        }
        if !differing.is_empty() {
            self.confirm(differing).await;
        }
    }

    /// They differ from what the database gives. Is that because of the changes that are known?
    async fn confirm(&mut self, differing: Vec<Differing>) {
        let passed = match self.loader.wal_insert().await {
            Ok(seen) => {
                let mut watermarks = self.status.watermarks();
                let passing = watermarks.wait_for(|watermark| has_passed(*watermark, seen));
                matches!(tokio::time::timeout(PATIENCE, passing).await, Ok(Ok(_)))
            }
            Err(error) => {
                debug!(%error, "the WAL's position is not known");
                false
            }
        };
        let names: Vec<&[u8]> = differing.iter().map(|one| one.due.key.as_bytes()).collect();
        let Some(looked) = self.glance.look(&names).await else {
            return self.put_back(differing.into_iter().map(|one| one.due).collect());
        };
        for (one, seen) in differing.into_iter().zip(looked.entries) {
            let now = seen.map(|seen| seen.sight);
            match compare(&one.due.first, now.as_ref(), looked.clock) {
                Found::Ended(outcome) => {
                    self.decide(|awaiting| awaiting.ended(&one.due, outcome));
                }
                Found::Still { .. } => {
                    // Stored anew in between, be it with the same bytes: not what was compared.
                    let same = now == Some(one.sight);
                    let evidence = if passed && same { Evidence::Differs } else { Evidence::None };
                    self.conclude(
                        one.due,
                        now.unwrap_or(one.sight),
                        one.renewed || !same,
                        evidence,
                    );
                }
            }
        }
    }

    /// Whether these bytes are what the database gives. A difference counts where values of the
    /// cache can be compared.
    async fn evidence(&mut self, key: &Key, value: &[u8]) -> Evidence {
        let (cache, equal) = match self.compare(key, value).await {
            Compared::Value(cache, equal) => (cache, equal),
            Compared::OfAnotherDay => return Evidence::Doubtful,
            Compared::Not => return Evidence::None,
        };
        let comparable = self.shadow.with(|_, tally| {
            tally.compared(cache, equal);
            tally.is_comparable(cache)
        });
        match (equal, comparable) {
            (true, _) => Evidence::Equal,
            (false, true) => Evidence::Differs,
            (false, false) => Evidence::None,
        }
    }

    /// Finds out whether values of a cache can be compared, while nobody knows.
    async fn learn(&mut self, key: &Key, seen: &Seen) {
        let tried = |cache: CacheId| self.shadow.with(|_, tally| tally.is_tried(cache));
        let is_tried = self.mapping.cache_of_key(key.as_bytes()).is_some_and(|(id, _)| tried(id));
        if is_tried && let Compared::Value(cache, equal) = self.compare(key, &seen.value).await {
            self.shadow.with(|_, tally| tally.tried(cache, equal));
        }
    }

    async fn compare(&mut self, key: &Key, value: &[u8]) -> Compared {
        match self.try_compare(key, value).await {
            Ok(compared) => compared.unwrap_or(Compared::Not),
            Err(error) => {
                debug!(%error, "an entry is judged by its bytes alone");
                Compared::Not
            }
        }
    }

    async fn try_compare(
        &mut self,
        key: &Key,
        value: &[u8],
    ) -> Result<Option<Compared>, LoadError> {
        let Some((id, cache)) = self.mapping.cache_of_key(key.as_bytes()) else { return Ok(None) };
        let Some(parameters) = parameters(cache, key) else { return Ok(None) };
        let values: Vec<(&str, &str)> =
            parameters.iter().map(|(name, value)| (*name, value.as_str())).collect();
        if let Some(pause) = Duration::from_secs(1).checked_div(self.max_per_second) {
            tokio::time::sleep(pause).await;
        }
        let loaded = self.loader.load(&cache.name, &values).await?;
        let equal = is_equal(value, loaded.as_deref().unwrap_or(NOTHING));
        if !equal && self.is_of_the_day(cache) {
            let yesterday = cache.ttl + 2 * self.shadow.grace();
            if self.loader.since_midnight().await? < yesterday {
                return Ok(Some(Compared::OfAnotherDay));
            }
        }
        Ok(Some(Compared::Value(id, equal)))
    }

    fn is_of_the_day(&self, cache: &CacheModel) -> bool {
        self.loader.parameters(&cache.name).iter().any(|name| name == "timezone")
    }

    fn conclude(&self, due: Due, sight: Sight, renewed: bool, evidence: Evidence) {
        let now = Instant::now();
        self.decide(|awaiting| awaiting.conclude(due, sight, renewed, evidence, now));
    }

    fn put_back(&self, due: Vec<Due>) {
        let at = Instant::now() + AGAIN;
        self.shadow.with(|awaiting, _| due.into_iter().for_each(|due| awaiting.put_back(due, at)));
    }

    fn decide(&self, decision: impl FnOnce(&mut Awaiting) -> Vec<(Key, Change, Outcome)>) {
        let told = self.shadow.decide(&self.status.metrics, decision);
        for (key, change, outcome) in told.iter().filter(|(.., outcome)| outcome.is_missed()) {
            info!(
                %key,
                rule = self.mapping.describe(change.origin.rule),
                operation = change.origin.operation.as_str(),
                lsn = %change.lsn,
                xid = change.xid.0,
                proved = *outcome == Outcome::Stale,
                "the application's own invalidation has missed this entry"
            );
        }
    }
}

fn parameters<'c>(cache: &'c CacheModel, key: &Key) -> Option<Vec<(&'c str, String)>> {
    let parsed = cache.parse_key(key.as_bytes()).filter(|parsed| !parsed.is_generation)?;
    let each = parsed.parameters.into_iter();
    each.map(|(name, value)| Some((name, String::from_utf8(value).ok()?))).collect()
}

/// The same bytes, or the same JSON.
fn is_equal(cached: &[u8], loaded: &[u8]) -> bool {
    let json = |bytes| serde_json::from_slice::<serde_json::Value>(bytes).ok();
    cached == loaded || json(cached).is_some_and(|value| Some(value) == json(loaded))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_compared_by_what_it_says() {
        assert!(is_equal(b"{\"a\":1,\"b\":[2]}", b"{ \"b\": [2], \"a\": 1 }"));
        assert!(!is_equal(b"{\"a\":1}", b"{\"a\":2}"));
        assert!(is_equal(b"\x80pickle", b"\x80pickle"));
        assert!(!is_equal(b"\x80pickle", b"{}"));
        assert!(is_equal(b"null", NOTHING));
    }
}
