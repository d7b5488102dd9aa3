//! The console: one page for whoever is on call, and its feed.
//!
//! *The page* is three files put into one when the daemon starts. It asks nobody but this
//! listener: its Content-Security-Policy names the hash of its script and of its style and
//! forbids everything else, turning text into markup among it. What the feed says is only ever
//! put in as text. A key that is searched is explained as `unstale why` does ([`crate::why`]).
//!
//! *The feed* (`/console/events`, server-sent events) tells the figures of the moment once a
//! second, and what was dropped since ([`figures`], [`recent`]). Each who watches has a ticker of
//! its own: with nobody there, nothing is done, and nothing was recorded for it beside what the
//! metrics and `why` need anyway. Who does not read is not asked for again until he does: there is
//! no queue, the next message is of the moment in which it can be sent. His connection is cut by
//! the listener after a while, and there are only [`SEATS`] of them.

mod figures;
mod recent;
mod verdict;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::{Query, State as Shared};
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Interval, MissedTickBehavior};

use self::figures::{Figures, Window};
use self::recent::{LOOKED_AT, Recent};
use super::State;
use crate::mapping::Mapping;
use crate::mapping::model::Fingerprint;
use crate::why::answer::Answers;
use crate::why::key::Key;
use crate::why::report::Report;
use crate::why::stored::ask_redis;

/// How many may watch at once.
const SEATS: usize = 16;

/// How many keys are searched at once.
const SEARCHES: usize = 2;

const TICK: Duration = Duration::from_secs(1);

/// How soon the browser connects anew.
const RETRY: Duration = Duration::from_secs(1);

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// What all who watch share.
pub(super) struct Console {
    page: Bytes,
    policy: String,
    seats: Arc<Semaphore>,
    searches: Semaphore,
    /// Tells one life of the daemon from the next.
    started: SystemTime,
    slot: String,
}

impl Console {
    pub(super) fn new(slot: &str) -> Console {
        let hash = |text: &str| STANDARD.encode(Sha256::digest(text));
        let policy = format!(
            "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; \
             img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
             require-trusted-types-for 'script'; trusted-types 'none'",
            hash(SCRIPT),
            hash(STYLE)
        );
        let page = PAGE.replacen("/* page.css */", STYLE, 1).replacen("/* page.js */", SCRIPT, 1);
        Console {
            page: page.into(),
            policy,
            seats: Arc::new(Semaphore::new(SEATS)),
            searches: Semaphore::new(SEARCHES),
            started: SystemTime::now(),
            slot: slot.to_owned(),
        }
    }
}

pub(super) fn routes() -> Router<State> {
    Router::new()
        .route("/", get(page))
        .route("/console/events", get(events))
        .route("/console/key", get(key))
}

async fn page(Shared(state): Shared<State>) -> Response {
    let console = &state.console;
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, console.policy.as_str()),
        // Another version of the daemon has another page, and its feed other fields.
        (header::CACHE_CONTROL, "no-store"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ];
    (headers, console.page.clone()).into_response()
}

async fn events(Shared(state): Shared<State>) -> Response {
    let Ok(seat) = Arc::clone(&state.console.seats).try_acquire_owned() else {
        let said = format!("{SEATS} consoles are open already: close one\n");
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "5")], said)
            .into_response();
    };
    let watcher = Watcher::new(state, seat);
    let stream = futures_util::stream::unfold(watcher, |mut watcher| async {
        let message = watcher.next().await;
        Some((Ok::<_, Infallible>(message), watcher))
    });
    let headers = [
        (header::CACHE_CONTROL, "no-store"),
        // A proxy that collects what comes would show the past.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, Sse::new(stream)).into_response()
}

#[derive(Deserialize)]
struct Which {
    key: String,
}

/// The same as `unstale why KEY --json` says; asks Redis, on a connection of its own.
async fn key(Shared(state): Shared<State>, Query(which): Query<Which>) -> Response {
    let Ok(_turn) = state.console.searches.acquire().await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let mapping = state.mapping.load_full();
    let key = Key::find(&which.key, &state.key_prefix, &mapping);
    let (address, control) = state.redis.clone();
    let stored = Box::pin(ask_redis(&address, control, &key)).await;
    let problem = stored.as_ref().err().map(ToString::to_string);
    let answers = Answers::new(&key, &state.status, &mapping);
    let report = Report::new(&key, &mapping, Some(answers), stored.ok());
    let found = Found { report, problem };
    ([(header::CACHE_CONTROL, "no-store")], Json(found)).into_response()
}

#[derive(Serialize)]
struct Found<'a> {
    #[serde(flatten)]
    report: Report<'a>,
    /// Why Redis does not tell.
    problem: Option<String>,
}

/// One who watches.
struct Watcher {
    state: State,
    ticks: Interval,
    window: Window,
    /// The number of the next drop to tell of.
    next_drop: u64,
    /// Of the rules that were told.
    told: Option<Fingerprint>,
    _seat: OwnedSemaphorePermit,
}

/// What is sent once a second.
#[derive(Serialize)]
struct Message {
    /// First, and after a reload.
    #[serde(skip_serializing_if = "Option::is_none")]
    hello: Option<Hello>,
    figures: Figures,
    #[serde(skip_serializing_if = "Option::is_none")]
    recent: Option<Recent>,
}

/// What does not change from second to second.
#[derive(Serialize)]
struct Hello {
    version: &'static str,
    slot: String,
    /// What stands before every key.
    key_prefix: String,
    /// Unix time in milliseconds.
    started: u128,
    caches: Vec<About>,
    /// How many drops are remembered.
    remembered: usize,
    /// Whether there is a read API whose reads are counted.
    reads: bool,
}

/// What the configuration says of a cache.
#[derive(Serialize)]
struct About {
    name: String,
    /// How its keys look; `null`: it has none, it is composed.
    key: Option<String>,
    ttl_seconds: Option<u64>,
    group: Option<String>,
    priority: Option<&'static str>,
}

impl Watcher {
    fn new(state: State, seat: OwnedSemaphorePermit) -> Watcher {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Watcher { state, ticks, window: Window::new(), next_drop: 0, told: None, _seat: seat }
    }

    async fn next(&mut self) -> Event {
        self.ticks.tick().await;
        let message = self.message();
        let event = Event::default().retry(RETRY);
        match event.json_data(&message) {
            Ok(event) => event,
            // No field can be refused; if one were, the page says that it hears nothing.
            Err(_) => Event::default().comment("not to be told"),
        }
    }

    fn message(&mut self) -> Message {
        let mapping = self.state.mapping.load_full();
        let fingerprint = mapping.fingerprint();
        let hello = (self.told != Some(fingerprint)).then(|| {
            self.window.forget();
            self.told = Some(fingerprint);
            Hello::new(&self.state, &mapping)
        });
        let status = &self.state.status;
        let figures = Figures::take(status, &mapping, &mut self.window);
        let since = status.with_drops(|drops| drops.since(self.next_drop, LOOKED_AT));
        // At first what is remembered, of which there may be more, and nobody asked for it.
        let first = self.next_drop == 0;
        self.next_drop = since.next;
        let mut recent = Recent::new(since, &mapping);
        if let Some(recent) = recent.as_mut().filter(|_| first) {
            recent.forget_the_rest();
        }
        Message { hello, figures, recent }
    }
}

impl Hello {
    fn new(state: &State, mapping: &Mapping) -> Hello {
        let text = |text: &Option<Box<str>>| text.as_deref().map(str::to_owned);
        let prefix = &state.key_prefix;
        let mut caches: Vec<About> = mapping
            .caches()
            .map(|(_, cache)| About {
                name: cache.name.to_string(),
                key: Some(format!("{prefix}{}", cache.template)),
                ttl_seconds: Some(cache.ttl.as_secs()),
                group: text(&cache.group),
                priority: Some(cache.priority.as_str()),
            })
            .collect();
        for composition in mapping.compositions() {
            if mapping.cache_by_name(&composition.name).is_none() {
                let name = composition.name.to_string();
                let about =
                    About { name, key: None, ttl_seconds: None, group: None, priority: None };
                caches.push(about);
            }
        }
        Hello {
            version: env!("CARGO_PKG_VERSION"),
            slot: state.console.slot.clone(),
            key_prefix: prefix.clone(),
            started: recent::unix_ms(state.console.started),
            caches,
            remembered: state.remembered_drops,
            reads: state.reads,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_whole_and_the_policy_names_just_what_is_in_it() {
        let console = Console::new("unstale");
        let page = std::str::from_utf8(&console.page).unwrap();
        for (tag, text) in [("style", STYLE), ("script", SCRIPT)] {
            assert_eq!(page.matches(&format!("<{tag}>")).count(), 1);
            let (_, rest) = page.split_once(&format!("<{tag}>")).unwrap();
            let (inner, _) = rest.split_once(&format!("</{tag}>")).unwrap();
            assert_eq!(inner, text);
            let hash = STANDARD.encode(Sha256::digest(inner));
            assert!(console.policy.contains(&hash), "{tag}");
        }
    }

    #[test]
    fn no_text_of_the_feed_can_become_markup_or_a_request() {
        for forbidden in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("]
        {
            assert!(!SCRIPT.contains(forbidden), "{forbidden}");
        }
        for text in [PAGE, STYLE, SCRIPT] {
            for forbidden in ["https://", "//cdn", "@import", " src=", " style=", " onclick="] {
                assert!(!text.contains(forbidden), "{forbidden}");
            }
        }
    }
}
