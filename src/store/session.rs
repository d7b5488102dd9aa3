//! One connection to Redis, from its opening to its first error.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, IntoConnectionInfo, Script, TlsCertificates, Value,
};
use secrecy::ExposeSecret;

use super::error::StoreError;
use super::keys::ControlKeys;
use super::script::{call, call_with_room, evaluate, unexpected};
use super::state::{Field, Nonce, State};
use crate::config::model;
use crate::lsn::Lsn;

static STEP: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/step.lua")));
static DECLARE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/declare.lua")));

/// How long a certificate stands that is not renewed (rule 11).
pub const CERTIFICATE_LIFE: Duration = Duration::from_secs(10);

/// Where Redis is and how to log in there: checked once, used for every session.
#[derive(Clone)]
pub struct Address {
    client: Client,
    /// Chosen by ourselves: the client's own way hides Redis' error code, and with it that
    /// a password is missing.
    database: i64,
    timeout: Duration,
    max_connections: usize,
}

impl Address {
    /// Reads the configuration and the files that it names.
    pub fn new(config: &model::Redis) -> Result<Self, StoreError> {
        let file = |path: &std::path::Path| {
            std::fs::read(path)
                .map_err(|e| StoreError::Unusable(format!("cannot read {}: {e}", path.display())))
        };
        let mut info = config
            .url
            .expose_secret()
            .into_connection_info()
            .map_err(|e| StoreError::Unusable(format!("redis.url: {e}")))?;
        let password = match (&config.password, &config.password_file) {
            (Some(password), _) => Some(password.expose_secret().to_owned()),
            (None, Some(path)) => Some(
                String::from_utf8_lossy(&file(path)?).trim_end_matches(['\r', '\n']).to_owned(),
            ),
            (None, None) => None,
        };
        if let Some(password) = password {
            let settings = info.redis_settings().clone().set_password(password);
            info = info.set_redis_settings(settings);
        }
        let database = info.redis_settings().db();
        let settings = info.redis_settings().clone().set_db(0);
        info = info.set_redis_settings(settings);
        let client = match &config.ca_file {
            None => Client::open(info)?,
            Some(path) => {
                let root_cert = Some(file(path)?);
                Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert })?
            }
        };
        let (timeout, max_connections) = (config.timeout.get(), config.max_connections);
        Ok(Address { client, database, timeout, max_connections })
    }

    /// How many connections those who read and fill may share.
    pub(super) fn max_connections(&self) -> usize {
        self.max_connections
    }
}

/// A connection that never reconnects by itself. After an error it must be dropped: what
/// was under way may have happened.
pub struct Session {
    connection: MultiplexedConnection,
    keys: ControlKeys,
    server: Server,
}

/// Who answers at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Changes with every restart.
    pub run_id: String,
    /// Such as `7.0.15`.
    pub version: String,
}

/// What one step is to do, beside moving the chain on.
#[derive(Debug)]
pub struct Step<'a, K> {
    /// The nonce of the last acknowledged step.
    pub expected: &'a Nonce,
    /// This step's. Equal to `expected` for a step that only renews the certificate.
    pub nonce: &'a Nonce,
    /// Keys to remove, with their leases.
    pub keys: &'a [K],
    /// Keys to refresh, and how long the old value of each may stay: it gets a *due*, and so
    /// does whatever is computed for it now.
    pub refreshed: &'a [(K, Duration)],
    /// What else changes in the state.
    pub fields: &'a [Field],
    /// The watermark to certify, if it is to be.
    pub certify: Option<Lsn>,
}

impl<K: AsRef<[u8]>> Step<'_, K> {
    /// As Redis takes it.
    #[must_use]
    pub fn command(&self, control: &ControlKeys) -> Cmd {
        let keys = self.keys.iter().chain(self.refreshed.iter().map(|(key, _)| key));
        let bytes: usize = keys.clone().map(|key| key.as_ref().len()).sum();
        let mut command = call_with_room(&STEP, keys.clone().count(), bytes);
        command.arg(self.keys.len() + self.refreshed.len() + 2);
        command.arg(&control.state).arg(&control.fresh);
        for key in keys {
            command.arg(key.as_ref());
        }
        command.arg(self.expected.as_str()).arg(self.nonce.as_str()).arg(&control.lease_prefix);
        match self.certify {
            Some(watermark) => command.arg(millis(CERTIFICATE_LIFE)).arg(watermark.to_string()),
            None => command.arg(0).arg(""),
        };
        command.arg(self.refreshed.len());
        for (_, stays) in self.refreshed {
            command.arg(millis(*stays));
        }
        for (field, value) in self.fields {
            command.arg(field).arg(value);
        }
        command
    }
}

/// In place of a life: the key was not there.
pub const NOT_THERE: i64 = -2;

/// In place of a refreshed key's life: it was not there, but somebody computes it.
pub const LEASED: i64 = -3;

/// What a step found.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done. For each key, then each refreshed one, the life that remained, in ms: -1 without
    /// expiry, [`NOT_THERE`], [`LEASED`].
    Done(Vec<i64>),
    /// The chain is broken: this nonce was found (empty: there is no state).
    Broken(Nonce),
}

impl Session {
    /// Connects and makes sure that a primary answers.
    pub async fn open(address: &Address, keys: ControlKeys) -> Result<Self, StoreError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(address.timeout))
            .set_response_timeout(Some(address.timeout));
        let connecting = address.client.get_multiplexed_async_connection_with_config(&config);
        let mut connection =
            tokio::time::timeout(address.timeout * 2, connecting).await.map_err(|_| {
                StoreError::Lost(format!("no connection within {:?}", address.timeout * 2))
            })??;
        if address.database != 0 {
            let mut select = redis::cmd("SELECT");
            select.arg(address.database).exec_async(&mut connection).await?;
        }
        let info: String = redis::cmd("INFO").query_async(&mut connection).await?;
        let field = |name: &str| {
            info.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .unwrap_or_default()
                .trim()
        };
        if field("role") != "master" {
            return Err(StoreError::Refused {
                code: "READONLY".to_owned(),
                message: format!("its role is {}", field("role")),
            });
        }
        let server = Server {
            run_id: field("run_id").to_owned(),
            version: field("redis_version").to_owned(),
        };
        Ok(Session { connection, keys, server })
    }

    /// How much memory Redis uses; `None` if it does not say.
    pub async fn used_memory(&self) -> Option<u64> {
        let mut connection = self.connection();
        let info: redis::RedisResult<String> =
            redis::cmd("INFO").arg("memory").query_async(&mut connection).await;
        let info = info.ok()?;
        info.lines().find_map(|line| line.strip_prefix("used_memory:"))?.trim().parse().ok()
    }

    /// What Redis counts of itself, by the names that INFO has.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn info(&self) -> Result<HashMap<String, String>, StoreError> {
        let info: String = redis::cmd("INFO").query_async(&mut self.connection()).await?;
        let pairs = info.lines().filter_map(|line| line.trim_end().split_once(':'));
        Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// Who answers.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The names of the control keys.
    #[must_use]
    pub fn keys(&self) -> &ControlKeys {
        &self.keys
    }

    /// A handle for commands outside of the chain, on the same connection.
    #[must_use]
    pub fn connection(&self) -> MultiplexedConnection {
        self.connection.clone()
    }

    /// The watermark that the certificate holds; `None`: nobody keeps the cache fresh.
    pub async fn certificate(&self) -> Result<Option<Lsn>, StoreError> {
        let mut connection = self.connection();
        let found: Option<String> =
            redis::cmd("GET").arg(&self.keys.fresh).query_async(&mut connection).await?;
        Ok(found.and_then(|text| text.parse().ok()))
    }

    /// The state, if there is one.
    pub async fn state(&mut self) -> Result<Option<State>, StoreError> {
        let fields: HashMap<String, String> =
            redis::cmd("HGETALL").arg(&self.keys.state).query_async(&mut self.connection).await?;
        Ok(State::read(fields))
    }

    /// One step of the chain.
    pub async fn step<K: AsRef<[u8]>>(
        &mut self,
        step: &Step<'_, K>,
    ) -> Result<Outcome, StoreError> {
        let command = step.command(&self.keys);
        match evaluate(&mut self.connection, &STEP, &command).await? {
            Value::Array(lives) => lives
                .into_iter()
                .map(|life| match life {
                    Value::Int(ms) => Ok(ms),
                    other => Err(unexpected(&other)),
                })
                .collect::<Result<_, _>>()
                .map(Outcome::Done),
            Value::BulkString(nonce) => {
                Ok(Outcome::Broken(Nonce::found(String::from_utf8_lossy(&nonce).into_owned())))
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Makes the state invalid, whatever it was, and takes the chain: the first act of
    /// every gap (rule 8a).
    pub async fn declare_invalid(&mut self, state: &State) -> Result<(), StoreError> {
        let mut command = call(&DECLARE);
        command.arg(2).arg(&self.keys.state).arg(&self.keys.fresh);
        command.arg("nonce").arg(state.nonce.as_str());
        for (field, value) in state.fields() {
            command.arg(field).arg(value);
        }
        evaluate(&mut self.connection, &DECLARE, &command).await.map(drop)
    }
}

fn millis(life: Duration) -> u64 {
    u64::try_from(life.as_millis()).unwrap_or(u64::MAX)
}
