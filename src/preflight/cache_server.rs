//! Redis: reached, recent, a primary, allowed, and what it evicts.

use redis::Script;

use super::finding::{Finding, Section};
use crate::config::model::Config;
use crate::mapping::Mapping;
use crate::store::error::StoreError;
use crate::store::keys::ControlKeys;
use crate::store::session::{Address, Session};

const HERE: Section = Section::Redis;

/// Looks at Redis.
///
/// # Errors
/// If it cannot be reached, or refuses the login.
pub async fn findings(config: &Config, mapping: &Mapping) -> Result<Vec<Finding>, StoreError> {
    let address = Address::new(&config.redis)?;
    let mut session = match Session::open(&address, ControlKeys::new(&config.postgres.slot)).await {
        Ok(session) => session,
        // It answers: that is told as a finding.
        Err(error @ StoreError::Refused { .. }) if !error.is_hopeless() => {
            return Ok(vec![refused(&error)]);
        }
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    let info: String = redis::cmd("INFO").query_async(&mut session.connection()).await?;
    let field = |name: &str| {
        info.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .unwrap_or_default()
            .trim()
    };
    let version = field("redis_version");
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major < 7) {
        let message = format!("this is Redis {version}: 7.0 or later is needed");
        found.push(Finding::problem(HERE, message).hint("upgrade the server"));
    } else {
        found.push(Finding::ok(HERE, format!("Redis {version}, primary")));
    }
    if field("cluster_enabled") == "1" {
        let message = "Redis Cluster is not supported yet: a step must reach all its keys at once";
        found.push(Finding::problem(HERE, message).hint("use a Redis that is no cluster"));
    }
    if config.shadow {
        found.push(shadow(&mut session, config, mapping).await?);
    } else {
        match probe(&session, config, mapping).await.and(session.state().await.map(drop)) {
            Ok(()) => found.push(Finding::ok(HERE, "the user may do all that the daemon does")),
            Err(error @ StoreError::Refused { .. }) => found.push(refused(&error)),
            Err(error) => return Err(error),
        }
    }
    found.push(eviction(field("maxmemory_policy"), field("maxmemory")));
    found.extend(keys(config, mapping));
    Ok(found)
}

fn refused(error: &StoreError) -> Finding {
    let message = match error {
        StoreError::Refused { code, message } => format!("Redis refused: {code} {message}"),
        other => other.to_string(),
    };
    Finding::problem(HERE, message).hint(error.remedy())
}

/// Reads what the daemon reads in shadow mode. Nothing is written here either.
async fn shadow(
    session: &mut Session,
    config: &Config,
    mapping: &Mapping,
) -> Result<Finding, StoreError> {
    let line = format!(
        "a Redis user that cannot write: ACL SETUSER shadow on >… %R~{}* %R~unstale:* -@all {}",
        config.redis.key_prefix, SHADOW_COMMANDS
    );
    let state = match session.state().await.and(read_only(session, mapping).await) {
        Ok(()) => session.state().await?,
        Err(error @ StoreError::Refused { .. }) => {
            let StoreError::Refused { code, message } = &error else { return Err(error) };
            let message = format!("Redis refused: {code} {message}");
            return Ok(Finding::problem(HERE, message)
                .hint(format!("grant what looking on needs, {line}")));
        }
        Err(error) => return Err(error),
    };
    if state.is_some_and(|state| state.valid) {
        let message = format!(
            "{} is valid: a daemon keeps this cache by this slot, or did, so shadow mode will refuse to run",
            session.keys().state
        );
        let hint = "let postgres.slot name another slot in shadow mode, or set shadow = false";
        return Ok(Finding::problem(HERE, message).hint(hint));
    }
    let message = "shadow mode: the user may read all that is looked at, and nothing is written";
    Ok(Finding::ok(HERE, message).hint(format!("to be sure of it, {line}")))
}

/// What a daemon in shadow mode sends; `unstale status`, too.
const SHADOW_COMMANDS: &str = "+select +info +scan +get +mget +exists +ttl +pttl +pexpiretime +time +hget +hgetall +memory|usage";

async fn read_only(session: &Session, mapping: &Mapping) -> Result<(), StoreError> {
    let mut connection = session.connection();
    let mut look = redis::pipe();
    look.cmd("TIME").ignore().cmd("SCAN").arg(0).arg("COUNT").arg(1).ignore();
    for (_, cache) in mapping.caches() {
        // Nobody has such a key.
        let key = [&*cache.prefix, b"unstale-check"].concat();
        look.cmd("GET").arg(&key).ignore().cmd("PEXPIRETIME").arg(&key).ignore();
    }
    Ok(look.query_async::<()>(&mut connection).await?)
}

/// Does what the daemon does, with keys of a name that nobody has.
async fn probe(session: &Session, config: &Config, mapping: &Mapping) -> Result<(), StoreError> {
    let keys = session.keys();
    let random = fastrand::u64(..);
    let mut connection = session.connection();
    let script = Script::new(include_str!("probe.lua"));
    let mut names: Vec<Vec<u8>> = vec![
        format!("unstale:{}:check:{random:016x}", config.postgres.slot).into_bytes(),
        format!("unstale:{}:check:{random:016x}:fresh", config.postgres.slot).into_bytes(),
    ];
    for (_, cache) in mapping.caches() {
        let value = [&*cache.prefix, format!("unstale-check-{random:016x}").as_bytes()].concat();
        names.push([keys.lease_prefix.as_bytes(), b"{", &value, b"}"].concat());
        names.push(value);
    }
    let mut invocation = script.prepare_invoke();
    for name in &names {
        invocation.key(name);
    }
    invocation.invoke_async::<()>(&mut connection).await?;
    redis::cmd("SCAN")
        .arg(0)
        .arg("COUNT")
        .arg(1)
        .query_async::<(u64, Vec<Vec<u8>>)>(&mut connection)
        .await?;
    // The purge's own, outside of scripts.
    redis::cmd("UNLINK").arg(&names).query_async::<u64>(&mut connection).await?;
    Ok(())
}

fn eviction(policy: &str, limit: &str) -> Finding {
    let limited = !matches!(limit, "0" | "");
    if policy.starts_with("allkeys-") {
        let now = if limited { "" } else { " once maxmemory is set" };
        let message = format!(
            "maxmemory-policy is {policy}: Redis may evict the daemon's state{now}, and each time \
             everything is dropped"
        );
        let hint = "CONFIG SET maxmemory-policy volatile-lru (or another volatile-…): keys without ttl then stay";
        return Finding::warning(HERE, message).hint(hint);
    }
    Finding::ok(HERE, format!("maxmemory-policy {policy} spares the daemon's state"))
}

fn keys(config: &Config, mapping: &Mapping) -> Vec<Finding> {
    let mut found = Vec::new();
    match config.redis.key_prefix.as_str() {
        "" => {
            let message = "key_prefix is empty: the caches' keys stand among all others";
            let hint = "with Django write KEY_PREFIX:VERSION:, such as prs_cache:1:";
            found.push(Finding::note(HERE, message).hint(hint));
        }
        prefix => found.push(Finding::ok(HERE, format!("keys begin with {prefix}"))),
    }
    let name = |id| mapping.cache(id).map_or("", |cache| &*cache.name);
    for (first, second) in mapping.overlaps() {
        let message = format!(
            "keys of {} begin as those of {} do: dropping all of {} drops some of {} too",
            name(*second),
            name(*first),
            name(*first),
            name(*second)
        );
        found.push(Finding::note(HERE, message).hint("harmless; other prefixes would avoid it"));
    }
    found
}
