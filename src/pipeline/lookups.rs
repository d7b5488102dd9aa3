//! Running lookups: `changed` rows in, parameters out.
//!
//! Rule 2: a batch's lookups run on snapshots that show all of the batch, and end before
//! anything gated later is applied. The first holds because they run after the gate, on
//! the same server, and snapshots of one server only move forward; the second because
//! the batch is handed on only when they are done, and batches are applied in order.
//!
//! A lookup that the server refuses (a table is gone, a grant is missing, it takes too
//! long) must not be skipped: its cache is dropped as a whole, and `/readyz` says so.

use std::sync::Arc;

use futures_util::{TryStreamExt, pin_mut};
use hashbrown::HashMap;
use tokio_postgres::Statement;
use tracing::warn;

use crate::mapping::Mapping;
use crate::mapping::changes::{ChangeSet, ChangeSink, Escalation};
use crate::mapping::lookup::LookupPlan;
use crate::mapping::lookup_rows::LookupRows;
use crate::mapping::model::RuleId;
use crate::postgres::client::SqlClient;
use crate::postgres::error::{Class, PgError};

/// How many `changed` rows one query takes.
const ROWS_A_QUERY: usize = 5_000;

/// How many keys lookups may yield before the limit is looked at again.
const ROWS_A_CHECK: usize = 1_000;

/// The lookups as compiled against the tables' present shape. A transaction carries
/// those that its rows were collected for.
#[derive(Debug, Default, Clone)]
pub struct LookupPlans(HashMap<RuleId, Arc<LookupPlan>>);

impl LookupPlans {
    /// Puts in the lookups of one table in place of those that these rules had.
    pub fn replace<'a>(&mut self, plans: impl Iterator<Item = &'a LookupPlan>) {
        self.0.extend(plans.map(|plan| (plan.rule, Arc::new(plan.clone()))));
    }

    /// The lookup of this rule.
    #[must_use]
    pub fn get(&self, rule: RuleId) -> Option<&LookupPlan> {
        self.0.get(&rule).map(Arc::as_ref)
    }
}

/// Runs lookups on one connection, prepares each once.
pub struct Lookups {
    statements: HashMap<String, Statement>,
    max_keys: usize,
}

impl Lookups {
    /// Past `max_keys` keys, the largest caches are dropped as a whole.
    #[must_use]
    pub fn new(max_keys: usize) -> Self {
        Lookups { statements: HashMap::new(), max_keys }
    }

    /// Turns all `changed` rows of `changes` into keys. Gives the rules that were looked up,
    /// each with a complaint if the server refused; fails only if the connection did.
    pub async fn run(
        &mut self,
        client: &SqlClient,
        mapping: &Mapping,
        plans: &LookupPlans,
        changes: &mut ChangeSet,
    ) -> Result<Vec<(RuleId, Option<String>)>, PgError> {
        let mut outcomes = Vec::new();
        for (rule, rows) in changes.take_lookups() {
            let refused = match plans.get(rule) {
                Some(plan) => match self.look_up(client, mapping, plan, &rows, changes).await {
                    Ok(()) => {
                        outcomes.push((rule, None));
                        continue;
                    }
                    Err(error)
                        if error.class() == Class::Retry && error.sqlstate() != Some("57014") =>
                    {
                        return Err(error);
                    }
                    Err(error) => error.to_string(),
                },
                None => "it was never compiled".to_owned(),
            };
            let complaint = format!("the lookup of {} failed: {refused}", mapping.describe(rule));
            warn!(%complaint, "a lookup failed: its cache is dropped as a whole");
            outcomes.push((rule, Some(complaint)));
            changes.escalate(Escalation::LookupFailed, rows.origin());
        }
        Ok(outcomes)
    }

    async fn look_up(
        &mut self,
        client: &SqlClient,
        mapping: &Mapping,
        plan: &LookupPlan,
        rows: &LookupRows,
        changes: &mut ChangeSet,
    ) -> Result<(), PgError> {
        let statement = match self.statements.get(&plan.sql) {
            Some(statement) => statement.clone(),
            None => {
                let preparing = async { Ok(client.prepare(&plan.sql).await?) };
                let statement = client.answered(preparing).await?;
                self.statements.insert(plan.sql.clone(), statement.clone());
                statement
            }
        };
        for columns in rows.batches(ROWS_A_QUERY) {
            let looked_up = async {
                let found = client.query_raw(&statement, &columns).await?;
                pin_mut!(found);
                let mut pending: Vec<Vec<Option<String>>> = Vec::new();
                while let Some(row) = found.try_next().await? {
                    pending.push(
                        (0..plan.outputs.len())
                            .map(|i| row.try_get(i))
                            .collect::<Result<_, _>>()?,
                    );
                    if pending.len() >= ROWS_A_CHECK {
                        mapping.add_lookup_results(
                            plan.rule,
                            rows.origin().operation,
                            pending.drain(..),
                            changes,
                        );
                        changes.limit(self.max_keys);
                    }
                }
                mapping.add_lookup_results(plan.rule, rows.origin().operation, pending, changes);
                changes.limit(self.max_keys);
                Ok(())
            };
            client.answered(looked_up).await?;
        }
        Ok(())
    }
}
