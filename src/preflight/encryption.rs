//! Whether what goes to the servers can be read, or changed, on the way: pure.

use std::net::IpAddr;

use redis::{ConnectionAddr, IntoConnectionInfo as _};
use secrecy::{ExposeSecret as _, SecretString};

use super::finding::{Finding, Section};
use super::places::Places;
use crate::config::problem::ConfigPath;
use crate::postgres::conninfo::{ConnectOptions, Host, SslMode};

/// Warns of connections that leave this machine and need not be encrypted.
#[must_use]
pub fn findings(places: &Places<'_>) -> Vec<Finding> {
    let (postgres, redis) = (&places.config.postgres, &places.config.redis);
    let at = |section, key| places.of(ConfigPath::from_iter([section, key]));
    let primary = to_postgres(Section::Postgres, "url", &postgres.url);
    let replica = postgres.replica_url.as_ref();
    let replica = replica.and_then(|url| to_postgres(Section::Replica, "replica_url", url));
    let redis = to_redis(&redis.url).map(|found| found.at(at("redis", "url")));
    let primary = primary.map(|found| found.at(at("postgres", "url")));
    let replica = replica.map(|found| found.at(at("postgres", "replica_url")));
    [primary, replica, redis].into_iter().flatten().collect()
}

fn to_postgres(section: Section, setting: &str, url: &SecretString) -> Option<Finding> {
    // What is no URL is told when it is connected to.
    let options = ConnectOptions::parse(url.expose_secret()).ok()?;
    let Host::Tcp(host) = options.host() else { return None };
    let message = match options.ssl_mode() {
        _ if is_loopback(host) => return None,
        SslMode::Disable => format!(
            "the connection to {host} is not encrypted (sslmode=disable): who is on the way reads the login and all rows, and can change them"
        ),
        SslMode::Prefer => format!(
            "the connection to {host} need not be encrypted (sslmode=prefer, the default): who is on the way can say that the server has no TLS, and reads all of it"
        ),
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => return None,
    };
    let hint = format!(
        "let postgres.{setting} end with ?sslmode=verify-full&sslrootcert=… (the file of the authority that signed the server's certificate, or system); sslmode=require at the least"
    );
    Some(Finding::warning(section, message).hint(hint))
}

fn to_redis(url: &SecretString) -> Option<Finding> {
    let info = url.expose_secret().into_connection_info().ok()?;
    let ConnectionAddr::Tcp(host, _) = info.addr() else { return None };
    if is_loopback(host) {
        return None;
    }
    let message = format!(
        "the connection to {host} is not encrypted (redis://): who is on the way reads the password and all values, and can change them"
    );
    let hint = "let redis.url begin with rediss:// (tls-port in redis.conf), with redis.ca_file for an authority of your own; or reach it by a tunnel or a unix socket";
    Some(Finding::warning(Section::Redis, message).hint(hint))
}

/// Whether what is sent there cannot leave this machine.
fn is_loopback(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let literal = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(&name);
    match literal.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => name == "localhost" || name.ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layers;

    fn warned(postgres: &str, redis: &str) -> Vec<Finding> {
        let toml = format!("[postgres]\n{postgres}\n[redis]\nurl = \"{redis}\"\n");
        let loaded = Layers::text("unstale.toml", &toml).load().unwrap();
        findings(&Places { source: &loaded.source, config: &loaded.config })
    }

    #[test]
    fn what_leaves_the_machine_unencrypted_is_told_where_it_is_set() {
        let safe = "rediss://cache.internal";
        for (url, told) in [
            ("postgres://u@db.internal/app", Some("sslmode=prefer")),
            ("postgres://u@db.internal/app?sslmode=prefer", Some("sslmode=prefer")),
            ("postgres://u@10.0.0.7/app?sslmode=disable", Some("sslmode=disable")),
            ("postgres://u@[2001:db8::1]/app?sslmode=disable", Some("sslmode=disable")),
            ("postgres://u@localhost.example/app", Some("sslmode=prefer")),
            ("postgres://u@db.internal/app?sslmode=require", None),
            ("postgres://u@db.internal/app?sslmode=verify-full", None),
            ("postgres://u@127.8.0.1/app?sslmode=disable", None),
            ("postgres://u@[::1]/app", None),
            ("postgres://u@LocalHost./app", None),
            ("postgres:///app?host=/run/postgresql&user=u", None),
        ] {
            let found = warned(&format!("url = \"{url}\""), safe);
            assert_eq!(found.len(), usize::from(told.is_some()), "{url}: {found:?}");
            if let (Some(told), [found]) = (told, &*found) {
                assert!(found.message.contains(told), "{url}: {found:?}");
                assert_eq!(found.place.as_deref(), Some("unstale.toml:2:7"));
                assert!(found.hint.as_deref().unwrap().contains("postgres.url"), "{found:?}");
            }
        }
    }

    #[test]
    fn the_replica_and_redis_are_looked_at_too() {
        let postgres =
            "url = \"postgres://u@127.0.0.1/app\"\nreplica_url = \"postgres://u:hunter2@db2/app\"";
        let found = warned(postgres, "redis://:hunter2@cache.internal/1");
        let [replica, redis] = &*found else { panic!("{found:?}") };
        assert_eq!((replica.section, redis.section), (Section::Replica, Section::Redis));
        assert!(replica.hint.as_deref().unwrap().contains("postgres.replica_url"), "{replica:?}");
        assert!(redis.message.contains("cache.internal"), "{redis:?}");
        assert!(!format!("{found:?}").contains("hunter2"), "{found:?}");
        for url in [
            "redis://127.0.0.1:6379/1",
            "redis://localhost",
            "redis://[::1]",
            "unix:///run/redis.sock",
        ] {
            assert_eq!(warned("url = \"postgres://u@localhost/app\"", url), [], "{url}");
        }
    }
}
