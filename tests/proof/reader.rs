//! Who reads the cache, and anything that Redis says of it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, RedisError};
use unstale::lsn::Lsn;

use crate::case::{Sink, Target};
use crate::oracle::{Claim, Seen};
use crate::support::stop::Stop;

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

/// The watermarks that were read lately, each with a moment after it was.
struct Applied {
    by_time: VecDeque<(Instant, Lsn)>,
    may_lack: Duration,
}

impl Applied {
    fn note(&mut self, watermark: Lsn) {
        self.by_time.push_back((Instant::now(), watermark));
    }

    /// Everything below was applied, and for so long that what is read from now on must have it.
    fn settled(&mut self) -> Lsn {
        let now = Instant::now();
        let is_old = |at: &Instant| now.duration_since(*at) >= self.may_lack;
        while self.by_time.get(1).is_some_and(|(at, _)| is_old(at)) {
            self.by_time.pop_front();
        }
        let oldest = self.by_time.front().filter(|(at, _)| is_old(at));
        oldest.map_or(Lsn::ZERO, |(_, watermark)| *watermark)
    }
}

/// Reads any entry again and again: first the watermark, then the value, so the value must
/// have all that the watermark says, or (`may_lack`) said that long ago.
pub async fn read(url: String, may_lack: Duration, seen: Sink, stop: Stop) {
    let mut values = Values::new(url);
    let mut applied = Applied { by_time: VecDeque::new(), may_lack };
    while !stop.is_set() {
        match once(&mut values, &mut applied, Target::any()).await {
            Ok(read) => drop(read.map(|read| seen.send(read))),
            Err(_) => {
                values.forget();
                applied.by_time.clear();
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn once(
    values: &mut Values,
    applied: &mut Applied,
    target: Target,
) -> Result<Option<Seen>, RedisError> {
    applied.note(values.watermark().await?);
    let watermark = applied.settled();
    let started = Instant::now();
    let value: Option<String> = values.connection().await?.get(target.key()).await?;
    Ok(value.map(|value| Seen::Read {
        claim: Claim { key: target.key(), value, watermark: watermark.to_string() },
        started,
    }))
}
