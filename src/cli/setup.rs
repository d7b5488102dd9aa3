//! `unstale setup`

use std::time::Duration;

use clap::Args;

use super::{Common, Exit, output, runtime};
use crate::config::Loaded;
use crate::config::duration::Span;
use crate::postgres::client::SqlClient;
use crate::postgres::conninfo::ConnectOptions;
use crate::postgres::error::PgError;
use crate::preflight::facts::Facts;
use crate::preflight::places::Places;
use crate::preflight::plan::{Plan, plan, refusal};
use crate::preflight::step::{How, Step};
use crate::preflight::{dependencies, replication, run, script};
use crate::rules::Rules;
use crate::servers::connect_options;

/// Prepare the database: grants, replica identities, the publication
///
/// Does what `unstale check` says is missing, in an order that never disturbs the
/// application, and nothing else: a second run changes nothing. It asks no questions. The
/// replication slot is left to the daemon, since it holds back WAL from its first moment on.
///
/// It needs no superuser: replica identities need the tables' owner, the publication also
/// CREATE on the database. A role REPLICATION can be given by a superuser only.
#[derive(Debug, Args)]
pub(super) struct Setup {
    /// Print the statements as a script for psql, and change nothing
    #[arg(long, visible_alias = "dry-run")]
    print: bool,
    /// Make event triggers, too, that tell at once of rewritten tables (ALTER TABLE … TYPE … USING),
    /// of partitions that come and go, and of the publication; it takes a superuser
    #[arg(long)]
    event_trigger: bool,
    /// Connect as the tables' owner (or a superuser) instead: a URL like postgres.url
    #[arg(long, value_name = "URL")]
    as_owner: Option<String>,
    /// How long to try for a table that is always in use
    #[arg(long, value_name = "TIME", default_value = "10m")]
    patience: Span,
}

impl Setup {
    pub(super) fn execute(&self, common: &Common) -> Exit {
        let prepared = || -> Result<_, Exit> {
            let loaded = common.load()?;
            let rules = common.rules(&loaded)?;
            Ok((loaded, rules, runtime()?))
        };
        match prepared() {
            Ok((loaded, rules, runtime)) => {
                runtime.block_on(Box::pin(self.set_up(&loaded, &rules))).unwrap_or_else(|exit| exit)
            }
            Err(exit) => exit,
        }
    }

    async fn set_up(&self, loaded: &Loaded, rules: &Rules) -> Result<Exit, Exit> {
        let (config, mapping) = (&loaded.config, &*rules.mapping);
        let daemon = connect_options(config).map_err(|reason| {
            output::error(&reason);
            Exit::Configuration
        })?;
        let ours = match &self.as_owner {
            None => daemon.clone(),
            Some(url) => ConnectOptions::load(url, None).map_err(|error| {
                output::error(&format!("--as-owner: {error}"));
                Exit::Configuration
            })?,
        };
        let failed = |error: PgError| {
            output::error(&error.to_string());
            Exit::from(&error)
        };
        // An index takes as long as it takes.
        let client = SqlClient::connect(&ours, Duration::ZERO).await.map_err(failed)?;
        let facts = Facts::read(&client, config, mapping, daemon.user()).await.map_err(failed)?;
        if facts.database.name != daemon.database() {
            output::error(&format!(
                "--as-owner names the database {}, postgres.url names {}: let both name one",
                facts.database.name,
                daemon.database()
            ));
            return Err(Exit::Configuration);
        }
        self.refuse_what_is_not_there(&facts)?;
        let places = Places { source: &loaded.source, config };
        let read = dependencies::gather(&client, rules, &facts, &places).await.map_err(failed)?;
        let mut planned = plan(&facts, mapping, read.selected());
        if self.event_trigger {
            planned.steps.extend(replication::event_trigger_step(&facts));
        }
        if self.print {
            output::line(script::render(&facts, &planned).trim_end());
            return Ok(Exit::Done);
        }
        self.run(&client, &facts, &planned).await
    }

    fn refuse_what_is_not_there(&self, facts: &Facts) -> Result<(), Exit> {
        let missing: Vec<String> = facts
            .mapped
            .iter()
            .filter(|(_, oid)| oid.is_none())
            .map(|(name, _)| name.to_string())
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        output::error(&format!(
            "the database {} has no table {}: correct [[tables]], or create it first (migrations?)",
            facts.database.name,
            missing.join(", ")
        ));
        Err(Exit::Configuration)
    }

    async fn run(&self, client: &SqlClient, facts: &Facts, planned: &Plan) -> Result<Exit, Exit> {
        let refused: Vec<(&Step, String)> =
            planned.steps.iter().filter_map(|step| Some((step, refusal(facts, step)?))).collect();
        // An identity that cannot be set must not be followed by a publication.
        if refused.iter().any(|(step, _)| !matches!(step.how, How::AtOnce)) {
            output::error(&format!("role {} may not do all of this:", facts.own.name));
            for (step, reason) in &refused {
                output::warn_on_stderr(&format!("  {};\n    {reason}", step.sql));
            }
            output::warn_on_stderr(
                "Nothing was changed. Run it with --as-owner and the URL of the tables' owner, or \
                 hand the output of --print to whoever may.",
            );
            return Err(Exit::Configuration);
        }
        let left: Vec<&Step> = refused.iter().map(|(step, _)| *step).collect();
        for step in planned.steps.iter().filter(|step| !left.contains(step)) {
            output::warn_on_stderr(&format!("… {};", step.sql));
            let mut progress = |text: &str| output::warn_on_stderr(&format!("  {text}"));
            run::step(client, step, self.patience.get(), &mut progress).await.map_err(|error| {
                output::error(&format!("{};\n{error}", step.sql));
                Exit::Failed
            })?;
            output::line(&format!("done  {};", step.sql));
        }
        if planned.steps.is_empty() {
            output::line("Nothing to do: all is set up.");
        }
        for (step, reason) in &refused {
            output::line(&format!("left  {};  -- {reason}", step.sql));
        }
        for by_hand in &planned.by_hand {
            output::line(&format!("left  {by_hand}"));
        }
        if facts.slot.is_none() {
            output::line(&format!(
                "The slot {} is created by the daemon when it starts.",
                facts.slot_name
            ));
        }
        let complete = refused.is_empty() && planned.by_hand.is_empty();
        Ok(if complete { Exit::Done } else { Exit::Failed })
    }
}
