//! The tables as the stream has described them. Pure.
//!
//! The server describes a table before its first change, and again after whatever may have
//! changed its shape. What it describes in a block of a transaction in progress is meant for
//! that transaction, which may have changed the table itself; to all others it counts
//! once that transaction has committed, and never if it is rolled back
//! (`cleanup_rel_sync_cache` in `pgoutput.c`). After a rollback of any part of it, the server
//! describes the tables once more to what remains of it. All of this is mirrored here.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::lookups::LookupPlans;
use crate::lsn::Lsn;
use crate::mapping::Mapping;
use crate::mapping::plan::TablePlan;
use crate::mapping::types::TypeNames;
use crate::pgoutput::message::{Relation, ReplicaIdentity, Type};

/// How far the old rows of partitioned tables can be believed (see
/// [`partitions`](crate::postgres::partitions)): up to a position, only what they do hold.
/// What they lack, or hold as null, is unknown.
///
/// A partition whose identity is mended stays unbelieved for what was written before; so
/// at a start nothing older than the start is believed, and where a mismatch stands,
/// nothing at all.
#[derive(Debug, Clone, Default)]
pub struct Unbelieved(pub HashMap<u32, Lsn>);

/// A table as it was described.
pub(super) struct Table {
    pub(super) relation: Relation,
    /// `None`: no rule cares.
    pub(super) plan: Option<TablePlan>,
    /// Of a partitioned table: trusts no null and no absence in an old row, up to this position.
    cautious: Option<(Lsn, TablePlan)>,
}

impl Table {
    /// What applies to what was written or committed at `at`, and whether old rows count.
    pub(super) fn plan(&self, at: Lsn) -> (Option<&TablePlan>, bool) {
        match &self.cautious {
            Some((until, plan)) if at < *until => (Some(plan), false),
            _ => (self.plan.as_ref(), true),
        }
    }
}

#[derive(Clone)]
struct Described {
    table: Arc<Table>,
    /// The order of descriptions, over all transactions.
    turn: u64,
}

/// Tables by OID, and the lookups of their rules.
#[derive(Clone, Default)]
pub(super) struct Tables {
    by_oid: HashMap<u32, Described, RandomState>,
    plans: Arc<LookupPlans>,
}

impl Tables {
    /// None yet; the lookups are those that are known.
    pub(super) fn beginning_with(plans: Arc<LookupPlans>) -> Self {
        Tables { plans, ..Tables::default() }
    }

    /// Forgets the tables. The lookups stay: there may be rows for them.
    pub(super) fn forget(&mut self) {
        self.by_oid.clear();
    }

    pub(super) fn get(&self, oid: u32) -> Option<&Arc<Table>> {
        self.by_oid.get(&oid).map(|described| &described.table)
    }

    pub(super) fn plans(&self) -> &Arc<LookupPlans> {
        &self.plans
    }

    fn insert(&mut self, described: Described) {
        let lookups = || described.table.plan.iter().flat_map(TablePlan::lookups);
        if lookups().any(|plan| self.plans.get(plan.rule) != Some(plan)) {
            Arc::make_mut(&mut self.plans).replace(lookups());
        }
        self.by_oid.insert(described.table.relation.id, described);
    }
}

/// All that has been described on one connection.
pub(super) struct Relations {
    mapping: Arc<Mapping>,
    unbelieved: Unbelieved,
    types: TypeNames,
    /// What counts to transactions that have committed.
    tables: Tables,
    turns: u64,
    news: bool,
}

impl Relations {
    pub(super) fn new(mapping: Arc<Mapping>, unbelieved: Unbelieved) -> Self {
        Relations {
            mapping,
            unbelieved,
            types: TypeNames::default(),
            tables: Tables::default(),
            turns: 0,
            news: false,
        }
    }

    pub(super) fn tables(&self) -> &Tables {
        &self.tables
    }

    pub(super) fn name_type(&mut self, named: Type<'_>) {
        self.types.insert(named.id, named.namespace, named.name);
    }

    /// A table's shape. The server repeats it for many reasons; only another one matters.
    pub(super) fn describe(&mut self, relation: Relation) {
        let known = self.tables.get(relation.id).filter(|table| table.relation == relation);
        let table = known.map(Arc::clone);
        self.news |= table.is_none();
        let described = self.described(relation, table);
        self.tables.insert(described);
    }

    /// A table's shape as one transaction in progress has it; `own` are its tables.
    pub(super) fn describe_in(&mut self, own: &mut Tables, relation: Relation) {
        let same = |table: &&Arc<Table>| table.relation == relation;
        let known = own.get(relation.id).filter(same);
        let known = known.or_else(|| self.tables.get(relation.id).filter(same)).map(Arc::clone);
        own.insert(self.described(relation, known));
    }

    /// The transaction has committed: what it was told counts to all from here on, but where
    /// another was told of something newer.
    pub(super) fn adopt(&mut self, own: Tables) {
        for (oid, described) in own.by_oid {
            let known = self.tables.by_oid.get(&oid);
            if known.is_none_or(|known| known.turn < described.turn) {
                self.news |= known.is_none_or(|known| !Arc::ptr_eq(&known.table, &described.table));
                self.tables.insert(described);
            }
        }
    }

    /// Whether [`Relations::problems`] may have changed since this was last asked.
    pub(super) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// What is wrong with the tables as they are now: mapped columns that are gone.
    pub(super) fn problems(&self) -> Vec<String> {
        let plans = self.tables.by_oid.values().filter_map(|known| known.table.plan.as_ref());
        plans.flat_map(|plan| plan.problems().iter().cloned()).collect()
    }

    fn described(&mut self, relation: Relation, known: Option<Arc<Table>>) -> Described {
        self.turns += 1;
        let table = known.unwrap_or_else(|| Arc::new(self.compile(relation)));
        Described { table, turn: self.turns }
    }

    fn compile(&self, relation: Relation) -> Table {
        let plan = self.mapping.plan(&relation, &self.types);
        let cautious = self.unbelieved.0.get(&relation.id).and_then(|until| {
            let mut blind = relation.clone();
            blind.identity = ReplicaIdentity::Nothing;
            blind.columns.iter_mut().for_each(|column| column.key = false);
            Some((*until, self.mapping.plan(&blind, &self.types)?))
        });
        Table { relation, plan, cautious }
    }
}
