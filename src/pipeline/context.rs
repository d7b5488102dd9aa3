//! What every run needs, and what it makes of it.

use std::sync::Arc;
use std::time::Duration;

use super::chain::LONGEST_PAUSE;
use super::end::End;
use super::heartbeat::Heartbeat;
use super::points::Points;
use super::without::Without;
use crate::audit::compare::Ground;
use crate::audit::sampler::Sampler;
use crate::config::model::Config;
use crate::fill::filler::Filler;
use crate::fill::held::Held;
use crate::fill::loading::Loading;
use crate::loader::load::{Bounds, Loader};
use crate::loader::replica::Replica;
use crate::manage;
use crate::postgres::conninfo::ConnectOptions;
use crate::postgres::error::PgError;
use crate::report::reporter::Reporter;
use crate::rules::Rules;
use crate::schedule::attend::{Means, Schedule};
use crate::shadow::Shadow;
use crate::shadow::glance::Glance;
use crate::shadow::judge::Judge;
use crate::status::Status;
use crate::store::fills::Fills;
use crate::store::keys::ControlKeys;
use crate::store::session::Address;
use crate::warm::Warming;

/// What every run needs.
pub struct Context {
    /// The settings.
    pub config: Arc<Config>,
    /// Where Postgres is.
    pub connect: ConnectOptions,
    /// Where a replica is that may be read, if there is one.
    pub replica: Option<ConnectOptions>,
    /// Where Redis is.
    pub address: Address,
    /// What depends on what.
    pub rules: Rules,
    /// What is known.
    pub status: Arc<Status>,
    /// What this process holds of the cache itself.
    pub held: Arc<Held>,
    /// What this process loads.
    pub loading: Arc<Loading>,
    /// What waits to be filled: it outlives the runs.
    pub warming: Warming,
    /// What is done now and then.
    pub schedule: Schedule,
    /// What makes reports.
    pub reporter: Arc<Reporter>,
    /// In shadow mode: what is watched.
    pub shadow: Option<Arc<Shadow>>,
    /// Nothing, but in tests.
    pub without: Without,
    /// Nowhere, but in tests.
    pub points: Points,
}

impl Context {
    /// Whether there is a read API. Without one nothing is held.
    pub(crate) fn serves(&self) -> bool {
        self.config.api.enabled && !self.rules.endpoints.is_empty()
    }

    /// Whether anything is held: not in shadow mode, where nothing tells what has changed.
    pub(super) fn holds(&self) -> bool {
        self.serves() && self.shadow.is_none()
    }

    fn bounds(&self, connections: usize) -> Bounds {
        let statement_timeout = self.config.postgres.statement_timeout.get();
        Bounds { connections, statement_timeout, wait: statement_timeout }
    }

    fn loader(&self, bounds: Bounds) -> Result<Loader, End> {
        self.loader_by(self.connect.clone(), bounds)
    }

    fn loader_by(&self, connect: ConnectOptions, bounds: Bounds) -> Result<Loader, End> {
        Loader::new(&self.rules, connect, bounds).map_err(|error| End::Hopeless(error.to_string()))
    }

    /// The same, which reads the replica where it may. Only for those who load under a lease.
    fn loader_for_fills(&self, bounds: Bounds) -> Result<Loader, End> {
        let of_replica = Bounds::of_replica(bounds.connections, &self.config.postgres);
        let metrics = &self.status.metrics;
        let replica = |options: &ConnectOptions| Replica::new(options.clone(), of_replica, metrics);
        Ok(self.loader(bounds)?.with_replica(self.replica.as_ref().map(replica)))
    }

    /// What compares cached entries with the database now and then.
    pub(super) fn sampler(&self) -> Result<Sampler, End> {
        // In the server's log and its list of who is there it is not taken for a fill.
        let name = format!("{} audit", self.connect.application_name());
        let connect = self.connect.clone().with_application_name(&name);
        let ground = Ground {
            loader: self.loader_by(connect, self.bounds(1))?,
            mapping: Arc::clone(&self.rules.mapping),
            address: self.address.clone(),
            keys: ControlKeys::new(&self.config.postgres.slot),
            key_prefix: self.config.redis.key_prefix.clone(),
        };
        Ok(Sampler {
            ground: Arc::new(ground),
            per_second: self.config.audit.per_second,
            status: Arc::clone(&self.status),
        })
    }

    /// What is done now and then.
    pub(super) fn scheduled(&self) -> Result<impl Future<Output = ()> + Send + 'static, End> {
        let ground = manage::ground::Ground::new(&self.config, &self.rules, "unstale schedule");
        let means = Means {
            ground: ground.map_err(|error| End::Hopeless(error.to_string()))?,
            warm_ups: self.warming.warm_ups.clone(),
            held: Arc::clone(&self.held),
            metrics: self.status.metrics.clone(),
            reporter: Arc::clone(&self.reporter),
        };
        Ok(self.schedule.clone().run(means))
    }

    /// What writes a sign of life to the WAL now and then.
    pub(super) fn heartbeat(&self) -> Heartbeat {
        let postgres = &self.config.postgres;
        Heartbeat {
            connect: self.connect.clone(),
            timeout: postgres.statement_timeout.get(),
            interval: postgres.heartbeat.get(),
            status: Arc::clone(&self.status),
        }
    }

    /// What looks again at the entries that are watched.
    pub(super) async fn judge(&self, shadow: &Arc<Shadow>) -> Result<Judge, End> {
        let keys = ControlKeys::new(&self.config.postgres.slot);
        let (address, status) = (self.address.clone(), Arc::clone(&self.status));
        Ok(Judge {
            shadow: Arc::clone(shadow),
            glance: Glance::open(address, keys, Arc::clone(&status)).await?,
            loader: self.loader(self.bounds(1))?,
            max_per_second: self.config.warm.max_per_second,
            mapping: Arc::clone(&self.rules.mapping),
            status,
        })
    }

    /// The way in which this daemon fills the cache itself.
    pub(super) fn filler(&self) -> Result<Filler, End> {
        self.filler_within(self.bounds(self.config.warm.concurrency))
    }

    /// Another one, with bounds of its own.
    pub(crate) fn filler_within(&self, bounds: Bounds) -> Result<Filler, End> {
        let loader = self.loader_for_fills(bounds)?;
        let keys = ControlKeys::new(&self.config.postgres.slot);
        Ok(Filler::new(
            Fills::new(self.address.clone(), keys),
            loader,
            Arc::clone(&self.rules.mapping),
            &self.config.redis.key_prefix,
            self.status.metrics.clone(),
        )
        .beside(&self.loading)
        .remembering(&self.status))
    }

    /// The longest that a loop of the pipeline waits for one thing: an answer of Postgres, or
    /// one of Redis and the pause after it.
    #[must_use]
    pub fn longest_wait(&self) -> Duration {
        let postgres = self.config.postgres.statement_timeout.get() + Duration::from_secs(5);
        postgres.max(self.config.redis.timeout.get() + LONGEST_PAUSE)
    }

    /// Waits for an answer, but not for ever: a server that froze in the middle of a start
    /// must not freeze the daemon with it.
    pub(super) async fn answered<T>(
        &self,
        question: impl Future<Output = Result<T, PgError>>,
    ) -> Result<T, End> {
        let patience = self.config.postgres.statement_timeout.get() + Duration::from_secs(5);
        match tokio::time::timeout(patience, question).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(End::Again(format!("Postgres did not answer within {patience:?}"))),
        }
    }
}
