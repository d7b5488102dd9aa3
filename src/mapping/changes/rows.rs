//! How many rows changed, by table and operation.

use super::{TableId, grown};
use crate::config::model::Operation;

const OPERATIONS: [Operation; 4] =
    [Operation::Insert, Operation::Update, Operation::Delete, Operation::Truncate];

/// A list by table: there are few, and most changes are of one.
#[derive(Debug, Clone, Default)]
pub struct Rows(Vec<[u64; 4]>);

impl Rows {
    /// So many more.
    pub fn count(&mut self, table: TableId, operation: Operation, rows: u64) {
        let counts = grown(&mut self.0, usize::from(table.0));
        let index = match operation {
            Operation::Insert => 0,
            Operation::Update => 1,
            Operation::Delete => 2,
            Operation::Truncate => 3,
        };
        if let Some(count) = counts.get_mut(index) {
            *count += rows;
        }
    }

    /// Those of `other`, too.
    pub fn merge(&mut self, other: &Rows) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), [0; 4]);
        }
        for (ours, theirs) in self.0.iter_mut().zip(&other.0) {
            ours.iter_mut().zip(theirs).for_each(|(ours, theirs)| *ours += theirs);
        }
    }

    /// What there is.
    pub fn iter(&self) -> impl Iterator<Item = (TableId, Operation, u64)> {
        let by_table = (0..).map(TableId).zip(&self.0).filter(|(_, counts)| **counts != [0; 4]);
        by_table.flat_map(|(table, counts)| {
            let by_operation = OPERATIONS.into_iter().zip(*counts);
            by_operation.filter(|(_, count)| *count > 0).map(move |(op, count)| (table, op, count))
        })
    }
}
