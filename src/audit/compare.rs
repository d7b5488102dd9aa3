//! Comparing one entry; the argument stands in the room's own documentation.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::Value;
use redis::aio::MultiplexedConnection;

use crate::loader::load::{LoadError, Loader};
use crate::lsn::Lsn;
use crate::mapping::Mapping;
use crate::mapping::model::{CacheId, CacheModel};
use crate::mapping::template::GENERATION;
use crate::pipeline::suspects::Suspects;
use crate::store::error::StoreError;
use crate::store::fills::NOTHING;
use crate::store::keys::ControlKeys;
use crate::store::session::{Address, NOT_THERE, Session};

/// How long the daemon may take to apply what was seen.
const PATIENCE: Duration = Duration::from_secs(15);

/// How often an entry is compared again because it was touched meanwhile.
const ATTEMPTS: u32 = 5;

/// How far Redis' clock may be behind Postgres': so long after midnight, an entry of the day
/// before may still be there.
const SKEW: Duration = Duration::from_secs(60);

/// The largest header of a WAL page: an insert position just behind one is no further than
/// the page's beginning.
const PAGE_HEADER: u64 = 40;

/// What is compared, and by which means. Shared by all comparers.
pub struct Ground {
    /// What computes the values. It must ask the primary.
    pub loader: Loader,
    /// Which keys are whose.
    pub mapping: Arc<Mapping>,
    /// Where Redis is.
    pub address: Address,
    /// The daemon's keys there.
    pub keys: ControlKeys,
    /// What stands before every cache's key.
    pub key_prefix: String,
}

/// What became of one comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// What is cached is what the database says.
    Equal,
    /// It differed, and was removed or replaced this long after that was noticed.
    Inconsistent(Duration),
    /// It differs, and may for now: its cache is refreshed, and it goes before it is older than
    /// `max_staleness`.
    Due,
    /// It differs although everything is applied.
    Stale,
    /// It differs, and nobody can say whether it will be removed.
    Undecided(Undecided),
    /// It was gone before it could be compared, or its day is over.
    Expired,
    /// An entry of a generation that has passed: nobody asks for it any more.
    Unreachable,
    /// Not an entry: a scope's generation, or a key of no cache's form.
    NoEntry,
}

/// Why a difference could not be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undecided {
    /// No daemon certifies the cache.
    NoDaemon,
    /// The daemon did not get that far in time.
    Behind,
    /// A transaction that is older than the slot is still awaited (rule 8).
    Suspects,
    /// The entry was replaced again and again.
    Busy,
}

impl Undecided {
    /// In words, with what to do next.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Undecided::NoDaemon => {
                "no daemon keeps this cache fresh now: start `unstale run` and verify again"
            }
            Undecided::Behind => {
                "the daemon has not applied everything yet: see `unstale_replication_lag_bytes`, and verify again"
            }
            Undecided::Suspects => {
                "transactions that are older than the slot are still open: verify again once they have ended"
            }
            Undecided::Busy => "it changes faster than it can be compared: verify again",
        }
    }
}

impl Verdict {
    /// All that [`Verdict::as_str`] gives.
    pub const RESULTS: [&'static str; 5] =
        ["equal", "inconsistent", "stale", "undecided", "expired"];

    /// The label `result` of `unstale_verify_total`; `None`: it was no comparison.
    #[must_use]
    pub fn as_str(self) -> Option<&'static str> {
        match self {
            Verdict::Equal => Some("equal"),
            Verdict::Inconsistent(_) => Some("inconsistent"),
            Verdict::Due => Some("due"),
            Verdict::Stale => Some("stale"),
            Verdict::Undecided(_) => Some("undecided"),
            Verdict::Expired => Some("expired"),
            Verdict::Unreachable | Verdict::NoEntry => None,
        }
    }
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// Redis did not answer. The comparer is of no use any more.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database did not give the value.
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// A verdict, and of which cache the key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compared {
    /// The cache; `None`: of none.
    pub cache: Option<CacheId>,
    /// What became of it.
    pub verdict: Verdict,
}

/// Compares, one entry at a time, on a connection of its own: WATCH is the connection's.
pub struct Comparer {
    ground: Arc<Ground>,
    session: Session,
}

/// An entry's key, taken apart.
struct Entry<'a> {
    key: &'a [u8],
    cache: &'a CacheModel,
    values: Vec<(&'a str, String)>,
    /// The key of the scope's generation, and the generation in the entry's key.
    scope: Option<(Vec<u8>, Vec<u8>)>,
}

/// What Redis has of an entry.
enum Found {
    Value(Vec<u8>),
    Gone,
    /// The scope has another generation by now.
    Unreachable,
}

/// How waiting for the watermark ended.
enum Waited {
    Passed {
        suspects: bool,
    },
    /// The entry is gone, or holds other bytes.
    Moved,
    Undecided(Undecided),
}

impl Comparer {
    /// Connects to Redis.
    ///
    /// # Errors
    /// If that fails.
    pub async fn open(ground: Arc<Ground>) -> Result<Self, StoreError> {
        let session = Session::open(&ground.address, ground.keys.clone()).await?;
        Ok(Comparer { ground, session })
    }

    /// Compares an entry with the database.
    ///
    /// # Errors
    /// If Redis or the database does not answer.
    pub async fn compare(&mut self, key: &[u8]) -> Result<Compared, CompareError> {
        let ground = Arc::clone(&self.ground);
        let Some((id, cache)) = ground.mapping.cache_of_key(key) else {
            return Ok(Compared { cache: None, verdict: Verdict::NoEntry });
        };
        let verdict = match Entry::parse(key, cache, &ground.key_prefix) {
            Some(entry) => self.judge(&entry).await?,
            None => Verdict::NoEntry,
        };
        Ok(Compared { cache: Some(id), verdict })
    }

    /// Removes an entry with its lease. Removing is always safe.
    ///
    /// # Errors
    /// If Redis did not answer.
    pub async fn remove(&mut self, key: &[u8]) -> Result<(), StoreError> {
        let lease = self.session.keys().lease_of(key);
        redis::cmd("DEL")
            .arg(key)
            .arg(lease)
            .exec_async(&mut self.session.connection())
            .await
            .map_err(StoreError::from)
    }

    async fn judge(&mut self, entry: &Entry<'_>) -> Result<Verdict, CompareError> {
        let loader = &self.ground.loader;
        let mut connection = self.session.connection();
        let values: Vec<(&str, &str)> =
            entry.values.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut noticed: Option<Instant> = None;
        let settled = |noticed: Option<Instant>, else_: Verdict| {
            noticed.map_or(else_, |at| Verdict::Inconsistent(at.elapsed()))
        };
        for _ in 0..ATTEMPTS {
            let cached = match entry.watch(&mut connection).await? {
                Found::Value(value) => value,
                Found::Gone => return Ok(settled(noticed, Verdict::Expired)),
                Found::Unreachable => return Ok(settled(noticed, Verdict::Unreachable)),
            };
            let loaded = loader.load(&entry.cache.name, &values).await?;
            if loaded.as_deref().unwrap_or(NOTHING) == cached.as_slice() {
                return Ok(settled(noticed, Verdict::Equal));
            }
            let since = *noticed.get_or_insert_with(Instant::now);
            if self.is_of_the_day(entry) && loader.since_midnight().await? < SKEW {
                return Ok(Verdict::Expired);
            }
            let seen = loader.wal_insert().await?;
            match self.wait_until_applied(entry, &cached, seen, &mut connection).await? {
                Waited::Moved => return Ok(Verdict::Inconsistent(since.elapsed())),
                Waited::Undecided(why) => return Ok(Verdict::Undecided(why)),
                Waited::Passed { suspects } => {
                    if let Some(life) = untouched(entry.key, &mut connection).await? {
                        return Ok(
                            if entry.cache.max_staleness.is_some_and(|at_most| life <= at_most) {
                                Verdict::Due
                            } else if suspects {
                                Verdict::Undecided(Undecided::Suspects)
                            } else {
                                Verdict::Stale
                            },
                        );
                    }
                }
            }
        }
        Ok(Verdict::Undecided(Undecided::Busy))
    }

    fn is_of_the_day(&self, entry: &Entry<'_>) -> bool {
        self.ground.loader.parameters(&entry.cache.name).iter().any(|name| name == "timezone")
    }

    async fn wait_until_applied(
        &self,
        entry: &Entry<'_>,
        cached: &[u8],
        seen: Lsn,
        connection: &mut MultiplexedConnection,
    ) -> Result<Waited, CompareError> {
        let keys = self.session.keys();
        let start = Instant::now();
        let mut pause = Duration::from_millis(2);
        loop {
            // The state is read first: what is found after it was not removed by what it covers.
            let mut look = redis::pipe();
            look.cmd("HMGET").arg(&keys.state).arg(&["valid", "watermark", "suspects"]);
            look.cmd("EXISTS").arg(&keys.fresh);
            let (state, certified): (Vec<Option<String>>, bool) =
                look.query_async(connection).await.map_err(StoreError::from)?;
            match entry.read(connection).await? {
                Found::Value(value) if value == cached => {}
                _ => return Ok(Waited::Moved),
            }
            if !certified {
                return Ok(Waited::Undecided(Undecided::NoDaemon));
            }
            let mut state = state.into_iter().map(Option::unwrap_or_default);
            let mut field = || state.next().unwrap_or_default();
            let (valid, watermark, suspects) = (field(), field(), field());
            if valid == "1" && watermark.parse().is_ok_and(|watermark| has_passed(watermark, seen))
            {
                let suspects = Suspects::read(&suspects).is_some_and(|list| !list.is_empty());
                return Ok(Waited::Passed { suspects });
            }
            if start.elapsed() > PATIENCE {
                return Ok(Waited::Undecided(Undecided::Behind));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }
}

/// Whether everything below `seen` is below `watermark`, too. On an idle server the insert
/// position may stand behind the header of a page that was not begun yet.
pub(crate) fn has_passed(watermark: Lsn, seen: Lsn) -> bool {
    const PAGE: u64 = 4096;
    watermark >= seen
        || (watermark.0.is_multiple_of(PAGE) && seen.bytes_since(watermark) <= PAGE_HEADER)
}

impl<'a> Entry<'a> {
    /// `None`: it holds a generation, or what no key of this program holds.
    fn parse(key: &'a [u8], cache: &'a CacheModel, key_prefix: &str) -> Option<Self> {
        let parsed = cache.parse_key(key).filter(|parsed| !parsed.is_generation)?;
        let mut scope = None;
        if let Some(template) = &cache.generation_key {
            let value = |name: &str| {
                parsed.parameters.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_slice())
            };
            let mut generation_key = key_prefix.as_bytes().to_vec();
            template.render(value, &mut generation_key)?;
            scope = Some((generation_key, value(GENERATION)?.to_vec()));
        }
        let mut values = Vec::with_capacity(parsed.parameters.len());
        for (name, value) in parsed.parameters {
            values.push((name, String::from_utf8(value).ok()?));
        }
        Some(Entry { key, cache, values, scope })
    }

    /// Reads it so that a later EXEC fails if it was touched in between.
    async fn watch(&self, connection: &mut MultiplexedConnection) -> Result<Found, StoreError> {
        let mut watch = redis::pipe();
        watch.cmd("UNWATCH").ignore().cmd("WATCH").arg(self.key);
        if let Some((generation_key, _)) = &self.scope {
            watch.arg(generation_key);
        }
        watch.ignore();
        self.look(watch, connection).await
    }

    async fn read(&self, connection: &mut MultiplexedConnection) -> Result<Found, StoreError> {
        self.look(redis::pipe(), connection).await
    }

    async fn look(
        &self,
        mut look: redis::Pipeline,
        connection: &mut MultiplexedConnection,
    ) -> Result<Found, StoreError> {
        look.cmd("GET").arg(self.key);
        if let Some((generation_key, _)) = &self.scope {
            look.cmd("GET").arg(generation_key);
        }
        let mut found: Vec<Option<Vec<u8>>> = look.query_async(connection).await?;
        let now = if self.scope.is_some() { found.pop().flatten() } else { None };
        let value = found.pop().flatten();
        let reachable =
            self.scope.as_ref().is_none_or(|(_, generation)| now.as_ref() == Some(generation));
        Ok(match value {
            None => Found::Gone,
            Some(_) if !reachable => Found::Unreachable,
            Some(value) => Found::Value(value),
        })
    }
}

/// How long the entry still lives, if nothing has touched what is watched.
async fn untouched(
    key: &[u8],
    connection: &mut MultiplexedConnection,
) -> Result<Option<Duration>, StoreError> {
    let mut commands = redis::pipe();
    commands.cmd("MULTI").ignore().cmd("PTTL").arg(key).ignore().cmd("EXEC");
    let (answer,): (Value,) = commands.query_async(connection).await?;
    let answers = match answer {
        Value::Nil => return Ok(None),
        Value::Array(answers) => answers,
        _ => return Err(StoreError::Lost("EXEC answered with what it never does".to_owned())),
    };
    Ok(match answers.as_slice() {
        [Value::Int(NOT_THERE)] => None,
        // Without expiry: for ever.
        [Value::Int(ms)] => Some(u64::try_from(*ms).map_or(Duration::MAX, Duration::from_millis)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_was_not_begun_is_passed_with_the_one_before_it() {
        let lsn = |text: &str| text.parse::<Lsn>().unwrap();
        assert!(has_passed(lsn("0/2000"), lsn("0/2000")));
        assert!(has_passed(lsn("0/3000000"), lsn("0/3000028")));
        assert!(has_passed(lsn("0/2000"), lsn("0/2018")));
        assert!(!has_passed(lsn("0/2000"), lsn("0/2040")), "a record may be there");
        assert!(!has_passed(lsn("0/2008"), lsn("0/2018")), "not the beginning of a page");
    }
}
