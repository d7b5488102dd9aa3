//! Which entries a request means. Pure.

use std::collections::BTreeSet;

use crate::mapping::Mapping;
use crate::mapping::model::{CacheId, CacheModel};

/// The parameter of keys that says how many days a value is of.
pub const DAYS: &str = "days";

/// What is asked for, as it was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// `all`, `user`, a group, or a cache's name.
    pub cache_type: String,
    /// An organization, by name or id.
    pub organization: Option<String>,
    /// A user, by id.
    pub user: Option<String>,
    /// How many days.
    pub days: Option<u32>,
}

/// Whether any cache has entries of so many days; else what to write. `scoped`: those count, too,
/// of which nobody can list what will be asked.
///
/// # Errors
/// What the caches that are meant know, if none knows these days.
pub fn check_days(
    mapping: &Mapping,
    wanted: &BTreeSet<CacheId>,
    days: u32,
    scoped: bool,
) -> Result<(), String> {
    let mut known: BTreeSet<u64> = BTreeSet::new();
    let days_of = |cache: &CacheModel| cache.template.parameters().any(|name| name == DAYS);
    for (_, cache) in mapping.caches().filter(|(id, cache)| wanted.contains(id) && days_of(cache)) {
        match cache.enumerated.get(DAYS) {
            Some(values) => {
                known.extend(values.iter().filter_map(|value| value.parse::<u64>().ok()))
            }
            None if scoped || cache.generation_key.is_none() => return Ok(()),
            None => {}
        }
    }
    if known.is_empty() || known.contains(&days.into()) {
        return Ok(());
    }
    let known: Vec<String> = known.iter().map(ToString::to_string).collect();
    Err(format!("nothing is cached of {days} days: write one of {}", known.join(", ")))
}

/// What the parameters of a key must be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    allowed: Vec<(Box<str>, BTreeSet<String>, Meaning)>,
}

/// What a parameter stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Organization,
    User,
    Days,
}

impl Filter {
    /// `organizations`: the ids of the organization that the request names.
    #[must_use]
    pub fn new(mapping: &Mapping, request: &Request, organizations: &BTreeSet<String>) -> Self {
        let mut allowed = Vec::new();
        if request.organization.is_some() {
            let name = mapping.organization_parameter().into();
            allowed.push((name, organizations.clone(), Meaning::Organization));
        }
        if let Some(user) = &request.user {
            let name = mapping.user_parameter().into();
            allowed.push((name, BTreeSet::from([user.clone()]), Meaning::User));
        }
        if let Some(days) = request.days {
            allowed.push((DAYS.into(), BTreeSet::from([days.to_string()]), Meaning::Days));
        }
        Filter { allowed }
    }

    /// Whether everything passes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.allowed.is_empty()
    }

    /// Whether a key with these parameters is meant: each that is asked for must be one of
    /// them.
    #[must_use]
    pub fn passes(&self, parameters: &[(&str, Vec<u8>)]) -> bool {
        self.allowed.iter().all(|(name, values, _)| {
            parameters.iter().any(|(known, value)| {
                *known == &**name && str::from_utf8(value).is_ok_and(|value| values.contains(value))
            })
        })
    }

    fn values(&self, parameter: &str) -> Option<&BTreeSet<String>> {
        let mut allowed = self.allowed.iter();
        allowed.find(|(name, ..)| &**name == parameter).map(|(_, values, _)| values)
    }
}

/// What is meant, cache by cache.
#[derive(Debug)]
pub struct Selection {
    /// The caches, by name.
    pub chosen: Vec<Chosen>,
    /// Those that were asked for and that the rest of the request does not fit, with the reason.
    pub left_out: Vec<(String, &'static str)>,
    /// What the keys must be like.
    pub filter: Filter,
}

/// A cache, and how its entries are found.
#[derive(Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Which.
    pub cache: CacheId,
    /// How.
    pub reach: Reach,
}

/// How the entries of a cache that are meant are found.
#[derive(Debug, PartialEq, Eq)]
pub enum Reach {
    /// These are all there can be, with `redis.key_prefix`. Of a scoped cache: generations.
    Keys(Vec<Vec<u8>>),
    /// By looking through the keys of the cache: see [`Selection::takes`].
    Scan,
    /// Its keys do not name the organization: the cache's population lists them.
    Population,
}

/// What a key holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// A value.
    Entry,
    /// The generation of a scope.
    Generation,
}

impl Selection {
    /// `lists`: whether a cache's population can list one organization's entries.
    #[must_use]
    pub fn new(
        mapping: &Mapping,
        key_prefix: &str,
        wanted: &BTreeSet<CacheId>,
        filter: Filter,
        lists: impl Fn(&CacheModel) -> bool,
    ) -> Self {
        let mut selection = Selection { chosen: Vec::new(), left_out: Vec::new(), filter };
        for (id, cache) in mapping.caches().filter(|(id, _)| wanted.contains(id)) {
            match reach(cache, key_prefix, &selection.filter, &lists) {
                Ok(reach) => selection.chosen.push(Chosen { cache: id, reach }),
                Err(reason) => selection.left_out.push((cache.name.to_string(), reason)),
            }
        }
        selection
    }

    /// Of the keys that a scan shows: whose it is and what it holds, if it is meant.
    #[must_use]
    pub fn takes(&self, mapping: &Mapping, key: &[u8]) -> Option<(CacheId, Holds)> {
        let (id, cache) = mapping.cache_of_key(key)?;
        let chosen = self.chosen.iter().find(|chosen| chosen.cache == id)?;
        if chosen.reach != Reach::Scan {
            return None;
        }
        let parsed = cache.parse_key(key)?;
        let holds = if parsed.is_generation { Holds::Generation } else { Holds::Entry };
        // Of a generation all that it stands for must be meant: what the filter asks for is
        // then among its own parameters.
        self.filter.passes(&parsed.parameters).then_some((id, holds))
    }

    /// The prefixes of the caches that must be looked through.
    #[must_use]
    pub fn scanned(&self, mapping: &Mapping) -> Vec<Vec<u8>> {
        let scanned = self.chosen.iter().filter(|chosen| chosen.reach == Reach::Scan);
        scanned.filter_map(|chosen| Some(mapping.cache(chosen.cache)?.prefix.to_vec())).collect()
    }
}

fn reach(
    cache: &CacheModel,
    key_prefix: &str,
    filter: &Filter,
    lists: impl Fn(&CacheModel) -> bool,
) -> Result<Reach, &'static str> {
    if filter.is_empty() {
        return Ok(Reach::Scan);
    }
    let mut by_population = false;
    for (name, _, meaning) in &filter.allowed {
        if cache.template.parameters().any(|parameter| parameter == &**name) {
            continue;
        }
        match meaning {
            Meaning::Organization if cache.generation_key.is_none() && lists(cache) => {
                by_population = true;
            }
            Meaning::Organization => {
                return Err("its keys name no organization, and no population lists those of one");
            }
            Meaning::User => return Err("its keys name no user"),
            Meaning::Days => return Err("its keys name no number of days"),
        }
    }
    if by_population {
        return Ok(Reach::Population);
    }
    Ok(all_keys(cache, key_prefix, filter).map_or(Reach::Scan, Reach::Keys))
}

/// All keys that can be meant, if the filter and the enumerated parameters leave none open.
fn all_keys(cache: &CacheModel, key_prefix: &str, filter: &Filter) -> Option<Vec<Vec<u8>>> {
    let target = cache.target();
    let names: Vec<&str> = target.parameters().collect();
    if !filter.allowed.iter().all(|(name, ..)| names.contains(&&**name)) {
        return None;
    }
    let mut combinations: Vec<Vec<(&str, &str)>> = vec![Vec::new()];
    for name in names {
        let values: Vec<&str> = match filter.values(name) {
            Some(values) => values.iter().map(String::as_str).collect(),
            None => cache.enumerated.get(name)?.iter().map(String::as_str).collect(),
        };
        let mut longer = Vec::with_capacity(combinations.len() * values.len());
        for combination in &combinations {
            for value in &values {
                let mut combination = combination.clone();
                combination.push((name, *value));
                longer.push(combination);
            }
        }
        combinations = longer;
    }
    let key = |combination: &Vec<(&str, &str)>| {
        let value = |name: &str| {
            combination.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_bytes())
        };
        let mut key = key_prefix.as_bytes().to_vec();
        target.render(value, &mut key)?;
        Some(key)
    };
    combinations.iter().map(key).collect()
}

/// The Redis key of an entry of a cache without scope; `None` if a parameter is missing.
pub(super) fn key_of(
    cache: &CacheModel,
    key_prefix: &str,
    values: &[(String, String)],
) -> Option<Vec<u8>> {
    let value = |name: &str| {
        values.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_bytes())
    };
    let mut key = key_prefix.as_bytes().to_vec();
    cache.template.render(value, &mut key)?;
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layers;

    fn mapping() -> Mapping {
        let toml = r#"
            [postgres]
            url = "postgres://h/d"
            [redis]
            url = "redis://h"
            key_prefix = "p:"
            [caches.org]
            key = "org:{org_id}"
            [caches.stats]
            key = "stats:{org_id}:{days}"
            parameters = { days = [7, 30] }
            [caches.perms]
            key = "perms:{user_id}:{org_id}"
            [caches.identity]
            key = "identity:{user_id}"
            [caches.search]
            key = "search:{org_id}:{generation}:{q}:{days}"
            scope = ["org_id"]
        "#;
        Mapping::new(&Layers::text("test.toml", toml).load().unwrap().config).unwrap()
    }

    fn select(request: &Request, ids: &[&str]) -> Selection {
        let mapping = mapping();
        let ids = ids.iter().map(|id| (*id).to_owned()).collect();
        let filter = Filter::new(&mapping, request, &ids);
        let wanted = mapping.select("all").unwrap();
        Selection::new(&mapping, "p:", &wanted, filter, |cache| &*cache.name == "identity")
    }

    fn shown(selection: &Selection) -> Vec<String> {
        let mapping = mapping();
        let show = |chosen: &Chosen| {
            let name = &mapping.cache(chosen.cache).unwrap().name;
            match &chosen.reach {
                Reach::Keys(keys) => {
                    let keys: Vec<&str> =
                        keys.iter().map(|key| str::from_utf8(key).unwrap()).collect();
                    format!("{name}: {}", keys.join(" "))
                }
                other => format!("{name}: {other:?}"),
            }
        };
        let left_out = selection.left_out.iter().map(|(name, _)| format!("{name}: -"));
        selection.chosen.iter().map(show).chain(left_out).collect()
    }

    fn taken(selection: &Selection, key: &str) -> Option<Holds> {
        selection.takes(&mapping(), key.as_bytes()).map(|(_, holds)| holds)
    }

    #[test]
    fn without_a_filter_every_cache_is_looked_through() {
        let selection = select(&Request::default(), &[]);
        assert!(selection.chosen.iter().all(|chosen| chosen.reach == Reach::Scan));
        assert_eq!(taken(&selection, "p:org:7"), Some(Holds::Entry));
        assert_eq!(taken(&selection, "p:search:7:generation"), Some(Holds::Generation));
        assert_eq!(taken(&selection, "p:search:7:abc:q:30"), Some(Holds::Entry));
        for foreign in ["p:org:7:more", "org:7", "p:other:7", "unstale:s:state"] {
            assert_eq!(taken(&selection, foreign), None, "{foreign}");
        }
    }

    #[test]
    fn an_organization_is_in_its_keys_or_in_the_population() {
        let request = Request { organization: Some("one".into()), ..Request::default() };
        let selection = select(&request, &["1", "a:b"]);
        assert_eq!(
            shown(&selection),
            [
                "identity: Population",
                "org: p:org:1 p:org:a%3Ab",
                "perms: Scan",
                "search: p:search:1:generation p:search:a%3Ab:generation",
                "stats: p:stats:1:7 p:stats:1:30 p:stats:a%3Ab:7 p:stats:a%3Ab:30",
            ]
        );
        assert_eq!(taken(&selection, "p:perms:5:1"), Some(Holds::Entry));
        assert_eq!(taken(&selection, "p:perms:1:5"), None);
        assert_eq!(taken(&selection, "p:org:1"), None, "that one is known without looking");
    }

    #[test]
    fn a_user_is_in_the_keys_or_the_cache_is_left_out() {
        let request = Request { user: Some("5".into()), ..Request::default() };
        let selection = select(&request, &[]);
        assert_eq!(
            shown(&selection),
            ["identity: p:identity:5", "perms: Scan", "org: -", "search: -", "stats: -"]
        );
        assert_eq!(taken(&selection, "p:perms:5:1"), Some(Holds::Entry));
        assert_eq!(taken(&selection, "p:perms:1:5"), None);
        let request = Request {
            user: Some("5".into()),
            organization: Some("1".into()),
            ..Request::default()
        };
        let selection = select(&request, &["1"]);
        assert_eq!(
            shown(&selection),
            ["identity: Population", "perms: p:perms:5:1", "org: -", "search: -", "stats: -"]
        );
    }

    #[test]
    fn days_take_no_more_of_a_scope_than_those_days() {
        let request =
            Request { organization: Some("1".into()), days: Some(30), ..Request::default() };
        let selection = select(&request, &["1"]);
        assert_eq!(
            shown(&selection),
            ["search: Scan", "stats: p:stats:1:30", "identity: -", "org: -", "perms: -"]
        );
        assert_eq!(taken(&selection, "p:search:1:generation"), None, "it holds all days");
        assert_eq!(taken(&selection, "p:search:1:abc:q:30"), Some(Holds::Entry));
        assert_eq!(taken(&selection, "p:search:1:abc:q:7"), None);
        assert_eq!(taken(&selection, "p:search:2:abc:q:30"), None);
    }
}
