//! Where a password comes from when neither URL nor configuration hold one: `PGPASSWORD`,
//! then the password file (manual, "The Password File").

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::conninfo::{ConnectOptions, Host};
use super::error::PgError;

/// The places outside of the configuration.
#[derive(Default)]
pub(super) struct PasswordSources {
    /// `PGPASSWORD`
    pub(super) variable: Option<SecretString>,
    /// `PGPASSFILE`, else `~/.pgpass`.
    pub(super) file: Option<PathBuf>,
}

impl PasswordSources {
    pub(super) fn from_environment() -> PasswordSources {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        PasswordSources {
            variable: variable("PGPASSWORD").map(SecretString::from),
            file: variable("PGPASSFILE")
                .map(PathBuf::from)
                .or_else(|| std::env::home_dir().map(|home| home.join(".pgpass"))),
        }
    }

    pub(super) fn find(&self, options: &ConnectOptions) -> Result<Option<SecretString>, PgError> {
        if let Some(password) = &self.variable {
            return Ok(Some(password.clone()));
        }
        let Some(path) = &self.file else { return Ok(None) };
        let Some(text) = read(path)? else { return Ok(None) };
        Ok(lookup(&text, options).map(SecretString::from))
    }
}

/// The file's text; `None` if there is none, or if libpq would ignore it.
fn read(path: &Path) -> Result<Option<String>, PgError> {
    let refuse = |error: io::Error| {
        PgError::settings(
            format!("the password file {} cannot be read: {error}", path.display()),
            "make it readable for the user that runs this, or set PGPASSFILE to another",
        )
    };
    let about = match fs::metadata(path) {
        Ok(about) => about,
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(refuse(error)),
    };
    if !about.is_file() {
        tracing::warn!(file = %path.display(), "password file ignored: not a plain file");
        return Ok(None);
    }
    if about.permissions().mode() & 0o077 != 0 {
        tracing::warn!(
            file = %path.display(),
            "password file ignored: others may read it; run chmod 0600 on it"
        );
        return Ok(None);
    }
    fs::read(path).map(|bytes| Some(String::from_utf8_lossy(&bytes).into_owned())).map_err(refuse)
}

/// The password of the first line that fits: `host:port:database:user:password`, each of
/// the first four literal or `*`, with `\:` and `\\` escaped.
fn lookup(text: &str, options: &ConnectOptions) -> Option<String> {
    text.lines().find_map(|line| {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.starts_with('#') {
            return None;
        }
        let (host, rest) = field(line)?;
        let (port, rest) = field(rest)?;
        let (database, rest) = field(rest)?;
        let (user, rest) = field(rest)?;
        let fits = |pattern: &Field, actual: &str| pattern.wildcard || pattern.text == actual;
        let host_fits = match options.host() {
            Host::Tcp(name) => fits(&host, name),
            Host::Unix(folder) => {
                fits(&host, "localhost") || fits(&host, &folder.to_string_lossy())
            }
        };
        let found = host_fits
            && fits(&port, &options.port().to_string())
            && fits(&database, options.database())
            && fits(&user, options.user());
        // The password ends with the line, or (in libpq, and so here) at an unescaped colon.
        let password = field(rest).map_or_else(|| unescape(rest), |(password, _)| password.text);
        (found && !password.is_empty()).then_some(password)
    })
}

struct Field {
    text: String,
    /// A bare `*`; `\*` is a star.
    wildcard: bool,
}

/// Splits off a field and its colon.
fn field(line: &str) -> Option<(Field, &str)> {
    let mut escaped = false;
    let end = line.char_indices().find_map(|(at, c)| {
        let ends = c == ':' && !escaped;
        escaped = c == '\\' && !escaped;
        ends.then_some(at)
    })?;
    let (raw, rest) = line.split_at(end);
    Some((Field { text: unescape(raw), wildcard: raw == "*" }, rest.strip_prefix(':')?))
}

fn unescape(raw: &str) -> String {
    let mut text = String::with_capacity(raw.len());
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        // A backslash at the very end stands for itself.
        text.push(if c == '\\' { chars.next().unwrap_or('\\') } else { c });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use secrecy::ExposeSecret as _;

    fn options(url: &str) -> ConnectOptions {
        ConnectOptions::parse(url).unwrap()
    }

    #[test]
    fn the_first_line_that_fits_counts() {
        let file = "# db:5432:app:me:comment\n\ndb:5433:app:me:port\nother:*:*:*:host\ndb:*:app:you:user\n\
                    db:5432:*:me:first\r\n*:*:*:*:last\n";
        assert_eq!(lookup(file, &options("postgres://me@db/app")).as_deref(), Some("first"));
        assert_eq!(lookup(file, &options("postgres://me@db:5433/app")).as_deref(), Some("port"));
        assert_eq!(lookup(file, &options("postgres://me@x/app")).as_deref(), Some("last"));
        assert_eq!(lookup("db:5432:app:me", &options("postgres://me@db/app")), None);
    }

    #[test]
    fn colons_and_backslashes_are_escaped() {
        let file = r"db:5432:a\:p:m\\e:s\:e\\c\*";
        let wanted = options(r"postgres://m%5Ce@db/a%3Ap");
        assert_eq!(lookup(file, &wanted).as_deref(), Some(r"s:e\c*"));
        let starred = options("postgres://me@db/*");
        assert_eq!(lookup(r"db:5432:\*:me:star", &starred).as_deref(), Some("star"));
        let plain = options("postgres://me@db/app");
        assert_eq!(lookup(r"db:5432:\*:me:star", &plain), None, "no wildcard");
    }

    #[test]
    fn a_unix_socket_is_localhost_or_its_folder() {
        let socket = options("postgres:///app?host=/run/pg&user=me");
        for host in ["localhost", "/run/pg", "*"] {
            let file = format!("{host}:5432:app:me:x");
            assert_eq!(lookup(&file, &socket).as_deref(), Some("x"), "{host}");
        }
        assert_eq!(lookup("127.0.0.1:5432:app:me:x", &socket), None);
    }

    #[test]
    fn a_file_that_others_can_read_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pgpass");
        let wanted = options("postgres://me@db/app");
        let sources = PasswordSources { variable: None, file: Some(path.clone()) };
        assert!(sources.find(&wanted).unwrap().is_none(), "no file, no error");
        fs::write(&path, "*:*:*:*:x").unwrap();
        for (mode, found) in [(0o644, false), (0o640, false), (0o600, true), (0o400, true)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let password = sources.find(&wanted).unwrap();
            assert_eq!(password.is_some(), found, "{mode:o}");
            assert_eq!(password.map(|p| p.expose_secret().to_owned()), found.then(|| "x".into()));
        }
    }

    fn escape(text: &str) -> String {
        text.replace('\\', r"\\").replace(':', r"\:")
    }

    proptest! {
        #[test]
        fn whatever_is_escaped_comes_back(secret in "[^\r\n]{1,12}", database in "[^\r\n\0*]{1,8}") {
            let wanted = ConnectOptions::parse(&format!(
                "postgres://me@db/{}",
                percent_encoding::utf8_percent_encode(&database, percent_encoding::NON_ALPHANUMERIC)
            ))
            .unwrap();
            let file = format!("db:5432:{}:me:{}\n", escape(&database), escape(&secret));
            prop_assert_eq!(lookup(&file, &wanted), Some(secret));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "[ab:*\\\\\n]{0,40}") {
            drop(lookup(&text, &options("postgres://a@b/a")));
        }
    }
}
