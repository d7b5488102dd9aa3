//! Which key is meant, and what the configuration says of it.

use crate::mapping::Mapping;
use crate::mapping::model::CacheModel;

/// A key, and what the configuration says of it.
pub struct Key<'m> {
    /// As Redis has it.
    pub full: String,
    pub(super) cache: Option<&'m CacheModel>,
    pub(super) parameters: Vec<(&'m str, String)>,
    /// Of an entry of a scoped cache: the key of its scope's generation, and which one the
    /// entry is of.
    pub generation: Option<(String, String)>,
}

impl<'m> Key<'m> {
    /// With or without the prefix: the way in which some cache has such keys, else as
    /// given if it begins with the prefix.
    #[must_use]
    pub fn find(given: &str, prefix: &str, mapping: &'m Mapping) -> Self {
        let prefixed = format!("{prefix}{given}");
        let known = |key: &str| mapping.cache_of_key(key.as_bytes()).is_some();
        let as_given = known(given) || (given.starts_with(prefix) && !known(&prefixed));
        let full = if as_given { given.to_owned() } else { prefixed };
        let cache = mapping.cache_of_key(full.as_bytes()).map(|(_, cache)| cache);
        let parsed = cache.and_then(|cache| cache.parse_key(full.as_bytes()));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let generation = cache.zip(parsed.as_ref()).and_then(|(cache, parsed)| {
            let value = |name: &str| {
                parsed.parameters.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_slice())
            };
            let mut key = prefix.as_bytes().to_vec();
            let template = cache.generation_key.as_ref().filter(|_| !parsed.is_generation)?;
            template.render(value, &mut key)?;
            Some((text(&key), text(value("generation")?)))
        });
        let parameters = parsed.map(|parsed| parsed.parameters).unwrap_or_default();
        let parameters = parameters.into_iter().map(|(name, value)| (name, text(&value))).collect();
        Key { full, cache, parameters, generation }
    }
}
