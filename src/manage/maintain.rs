//! Looking after what is in Redis: what nobody will ever use or end goes, the rest is counted.
//!
//! Nothing in Redis needs this to stay true. It needs it to stay small, and to be seen. What goes, and
//! why it may, whoever does what meanwhile:
//!
//! * *Entries without an expiry.* No script of the protocol stores one, so it was written beside it
//!   (`SET`, `PERSIST`, a restored dump of something else) and is guarded by nothing.
//! * *Generations without an expiry*, for the same reason: the scope gets a new one.
//! * *Entries of a generation that is not the scope's any more.* Nobody asks for them: a key is
//!   made with the present generation, and a generation is random, so one that was replaced never
//!   comes back. The generation is read *after* the entry was seen: an entry of the present one
//!   is never taken for another's, and one whose generation changes in between is of no use either way.
//! * *Orphaned leases.* A lease is orphaned when it has no expiry. No script makes one; nobody
//!   would ever end it, and its entry's readers would wait in vain each time. One that has an
//!   expiry is never orphaned, however long: its end is its holder's bound.
//!
//! All go as by hand: the key with its lease, in one step ([`crate::store::remove`] has the argument),
//! so what is being computed for such a key is not stored, and the worst that a race can cost is
//! a miss. (Between the look at an expiry and the removal, the entry may have been filled anew,
//! rightly: it is lost, and filled again.) So it is harmless done twice, at the same time, late, or
//! half.
//!
//! Keys that are of no cache are never touched: others live in this Redis. Nor are leases of
//! another slot.

use std::collections::{BTreeMap, HashMap};

use redis::aio::MultiplexedConnection;

use super::ground::{Ground, ManageError};
use super::survey::{Held, SAMPLE, measure};
use super::walk::Walk;
use crate::audit::sample::Reservoir;
use crate::mapping::model::{CacheId, CacheModel};
use crate::mapping::template::GENERATION;
use crate::metrics::Metrics;
use crate::store::error::StoreError;
use crate::store::remove::{AT_ONCE, Act, remove};
use crate::store::session::Session;

/// Why something went. The names are the label `reason` of `unstale_maintenance_removed_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unfit {
    /// An entry or a generation without an expiry.
    NoExpiry,
    /// An entry of a generation that is not the scope's any more.
    Superseded,
    /// A lease without an expiry.
    OrphanedLease,
}

impl Unfit {
    /// All of them.
    pub const ALL: [Unfit; 3] = [Unfit::NoExpiry, Unfit::Superseded, Unfit::OrphanedLease];

    /// The name in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Unfit::NoExpiry => "no_expiry",
            Unfit::Superseded => "superseded",
            Unfit::OrphanedLease => "orphaned_lease",
        }
    }
}

/// What there is, and what went.
#[derive(Debug, Default)]
pub struct Maintained {
    /// What remains, by cache.
    pub held: BTreeMap<CacheId, Held>,
    /// What went, by cache and reason.
    pub removed: BTreeMap<(CacheId, Unfit), u64>,
}

impl Maintained {
    /// How many went for that reason.
    #[must_use]
    pub fn removed_for(&self, reason: Unfit) -> u64 {
        self.removed.iter().filter(|((_, why), _)| *why == reason).map(|(_, count)| count).sum()
    }

    /// How many values remain, and what they take, as far as that may be asked.
    #[must_use]
    pub fn total(&self) -> (u64, u64) {
        let keys = self.held.values().map(|held| held.keys).sum();
        (keys, self.held.values().filter_map(|held| held.bytes).sum())
    }

    /// Tells the metrics.
    pub fn count(&self, ground: &Ground, metrics: &Metrics) {
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        for (id, held) in &self.held {
            let Some(cache) = ground.mapping().cache(*id) else { continue };
            metrics.cache_keys.with_label_values(&[&cache.name]).set(gauge(held.keys));
            if let Some(bytes) = held.bytes {
                metrics.cache_bytes.with_label_values(&[&cache.name]).set(gauge(bytes));
            }
        }
        for ((id, reason), count) in &self.removed {
            let Some(cache) = ground.mapping().cache(*id) else { continue };
            let labels = [&*cache.name, reason.as_str()];
            metrics.maintenance_removed.with_label_values(&labels).inc_by(*count);
        }
    }
}

/// Looks through all that is managed, without hurry.
///
/// # Errors
/// If Redis does not answer. A part is done then; to do it again is harmless.
pub async fn maintain(ground: &Ground) -> Result<Maintained, ManageError> {
    let session = ground.redis().await?;
    let mut work = Work::new(ground, &session);
    work.leases().await?;
    work.values().await?;
    Ok(work.measured().await?)
}

/// What a key is found to be.
enum Seen {
    Entry { scope: Option<Scope> },
    Generation,
}

/// The scope of an entry, and the generation in its key.
struct Scope {
    key: Vec<u8>,
    generation: Vec<u8>,
}

struct Work<'a> {
    ground: &'a Ground,
    session: &'a Session,
    connection: MultiplexedConnection,
    found: Maintained,
    samples: BTreeMap<CacheId, Reservoir>,
}

impl<'a> Work<'a> {
    fn new(ground: &'a Ground, session: &'a Session) -> Self {
        let mut found = Maintained::default();
        let mut samples = BTreeMap::new();
        for (id, cache) in ground.mapping().caches() {
            found.held.insert(id, Held::of(cache));
            samples.insert(id, Reservoir::new(SAMPLE));
        }
        Work { ground, session, connection: session.connection(), found, samples }
    }

    async fn leases(&mut self) -> Result<(), StoreError> {
        let (ground, keys) = (self.ground, self.session.keys());
        let prefixes = ground.mapping().prefixes();
        let mut walk = Walk::new(prefixes.iter().map(|prefix| keys.leases_of(prefix)).collect());
        while let Some(leases) = walk.next(&mut self.connection).await? {
            for some in leases.chunks(AT_ONCE) {
                let lives = lives(&mut self.connection, some).await?;
                let mut orphans = Vec::new();
                for (lease, life) in some.iter().zip(lives) {
                    let Some(key) = keys.key_of(lease) else { continue };
                    let Some((id, _)) = ground.mapping().cache_of_key(key) else { continue };
                    if life == NO_EXPIRY {
                        orphans.push((id, Unfit::OrphanedLease, key.to_vec()));
                    } else if let Some(held) = self.found.held.get_mut(&id) {
                        held.leases += 1;
                    }
                }
                self.remove(orphans).await?;
            }
        }
        Ok(())
    }

    async fn values(&mut self) -> Result<(), StoreError> {
        let mut walk = Walk::new(self.ground.mapping().prefixes());
        while let Some(keys) = walk.next(&mut self.connection).await? {
            for some in keys.chunks(AT_ONCE) {
                self.look_at(some).await?;
            }
        }
        Ok(())
    }

    async fn look_at(&mut self, keys: &[Vec<u8>]) -> Result<(), StoreError> {
        let ground = self.ground;
        let lives = lives(&mut self.connection, keys).await?;
        let mut seen = Vec::with_capacity(keys.len());
        for (key, life) in keys.iter().zip(lives) {
            let Some((id, cache)) = ground.mapping().cache_of_key(key) else { continue };
            let Some(what) = look(cache, &ground.key_prefix, key) else { continue };
            // It may be gone by now.
            if life >= NO_EXPIRY {
                seen.push((id, key, life, what));
            }
        }
        let scopes = seen.iter().filter_map(|(_, _, _, what)| match what {
            Seen::Entry { scope } => scope.as_ref().map(|scope| scope.key.clone()),
            Seen::Generation => None,
        });
        let present = self.generations(scopes.collect()).await?;
        let mut unfit = Vec::new();
        for (id, key, life, what) in seen {
            let superseded = match &what {
                Seen::Entry { scope: Some(scope) } => {
                    present.get(&scope.key) != Some(&scope.generation)
                }
                _ => false,
            };
            let Some(held) = self.found.held.get_mut(&id) else { continue };
            if life == NO_EXPIRY {
                unfit.push((id, Unfit::NoExpiry, key.clone()));
            } else if superseded {
                unfit.push((id, Unfit::Superseded, key.clone()));
            } else if matches!(what, Seen::Generation) {
                held.scopes = held.scopes.map(|scopes| scopes + 1);
            } else {
                held.keys += 1;
                if let Some(sample) = self.samples.get_mut(&id) {
                    sample.offer(key.clone());
                }
            }
        }
        self.remove(unfit).await
    }

    /// The present generations of these scopes, as far as there are any.
    async fn generations(
        &mut self,
        mut scopes: Vec<Vec<u8>>,
    ) -> Result<HashMap<Vec<u8>, Vec<u8>>, StoreError> {
        scopes.sort_unstable();
        scopes.dedup();
        if scopes.is_empty() {
            return Ok(HashMap::new());
        }
        let texts: Vec<Option<Vec<u8>>> =
            redis::cmd("MGET").arg(&scopes).query_async(&mut self.connection).await?;
        let there = scopes.into_iter().zip(texts).filter_map(|(key, text)| Some((key, text?)));
        Ok(there.collect())
    }

    async fn remove(&mut self, unfit: Vec<(CacheId, Unfit, Vec<u8>)>) -> Result<(), StoreError> {
        if unfit.is_empty() {
            return Ok(());
        }
        let (whose, keys): (Vec<_>, Vec<_>) =
            unfit.into_iter().map(|(id, reason, key)| ((id, reason), key)).unzip();
        let control = self.session.keys();
        let removed = remove(&mut self.connection, control, &keys, Act::Remove).await?;
        for ((id, reason), was) in whose.into_iter().zip(removed) {
            let went = if reason == Unfit::OrphanedLease { was.lease } else { was.value };
            *self.found.removed.entry((id, reason)).or_default() += u64::from(went);
        }
        Ok(())
    }

    async fn measured(mut self) -> Result<Maintained, StoreError> {
        for (id, sample) in self.samples {
            if let Some(held) = self.found.held.get_mut(&id) {
                measure(&mut self.connection, held, &sample.into_keys()).await?;
            }
        }
        Ok(self.found)
    }
}

/// What `PTTL` answers for a key without an expiry; less: there is none.
const NO_EXPIRY: i64 = -1;

async fn lives(
    connection: &mut MultiplexedConnection,
    keys: &[Vec<u8>],
) -> Result<Vec<i64>, StoreError> {
    let mut asked = redis::pipe();
    for key in keys {
        asked.cmd("PTTL").arg(key);
    }
    Ok(asked.query_async(connection).await?)
}

fn look(cache: &CacheModel, key_prefix: &str, key: &[u8]) -> Option<Seen> {
    let parsed = cache.parse_key(key)?;
    if parsed.is_generation {
        return Some(Seen::Generation);
    }
    let value = |name: &str| {
        parsed.parameters.iter().find(|(known, _)| *known == name).map(|(_, value)| &**value)
    };
    let scope = cache.generation_key.as_ref().and_then(|template| {
        let mut key = key_prefix.as_bytes().to_vec();
        template.render(value, &mut key)?;
        Some(Scope { key, generation: value(GENERATION)?.to_vec() })
    });
    Some(Seen::Entry { scope })
}
