//! `unstale verify`

use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use serde::Serialize;

use super::output::{error, line, warn_on_stderr};
use super::progress::Bar;
use super::{Common, Exit, runtime, shadow};
use crate::audit::compare::{CompareError, Ground};
use crate::audit::run::{Audit, Order, run};
use crate::audit::tally::Counts;
use crate::config::model::Config;
use crate::loader::load::{Bounds, LoadError, Loader};
use crate::rules::Rules;
use crate::servers::connect_options;
use crate::store::keys::ControlKeys;
use crate::store::session::Address;

/// How many entries are compared unless said.
const SAMPLE: usize = 1000;

/// Compare what is cached with what the database says now
///
/// An entry is called stale only if it still differs after the daemon has applied everything
/// that the comparison saw; until then it is inconsistent, which passes. Ends with 1 if
/// anything is stale or could not be decided.
#[derive(Debug, Args)]
pub(super) struct VerifyCommand {
    /// Compare at most so many entries, picked at random [default: 1000]
    #[arg(long, value_name = "N", conflicts_with = "all", value_parser = sample)]
    sample: Option<usize>,
    /// Compare every entry
    #[arg(long)]
    all: bool,
    /// Remove what is stale
    #[arg(long)]
    repair: bool,
    /// all, strategic, api, user, or a cache's name
    #[arg(long, value_name = "TYPE", default_value = "all")]
    cache_type: String,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

fn sample(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("write a number from 1".to_owned()),
        Ok(number) => Ok(number),
    }
}

impl VerifyCommand {
    pub(super) fn execute(&self, common: &Common) -> Exit {
        match self.try_execute(common) {
            Ok(exit) | Err(exit) => exit,
        }
    }

    fn try_execute(&self, common: &Common) -> Result<Exit, Exit> {
        let loaded = common.load()?;
        if self.repair {
            shadow::refuse(&loaded.config, "a removal")?;
        }
        let rules = common.rules(&loaded)?;
        let caches = rules.mapping.select(&self.cache_type).map_err(|reason| {
            error(&format!("--cache-type: {reason}"));
            Exit::Usage
        })?;
        let ground = Arc::new(ground(&loaded.config, &rules)?);
        let sample = (!self.all).then_some(self.sample.unwrap_or(SAMPLE));
        let order = Order { caches, sample, repair: self.repair };
        let start = Instant::now();
        let audit = runtime()?.block_on(async {
            let bar = Arc::new(Bar::new("verifying"));
            Box::pin(run(&ground, &order, bar)).await
        });
        let audit = audit.map_err(|reason| refuse(&reason))?;
        let report = Report::new(&audit, start.elapsed().as_secs_f64());
        if self.json {
            line(&serde_json::to_string(&report).unwrap_or_default());
        } else {
            report.print(self.repair);
        }
        for why in &audit.tally.undecided_because {
            warn_on_stderr(&format!("undecided: {}", why.as_str()));
        }
        for failure in &audit.failures {
            warn_on_stderr(&format!("error: {failure}"));
        }
        let total = report.total;
        let good = total.stale == 0 && total.undecided == 0 && total.failed == 0;
        Ok(if good { Exit::Done } else { Exit::Failed })
    }
}

/// What the comparison stands on, as far as it needs no server.
fn ground(config: &Config, rules: &Rules) -> Result<Ground, Exit> {
    // Redis' client takes the process's provider.
    _ = rustls::crypto::ring::default_provider().install_default();
    let unusable = |reason: String| {
        error(&reason);
        Exit::Configuration
    };
    let connect = connect_options(config).map_err(unusable)?;
    let timeout = config.postgres.statement_timeout.get();
    let bounds = Bounds {
        connections: config.warm.concurrency,
        statement_timeout: timeout,
        // The others' queries go first.
        wait: timeout * 20,
    };
    let connect = connect.with_application_name("unstale verify");
    Ok(Ground {
        loader: Loader::new(rules, connect, bounds).map_err(|e| unusable(e.to_string()))?,
        mapping: Arc::clone(&rules.mapping),
        address: Address::new(&config.redis).map_err(|e| unusable(e.to_string()))?,
        keys: ControlKeys::new(&config.postgres.slot),
        key_prefix: config.redis.key_prefix.clone(),
    })
}

fn refuse(reason: &CompareError) -> Exit {
    error(&reason.to_string());
    match reason {
        CompareError::Store(reason) if reason.is_hopeless() => Exit::Configuration,
        CompareError::Load(LoadError::Postgres { source, .. }) => Exit::from(source),
        CompareError::Store(_) | CompareError::Load(_) => Exit::Unreachable,
    }
}

/// The whole answer.
#[derive(Serialize)]
struct Report<'a> {
    /// How many keys the caches have.
    keys: u64,
    total: Counts,
    #[serde(flatten)]
    tally: &'a crate::audit::tally::Tally,
    seconds: f64,
}

impl<'a> Report<'a> {
    fn new(audit: &'a Audit, seconds: f64) -> Self {
        Report { keys: audit.found, total: audit.tally.total(), tally: &audit.tally, seconds }
    }

    fn print(&self, repair: bool) {
        let row = |name: &str, counts: &Counts| {
            line(&format!(
                "{name:<20} {:>10} {:>10} {:>12} {:>8} {:>10} {:>8} {:>8}",
                counts.compared,
                counts.equal,
                counts.inconsistent,
                counts.stale,
                counts.undecided,
                counts.expired,
                counts.failed
            ));
        };
        line(&format!(
            "{:<20} {:>10} {:>10} {:>12} {:>8} {:>10} {:>8} {:>8}",
            "cache", "compared", "equal", "inconsistent", "stale", "undecided", "expired", "failed"
        ));
        for (name, counts) in &self.tally.caches {
            row(name, counts);
        }
        row("all", &self.total);
        let durations = &self.tally.inconsistent_for;
        if self.total.inconsistent > 0 {
            line(&format!(
                "inconsistent for: {} up to 100 ms, {} up to 1 s, {} up to 1 min, {} up to 5 min, {} longer",
                durations.tenth,
                durations.second,
                durations.minute,
                durations.five_minutes,
                durations.longer
            ));
        }
        if self.total.due > 0 {
            line(&format!(
                "{} differ and may: they are refreshed, or gone, within their cache's max_staleness",
                self.total.due
            ));
        }
        for key in &self.tally.stale_keys {
            line(&format!("stale: {key}"));
        }
        for key in &self.tally.undecided_keys {
            line(&format!("undecided: {key}"));
        }
        let verdict = match (self.total.stale, self.total.undecided) {
            (0, 0) => "nothing is stale".to_owned(),
            (0, undecided) => format!("{undecided} differ and could not be decided"),
            (stale, _) if repair => format!("{stale} stale, and removed"),
            (stale, _) => format!(
                "{stale} stale: `unstale why KEY` says what is known of one, --repair removes them"
            ),
        };
        line(&format!(
            "{} of {} keys compared in {:.1} s: {verdict}",
            self.total.compared, self.keys, self.seconds
        ));
    }
}
