//! `unstale warm`

use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use serde_json::json;

use super::output::{error, line, warn_on_stderr};
use super::progress::Bar;
use super::selection::days;
use super::table::Table;
use super::{Common, Exit, runtime, shadow};
use crate::config::model::Config;
use crate::fill::filler::Filler;
use crate::loader::load::{Bounds, Loader};
use crate::loader::replica::Replica;
use crate::manage::ground::Ground;
use crate::manage::selection::Request;
use crate::manage::warm::{self, Means};
use crate::metrics::Metrics;
use crate::rules::Rules;
use crate::servers::replica_options;
use crate::store::fills::Fills;
use crate::warm::filling::Filling;
use crate::warm::once::{Counts, Plan, Warmed};
use crate::warm::turns::Turns;

/// Fill the entries that are not there
///
/// Which there should be is said by each cache's `population`: by default the entries of all
/// active organizations and of their users who logged in last. It fills by lease, highest priority
/// first, and never stores what is older than what the daemon has removed.
#[derive(Debug, Args)]
pub(super) struct WarmCommand {
    /// all, strategic, api, user, or a cache's name
    #[arg(long, value_name = "TYPE", default_value = "all", value_parser = NonEmptyStringValueParser::new())]
    cache_type: String,
    /// Only this organization, by its name or id, be it active or not
    #[arg(long, value_name = "NAME-or-ID", value_parser = NonEmptyStringValueParser::new())]
    organization: Option<String>,
    /// Only this user, by id; of the caches only those of users
    #[arg(long, value_name = "ID", conflicts_with = "users", value_parser = NonEmptyStringValueParser::new())]
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
        shadow::refuse(&loaded.config, "a fill")?;
        let rules = common.rules(&loaded)?;
        let wanted = rules.mapping.select(&self.cache_type).map_err(|reason| {
            error(&format!("--cache-type: {reason}"));
            Exit::Usage
        })?;
        days(&rules.mapping, &wanted, self.days, false)?;
        let request = Request {
            cache_type: self.cache_type.clone(),
            organization: self.organization.clone(),
            user: self.user_id.clone(),
            days: self.days,
        };
        let plan = warm::plan(&rules, &request, wanted).map_err(|e| unusable(&e.to_string()))?;
        let ground = Ground::new(&loaded.config, &rules, "unstale warm")
            .map_err(|reason| unusable(&reason.to_string()))?;
        let filling = Filling::new(filler(&loaded.config, &rules, &ground)?);
        if self.verbose {
            for (cache, reason) in &plan.left_out {
                warn_on_stderr(&format!("{cache} is left out: {reason}"));
            }
        }
        let turns = Turns::new(&loaded.config.warm);
        let workers = loaded.config.warm.concurrency;
        let means = Means { ground: &ground, filling: &filling, turns: &turns, workers };
        let bar = Bar::new("warming");
        let start = Instant::now();
        let warmed = runtime()?.block_on(Box::pin(means.run(&plan, &request, self.users, &bar)));
        drop(bar);
        let warmed = warmed.map_err(|reason| {
            error(&reason.to_string());
            Exit::from(&reason)
        })?;
        Ok(self.tell(&plan, &warmed, start.elapsed().as_secs_f64()))
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
        } else if !(total.is_empty() && (self.user_id.is_some() || self.organization.is_some())) {
            print(warmed, total, seconds);
        }
        for failure in &warmed.failures {
            warn_on_stderr(&format!("error: {failure}"));
        }
        if let Some(user) = self.user_id.as_deref().filter(|_| total.is_empty()) {
            error(&format!(
                "there is nothing to warm for the user {user:?}: is that an id, and do the other options leave any of its entries? A user of an organization that is not active needs --organization, too"
            ));
            return Exit::Failed;
        }
        if let Some(organization) = self.organization.as_deref().filter(|_| total.is_empty()) {
            error(&format!(
                "there is nothing to warm for the organization {organization:?}: is that its exact name or its id, and do the other options leave any of its entries?"
            ));
            return Exit::Failed;
        }
        if total.failed > 0 { Exit::Failed } else { Exit::Done }
    }
}

/// Fills from the replica, if there is one.
fn filler(config: &Config, rules: &Rules, ground: &Ground) -> Result<Filler, Exit> {
    let wrong = |reason: String| unusable(&reason);
    let timeout = config.postgres.statement_timeout.get();
    let bounds =
        Bounds { connections: config.warm.concurrency, statement_timeout: timeout, wait: timeout };
    let metrics = Metrics::new().map_err(|e| wrong(format!("metrics: {e}")))?;
    let replica = replica_options(config).map_err(wrong)?.map(|options| {
        let options = options.with_application_name("unstale warm");
        Replica::new(options, Bounds::of_replica(bounds.connections, &config.postgres), &metrics)
    });
    let loader =
        Loader::new(rules, ground.connect.clone(), bounds).map_err(|e| wrong(e.to_string()))?;
    Ok(Filler::new(
        Fills::new(ground.address.clone(), ground.keys.clone()),
        loader.with_replica(replica),
        Arc::clone(&rules.mapping),
        &ground.key_prefix,
        metrics,
    ))
}

fn unusable(reason: &str) -> Exit {
    error(reason);
    Exit::Configuration
}

fn print(warmed: &Warmed, total: Counts, seconds: f64) {
    let mut table = Table::new(&[
        "cache",
        "stored",
        "was there",
        "absent",
        "voided",
        "too large",
        "unleased",
        "failed",
    ]);
    let mut row = |name: &str, counts: &Counts| {
        let numbers = [
            counts.stored,
            counts.present,
            counts.absent,
            counts.voided,
            counts.too_large,
            counts.unleased,
            counts.failed,
        ];
        let numbers = numbers.map(|number| number.to_string());
        table.row(std::iter::once(name.to_owned()).chain(numbers));
    };
    for (name, counts) in &warmed.caches {
        row(name, counts);
    }
    row("all", &total);
    table.print();
    line(&format!("{} stored in {seconds:.1} s", total.stored));
}
