//! Making a report: what it needs is asked, what it says is decided by [`super::assemble`].
//!
//! # The window
//!
//! Counters are this process's, and only grow. A report is about what was added to them since the
//! last one that was *kept*; so the windows of those that are kept follow one another without
//! a hole or an overlap, and one that is only looked at leaves no trace. A start begins anew: what
//! the process before had counted since its last report is lost, and the first window says that it
//! begins with the start. What it is compared with is the last one kept, whoever made it: rates,
//! means and sizes can be compared over a restart, counts cannot and are not.
//!
//! # If it goes wrong here
//!
//! What was counted for patterns is taken before the report is kept, and given back if that fails;
//! the metrics' standing is only moved on once it has not. If Redis took it and the answer was
//! lost, the next window overlaps this one: two reports tell of the same time. That
//! harms nobody.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use tracing::info;

use super::assemble::{Material, assemble};
use super::keep::{keep, kept};
use super::model::{Begins, Coverage, Covered, Daemon, OfOrganization, Redis, Report};
use super::names::shown;
use super::recommend::Settings;
use super::standing::Standing;
use crate::config::model::Config;
use crate::manage::coverage::{ByOrganization, by_organization};
use crate::manage::ground::{Ground, ManageError};
use crate::manage::organization::select;
use crate::manage::selection::Request;
use crate::manage::survey::survey;
use crate::moment::Moment;
use crate::rules::Rules;
use crate::status::Status;
use crate::store::session::Session;

/// Of each cache so many entries are looked for at the most, or little more.
const LOOKED_FOR: usize = 100_000;

/// How many organizations are told of which least is cached.
const LEAST: usize = 20;

/// Makes reports of what this process does.
pub struct Reporter {
    config: Arc<Config>,
    status: Arc<Status>,
    serving: ArcSwap<Serving>,
    started: SystemTime,
    baseline: Mutex<Baseline>,
    /// One at a time: each begins where the one before ended.
    one: tokio::sync::Mutex<()>,
}

/// By which rules.
struct Serving {
    rules: Rules,
    /// Whether the read API serves.
    serves: bool,
}

/// What things stood at when the last report was kept.
#[derive(Clone)]
struct Baseline {
    at: Moment,
    begins: Begins,
    standing: Standing,
    redis: HashMap<String, String>,
}

impl Reporter {
    /// At the start of the daemon.
    #[must_use]
    pub fn new(config: Arc<Config>, rules: &Rules, status: Arc<Status>) -> Self {
        let now = SystemTime::now();
        let baseline = Baseline {
            at: Moment::now(),
            begins: Begins::Start,
            standing: Standing::read(&status.metrics),
            redis: HashMap::new(),
        };
        let serving = ArcSwap::from_pointee(Serving::new(&config, rules));
        let (baseline, one) = (Mutex::new(baseline), tokio::sync::Mutex::default());
        Reporter { config, status, serving, started: now, baseline, one }
    }

    /// Other rules are in force.
    pub fn serve(&self, rules: &Rules) {
        self.serving.store(Arc::new(Serving::new(&self.config, rules)));
    }

    /// Makes a report of the time since the last one that was kept, and keeps it if `keeps`. Goes
    /// on to its end if nobody waits for it any more.
    ///
    /// # Errors
    /// If Redis does not answer. (Without Postgres it lacks the coverage, and says so.)
    pub async fn make(self: &Arc<Self>, keeps: bool) -> Result<Report, ManageError> {
        let me = Arc::clone(self);
        let making = tokio::spawn(async move { Box::pin(me.make_here(keeps)).await });
        making.await.unwrap_or_else(|failed| {
            Err(ManageError::Unusable(format!(
                "making the report ended by itself: {failed}; please report the daemon's log"
            )))
        })
    }

    async fn make_here(&self, keeps: bool) -> Result<Report, ManageError> {
        // In shadow mode nothing is written to Redis.
        let keeps = keeps && !self.config.shadow;
        let _one = self.one.lock().await;
        let serving = self.serving.load_full();
        let ground = Ground::new(&self.config, &serving.rules, "unstale report")?;
        let session = ground.redis().await?;
        let history = kept(&mut session.connection(), session.keys()).await?;
        // What takes long comes first.
        let request = Request::default();
        let wanted = ground.mapping().caches().map(|(id, _)| id).collect();
        let selection = select(&ground, &request, &wanted, None)?;
        let held = survey(&ground, &session, &selection, &()).await?;
        let coverage = Box::pin(coverage(&ground, &session)).await;
        let info = session.info().await?;

        let baseline = self.baseline.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let observed = &self.status.metrics.observed;
        let (to, standing) = (Moment::now(), Standing::read(&self.status.metrics));
        let patterns = observed.take();
        // Rules that were loaded in between number things otherwise.
        let mapping = patterns.mapping.clone();
        let mapping = mapping.as_deref().unwrap_or_else(|| ground.mapping());
        let same = mapping.fingerprint() == ground.mapping().fingerprint();
        let since = standing.since(&baseline.standing);
        let settings = Settings {
            max_keys_per_transaction: self.config.pipeline.max_keys_per_transaction,
            warms: self.config.warm.enabled,
            warm_concurrency: self.config.warm.concurrency,
            warm_dropped: since.count("warm_dropped_total", &[]),
        };
        let report = assemble(Material {
            id: id(to.wall()),
            daemon: Daemon {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                slot: ground.slot.clone(),
                started_at: humantime::format_rfc3339_seconds(self.started).to_string(),
                ready: self.status.readiness().ready,
            },
            from: baseline.at,
            to,
            begins: baseline.begins,
            mapping,
            settings,
            serves: serving.serves,
            since: &since,
            patterns: &patterns,
            counted_for: Instant::now().saturating_duration_since(patterns.since),
            blind: observed.why_blind(),
            held: if same { held } else { Default::default() },
            redis: redis(&session, &info, &baseline.redis),
            coverage: coverage.map(|found| told(&ground, &found)).map_err(|e| e.to_string()),
            history: &history,
        });
        if !keeps {
            observed.give_back(patterns);
            return Ok(report);
        }
        if let Err(error) = keep(&mut session.connection(), session.keys(), &report).await {
            observed.give_back(patterns);
            return Err(error.into());
        }
        let next = Baseline { at: to, begins: Begins::Report, standing, redis: info };
        *self.baseline.lock().unwrap_or_else(PoisonError::into_inner) = next;
        info!(
            id = report.id,
            seconds = report.window.seconds,
            regressions = report.regressions.len(),
            recommendations = report.recommendations.len(),
            "a report was made and kept: `unstale report --last 1` shows it"
        );
        Ok(report)
    }
}

impl Serving {
    fn new(config: &Config, rules: &Rules) -> Serving {
        Serving { rules: rules.clone(), serves: config.api.enabled && !rules.endpoints.is_empty() }
    }
}

/// Its name: when it was made, and something that two daemons do not have in common.
fn id(at: SystemTime) -> String {
    let time: String = humantime::format_rfc3339_seconds(at)
        .to_string()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric())
        .collect();
    format!("{time}-{:04x}", fastrand::u16(..))
}

async fn coverage(ground: &Ground, session: &Session) -> Result<ByOrganization, ManageError> {
    let client = ground.postgres().await?;
    by_organization(ground, &client, session, LOOKED_FOR).await
}

fn told(ground: &Ground, found: &ByOrganization) -> Coverage {
    let mut coverage = Coverage {
        sampled: found.sampled,
        organizations: found.organizations.len() as u64,
        ..Coverage::default()
    };
    for (id, share) in &found.caches {
        coverage.expected += share.expected;
        coverage.cached += share.cached;
        if let Some(cache) = ground.mapping().cache(*id) {
            let covered = Covered { expected: share.expected, cached: share.cached };
            coverage.caches.insert(cache.name.to_string(), covered);
        }
    }
    let (whole, mut some): (Vec<_>, Vec<_>) =
        found.organizations.iter().partition(|(_, share)| share.cached >= share.expected);
    coverage.whole = whole.len() as u64;
    // The least part first: a/b < c/d as a*d < c*b.
    some.sort_by(|(a, left), (b, right)| {
        let left_part = u128::from(left.cached) * u128::from(right.expected);
        let right_part = u128::from(right.cached) * u128::from(left.expected);
        left_part.cmp(&right_part).then(right.expected.cmp(&left.expected)).then(a.cmp(b))
    });
    coverage.least = some
        .into_iter()
        .take(LEAST)
        .map(|(id, share)| OfOrganization {
            organization: shown(id.as_bytes()),
            expected: share.expected,
            cached: share.cached,
        })
        .collect();
    coverage
}

/// Redis counts since its own start, too.
fn redis(
    session: &Session,
    now: &HashMap<String, String>,
    before: &HashMap<String, String>,
) -> Redis {
    let number = |info: &HashMap<String, String>, name: &str| info.get(name)?.parse::<u64>().ok();
    let same = before.get("run_id").is_some() && before.get("run_id") == now.get("run_id");
    let since = |name| {
        let then = if same { number(before, name)? } else { return None };
        Some(number(now, name)?.saturating_sub(then))
    };
    Redis {
        version: session.server().version.clone(),
        used_memory: number(now, "used_memory"),
        maxmemory: number(now, "maxmemory").filter(|most| *most > 0),
        maxmemory_policy: now.get("maxmemory_policy").cloned(),
        evicted_keys: since("evicted_keys"),
        keyspace_hits: since("keyspace_hits"),
        keyspace_misses: since("keyspace_misses"),
    }
}
