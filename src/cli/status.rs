//! `unstale status`

use std::time::Duration;

use clap::Args;

use super::output::{line, warn_on_stderr};
use super::progress::Bar;
use super::selection::Which;
use super::table::{Table, bytes};
use super::{Common, Exit, runtime};
use crate::admin::client;
use crate::manage::ground::Ground;
use crate::manage::scheduled::Scheduled;
use crate::manage::status::{Covered, Daemon, Gathered, Replication, Status, gather};

/// Say how it stands: can the cache be trusted, what is in it, how far is replication
///
/// Ends with 0 if all is well, 1 if something is not (each problem says what to do), 69 if Redis or
/// Postgres could not be asked; what the other knows is shown all the same. With --organization
/// or --user-id: how many of the entries that there should be are cached. Looks through the
/// caches' keys, without hurry; memory is measured on 64 entries of each and extrapolated.
#[derive(Debug, Args)]
pub(super) struct StatusCommand {
    #[command(flatten)]
    which: Which,
    /// Say more of each cache
    #[arg(long)]
    verbose: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

impl StatusCommand {
    pub(super) fn execute(&self, common: &Common) -> Exit {
        match self.try_execute(common) {
            Ok(exit) | Err(exit) => exit,
        }
    }

    fn try_execute(&self, common: &Common) -> Result<Exit, Exit> {
        let loaded = common.load()?;
        let rules = common.rules(&loaded)?;
        let (request, wanted) = self.which.request(&rules.mapping)?;
        let ground = Ground::new(&loaded.config, &rules, "unstale status").map_err(|reason| {
            super::output::error(&reason.to_string());
            Exit::from(&reason)
        })?;
        let admin = client::reach(loaded.config.admin.listen);
        let Gathered { status, failures } = runtime()?.block_on(async {
            let bar = Bar::new("counting keys");
            Box::pin(gather(&ground, &request, &wanted, admin, &bar)).await
        });
        if self.json {
            line(&serde_json::to_string(&status).unwrap_or_default());
        } else {
            self.print(&status);
        }
        for problem in &status.problems {
            warn_on_stderr(&format!("problem: {problem}"));
        }
        let failed: Vec<Exit> = failures.iter().map(Exit::from).collect();
        Ok(match failed.first() {
            // Whoever cannot be reached decides; what is wrong here must be mended first.
            Some(_) if failed.contains(&Exit::Configuration) => Exit::Configuration,
            Some(exit) => *exit,
            None if status.ok => Exit::Done,
            None => Exit::Failed,
        })
    }

    fn print(&self, status: &Status) {
        let verdict = if status.ok { "all is well" } else { "something is not well, see below" };
        fact("status", verdict);
        if let Some(certificate) = status.certificate.as_ref().filter(|_| !status.shadow) {
            fact(
                "certificate",
                &match (certificate.age_seconds, &certificate.watermark) {
                    (Some(age), Some(watermark)) => {
                        format!("fresh up to LSN {watermark}, renewed {age:.1} s ago")
                    }
                    _ => "none: nobody keeps the cache fresh now".to_owned(),
                },
            );
        }
        match &status.state {
            Some(state) => {
                let valid = if state.valid { "valid" } else { "invalid" };
                let applied = &state.watermark;
                let suspects = state.suspects;
                fact(
                    "state",
                    &format!("{valid}, applied up to LSN {applied}, {suspects} suspects"),
                );
            }
            None if status.shadow => fact("mode", "shadow: nobody keeps the cache"),
            None if status.certificate.is_some() => fact("state", "none"),
            None => {}
        }
        if let Some(replication) = &status.replication {
            fact("slot", &slot(replication));
        }
        if let Some(daemon) = &status.daemon {
            fact("daemon", &told(daemon));
        }
        if let Some(redis) = &status.redis {
            fact("Redis", &redis.version);
        }
        if let Some(schedule) = status.schedule.as_deref().filter(|schedule| !schedule.is_empty()) {
            line("");
            print_schedule(schedule);
        }
        if let Some(caches) = &status.caches {
            line("");
            self.print_caches(caches);
        }
        if self.verbose {
            for (cache, reason) in &status.left_out {
                line(&format!("{cache} is left out: {reason}"));
            }
        }
        if let Some(covered) = &status.coverage {
            line("");
            print_coverage(covered);
        }
        for note in &status.notes {
            warn_on_stderr(&format!("note: {note}"));
        }
    }

    fn print_caches(
        &self,
        caches: &std::collections::BTreeMap<String, crate::manage::survey::Held>,
    ) {
        let mut head = vec!["cache", "TTL", "keys", "memory", "scopes", "leases"];
        if self.verbose {
            head.extend(["group", "mean life left", "sampled", "without expiry"]);
        }
        let mut table = Table::new(&head);
        for (name, held) in caches {
            let dash = || "-".to_owned();
            let mut cells = vec![
                name.clone(),
                humantime::format_duration(Duration::from_secs(held.ttl_seconds)).to_string(),
                held.keys.to_string(),
                held.bytes.map_or_else(dash, bytes),
                held.scopes.map_or_else(dash, |scopes| scopes.to_string()),
                held.leases.to_string(),
            ];
            if self.verbose {
                let left = held.mean_remaining_seconds.map(|left| format!("{left:.0} s"));
                cells.extend([
                    held.group.clone().unwrap_or_else(dash),
                    left.unwrap_or_else(dash),
                    held.sampled.to_string(),
                    held.without_expiry.to_string(),
                ]);
            }
            table.row(cells);
        }
        table.print();
        if caches.values().any(|held| held.keys > held.sampled && held.bytes.is_some()) {
            line("memory: measured on samples, and extrapolated");
        }
        if caches.values().any(|held| held.bytes.is_none()) {
            line("memory: grant +memory|usage to the Redis user to see it");
        }
    }
}

fn print_schedule(schedule: &[Scheduled]) {
    let span = |seconds: f64| {
        let whole = Duration::try_from_secs_f64(seconds.round()).unwrap_or_default();
        humantime::format_duration(whole).to_string()
    };
    let mut table = Table::new(&["task", "every", "next", "last", "result"]);
    for task in schedule {
        let next = match task.next_in_seconds {
            _ if task.running => "now".to_owned(),
            Some(next) if next > 0.0 => format!("in {}", span(next)),
            Some(_) => "due".to_owned(),
            None => "-".to_owned(),
        };
        let (last, result) = match &task.last {
            Some(last) => (
                format!("{} ago", span(last.ended_seconds_ago)),
                format!("{} in {}: {}", last.result, span(last.seconds), last.detail),
            ),
            None => ("-".to_owned(), "-".to_owned()),
        };
        table.row([task.task.clone(), span(task.every_seconds), next, last, result]);
    }
    table.print();
}

fn fact(name: &str, text: &str) {
    line(&format!("{name:<12} {text}"));
}

fn slot(replication: &Replication) -> String {
    let mut text = replication.slot.clone();
    if !replication.exists {
        text.push_str(": there is none");
        return text;
    }
    text.push_str(&match replication.active_pid {
        Some(pid) => format!(", read by PID {pid}"),
        None => ", read by nobody".to_owned(),
    });
    if let Some(status) = &replication.wal_status {
        text.push_str(&format!(", WAL {status}"));
    }
    if let Some(lag) = replication.lag_bytes {
        text.push_str(&format!(", {} behind", bytes(lag)));
    }
    if let Some(retained) = replication.retained_bytes {
        text.push_str(&format!(", {} held back", bytes(retained)));
    }
    if let Some(safe) = replication.safe_wal_size.and_then(|safe| u64::try_from(safe).ok()) {
        text.push_str(&format!(", {} more until it may be lost", bytes(safe)));
    }
    text
}

fn told(daemon: &Daemon) -> String {
    let address = &daemon.address;
    let Some(readyz) = &daemon.readyz else { return format!("none answers at {address}") };
    let ready = if readyz["ready"] == true { "ready" } else { "not ready" };
    let lag = readyz["lag_seconds"].as_f64().unwrap_or_default();
    let parked = readyz["parked_transactions"].as_u64().unwrap_or_default();
    format!("{ready} at {address}, {lag:.1} s behind, {parked} parked")
}

fn print_coverage(covered: &Covered) {
    let mut whose = Vec::new();
    if let Some(organization) = &covered.organization {
        whose.push(match covered.known {
            Some(true) => {
                format!("organization {organization} (id {})", covered.organization_ids.join(", "))
            }
            Some(false) => {
                format!("organization {organization}, which the database does not know")
            }
            None => format!("organization {organization}"),
        });
    }
    whose.extend(covered.user_id.iter().map(|user| format!("user {user}")));
    whose.extend(covered.days.map(|days| format!("{days} days")));
    line(&format!("coverage of {}", whose.join(", ")));
    let mut table = Table::new(&["cache", "cached", "of"]);
    for (name, coverage) in &covered.caches {
        let of = coverage.expected.map_or("-".to_owned(), |expected| expected.to_string());
        table.row([name.clone(), coverage.cached.to_string(), of]);
    }
    table.row(["all".to_owned(), covered.cached.to_string(), covered.expected.to_string()]);
    table.print();
}
