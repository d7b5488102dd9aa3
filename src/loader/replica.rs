//! The replica as loads see it: read if it has what is needed, passed over in good time if
//! not. [`super::standby`] decides; here it is asked.
//!
//! A reader never gets an error of the replica, and never waits long for it:
//!
//! * Nobody waits for it to be reached. The first load, and the first after each rest, goes
//!   to the primary and has it reached meanwhile.
//! * What lags is waited for as long as the configuration says (`replica_wait`), and
//!   after one load has waited in vain none waits for a second.
//! * What is down, refuses, or is of another history is left alone for a second, then for
//!   longer and longer, until a load from there succeeds. One line in the log tells of it,
//!   another of its return; `unstale_replica_reads_total` counts.
//! * A server that freezes during a load is found out by the other connection
//!   (IDENTIFY_SYSTEM) within some seconds, however long the query itself may run.
//!
//! All connections to the replica are to one running server: each must have seen the others'
//! among that server's sessions ([`TimelineWatch::is_beside`]). When one of them is lost, all
//! are made anew.

use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use deadpool::managed::{Object, Pool, PoolError, Timeouts};
use prometheus::IntCounterVec;
use tokio::time::timeout;
use tokio_postgres::types::PgLsn;
use tracing::{debug, info, warn};

use super::day::ENDS;
use super::error::LoadError;
use super::load::Bounds;
use super::standby::{Mismatch, Needed, Position, Rests, Verdict, may_begin, may_count};
use super::text::Text;
use super::workers::{Connector, Worker};
use crate::lsn::Lsn;
use crate::metrics::Metrics;
use crate::postgres::conninfo::ConnectOptions;
use crate::postgres::error::PgError;
use crate::postgres::timeline::TimelineWatch;

/// How long a short question may take, or a connection.
const ANSWER: Duration = Duration::from_secs(1);

/// How long it takes until the replica is reached, at the most. Nobody waits for it.
const REACH: Duration = Duration::from_secs(10);

/// How often a long load asks whether the server is still there.
const PULSE: Duration = Duration::from_secs(1);

/// What the way back may take beside the statement itself.
const GRACE: Duration = Duration::from_secs(5);

/// For how long nobody waits for a replica that somebody has just waited for in vain.
const IMPATIENCE: Duration = Duration::from_secs(1);

const POSITION: &str =
    "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.pg_last_wal_replay_lsn(), NULL::int8";

static POSITION_AND_DAY: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.pg_last_wal_replay_lsn(), \
                floor(extract(epoch FROM {ENDS}))::int8"
    )
});

/// A standby that may be read under a lease. Cloning shares it.
#[derive(Clone)]
pub struct Replica(Arc<Shared>);

struct Shared {
    options: ConnectOptions,
    bounds: Bounds,
    reads: IntCounterVec,
    life: Mutex<Life>,
}

/// How it is.
struct Life {
    state: State,
    rests: Rests,
    /// The log says that it is not used.
    told: bool,
    /// Until then nobody waits for it to replay more.
    impatient: Option<Instant>,
}

enum State {
    /// Left alone until then.
    Resting(Instant),
    /// Being reached.
    Reaching,
    Reached(Arc<Link>),
}

/// The connections to one running server.
struct Link {
    watch: TimelineWatch,
    pool: Pool<Connector>,
}

/// What is to be loaded.
pub(super) struct Question<'a> {
    pub(super) cache: &'a str,
    pub(super) sql: &'a str,
    pub(super) values: &'a [Text<'a>],
    pub(super) timezone: &'a str,
}

/// Why the replica was passed over.
#[derive(Debug, thiserror::Error)]
enum Passed {
    #[error("it is being reached")]
    Absent,
    #[error("all connections to it are in use")]
    Busy,
    #[error("it has not replayed what is needed")]
    Behind,
    #[error("{0}")]
    Mismatch(#[from] Mismatch),
    #[error("{0}")]
    Unavailable(String),
    /// The server ended the query so that replay could go on.
    #[error("{0}")]
    Conflict(LoadError),
    #[error("{0}")]
    Failed(LoadError),
}

/// What follows for the loads that come.
enum Consequence {
    None,
    Impatience,
    Rest,
}

/// The values of the label `outcome` of `unstale_replica_reads_total`.
const OUTCOMES: [&str; 7] =
    ["replica", "unavailable", "busy", "behind", "mismatch", "conflict", "failed"];

impl Replica {
    /// Does not connect yet. `bounds.wait`: how long a load waits for it to replay what is
    /// needed, or for a free connection.
    #[must_use]
    pub fn new(options: ConnectOptions, bounds: Bounds, metrics: &Metrics) -> Replica {
        let life = Life {
            state: State::Resting(Instant::now()),
            rests: Rests::default(),
            told: false,
            impatient: None,
        };
        let reads = metrics.replica_reads.clone();
        for outcome in OUTCOMES {
            reads.with_label_values(&[outcome]);
        }
        Replica(Arc::new(Shared { options, bounds, reads, life: Mutex::new(life) }))
    }

    /// The value, if the replica has what is needed; else the primary is to be asked.
    pub(super) async fn load(
        &self,
        question: &Question<'_>,
        needed: &Needed<'_>,
    ) -> Option<Option<Vec<u8>>> {
        let link = self.link();
        let loaded = match &link {
            Some(link) => self.try_load(link, question, needed).await,
            None => Err(Passed::Absent),
        };
        let outcome = loaded.as_ref().map_or_else(Passed::outcome, |_| "replica");
        self.0.reads.with_label_values(&[outcome]).inc();
        match (loaded, link) {
            (Ok(value), _) => {
                self.0.succeeded();
                Some(value)
            }
            (Err(passed), Some(link)) => {
                debug!(cache = question.cache, reason = %passed, "not read from the replica");
                self.0.passed_over(&link, &passed);
                None
            }
            (Err(_), None) => None,
        }
    }

    async fn try_load(
        &self,
        link: &Link,
        question: &Question<'_>,
        needed: &Needed<'_>,
    ) -> Result<Option<Vec<u8>>, Passed> {
        let mut worker = self.worker(link).await?;
        self.until_replayed(&mut worker, question, needed).await?;
        let value = self.alive(link, &mut worker, question).await?;
        // Only now: the answer is about all that was done before.
        let identity = link.watch.identify().await.map_err(unavailable)?;
        may_count(needed, &identity.system_id, identity.timeline)?;
        Ok(value)
    }

    async fn worker(&self, link: &Link) -> Result<Object<Connector>, Passed> {
        let at_once = Timeouts { wait: Some(Duration::ZERO), ..Timeouts::default() };
        let got = match timeout(ANSWER, link.pool.timeout_get(&at_once)).await {
            Ok(Err(PoolError::Timeout(_))) => {
                timeout(self.0.bounds.wait, link.pool.get()).await.map_err(|_| Passed::Busy)?
            }
            Ok(got) => got,
            Err(_) => return Err(Passed::Unavailable(format!("no connection within {ANSWER:?}"))),
        };
        got.map_err(|error| match error {
            PoolError::Backend(error) => unavailable(error),
            error => Passed::Unavailable(error.to_string()),
        })
    }

    /// Waits until the standby has replayed what is needed, or there is no more patience.
    async fn until_replayed(
        &self,
        worker: &mut Worker,
        question: &Question<'_>,
        needed: &Needed<'_>,
    ) -> Result<(), Passed> {
        let patience = self.0.patience();
        let start = Instant::now();
        let mut pause = Duration::from_millis(1);
        loop {
            let asked = position(worker, question, needed);
            let position = timeout(ANSWER, asked)
                .await
                .map_err(|_| Passed::Unavailable(format!("no answer within {ANSWER:?}")))?
                .map_err(unavailable)?;
            match may_begin(needed, &position) {
                Verdict::Load => return Ok(()),
                Verdict::Never(mismatch) => return Err(mismatch.into()),
                Verdict::Wait => {}
            }
            let left = patience.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Err(Passed::Behind);
            }
            tokio::time::sleep(pause.min(left)).await;
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// Loads, and asks beside it whether the server is still there.
    async fn alive(
        &self,
        link: &Link,
        worker: &mut Worker,
        question: &Question<'_>,
    ) -> Result<Option<Vec<u8>>, Passed> {
        let start = Instant::now();
        let limit = self.0.bounds.statement_timeout + GRACE;
        let loading = worker.value(question.cache, question.sql, question.values);
        tokio::pin!(loading);
        loop {
            if let Ok(loaded) = timeout(PULSE, &mut loading).await {
                return loaded.map_err(Passed::by);
            }
            link.watch.identify().await.map_err(unavailable)?;
            if start.elapsed() > limit {
                return Err(Passed::Unavailable(format!("no value within {limit:?}")));
            }
        }
    }

    /// The connections, if there are any; else sees to it that there will be.
    fn link(&self) -> Option<Arc<Link>> {
        let mut life = self.0.life();
        match &life.state {
            State::Reached(link) => return Some(Arc::clone(link)),
            State::Resting(until) if *until <= Instant::now() => {}
            State::Resting(_) | State::Reaching => return None,
        }
        life.state = State::Reaching;
        drop(life);
        let shared = Arc::clone(&self.0);
        tokio::spawn(async move {
            match timeout(REACH, Link::open(&shared.options, shared.bounds)).await {
                Ok(Ok(link)) => shared.life().state = State::Reached(Arc::new(link)),
                Ok(Err(reason)) => shared.rest(&reason),
                Err(_) => shared.rest(&format!("not reached within {REACH:?}")),
            }
        });
        None
    }
}

impl Link {
    async fn open(options: &ConnectOptions, bounds: Bounds) -> Result<Link, String> {
        let watch =
            TimelineWatch::open(options, ANSWER).await.map_err(|error| error.to_string())?;
        let connector = Connector {
            options: options.clone(),
            statement_timeout: bounds.statement_timeout,
            beside: Some(watch.name().to_owned()),
        };
        let pool = Pool::builder(connector).max_size(bounds.connections.max(1)).build();
        let pool = pool.map_err(|error| error.to_string())?;
        // So that a server that lets nobody in is found out here, where nobody waits.
        drop(pool.get().await.map_err(|error| error.to_string())?);
        Ok(Link { watch, pool })
    }
}

impl Shared {
    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn patience(&self) -> Duration {
        let impatient = self.life().impatient.is_some_and(|until| until > Instant::now());
        if impatient { Duration::ZERO } else { self.bounds.wait }
    }

    fn succeeded(&self) {
        let mut life = self.life();
        life.rests = Rests::default();
        life.impatient = None;
        if std::mem::take(&mut life.told) {
            info!("the replica is read again");
        }
    }

    fn passed_over(&self, link: &Arc<Link>, passed: &Passed) {
        match passed.consequence() {
            Consequence::None => {}
            Consequence::Impatience => self.life().impatient = Some(Instant::now() + IMPATIENCE),
            Consequence::Rest => {
                // Many may find it out at once, some of them late.
                let current = matches!(&self.life().state, State::Reached(reached) if Arc::ptr_eq(reached, link));
                if current {
                    self.rest(&passed.to_string());
                }
            }
        }
    }

    fn rest(&self, reason: &str) {
        let mut life = self.life();
        let rest = life.rests.next(fastrand::f64());
        life.state = State::Resting(Instant::now() + rest);
        if std::mem::replace(&mut life.told, true) {
            debug!(reason, ?rest, "the replica still cannot be read");
        } else {
            warn!(
                reason,
                "the replica cannot be read: the primary is, and the replica is tried again now and then; `unstale check` says what is wrong with it"
            );
        }
    }
}

impl Passed {
    /// Of an error that ended the load.
    fn by(error: LoadError) -> Passed {
        let state = match &error {
            LoadError::Postgres { source, .. } => source.sqlstate(),
            _ => None,
        };
        match state {
            // Serialization failure, deadlock: on a standby nothing else gives them (manual,
            // "Handling Query Conflicts").
            Some("40001" | "40P01") => Passed::Conflict(error),
            // Canceled, mostly by its time limit.
            Some("57014") => Passed::Unavailable(error.to_string()),
            _ if error.concerns_all() => Passed::Unavailable(error.to_string()),
            _ => Passed::Failed(error),
        }
    }

    fn consequence(&self) -> Consequence {
        match self {
            Passed::Behind => Consequence::Impatience,
            Passed::Mismatch(Mismatch::OtherDay)
            | Passed::Absent
            | Passed::Busy
            | Passed::Conflict(_)
            | Passed::Failed(_) => Consequence::None,
            Passed::Mismatch(_) | Passed::Unavailable(_) => Consequence::Rest,
        }
    }

    /// The metric's label.
    fn outcome(&self) -> &'static str {
        match self {
            Passed::Absent | Passed::Unavailable(_) => "unavailable",
            Passed::Busy => "busy",
            Passed::Behind => "behind",
            Passed::Mismatch(_) => "mismatch",
            Passed::Conflict(_) => "conflict",
            Passed::Failed(_) => "failed",
        }
    }
}

async fn position(
    worker: &mut Worker,
    question: &Question<'_>,
    needed: &Needed<'_>,
) -> Result<Position, PgError> {
    let row = match needed.day_ends {
        None => worker.row(POSITION, &[]).await?,
        Some(_) => worker.row(&POSITION_AND_DAY, &[Text(question.timezone)]).await?,
    };
    let seconds = |since: i64| Some(UNIX_EPOCH + Duration::from_secs(u64::try_from(since).ok()?));
    let day_ends: Option<SystemTime> = row.try_get::<_, Option<i64>>(2)?.and_then(seconds);
    Ok(Position {
        in_recovery: row.try_get(0)?,
        replayed: row.try_get::<_, Option<PgLsn>>(1)?.map(|at| Lsn(at.into())),
        day_ends,
    })
}

fn unavailable(error: PgError) -> Passed {
    Passed::Unavailable(error.to_string())
}
