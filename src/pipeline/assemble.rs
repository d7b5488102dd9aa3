//! From messages to transactions: keeps what a transaction touches while its rows go by.
//! Pure: bytes in, transactions out.

use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashMap;

use super::lookups::LookupPlans;
use super::transaction::Transaction;
use crate::config::model::Operation;
use crate::lsn::Lsn;
use crate::mapping::Mapping;
use crate::mapping::changes::ChangeSet;
use crate::mapping::plan::TablePlan;
use crate::mapping::types::TypeNames;
use crate::pgoutput::decode::{Decoder, Protocol, Streaming};
use crate::pgoutput::error::DecodeError;
use crate::pgoutput::message::{
    Begin, Commit, Message, OldTuple, Relation, ReplicaIdentity, Tuple,
};

/// The protocol that the pipeline asks for.
pub const PROTOCOL: Protocol = Protocol::V1;

/// Why the stream cannot be followed any further.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The bytes are no message.
    #[error(
        "malformed message at {lsn}: {source}; report it with this line, and drop the slot to start anew if it persists"
    )]
    Malformed {
        /// Where in the WAL.
        lsn: Lsn,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// A message came where none of its kind can.
    #[error("at {lsn}, {what}: the stream does not follow the protocol; report it with this line")]
    OutOfPlace {
        /// Where in the WAL.
        lsn: Lsn,
        /// What came.
        what: &'static str,
    },
}

/// How far the old rows of partitioned tables can be believed (see
/// [`partitions`](crate::postgres::partitions)): up to a position, only what they do hold.
/// What they lack, or hold as null, is unknown.
///
/// A partition whose identity is mended stays unbelieved for what was written before; so
/// at a start nothing older than the start is believed, and where a mismatch stands,
/// nothing at all.
#[derive(Debug, Clone, Default)]
pub struct Unbelieved(pub HashMap<u32, Lsn>);

/// Assembles the transactions of one replication connection.
pub struct Assembler {
    mapping: Arc<Mapping>,
    max_keys: usize,
    unbelieved: Unbelieved,
    decoder: Decoder,
    types: TypeNames,
    relations: HashMap<u32, Table, foldhash::fast::RandomState>,
    plans: Arc<LookupPlans>,
    open: Option<Open>,
}

struct Table {
    relation: Relation,
    /// `None`: no rule cares.
    plan: Option<TablePlan>,
    /// Of a partitioned table: trusts no null and no absence in an old row, up to this position.
    cautious: Option<(Lsn, TablePlan)>,
}

impl Table {
    /// What applies to a transaction that ends at `at`, and whether its old rows count.
    fn plan(&self, at: Lsn) -> (Option<&TablePlan>, bool) {
        match &self.cautious {
            Some((until, plan)) if at < *until => (Some(plan), false),
            _ => (self.plan.as_ref(), true),
        }
    }
}

struct Open {
    begin: Begin,
    changes: ChangeSet,
}

impl Assembler {
    /// For a new connection. A transaction past `max_keys` keys drops whole caches.
    #[must_use]
    pub fn new(mapping: Arc<Mapping>, max_keys: usize, unbelieved: Unbelieved) -> Self {
        Assembler {
            mapping,
            max_keys,
            unbelieved,
            decoder: Decoder::new(PROTOCOL, Streaming::Off),
            types: TypeNames::default(),
            relations: HashMap::default(),
            plans: Arc::default(),
            open: None,
        }
    }

    /// Whether a transaction has begun and not ended.
    #[must_use]
    pub fn is_inside_transaction(&self) -> bool {
        self.open.is_some()
    }

    /// What is wrong with the tables as they are now: mapped columns that are gone.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let plans = self.relations.values().filter_map(|table| table.plan.as_ref());
        plans.flat_map(|plan| plan.problems().iter().cloned()).collect()
    }

    /// Takes one message. `Some`: a transaction is complete.
    pub fn take(&mut self, lsn: Lsn, data: &[u8]) -> Result<Step, StreamError> {
        let decoded =
            self.decoder.decode(data).map_err(|source| StreamError::Malformed { lsn, source })?;
        let out_of_place = |what| Err(StreamError::OutOfPlace { lsn, what });
        match decoded.message {
            Message::Insert(row) => {
                self.row(lsn, row.relation, Operation::Insert, None, Some(row.new))?
            }
            Message::Update(row) => {
                self.row(lsn, row.relation, Operation::Update, row.old, Some(row.new))?
            }
            Message::Delete(row) => {
                self.row(lsn, row.relation, Operation::Delete, Some(row.old), None)?
            }
            Message::Truncate(truncate) => {
                for relation in truncate.relations.iter() {
                    let (table, open) = self.place(lsn, relation)?;
                    if let Some(plan) = &table.plan {
                        plan.truncate(&mut open.changes);
                    }
                }
            }
            Message::Begin(begin) => {
                if self.open.is_some() {
                    return out_of_place("a transaction begins inside of another");
                }
                self.open = Some(Open { begin, changes: ChangeSet::default() });
            }
            Message::Commit(commit) => {
                let Some(open) = self.open.take() else {
                    return out_of_place("a transaction ends that never began");
                };
                return Ok(Step::Transaction(self.complete(open, commit)));
            }
            Message::Relation(relation) => return Ok(self.describe(relation)),
            Message::Type(r#type) => self.types.insert(r#type.id, r#type.namespace, r#type.name),
            Message::Origin(_) | Message::Logical(_) => {}
            _ => {
                return out_of_place(
                    "a message of a streamed or prepared transaction, which was not asked for",
                );
            }
        }
        Ok(Step::Nothing)
    }

    fn row(
        &mut self,
        lsn: Lsn,
        relation: u32,
        operation: Operation,
        old: Option<OldTuple<'_>>,
        new: Option<Tuple<'_>>,
    ) -> Result<(), StreamError> {
        let max_keys = self.max_keys;
        let (table, open) = self.place(lsn, relation)?;
        let fits = |tuple: Tuple<'_>| tuple.len() == table.relation.columns.len();
        if !(new.is_none_or(fits) && old.is_none_or(|old| fits(old.tuple()))) {
            return Err(StreamError::OutOfPlace {
                lsn,
                what: "a row with another number of columns than its table",
            });
        }
        let (plan, old_counts) = table.plan(open.begin.final_lsn);
        if let Some(plan) = plan {
            // A DELETE needs an old row, if only to say that all of it is unknown.
            let old = match (old, operation) {
                (Some(old), _) if old_counts => Some(old),
                (Some(old), Operation::Delete) => Some(OldTuple::Key(old.tuple())),
                _ => None,
            };
            plan.apply(operation, old, new, &mut open.changes);
            open.changes.limit(max_keys);
        }
        Ok(())
    }

    /// The table that a change is of, and the transaction that it is in.
    fn place(&mut self, lsn: Lsn, relation: u32) -> Result<(&Table, &mut Open), StreamError> {
        let Some(table) = self.relations.get(&relation) else {
            return Err(StreamError::OutOfPlace {
                lsn,
                what: "a row of a table that was not described",
            });
        };
        let Some(open) = &mut self.open else {
            return Err(StreamError::OutOfPlace { lsn, what: "a row outside of a transaction" });
        };
        Ok((table, open))
    }

    fn complete(&self, open: Open, commit: Commit) -> Transaction {
        Transaction {
            xid: open.begin.xid,
            commit_lsn: commit.commit_lsn,
            end_lsn: commit.end_lsn,
            committed_at: commit.commit_time,
            sent_after: 0,
            received_at: Instant::now(),
            changes: open.changes,
            plans: Arc::clone(&self.plans),
            share: None,
        }
    }

    /// A table's shape. The server repeats it for many reasons; only another one matters.
    fn describe(&mut self, relation: Relation) -> Step {
        if self.relations.get(&relation.id).is_some_and(|known| known.relation == relation) {
            return Step::Nothing;
        }
        let plan = self.mapping.plan(&relation, &self.types);
        let cautious = self.unbelieved.0.get(&relation.id).and_then(|until| {
            let mut blind = relation.clone();
            blind.identity = ReplicaIdentity::Nothing;
            blind.columns.iter_mut().for_each(|column| column.key = false);
            Some((*until, self.mapping.plan(&blind, &self.types)?))
        });
        if let Some(plan) = &plan {
            Arc::make_mut(&mut self.plans).replace(plan.lookups());
        }
        self.relations.insert(relation.id, Table { relation, plan, cautious });
        Step::Described
    }
}

/// What a message led to.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "lives on the stack for a moment; a box would cost an allocation a transaction"
)]
pub enum Step {
    /// Nothing to hand on.
    Nothing,
    /// A table has a new shape: [`Assembler::problems`] may have changed.
    Described,
    /// A transaction is complete.
    Transaction(Transaction),
}
