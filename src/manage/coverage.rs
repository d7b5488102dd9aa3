//! Of the entries that there should be, how many there are.
//!
//! Which there should be is said by each cache's `population`, as for `unstale warm`: of each
//! organization the users who logged in last, `warm.users` of them at the most.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use serde::Serialize;
use tokio::sync::mpsc;

use super::ground::{Ground, ManageError};
use super::remove::only;
use super::selection::{Request, Selection, key_of};
use crate::mapping::model::{CacheId, CacheModel};
use crate::postgres::client::SqlClient;
use crate::store::error::StoreError;
use crate::store::remove::{AT_ONCE, Act, remove};
use crate::store::session::Session;
use crate::warm::population::{Population, Values, Whose};

/// Of one cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Coverage {
    /// How many entries its population lists; `null`: it has none (a scoped cache: nobody knows
    /// what will be asked for).
    pub expected: Option<u64>,
    /// How many of those are cached; without a population, how many there are at all.
    pub cached: u64,
}

/// Counts, for the caches that are selected, what `request` means. `meant` says how many
/// entries were seen of a cache that has no population.
///
/// # Errors
/// If a server does not answer, or Postgres refuses a population.
pub async fn coverage(
    ground: &Ground,
    client: &SqlClient,
    session: &Session,
    (request, selection): (&Request, &Selection),
    meant: impl Fn(CacheId) -> u64,
) -> Result<Vec<(CacheId, Coverage)>, ManageError> {
    let only = only(ground, request);
    let only: Vec<(&str, &str)> = only.iter().map(|(name, value)| (*name, &**value)).collect();
    let whose = Whose {
        organization: request.organization.as_deref(),
        users: if request.user.is_some() { Whose::EVERYBODY } else { ground.users },
        user: request.user.as_deref(),
        only: &only,
    };
    let mut covered = Vec::new();
    for chosen in &selection.chosen {
        let Some(cache) = ground.mapping().cache(chosen.cache) else { continue };
        let coverage = match ground.population(cache)? {
            Some(population) => count(ground, client, session, cache, &population, whose).await?,
            None => Coverage { expected: None, cached: meant(chosen.cache) },
        };
        covered.push((chosen.cache, coverage));
    }
    Ok(covered)
}

/// How much is cached of what all populations list, by cache and by organization.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ByOrganization {
    /// By cache.
    pub caches: BTreeMap<CacheId, Share>,
    /// By organization, of the caches whose keys name it.
    pub organizations: HashMap<String, Share>,
    /// Of a cache that has more than was allowed, only some entries were looked at.
    pub sampled: bool,
}

/// How many of how many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// Entries that the population lists.
    pub expected: u64,
    /// Those that are cached.
    pub cached: u64,
}

/// Counts for every organization at once what a warm-up of everything would fill; of each cache `most`
/// entries, or up to twice as many, spread evenly over all. Redis is left alone between steps for as long as each took.
///
/// # Errors
/// If a server does not answer, or Postgres refuses a population.
pub async fn by_organization(
    ground: &Ground,
    client: &SqlClient,
    session: &Session,
    most: usize,
) -> Result<ByOrganization, ManageError> {
    let whose = Whose { users: ground.users, ..Whose::default() };
    let parameter = ground.mapping().organization_parameter();
    let mut connection = session.connection();
    let mut found = ByOrganization::default();
    for (id, cache) in ground.mapping().caches() {
        let Some(population) = ground.population(cache)? else { continue };
        let entries = population.list(client, whose).await?;
        // Odd: else it could meet the same of several days each time.
        let stride = (entries.len() / most.max(1)) | 1;
        found.sampled |= stride > 1;
        let mut at = (0..entries.len()).step_by(stride).peekable();
        while at.peek().is_some() {
            let (mut keys, mut whom) = (Vec::new(), Vec::new());
            for values in at.by_ref().take(AT_ONCE).filter_map(|at| entries.get(at)) {
                let values: Values =
                    values.into_iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
                let Some(key) = key_of(cache, &ground.key_prefix, &values) else { continue };
                keys.push(key);
                let organization = values.into_iter().find(|(name, _)| name == parameter);
                whom.push(organization.map(|(_, id)| id));
            }
            let start = Instant::now();
            let was = remove(&mut connection, session.keys(), &keys, Act::Count).await?;
            for (was, organization) in was.into_iter().zip(whom) {
                let add = |share: &mut Share| {
                    share.expected += 1;
                    share.cached += u64::from(was.value);
                };
                add(found.caches.entry(id).or_default());
                if let Some(organization) = organization {
                    add(found.organizations.entry(organization).or_default());
                }
            }
            tokio::time::sleep(start.elapsed().min(super::walk::LONGEST)).await;
        }
    }
    Ok(found)
}

async fn count(
    ground: &Ground,
    client: &SqlClient,
    session: &Session,
    cache: &CacheModel,
    population: &Population,
    whose: Whose<'_>,
) -> Result<Coverage, ManageError> {
    let (to, from) = mpsc::channel(AT_ONCE);
    let key = |values: Values| key_of(cache, &ground.key_prefix, &values);
    let listing = async {
        let listed = population.each(client, whose, &to, key).await;
        drop(to);
        listed
    };
    let counting = async {
        // Its own: if this ends with an error, the other must not wait for a reader.
        let mut from = from;
        let mut connection = session.connection();
        let mut coverage = Coverage { expected: Some(0), cached: 0 };
        let mut keys = Vec::new();
        while from.recv_many(&mut keys, AT_ONCE).await > 0 {
            let some: Vec<Vec<u8>> = std::mem::take(&mut keys).into_iter().flatten().collect();
            let found = remove(&mut connection, session.keys(), &some, Act::Count).await?;
            coverage.expected = coverage.expected.map(|n| n + some.len() as u64);
            coverage.cached += found.iter().filter(|was| was.value).count() as u64;
        }
        Ok::<_, StoreError>(coverage)
    };
    let (listed, counted) = tokio::join!(listing, counting);
    let coverage = counted?;
    listed?;
    Ok(coverage)
}
