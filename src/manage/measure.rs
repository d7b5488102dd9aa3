//! What a cached value saves: the same entries loaded from the database and read from Redis, in
//! turns.
//!
//! It leaves the cache no worse than it was: what it puts there it fills by lease, as every
//! reader does, and it removes nothing.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use tokio::sync::mpsc;

use super::ground::{Ground, ManageError};
use super::remove::only;
use super::selection::{DAYS, Request};
use crate::fill::filler::{Filler, How, ReadError};
use crate::loader::load::{Bounds, Loader};
use crate::mapping::model::{CacheId, CacheModel};
use crate::metrics::Metrics;
use crate::postgres::client::SqlClient;
use crate::store::fills::Fills;
use crate::warm::population::{Population, Values, Whose};

/// How many times each entry is loaded and read before that counts: connections are made,
/// statements prepared.
const WARM_UP: u32 = 1;

/// Times of some loads, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Times {
    /// The fastest.
    pub min: f64,
    /// The one in the middle.
    pub median: f64,
    /// The slowest.
    pub max: f64,
}

/// What came of one cache.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Measured {
    /// The parameters of the entry that was measured.
    pub entry: serde_json::Map<String, serde_json::Value>,
    /// How large its value is.
    pub bytes: Option<u64>,
    /// From the database.
    pub cold_ms: Option<Times>,
    /// From Redis; `null`: it was not to be had there.
    pub warm_ms: Option<Times>,
    /// The median of the one by that of the other.
    pub speedup: Option<f64>,
    /// Why something is missing.
    pub problem: Option<String>,
}

/// What came of it all.
#[derive(Debug, Default)]
pub struct Measurement {
    /// By cache.
    pub caches: Vec<(String, Measured)>,
    /// Caches that were asked for and cannot be measured, with the reason.
    pub left_out: Vec<(String, &'static str)>,
}

/// By which means.
pub struct Bench {
    filler: Arc<Filler>,
    loader: Loader,
}

impl Bench {
    /// Does not connect yet.
    ///
    /// # Errors
    /// If a cache's query is none.
    pub fn new(ground: &Ground) -> Result<Self, ManageError> {
        let unusable = |reason: String| ManageError::Unusable(reason);
        let loader = || {
            let timeout = ground.statement_timeout;
            let bounds = Bounds { connections: 1, statement_timeout: timeout, wait: timeout };
            Loader::new(&ground.rules, ground.connect.clone(), bounds)
                .map_err(|error| unusable(error.to_string()))
        };
        let filler = Filler::new(
            Fills::new(ground.address.clone(), ground.keys.clone()),
            loader()?,
            Arc::clone(&ground.rules.mapping),
            &ground.key_prefix,
            Metrics::new().map_err(|error| unusable(format!("metrics: {error}")))?,
        );
        Ok(Bench { filler: Arc::new(filler), loader: loader()? })
    }

    /// Measures one entry of each cache, `times` times; `one` is told of each cache.
    ///
    /// # Errors
    /// If Postgres does not answer. What concerns one cache only is told there.
    pub async fn measure(
        &self,
        ground: &Ground,
        request: &Request,
        wanted: impl Iterator<Item = CacheId>,
        times: u32,
        one: impl Fn(&str),
    ) -> Result<Measurement, ManageError> {
        let client = ground.postgres().await?;
        let mut measurement = Measurement::default();
        for id in wanted {
            let Some(cache) = ground.mapping().cache(id) else { continue };
            let left_out = match ground.population(cache)? {
                _ if cache.generation_key.is_some() => {
                    "it is scoped: nobody can list what will be asked of it"
                }
                None => "it has no population in the configuration",
                Some(_) if !ground.rules.queries.contains_key(&*cache.name) => {
                    "it has no query in the configuration"
                }
                Some(population) => {
                    one(&cache.name);
                    match first(ground, &client, cache, &population, request).await? {
                        Some(values) => {
                            let measured = self.entry(id, cache, &values, times).await?;
                            measurement.caches.push((cache.name.to_string(), measured));
                            continue;
                        }
                        None => "its population lists no such entry",
                    }
                }
            };
            measurement.left_out.push((cache.name.to_string(), left_out));
        }
        Ok(measurement)
    }

    async fn entry(
        &self,
        id: CacheId,
        cache: &CacheModel,
        values: &Values,
        times: u32,
    ) -> Result<Measured, ManageError> {
        let mut measured = Measured {
            entry: values
                .iter()
                .map(|(name, value)| (name.clone(), value.as_str().into()))
                .collect(),
            ..Measured::default()
        };
        let values: Vec<(&str, &str)> =
            values.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let (mut cold, mut warm) = (Vec::new(), Vec::new());
        let mut elsewhere = None;
        for turn in 0..times.saturating_add(WARM_UP) {
            let start = Instant::now();
            let loaded = match self.loader.load(&cache.name, &values).await {
                Ok(loaded) => loaded,
                Err(error) if error.concerns_all() => return Err(error.into()),
                Err(error) => {
                    measured.problem = Some(error.to_string());
                    break;
                }
            };
            let took = start.elapsed().as_secs_f64() * 1000.0;
            let Some(value) = loaded else {
                measured.problem = Some("the query gives no row for it".to_owned());
                break;
            };
            measured.bytes = Some(value.len() as u64);
            // The first read fills the entry if need be.
            let start = Instant::now();
            let read = match self.filler.read(id, &values).await {
                Ok(read) => read,
                Err(ReadError::Load(error)) if error.concerns_all() => return Err(error.into()),
                Err(error) => {
                    measured.problem = Some(error.to_string());
                    break;
                }
            };
            let read_in = start.elapsed().as_secs_f64() * 1000.0;
            if turn < WARM_UP {
                continue;
            }
            cold.push(took);
            match read.how {
                How::Hit => warm.push(read_in),
                how => elsewhere = Some(how),
            }
        }
        measured.cold_ms = Times::of(cold);
        measured.warm_ms = Times::of(warm);
        measured.speedup = match (measured.cold_ms, measured.warm_ms) {
            (Some(cold), Some(warm)) if warm.median > 0.0 => Some(cold.median / warm.median),
            _ => None,
        };
        if let Some(how) = elsewhere.filter(|_| measured.warm_ms.is_none()) {
            measured.problem.get_or_insert_with(|| why(how).to_owned());
        }
        Ok(measured)
    }
}

/// Why a value was never read from Redis.
fn why(how: How) -> &'static str {
    match how {
        How::Unleased => {
            "Redis takes no values now: no daemon has made the state valid, or a gap is being dealt with (`unstale status`)"
        }
        How::TooLarge => "it is larger than its cache's max_value_bytes, so it is never stored",
        How::Unstored => "Redis could not be reached, or refused to store it",
        _ => "it changes too fast to be stored",
    }
}

/// The first entry that a population lists for the request; of several numbers of days, 30 if
/// nothing else is said.
async fn first(
    ground: &Ground,
    client: &SqlClient,
    cache: &CacheModel,
    population: &Population,
    request: &Request,
) -> Result<Option<Values>, ManageError> {
    const USUAL: &str = "30";
    let mut only = only(ground, request);
    let enumerated = cache.enumerated.get(DAYS);
    let usual = enumerated.is_some_and(|days| days.iter().any(|days| days == USUAL));
    if request.days.is_none() && usual {
        only.push((DAYS, USUAL.to_owned()));
    }
    let only: Vec<(&str, &str)> = only.iter().map(|(name, value)| (*name, &**value)).collect();
    let whose = Whose {
        organization: request.organization.as_deref(),
        users: if request.user.is_some() { Whose::EVERYBODY } else { 1 },
        user: request.user.as_deref(),
        only: &only,
    };
    let (to, mut from) = mpsc::channel(1);
    // Who has the first listens no more: that ends the listing.
    let listing = async {
        let listed = population.each(client, whose, &to, |values| values).await;
        drop(to);
        listed
    };
    let taking = async move { from.recv().await };
    let (listed, first) = tokio::join!(listing, taking);
    listed?;
    Ok(first)
}

impl Times {
    fn of(mut times: Vec<f64>) -> Option<Self> {
        times.sort_unstable_by(f64::total_cmp);
        Some(Times {
            min: *times.first()?,
            median: *times.get(times.len() / 2)?,
            max: *times.last()?,
        })
    }
}
