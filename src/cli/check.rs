//! `unstale check`

use clap::Args;
use serde::Serialize;

use super::{Common, Exit, output, runtime};
use crate::config::Loaded;
use crate::postgres::client::SqlClient;
use crate::postgres::error::PgError;
use crate::preflight::facts::Facts;
use crate::preflight::finding::{Finding, Level};
use crate::preflight::places::Places;
use crate::preflight::replica::{self, Replica};
use crate::preflight::{
    cache_server, coverage, dependencies, encryption, replication, serving, tables,
};
use crate::rules::Rules;
use crate::servers::{connect_options, replica_options};
use crate::store::error::StoreError;

/// Say what is missing, and the exact SQL for it; changes nothing
///
/// Looks at the connection, grants, publication, slot and replica identities, at Redis, and
/// at every table and column that a cache's query or a rule's via reads but no rule covers
/// (a hole: something stale could stay in the cache), and at the replica, if one is
/// configured; and whether connections that leave this machine are encrypted. Exit code 1 if there
/// is a problem, 0 if there is none (there may be warnings).
#[derive(Debug, Args)]
pub(super) struct Check {
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// The answer of `--json`.
#[derive(Debug, Serialize)]
struct Report<'a> {
    ok: bool,
    problems: usize,
    warnings: usize,
    findings: &'a [Finding],
    /// Services that could not be asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<String>,
}

/// What was found, and which services could not be asked, and why.
#[derive(Default)]
struct Found {
    findings: Vec<Finding>,
    errors: Vec<(String, Exit)>,
}

impl Check {
    pub(super) fn execute(&self, common: &Common) -> Exit {
        match self.try_execute(common) {
            Ok(exit) | Err(exit) => exit,
        }
    }

    fn try_execute(&self, common: &Common) -> Result<Exit, Exit> {
        let loaded = common.load()?;
        let rules = common.rules(&loaded)?;
        // Redis' client takes the process's provider.
        _ = rustls::crypto::ring::default_provider().install_default();
        let mut found = Found::default();
        runtime()?.block_on(async {
            if let Err(error) = Box::pin(postgres(&loaded, &rules, &mut found.findings)).await {
                found.errors.push(error);
            }
            match cache_server::findings(&loaded.config, &rules.mapping).await {
                Ok(findings) => found.findings.extend(findings),
                Err(error) => {
                    let exit = match error {
                        StoreError::Lost(_) => Exit::Unreachable,
                        _ => Exit::Configuration,
                    };
                    found.errors.push((format!("Redis: {error}"), exit));
                }
            }
        });
        let places = Places { source: &loaded.source, config: &loaded.config };
        found.findings.extend(encryption::findings(&places));
        found.findings.extend(serving::findings(&places));
        found.findings.sort_by_key(|finding| finding.section);
        Ok(self.report(&found))
    }

    fn report(&self, found: &Found) -> Exit {
        let count = |level| found.findings.iter().filter(|f| f.level == level).count();
        let (problems, warnings) = (count(Level::Problem), count(Level::Warning));
        if self.json {
            let report = Report {
                ok: problems == 0 && found.errors.is_empty(),
                problems,
                warnings,
                findings: &found.findings,
                errors: found.errors.iter().map(|(error, _)| error.clone()).collect(),
            };
            output::line(&serde_json::to_string_pretty(&report).unwrap_or_default());
        } else {
            print(&found.findings);
            let mendable = found.findings.iter().any(|finding| !finding.sql.is_empty());
            output::line(&summary(problems, warnings, mendable, !found.errors.is_empty()));
        }
        for (error, _) in &found.errors {
            output::error(error);
        }
        let exits: Vec<Exit> = found.errors.iter().map(|(_, exit)| *exit).collect();
        match () {
            () if exits.contains(&Exit::Configuration) => Exit::Configuration,
            () if exits.contains(&Exit::Unreachable) => Exit::Unreachable,
            () if problems > 0 || !exits.is_empty() => Exit::Failed,
            () => Exit::Done,
        }
    }
}

async fn postgres(
    loaded: &Loaded,
    rules: &Rules,
    findings: &mut Vec<Finding>,
) -> Result<(), (String, Exit)> {
    let config = &loaded.config;
    let connect = connect_options(config).map_err(|reason| (reason, Exit::Configuration))?;
    let failed = |error: PgError| (format!("Postgres: {error}"), Exit::from(&error));
    let timeout = config.postgres.statement_timeout.get();
    let client =
        SqlClient::connect(&connect.clone().with_application_name("unstale check"), timeout)
            .await
            .map_err(failed)?;
    let facts =
        Facts::read(&client, config, &rules.mapping, connect.user()).await.map_err(failed)?;
    findings.extend(replication::server(&facts));
    findings.extend(replication::publication(&facts));
    findings.extend(tables::findings(&facts, &rules.mapping));
    if facts.server.in_recovery {
        return Ok(());
    }
    let places = Places { source: &loaded.source, config };
    let found =
        Box::pin(dependencies::gather(&client, rules, &facts, &places)).await.map_err(failed)?;
    findings.extend(replication::grants(&facts, found.selected()));
    findings.extend(found.findings.iter().cloned());
    findings.extend(coverage::findings(&rules.mapping, &found, &places));
    let replica = replica_options(config).map_err(|reason| (reason, Exit::Configuration))?;
    if let Some(options) = replica {
        // Of the daemon's own role the grants are told already.
        let other = options.user() != connect.user();
        let read = Replica::read(&options, timeout, found.selected().filter(|_| other)).await;
        match read {
            Ok(replica) => {
                let wait = config.postgres.replica_wait.get();
                findings.extend(replica::findings(&replica, &facts.server, wait));
            }
            Err(error) => findings.push(replica::unreachable(&error.to_string())),
        }
    }
    Ok(())
}

fn print(findings: &[Finding]) {
    let mut section = None;
    for finding in findings {
        if section != Some(finding.section) {
            if section.is_some() {
                output::line("");
            }
            output::line(finding.section.title());
            section = Some(finding.section);
        }
        let level = match finding.level {
            Level::Ok => "ok",
            Level::Note => "note",
            Level::Warning => "warning",
            Level::Problem => "PROBLEM",
        };
        output::line(&format!("  {level:<8} {}", finding.message));
        if let Some(place) = &finding.place {
            output::line(&format!("           at {place}"));
        }
        if let Some(hint) = &finding.hint {
            output::line(&format!("           {hint}"));
        }
        for sql in &finding.sql {
            output::line(&format!("           {sql};"));
        }
    }
    if !findings.is_empty() {
        output::line("");
    }
}

fn summary(problems: usize, warnings: usize, mendable: bool, incomplete: bool) -> String {
    let some = |count: usize, what: &str| match count {
        0 => format!("no {what}s"),
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    };
    let found = format!("{}, {}", some(problems, "problem"), some(warnings, "warning"));
    match (incomplete, problems + warnings) {
        (true, _) => format!("Not everything could be looked at; so far {found}."),
        (false, 0) => format!("All is well: {found}."),
        (false, _) if mendable => format!(
            "{found}. `unstale setup` does what is missing in the database, `unstale setup --print` prints it."
        ),
        (false, _) => format!("{found}."),
    }
}
