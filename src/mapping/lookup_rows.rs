//! The distinct rows of `changed` for one rule's lookup.

use foldhash::fast::RandomState;
use hashbrown::HashSet;

use super::origin::Origin;

/// A set of rows, each one allocation: a value is its length (0 for null, else one more)
/// in eight bytes, then its text.
#[derive(Debug)]
pub struct LookupRows {
    rows: HashSet<Box<[u8]>, RandomState>,
    bytes: usize,
    origin: Origin,
}

/// What a row costs beside its bytes.
const ROW_OVERHEAD: usize = size_of::<Box<[u8]>>() + 24;

impl LookupRows {
    pub(super) fn new(origin: Origin) -> Self {
        LookupRows { rows: HashSet::default(), bytes: 0, origin }
    }

    /// How many rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The first change that brought a row; also the origin of what the lookup finds.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The rows in batches of at most `size`, each column by column: one `text[]` for each
    /// column of the lookup, as its statement takes them.
    pub fn batches(&self, size: usize) -> impl Iterator<Item = Vec<Vec<Option<&str>>>> {
        let mut rows = self.rows.iter();
        std::iter::from_fn(move || {
            let mut columns: Vec<Vec<Option<&str>>> = Vec::new();
            for row in rows.by_ref().take(size.max(1)) {
                for (index, value) in decode(row).enumerate() {
                    match columns.get_mut(index) {
                        Some(column) => column.push(value),
                        None => columns.push(vec![value]),
                    }
                }
            }
            (!columns.is_empty()).then_some(columns)
        })
    }

    pub(super) fn approximate_bytes(&self) -> usize {
        self.bytes + self.rows.len() * ROW_OVERHEAD
    }

    pub(super) fn encode<'v>(values: impl Iterator<Item = Option<&'v str>>, out: &mut Vec<u8>) {
        for value in values {
            let length = value.map_or(0, |text| text.len() as u64 + 1);
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(value.unwrap_or_default().as_bytes());
        }
    }

    /// Adds an encoded row; whether it is a new one.
    pub(super) fn insert(&mut self, row: &[u8]) -> bool {
        let new = !self.rows.contains(row);
        if new {
            self.rows.insert(row.into());
            self.bytes += row.len();
        }
        new
    }

    /// Adds an encoded row that is known to be a new one.
    pub(super) fn insert_new(&mut self, row: Box<[u8]>) {
        self.bytes += row.len();
        self.rows.insert(row);
    }

    /// Adds the rows of a later set; how many were new.
    pub(super) fn merge(&mut self, mut later: LookupRows) -> usize {
        let before = self.rows.len();
        if self.rows.len() < later.rows.len() {
            std::mem::swap(&mut self.rows, &mut later.rows);
            self.bytes = later.bytes;
        }
        for row in later.rows {
            let bytes = row.len();
            self.bytes += if self.rows.insert(row) { bytes } else { 0 };
        }
        self.rows.len() - before
    }
}

fn decode(row: &[u8]) -> impl Iterator<Item = Option<&str>> {
    let mut rest = row;
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk::<8>()?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        let (text, after) = after.split_at_checked(length.saturating_sub(1))?;
        rest = after;
        let text = str::from_utf8(text).ok();
        Some(text.filter(|_| length > 0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::Operation;
    use crate::mapping::model::{CacheId, RuleId};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_come_out_as_they_went_in_once_each_in_batches(
            rows in proptest::collection::vec(proptest::array::uniform2(proptest::option::of("[ab\0é]{0,2}")), 0..20),
            size in 1usize..5,
        ) {
            let origin = Origin { rule: RuleId(0), cache: CacheId(0), operation: Operation::Insert };
            let mut set = LookupRows::new(origin);
            for row in &rows {
                let mut encoded = Vec::new();
                LookupRows::encode(row.iter().map(Option::as_deref), &mut encoded);
                set.insert(&encoded);
            }
            let mut found = Vec::new();
            for batch in set.batches(size) {
                prop_assert_eq!(batch.len(), 2);
                prop_assert!((1..=size).contains(&batch[0].len()));
                found.extend(batch[0].iter().zip(&batch[1]).map(|(a, b)| [a.map(str::to_owned), b.map(str::to_owned)]));
            }
            let mut expected = rows;
            expected.sort();
            expected.dedup();
            found.sort();
            prop_assert_eq!(set.len(), found.len());
            prop_assert_eq!(found, expected);
        }
    }
}
