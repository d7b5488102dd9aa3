//! A comparison now and then, for ever: the daemon watches its own promise.
//!
//! One entry at a time, at a low rate. It removes nothing: what it finds stale is a fault of
//! this program, or of somebody who writes beside the protocol, and must be seen.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tracing::{debug, error};

use super::compare::{CompareError, Comparer, Ground, Verdict};
use crate::metrics::Metrics;
use crate::observed::idle;
use crate::status::Status;
use crate::store::error::StoreError;
use crate::store::scan::Scan;
use crate::store::session::Session;

/// How many steps of a scan one entry is looked for: in a Redis that is mostly others' a
/// step may show none of ours.
const STEPS: usize = 10;

/// How long to wait after Redis or Postgres did not answer. The pipeline tells of it; this
/// need not.
const PAUSE: Duration = Duration::from_secs(5);

/// Compares at a rate.
pub struct Sampler {
    /// What it compares.
    pub ground: Arc<Ground>,
    /// How many entries a second.
    pub per_second: u32,
    /// Where it counts, and what knows why keys were dropped.
    pub status: Arc<Status>,
}

/// A walk through the keys, and the connections for it.
struct Walk {
    session: Session,
    comparer: Comparer,
    scan: Scan,
}

impl Sampler {
    /// Goes on for ever; at once nothing if the rate is 0.
    pub async fn run(self) {
        let Some(period) = Duration::from_secs(1).checked_div(self.per_second) else { return };
        let mut pace = tokio::time::interval(period);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut walk = None;
        loop {
            pace.tick().await;
            let step = match walk.take() {
                Some(walk) => self.step(walk).await,
                None => match self.begin().await {
                    Ok(walk) => self.step(walk).await,
                    Err(error) => Err(error.into()),
                },
            };
            match step {
                Ok(on) => walk = Some(on),
                Err(error) => {
                    debug!(%error, "nothing is compared for a while");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn begin(&self) -> Result<Walk, StoreError> {
        let ground = &self.ground;
        Ok(Walk {
            session: Session::open(&ground.address, ground.keys.clone()).await?,
            comparer: Comparer::open(Arc::clone(ground)).await?,
            scan: Scan::new(ground.mapping.prefixes()),
        })
    }

    async fn step(&self, mut walk: Walk) -> Result<Walk, CompareError> {
        if let Some(key) = self.pick(&mut walk).await? {
            // To compare it is to read it: what Redis knows of others' reads is asked before.
            let observed = &self.metrics().observed;
            let questions = Vec::from_iter(observed.question(&key));
            idle::ask(&mut walk.session.connection(), observed, &questions).await?;
            observed.touched(&key);
            self.compare(&mut walk.comparer, &key).await?;
        }
        Ok(walk)
    }

    /// One of the next keys, by chance. Round and round, so that each has its turn.
    async fn pick(&self, walk: &mut Walk) -> Result<Option<Vec<u8>>, StoreError> {
        let mut connection = walk.session.connection();
        for _ in 0..STEPS {
            match walk.scan.next(&mut connection).await? {
                Some(mut keys) if !keys.is_empty() => {
                    let chosen = fastrand::usize(..keys.len());
                    return Ok(Some(keys.swap_remove(chosen)));
                }
                Some(_) => {}
                None => walk.scan = Scan::new(self.ground.mapping.prefixes()),
            }
        }
        Ok(None)
    }

    async fn compare(&self, comparer: &mut Comparer, key: &[u8]) -> Result<(), CompareError> {
        let compared = match comparer.compare(key).await {
            // One query's matter.
            Err(CompareError::Load(error)) if !error.concerns_all() => {
                debug!(%error, "an entry could not be compared");
                return Ok(());
            }
            compared => compared?,
        };
        let cache = compared.cache.and_then(|id| self.ground.mapping.cache(id));
        let (Some(cache), Some(result)) = (cache, compared.verdict.as_str()) else {
            return Ok(());
        };
        self.metrics().verify.with_label_values(&[&*cache.name, result]).inc();
        if compared.verdict == Verdict::Stale {
            self.status.found_stale();
            let last = self.status.with_drops(|drops| drops.last(key));
            let dropped_at = last.as_ref().map(|drop| drop.lsn.to_string());
            let rule = last.map(|drop| self.ground.mapping.describe(drop.origin.rule));
            error!(
                key = %String::from_utf8_lossy(key),
                cache = %cache.name,
                last_drop_lsn = dropped_at.as_deref().unwrap_or("none is remembered"),
                last_drop_rule = rule.as_deref().unwrap_or("none is remembered"),
                "a cached value is stale: something writes it beside the protocol, or a rule is missing; `unstale verify --all --repair` removes what is stale, `unstale check` finds missing rules"
            );
        }
        Ok(())
    }

    fn metrics(&self) -> &Metrics {
        &self.status.metrics
    }
}
