//! What a run does with the cache: keep it, or look on (shadow mode).

use std::sync::Arc;

use super::chain::Chain;
use super::context::Context;
use super::end::End;
use super::invalidate::invalidate;
use crate::shadow::Shadow;
use crate::shadow::glance::Glance;
use crate::status::reason::GapReason;
use crate::store::keys::ControlKeys;
use crate::store::state::State;

/// The way to Redis of one run.
pub(super) enum Hand {
    /// It keeps what is cached.
    Keeping(Box<Chain>),
    /// It reads, and has no means to write.
    Watching(Box<Glance>, Arc<Shadow>),
}

impl Hand {
    /// Connects once.
    pub(super) async fn open(context: &Context) -> Result<Self, End> {
        let keys = ControlKeys::new(&context.config.postgres.slot);
        let (address, status) = (context.address.clone(), Arc::clone(&context.status));
        match &context.shadow {
            None => Ok(Hand::Keeping(Box::new(
                Chain::open(address, keys, status, context.points.clone()).await?,
            ))),
            Some(shadow) => {
                shadow.begin(&context.rules.mapping);
                let glance = Box::new(Glance::open(address, keys, status).await?);
                Ok(Hand::Watching(glance, Arc::clone(shadow)))
            }
        }
    }

    /// What is known of the cache. In shadow mode nothing is.
    pub(super) async fn state(&mut self) -> Result<Option<State>, End> {
        match self {
            Hand::Keeping(chain) => chain.state().await,
            Hand::Watching(..) => Ok(None),
        }
    }

    /// The history has broken: what is managed goes. In shadow mode nothing is.
    pub(super) async fn broken(
        &mut self,
        context: &Context,
        state: Option<&State>,
        reason: GapReason,
    ) -> Result<(), End> {
        match self {
            Hand::Keeping(chain) => invalidate(context, chain, state, reason).await,
            Hand::Watching(..) => Ok(()),
        }
    }
}
