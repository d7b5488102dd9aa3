//! `unstale report --shadow`: what the application's own invalidation misses.

use std::time::Duration;

use hyper::StatusCode;

use super::output::{error, line, warn_on_stderr};
use super::table::Table;
use super::{Exit, runtime};
use crate::admin::client;
use crate::config::model::Config;
use crate::shadow::report::{Line, MissedKey, Report};

/// How many missed entries are named on a terminal.
const NAMED: usize = 20;

/// Asks the running daemon, and shows what it says.
pub(super) fn report(config: &Config, json: bool) -> Result<Exit, Exit> {
    let address = client::reach(config.admin.listen);
    let (status, body) = runtime()?.block_on(client::ask(address, "/shadow")).map_err(|reason| {
        error(&format!(
            "no daemon answers at {address} (admin.listen), and only it knows: {reason}; start `unstale run` with shadow = true, or point --config at its configuration"
        ));
        Exit::Unreachable
    })?;
    if status == StatusCode::NOT_FOUND {
        error(&format!(
            "the daemon at {address} does not run in shadow mode: set shadow = true, above the first section of its configuration, and restart it"
        ));
        return Err(Exit::Failed);
    }
    let report: Report = serde_json::from_slice(&body).map_err(|reason| {
        error(&format!("what answers at {address} is no daemon of this version ({reason})"));
        Exit::Failed
    })?;
    if json {
        line(&String::from_utf8_lossy(&body));
    } else {
        print(&report);
    }
    Ok(Exit::Done)
}

/// Says no to what would change a cache that is the application's.
pub(super) fn refuse(config: &Config, what: &str) -> Result<(), Exit> {
    if !config.shadow {
        return Ok(());
    }
    error(&format!(
        "shadow = true: what is cached is the application's, and {what} would change it; set shadow = false once the application has given it up, or name another configuration by --config"
    ));
    Err(Exit::Configuration)
}

fn print(report: &Report) {
    let total = &report.total;
    let seconds = |seconds| humantime::format_duration(Duration::from_secs(seconds)).to_string();
    line(&format!(
        "looked on for {}; {} s of grace; {} entries wait for theirs",
        seconds(report.seconds),
        report.grace_seconds,
        report.awaiting
    ));
    line(&match (report.missed_total, total.there()) {
        (_, 0) => "no change has reached an entry that was cached yet".to_owned(),
        (0, there) => format!("of {there} entries that changes reached, none was missed"),
        (missed, there) => format!(
            "of {there} entries that changes reached, the application's own invalidation missed {missed}; for {} of them the database proves it",
            total.stale
        ),
    });
    if !report.changes.is_empty() {
        line("");
        print_changes(&report.changes);
    }
    if !report.missed.is_empty() {
        line("");
        print_missed(report);
    }
    notes(report);
}

fn print_changes(changes: &[Line]) {
    let mut table = Table::new(&[
        "table",
        "operation",
        "cache",
        "missed",
        "proved",
        "in order",
        "undecided",
        "absent",
        "skipped",
    ]);
    for Line { table: name, operation, cache, counts, .. } in changes {
        let in_order = counts.there() - counts.missed() - counts.undecided;
        let numbers = [
            counts.missed(),
            counts.stale,
            in_order,
            counts.undecided,
            counts.absent,
            counts.skipped,
        ];
        let names = [name.clone(), operation.clone(), cache.clone()];
        table.row(names.into_iter().chain(numbers.map(|number| number.to_string())));
    }
    table.print();
}

fn print_missed(report: &Report) {
    let mut table = Table::new(&["missed", "after", "times", "proved", "LSN", "xid"]);
    for missed in report.missed.iter().take(NAMED) {
        let MissedKey { key, table: name, operation, lsn, xid, times, proved, .. } = missed;
        let proved = if *proved { "yes" } else { "no" }.to_owned();
        let (times, xid) = (times.to_string(), xid.to_string());
        table.row([key.clone(), format!("{operation} of {name}"), times, proved, lsn.clone(), xid]);
    }
    table.print();
    if report.missed.len() > NAMED {
        line(&format!(
            "and {} more: --json names {}",
            report.missed.len() - NAMED,
            report.missed.len()
        ));
    }
}

fn notes(report: &Report) {
    let note = |text: String| warn_on_stderr(&format!("note: {text}"));
    for (cache, comparable) in &report.comparable {
        if !comparable {
            note(format!(
                "no value of {cache} was seen that is what its query gives: there the bytes alone tell, and nothing is proved"
            ));
        }
    }
    for (cache, reason) in &report.left_out {
        note(format!("{cache} is not followed: {reason}"));
    }
    for whole in &report.whole {
        note(format!(
            "{} {} of {} concerned all of {} ({}): some of its entries were looked at",
            whole.times, whole.operation, whole.table, whole.cache, whole.reason
        ));
    }
    for (reason, times) in &report.holes {
        note(format!("changes may have gone by unseen {times} times ({reason})"));
    }
    if report.total.skipped > 0 {
        note(format!(
            "{} entries were not looked at: too many waited, or Redis did not answer; what is told is a sample",
            report.total.skipped
        ));
    }
}
