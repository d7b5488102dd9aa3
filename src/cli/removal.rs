//! What `invalidate` and `clear` have in common.

use serde_json::{Map, json};

use super::Exit;
use super::output::{error, line, warn_on_stderr};
use super::table::Table;
use crate::manage::ground::{Ground, ManageError};
use crate::manage::organization::Organization;
use crate::manage::remove::{Counts, Removal};
use crate::manage::selection::{Request, Selection};
use crate::manage::tell::{Told, tell as tell_daemon};
use crate::store::remove::Act;

/// How it is told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tell {
    pub(super) act: Act,
    pub(super) json: bool,
    pub(super) verbose: bool,
}

/// Says what went, or would go.
pub(super) fn tell(
    how: Tell,
    (request, selection): (&Request, &Selection),
    organization: Option<&Organization>,
    (removal, told): (&Removal, Option<Told>),
    seconds: f64,
) -> Exit {
    let total = removal.total();
    if selection.chosen.is_empty() {
        let each = selection.left_out.iter().map(|(cache, why)| format!("{cache}: {why}"));
        error(&format!(
            "the options fit no cache ({}): leave one of them out, or name another cache",
            each.collect::<Vec<_>>().join("; ")
        ));
        return Exit::Usage;
    }
    if how.json {
        let caches: Map<_, _> =
            removal.caches.iter().map(|(name, counts)| (name.clone(), json!(counts))).collect();
        let left_out: Map<_, _> =
            selection.left_out.iter().map(|(name, why)| (name.clone(), json!(why))).collect();
        let organization = organization.map(|organization| {
            json!({
                "given": request.organization,
                "ids": organization.ids,
                "known": organization.known,
            })
        });
        let all = json!({
            "dry_run": how.act == Act::Count,
            "cache_type": request.cache_type,
            "organization": organization,
            "user_id": request.user,
            "days": request.days,
            "total": total,
            "caches": caches,
            "left_out": left_out,
            "daemon": told,
            "seconds": seconds,
        });
        line(&all.to_string());
    } else {
        print(removal, total);
        line(&sentence(told, total, seconds));
    }
    if how.verbose {
        for (cache, reason) in &selection.left_out {
            warn_on_stderr(&format!("{cache} is left out: {reason}"));
        }
    }
    if let Some(warning) = told.and_then(Told::warning) {
        error(warning);
        return Exit::Failed;
    }
    match (&request.organization, organization) {
        (Some(given), Some(Organization { known: Some(false), .. })) if total.is_empty() => {
            error(&format!(
                "the database knows no organization {given:?}, and nothing is cached under such an id: give its exact name or its id"
            ));
            Exit::Failed
        }
        _ => Exit::Done,
    }
}

fn print(removal: &Removal, total: Counts) {
    let mut table = Table::new(&["cache", "entries", "scopes", "leases"]);
    let mut row = |name: &str, counts: &Counts| {
        table.row([
            name.to_owned(),
            counts.entries.to_string(),
            counts.scopes.to_string(),
            counts.leases.to_string(),
        ]);
    };
    for (name, counts) in &removal.caches {
        row(name, counts);
    }
    row("all", &total);
    table.print();
}

/// In words.
fn sentence(told: Option<Told>, total: Counts, seconds: f64) -> String {
    let Counts { entries, scopes, leases } = total;
    if total.is_empty() && told != Some(Told::Silent) {
        return "nothing of it is cached, and nothing is under way".to_owned();
    }
    let mut what = match entries {
        1 => "1 entry".to_owned(),
        _ => format!("{entries} entries"),
    };
    if scopes > 0 {
        what.push_str(&format!(", {scopes} scopes"));
    }
    if leases > 0 {
        what.push_str(&format!(", {leases} under way"));
    }
    let then = match told {
        None => return format!("{what} would be removed"),
        Some(Told::Told) => {
            "the daemon was told: it holds none of it any more, and fills again what is to be rewarmed; the next readers fill the rest, or `unstale warm`"
        }
        Some(Told::Nobody) => {
            "no daemon keeps this cache fresh now, so none had to be told; the next reader of each fills it again, or `unstale warm`"
        }
        Some(Told::Silent) => "the daemon does not answer",
    };
    format!("{what} removed in {seconds:.1} s; {then}")
}

/// Tells the daemon, if anything was to go. One that cannot be told is one that was not.
pub(super) async fn told(ground: &Ground, removal: &Removal, act: Act) -> Option<Told> {
    match act {
        Act::Count => None,
        Act::Remove => Some(tell_daemon(ground, removal).await.unwrap_or_else(|reason| {
            warn_on_stderr(&reason.to_string());
            Told::Silent
        })),
    }
}

/// Says why it could not be done.
pub(super) fn refuse(reason: &ManageError, act: Act) -> Exit {
    error(&reason.to_string());
    if act == Act::Remove && !matches!(reason, ManageError::Unusable(_)) {
        warn_on_stderr(
            "what may have been removed by then stays removed, the rest stays; to do it again is harmless",
        );
    }
    Exit::from(reason)
}
