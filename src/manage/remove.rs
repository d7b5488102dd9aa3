//! Removing what is meant, or saying what that would be. The room's own documentation has the
//! argument.

use std::collections::BTreeSet;

use serde::Serialize;
use tokio::sync::mpsc;

use super::ground::{Ground, ManageError};
use super::selection::{Holds, Reach, Request, Selection};
use super::walk::Walk;
use super::{Progress, selection};
use crate::config::model::Rewarm;
use crate::mapping::model::CacheId;
use crate::store::notices::Removed;
use crate::store::remove::{AT_ONCE, Act, remove as remove_keys};
use crate::store::session::Session;
use crate::warm::population::{Values, Whose};

/// What went of one cache.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Values.
    pub entries: u64,
    /// Generations: the values of each are not asked for any more.
    pub scopes: u64,
    /// Leases: somebody was computing a value, which will not be stored.
    pub leases: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.entries += other.entries;
        self.scopes += other.scopes;
        self.leases += other.leases;
    }
}

impl Counts {
    /// Whether there was nothing.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Counts::default()
    }
}

/// What went.
#[derive(Debug, Default)]
pub struct Removal {
    /// By cache.
    pub caches: Vec<(String, Counts)>,
    /// What was there, of caches that are filled again: at most [`NAMED`].
    pub removed: Vec<Removed>,
}

/// So many of the entries that were removed are named to the daemon.
pub const NAMED: usize = 10_000;

impl Removal {
    /// Of all caches.
    #[must_use]
    pub fn total(&self) -> Counts {
        let mut total = Counts::default();
        for (_, counts) in &self.caches {
            total += *counts;
        }
        total
    }
}

/// Removes what is meant, or counts it.
///
/// # Errors
/// If a server did not answer. A part may be removed then; to do it again is harmless.
pub async fn remove(
    ground: &Ground,
    request: &Request,
    selection: &Selection,
    act: Act,
    progress: &dyn Progress,
) -> Result<Removal, ManageError> {
    let names = selection.chosen.iter().filter_map(|chosen| {
        let cache = ground.mapping().cache(chosen.cache)?;
        Some((chosen.cache, cache.name.to_string(), Counts::default()))
    });
    let mut work = Work {
        session: ground.redis().await?,
        act,
        counts: names.collect(),
        pending: Vec::new(),
        rewarmed: rewarmed(ground),
        removed: Vec::new(),
        sees: Sees::Both,
    };
    for chosen in &selection.chosen {
        match &chosen.reach {
            Reach::Keys(keys) => {
                let scoped = ground
                    .mapping()
                    .cache(chosen.cache)
                    .is_some_and(|cache| cache.generation_key.is_some());
                let holds = if scoped { Holds::Generation } else { Holds::Entry };
                for key in keys {
                    work.add(key.clone(), chosen.cache, holds).await?;
                }
            }
            Reach::Population => work.listed(ground, request, chosen.cache).await?,
            Reach::Scan => {}
        }
    }
    work.finish().await?;
    let prefixes = selection.scanned(ground.mapping());
    if !prefixes.is_empty() {
        // Leases first: see the room's documentation.
        let leases = prefixes.iter().map(|prefix| ground.keys.leases_of(prefix)).collect();
        work.sees = if act == Act::Count { Sees::Leases } else { Sees::Both };
        work.scanned(ground, selection, leases, progress).await?;
        work.sees = if act == Act::Count { Sees::Values } else { Sees::Both };
        work.scanned(ground, selection, prefixes, progress).await?;
    }
    Ok(Removal {
        caches: work.counts.into_iter().map(|(_, name, counts)| (name, counts)).collect(),
        removed: work.removed,
    })
}

/// What is counted. Who only looks meets an entry with a lease in both scans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sees {
    Both,
    Leases,
    Values,
}

struct Work {
    session: Session,
    act: Act,
    sees: Sees,
    counts: Vec<(CacheId, String, Counts)>,
    pending: Vec<(Vec<u8>, CacheId, Holds)>,
    /// The caches whose entries are named.
    rewarmed: BTreeSet<CacheId>,
    removed: Vec<Removed>,
}

fn rewarmed(ground: &Ground) -> BTreeSet<CacheId> {
    let caches = ground.mapping().caches();
    let caches =
        caches.filter(|(_, cache)| cache.rewarm != Rewarm::Never && cache.generation_key.is_none());
    caches.map(|(id, _)| id).collect()
}

impl Work {
    async fn add(&mut self, key: Vec<u8>, cache: CacheId, holds: Holds) -> Result<(), ManageError> {
        self.pending.push((key, cache, holds));
        if self.pending.len() >= AT_ONCE { self.finish().await } else { Ok(()) }
    }

    async fn finish(&mut self) -> Result<(), ManageError> {
        let (keys, whose): (Vec<Vec<u8>>, Vec<_>) = std::mem::take(&mut self.pending)
            .into_iter()
            .map(|(key, cache, holds)| (key, (cache, holds)))
            .unzip();
        if keys.is_empty() {
            return Ok(());
        }
        let mut connection = self.session.connection();
        let found = remove_keys(&mut connection, self.session.keys(), &keys, self.act).await?;
        for (((cache, holds), key), was) in whose.into_iter().zip(keys).zip(found) {
            let Some((_, name, counts)) = self.counts.iter_mut().find(|(id, ..)| *id == cache)
            else {
                continue;
            };
            let is_named = self.act == Act::Remove && was.value && self.rewarmed.contains(&cache);
            if is_named
                && self.removed.len() < NAMED
                && let Ok(key) = String::from_utf8(key)
            {
                self.removed.push((name.clone(), key));
            }
            counts.leases += u64::from(was.lease && self.sees != Sees::Values);
            let value = u64::from(was.value && self.sees != Sees::Leases);
            match holds {
                Holds::Entry => counts.entries += value,
                Holds::Generation => counts.scopes += value,
            }
        }
        Ok(())
    }

    /// The entries that the population gives: all users, not only those that would be warmed.
    async fn listed(
        &mut self,
        ground: &Ground,
        request: &Request,
        id: CacheId,
    ) -> Result<(), ManageError> {
        let Some(cache) = ground.mapping().cache(id) else { return Ok(()) };
        let Some(population) = ground.population(cache)? else { return Ok(()) };
        let client = ground.postgres().await?;
        let only = only(ground, request);
        let only: Vec<(&str, &str)> = only.iter().map(|(name, value)| (*name, &**value)).collect();
        let whose = Whose {
            organization: request.organization.as_deref(),
            users: Whose::EVERYBODY,
            user: request.user.as_deref(),
            only: &only,
        };
        let (to, from) = mpsc::channel(AT_ONCE);
        let key = |values: Values| selection::key_of(cache, &ground.key_prefix, &values);
        let listing = async {
            let listed = population.each(&client, whose, &to, key).await;
            drop(to);
            listed
        };
        let removing = async {
            // Its own: if this ends with an error, the other must not wait for a reader.
            let mut from = from;
            while let Some(key) = from.recv().await {
                let Some(key) = key else { continue };
                self.add(key, id, Holds::Entry).await?;
            }
            self.finish().await
        };
        let (listed, removed) = tokio::join!(listing, removing);
        removed?;
        listed?;
        Ok(())
    }

    /// What is under these prefixes, of leases or of values.
    async fn scanned(
        &mut self,
        ground: &Ground,
        selection: &Selection,
        prefixes: Vec<Vec<u8>>,
        progress: &dyn Progress,
    ) -> Result<(), ManageError> {
        let mut connection = self.session.connection();
        let mut walk = Walk::new(prefixes);
        while let Some(found) = walk.next(&mut connection).await? {
            progress.keys(found.len());
            for found in found {
                let key = ground.keys.key_of(&found).unwrap_or(&found);
                let Some((cache, holds)) = selection.takes(ground.mapping(), key) else { continue };
                self.add(key.to_vec(), cache, holds).await?;
            }
            self.finish().await?;
        }
        Ok(())
    }
}

/// What of a request a population's rows must have.
pub(super) fn only<'a>(ground: &'a Ground, request: &Request) -> Vec<(&'a str, String)> {
    let user = request.user.clone().map(|user| (ground.mapping().user_parameter(), user));
    let days = request.days.map(|days| (selection::DAYS, days.to_string()));
    user.into_iter().chain(days).collect()
}
