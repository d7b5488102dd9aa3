//! The operator's listener: metrics, health, and why a key was dropped. It has no login:
//! it belongs on loopback or a private network.

pub mod client;

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Json;
use axum::Router;
use axum::extract::{Query, State as Shared};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tracing::{error, info};

use crate::manage::ground::ManageError;
use crate::mapping::Mapping;
use crate::report::model::Report;
use crate::report::reporter::Reporter;
use crate::shadow::Shadow;
use crate::status::Status;
use crate::status::drops::{Told, ToldWhole};
use crate::status::readiness::LastGap;

/// What the answers are made of.
#[derive(Clone)]
pub struct State {
    /// What the pipeline knows.
    pub status: Arc<Status>,
    /// The rules, as they are now.
    pub mapping: Arc<ArcSwap<Mapping>>,
    /// Makes reports.
    pub reporter: Arc<Reporter>,
    /// In shadow mode: what is watched.
    pub shadow: Option<Arc<Shadow>>,
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
pub async fn serve(listener: TcpListener, state: State) {
    if let Ok(address) = listener.local_addr() {
        info!(%address, "admin listener: /metrics /healthz /readyz /why /report");
    }
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/why", get(why))
        .route("/report", get(look_at_report).post(keep_report))
        .route("/shadow", get(shadow))
        .with_state(state);
    if let Err(reason) = axum::serve(listener, router).await {
        error!(%reason, "the admin listener has ended");
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

/// The answer of `/why`.
#[derive(Debug, Serialize)]
struct Why {
    key: String,
    /// `null`: not dropped as far as the daemon remembers.
    last_drop: Option<Told>,
    /// The last time that its cache was dropped as a whole.
    last_whole_drop: Option<ToldWhole>,
    /// When everything was dropped last.
    last_gap: Option<LastGap>,
    /// Everything below it is applied.
    applied_lsn: String,
    ready: bool,
}

async fn why(Shared(state): Shared<State>, Query(which): Query<Which>) -> Json<Why> {
    let mapping = state.mapping.load();
    let key = which.key.as_bytes();
    let cache = mapping.cache_of_key(key).map(|(id, _)| id);
    let (last, whole) = state
        .status
        .with_drops(|drops| (drops.last(key), cache.and_then(|cache| drops.last_whole(cache))));
    let readiness = state.status.readiness();
    Json(Why {
        last_drop: last.map(|drop| Told::new(&drop, &mapping)),
        last_whole_drop: whole.map(|(reason, drop)| ToldWhole {
            reason: reason.as_str(),
            told: Told::new(&drop, &mapping),
        }),
        last_gap: readiness.last_gap,
        applied_lsn: readiness.applied_lsn,
        ready: readiness.ready,
        key: which.key,
    })
}
