//! What is counted with every hit, found by its labels once: to look five of them up would be a
//! fortieth of what a hit costs.

use axum::http::StatusCode;
use prometheus::{Histogram, IntCounter};

use super::endpoints::{Endpoint, Endpoints};
use crate::metrics::Metrics;

/// Of each endpoint, in their order, and of identities.
pub(super) struct Counters {
    endpoints: Vec<Counted>,
    /// Identities that the process held.
    pub(super) held: Option<IntCounter>,
}

/// What is counted of an endpoint.
pub(super) struct Counted {
    /// Answers with 200.
    pub(super) ok: IntCounter,
    /// How long answering took.
    pub(super) seconds: Histogram,
    /// Values that were cached.
    pub(super) hits: IntCounter,
    /// How long reading those took.
    pub(super) hit_seconds: Histogram,
}

impl Counters {
    pub(super) fn of(metrics: &Metrics, endpoints: &Endpoints, identity: Option<&str>) -> Counters {
        let held = |cache| metrics.cache_reads.with_label_values(&[cache, "held"]);
        Counters {
            endpoints: endpoints.iter().map(|endpoint| Counted::of(metrics, endpoint)).collect(),
            held: identity.map(held),
        }
    }

    /// Those of the endpoint with this number.
    pub(super) fn endpoint(&self, number: usize) -> Option<&Counted> {
        self.endpoints.get(number)
    }
}

impl Counted {
    fn of(metrics: &Metrics, endpoint: &Endpoint) -> Counted {
        let (template, cache) = (&*endpoint.template, &*endpoint.cache);
        let ok = StatusCode::OK;
        Counted {
            ok: metrics.requests.with_label_values(&[template, ok.as_str()]),
            seconds: metrics.request_seconds.with_label_values(&[template]),
            hits: metrics.cache_reads.with_label_values(&[cache, "hit"]),
            hit_seconds: metrics.cache_read_seconds.with_label_values(&[cache, "hit"]),
        }
    }
}
