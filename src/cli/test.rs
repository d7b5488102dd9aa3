//! `unstale test`

use clap::Args;
use serde_json::{Map, json};

use super::output::{error, line, warn_on_stderr};
use super::progress::Bar;
use super::selection::{Which, days};
use super::table::{Table, bytes};
use super::{Common, Exit, runtime, shadow};
use crate::manage::ground::{Ground, ManageError};
use crate::manage::measure::{Bench, Measured, Measurement, Times};
use crate::mapping::model::CacheId;

/// Measure what each cache saves: loads from the database beside reads from Redis
///
/// One entry of each cache, of one organization or of the first that the populations list, is
/// loaded and read in turns. What is not cached yet is filled, by lease as by every reader;
/// nothing is removed. Of the entries that go by days those of 30 are taken, or of --days.
#[derive(Debug, Args)]
pub(super) struct TestCommand {
    #[command(flatten)]
    which: Which,
    /// How often each entry is loaded and read
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    times: u32,
    /// Say which caches are left out, and why
    #[arg(long)]
    verbose: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

impl TestCommand {
    pub(super) fn execute(&self, common: &Common) -> Exit {
        match self.try_execute(common) {
            Ok(exit) | Err(exit) => exit,
        }
    }

    fn try_execute(&self, common: &Common) -> Result<Exit, Exit> {
        let loaded = common.load()?;
        shadow::refuse(&loaded.config, "a fill")?;
        let rules = common.rules(&loaded)?;
        let (request, wanted) = self.which.request(&rules.mapping)?;
        // Of a scoped cache nothing is measured.
        days(&rules.mapping, &wanted, request.days, false)?;
        let refuse = |reason: ManageError| {
            error(&reason.to_string());
            Exit::from(&reason)
        };
        let ground = Ground::new(&loaded.config, &rules, "unstale test").map_err(refuse)?;
        let bench = Bench::new(&ground).map_err(refuse)?;
        let mut order: Vec<_> =
            rules.mapping.caches().filter(|(id, _)| wanted.contains(id)).collect();
        order.sort_by_key(|(id, cache)| (cache.priority, *id));
        let order: Vec<CacheId> = order.into_iter().map(|(id, _)| id).collect();
        let measurement = runtime()?.block_on(async {
            // Its own connection: who is not there is told before anything is measured.
            ground.redis().await?;
            let bar = Bar::new("measuring");
            let each = order.into_iter();
            let one = |cache: &str| bar.at(cache);
            Box::pin(bench.measure(&ground, &request, each, self.times, one)).await
        });
        Ok(self.tell(&measurement.map_err(refuse)?))
    }

    fn tell(&self, measurement: &Measurement) -> Exit {
        if self.json {
            let caches: Map<_, _> = measurement
                .caches
                .iter()
                .map(|(name, measured)| (name.clone(), json!(measured)))
                .collect();
            let left_out: Map<_, _> =
                measurement.left_out.iter().map(|(name, why)| (name.clone(), json!(why))).collect();
            let all = json!({"times": self.times, "caches": caches, "left_out": left_out});
            line(&all.to_string());
        } else if !measurement.caches.is_empty() {
            print(measurement);
        }
        if self.verbose {
            for (cache, reason) in &measurement.left_out {
                warn_on_stderr(&format!("{cache} is left out: {reason}"));
            }
        }
        let problems = measurement.caches.iter().filter_map(|(name, measured)| {
            measured.problem.as_ref().map(|problem| format!("{name}: {problem}"))
        });
        let mut exit = Exit::Done;
        for problem in problems {
            error(&problem);
            exit = Exit::Failed;
        }
        if measurement.caches.is_empty() {
            match self.which.organization() {
                Some(organization) => error(&format!(
                    "there is nothing to measure for the organization {organization:?}: give its exact name or its id"
                )),
                None => error(
                    "there is nothing to measure: the populations list no entry (--verbose says more)",
                ),
            }
            exit = Exit::Failed;
        }
        exit
    }
}

fn print(measurement: &Measurement) {
    let mut table = Table::new(&["cache", "entry", "size", "database", "redis", "speed-up"]);
    for (name, measured) in &measurement.caches {
        let Measured { entry, cold_ms, warm_ms, speedup, .. } = measured;
        let entry: Vec<String> = entry
            .iter()
            .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
            .collect();
        let time = |times: &Option<Times>| {
            times.map_or("-".to_owned(), |times| format!("{:.2} ms", times.median))
        };
        table.row([
            name.clone(),
            entry.join(" "),
            measured.bytes.map_or("-".to_owned(), bytes),
            time(cold_ms),
            time(warm_ms),
            speedup.map_or("-".to_owned(), |speedup| format!("{speedup:.1} x")),
        ]);
    }
    table.print();
    line("medians; the first load and read of each are not counted");
}
