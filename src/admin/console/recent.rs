//! What was dropped lately, put together for the eye: one line for all keys of a transaction that
//! one rule dropped for one kind of change.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::config::model::Operation;
use crate::mapping::Mapping;
use crate::mapping::model::RuleId;
use crate::status::drops::{Drop, Since, Told};

/// How many remembered drops are looked at in one go: the lock that the pipeline needs is held
/// meanwhile.
pub(super) const LOOKED_AT: usize = 1000;

/// How many lines are sent at once.
const LINES: usize = 100;

/// How many keys a line names.
const NAMED: usize = 2;

/// See the module.
#[derive(Debug, Serialize)]
pub(super) struct Recent {
    /// The latest first.
    lines: Vec<Line>,
    /// Drops beside those that the lines tell of.
    left_out: u64,
}

#[derive(Debug, Serialize)]
struct Line {
    /// Unix time in milliseconds.
    at: u128,
    #[serde(flatten)]
    told: Told,
    /// Why a whole cache was dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    whole: Option<&'static str>,
    /// How many keys.
    keys: u64,
    /// How many of them were there.
    there: u64,
    /// Some of them.
    named: Vec<String>,
}

impl Recent {
    /// `None`: nothing was dropped.
    pub(super) fn new(since: Since, mapping: &Mapping) -> Option<Recent> {
        let Since { keys, whole, mut left_out, .. } = since;
        let mut lines: Vec<Line> = whole
            .iter()
            .map(|(reason, drop)| Line::new(drop, mapping, Some(reason.as_str())))
            .collect();
        let mut by_cause: BTreeMap<(u64, u32, RuleId, Operation), Line> = BTreeMap::new();
        for (key, drop) in &keys {
            let cause = (drop.lsn.0, drop.xid.0, drop.origin.rule, drop.origin.operation);
            let line = by_cause.entry(cause).or_insert_with(|| Line::new(drop, mapping, None));
            line.keys += 1;
            line.there += u64::from(drop.present);
            // Those that were there say more.
            if line.named.len() < NAMED || (drop.present && line.there <= NAMED as u64) {
                let at = if drop.present { 0 } else { line.named.len() };
                line.named.insert(at, String::from_utf8_lossy(key).into_owned());
                line.named.truncate(NAMED);
            }
        }
        lines.extend(by_cause.into_values());
        lines.sort_by_key(|line| std::cmp::Reverse(line.at));
        if lines.len() > LINES {
            left_out += lines.drain(LINES..).map(|line| line.keys.max(1)).sum::<u64>();
        }
        (!lines.is_empty() || left_out > 0).then_some(Recent { lines, left_out })
    }

    /// Of what is remembered from before, that there is more is no news.
    pub(super) fn forget_the_rest(&mut self) {
        self.left_out = 0;
    }
}

impl Line {
    fn new(drop: &Drop, mapping: &Mapping, whole: Option<&'static str>) -> Line {
        Line {
            at: unix_ms(drop.at),
            told: Told::new(drop, mapping),
            whole,
            keys: 0,
            there: 0,
            named: Vec::new(),
        }
    }
}

pub(super) fn unix_ms(at: SystemTime) -> u128 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis())
}
