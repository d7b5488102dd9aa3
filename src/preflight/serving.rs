//! What the read API tells those who keep what it answered: pure.

use super::finding::{Finding, Section};
use super::places::Places;
use crate::config::api::BrowserCache;
use crate::config::endpoints::Who;
use crate::config::problem::ConfigPath;

/// What the read API is told to serve that may not be what is meant.
#[must_use]
pub fn findings(places: &Places<'_>) -> Vec<Finding> {
    let mut findings = kept_by_others(places);
    findings.extend(may_be_stale(places));
    findings
}

/// Which values may be answered although they are old, since the configuration says so.
fn may_be_stale(places: &Places<'_>) -> Vec<Finding> {
    let config = places.config;
    let mut findings = Vec::new();
    for (name, cache) in &config.caches.by_name {
        let Some(within) = cache.stale_if_error else { continue };
        let at = places.of(ConfigPath::from_iter(["caches", name, "stale_if_error"]));
        let served =
            config.api.enabled && config.endpoints.iter().any(|endpoint| endpoint.cache == *name);
        findings.push(if served {
            let message = format!(
                "while the database does not answer, values of {name} are answered that were right up to {within} ago"
            );
            let hint = "they say so (Age, Warning, Cache-Status); leave out stale_if_error if nobody may get one";
            Finding::note(Section::Api, message).at(at).hint(hint)
        } else {
            let message = format!("stale_if_error of {name} has no effect: no endpoint serves it");
            let hint = "an endpoint's own cache counts, not what that is composed of; leave it out here";
            Finding::warning(Section::Api, message).at(at).hint(hint)
        });
    }
    findings
}

/// Endpoints that need a token, and let caches on the way keep or never ask again. Nothing
/// to say where nobody can have a token.
fn kept_by_others(places: &Places<'_>) -> Vec<Finding> {
    let (api, endpoints) = (&places.config.api, &places.config.endpoints);
    let overruled = api.browser_cache == BrowserCache::Revalidate;
    if !api.enabled || overruled || api.jwt.all_keys().next().is_none() {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (index, endpoint) in endpoints.iter().enumerate() {
        let directives = endpoint.cache_control.split(',').map(str::trim);
        let open: Vec<&str> = directives
            .filter(|d| d.eq_ignore_ascii_case("public") || d.eq_ignore_ascii_case("immutable"))
            .collect();
        if endpoint.who == Who::Anyone || open.is_empty() {
            continue;
        }
        let path = ConfigPath::root().child("endpoints").child(index).child("cache_control");
        let message = format!(
            "{} needs a token, and is answered with Cache-Control: {}",
            endpoint.path,
            open.join(", ")
        );
        let hint = "a cache on the way may show it to others, and a browser what was dropped here long ago: set browser_cache = \"revalidate\" in [api], or take the words out";
        findings.push(Finding::warning(Section::Api, message).at(places.of(path)).hint(hint));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layers;

    fn places(set: &str) -> Vec<String> {
        let shipped = include_str!("../../config/unstale.toml");
        let mut layers = Layers::text("unstale.toml", shipped);
        layers.overrides = set.split_whitespace().map(|set| set.parse().unwrap()).collect();
        let loaded = layers.load().unwrap();
        let places = Places { source: &loaded.source, config: &loaded.config };
        findings(&places).into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn what_is_behind_a_token_should_not_be_kept_by_others() {
        const KEY: &str = "api.jwt.secret=0123456789abcdef0123456789abcdef";
        assert_eq!(places(""), [""; 0], "nobody can have a token");
        let found = places(KEY);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found[0].contains("/info/") && found[0].ends_with("public, immutable"),
            "{found:?}"
        );
        assert_eq!(places(&format!("{KEY} api.browser_cache=revalidate")), [""; 0]);
    }

    #[test]
    fn what_may_be_stale_is_told_and_what_has_no_effect() {
        let found = places("caches.org_data.stale_if_error=5m caches.dashboard.stale_if_error=5m");
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("dashboard has no effect"), "{found:?}");
        assert!(found[1].contains("org_data") && found[1].contains("5m"), "{found:?}");
    }
}
