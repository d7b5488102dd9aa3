//! What was removed by hand: dropped from what this process holds, and filled again where the
//! configuration says so. It has come to Redis as notices ([`crate::store::notices`], with the
//! argument). Only a daemon that streams answers them, since only what that one holds counts. Copies
//! for `stale_if_error` ([`crate::api`]) count just while nothing streams: where there are any, the
//! notices are looked at all the time.
//!
//! Beside the pipeline, not of it: it moves no position, and an error costs nothing but time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, info};

use super::context::Context;
use crate::fill::held::Held;
use crate::mapping::Mapping;
use crate::store::error::StoreError;
use crate::store::keys::ControlKeys;
use crate::store::notices::{Notice, done, waiting};
use crate::store::session::{Address, Session};
use crate::warm::rewarm::Rewarmer;

/// How often it looks.
const EVERY: Duration = Duration::from_millis(200);

/// In place of a life: what is filled again begins a new one.
const NEW_LIFE: i64 = -1;

/// See the module.
pub(crate) struct ByHand {
    address: Address,
    keys: ControlKeys,
    held: Arc<Held>,
    mapping: Arc<Mapping>,
    /// None: whoever streams answers.
    rewarmer: Option<Rewarmer>,
    /// What was seen, and not answered.
    seen: BTreeSet<String>,
}

impl ByHand {
    /// For a run.
    pub(super) fn new(context: &Context) -> ByHand {
        let rewarmer = Some(context.warming.rewarmer.clone());
        ByHand { rewarmer, ..ByHand::of_copies(context) }
    }

    /// For copies, whether there is a run or not.
    pub(crate) fn of_copies(context: &Context) -> ByHand {
        ByHand {
            address: context.address.clone(),
            keys: ControlKeys::new(&context.config.postgres.slot),
            held: Arc::clone(&context.held),
            mapping: Arc::clone(&context.rules.mapping),
            rewarmer: None,
            seen: BTreeSet::new(),
        }
    }

    /// Looks, for ever.
    pub(crate) async fn run(mut self) {
        loop {
            // Until Redis is lost; then on another connection.
            if let Err(error) = self.look().await {
                debug!(%error, "what was removed by hand is not looked for");
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn look(&mut self) -> Result<(), StoreError> {
        let session = Session::open(&self.address, self.keys.clone()).await?;
        let mut connection = session.connection();
        loop {
            let notices = waiting(&mut connection, &self.keys).await?;
            if let Some(rewarmer) = &self.rewarmer {
                if !notices.is_empty() {
                    self.answer(&notices, rewarmer);
                    done(&mut connection, &self.keys, &notices).await?;
                }
            } else {
                let ids: BTreeSet<String> = notices.into_iter().map(|notice| notice.id).collect();
                if !ids.is_subset(&self.seen) {
                    self.held.forget_all();
                }
                self.seen = ids;
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    fn answer(&self, notices: &[Notice], rewarmer: &Rewarmer) {
        self.held.forget_all();
        let mut removed = 0_usize;
        for (name, key) in notices.iter().flat_map(|notice| &notice.removed) {
            // Whoever removed it may have another configuration.
            let known = self.mapping.cache_of_key(key.as_bytes());
            if let Some((id, cache)) = known
                && *cache.name == **name
            {
                removed += 1;
                rewarmer.removed(key.as_bytes(), id, NEW_LIFE);
            }
        }
        info!(notices = notices.len(), removed, "entries were removed by hand");
    }
}
