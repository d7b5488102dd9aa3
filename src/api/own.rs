//! What the daemon serves of itself, beside `[[endpoints]]`: pure.

/// The OpenAPI document.
pub const OPENAPI: &str = "/api/openapi.json";

/// One of these paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Own {
    /// The document.
    OpenApi,
}

impl Own {
    /// What a path leads to, with or without the slash at its end.
    pub(super) fn find(path: &str) -> Option<Own> {
        let path = path.strip_suffix('/').unwrap_or(path);
        (path == OPENAPI).then_some(Own::OpenApi)
    }

    /// The label `endpoint` of the metrics.
    pub(super) fn template(self) -> &'static str {
        match self {
            Own::OpenApi => OPENAPI,
        }
    }
}
