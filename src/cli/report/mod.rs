//! `unstale report`

mod text;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::{Args, ValueEnum};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::output::{error, line, warn_on_stderr};
use super::progress::Bar;
use super::table::Table;
use super::{Common, Exit, runtime, shadow};
use crate::admin::client;
use crate::report::html::html;
use crate::report::keep::kept;
use crate::report::model::Report;
use crate::report::words::{percent, seconds};
use crate::store::error::StoreError;
use crate::store::keys::ControlKeys;
use crate::store::session::{Address, Session};

/// How long the daemon may take: it looks through Redis and asks the database.
const WITHIN: Duration = Duration::from_secs(600);

/// Say how the cache did since the last report, what has become worse, and what to change
///
/// The daemon (admin.listen) makes the report and keeps it in Redis; the last 30 are kept. It is
/// about the time since the last one that was kept, or since the daemon's start, and says which. If
/// no daemon answers, the last report that was kept is shown, and how old it is. Ends with 0 if
/// there is one, 1 if the one that was asked for is not kept, 69 if neither the daemon nor
/// Redis could be asked, or the one does not answer and the other has none.
#[derive(Debug, Args)]
pub(super) struct ReportCommand {
    /// List those that are kept
    #[arg(long, conflicts_with_all = ["id", "last", "no_keep", "html"])]
    list: bool,
    /// Show the kept one of this id
    #[arg(long, value_name = "ID", conflicts_with_all = ["last", "no_keep"])]
    id: Option<String>,
    /// Show the Nth last that was kept: 1 is the newest
    #[arg(long, value_name = "N", conflicts_with = "no_keep", value_parser = clap::value_parser!(u8).range(1..=30))]
    last: Option<u8>,
    /// Do not keep it: the next one is about this time, too
    #[arg(long)]
    no_keep: bool,
    /// How it is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// One JSON object: the same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Write it into this file as a page of its own (a browser needs nothing else), and print nothing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["format", "json"])]
    html: Option<PathBuf>,
    /// In shadow mode: which entries the application's own invalidation misses, by table,
    /// operation, cache and key. The daemon counts from its start; nothing of it is kept
    #[arg(long, conflicts_with_all = ["list", "id", "last", "no_keep", "format", "html"])]
    shadow: bool,
}

/// How a report is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For scripts
    Json,
    /// For browsers
    Html,
}

/// Where it is asked for.
struct Places {
    admin: SocketAddr,
    address: Address,
    keys: ControlKeys,
}

impl ReportCommand {
    pub(super) fn execute(&self, common: &Common) -> Exit {
        match self.try_execute(common) {
            Ok(exit) | Err(exit) => exit,
        }
    }

    fn try_execute(&self, common: &Common) -> Result<Exit, Exit> {
        let config = common.load()?.config;
        if self.shadow {
            return shadow::report(&config, self.json);
        }
        // Redis' client takes the process's provider.
        _ = rustls::crypto::ring::default_provider().install_default();
        let address = Address::new(&config.redis).map_err(|reason| refuse(&reason))?;
        let admin = client::reach(config.admin.listen);
        let places = Places { admin, address, keys: ControlKeys::new(&config.postgres.slot) };
        let runtime = runtime()?;
        if self.list {
            let kept = runtime.block_on(places.kept()).map_err(|reason| refuse(&reason))?;
            self.print_list(&kept);
            return Ok(Exit::Done);
        }
        let report = match (&self.id, self.last) {
            (None, None) => runtime.block_on(places.made(!self.no_keep))?,
            (id, last) => {
                let kept = runtime.block_on(places.kept()).map_err(|reason| refuse(&reason))?;
                let found = match (id, last) {
                    (Some(id), _) => kept.into_iter().find(|report| report.id == *id),
                    (None, last) => {
                        kept.into_iter().nth(usize::from(last.unwrap_or(1)).saturating_sub(1))
                    }
                };
                found.ok_or_else(|| {
                    error("there is no such report: `unstale report --list` shows those that are kept");
                    Exit::Failed
                })?
            }
        };
        self.show(&report)
    }

    fn format(&self) -> Format {
        if self.json { Format::Json } else { self.format }
    }

    fn show(&self, report: &Report) -> Result<Exit, Exit> {
        if let Some(path) = &self.html {
            return write(path, &html(report));
        }
        match self.format() {
            Format::Json => line(&serde_json::to_string(report).unwrap_or_default()),
            Format::Html => line(html(report).trim_end()),
            Format::Text => text::print(report),
        }
        Ok(Exit::Done)
    }

    fn print_list(&self, kept: &[Report]) {
        if self.format() == Format::Json {
            let all: Vec<Value> = kept.iter().map(summary).collect();
            return line(&json!({ "reports": all }).to_string());
        }
        if kept.is_empty() {
            return warn_on_stderr("no report is kept yet: `unstale report` makes one");
        }
        let mut table = Table::new(&["id", "made at", "about", "hit rate", "worse", "to change"]);
        for report in kept {
            table.row([
                report.id.clone(),
                report.made_at.clone(),
                seconds(report.window.seconds),
                percent(report.reads.hit_rate),
                report.regressions.len().to_string(),
                report.recommendations.len().to_string(),
            ]);
        }
        table.print();
    }
}

/// What a list says of one.
fn summary(report: &Report) -> Value {
    json!({
        "id": report.id,
        "made_at": report.made_at,
        "window_seconds": report.window.seconds,
        "hit_rate": report.reads.hit_rate,
        "regressions": report.regressions.len(),
        "recommendations": report.recommendations.len(),
    })
}

impl Places {
    async fn kept(&self) -> Result<Vec<Report>, StoreError> {
        let session = Box::pin(Session::open(&self.address, self.keys.clone())).await?;
        kept(&mut session.connection(), session.keys()).await
    }

    /// By the daemon; or the last one that it made.
    async fn made(&self, keep: bool) -> Result<Report, Exit> {
        let method = if keep { Method::POST } else { Method::GET };
        let bar = Bar::new("looking through the cache");
        let answer = client::send(self.admin, method, "/report", WITHIN).await;
        drop(bar);
        let silent = match answer {
            Ok((StatusCode::OK, body)) => {
                return serde_json::from_slice(&body).map_err(|reason| {
                    error(&format!(
                        "what answers at {} (admin.listen) is no daemon of this version: {reason}",
                        self.admin
                    ));
                    Exit::Failed
                });
            }
            Ok((status, body)) => {
                let reason = String::from_utf8_lossy(&body);
                error(&format!(
                    "the daemon could not make a report: it answered {status}: {}",
                    reason.trim()
                ));
                return Err(match status {
                    StatusCode::SERVICE_UNAVAILABLE => Exit::Unreachable,
                    _ => Exit::Failed,
                });
            }
            Err(reason) => reason,
        };
        let nobody = format!("no daemon answers at {} (admin.listen): {silent}", self.admin);
        let kept = self.kept().await.map_err(|reason| {
            warn_on_stderr(&nobody);
            refuse(&reason)
        })?;
        let Some(newest) = kept.into_iter().next() else {
            error(&format!("{nobody}; and no report is kept: start `unstale run`"));
            return Err(Exit::Unreachable);
        };
        let made = humantime::parse_rfc3339(&newest.made_at).ok();
        let age = made.and_then(|made| SystemTime::now().duration_since(made).ok());
        let age = age.map_or_else(|| "some time".to_owned(), |age| seconds(age.as_secs()));
        warn_on_stderr(&format!(
            "{nobody}; this is the last report that was kept, made {age} ago: it does not say how things are now"
        ));
        Ok(newest)
    }
}

fn refuse(reason: &StoreError) -> Exit {
    error(&reason.to_string());
    Exit::from(reason)
}

fn write(path: &Path, page: &str) -> Result<Exit, Exit> {
    std::fs::write(path, page).map_err(|reason| {
        error(&format!("cannot write {}: {reason}", path.display()));
        Exit::Failed
    })?;
    Ok(Exit::Done)
}
