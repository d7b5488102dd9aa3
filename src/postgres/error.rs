//! What went wrong with Postgres, whether trying again can help, and what to do.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;

use super::about::About;
use super::backend::ServerError;

/// What a caller does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It may pass by itself: try again, with backoff.
    Retry,
    /// It stays until somebody changes a setting, a grant or a file.
    Stop,
    /// It should not be possible: a fault of this program or of the server's protocol.
    Bug,
}

/// What happened, as far as a caller may want to act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// The connection settings are wrong or point to a file that cannot be read.
    Settings,
    /// No connection came about: name lookup, refused, unreachable.
    Unreachable,
    /// The connection was there and is gone; also: the server shuts down or has crashed.
    Lost,
    /// No answer in time.
    Timeout,
    /// TLS was refused, or the certificate was.
    Tls,
    /// The server turned the login down: password, `pg_hba.conf`, no such role.
    Login,
    /// The database does not exist.
    NoDatabase,
    /// The role lacks a privilege or an attribute.
    Privilege,
    /// A named object (slot, publication, table, column, function) does not exist.
    Missing,
    /// The slot is being read by another connection.
    SlotBusy {
        /// The walsender that holds it, if it still did when asked.
        pid: Option<i32>,
    },
    /// The slot exists and can never be read again: the server removed WAL that it needed.
    SlotLost,
    /// `wal_level` is lower than `logical`.
    WalLevel,
    /// The server is a standby, and only the primary will do.
    Standby,
    /// A limit of the server is reached (slots, connections, memory, disk).
    Limit,
    /// The server starts up or recovers and takes no connections yet.
    Starting,
    /// A statement was canceled, by `statement_timeout` or by an operator.
    Canceled,
    /// Any other error that the server reported.
    Server,
    /// The server said what the protocol does not allow.
    Protocol,
}

/// An error of this room. Prints as what happened, then what to do; never a password.
#[derive(Clone)]
pub struct PgError(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: Kind,
    class: Class,
    what: String,
    remedy: Option<String>,
    sqlstate: Option<String>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl PgError {
    /// What happened.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Whether trying again can help.
    #[must_use]
    pub fn class(&self) -> Class {
        self.0.class
    }

    /// The server's error code (manual, appendix A), if the server reported the error.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        self.0.sqlstate.as_deref()
    }

    /// What happened, in words.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.0.what
    }

    /// What to do about it, in words.
    #[must_use]
    pub fn remedy(&self) -> Option<&str> {
        self.0.remedy.as_deref()
    }

    /// The same error with what was being done set before it: `reading the slot: …`.
    #[must_use]
    pub fn during(mut self, doing: &str) -> PgError {
        self.0.what = format!("{doing}: {}", self.0.what);
        self
    }

    pub(super) fn new(kind: Kind, class: Class, what: impl Into<String>) -> PgError {
        PgError(Box::new(Inner {
            kind,
            class,
            what: what.into(),
            remedy: None,
            sqlstate: None,
            source: None,
        }))
    }

    /// The server (or whoever answered in its place) broke the protocol.
    pub(super) fn protocol(what: impl Into<String>) -> PgError {
        PgError::new(Kind::Protocol, Class::Bug, what).with_remedy(
            "check that the address is a Postgres server's and that no proxy stands between; \
             if so, this is a bug worth reporting",
        )
    }

    pub(super) fn settings(what: impl Into<String>, remedy: impl Into<String>) -> PgError {
        PgError::new(Kind::Settings, Class::Stop, what).with_remedy(remedy)
    }

    pub(crate) fn timeout(what: impl Into<String>) -> PgError {
        PgError::new(Kind::Timeout, Class::Retry, what)
    }

    /// The server went away in the middle.
    pub(crate) fn lost(what: impl Into<String>) -> PgError {
        PgError::new(Kind::Lost, Class::Retry, what)
    }

    pub(super) fn with_remedy(mut self, remedy: impl Into<String>) -> PgError {
        self.0.remedy = Some(remedy.into());
        self
    }

    pub(super) fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> PgError {
        self.0.source = Some(Arc::new(source));
        self
    }

    /// An I/O error on a connection that was there. TLS errors hide in these: a certificate
    /// that is refused stays refused, a reset may pass.
    pub(super) fn io(doing: &str, error: io::Error) -> PgError {
        if let Some(tls) = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
            return super::tls::explain(tls);
        }
        let what = match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                format!("{doing}: the server closed the connection")
            }
            _ => format!("{doing}: {error}"),
        };
        PgError::lost(what).with_source(error)
    }

    /// What the server reported.
    pub(super) fn server(error: &ServerError, about: &About) -> PgError {
        let verdict = about.judge(&error.sqlstate);
        let mut what = error.message.clone();
        if let Some(detail) = &error.detail {
            what = format!("{what} ({detail})");
        }
        PgError(Box::new(Inner {
            kind: verdict.kind,
            class: verdict.class,
            what,
            // The server's own hint is the better one where we have none.
            remedy: verdict.remedy.or_else(|| error.hint.clone()),
            sqlstate: Some(error.sqlstate.clone()),
            source: None,
        }))
    }

    /// The same event, seen more closely: the server's report stays, the verdict changes.
    pub(super) fn refined(mut self, kind: Kind, class: Class, remedy: String) -> PgError {
        self.0.kind = kind;
        self.0.class = class;
        self.0.remedy = Some(remedy);
        self
    }

    /// An error of `tokio-postgres`, with what is known of the connection.
    pub(super) fn sql(error: tokio_postgres::Error, about: &About) -> PgError {
        if let Some(reported) = error.as_db_error() {
            let reported = ServerError {
                sqlstate: reported.code().code().to_owned(),
                message: reported.message().to_owned(),
                detail: reported.detail().map(str::to_owned),
                hint: reported.hint().map(str::to_owned),
            };
            return PgError::server(&reported, about).with_source(error);
        }
        if error.is_closed() {
            return PgError::lost("the connection to Postgres has ended").with_source(error);
        }
        let source = StdError::source(&error);
        if let Some(io) = source.and_then(|e| e.downcast_ref::<io::Error>()) {
            // A parse error comes as an io::Error, too: of kind InvalidData or InvalidInput.
            return match io.kind() {
                io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
                    PgError::protocol(format!("{error}: {io}")).with_source(error)
                }
                _ => PgError::lost(format!("{error}: {io}")).with_source(error),
            };
        }
        // What is left is about how a query was put: a parameter or a column that does not fit.
        let what = match source {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
        PgError::new(Kind::Server, Class::Bug, what).with_source(error)
    }
}

impl From<tokio_postgres::Error> for PgError {
    fn from(error: tokio_postgres::Error) -> PgError {
        PgError::sql(error, &About::a_query())
    }
}

impl fmt::Display for PgError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)?;
        if let Some(code) = &self.0.sqlstate {
            write!(f, " [SQLSTATE {code}]")?;
        }
        if let Some(remedy) = &self.0.remedy {
            write!(f, "; {remedy}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for PgError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgError")
            .field("kind", &self.0.kind)
            .field("class", &self.0.class)
            .field("what", &self.0.what)
            .field("remedy", &self.0.remedy)
            .field("sqlstate", &self.0.sqlstate)
            .finish_non_exhaustive()
    }
}

impl StdError for PgError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}
