//! `unstale warm`

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use serde_json::json;

use super::output::{error, line, warn_on_stderr};
use super::progress::Bar;
use super::{Common, Exit, runtime};
use crate::config::model::Config;
use crate::daemon::{connect_options, replica_options};
use crate::fill::filler::Filler;
use crate::loader::load::{Bounds, Loader};
use crate::loader::replica::Replica;
use crate::manage::selection::DAYS;
use crate::mapping::model::CacheId;
use crate::metrics::Metrics;
use crate::postgres::client::SqlClient;
use crate::postgres::conninfo::ConnectOptions;
use crate::rules::Rules;
use crate::store::error::StoreError;
use crate::store::fills::Fills;
use crate::store::keys::ControlKeys;
use crate::store::session::{Address, Session};
use crate::warm::filling::Filling;
use crate::warm::once::{self, Counts, Plan, Warmed};
use crate::warm::population::Whose;
use crate::warm::turns::Turns;

/// Fill the entries that are not there
///
/// Which there should be is said by each cache's `population`: by default the entries of all
/// active organizations and of their users who logged in last. It fills by lease, highest priority
/// first, and never stores what is older than what the daemon has removed.
#[derive(Debug, Args)]
pub(super) struct WarmCommand {
    /// all, strategic, api, user, or a cache's name
    #[arg(long, value_name = "TYPE", default_value = "all")]
    cache_type: String,
    /// Only this organization, by its name or id, be it active or not
    #[arg(long, value_name = "NAME-or-ID")]
    organization: Option<String>,
    /// Only this user, by id; of the caches only those of users
    #[arg(long, value_name = "ID", conflicts_with = "users")]
    user_id: Option<String>,
    /// Of the entries that go by days only those of so many; the others are filled all the same
    #[arg(long, value_name = "N")]
    days: Option<u32>,
    /// Of each organization at most so many users, those who logged in last [default: warm.users]
    #[arg(long, value_name = "N")]
    users: Option<u32>,
    /// Say which caches are left out, and why
    #[arg(long)]
    verbose: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

impl WarmCommand {
    pub(super) fn execute(&self, common: &Common) -> Exit {
        match self.try_execute(common) {
            Ok(exit) | Err(exit) => exit,
        }
    }

    fn try_execute(&self, common: &Common) -> Result<Exit, Exit> {
        let loaded = common.load()?;
        let rules = common.rules(&loaded)?;
        let wanted = rules.mapping.select(&self.cache_type).map_err(|reason| {
            error(&format!("--cache-type: {reason}"));
            Exit::Usage
        })?;
        let (wanted, others) = self.of_the_user(&rules, wanted);
        let mut plan =
            Plan::new(&rules, &wanted).map_err(|reason| unusable(&reason.to_string()))?;
        plan.left_out.extend(others);
        let means = Means::new(&loaded.config, &rules)?;
        if self.verbose {
            for (cache, reason) in &plan.left_out {
                warn_on_stderr(&format!("{cache} is left out: {reason}"));
            }
        }
        let start = Instant::now();
        let warmed =
            runtime()?.block_on(Box::pin(self.warm(&loaded.config, &rules, &plan, means)))?;
        Ok(self.tell(&plan, &warmed, start.elapsed().as_secs_f64()))
    }

    /// If one user is meant, the caches that are a user's, and those that are not.
    fn of_the_user(
        &self,
        rules: &Rules,
        wanted: BTreeSet<CacheId>,
    ) -> (BTreeSet<CacheId>, Vec<(String, &'static str)>) {
        if self.user_id.is_none() {
            return (wanted, Vec::new());
        }
        let mapping = &rules.mapping;
        let user = mapping.user_parameter();
        let (mut users, mut others) = (BTreeSet::new(), Vec::new());
        for (id, cache) in mapping.caches().filter(|(id, _)| wanted.contains(id)) {
            if cache.template.parameters().any(|parameter| parameter == user) {
                users.insert(id);
            } else {
                others.push((cache.name.to_string(), "its keys name no user"));
            }
        }
        (users, others)
    }

    async fn warm(
        &self,
        config: &Config,
        rules: &Rules,
        plan: &Plan,
        means: Means,
    ) -> Result<Warmed, Exit> {
        accepts_fills(&means).await?;
        let unreachable = |reason| {
            error(&format!("{reason}"));
            Exit::from(&reason)
        };
        let timeout = config.postgres.statement_timeout.get();
        let client =
            SqlClient::connect_read_only(&means.connect, timeout).await.map_err(unreachable)?;
        let days = self.days.map(|days| days.to_string());
        let user = self.user_id.as_deref().map(|user| (rules.mapping.user_parameter(), user));
        let days = days.as_deref().map(|days| (DAYS, days));
        let only: Vec<(&str, &str)> = user.into_iter().chain(days).collect();
        let users = self.users.unwrap_or(config.warm.users);
        let whose = Whose {
            organization: self.organization.as_deref(),
            users: if self.user_id.is_some() { Whose::EVERYBODY } else { users },
            user: self.user_id.as_deref(),
            only: &only,
        };
        let turns = Turns::new(&config.warm);
        let means = once::Means {
            filling: &Filling::new(means.filler),
            client: &client,
            turns: &turns,
            workers: config.warm.concurrency,
            patient: false,
        };
        plan.run(means, whose, &Bar::new("warming")).await.map_err(unreachable)
    }

    fn tell(&self, plan: &Plan, warmed: &Warmed, seconds: f64) -> Exit {
        let mut total = Counts::default();
        for (_, counts) in &warmed.caches {
            total += *counts;
        }
        if self.json {
            let caches: serde_json::Map<_, _> =
                warmed.caches.iter().map(|(name, counts)| (name.clone(), json!(counts))).collect();
            let left_out: serde_json::Map<_, _> =
                plan.left_out.iter().map(|(name, why)| (name.clone(), json!(why))).collect();
            let all =
                json!({"total": total, "caches": caches, "left_out": left_out, "seconds": seconds});
            line(&all.to_string());
        } else {
            print(warmed, total, seconds);
        }
        for failure in &warmed.failures {
            warn_on_stderr(&format!("error: {failure}"));
        }
        if let Some(user) = self.user_id.as_deref().filter(|_| total.is_empty()) {
            error(&format!(
                "there is nothing to warm for the user {user:?}: give an id; a user of an organization that is not active needs --organization, too"
            ));
            return Exit::Failed;
        }
        if let Some(organization) = self.organization.as_deref().filter(|_| total.is_empty()) {
            error(&format!(
                "there is nothing to warm for the organization {organization:?}: give its exact name or its id"
            ));
            return Exit::Failed;
        }
        if total.failed > 0 { Exit::Failed } else { Exit::Done }
    }
}

/// What it is done with, as far as it needs no server.
struct Means {
    connect: ConnectOptions,
    address: Address,
    keys: ControlKeys,
    filler: Filler,
}

impl Means {
    fn new(config: &Config, rules: &Rules) -> Result<Means, Exit> {
        // Redis' client takes the process's provider.
        _ = rustls::crypto::ring::default_provider().install_default();
        let wrong = |reason: String| unusable(&reason);
        let connect = connect_options(config).map_err(wrong)?.with_application_name("unstale warm");
        let address = Address::new(&config.redis).map_err(|e| wrong(e.to_string()))?;
        let keys = ControlKeys::new(&config.postgres.slot);
        let timeout = config.postgres.statement_timeout.get();
        let bounds = Bounds {
            connections: config.warm.concurrency,
            statement_timeout: timeout,
            wait: timeout,
        };
        let metrics = Metrics::new().map_err(|e| wrong(format!("metrics: {e}")))?;
        let replica = replica_options(config).map_err(wrong)?.map(|options| {
            let options = options.with_application_name("unstale warm");
            Replica::new(
                options,
                Bounds::of_replica(bounds.connections, &config.postgres),
                &metrics,
            )
        });
        let loader =
            Loader::new(rules, connect.clone(), bounds).map_err(|e| wrong(e.to_string()))?;
        let filler = Filler::new(
            Fills::new(address.clone(), keys.clone()),
            loader.with_replica(replica),
            Arc::clone(&rules.mapping),
            &config.redis.key_prefix,
            metrics,
        );
        Ok(Means { connect, address, keys, filler })
    }
}

/// Whether anything would be stored: without a daemon that has made the state valid nothing is.
async fn accepts_fills(means: &Means) -> Result<(), Exit> {
    let valid = async {
        let mut session = Session::open(&means.address, means.keys.clone()).await?;
        let state = session.state().await?;
        Ok::<_, StoreError>(state.is_some_and(|state| state.valid))
    };
    match valid.await {
        Ok(true) => Ok(()),
        Ok(false) => {
            error(&format!(
                "nothing can be stored yet: {} is not valid; start `unstale run` with this configuration and wait until /readyz says so",
                means.keys.state
            ));
            Err(Exit::Failed)
        }
        Err(reason) => {
            error(&reason.to_string());
            Err(if reason.is_hopeless() { Exit::Configuration } else { Exit::Unreachable })
        }
    }
}

fn unusable(reason: &str) -> Exit {
    error(reason);
    Exit::Configuration
}

fn print(warmed: &Warmed, total: Counts, seconds: f64) {
    let row = |name: &str, counts: &Counts| {
        line(&format!(
            "{name:<20} {:>8} {:>10} {:>8} {:>8} {:>10} {:>8} {:>8}",
            counts.stored,
            counts.present,
            counts.absent,
            counts.voided,
            counts.too_large,
            counts.unleased,
            counts.failed
        ));
    };
    line(&format!(
        "{:<20} {:>8} {:>10} {:>8} {:>8} {:>10} {:>8} {:>8}",
        "cache", "stored", "was there", "absent", "voided", "too large", "unleased", "failed"
    ));
    for (name, counts) in &warmed.caches {
        row(name, counts);
    }
    row("all", &total);
    line(&format!("{} stored in {seconds:.1} s", total.stored));
}
