//! The whole answer: as JSON for machines, as text for people.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::answer::{Answers, ToldFill};
use super::key::Key;
use super::since::Since;
use super::stored::Stored;
use crate::mapping::Mapping;
use crate::status::drops::{Told, ToldWhole};
use crate::status::readiness::LastGap;

/// The whole answer.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    key: &'a str,
    /// `null`: no cache of the configuration has such keys.
    cache: Option<&'a str>,
    parameters: serde_json::Map<String, serde_json::Value>,
    /// The rules that can drop it.
    rules: Vec<String>,
    /// `null`: Redis did not answer.
    redis: Option<Stored>,
    /// Since when the value is there; `null`: it is not, or nothing tells.
    since: Option<Since>,
    /// `null`: no daemon answered.
    daemon: Option<Remembered>,
    /// Of an entry of a scoped cache: the generation that it is of, and its key.
    generation: Option<Generation<'a>>,
}

#[derive(Debug, Serialize)]
struct Remembered {
    ready: bool,
    applied_lsn: String,
    /// Of an entry of a scoped cache: the last time that its scope got a new generation.
    last_drop: Option<Told>,
    last_whole_drop: Option<ToldWhole>,
    last_gap: Option<LastGap>,
    last_fill: Option<ToldFill>,
}

#[derive(Debug, Serialize)]
struct Generation<'a> {
    key: &'a str,
    of_entry: &'a str,
}

impl<'a> Report<'a> {
    /// Puts together what each of them knows.
    #[must_use]
    pub fn new(
        key: &'a Key<'a>,
        mapping: &Mapping,
        told: Option<Answers>,
        redis: Option<Stored>,
    ) -> Self {
        let cache = key.cache.map(|cache| &*cache.name);
        let rules = cache.and_then(|cache| mapping.cache_by_name(cache)).map(|(id, _)| {
            let reaching = mapping.rules().filter(|(_, rule)| rule.cache == id);
            reaching.map(|(rule, _)| mapping.describe(rule)).collect()
        });
        let of_key = told.as_ref().map(|told| &told.key);
        let since = redis.as_ref().and_then(|stored| Since::new(stored, key.cache, of_key));
        let daemon = told.map(|Answers { key, generation }| Remembered {
            ready: key.ready,
            applied_lsn: key.applied_lsn,
            last_drop: generation.and_then(|generation| generation.last_drop).or(key.last_drop),
            last_whole_drop: key.last_whole_drop,
            last_gap: key.last_gap,
            last_fill: key.last_fill,
        });
        Report {
            key: &key.full,
            cache,
            parameters: key
                .parameters
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.as_str().into()))
                .collect(),
            rules: rules.unwrap_or_default(),
            redis,
            since,
            daemon,
            generation: key.generation.as_ref().map(|(key, of_entry)| Generation { key, of_entry }),
        }
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.key)?;
        match self.cache {
            Some(cache) => {
                write!(f, "  cache       {cache}")?;
                for (name, value) in &self.parameters {
                    write!(f, " {name}={}", value.as_str().unwrap_or_default())?;
                }
                writeln!(f)?;
            }
            None => writeln!(f, "  cache       none: no cache of the configuration has such keys")?,
        }
        if let Some(stored) = &self.redis {
            stored.fmt(f, self.since.as_ref(), self.generation.as_ref())?;
        }
        if let Some(daemon) = &self.daemon {
            daemon.fmt(f)?;
        }
        for (at, rule) in self.rules.iter().enumerate() {
            let label = if at == 0 { "dropped by" } else { "" };
            writeln!(f, "  {label:<11} {rule}")?;
        }
        Ok(())
    }
}

impl Stored {
    fn fmt(
        &self,
        f: &mut fmt::Formatter<'_>,
        since: Option<&Since>,
        generation: Option<&Generation<'_>>,
    ) -> fmt::Result {
        match (self.present, self.ttl_ms) {
            (true, Some(ms)) => writeln!(f, "  in Redis    yes, lives {} more", Age::ms(ms))?,
            (true, None) => writeln!(f, "  in Redis    yes, without expiry")?,
            (false, _) => writeln!(f, "  in Redis    no")?,
        }
        if let Some(since) = since {
            since.fmt(f)?;
        }
        if let Some(ms) = self.due_in_ms {
            let due = Age::ms(ms);
            writeln!(
                f,
                "  due         in {due}: it may lack a change, and goes unless it is refreshed"
            )?;
        }
        if let Some(Generation { key, of_entry }) = generation {
            match &self.generation {
                Some(now) if now == of_entry => {
                    writeln!(f, "  generation  {now}, the present one")?
                }
                Some(now) => writeln!(
                    f,
                    "  generation  {of_entry}, the present one is {now}: nobody reads this entry any more ({key})"
                )?,
                None => writeln!(f, "  generation  {of_entry}, the scope has none now ({key})")?,
            }
        }
        match self.lease_ttl_ms {
            Some(ms) => writeln!(f, "  lease       taken, expires in {}", Age::ms(ms))?,
            None => writeln!(f, "  lease       none")?,
        }
        let watermark = self.watermark.as_deref().unwrap_or("?");
        match (self.valid, self.certified) {
            (Some(true), true) => writeln!(f, "  state       fresh up to LSN {watermark}"),
            (Some(true), false) => writeln!(
                f,
                "  state       applied up to LSN {watermark}, but no daemon certifies it now: it may be stale"
            ),
            (Some(false), _) => writeln!(f, "  state       invalid: everything is being dropped"),
            (None, _) => writeln!(f, "  state       none: no daemon has kept this Redis fresh yet"),
        }
    }
}

impl Remembered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.last_drop {
            Some(drop) => {
                let there = match (drop.present, drop.kept) {
                    (true, true) => "it stayed until it was refreshed, or due",
                    (true, false) => "it was there",
                    (false, _) => "it was not there",
                };
                let what = if drop.kept { "last change" } else { "last drop" };
                writeln!(f, "  {what:<11} {drop}; {there}")?;
            }
            None => writeln!(f, "  last drop   none that the daemon remembers")?,
        }
        if let Some(drop) = &self.last_whole_drop {
            let ToldWhole { reason, told } = drop;
            writeln!(f, "  whole cache {told}; as a whole because of {reason}")?;
        }
        if let Some(LastGap { at, reason }) = &self.last_gap {
            let since = UNIX_EPOCH
                .checked_add(Duration::from_secs(*at))
                .and_then(|at| SystemTime::now().duration_since(at).ok());
            let age = Age(since.unwrap_or_default());
            writeln!(f, "  last gap    {age} ago: everything was dropped ({reason})")?;
        }
        Ok(())
    }
}

impl Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let age = |seconds| Age(Duration::try_from_secs_f64(seconds).unwrap_or_default());
        match self {
            Since::Known { age_seconds, snapshot_lsn } => writeln!(
                f,
                "  stored      {} ago by the daemon, from a snapshot at LSN {snapshot_lsn} or later",
                age(*age_seconds)
            ),
            Since::AtMost { age_seconds } => writeln!(
                f,
                "  stored      at most {} ago, as its TTL tells; not by this daemon since its start, as far as it remembers",
                age(*age_seconds)
            ),
        }
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Told { operation, table, xid, lsn, rule, .. } = self;
        let age = Age(Duration::try_from_secs_f64(self.age_seconds).unwrap_or_default());
        write!(f, "{age} ago: {operation} of {table}, xid {xid}, LSN {lsn}; by {rule}")
    }
}

/// A span of time, as precise as one wants to read it.
struct Age(Duration);

impl Age {
    fn ms(ms: i64) -> Self {
        Age(Duration::from_millis(ms.unsigned_abs()))
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < Duration::from_secs(60) {
            write!(f, "{:.1}s", self.0.as_secs_f64())
        } else {
            humantime::format_duration(Duration::from_secs(self.0.as_secs())).fmt(f)
        }
    }
}
