//! The set-up as a whole: what is missing, in the order in which it is safe to add, and
//! who may add it.

use super::facts::Facts;
use super::step::{By, How, Step};
use super::{replication, tables};
use crate::mapping::Mapping;
use crate::mapping::name::Quoted;
use crate::postgres::catalog::Table;

/// What there is to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// In order: the role, its grants, identities, and the publication last, so that no
    /// table is ever published without an identity that works.
    pub steps: Vec<Step>,
    /// What no statement of ours can do.
    pub by_hand: Vec<String>,
}

/// Plans the set-up. `read` are the tables that lookups and queries read.
#[must_use]
pub fn plan<'t>(
    facts: &Facts,
    mapping: &Mapping,
    read: impl IntoIterator<Item = &'t Table>,
) -> Plan {
    let mut plan = Plan::default();
    plan.steps.extend(replication::role_steps(facts));
    plan.steps.extend(replication::grant_steps(facts, read));
    plan.steps.extend(replication::generated_step(facts));
    plan.steps.extend(tables::identity_steps(facts, mapping));
    plan.steps.extend(replication::publication_steps(facts));
    if facts.server.wal_level != "logical" {
        plan.by_hand.push(format!(
            "wal_level is {}: run ALTER SYSTEM SET wal_level = 'logical' as a superuser, then restart Postgres",
            facts.server.wal_level
        ));
    }
    plan
}

/// Why the connection's role may not run a step, and what would let it; `None` if it may.
#[must_use]
pub fn refusal(facts: &Facts, step: &Step) -> Option<String> {
    let own = &facts.own;
    if own.superuser {
        return None;
    }
    let database = Quoted(&facts.database.name);
    match (&step.how, &step.by) {
        (How::CreatePublication, _) => {
            if !own.create {
                return Some(format!(
                    "GRANT CREATE ON DATABASE {database} TO {}",
                    Quoted(&own.name)
                ));
            }
            let foreign = facts.tables().find(|table| !table.own.owns)?;
            Some(format!("{} belongs to {}", foreign.name, foreign.owner))
        }
        (How::AddTable { schema, table }, By::Owner(owner)) => {
            if !own.acts_as.contains(owner) {
                return Some(format!("the publication belongs to {owner}"));
            }
            let added =
                facts.tables().find(|t| *t.name.schema == **schema && *t.name.table == **table)?;
            (!added.own.owns).then(|| format!("{} belongs to {}", added.name, added.owner))
        }
        (How::Concurrently { drops: false, .. }, By::Owner(owner)) => {
            if !own.acts_as.contains(owner) {
                return Some(format!("the table belongs to {owner}"));
            }
            let without =
                facts.tables().find(|table| table.owner == *owner && !table.own.schema_create)?;
            let schema = Quoted(&without.name.schema);
            Some(format!("GRANT CREATE ON SCHEMA {schema} TO {}", Quoted(&own.name)))
        }
        (_, By::Owner(owner)) => {
            (!own.acts_as.contains(owner)).then(|| format!("it takes {owner}, or a superuser"))
        }
        (_, By::DatabaseOwner) => (!own.acts_as.contains(&facts.database.owner))
            .then(|| format!("it takes {}, or a superuser", facts.database.owner)),
        (_, By::Superuser) => Some("it takes a superuser".to_owned()),
    }
}
