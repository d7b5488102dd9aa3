//! How it stands: everything that whoever is on call asks first.
//!
//! [`gather`] asks Redis, Postgres and the daemon's admin listener, each on its own: what one of
//! them does not tell, the others do. `judge` decides whether all is well.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use hyper::StatusCode;
use serde::Serialize;
use serde_json::Value;

use super::Progress;
use super::coverage::{Coverage, coverage};
use super::ground::{Ground, ManageError};
use super::organization::{self, Organization};
use super::scheduled::{Scheduled, scheduled};
use super::selection::Request;
use super::survey::{Held, survey};
use crate::admin::client;
use crate::mapping::model::CacheId;
use crate::pipeline::suspects::Suspects;
use crate::postgres::client::SqlClient;
use crate::postgres::server::ServerFacts;
use crate::postgres::slot::SlotState;
use crate::store::error::StoreError;
use crate::store::session::{CERTIFICATE_LIFE, Session};
use crate::store::state::State;

/// The whole answer. What could not be asked is `null`.
#[derive(Debug, Default, Serialize)]
pub struct Status {
    /// Whether the cache can be trusted now, and nothing needs a hand.
    pub ok: bool,
    /// What is not well, each with what to do.
    pub problems: Vec<String>,
    /// What is worth knowing, and no problem.
    pub notes: Vec<String>,
    /// Whether anybody keeps the cache fresh.
    pub certificate: Option<Certificate>,
    /// What the daemon has written of it; `null` also if it never has.
    pub state: Option<StateSeen>,
    /// The slot in Postgres.
    pub replication: Option<Replication>,
    /// Shadow mode, as the configuration says: nobody keeps the cache by it.
    pub shadow: bool,
    /// Whether a daemon answers, and how it fares.
    pub daemon: Option<Daemon>,
    /// Redis itself.
    pub redis: Option<RedisSeen>,
    /// What the daemon does now and then.
    pub schedule: Option<Vec<Scheduled>>,
    /// By cache.
    pub caches: Option<BTreeMap<String, Held>>,
    /// Caches that were asked for and that the rest of the request does not fit.
    pub left_out: BTreeMap<String, &'static str>,
    /// If one was asked about: an organization's entries, or a user's.
    pub coverage: Option<Covered>,
}

/// The certificate.
#[derive(Debug, Serialize)]
pub struct Certificate {
    /// It is there.
    pub fresh: bool,
    /// Everything committed below it is applied.
    pub watermark: Option<String>,
    /// When it was renewed last.
    pub age_seconds: Option<f64>,
}

/// What the state in Redis says.
#[derive(Debug, Serialize)]
pub struct StateSeen {
    /// Whether fills are accepted.
    pub valid: bool,
    /// Everything committed below it is applied.
    pub watermark: String,
    /// The greatest commit END ever applied.
    pub frontier: String,
    /// Transactions that may never come through the stream; watched.
    pub suspects: usize,
    /// Caches that are being dropped as a whole.
    pub closed: Vec<String>,
    /// Whether it was written by a daemon with this very configuration of caches and tables.
    pub same_configuration: bool,
}

/// What Postgres says of the slot.
#[derive(Debug, Serialize)]
pub struct Replication {
    /// Its name.
    pub slot: String,
    /// Whether there is one.
    pub exists: bool,
    /// The server process that serves it; `null`: nobody reads it.
    pub active_pid: Option<i32>,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// How much more WAL may be written until it may be lost; `null`: nothing limits it.
    pub safe_wal_size: Option<i64>,
    /// Why it is lost.
    pub invalidation_reason: Option<String>,
    /// Where the server's WAL ends.
    pub server_lsn: String,
    /// What the daemon has acknowledged.
    pub confirmed_lsn: Option<String>,
    /// What lies between, in bytes.
    pub lag_bytes: Option<u64>,
    /// How much WAL the slot holds back.
    pub retained_bytes: Option<u64>,
}

/// What the admin listener says.
#[derive(Debug, Serialize)]
pub struct Daemon {
    /// `admin.listen`
    pub address: String,
    /// Whether one answers there.
    pub running: bool,
    /// The answer of `/readyz`.
    pub readyz: Option<Value>,
}

/// What Redis says of itself.
#[derive(Debug, Serialize)]
pub struct RedisSeen {
    /// Such as `7.0.15`.
    pub version: String,
}

/// How much of what should be cached is.
#[derive(Debug, Default, Serialize)]
pub struct Covered {
    /// As it was given.
    pub organization: Option<String>,
    /// Its ids in keys.
    pub organization_ids: Vec<String>,
    /// Whether the database knows it; `null`: nobody can say.
    pub known: Option<bool>,
    /// As it was given.
    pub user_id: Option<String>,
    /// As it was given.
    pub days: Option<u32>,
    /// Of those that have a population: how many entries it lists.
    pub expected: u64,
    /// And how many of those are cached.
    pub cached: u64,
    /// By cache.
    pub caches: BTreeMap<String, Coverage>,
}

/// What was asked, and what did not answer.
#[derive(Debug)]
pub struct Gathered {
    /// As far as it is known.
    pub status: Status,
    /// Why the rest is not.
    pub failures: Vec<ManageError>,
}

/// Asks everybody.
pub async fn gather(
    ground: &Ground,
    request: &Request,
    wanted: &std::collections::BTreeSet<CacheId>,
    admin: SocketAddr,
    progress: &dyn Progress,
) -> Gathered {
    let mut status = Status { shadow: ground.shadow, ..Status::default() };
    let mut failures = Vec::new();
    let (daemon, session, client) =
        tokio::join!(ask_daemon(admin), Box::pin(ground.redis()), Box::pin(ground.postgres()));
    status.daemon = Some(daemon);
    let client = keep(client, &mut failures);
    if let Some(client) = &client {
        let replication = replication(ground, client).await;
        status.replication = keep(replication, &mut failures);
    }
    if let Some(mut session) = keep(session, &mut failures) {
        let asked =
            caches(ground, request, wanted, &mut session, client.as_ref(), &mut status, progress)
                .await;
        keep(asked, &mut failures);
    }
    status.judge(failures.iter().map(ToString::to_string));
    Gathered { status, failures }
}

/// What there is; what failed is remembered.
fn keep<T, E: Into<ManageError>>(
    result: Result<T, E>,
    failures: &mut Vec<ManageError>,
) -> Option<T> {
    result.map_err(|error| failures.push(error.into())).ok()
}

async fn ask_daemon(admin: SocketAddr) -> Daemon {
    let answer = client::ask(admin, "/readyz").await.ok();
    let readyz = answer
        .filter(|(status, _)| matches!(*status, StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE))
        .and_then(|(_, body)| serde_json::from_slice::<Value>(&body).ok())
        .filter(|body| body.get("ready").is_some_and(Value::is_boolean));
    Daemon { address: admin.to_string(), running: readyz.is_some(), readyz }
}

async fn replication(ground: &Ground, client: &SqlClient) -> Result<Replication, ManageError> {
    let name = &ground.slot;
    let facts = client.answered(ServerFacts::read(client)).await?;
    let slot = client.answered(SlotState::read(client, name)).await?;
    let end = facts.wal_insert;
    let slot = slot.as_ref();
    let confirmed = slot.and_then(|slot| slot.confirmed_flush);
    Ok(Replication {
        slot: name.clone(),
        exists: slot.is_some(),
        active_pid: slot.and_then(|slot| slot.active_pid),
        wal_status: slot.and_then(|slot| slot.wal_status.clone()),
        safe_wal_size: slot.and_then(|slot| slot.safe_wal_size),
        invalidation_reason: slot.and_then(|slot| slot.invalidation_reason.clone()),
        server_lsn: end.to_string(),
        confirmed_lsn: confirmed.map(|lsn| lsn.to_string()),
        lag_bytes: confirmed.map(|lsn| end.bytes_since(lsn)),
        retained_bytes: slot.and_then(|slot| slot.restart_lsn).map(|lsn| end.bytes_since(lsn)),
    })
}

async fn caches(
    ground: &Ground,
    request: &Request,
    wanted: &std::collections::BTreeSet<CacheId>,
    session: &mut Session,
    client: Option<&SqlClient>,
    status: &mut Status,
    progress: &dyn Progress,
) -> Result<(), ManageError> {
    status.redis = Some(RedisSeen { version: session.server().version.clone() });
    let (certificate, state) = trust(session).await?;
    status.certificate = Some(certificate);
    let fingerprint = ground.rules.fingerprint();
    status.state = state.map(|state| StateSeen::new(&state, &fingerprint));
    status.schedule = Some(scheduled(session, &ground.planned).await?);
    let organization = match (&request.organization, client) {
        (Some(given), Some(client)) => Some(organization::find(ground, client, given).await?),
        _ => None,
    };
    let selection = organization::select(ground, request, wanted, organization.as_ref())?;
    let held = survey(ground, session, &selection, progress).await?;
    status.left_out = selection.left_out.iter().cloned().collect();
    if let Some(client) = client.filter(|_| !selection.filter.is_empty()) {
        let asked = (request, &selection);
        let meant = |id| held.get(&id).map_or(0, |held: &Held| held.meant);
        let found = coverage(ground, client, session, asked, meant).await?;
        status.coverage = Some(Covered::new(ground, request, organization.as_ref(), &found));
    }
    let named = |(id, held)| Some((ground.mapping().cache(id)?.name.to_string(), held));
    status.caches = Some(held.into_iter().filter_map(named).collect());
    Ok(())
}

async fn trust(session: &mut Session) -> Result<(Certificate, Option<State>), StoreError> {
    let state = session.state().await?;
    let fresh = session.keys().fresh.clone();
    let mut look = redis::pipe();
    look.cmd("GET").arg(&fresh).cmd("PTTL").arg(&fresh);
    let (watermark, left): (Option<String>, i64) =
        look.query_async(&mut session.connection()).await?;
    let life = i64::try_from(CERTIFICATE_LIFE.as_millis()).unwrap_or(i64::MAX);
    let age = u32::try_from(life.saturating_sub(left)).ok().filter(|_| left >= 0);
    let certificate = Certificate {
        fresh: watermark.is_some(),
        watermark,
        age_seconds: age.map(|ms| f64::from(ms) / 1000.0),
    };
    Ok((certificate, state))
}

impl StateSeen {
    fn new(state: &State, fingerprint: &str) -> Self {
        StateSeen {
            valid: state.valid,
            watermark: state.watermark.to_string(),
            frontier: state.frontier.to_string(),
            suspects: Suspects::read(&state.suspects).map_or(0, |suspects| suspects.len()),
            closed: state.closed.clone(),
            same_configuration: state.identity.mapping == fingerprint,
        }
    }
}

impl Covered {
    fn new(
        ground: &Ground,
        request: &Request,
        organization: Option<&Organization>,
        found: &[(CacheId, Coverage)],
    ) -> Self {
        let mut covered = Covered {
            organization: request.organization.clone(),
            organization_ids: organization
                .map(|organization| organization.ids.iter().cloned().collect())
                .unwrap_or_default(),
            known: organization.and_then(|organization| organization.known),
            user_id: request.user.clone(),
            days: request.days,
            ..Covered::default()
        };
        for (id, coverage) in found {
            if let Some(expected) = coverage.expected {
                covered.expected += expected;
                covered.cached += coverage.cached;
            }
            if let Some(cache) = ground.mapping().cache(*id) {
                covered.caches.insert(cache.name.to_string(), *coverage);
            }
        }
        covered
    }
}
