//! What the read API is made of, and what of it a reload replaces.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::counted::Counters;
use super::endpoints::Endpoints;
use super::management::{Allowance, Jobs, Surveyor};
use super::openapi;
use super::reading::SharedFiller;
use super::seen::Seen;
use super::stale::Stale;
use super::token::Keys;
use crate::config::api::Api as Settings;
use crate::fill::held::Held;
use crate::loader::load::Bounds;
use crate::manage::ground::Ground;
use crate::mapping::Mapping;
use crate::mapping::template::{GENERATION, Template};
use crate::pipeline::context::Context;
use crate::pipeline::end::End;
use crate::status::Status;
use crate::store::keys::ControlKeys;
use crate::store::reader::Reader;
use crate::warm::filling::Filling;
use crate::warm::turns::Turns;

/// The read API.
pub struct Api {
    pub(super) settings: Settings,
    pub(super) keys: Keys,
    pub(super) status: Arc<Status>,
    pub(super) held: Arc<Held>,
    pub(super) reader: Reader,
    pub(super) seen: Seen,
    pub(super) jobs: Arc<Jobs>,
    pub(super) allowance: Allowance,
    pub(super) surveyor: Arc<Surveyor>,
    /// What is cached is the application's.
    pub(super) shadow: bool,
    serving: ArcSwapOption<Serving>,
}

/// What follows from the rules: another one after each reload.
pub(super) struct Serving {
    pub(super) endpoints: Arc<Endpoints>,
    pub(super) mapping: Arc<Mapping>,
    pub(super) filler: SharedFiller,
    /// The OpenAPI document.
    pub(super) openapi: Bytes,
    key_prefix: String,
    pub(super) counters: Counters,
    /// What was answered lately.
    pub(super) stale: Stale,
    /// What orders are done with.
    pub(super) ground: Ground,
    pub(super) filling: Filling,
    pub(super) turns: Turns,
    pub(super) workers: usize,
    /// How long a fill may take.
    pub(super) patience: Duration,
    /// A reload has replaced it: what was ordered ends.
    pub(super) ended: CancellationToken,
}

/// What was served before a reload.
#[must_use]
pub struct Retired(Option<Arc<Serving>>);

impl Api {
    /// Reads the keys; does not connect yet.
    ///
    /// # Errors
    /// What cannot be used, and what to do.
    pub fn new(context: &Context) -> Result<Api, String> {
        let settings = context.config.api.clone();
        let api = Api {
            keys: Keys::load(&settings.jwt)?,
            status: Arc::clone(&context.status),
            held: Arc::clone(&context.held),
            reader: Reader::new(
                &context.address,
                &ControlKeys::new(&context.config.postgres.slot),
                settings.threads,
            ),
            seen: Seen::default(),
            jobs: Arc::default(),
            allowance: Allowance::new(settings.management_per_minute),
            surveyor: Arc::default(),
            shadow: context.shadow.is_some(),
            serving: ArcSwapOption::empty(),
            settings,
        };
        _ = api.serve(context)?;
        Ok(api)
    }

    /// Serves by these rules from here on. Who is served by the former ones may still fill by
    /// them: a run that others are applied in must not begin before [`Retired::gone`].
    ///
    /// # Errors
    /// If a query cannot be used. Then nothing is served.
    pub fn serve(&self, context: &Context) -> Result<Retired, String> {
        let bounds = Bounds {
            connections: self.settings.max_loads,
            statement_timeout: context
                .config
                .postgres
                .statement_timeout
                .get()
                .min(self.settings.request_timeout.get()),
            wait: self.settings.max_load_wait.get(),
        };
        let (new, problem) = match self.new_serving(context, bounds) {
            Ok(new) => (Some(Arc::new(new)), None),
            Err(reason) => (None, Some(reason)),
        };
        let former = self.serving.swap(new);
        if let Some(former) = &former {
            former.ended.cancel();
        }
        match problem {
            None => Ok(Retired(former)),
            Some(reason) => Err(reason),
        }
    }

    fn new_serving(&self, context: &Context, bounds: Bounds) -> Result<Serving, String> {
        let filler = |bounds| {
            context.filler_within(bounds).map_err(|end| match end {
                End::Hopeless(reason) => reason,
                other => format!("{other:?}"),
            })
        };
        let config = &context.config;
        // Orders have connections of their own: they must not keep requests waiting.
        let timeout = config.postgres.statement_timeout.get();
        let workers = config.warm.concurrency;
        let of_orders = Bounds { connections: workers, statement_timeout: timeout, wait: timeout };
        let ground = Ground::new(config, &context.rules, "unstale management");
        let (endpoints, mapping) = (&context.rules.endpoints, &context.rules.mapping);
        let identity =
            endpoints.identity.and_then(|id| mapping.cache(id)).map(|cache| &*cache.name);
        Ok(Serving {
            counters: Counters::of(&self.status.metrics, endpoints, identity),
            openapi: openapi::text(&openapi::document(&context.rules)).into(),
            endpoints: Arc::clone(&context.rules.endpoints),
            mapping: Arc::clone(&context.rules.mapping),
            filler: Arc::new(filler(bounds)?),
            key_prefix: config.redis.key_prefix.clone(),
            stale: Stale::new(self.settings.max_stale_bytes, self.held.by_hand()),
            ground: ground.map_err(|error| error.to_string())?,
            filling: Filling::new(filler(of_orders)?),
            turns: Turns::new(&config.warm),
            workers,
            patience: timeout,
            ended: CancellationToken::new(),
        })
    }

    /// The daemon ends: what was ordered is cut off, and said to be, within this time.
    pub async fn wind_up(&self, within: Duration) {
        self.jobs.cut_off(within).await;
    }

    pub(super) fn serving(&self) -> Option<Arc<Serving>> {
        self.serving.load_full()
    }
}

impl Retired {
    /// Waits until nobody is served by the former rules, as long as a request may take.
    pub async fn gone(self, within: Duration) {
        if let Some(former) = self.0 {
            let unused = async {
                // Each request has the one, and what it began, which goes on without it, the other.
                while Arc::strong_count(&former) + Arc::strong_count(&former.filler) > 2 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            if tokio::time::timeout(within * 2 + Duration::from_secs(1), unused).await.is_err() {
                warn!("what was being filled by the former rules has not ended in time");
            }
        }
    }
}

impl Serving {
    /// The Redis key by a template.
    pub(super) fn key(
        &self,
        template: &Template,
        values: &[(&str, &str)],
        generation: Option<&[u8]>,
    ) -> Option<Vec<u8>> {
        let mut key = Vec::with_capacity(self.key_prefix.len() + 64);
        key.extend_from_slice(self.key_prefix.as_bytes());
        let value = |name: &str| match generation {
            Some(generation) if name == GENERATION => Some(generation),
            _ => values.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_bytes()),
        };
        template.render(value, &mut key)?;
        Some(key)
    }
}
