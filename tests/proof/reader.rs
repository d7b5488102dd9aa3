//! Who reads the cache, and anything that Redis says of it.

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, RedisError};
use unstale::lsn::Lsn;

use crate::case::{Sink, Stop, Target};
use crate::oracle::{Claim, Seen};

/// A connection that is made when it is needed. What is read on one is of one Redis process.
pub struct Values {
    url: String,
    connection: Option<MultiplexedConnection>,
}

impl Values {
    pub fn new(url: String) -> Values {
        Values { url, connection: None }
    }

    /// The connection; after an error it must be [forgotten](Values::forget).
    pub async fn connection(&mut self) -> Result<&mut MultiplexedConnection, RedisError> {
        if self.connection.is_none() {
            let client = redis::Client::open(self.url.as_str())?;
            self.connection = Some(client.get_multiplexed_async_connection().await?);
        }
        Ok(self.connection.as_mut().expect("it was just made"))
    }

    pub fn forget(&mut self) {
        self.connection = None;
    }

    /// What everything below is applied; zero while nothing is said to be.
    pub async fn watermark(&mut self) -> Result<Lsn, RedisError> {
        let state = "unstale:unstale:state";
        let (valid, watermark): (Option<String>, Option<String>) =
            self.connection().await?.hmget(state, &["valid", "watermark"]).await?;
        let valid = valid.is_some_and(|valid| valid == "1");
        Ok(watermark.filter(|_| valid).and_then(|text| text.parse().ok()).unwrap_or_default())
    }
}

/// Reads any entry again and again: first the watermark, then the value, so the value must
/// have all that the watermark says.
pub async fn read(url: String, seen: Sink, stop: Stop) {
    let mut values = Values::new(url);
    while !stop.is_set() {
        match once(&mut values, Target::any()).await {
            Ok(read) => drop(read.map(|read| seen.send(read))),
            Err(_) => values.forget(),
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn once(values: &mut Values, target: Target) -> Result<Option<Seen>, RedisError> {
    let watermark = values.watermark().await?;
    let started = Instant::now();
    let value: Option<String> = values.connection().await?.get(target.key()).await?;
    Ok(value.map(|value| Seen::Read {
        claim: Claim { key: target.key(), value, watermark: watermark.to_string() },
        started,
    }))
}
