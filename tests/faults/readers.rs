//! Who reads: Redis itself, through the cache by lease, and by the API with tokens.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::RedisError;
use redis::aio::MultiplexedConnection;
use tokio::task::JoinSet;
use unstale::fill::filler::How;
use unstale::lsn::Lsn;
use unstale::mapping::template::GENERATION;

use crate::stage::{ROWS, Stage};
use crate::support::api::bearer;
use crate::support::reader::Reader;
use crate::universe::{ORGANIZATIONS, USERS};

const LOOKERS: usize = 2;
const FILLERS: usize = 3;
const CALLERS: usize = 2;

const PATHS: [&str; 9] = [
    "/api/cached/organizations/{}/info/",
    "/api/cached/organizations/{}/statistics/?days=30",
    "/api/cached/organizations/{}/roles/",
    "/api/cached/users/dashboard/",
    "/api/cached/users/permissions/",
    "/api/cached/analytics/deal-analytics/?days=30&type=trends",
    "/api/cached/analytics/performance-metrics/",
    "/api/cached/search/deals/?q=acme",
    "/items/{}/",
];

/// Starts all of them. They end when the stage stops reading.
pub fn start(stage: &Arc<Stage>) -> JoinSet<()> {
    let mut readers = JoinSet::new();
    for _ in 0..LOOKERS {
        readers.spawn(look(Arc::clone(stage)));
    }
    for _ in 0..FILLERS {
        readers.spawn(fill(Arc::clone(stage)));
    }
    for _ in 0..CALLERS {
        readers.spawn(call(Arc::clone(stage)));
    }
    readers
}

/// What Redis says on one connection: so of one Redis process.
async fn look(stage: Arc<Stage>) {
    let mut connection: Option<MultiplexedConnection> = None;
    while !stage.reading.is_set() {
        let start = Instant::now();
        if connection.is_none() {
            connection = stage.world.redis.connection_db(1).await.ok();
        }
        if let Some(values) = &mut connection
            && look_once(&stage, values).await.is_err()
        {
            connection = None;
        }
        rest(start, Duration::from_millis(2)).await;
    }
}

/// A slow machine is left as much time as the reader has taken.
async fn rest(since: Instant, least: Duration) {
    tokio::time::sleep(since.elapsed().max(least)).await;
}

/// First the watermark, then the value: it must have all that the watermark says. (Unless
/// there are suspects: those are below it and not applied.)
async fn look_once(stage: &Stage, values: &mut MultiplexedConnection) -> Result<(), RedisError> {
    let row = fastrand::u32(1..=ROWS);
    let mut state = redis::cmd("HMGET");
    state.arg("unstale:unstale:state").arg(&["valid", "watermark", "suspects"]);
    let state: (Option<String>, Option<String>, Option<String>) = state.query_async(values).await?;
    let (Some("1"), Some(watermark), Some("[]")) =
        (state.0.as_deref(), state.1, state.2.as_deref())
    else {
        return Ok(());
    };
    let mut get = redis::cmd("GET");
    get.arg(format!("prs_cache:1:v1:item:{row}"));
    let Some(value) = get.query_async::<Option<String>>(values).await? else { return Ok(()) };
    stage.ledger.count("looks");
    let watermark: Lsn = watermark.parse().unwrap();
    let version = value.parse().unwrap();
    if let Some((next, by)) = stage.ledger.lacks(row, version, watermark) {
        let wrong = format!(
            "row {row} was {version} at watermark {watermark}, {next} was committed by {by}"
        );
        stage.ledger.note(|tally| tally.stale_stored.push(wrong));
    }
    Ok(())
}

/// Any entry of any cache, by the library's leases.
async fn fill(stage: Arc<Stage>) {
    let mut primary = stage.primary().url();
    let mut reader = Reader::of(&stage.world, &primary);
    let mapping = Arc::clone(&reader.mapping);
    let caches: Vec<_> = mapping.caches().map(|(_, cache)| cache).collect();
    while !stage.reading.is_set() {
        if primary != stage.primary().url() {
            primary = stage.primary().url();
            reader = Reader::of(&stage.world, &primary);
        }
        let start = Instant::now();
        let cache = caches[fastrand::usize(0..caches.len())];
        let names = cache.template.parameters().filter(|name| *name != GENERATION);
        let values: Vec<(&str, String)> = names.map(|name| (name, any(name))).collect();
        let values: Vec<(&str, &str)> = values.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let count = match reader.filler.read_named(&cache.name, &values).await {
            Ok(read) => match read.how {
                How::Hit => "hits",
                How::Stored => "stored",
                How::Voided => "voided",
                _ => "loaded",
            },
            Err(_) => "unloaded",
        };
        stage.ledger.count(count);
        rest(start, Duration::from_millis(fastrand::u64(1..6))).await;
    }
}

fn any(parameter: &str) -> String {
    let one_of = |choices: &[&str]| choices[fastrand::usize(0..choices.len())].to_owned();
    match parameter {
        "org_id" => fastrand::u64(1..=ORGANIZATIONS).to_string(),
        "user_id" => fastrand::u64(1..=USERS).to_string(),
        "id" => fastrand::u32(1..=ROWS).to_string(),
        "days" => one_of(&["7", "30", "90", "365"]),
        "type" => one_of(&["overview", "trends", "sources", "payments", "clients"]),
        "q" => one_of(&["website", "acme", "#1", "dlid"]),
        other => panic!("no values are known for {other}"),
    }
}

/// Any user, by the API. He may be refused, but never by a fault of the daemon's own.
async fn call(stage: Arc<Stage>) {
    while !stage.reading.is_set() {
        let start = Instant::now();
        let path = PATHS[fastrand::usize(0..PATHS.len())];
        let number = if path.starts_with("/items") { ROWS } else { 4 };
        let path = path.replace("{}", &fastrand::u32(1..=number).to_string());
        let token = bearer(fastrand::u32(1..=24));
        let client = stage.api();
        let headers = [("Authorization", token.as_str())];
        let asked = client.try_get(&path, &headers);
        match tokio::time::timeout(Duration::from_secs(15), asked).await {
            Ok(Some(answer)) if answer.status == 500 => {
                let wrong = format!("{path}: {}", answer.text());
                stage.ledger.note(|tally| tally.other.push(wrong));
            }
            Ok(Some(answer)) if answer.status == 200 => stage.ledger.count("served"),
            Ok(Some(_)) => stage.ledger.count("not_served"),
            Ok(None) | Err(_) => {
                stage.ledger.count("unanswered");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        rest(start, Duration::from_millis(3)).await;
    }
}
