//! `unstale why`

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};

use super::output::{error, line, warn_on_stderr};
use super::{Common, Exit, runtime};
use crate::admin::client;
use crate::mapping::Mapping;
use crate::mapping::model::CacheModel;
use crate::store::error::StoreError;
use crate::store::keys::ControlKeys;
use crate::store::session::{Address, Session};

/// Say why a key was dropped last, and what is known of it now
///
/// Asks the daemon (admin.listen) for the last drops that it remembers, and Redis for the
/// key itself. Where one of them does not answer, what the other knows is told.
#[derive(Debug, Args)]
pub(super) struct WhyCommand {
    /// The key in Redis, with or without redis.key_prefix
    key: String,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

impl WhyCommand {
    pub(super) fn execute(&self, common: &Common) -> Exit {
        match self.try_execute(common) {
            Ok(exit) | Err(exit) => exit,
        }
    }

    fn try_execute(&self, common: &Common) -> Result<Exit, Exit> {
        let loaded = common.load()?;
        let mapping = common.rules(&loaded)?.mapping;
        let config = &loaded.config;
        // Redis' client takes the process's provider.
        _ = rustls::crypto::ring::default_provider().install_default();
        let address = Address::new(&config.redis).map_err(|reason| {
            error(&reason.to_string());
            Exit::Configuration
        })?;
        let key = Key::find(&self.key, &config.redis.key_prefix, &mapping);
        let control = ControlKeys::new(&config.postgres.slot);
        let daemon = client::reach(config.admin.listen);
        let (told, stored) = runtime()?.block_on(async {
            tokio::join!(ask_daemon(daemon, &key), Box::pin(ask_redis(&address, control, &key)))
        });
        if let Err(reason) = &told {
            warn_on_stderr(&format!(
                "no daemon answers at {daemon} (admin.listen), so the last drop is not known: {reason}; start `unstale run`, or point --config at its configuration"
            ));
        }
        if let Err(reason) = &stored {
            warn_on_stderr(&reason.to_string());
        }
        if told.is_err() && stored.is_err() {
            return Ok(Exit::Unreachable);
        }
        let report = Report::new(&key, &mapping, told.ok(), stored.ok());
        if self.json {
            line(&serde_json::to_string(&report).unwrap_or_default());
        } else {
            line(report.to_string().trim_end());
        }
        Ok(Exit::Done)
    }
}

/// A key, and what the configuration says of it.
struct Key<'m> {
    /// As Redis has it.
    full: String,
    cache: Option<&'m CacheModel>,
    parameters: Vec<(&'m str, String)>,
    /// Of an entry of a scoped cache: the key of its scope's generation, and which one the
    /// entry is of.
    generation: Option<(String, String)>,
}

impl<'m> Key<'m> {
    /// With or without the prefix: the way in which some cache has such keys, else as
    /// given if it begins with the prefix.
    fn find(given: &str, prefix: &str, mapping: &'m Mapping) -> Self {
        let prefixed = format!("{prefix}{given}");
        let known = |key: &str| mapping.cache_of_key(key.as_bytes()).is_some();
        let as_given = known(given) || (given.starts_with(prefix) && !known(&prefixed));
        let full = if as_given { given.to_owned() } else { prefixed };
        let cache = mapping.cache_of_key(full.as_bytes()).map(|(_, cache)| cache);
        let parsed = cache.and_then(|cache| cache.parse_key(full.as_bytes()));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let generation = cache.zip(parsed.as_ref()).and_then(|(cache, parsed)| {
            let value = |name: &str| {
                parsed.parameters.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_slice())
            };
            let mut key = prefix.as_bytes().to_vec();
            let template = cache.generation_key.as_ref().filter(|_| !parsed.is_generation)?;
            template.render(value, &mut key)?;
            Some((text(&key), text(value("generation")?)))
        });
        let parameters = parsed.map(|parsed| parsed.parameters).unwrap_or_default();
        let parameters = parameters.into_iter().map(|(name, value)| (name, text(&value))).collect();
        Key { full, cache, parameters, generation }
    }
}

/// The answers of `/why`: about the key, and about its generation's.
struct Told {
    key: Answer,
    generation: Option<Answer>,
}

#[derive(Debug, Deserialize)]
struct Answer {
    last_drop: Option<Drop>,
    last_whole_drop: Option<Drop>,
    last_gap: Option<Gap>,
    applied_lsn: String,
    ready: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Drop {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    lsn: String,
    xid: u32,
    table: String,
    operation: String,
    rule: String,
    cache: String,
    age_seconds: f64,
    present: bool,
    /// The old value could stay until it was refreshed, or due.
    kept: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Gap {
    at: u64,
    reason: String,
}

async fn ask_daemon(address: SocketAddr, key: &Key<'_>) -> Result<Told, String> {
    let ask = async |key: &str| -> Result<Answer, String> {
        let query: String =
            url::form_urlencoded::Serializer::new(String::new()).append_pair("key", key).finish();
        let body = client::get(address, &format!("/why?{query}")).await?;
        serde_json::from_slice(&body)
            .map_err(|e| format!("what answers there is no daemon of this version ({e})"))
    };
    let generation = match &key.generation {
        Some((generation, _)) => Some(ask(generation).await?),
        None => None,
    };
    Ok(Told { key: ask(&key.full).await?, generation })
}

/// What Redis has.
#[derive(Serialize)]
struct Stored {
    present: bool,
    /// How long it lives yet; `null`: for ever, or it is not there.
    ttl_ms: Option<i64>,
    /// How long its lease stands; `null`: nobody has one.
    lease_ttl_ms: Option<i64>,
    /// Of a cache that is refreshed: the entry may lack a change, and goes after this unless it
    /// is refreshed before; `null`: it lacks nothing.
    due_in_ms: Option<i64>,
    /// The scope's generation now; `null`: the key is of no scope, or there is none yet.
    generation: Option<String>,
    /// Whether the state says that what is cached is good; `null`: there is no state.
    valid: Option<bool>,
    /// Everything below it is applied.
    watermark: Option<String>,
    /// Whether a daemon certifies it now.
    certified: bool,
}

async fn ask_redis(
    address: &Address,
    control: ControlKeys,
    key: &Key<'_>,
) -> Result<Stored, StoreError> {
    let mut session = Session::open(address, control).await?;
    let state = session.state().await?;
    let mut connection = session.connection();
    let lease = session.keys().lease_of(key.full.as_bytes());
    let ttl = life(&mut connection, key.full.as_bytes()).await?;
    let lease_ttl = life(&mut connection, &lease).await?;
    let certificate = life(&mut connection, session.keys().fresh.as_bytes()).await?;
    let generation: Option<String> = match &key.generation {
        Some((key, _)) => redis::cmd("GET").arg(key).query_async(&mut connection).await?,
        None => None,
    };
    let stays = key.cache.and_then(|cache| cache.max_staleness);
    let due = |ms: &i64| {
        let life = u64::try_from(*ms).ok().map(Duration::from_millis);
        stays.zip(life).is_some_and(|(stays, life)| life <= stays)
    };
    Ok(Stored {
        present: ttl != ABSENT,
        due_in_ms: Some(ttl).filter(due),
        ttl_ms: Some(ttl).filter(|ms| *ms >= 0),
        lease_ttl_ms: Some(lease_ttl).filter(|ms| *ms >= 0),
        generation,
        valid: state.as_ref().map(|state| state.valid),
        watermark: state.as_ref().map(|state| state.watermark.to_string()),
        certified: certificate != ABSENT,
    })
}

/// What PTTL says of a key that is not there.
const ABSENT: i64 = -2;

async fn life(connection: &mut MultiplexedConnection, key: &[u8]) -> Result<i64, StoreError> {
    Ok(redis::cmd("PTTL").arg(key).query_async(connection).await?)
}

/// The whole answer.
#[derive(Serialize)]
struct Report<'a> {
    key: &'a str,
    /// `null`: no cache of the configuration has such keys.
    cache: Option<&'a str>,
    parameters: serde_json::Map<String, serde_json::Value>,
    /// The rules that can drop it.
    rules: Vec<String>,
    /// `null`: Redis did not answer.
    redis: Option<Stored>,
    /// `null`: no daemon answered.
    daemon: Option<Remembered>,
    /// Of an entry of a scoped cache: the generation that it is of, and its key.
    generation: Option<Generation<'a>>,
}

#[derive(Serialize)]
struct Remembered {
    ready: bool,
    applied_lsn: String,
    /// Of an entry of a scoped cache: the last time that its scope got a new generation.
    last_drop: Option<Drop>,
    last_whole_drop: Option<Drop>,
    last_gap: Option<Gap>,
}

#[derive(Serialize)]
struct Generation<'a> {
    key: &'a str,
    of_entry: &'a str,
}

impl<'a> Report<'a> {
    fn new(key: &'a Key<'a>, mapping: &Mapping, told: Option<Told>, redis: Option<Stored>) -> Self {
        let cache = key.cache.map(|cache| &*cache.name);
        let rules = cache.and_then(|cache| mapping.cache_by_name(cache)).map(|(id, _)| {
            let reaching = mapping.rules().filter(|(_, rule)| rule.cache == id);
            reaching.map(|(rule, _)| mapping.describe(rule)).collect()
        });
        let daemon = told.map(|Told { key, generation }| Remembered {
            ready: key.ready,
            applied_lsn: key.applied_lsn,
            last_drop: generation.and_then(|generation| generation.last_drop).or(key.last_drop),
            last_whole_drop: key.last_whole_drop,
            last_gap: key.last_gap,
        });
        Report {
            key: &key.full,
            cache,
            parameters: key
                .parameters
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.as_str().into()))
                .collect(),
            rules: rules.unwrap_or_default(),
            redis,
            daemon,
            generation: key.generation.as_ref().map(|(key, of_entry)| Generation { key, of_entry }),
        }
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.key)?;
        match self.cache {
            Some(cache) => {
                write!(f, "  cache       {cache}")?;
                for (name, value) in &self.parameters {
                    write!(f, " {name}={}", value.as_str().unwrap_or_default())?;
                }
                writeln!(f)?;
            }
            None => writeln!(f, "  cache       none: no cache of the configuration has such keys")?,
        }
        if let Some(stored) = &self.redis {
            stored.fmt(f, self.generation.as_ref())?;
        }
        if let Some(daemon) = &self.daemon {
            daemon.fmt(f)?;
        }
        for (at, rule) in self.rules.iter().enumerate() {
            let label = if at == 0 { "dropped by" } else { "" };
            writeln!(f, "  {label:<11} {rule}")?;
        }
        Ok(())
    }
}

impl Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>, generation: Option<&Generation<'_>>) -> fmt::Result {
        match (self.present, self.ttl_ms) {
            (true, Some(ms)) => writeln!(f, "  in Redis    yes, lives {} more", Age::ms(ms))?,
            (true, None) => writeln!(f, "  in Redis    yes, without expiry")?,
            (false, _) => writeln!(f, "  in Redis    no")?,
        }
        if let Some(ms) = self.due_in_ms {
            let due = Age::ms(ms);
            writeln!(
                f,
                "  due         in {due}: it may lack a change, and goes unless it is refreshed"
            )?;
        }
        if let Some(Generation { key, of_entry }) = generation {
            match &self.generation {
                Some(now) if now == of_entry => {
                    writeln!(f, "  generation  {now}, the present one")?
                }
                Some(now) => writeln!(
                    f,
                    "  generation  {of_entry}, the present one is {now}: nobody reads this entry any more ({key})"
                )?,
                None => writeln!(f, "  generation  {of_entry}, the scope has none now ({key})")?,
            }
        }
        match self.lease_ttl_ms {
            Some(ms) => writeln!(f, "  lease       taken, expires in {}", Age::ms(ms))?,
            None => writeln!(f, "  lease       none")?,
        }
        let watermark = self.watermark.as_deref().unwrap_or("?");
        match (self.valid, self.certified) {
            (Some(true), true) => writeln!(f, "  state       fresh up to LSN {watermark}"),
            (Some(true), false) => writeln!(
                f,
                "  state       applied up to LSN {watermark}, but no daemon certifies it now: it may be stale"
            ),
            (Some(false), _) => writeln!(f, "  state       invalid: everything is being dropped"),
            (None, _) => writeln!(f, "  state       none: no daemon has kept this Redis fresh yet"),
        }
    }
}

impl Remembered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.last_drop {
            Some(drop) => {
                let there = match (drop.present, drop.kept) {
                    (true, true) => "it stayed until it was refreshed, or due",
                    (true, false) => "it was there",
                    (false, _) => "it was not there",
                };
                let what = if drop.kept { "last change" } else { "last drop" };
                writeln!(f, "  {what:<11} {drop}; {there}")?;
            }
            None => writeln!(f, "  last drop   none that the daemon remembers")?,
        }
        if let Some(drop) = &self.last_whole_drop {
            let reason = drop.reason.as_deref().unwrap_or_default();
            writeln!(f, "  whole cache {drop}; as a whole because of {reason}")?;
        }
        if let Some(Gap { at, reason }) = &self.last_gap {
            let since = UNIX_EPOCH
                .checked_add(Duration::from_secs(*at))
                .and_then(|at| SystemTime::now().duration_since(at).ok());
            let age = Age(since.unwrap_or_default());
            writeln!(f, "  last gap    {age} ago: everything was dropped ({reason})")?;
        }
        Ok(())
    }
}

impl fmt::Display for Drop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Drop { operation, table, xid, lsn, rule, .. } = self;
        let age = Age(Duration::try_from_secs_f64(self.age_seconds).unwrap_or_default());
        write!(f, "{age} ago: {operation} of {table}, xid {xid}, LSN {lsn}; by {rule}")
    }
}

/// A span of time, as precise as one wants to read it.
struct Age(Duration);

impl Age {
    fn ms(ms: i64) -> Self {
        Age(Duration::from_millis(ms.unsigned_abs()))
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < Duration::from_secs(60) {
            write!(f, "{:.1}s", self.0.as_secs_f64())
        } else {
            humantime::format_duration(Duration::from_secs(self.0.as_secs())).fmt(f)
        }
    }
}
