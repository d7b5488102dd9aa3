//! Filling what is meant and not there, once: for `unstale warm`, and for who asks over HTTP.

use std::collections::BTreeSet;

use super::ground::{Ground, ManageError};
use super::remove::only;
use super::selection::Request;
use crate::mapping::model::CacheId;
use crate::rules::Rules;
use crate::warm::filling::Filling;
use crate::warm::once::{self, Plan, Progress, Warmed};
use crate::warm::population::{PopulationError, Whose};
use crate::warm::turns::Turns;

/// What is done, of the caches that were asked for. If one user is meant, only of those
/// that are a user's.
///
/// # Errors
/// If a population is no query.
pub fn plan(
    rules: &Rules,
    request: &Request,
    wanted: BTreeSet<CacheId>,
) -> Result<Plan, PopulationError> {
    let mapping = &rules.mapping;
    if request.user.is_none() {
        return Plan::new(rules, &wanted);
    }
    let user = mapping.user_parameter();
    let (mut users, mut others) = (BTreeSet::new(), Vec::new());
    for (id, cache) in mapping.caches().filter(|(id, _)| wanted.contains(id)) {
        if cache.template.parameters().any(|parameter| parameter == user) {
            users.insert(id);
        } else {
            others.push((cache.name.to_string(), "its keys name no user"));
        }
    }
    let mut plan = Plan::new(rules, &users)?;
    plan.left_out.extend(others);
    Ok(plan)
}

/// What it is done with.
#[derive(Clone, Copy)]
pub struct Means<'a> {
    /// The rules, and the ways to both servers.
    pub ground: &'a Ground,
    /// Fills one entry.
    pub filling: &'a Filling,
    /// Says when.
    pub turns: &'a Turns,
    /// How many are filled at once.
    pub workers: usize,
}

impl Means<'_> {
    /// Fills what is not there; of each organization the entries of at most `users` users
    /// (by default `warm.users`).
    ///
    /// # Errors
    /// If nothing would be stored, or a server does not answer.
    pub async fn run(
        self,
        plan: &Plan,
        request: &Request,
        users: Option<u32>,
        progress: &dyn Progress,
    ) -> Result<Warmed, ManageError> {
        let Means { ground, filling, turns, workers } = self;
        let mut session = ground.redis().await?;
        // Without a daemon that has made the state valid nothing is stored.
        if !session.state().await?.is_some_and(|state| state.valid) {
            return Err(ManageError::Invalid(ground.keys.state.clone()));
        }
        drop(session);
        let client = ground.postgres().await?;
        let only = only(ground, request);
        let only: Vec<(&str, &str)> = only.iter().map(|(name, value)| (*name, &**value)).collect();
        let whose = Whose {
            organization: request.organization.as_deref(),
            users: match request.user {
                Some(_) => Whose::EVERYBODY,
                None => users.unwrap_or(ground.users),
            },
            user: request.user.as_deref(),
            only: &only,
        };
        let means = once::Means { filling, client: &client, turns, workers, patient: false };
        Ok(plan.run(means, whose, progress).await?)
    }
}
