//! A connection URL as libpq reads it (manual, "Connection Strings" and "Parameter Key
//! Words").
//!
//! What differs from libpq, on purpose: an unknown parameter is an error that lists the
//! known ones; user, database and host must be named, since a daemon has no use for a
//! guess; several hosts and `sslmode=allow` are refused; no certificate is picked up from
//! a home folder. Errors never quote what may be a part of a password: one that holds an
//! unescaped `@` or `/` shifts every part of the URL.

use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use secrecy::SecretString;

use super::conninfo::{
    ChannelBinding, ConnInfoError, ConnectOptions, Host, Keepalive, RootCert, SslMode,
};

fn wrong(what: impl Into<String>, hint: impl Into<String>) -> ConnInfoError {
    ConnInfoError { what: what.into(), hint: hint.into() }
}

const SHAPE: &str = "write postgres://user@host:port/database, or \
                     postgres:///database?host=/socket/folder&user=user";
const ESCAPE: &str = "write special characters of a user, password or database as %XX \
                      (@ is %40, : is %3A, / is %2F, ? is %3F, % is %25)";

/// The parameters behind `?`, in the order in which an error lists them.
const PARAMETERS: [&str; 18] = [
    "host",
    "port",
    "user",
    "password",
    "dbname",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "channel_binding",
    "application_name",
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "options",
    "client_encoding",
];

pub(super) fn parse(url: &str) -> Result<ConnectOptions, ConnInfoError> {
    let rest = url
        .strip_prefix("postgres://")
        .or_else(|| url.strip_prefix("postgresql://"))
        .ok_or_else(|| wrong("this is no Postgres URL", SHAPE))?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    if tail.contains('@') {
        return Err(wrong("an @ stands behind the host", ESCAPE));
    }
    let (path, query) = match tail.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (tail, None),
    };

    let mut draft = Draft::default();
    draft.authority(authority)?;
    draft.database = non_empty(decode(path.strip_prefix('/').unwrap_or(path), "database")?);
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        draft.parameter(&decode(name, "parameter")?, decode(value, "parameter")?)?;
    }
    draft.finish()
}

/// What has been read of a URL so far.
#[derive(Default)]
struct Draft {
    host: Option<String>,
    port: Option<u16>,
    user: Option<String>,
    password: Option<SecretString>,
    database: Option<String>,
    application_name: Option<String>,
    server_options: Option<String>,
    ssl_mode: Option<SslMode>,
    ssl_root_cert: Option<RootCert>,
    ssl_cert: Option<PathBuf>,
    ssl_key: Option<PathBuf>,
    channel_binding: Option<ChannelBinding>,
    connect_timeout: Option<u32>,
    keepalives: Option<bool>,
    keepalives_idle: Option<u32>,
    keepalives_interval: Option<u32>,
    keepalives_count: Option<u32>,
}

impl Draft {
    /// `user:password@host:port`
    fn authority(&mut self, authority: &str) -> Result<(), ConnInfoError> {
        let (login, place) = match authority.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, authority),
        };
        if let Some(login) = login {
            let (user, password) = match login.split_once(':') {
                Some((user, password)) => (user, Some(password)),
                None => (login, None),
            };
            self.user = non_empty(decode(user, "user")?);
            if let Some(password) = password {
                self.password = non_empty(decode(password, "password")?).map(SecretString::from);
            }
        }
        let (host, port) = match place.strip_prefix('[') {
            Some(bracketed) => {
                let (address, behind) = bracketed
                    .split_once(']')
                    .ok_or_else(|| wrong("an IPv6 address has no closing bracket", SHAPE))?;
                let port = match behind.strip_prefix(':') {
                    None if behind.is_empty() => None,
                    Some(port) => Some(port),
                    None => return Err(wrong("text stands behind an IPv6 address", SHAPE)),
                };
                (address, port)
            }
            None => match place.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (place, None),
            },
        };
        self.host = non_empty(decode(host, "host")?);
        self.port = port.filter(|port| !port.is_empty()).map(read_port).transpose()?;
        Ok(())
    }

    fn parameter(&mut self, name: &str, value: String) -> Result<(), ConnInfoError> {
        match name {
            "host" => self.host = non_empty(value),
            "port" => self.port = Some(read_port(&value)?),
            "user" => self.user = non_empty(value),
            "password" => self.password = non_empty(value).map(SecretString::from),
            "dbname" => self.database = non_empty(value),
            "sslmode" => self.ssl_mode = Some(read_ssl_mode(&value)?),
            "sslrootcert" => {
                self.ssl_root_cert = non_empty(value).map(|value| match value.as_str() {
                    "system" => RootCert::System,
                    _ => RootCert::File(value.into()),
                });
            }
            "sslcert" => self.ssl_cert = non_empty(value).map(PathBuf::from),
            "sslkey" => self.ssl_key = non_empty(value).map(PathBuf::from),
            "channel_binding" => {
                self.channel_binding = Some(match value.as_str() {
                    "disable" => ChannelBinding::Disable,
                    "prefer" => ChannelBinding::Prefer,
                    "require" => ChannelBinding::Require,
                    _ => return Err(one_of(name, &value, "disable, prefer, require")),
                });
            }
            "application_name" => self.application_name = non_empty(value),
            "options" => self.server_options = non_empty(value),
            "connect_timeout" => self.connect_timeout = Some(read_number(name, &value)?),
            "keepalives" => {
                self.keepalives = Some(match value.as_str() {
                    "0" => false,
                    "1" => true,
                    _ => return Err(one_of(name, &value, "0, 1")),
                });
            }
            "keepalives_idle" => self.keepalives_idle = Some(read_number(name, &value)?),
            "keepalives_interval" => self.keepalives_interval = Some(read_number(name, &value)?),
            "keepalives_count" => self.keepalives_count = Some(read_number(name, &value)?),
            // Written by many tools. The stream is always read as UTF-8.
            "client_encoding" => match value.to_ascii_lowercase().as_str() {
                "utf8" | "utf-8" | "unicode" => {}
                _ => return Err(one_of(name, &value, "UTF8")),
            },
            _ => {
                return Err(wrong(
                    format!("the parameter {name:?} is not known"),
                    format!("known are: {}", PARAMETERS.join(", ")),
                ));
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<ConnectOptions, ConnInfoError> {
        let host = self.host.ok_or_else(|| wrong("the URL names no host", SHAPE))?;
        if host.contains(',') {
            return Err(wrong(
                "the URL names several hosts",
                "name the primary alone: a slot lives on one server",
            ));
        }
        let host = match host.as_bytes().first() {
            Some(b'/') => Host::Unix(host.into()),
            Some(b'@') => {
                return Err(wrong(
                    "abstract unix sockets are not supported",
                    "name the folder of a socket in the file system",
                ));
            }
            _ => Host::Tcp(host),
        };
        // With the system's authorities anybody can have a certificate: only the name tells
        // the server apart (libpq has the same rule).
        let system = self.ssl_root_cert == Some(RootCert::System);
        let ssl_mode = match self.ssl_mode {
            None if system => SslMode::VerifyFull,
            Some(mode) if system && mode != SslMode::VerifyFull => {
                return Err(wrong(
                    "sslrootcert=system needs sslmode=verify-full",
                    "leave sslmode out, or name a file of your own authority",
                ));
            }
            mode => mode.unwrap_or(SslMode::Prefer),
        };
        if ssl_mode == SslMode::VerifyCa && self.ssl_root_cert.is_none() {
            return Err(wrong(
                "sslmode=verify-ca needs sslrootcert",
                "name the file of your authority's certificate, or use sslmode=verify-full",
            ));
        }
        let ssl_client_cert = match (self.ssl_cert, self.ssl_key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return Err(wrong("sslcert and sslkey go together", "name both, or none")),
        };
        let channel_binding = self.channel_binding.unwrap_or(ChannelBinding::Prefer);
        let encrypted = ssl_mode != SslMode::Disable && !matches!(host, Host::Unix(_));
        if channel_binding == ChannelBinding::Require && !encrypted {
            return Err(wrong(
                "channel_binding=require needs TLS, which a unix socket and sslmode=disable lack",
                "use sslmode=require or better on a TCP connection, or leave channel_binding out",
            ));
        }
        let seconds = |given: Option<u32>, default: u32| {
            Duration::from_secs(given.filter(|&n| n > 0).unwrap_or(default).into())
        };
        Ok(ConnectOptions {
            host,
            port: self.port.unwrap_or(5432),
            user: self.user.ok_or_else(|| wrong("the URL names no user", SHAPE))?,
            database: self.database.ok_or_else(|| wrong("the URL names no database", SHAPE))?,
            password: self.password,
            application_name: self.application_name.unwrap_or_else(|| "unstale".to_owned()),
            server_options: self.server_options,
            ssl_mode,
            ssl_root_cert: self.ssl_root_cert,
            ssl_client_cert,
            channel_binding,
            connect_timeout: match self.connect_timeout {
                Some(0) => None, // as libpq: wait for ever
                given => Some(seconds(given, 10)),
            },
            // The system's default of two hours would leave a vanished server unnoticed.
            keepalive: self.keepalives.unwrap_or(true).then(|| Keepalive {
                idle: seconds(self.keepalives_idle, 30),
                interval: seconds(self.keepalives_interval, 10),
                count: self.keepalives_count.filter(|&n| n > 0).unwrap_or(3),
            }),
        })
    }
}

fn non_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// Takes %XX apart. Unlike the crate's own decoder, a lone % is an error: it is nearly
/// always a password that somebody forgot to escape.
fn decode(text: &str, part: &str) -> Result<String, ConnInfoError> {
    let mut rest = text.as_bytes();
    while let Some(at) = memchr::memchr(b'%', rest) {
        let (_, tail) = rest.split_at(at);
        match tail {
            [_, a, b, tail @ ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => rest = tail,
            _ => return Err(wrong(format!("a % without two digits in the {part}"), ESCAPE)),
        }
    }
    let text = percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| wrong(format!("the {part} is not UTF-8"), ESCAPE))?;
    if text.contains('\0') {
        return Err(wrong(format!("the {part} holds a zero byte"), ESCAPE));
    }
    Ok(text.into_owned())
}

fn read_port(text: &str) -> Result<u16, ConnInfoError> {
    if text.contains(',') {
        return Err(wrong(
            "the URL names several ports",
            "name the primary alone: a slot lives on one server",
        ));
    }
    // Not quoted: behind an unescaped password it may be a part of that.
    text.parse::<u16>().ok().filter(|&port| port > 0).ok_or_else(|| {
        wrong("the port is not a number between 1 and 65535", format!("{SHAPE}; {ESCAPE}"))
    })
}

fn read_ssl_mode(value: &str) -> Result<SslMode, ConnInfoError> {
    Ok(match value {
        "disable" => SslMode::Disable,
        "prefer" => SslMode::Prefer,
        "require" => SslMode::Require,
        "verify-ca" => SslMode::VerifyCa,
        "verify-full" => SslMode::VerifyFull,
        "allow" => {
            return Err(wrong(
                "sslmode=allow is not supported",
                "it encrypts only when the server insists: use prefer, or better verify-full",
            ));
        }
        _ => {
            let allowed = "disable, prefer, require, verify-ca, verify-full";
            return Err(one_of("sslmode", value, allowed));
        }
    })
}

fn read_number(name: &str, value: &str) -> Result<u32, ConnInfoError> {
    value.trim().parse().map_err(|_| one_of(name, value, "a whole number (of seconds)"))
}

fn one_of(name: &str, value: &str, allowed: &str) -> ConnInfoError {
    wrong(format!("{name}={value} is not understood"), format!("allowed: {allowed}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::password::PasswordSources;
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    fn password(options: &ConnectOptions) -> Option<&str> {
        options.password().map(ExposeSecret::expose_secret)
    }

    #[test]
    fn every_part_of_a_url_is_read() {
        let o = parse("postgres://me:p%40ss%2F@db.example:6000/app?sslmode=verify-full&sslrootcert=/ca.pem&sslcert=/c.pem&sslkey=/k.pem&channel_binding=require&application_name=x%20y&connect_timeout=3&keepalives_idle=7&options=-c%20search_path%3Da").unwrap();
        assert_eq!(o.host, Host::Tcp("db.example".into()));
        assert_eq!((o.port, o.user.as_str(), o.database.as_str()), (6000, "me", "app"));
        assert_eq!(password(&o), Some("p@ss/"));
        assert_eq!(o.ssl_mode, SslMode::VerifyFull);
        assert_eq!(o.ssl_root_cert, Some(RootCert::File("/ca.pem".into())));
        assert_eq!(o.ssl_client_cert, Some(("/c.pem".into(), "/k.pem".into())));
        assert_eq!(o.channel_binding, ChannelBinding::Require);
        assert_eq!(o.application_name, "x y");
        assert_eq!(o.connect_timeout, Some(Duration::from_secs(3)));
        assert_eq!(o.keepalive.unwrap().idle, Duration::from_secs(7));
        assert_eq!(o.server_options.as_deref(), Some("-c search_path=a"));
    }

    #[test]
    fn sockets_and_ipv6_are_read() {
        for url in [
            "postgresql:///app?host=/run/pg&user=me&port=6000",
            "postgres://me@%2Frun%2Fpg:6000/app",
        ] {
            let o = parse(url).unwrap();
            assert_eq!(o.host, Host::Unix("/run/pg".into()), "{url}");
            assert_eq!(o.address(), "/run/pg/.s.PGSQL.6000");
        }
        let o = parse("postgres://me@[::1]:6000/app?keepalives=0&connect_timeout=0").unwrap();
        assert_eq!(o.host, Host::Tcp("::1".into()));
        assert_eq!(o.address(), "[::1]:6000");
        assert_eq!((o.keepalive, o.connect_timeout), (None, None));
    }

    #[test]
    fn an_authority_of_the_system_means_verify_full() {
        let o = parse("postgres://me@h/app?sslrootcert=system").unwrap();
        assert_eq!(o.ssl_mode, SslMode::VerifyFull);
        assert!(parse("postgres://me@h/app?sslrootcert=system&sslmode=require").is_err());
    }

    #[test]
    fn what_is_wrong_is_said_with_what_is_allowed() {
        for (url, said) in [
            ("mysql://me@h/app", "postgres://user@host:port/database"),
            ("postgres://me@h/app?sslmod=require", "known are: host, port"),
            ("postgres://me@h/app?ssl=true", "sslmode"),
            ("postgres://me@h/app?sslmode=allow", "use prefer"),
            ("postgres://me@h/app?sslmode=on", "disable, prefer, require, verify-ca, verify-full"),
            ("postgres://me@h/app?sslmode=verify-ca", "sslrootcert"),
            ("postgres://me@h/app?channel_binding=yes", "disable, prefer, require"),
            ("postgres://me@h/app?channel_binding=require&sslmode=disable", "needs TLS"),
            ("postgres:///app?host=/run&user=me&channel_binding=require", "needs TLS"),
            ("postgres://me@a,b/app", "several hosts"),
            ("postgres://me@a:1,b:2/app", "several ports"),
            ("postgres://me@h:0/app", "between 1 and 65535"),
            ("postgres://me@h:99999/app", "between 1 and 65535"),
            ("postgres://me@[::1/app", "bracket"),
            ("postgres://h/app", "names no user"),
            ("postgres://me@h", "names no database"),
            ("postgres://me@/app", "names no host"),
            ("postgres://me@h/app?sslcert=/c", "go together"),
            ("postgres://me@h/app?keepalives_idle=soon", "whole number"),
            ("postgres://me:5%zz@h/app", "%25"),
            ("postgres://me@h/app?client_encoding=latin1", "UTF8"),
        ] {
            let error = parse(url).expect_err(url).to_string();
            assert!(error.contains(said), "{url}: {error}");
        }
    }

    #[test]
    fn a_password_that_should_have_been_escaped_is_not_shown() {
        for url in [
            "postgres://me:secret@1/secret2@h/app",
            "postgres://me:se/secret2@h/app",
            "postgres://me:se?secret2=x@h/app",
            "postgres://me:secret2:x/y@h:1/app",
            "postgres://me:%secret2@h/app",
            "postgres://me:secret2@h:secret2/app",
        ] {
            let error = parse(url).expect_err(url);
            assert!(!format!("{error} {error:?}").contains("secret"), "{url}: {error}");
        }
    }

    #[test]
    fn debug_output_has_no_password() {
        let o = parse("postgres://me:hunter2@h/app?password=hunter2").unwrap();
        assert!(!format!("{o:?}").contains("hunter2"));
    }

    #[test]
    fn the_url_has_the_first_word_on_the_password() {
        let sources = PasswordSources { variable: Some("variable".to_owned().into()), file: None };
        let explicit = || Some(SecretString::from("explicit".to_owned()));
        let found = |url, explicit| {
            let o = parse(url).unwrap().find_password(explicit, &sources).unwrap();
            password(&o).unwrap().to_owned()
        };
        assert_eq!(found("postgres://me:url@h/app", explicit()), "url");
        assert_eq!(found("postgres://me@h/app", explicit()), "explicit");
        assert_eq!(found("postgres://me@h/app", None), "variable");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".*", prefix in prop::bool::ANY) {
            drop(parse(&if prefix { format!("postgres://{text}") } else { text }));
        }

        #[test]
        fn whatever_is_escaped_comes_back(user in "[^\0]{1,8}", secret in "[^\0]{1,12}", database in "[^\0]{1,8}") {
            let escape = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
            let url = format!("postgres://{}:{}@h/{}", escape(&user), escape(&secret), escape(&database));
            let o = parse(&url).unwrap();
            prop_assert_eq!(o.user.as_str(), user);
            prop_assert_eq!(o.database.as_str(), database);
            prop_assert_eq!(password(&o), Some(secret.as_str()));
        }
    }
}
