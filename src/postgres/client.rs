//! An ordinary SQL connection: `tokio-postgres` over our own sockets, TLS and errors.

use std::collections::HashMap;
use std::error::Error as _;
use std::future::Future;
use std::future::{Ready, ready};
use std::io;
use std::ops::Deref;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use secrecy::ExposeSecret as _;
use tokio::sync::watch;
use tokio_postgres::config::{ChannelBinding as SqlChannelBinding, SslMode, SslNegotiation};
use tokio_postgres::tls::TlsConnect;
use tokio_postgres::{Client, Config, Statement};

use super::about::{About, Doing};
use super::auth::fewer_rounds;
use super::conninfo::{ChannelBinding, ConnectOptions};
use super::error::{Class, Kind, PgError};
use super::replication::connect_timed_out;
use super::socket::Stream;

/// What the way to the server and back may take beside the statement itself.
const GRACE: Duration = Duration::from_secs(5);

/// A connection for SQL, with the task that drives it. Dereferences to
/// [`tokio_postgres::Client`]; its errors become [`PgError`] by `?`.
///
/// Dropping it says goodbye to the server. A statement that is under way then ends by
/// itself, at the latest by `statement_timeout`.
pub struct SqlClient {
    client: Client,
    /// Why the connection has ended, once it has.
    ended: watch::Receiver<Option<String>>,
    /// How long an answer may take; `None`: for ever.
    patience: Option<Duration>,
    /// What is asked again and again.
    known: Mutex<HashMap<&'static str, Statement>>,
}

impl SqlClient {
    /// Connects, within `connect_timeout`. The server ends every statement that runs
    /// longer than `statement_timeout` (zero: none).
    pub async fn connect(
        options: &ConnectOptions,
        statement_timeout: Duration,
    ) -> Result<SqlClient, PgError> {
        SqlClient::open(options, statement_timeout, false).await
    }

    /// [`SqlClient::connect`], and the server refuses every write.
    pub async fn connect_read_only(
        options: &ConnectOptions,
        statement_timeout: Duration,
    ) -> Result<SqlClient, PgError> {
        SqlClient::open(options, statement_timeout, true).await
    }

    async fn open(
        options: &ConnectOptions,
        statement_timeout: Duration,
        read_only: bool,
    ) -> Result<SqlClient, PgError> {
        let opened = Box::pin(SqlClient::log_in(options, statement_timeout, read_only));
        match options.connect_timeout() {
            None => opened.await,
            Some(limit) => tokio::time::timeout(limit, opened)
                .await
                .unwrap_or_else(|_| Err(connect_timed_out(options))),
        }
        .map_err(|error| error.during("SQL connection"))
    }

    async fn log_in(
        options: &ConnectOptions,
        statement_timeout: Duration,
        read_only: bool,
    ) -> Result<SqlClient, PgError> {
        let stream = Stream::open(options).await?;
        let (client, connection) = config(options, statement_timeout, read_only)
            .connect_raw(stream, AsItIs)
            .await
            .map_err(|error| login_failed(error, options))?;
        let (tell, ended) = watch::channel(None);
        tokio::spawn(async move {
            let reason = match connection.await {
                Ok(()) => "the connection to Postgres was closed".to_owned(),
                Err(error) => PgError::from(error).what().to_owned(),
            };
            tracing::debug!(reason, "SQL connection ended");
            tell.send_replace(Some(reason));
        });
        let patience = (!statement_timeout.is_zero()).then(|| statement_timeout + GRACE);
        Ok(SqlClient { client, ended, patience, known: Mutex::default() })
    }

    /// Waits for an answer, but not much longer than the server may take for it
    /// (`statement_timeout`): a server that froze, or a network that swallows everything on
    /// this one connection, must not freeze whoever asks. After that error the
    /// connection is not worth keeping.
    pub async fn answered<T>(
        &self,
        question: impl Future<Output = Result<T, PgError>>,
    ) -> Result<T, PgError> {
        let Some(patience) = self.patience else { return question.await };
        tokio::time::timeout(patience, question).await.unwrap_or_else(|_| {
            Err(PgError::timeout(format!("Postgres did not answer within {patience:?}"))
                .with_remedy("check that the server is not frozen and that the network keeps idle connections; it is tried again on another one"))
        })
    }

    /// A statement that is prepared once: what is asked every second need not be read and planned
    /// every second, nor cost a round trip for that.
    pub async fn known(&self, sql: &'static str) -> Result<Statement, tokio_postgres::Error> {
        // What is kept is put there as a whole.
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(statement) = known().get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await?;
        known().insert(sql, statement.clone());
        Ok(statement)
    }

    /// Whether the connection has ended: every further call will fail.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.ended.borrow().is_some() || self.client.is_closed()
    }

    /// Waits until the connection has ended, and says why. Cancel-safe.
    pub async fn lost(&self) -> PgError {
        let mut ended = self.ended.clone();
        let reason = match ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone(),
            Err(_) => None, // the task was stopped with its runtime
        };
        PgError::lost(reason.unwrap_or_else(|| "the SQL connection has ended".to_owned()))
    }
}

impl Deref for SqlClient {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

fn config(options: &ConnectOptions, statement_timeout: Duration, read_only: bool) -> Config {
    // As the stream prints values, so do lookups. What the role's own settings say of
    // timeouts does not hold here: an idle connection is the rule. The planner takes a list
    // of parameters, or a function's rows, for more work than it is, and would spend tenths
    // of a second on compiling what runs for a millisecond.
    let mut settings = String::new();
    if let Some(given) = options.server_options() {
        settings.push_str(given);
    }
    settings.push_str(&format!(
        " -c statement_timeout={} -c idle_session_timeout=0 -c jit=off \
         -c DateStyle=ISO -c IntervalStyle=postgres -c TimeZone=UTC \
         -c extra_float_digits=3 -c bytea_output=hex",
        statement_timeout.as_millis()
    ));
    if read_only {
        settings.push_str(" -c default_transaction_read_only=on");
    }
    let mut config = Config::new();
    config
        .user(options.user())
        .dbname(options.database())
        .application_name(options.application_name())
        .options(settings)
        .channel_binding(match options.channel_binding() {
            ChannelBinding::Disable => SqlChannelBinding::Disable,
            ChannelBinding::Prefer => SqlChannelBinding::Prefer,
            ChannelBinding::Require => SqlChannelBinding::Require,
        })
        // "Direct" means: no request for TLS, the stream is taken as it comes.
        .ssl_mode(SslMode::Require)
        .ssl_negotiation(SslNegotiation::Direct);
    if let Some(password) = options.password() {
        config.password(password.expose_secret());
    }
    config
}

/// Hands a stream over that is already as encrypted as it should be.
struct AsItIs;

impl TlsConnect<Stream> for AsItIs {
    type Stream = Stream;
    type Error = std::convert::Infallible;
    type Future = Ready<Result<Stream, Self::Error>>;

    fn connect(self, stream: Stream) -> Self::Future {
        ready(Ok(stream))
    }
}

fn login_failed(error: tokio_postgres::Error, options: &ConnectOptions) -> PgError {
    let about = About::new(options.user(), options.database(), Doing::Login { replication: false });
    let too_many_rounds = is_too_many_rounds(&error);
    let error = PgError::sql(error, &about);
    if too_many_rounds {
        return error.refined(Kind::Login, Class::Stop, fewer_rounds(options));
    }
    // What is neither the server's report nor I/O is about the method: no password to
    // give, no channel binding, a method that is not spoken.
    if (error.kind(), error.class()) == (Kind::Server, Class::Bug) {
        let remedy = "give a password (UNSTALE_POSTGRES__PASSWORD, postgres.password_file, \
                      PGPASSWORD or .pgpass), and let pg_hba.conf ask for scram-sha-256; \
                      channel_binding=require also needs TLS";
        return error.refined(Kind::Login, Class::Stop, remedy.to_owned());
    }
    error
}

/// Whether the server's SCRAM asks for more rounds than postgres-protocol computes. Its own words
/// are all that tells (a test has them from a server); the replication connection counts itself.
fn is_too_many_rounds(error: &tokio_postgres::Error) -> bool {
    error.source().and_then(|source| source.downcast_ref::<io::Error>()).is_some_and(|error| {
        error.kind() == io::ErrorKind::InvalidInput
            && error.to_string() == "SCRAM iteration count exceeds the maximum allowed"
    })
}

// The futures here are handed from task to task.
const _: fn() = || {
    fn sent<T: Send + Sync>() {}
    sent::<SqlClient>();
    fn future<F: Future + Send>(_: fn(&'static ConnectOptions, Duration) -> F) {}
    future(SqlClient::connect);
};
