//! What is known of the two rows of a change.
//!
//! | | old value | new value | known to be unchanged |
//! |---|---|---|---|
//! | FULL | sent, nulls too | sent | if both are equal |
//! | old key sent | sent; null is unknown | sent | if both are equal |
//! | key columns, no old row (DEFAULT, USING INDEX) | the new one: a changed key is sent | sent | yes |
//! | other columns without FULL | unknown | sent | no |
//! | unchanged TOAST in the new row | as above | the old one, if known | yes |
//!
//! The tuples are read once, up to the last column that any rule of the table reads.
//!
//! This trusts the Relation message: with `publish_via_partition_root` that is the root's,
//! while Postgres logs old values by each partition's own replica identity. Where the two
//! differ, values are missing that look as if they were there; `check` has to see to it
//! that they are the same.

use crate::config::model::Operation;
use crate::pgoutput::message::{OldTuple, ReplicaIdentity, Tuple, Value};

/// One side's value of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cell<'a> {
    /// It is null.
    Null,
    /// Its text form.
    Value(&'a [u8]),
    /// The stream does not carry it.
    Unknown,
}

/// A column that a rule reads, on both sides of a change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair<'a> {
    pub(super) old: Cell<'a>,
    pub(super) new: Cell<'a>,
    /// Old and new are known to be equal, even where the value is not known.
    pub(super) same: bool,
}

impl Pair<'_> {
    const ABSENT: Self = Pair { old: Cell::Null, new: Cell::Null, same: false };
}

/// Where the columns that rules read stand in the tuples; a *slot* is an index into this.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// Ascending by index.
    pub(super) slots: Vec<Slot>,
    /// Whether a missing old row of an UPDATE means that the key did not change.
    pub(super) key_is_implied: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    /// The column's place in the tuple.
    pub(super) column: usize,
    /// Whether an old key carries it.
    pub(super) key: bool,
}

impl Layout {
    pub(super) fn key_is_implied(identity: ReplicaIdentity) -> bool {
        matches!(identity, ReplicaIdentity::Default | ReplicaIdentity::Index)
    }

    /// Reads what the rules need. `room` only lends its memory.
    pub(super) fn read<'r, 'a>(
        &self,
        operation: Operation,
        old: Option<OldTuple<'a>>,
        new: Option<Tuple<'a>>,
        room: &'r mut Room<'a>,
    ) -> &'r [Pair<'a>] {
        let pairs = room.of_size(self.slots.len());
        if operation != Operation::Insert {
            match old {
                Some(OldTuple::Full(tuple)) => {
                    self.each(Some(tuple), pairs, |_, value, pair| pair.old = cell(value));
                }
                Some(OldTuple::Key(tuple)) => self.each(Some(tuple), pairs, |_, value, pair| {
                    // A key has no nulls: what is null here was not sent, be it outside of
                    // the key or outside of a partition's own, smaller key.
                    pair.old = match cell(value) {
                        Cell::Null => Cell::Unknown,
                        sent => sent,
                    };
                }),
                None => pairs.iter_mut().for_each(|pair| pair.old = Cell::Unknown),
            }
        }
        if matches!(operation, Operation::Insert | Operation::Update) {
            let implied = old.is_none() && self.key_is_implied && operation == Operation::Update;
            self.each(new, pairs, |slot, value, pair| {
                pair.new = cell(value);
                if operation == Operation::Insert {
                    return;
                }
                if value == Some(Value::Unchanged) {
                    pair.new = pair.old;
                    pair.same = true;
                } else if implied && slot.key {
                    pair.old = pair.new;
                    pair.same = true;
                } else {
                    pair.same = pair.old == pair.new && pair.old != Cell::Unknown;
                }
            });
        }
        pairs
    }

    /// Visits every slot with its value; `None` where the tuple is too short or missing.
    fn each<'a>(
        &self,
        tuple: Option<Tuple<'a>>,
        pairs: &mut [Pair<'a>],
        mut visit: impl FnMut(Slot, Option<Value<'a>>, &mut Pair<'a>),
    ) {
        let mut values = tuple.into_iter().flatten();
        let mut at = 0;
        for (slot, pair) in self.slots.iter().zip(pairs) {
            let value = values.nth(slot.column.saturating_sub(at));
            at = slot.column + 1;
            visit(*slot, value, pair);
        }
    }
}

fn cell(value: Option<Value<'_>>) -> Cell<'_> {
    match value {
        Some(Value::Null) => Cell::Null,
        Some(Value::Text(text)) => Cell::Value(text),
        // Binary is never asked for; whatever it means, it is not this text.
        Some(Value::Unchanged | Value::Binary(_)) | None => Cell::Unknown,
    }
}

/// Most tables have no more mapped columns: their rows are read without allocating.
const INLINE: usize = 12;

/// Memory for the pairs of one change.
pub(super) struct Room<'a> {
    inline: [Pair<'a>; INLINE],
    heap: Vec<Pair<'a>>,
}

impl<'a> Room<'a> {
    pub(super) fn new() -> Self {
        Room { inline: [Pair::ABSENT; INLINE], heap: Vec::new() }
    }

    fn of_size(&mut self, size: usize) -> &mut [Pair<'a>] {
        if size > INLINE {
            self.heap.resize(size, Pair::ABSENT);
        }
        match self.inline.get_mut(..size) {
            Some(inline) => inline,
            None => &mut self.heap,
        }
    }
}
