//! From messages to lines: prints a change as it goes by, keeps of its transaction only
//! what the commit line needs. Pure: bytes in, lines out.

use std::sync::Arc;

use hashbrown::HashMap;

use super::key::KeyColumns;
use super::line::{Change, Format, Head};
use crate::config::model::Operation;
use crate::lsn::Lsn;
use crate::mapping::Mapping;
use crate::mapping::changes::ChangeSet;
use crate::mapping::name::TableName;
use crate::mapping::plan::TablePlan;
use crate::mapping::types::TypeNames;
use crate::pgoutput::decode::Decoder;
use crate::pgoutput::message::{Message, OldTuple, Relation, Tuple};
use crate::pipeline::assemble::{Dialect, StreamError};
use crate::pipeline::lookups::LookupPlans;

/// What is printed, and how.
#[derive(Debug, Clone)]
pub struct Selection {
    /// Only these tables; empty: all.
    pub tables: Vec<TableName>,
    /// How.
    pub format: Format,
    /// End after so many changes.
    pub max_changes: Option<u64>,
    /// End with the last transaction that committed before this position.
    pub until: Option<Lsn>,
}

/// Prints the changes of one replication connection.
pub(super) struct Printer {
    mapping: Arc<Mapping>,
    selection: Selection,
    max_keys: usize,
    decoder: Decoder,
    types: TypeNames,
    relations: HashMap<u32, Table, foldhash::fast::RandomState>,
    plans: Arc<LookupPlans>,
    open: Option<Open>,
    changes: u64,
}

struct Table {
    relation: Relation,
    /// `None`: no rule cares.
    plan: Option<TablePlan>,
    key: KeyColumns,
    wanted: bool,
}

struct Open {
    head: Head,
    changes: u64,
    reached: ChangeSet,
}

/// What a message led to.
pub(super) enum Step {
    /// Nothing beside lines.
    Nothing,
    /// A table's shape: [`Printer::describe`] wants it back with its primary key.
    Relation(Relation),
    /// Everything asked for has been printed.
    Done,
    /// A transaction is complete, but for its commit line.
    Committed(Committed),
}

/// A transaction whose changes are printed.
pub(super) struct Committed {
    pub(super) head: Head,
    pub(super) end: Lsn,
    /// How many of its changes were printed.
    pub(super) changes: u64,
    /// What they reach.
    pub(super) reached: ChangeSet,
    pub(super) plans: Arc<LookupPlans>,
}

impl Printer {
    pub(super) fn new(mapping: Arc<Mapping>, selection: Selection, max_keys: usize) -> Self {
        Printer {
            mapping,
            selection,
            max_keys,
            decoder: Decoder::new(Dialect::WHOLE.protocol, Dialect::WHOLE.streaming),
            types: TypeNames::default(),
            relations: HashMap::default(),
            plans: Arc::default(),
            open: None,
            changes: 0,
        }
    }

    /// Whether a transaction has begun and not ended.
    pub(super) fn is_inside_transaction(&self) -> bool {
        self.open.is_some()
    }

    /// Takes one message; appends the lines to `out`.
    pub(super) fn take(
        &mut self,
        lsn: Lsn,
        data: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Step, StreamError> {
        let decoded =
            self.decoder.decode(data).map_err(|source| StreamError::Malformed { lsn, source })?;
        let out_of_place = |what| Err(StreamError::OutOfPlace { lsn, what });
        match decoded.message {
            Message::Insert(row) => {
                self.row(lsn, row.relation, Operation::Insert, None, Some(row.new), out)
            }
            Message::Update(row) => {
                self.row(lsn, row.relation, Operation::Update, row.old, Some(row.new), out)
            }
            Message::Delete(row) => {
                self.row(lsn, row.relation, Operation::Delete, Some(row.old), None, out)
            }
            Message::Truncate(truncate) => {
                for relation in truncate.relations.iter() {
                    let step = self.row(lsn, relation, Operation::Truncate, None, None, out)?;
                    if matches!(step, Step::Done) {
                        return Ok(step);
                    }
                }
                Ok(Step::Nothing)
            }
            Message::Begin(begin) => {
                if self.open.is_some() {
                    return out_of_place("a transaction begins inside of another");
                }
                if self.selection.until.is_some_and(|until| begin.final_lsn >= until) {
                    return Ok(Step::Done);
                }
                let head = Head { xid: begin.xid, committed_at: begin.commit_time };
                self.open = Some(Open { head, changes: 0, reached: ChangeSet::default() });
                Ok(Step::Nothing)
            }
            Message::Commit(commit) => {
                let Some(Open { head, changes, reached }) = self.open.take() else {
                    return out_of_place("a transaction ends that never began");
                };
                let plans = Arc::clone(&self.plans);
                Ok(Step::Committed(Committed {
                    head,
                    end: commit.end_lsn,
                    changes,
                    reached,
                    plans,
                }))
            }
            Message::Relation(relation) => {
                let known = self.relations.get(&relation.id);
                Ok(if known.is_some_and(|known| known.relation == relation) {
                    Step::Nothing
                } else {
                    Step::Relation(relation)
                })
            }
            Message::Type(r#type) => {
                self.types.insert(r#type.id, r#type.namespace, r#type.name);
                Ok(Step::Nothing)
            }
            Message::Origin(_) | Message::Logical(_) => Ok(Step::Nothing),
            _ => out_of_place(
                "a message of a streamed or prepared transaction, which was not asked for",
            ),
        }
    }

    /// A table's new shape. Gives what is wrong between it and its rules.
    pub(super) fn describe(&mut self, relation: Relation, primary_key: &[Box<str>]) -> Vec<String> {
        let plan = self.mapping.plan(&relation, &self.types);
        let mut problems = Vec::new();
        if let Some(plan) = &plan {
            Arc::make_mut(&mut self.plans).replace(plan.lookups());
            problems.extend_from_slice(plan.problems());
        }
        let name = TableName::new(&relation.namespace, &relation.name);
        let tables = &self.selection.tables;
        let wanted = tables.is_empty() || tables.contains(&name);
        let key = KeyColumns::new(&relation, primary_key);
        self.relations.insert(relation.id, Table { relation, plan, key, wanted });
        problems
    }

    fn row(
        &mut self,
        lsn: Lsn,
        relation: u32,
        operation: Operation,
        old: Option<OldTuple<'_>>,
        new: Option<Tuple<'_>>,
        out: &mut Vec<u8>,
    ) -> Result<Step, StreamError> {
        let out_of_place = |what| Err(StreamError::OutOfPlace { lsn, what });
        let Some(table) = self.relations.get(&relation) else {
            return out_of_place("a row of a table that was not described");
        };
        let Some(open) = &mut self.open else {
            return out_of_place("a row outside of a transaction");
        };
        let fits = |tuple: Tuple<'_>| tuple.len() == table.relation.columns.len();
        if !(new.is_none_or(fits) && old.is_none_or(|old| fits(old.tuple()))) {
            return out_of_place("a row with another number of columns than its table");
        }
        if !table.wanted {
            return Ok(Step::Nothing);
        }
        let name = (&*table.relation.namespace, &*table.relation.name);
        let keys = table.key.of_change(operation, old, new);
        let mut change = Change::new(open.head, lsn, name, operation, keys);
        if let Some(plan) = &table.plan {
            change.reaches(&self.mapping, plan.explain(operation, old, new));
            plan.apply(operation, old, new, &mut open.reached);
            open.reached.limit(self.max_keys);
        }
        change.write(self.selection.format, out);
        open.changes += 1;
        self.changes += 1;
        let enough = self.selection.max_changes.is_some_and(|max| self.changes >= max);
        Ok(if enough { Step::Done } else { Step::Nothing })
    }
}
