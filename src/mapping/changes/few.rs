//! What is kept by id, of the few that were reached.
//!
//! A mapping may have hundreds of caches, tables and rules, and a transaction reaches one or two
//! of each. A list by id would be made, cleared and walked at the length of all of them, once a
//! transaction; this is as long as what was reached. In the order of ids.

use crate::config::model::Operation;
use crate::mapping::model::TableId;

/// A map of few entries.
#[derive(Debug, Clone)]
pub(super) struct Few<K, V>(Vec<(K, V)>);

impl<K, V> Default for Few<K, V> {
    fn default() -> Self {
        Few(Vec::new())
    }
}

impl<K: Ord + Copy, V> Few<K, V> {
    pub(super) fn get(&self, id: K) -> Option<&V> {
        self.find(id).ok().and_then(|at| self.0.get(at)).map(|(_, value)| value)
    }

    /// The id's value, made if there is none.
    #[expect(clippy::indexing_slicing, reason = "the place has just been found or made")]
    pub(super) fn entry(&mut self, id: K, new: impl FnOnce() -> V) -> &mut V {
        let at = match self.find(id) {
            Ok(at) => at,
            Err(at) => {
                // Most transactions never reach a second.
                if self.0.is_empty() {
                    self.0.reserve_exact(1);
                }
                self.0.insert(at, (id, new()));
                at
            }
        };
        &mut self.0[at].1
    }

    fn find(&self, id: K) -> Result<usize, usize> {
        // Alone or the last: the change before was of the same.
        match self.0.last() {
            Some((last, _)) if *last == id => Ok(self.0.len() - 1),
            _ => self.0.binary_search_by_key(&id, |(id, _)| *id),
        }
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (K, &V)> {
        self.0.iter().map(|(id, value)| (*id, value))
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.0.iter_mut().map(|(_, value)| value)
    }

    pub(super) fn retain(&mut self, mut stays: impl FnMut(&V) -> bool) {
        self.0.retain(|(_, value)| stays(value));
    }

    pub(super) fn into_vec(self) -> Vec<(K, V)> {
        self.0
    }
}

const OPERATIONS: [Operation; 4] =
    [Operation::Insert, Operation::Update, Operation::Delete, Operation::Truncate];

/// How many rows changed, by table and operation.
#[derive(Debug, Clone, Default)]
pub(super) struct RowCounts(Few<TableId, [u64; 4]>);

impl RowCounts {
    pub(super) fn add(&mut self, table: TableId, operation: Operation, rows: u64) {
        let counts = self.0.entry(table, <[u64; 4]>::default);
        let mut counts = counts.iter_mut().zip(OPERATIONS);
        if let Some((count, _)) = counts.find(|(_, of)| *of == operation) {
            *count += rows;
        }
    }

    pub(super) fn absorb(&mut self, other: &RowCounts) {
        other.iter().for_each(|(table, operation, rows)| self.add(table, operation, rows));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (TableId, Operation, u64)> {
        self.0.iter().flat_map(|(table, counts)| {
            let by_operation = OPERATIONS.into_iter().zip(*counts);
            by_operation.filter(|(_, rows)| *rows > 0).map(move |(op, rows)| (table, op, rows))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn it_holds_what_a_map_would(ids in prop::collection::vec(0_u16..40, 0..200)) {
            let (mut few, mut map) = (Few::default(), BTreeMap::new());
            for (n, id) in ids.into_iter().enumerate() {
                few.entry(id, Vec::new).push(n);
                map.entry(id).or_insert_with(Vec::new).push(n);
                prop_assert_eq!(few.get(id), map.get(&id));
            }
            prop_assert_eq!(few.get(99), None);
            prop_assert!(few.iter().eq(map.iter().map(|(id, value)| (*id, value))));
            few.retain(|value| value.len() > 1);
            map.retain(|_, value| value.len() > 1);
            prop_assert_eq!(few.into_vec(), map.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn rows_are_counted_by_table_and_operation() {
        let mut counts = RowCounts::default();
        counts.add(TableId(7), Operation::Delete, 1);
        counts.add(TableId(2), Operation::Update, 2);
        let mut all = counts.clone();
        all.add(TableId(7), Operation::Insert, 3);
        all.absorb(&counts);
        let told: Vec<_> = all.iter().collect();
        let expected = [
            (TableId(2), Operation::Update, 4),
            (TableId(7), Operation::Insert, 3),
            (TableId(7), Operation::Delete, 2),
        ];
        assert_eq!(told, expected);
    }
}
