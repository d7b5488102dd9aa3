//! What can go wrong with Redis, sorted by what to do about it.

use std::fmt;

use redis::{ErrorKind, RedisError};

/// A failure of a command.
#[derive(Debug, Clone)]
pub enum StoreError {
    /// No answer came, or none that makes sense: what was sent may have happened. The
    /// session is dead.
    Lost(String),
    /// Redis answered that it will not do it. Nothing was acknowledged.
    Refused {
        /// Redis' error code, such as `READONLY` or `OOM`.
        code: String,
        /// What it said.
        message: String,
    },
    /// The configuration cannot be used.
    Unusable(String),
}

impl StoreError {
    /// Whether no retry can help: a wrong password or a configuration that cannot be used.
    #[must_use]
    pub fn is_hopeless(&self) -> bool {
        match self {
            StoreError::Lost(_) => false,
            StoreError::Refused { code, .. } => matches!(code.as_str(), "WRONGPASS" | "NOAUTH"),
            StoreError::Unusable(_) => true,
        }
    }

    /// What to do about it, in words.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        let code = match self {
            StoreError::Lost(_) => {
                return "check that Redis runs at redis.url, can be reached and takes one more client (maxclients); the daemon keeps trying";
            }
            StoreError::Unusable(_) => return "correct [redis] in the configuration",
            StoreError::Refused { code, .. } => code.as_str(),
        };
        match code {
            "WRONGPASS" | "NOAUTH" => {
                "set the user and password in redis.url, redis.password_file or UNSTALE_REDIS__PASSWORD"
            }
            "NOPERM" => {
                "grant the daemon's Redis user: ~unstale:* ~<key_prefix>* +select +info +scan +evalsha +script|load +get +mget +set +del +unlink +exists +ttl +pttl +hget +hmget +hgetall +hset +time +pexpireat +lpush +ltrim +lrange +memory|usage +object|idletime (README, \"On your own database\")"
            }
            "READONLY" => {
                "this Redis is a replica: point redis.url at the primary; the daemon keeps trying, a failover may be under way"
            }
            "LOADING" => "Redis is loading its data set; the daemon waits",
            "MISCONF" => {
                "Redis cannot save its data and refuses writes: make room on its disk or set stop-writes-on-bgsave-error no"
            }
            "NOREPLICAS" => {
                "Redis wants more replicas before it takes writes (min-replicas-to-write)"
            }
            "BUSY" => "a script holds Redis: see SLOWLOG GET; the daemon waits",
            // No code of its own has what a script's user may not run, nor a client too many.
            "ERR" => {
                "check that this is Redis 7.0 or later, that it has the database that redis.url names, takes one more client (maxclients), and lets the daemon's user run the commands of README, \"On your own database\", in scripts, too"
            }
            _ => "see Redis' log; the daemon keeps trying",
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Lost(reason) => write!(f, "Redis did not answer: {reason}")?,
            StoreError::Refused { code, message } => write!(f, "Redis refused: {code} {message}")?,
            StoreError::Unusable(reason) => write!(f, "Redis cannot be used: {reason}")?,
        }
        write!(f, "; {}", self.remedy())
    }
}

impl std::error::Error for StoreError {}

impl From<RedisError> for StoreError {
    fn from(error: RedisError) -> Self {
        match (error.kind(), error.code()) {
            (ErrorKind::InvalidClientConfig, _) => StoreError::Unusable(error.to_string()),
            (ErrorKind::AuthenticationFailed, code) => StoreError::Refused {
                code: code.unwrap_or("WRONGPASS").to_owned(),
                message: error.detail().unwrap_or("authentication failed").to_owned(),
            },
            (_, Some(code)) => StoreError::Refused {
                code: code.to_owned(),
                message: error.detail().unwrap_or_default().to_owned(),
            },
            (_, None) => StoreError::Lost(error.to_string()),
        }
    }
}
