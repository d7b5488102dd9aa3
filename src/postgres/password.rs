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
