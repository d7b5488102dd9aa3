//! Which caches a command means: `all`, a group, `user`, or one cache by its name.
//!
//! The name of a composed cache means everything that is read under it: its parts, and its
//! own entries. So does a group, of those without entries of their own.

use std::collections::BTreeSet;

use super::Mapping;
use super::model::CacheId;

impl Mapping {
    /// The caches of a `cache_type`: `all`, the name of a cache, the name of a group
    /// (`strategic`, `api`), or `user`: those whose keys name a user.
    ///
    /// # Errors
    /// If it is none of these; the text says what there is.
    pub fn select(&self, cache_type: &str) -> Result<BTreeSet<CacheId>, String> {
        if let Some(composition) = self.composition(cache_type) {
            return Ok(composition.parts.iter().map(|part| part.cache).collect());
        }
        if let Some((id, _)) = self.cache_by_name(cache_type) {
            return Ok(BTreeSet::from([id]));
        }
        let mut found: BTreeSet<CacheId> = self
            .caches()
            .filter(|(_, cache)| {
                cache_type == "all"
                    || cache.group.as_deref() == Some(cache_type)
                    || (cache_type == "user"
                        && cache.template.parameters().any(|p| p == self.user_parameter()))
            })
            .map(|(id, _)| id)
            .collect();
        for composition in self.compositions() {
            let without_entries = self.cache_by_name(&composition.name).is_none();
            if without_entries && composition.group.as_deref() == Some(cache_type) {
                found.extend(composition.parts.iter().map(|part| part.cache));
            }
        }
        if found.is_empty() && cache_type != "all" {
            let names: BTreeSet<&str> = (self.caches().map(|(_, cache)| &*cache.name))
                .chain(self.compositions().iter().map(|composition| &*composition.name))
                .collect();
            let names: Vec<&str> = names.into_iter().collect();
            let groups: BTreeSet<&str> =
                self.caches().filter_map(|(_, cache)| cache.group.as_deref()).collect();
            let groups: Vec<&str> = groups.into_iter().collect();
            return Err(format!(
                "{cache_type:?} is no cache and no group; write all, user, a group ({}) or a cache ({})",
                groups.join(", "),
                names.join(", ")
            ));
        }
        Ok(found)
    }
}
