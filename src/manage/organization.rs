//! Which organization a name is. The configuration's populations know it: they take
//! `$organization`, a name or an id, and give the parameters of its keys.
//!
//! An organization may be *named* `5`. Then `5` means the one whose id is 5, if there is one, and
//! no other: so every organization can be meant alone, by its id, whatever others call
//! themselves. The one of that name is meant by its own id. (Over HTTP only ids are taken.) The
//! shipped populations keep to that themselves, and [`find`] sees to it whatever they are.

use std::collections::BTreeSet;

use tokio::sync::mpsc;

use super::ground::{Ground, ManageError};
use super::selection::{Filter, Request, Selection};
use crate::mapping::model::CacheId;
use crate::postgres::client::SqlClient;
use crate::warm::population::{Population, Values, Whose};

/// An organization.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Organization {
    /// Its ids, as they stand in keys: one, unless several have that name. Of one that the
    /// database does not know: what was given.
    pub ids: BTreeSet<String>,
    /// Whether the database knows it. One that was deleted may still have entries. `None`: no
    /// population takes `$organization`, so nobody can say.
    pub known: Option<bool>,
}

/// Asks for an organization by its name or id.
///
/// # Errors
/// If Postgres does not answer or refuses a population.
pub async fn find(
    ground: &Ground,
    client: &SqlClient,
    given: &str,
) -> Result<Organization, ManageError> {
    let parameter = ground.mapping().organization_parameter();
    let user = ground.mapping().user_parameter();
    let mut populations: Vec<Population> = Vec::new();
    for (_, cache) in ground.mapping().caches() {
        let Some(population) = ground.population(cache)? else { continue };
        let gives = population.columns().iter().any(|column| column == parameter);
        let asked = populations.iter().any(|other| other.sql() == population.sql());
        if gives && population.names_organization() && !asked {
            populations.push(population);
        }
    }
    // An organization has itself before it has users.
    populations.sort_by_key(|population| population.columns().iter().any(|c| c == user));
    let whose = Whose { organization: Some(given), users: 1, ..Whose::default() };
    for population in &populations {
        let rows = list(population, client, whose).await?;
        let named = rows.into_iter().flatten().filter(|(name, _)| name == parameter);
        let ids: BTreeSet<String> = named.map(|(_, value)| value).collect();
        if ids.contains(given) {
            // An id before a name.
            let ids = BTreeSet::from([given.to_owned()]);
            return Ok(Organization { ids, known: Some(true) });
        }
        if !ids.is_empty() {
            return Ok(Organization { ids, known: Some(true) });
        }
    }
    let known = (!populations.is_empty()).then_some(false);
    Ok(Organization { ids: BTreeSet::from([given.to_owned()]), known })
}

/// All that a population gives, where that is little.
async fn list(
    population: &Population,
    client: &SqlClient,
    whose: Whose<'_>,
) -> Result<Vec<Values>, ManageError> {
    let (to, mut from) = mpsc::channel(64);
    let (listed, rows) = tokio::join!(
        async {
            let listed = population.each(client, whose, &to, |values| values).await;
            drop(to);
            listed
        },
        async {
            let mut rows = Vec::new();
            while let Some(row) = from.recv().await {
                rows.push(row);
            }
            rows
        }
    );
    listed?;
    Ok(rows)
}

/// What a request means: the organization that it names, if it names one, and the entries.
///
/// # Errors
/// If the organization must be asked for and Postgres does not answer.
pub async fn resolve(
    ground: &Ground,
    request: &Request,
    wanted: &BTreeSet<CacheId>,
) -> Result<(Option<Organization>, Selection), ManageError> {
    let organization = match &request.organization {
        Some(given) => Some(find(ground, &ground.postgres().await?, given).await?),
        None => None,
    };
    let selection = select(ground, request, wanted, organization.as_ref())?;
    Ok((organization, selection))
}

/// [`resolve`], the organization being known.
///
/// # Errors
/// If a population of the configuration is none.
pub fn select(
    ground: &Ground,
    request: &Request,
    wanted: &BTreeSet<CacheId>,
    organization: Option<&Organization>,
) -> Result<Selection, ManageError> {
    let none = BTreeSet::new();
    let ids = organization.map_or(&none, |organization| &organization.ids);
    let filter = Filter::new(ground.mapping(), request, ids);
    let mut listing = BTreeSet::new();
    for (_, cache) in ground.mapping().caches() {
        if ground.population(cache)?.is_some_and(|population| population.names_organization()) {
            listing.insert(cache.name.to_string());
        }
    }
    let lists = |cache: &crate::mapping::model::CacheModel| listing.contains(&*cache.name);
    Ok(Selection::new(ground.mapping(), &ground.key_prefix, wanted, filter, lists))
}
