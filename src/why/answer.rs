//! What the daemon remembers of a key: the answer of `/why`.

use serde::{Deserialize, Serialize};

use super::key::Key;
use crate::mapping::Mapping;
use crate::status::Status;
use crate::status::drops::{Told, ToldWhole};
use crate::status::fills::Fill;
use crate::status::readiness::LastGap;

/// See the module.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Answer {
    /// As Redis has it.
    pub key: String,
    /// `null`: not dropped as far as the daemon remembers.
    pub last_drop: Option<Told>,
    /// The last time that its cache was dropped as a whole.
    pub last_whole_drop: Option<ToldWhole>,
    /// When everything was dropped last.
    pub last_gap: Option<LastGap>,
    /// The last time that this daemon stored it, as far as it remembers.
    #[serde(default)]
    pub last_fill: Option<ToldFill>,
    /// Everything below it is applied.
    pub applied_lsn: String,
    /// Whether the cache can be trusted now.
    pub ready: bool,
}

/// A fill as the admin listener tells it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToldFill {
    /// Seconds since.
    pub age_seconds: f64,
    /// For how long it was stored.
    pub life_seconds: f64,
    /// Its snapshot had everything that was committed below it, and maybe more.
    pub snapshot_lsn: String,
}

impl ToldFill {
    fn new(fill: &Fill) -> ToldFill {
        ToldFill {
            age_seconds: fill.at.elapsed().map_or(0.0, |age| age.as_secs_f64()),
            life_seconds: fill.life.as_secs_f64(),
            snapshot_lsn: fill.snapshot.to_string(),
        }
    }
}

/// The answers about a key, and about its generation's.
#[derive(Debug)]
pub struct Answers {
    /// The key's.
    pub key: Answer,
    /// Of an entry of a scoped cache.
    pub generation: Option<Answer>,
}

impl Answer {
    /// What `status` remembers, in the words of the rules as they are now.
    #[must_use]
    pub fn new(key: String, status: &Status, mapping: &Mapping) -> Answer {
        let bytes = key.as_bytes();
        let cache = mapping.cache_of_key(bytes).map(|(id, _)| id);
        let (last, whole) = status.with_drops(|drops| {
            (drops.last(bytes), cache.and_then(|cache| drops.last_whole(cache)))
        });
        let fill = status.last_fill(bytes);
        let readiness = status.readiness();
        Answer {
            last_drop: last.map(|drop| Told::new(&drop, mapping)),
            last_whole_drop: whole.map(|(reason, drop)| ToldWhole {
                reason: reason.as_str().to_owned(),
                told: Told::new(&drop, mapping),
            }),
            last_gap: readiness.last_gap,
            last_fill: fill.as_ref().map(ToldFill::new),
            applied_lsn: readiness.applied_lsn,
            ready: readiness.ready,
            key,
        }
    }
}

impl Answers {
    /// Both, in the daemon's own process.
    #[must_use]
    pub fn new(key: &Key<'_>, status: &Status, mapping: &Mapping) -> Answers {
        let generation = key.generation.as_ref();
        Answers {
            key: Answer::new(key.full.clone(), status, mapping),
            generation: generation.map(|(key, _)| Answer::new(key.clone(), status, mapping)),
        }
    }
}
