//! Since when a value is there, and from which snapshot. Purely.
//!
//! Redis does not say it, and nothing is written down for it there (a value's bytes are its cache's,
//! a second key for each would cost every entry what few ask for). The daemon remembers what it has
//! stored itself. That is the value that is there now unless something came after: a removal of the
//! key, of its cache, of everything; or another's fill, which shows in when it expires. Whatever
//! does not fit, the remaining life still tells how old a value is at most.

use serde::Serialize;

use super::answer::{Answer, ToldFill};
use super::stored::Stored;
use crate::mapping::model::CacheModel;

/// What the questions to Redis and to the daemon may lie apart.
const APART: f64 = 2.0;

/// Since when.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Since {
    /// The daemon has stored it.
    Known {
        /// Seconds since.
        age_seconds: f64,
        /// Its snapshot had everything that was committed below it, and maybe more.
        snapshot_lsn: String,
    },
    /// Somebody else has, or it is no longer known.
    AtMost {
        /// Seconds since, at most.
        age_seconds: f64,
    },
}

impl Since {
    pub(super) fn new(
        stored: &Stored,
        cache: Option<&CacheModel>,
        told: Option<&Answer>,
    ) -> Option<Since> {
        let remaining =
            stored.ttl_ms.and_then(|ms| u64::try_from(ms).ok()).filter(|_| stored.present);
        #[expect(clippy::cast_precision_loss, reason = "a life in seconds, to be read")]
        let remaining = remaining? as f64 / 1000.0;
        let cache = cache?;
        let fill = told.and_then(|told| {
            told.last_fill.as_ref().filter(|fill| still_stands(fill, told, cache, remaining))
        });
        Some(match fill {
            Some(fill) => Since::Known {
                age_seconds: fill.age_seconds,
                snapshot_lsn: fill.snapshot_lsn.clone(),
            },
            // A due has shortened its life, so that tells nothing.
            None if cache.max_staleness.is_some() => return None,
            None => Since::AtMost { age_seconds: (cache.ttl.as_secs_f64() - remaining).max(0.0) },
        })
    }
}

fn still_stands(fill: &ToldFill, told: &Answer, cache: &CacheModel, remaining: f64) -> bool {
    let age = fill.age_seconds;
    let drop = told.last_drop.as_ref().filter(|drop| !drop.kept).map(|drop| drop.age_seconds);
    let whole = told.last_whole_drop.as_ref().map(|whole| whole.told.age_seconds);
    let removed = drop.into_iter().chain(whole).any(|removal| removal <= age);
    let expected = fill.life_seconds - age;
    let same_end = (remaining - expected).abs() < APART
        || (cache.max_staleness.is_some() && remaining < expected);
    !removed && same_end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layers;
    use crate::mapping::Mapping;
    use crate::status::drops::Told;

    fn mapping() -> Mapping {
        let toml = include_str!("../../config/unstale.toml");
        Mapping::new(&Layers::text("unstale.toml", toml).load().unwrap().config).unwrap()
    }

    #[test]
    fn what_was_stored_here_is_told_until_anything_came_after() {
        let mapping = mapping();
        let (_, cache) = mapping.cache_by_name("org_data").unwrap();
        let stored = |remaining: i64| Stored::of_life(remaining * 1000);
        let fill =
            ToldFill { age_seconds: 60.0, life_seconds: 3500.0, snapshot_lsn: "0/7".to_owned() };
        let told = Answer {
            key: String::new(),
            last_drop: None,
            last_whole_drop: None,
            last_gap: None,
            last_fill: Some(fill),
            applied_lsn: String::new(),
            ready: true,
        };
        let since =
            |remaining, told: &Answer| Since::new(&stored(remaining), Some(cache), Some(told));
        let known = Since::Known { age_seconds: 60.0, snapshot_lsn: "0/7".to_owned() };
        assert_eq!(since(3440, &told), Some(known.clone()));
        let at_most = Since::AtMost { age_seconds: 100.0 };
        assert_eq!(since(3500, &told), Some(at_most), "another has filled it since");
        let drop = |age_seconds, kept| Told { age_seconds, kept, ..Told::nothing() };
        let after = Answer { last_drop: Some(drop(59.0, false)), ..told.clone() };
        assert_eq!(since(3440, &after), Some(Since::AtMost { age_seconds: 160.0 }));
        let before = Answer { last_drop: Some(drop(61.0, false)), ..told.clone() };
        assert_eq!(since(3440, &before), Some(known.clone()));
        let kept = Answer { last_drop: Some(drop(59.0, true)), ..told };
        assert_eq!(since(3440, &kept), Some(known));
        assert_eq!(Since::new(&Stored::of_life(-2), Some(cache), None), None, "it is not there");
    }
}
