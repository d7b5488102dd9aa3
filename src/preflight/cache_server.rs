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
    match probe(&session, config, mapping).await.and(session.state().await.map(drop)) {
        Ok(()) => found.push(Finding::ok(HERE, "the user may do all that the daemon does")),
        Err(error @ StoreError::Refused { .. }) => found.push(refused(&error)),
        Err(error) => return Err(error),
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
