//! What the daemon serves of itself, beside `[[endpoints]]`: pure.

use super::respond::METHODS;

/// The OpenAPI document.
pub const OPENAPI: &str = "/api/openapi.json";
/// Fills what is not there.
pub const WARM: &str = "/api/cache-management/warm-cache/";
/// Removes what is there.
pub const INVALIDATE: &str = "/api/cache-management/invalidate-cache/";
/// What became of it.
pub const JOB: &str = "/api/cache-management/jobs/{id}/";
/// How it stands.
pub const STATUS: &str = "/api/cache-management/cache-status/";

const POSTS: &str = "POST, OPTIONS";

/// One of these paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Own<'p> {
    /// The document.
    OpenApi,
    /// An order: to warm or to invalidate.
    Order(Action),
    /// A job, by its id.
    Job(&'p str),
    /// How the cache stands.
    Status,
}

/// What is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Fill what is not there.
    Warm,
    /// Remove what is there.
    Invalidate,
}

impl<'p> Own<'p> {
    /// What a path leads to, with or without the slash at its end.
    pub(super) fn find(path: &'p str) -> Option<Own<'p>> {
        let path = path.strip_suffix('/').unwrap_or(path);
        let rest = path.strip_prefix("/api/")?;
        Some(match rest {
            "openapi.json" => Own::OpenApi,
            "cache-management/warm-cache" => Own::Order(Action::Warm),
            "cache-management/invalidate-cache" => Own::Order(Action::Invalidate),
            "cache-management/cache-status" => Own::Status,
            _ => {
                let id = rest.strip_prefix("cache-management/jobs/")?;
                return (!id.is_empty() && !id.contains('/')).then_some(Own::Job(id));
            }
        })
    }

    /// The label `endpoint` of the metrics.
    pub(super) fn template(self) -> &'static str {
        match self {
            Own::OpenApi => OPENAPI,
            Own::Order(Action::Warm) => WARM,
            Own::Order(Action::Invalidate) => INVALIDATE,
            Own::Job(_) => JOB,
            Own::Status => STATUS,
        }
    }

    /// What is allowed there.
    pub(super) fn methods(self) -> &'static str {
        if matches!(self, Own::Order(_)) { POSTS } else { METHODS }
    }
}

impl Action {
    /// In jobs and in the audit log.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Action::Warm => "warm",
            Action::Invalidate => "invalidate",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_found_in_no_other_spelling() {
        assert_eq!(Own::find(WARM), Some(Own::Order(Action::Warm)));
        assert_eq!(Own::find("/api/openapi.json/"), Some(Own::OpenApi));
        assert_eq!(Own::find("/api/cache-management/jobs/7f"), Some(Own::Job("7f")));
        for other in [
            "/api//cache-management/cache-status/",
            "/api/cache-management/cache-status//",
            "/api/cache-management/jobs/",
            "/api/cache-management/jobs/a/b",
            "/api/cache-management/%77arm-cache/",
            "/api/cached/../cache-management/warm-cache/",
            "api/openapi.json",
        ] {
            assert_eq!(Own::find(other), None, "{other}");
        }
    }
}
