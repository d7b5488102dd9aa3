//! The operator's listener: metrics, health, why a key was dropped, and the console. It has no
//! login: it belongs on loopback or a private network ([`guard`] keeps browsers' other pages out).

pub mod client;
mod console;
mod guard;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Json;
use axum::Router;
use axum::extract::{Query, State as Shared};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use serde::Deserialize;
use socket2::SockRef;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tracing::{debug, error, info};

use self::console::Console;
use self::guard::Guard;
use crate::config::model::Admin;
use crate::impatient::Impatient;
use crate::manage::ground::ManageError;
use crate::mapping::Mapping;
use crate::pipeline::context::Context;
use crate::report::model::Report;
use crate::report::reporter::Reporter;
use crate::shadow::Shadow;
use crate::status::Status;
use crate::store::keys::ControlKeys;
use crate::store::session::Address;
use crate::why::answer::Answer;

/// What the answers are made of.
#[derive(Clone)]
pub struct State {
    /// What the pipeline knows.
    status: Arc<Status>,
    /// The rules, as they are now.
    mapping: Arc<ArcSwap<Mapping>>,
    /// Makes reports.
    reporter: Arc<Reporter>,
    /// In shadow mode: what is watched.
    shadow: Option<Arc<Shadow>>,
    /// Where Redis is, and the names of the daemon's keys there.
    redis: (Address, ControlKeys),
    /// What stands before every cache's key.
    key_prefix: String,
    /// For how many keys it is remembered why they were dropped.
    remembered_drops: usize,
    /// Whether the read API counts reads.
    reads: bool,
    console: Arc<Console>,
}

impl State {
    /// Of a daemon, whose rules a reload replaces in `mapping`.
    #[must_use]
    pub fn new(context: &Context, mapping: Arc<ArcSwap<Mapping>>) -> State {
        let config = &context.config;
        State {
            status: Arc::clone(&context.status),
            mapping,
            reporter: Arc::clone(&context.reporter),
            shadow: context.shadow.clone(),
            redis: (context.address.clone(), ControlKeys::new(&config.postgres.slot)),
            key_prefix: config.redis.key_prefix.clone(),
            remembered_drops: config.pipeline.remembered_drops,
            reads: context.serves(),
            console: Arc::new(Console::new(&config.postgres.slot)),
        }
    }
}

/// Takes the address.
///
/// # Errors
/// If it is taken or not ours: what to change.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|e| {
        format!("cannot listen on {address} (admin.listen): {e}; choose another address, or stop what listens there")
    })
}

/// Serves until it is aborted.
pub async fn serve(listener: TcpListener, settings: Admin, state: State) {
    if let Ok(address) = listener.local_addr() {
        info!(%address, "admin listener: / (console) /metrics /healthz /readyz /why /report");
    }
    let guard = Arc::new(Guard::new(&settings));
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/why", get(why))
        .route("/report", get(look_at_report).post(keep_report))
        .route("/shadow", get(shadow))
        .merge(console::routes())
        .layer(from_fn_with_state(guard, guard::stand))
        .with_state(state);
    if let Err(reason) = axum::serve(Connections::new(listener), router).await {
        error!(%reason, "the admin listener has ended");
    }
}

/// How long somebody may take in nothing of what he asked for.
const PATIENCE: Duration = Duration::from_secs(10);

/// What lies ready for one who does not read, at the most (the kernel doubles it).
const SEND_BUFFER: usize = 64 << 10;

/// How many connections are open at once: each costs a file descriptor, of which the pipeline
/// needs some, too.
const PLACES: usize = 256;

/// Connections that are cut when their other end does not read, and only so many of them: one too
/// many is closed at once.
struct Connections {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl Connections {
    fn new(listener: TcpListener) -> Connections {
        Connections { listener, places: Arc::new(Semaphore::new(PLACES)) }
    }
}

impl Listener for Connections {
    type Io = Impatient;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Impatient, SocketAddr) {
        loop {
            let (stream, address) = Listener::accept(&mut self.listener).await;
            let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
                debug!(%address, "a connection was closed: there are {PLACES} already");
                continue;
            };
            if let Err(error) = SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER) {
                debug!(%error, "more lies ready for slow readers than need be");
            }
            return (Impatient::new(stream, PATIENCE, place), address);
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

async fn metrics(Shared(state): Shared<State>) -> Response {
    state.status.measure();
    match state.status.metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
            .into_response(),
        Err(reason) => (StatusCode::INTERNAL_SERVER_ERROR, reason.to_string()).into_response(),
    }
}

async fn readyz(Shared(state): Shared<State>) -> Response {
    let readiness = state.status.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CACHE_CONTROL, "no-store")], Json(readiness)).into_response()
}

async fn look_at_report(Shared(state): Shared<State>) -> Response {
    told(state.reporter.make(false).await)
}

/// Only by who can say what he sends: a page that a browser shows can make it post a form, but
/// no JSON to another address.
async fn keep_report(Shared(state): Shared<State>, headers: HeaderMap) -> Response {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    if kind != Some(b"application/json") {
        let why = "POST keeps the report: send it with Content-Type: application/json\n";
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, why).into_response();
    }
    told(state.reporter.make(true).await)
}

fn told(made: Result<Report, ManageError>) -> Response {
    match made {
        Ok(report) => ([(header::CACHE_CONTROL, "no-store")], Json(report)).into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn shadow(Shared(state): Shared<State>) -> Response {
    match &state.shadow {
        Some(shadow) => {
            ([(header::CACHE_CONTROL, "no-store")], Json(shadow.report())).into_response()
        }
        None => {
            (StatusCode::NOT_FOUND, "this daemon keeps the cache: it does not run in shadow mode\n")
                .into_response()
        }
    }
}

#[derive(Debug, Deserialize)]
struct Which {
    key: String,
}

async fn why(Shared(state): Shared<State>, Query(which): Query<Which>) -> Json<Answer> {
    Json(Answer::new(which.key, &state.status, &state.mapping.load()))
}
