//! What the read API is made of, and what of it a reload replaces.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tracing::warn;

use super::endpoints::Endpoints;
use super::reading::SharedFiller;
use super::seen::Seen;
use super::token::Keys;
use crate::config::api::Api as Settings;
use crate::fill::held::Held;
use crate::loader::load::Bounds;
use crate::mapping::Mapping;
use crate::mapping::template::{GENERATION, Template};
use crate::pipeline::context::Context;
use crate::pipeline::end::End;
use crate::pipeline::status::Status;
use crate::store::keys::ControlKeys;
use crate::store::reader::Reader;

/// The read API.
pub struct Api {
    pub(super) settings: Settings,
    pub(super) keys: Keys,
    pub(super) status: Arc<Status>,
    pub(super) held: Arc<Held>,
    pub(super) reader: Reader,
    pub(super) seen: Seen,
    serving: ArcSwapOption<Serving>,
}

/// What follows from the rules: another one after each reload.
pub(super) struct Serving {
    pub(super) endpoints: Arc<Endpoints>,
    pub(super) mapping: Arc<Mapping>,
    pub(super) filler: SharedFiller,
    key_prefix: String,
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
                context.address.clone(),
                ControlKeys::new(&context.config.postgres.slot),
            ),
            seen: Seen::default(),
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
        let (new, problem) = match context.filler_within(bounds) {
            Ok(filler) => (Some(filler), None),
            Err(End::Hopeless(reason)) => (None, Some(reason)),
            Err(other) => (None, Some(format!("{other:?}"))),
        };
        let new = new.map(|filler| {
            Arc::new(Serving {
                endpoints: Arc::clone(&context.rules.endpoints),
                mapping: Arc::clone(&context.rules.mapping),
                filler: Arc::new(filler),
                key_prefix: context.config.redis.key_prefix.clone(),
            })
        });
        let former = self.serving.swap(new);
        match problem {
            None => Ok(Retired(former)),
            Some(reason) => Err(reason),
        }
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
