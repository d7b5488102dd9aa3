//! A `where` against one table's shape, evaluated on what is known of a change.
//!
//! SQL has three truth values: true, false, null. A value that the stream does not carry
//! leaves open which of them a test would give, so what is computed here is the *set* of
//! values that the condition may have. A rule applies if true is among them: unknown means
//! more, never less. Tests of the same unknown value are taken to be independent, so
//! `x = 1 and x = 2` may hold for an unknown `x`: more, again.

use crate::pgoutput::message::Relation;

use super::compare::{Comparison, Equality};
use super::condition::{Condition, Side};
use super::row::{Cell, Pair};
use super::types::TypeNames;

/// Which row of an UPDATE is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hand {
    Old,
    New,
}

impl<'a> Pair<'a> {
    pub(super) fn side(&self, hand: Hand) -> Cell<'a> {
        match hand {
            Hand::Old => self.old,
            Hand::New => self.new,
        }
    }
}

/// A condition whose columns are slots and whose literals are typed.
#[derive(Debug, Clone)]
pub(super) enum Predicate {
    Test { side: Side, slot: usize, test: Test },
    And(Vec<Predicate>),
    Or(Vec<Predicate>),
    Not(Box<Predicate>),
}

#[derive(Debug, Clone)]
pub(super) enum Test {
    IsNull,
    Equals(Comparison),
}

impl Predicate {
    /// Binds a condition to a table. `slot_of` finds a column's slot and its place in the
    /// relation; `None` if the table has no such column.
    pub(super) fn bind(
        condition: &Condition,
        relation: &Relation,
        types: &TypeNames,
        slot_of: &dyn Fn(&str) -> Option<(usize, usize)>,
        problems: &mut Vec<String>,
    ) -> Option<Self> {
        let mut all = |list: &[Condition]| {
            list.iter()
                .map(|c| Self::bind(c, relation, types, slot_of, problems))
                .collect::<Option<Vec<_>>>()
        };
        match condition {
            Condition::And(list) => return Some(Predicate::And(all(list)?)),
            Condition::Or(list) => return Some(Predicate::Or(all(list)?)),
            Condition::Not(inner) => {
                let inner = Self::bind(inner, relation, types, slot_of, problems)?;
                return Some(Predicate::Not(Box::new(inner)));
            }
            _ => {}
        }
        let (column, literals) = match condition {
            Condition::Equals(column, literal) => (column, std::slice::from_ref(literal)),
            Condition::In(column, literals) => (column, literals.as_slice()),
            Condition::IsNull(column) => (column, [].as_slice()),
            Condition::And(_) | Condition::Or(_) | Condition::Not(_) => return None,
        };
        let (slot, place) = slot_of(&column.name)?;
        let side = column.side;
        if let Condition::IsNull(_) = condition {
            return Some(Predicate::Test { side, slot, test: Test::IsNull });
        }
        let type_id = relation.columns.get(place)?.type_id;
        let tests = literals.iter().map(|literal| {
            let (comparison, problem) = Comparison::new(literal, type_id, types);
            problems.extend(problem.map(|problem| format!("column {}: {problem}", column.name)));
            Predicate::Test { side, slot, test: Test::Equals(comparison) }
        });
        Some(Predicate::Or(tests.collect()))
    }

    /// Whether the condition may be true of the row at hand.
    pub(super) fn may_hold(&self, row: &[Pair<'_>], hand: Hand) -> bool {
        self.evaluate(row, hand).has(Truths::TRUE)
    }

    fn evaluate(&self, row: &[Pair<'_>], hand: Hand) -> Truths {
        match self {
            Predicate::And(all) => {
                all.iter().fold(Truths::TRUE, |so_far, p| so_far.and(p.evaluate(row, hand)))
            }
            Predicate::Or(all) => all.iter().fold(Truths::FALSE, |so_far, p| {
                so_far.not().and(p.evaluate(row, hand).not()).not()
            }),
            Predicate::Not(inner) => inner.evaluate(row, hand).not(),
            Predicate::Test { side, slot, test } => {
                let hand = match side {
                    Side::Row => hand,
                    Side::Old => Hand::Old,
                    Side::New => Hand::New,
                };
                test.evaluate(row.get(*slot).map_or(Cell::Unknown, |pair| pair.side(hand)))
            }
        }
    }
}

impl Test {
    fn evaluate(&self, cell: Cell<'_>) -> Truths {
        match (self, cell) {
            (Test::IsNull, Cell::Null) => Truths::TRUE,
            (Test::IsNull, Cell::Value(_)) => Truths::FALSE,
            (Test::IsNull, Cell::Unknown) => Truths::TRUE.or_else(Truths::FALSE),
            (Test::Equals(_), Cell::Null) => Truths::NULL,
            (Test::Equals(_), Cell::Unknown) => {
                Truths::TRUE.or_else(Truths::FALSE).or_else(Truths::NULL)
            }
            (Test::Equals(comparison), Cell::Value(value)) => match comparison.compare(value) {
                Equality::Equal => Truths::TRUE,
                Equality::Different => Truths::FALSE,
                Equality::Open => Truths::TRUE.or_else(Truths::FALSE),
            },
        }
    }
}

/// A set of truth values; never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Truths(u8);

impl Truths {
    const TRUE: Truths = Truths(1);
    const FALSE: Truths = Truths(2);
    const NULL: Truths = Truths(4);

    fn has(self, one: Truths) -> bool {
        self.0 & one.0 != 0
    }

    fn or_else(self, other: Truths) -> Truths {
        Truths(self.0 | other.0)
    }

    fn when(self, condition: bool) -> u8 {
        if condition { self.0 } else { 0 }
    }

    fn not(self) -> Truths {
        let swapped =
            Self::TRUE.when(self.has(Self::FALSE)) | Self::FALSE.when(self.has(Self::TRUE));
        Truths(swapped | self.0 & Self::NULL.0)
    }

    /// What `and` may give: true only of two trues, false of any false, null of a null
    /// beside a null or a true.
    fn and(self, other: Truths) -> Truths {
        let not_false = Self::TRUE.or_else(Self::NULL);
        Truths(
            Self::TRUE.when(self.has(Self::TRUE) && other.has(Self::TRUE))
                | Self::FALSE.when(self.has(Self::FALSE) || other.has(Self::FALSE))
                | Self::NULL.when(
                    self.has(Self::NULL) && other.has(not_false)
                        || other.has(Self::NULL) && self.has(not_false),
                ),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::condition::{ColumnRef, Literal};
    use crate::pgoutput::message::{RelationColumn, ReplicaIdentity};
    use proptest::prelude::*;

    fn relation() -> Relation {
        let column = |name: &str| RelationColumn {
            key: true,
            name: name.into(),
            type_id: 23,
            type_modifier: -1,
        };
        Relation {
            id: 1,
            namespace: "public".into(),
            name: "t".into(),
            identity: ReplicaIdentity::Full,
            columns: ["a", "b", "c"].map(column).into(),
        }
    }

    fn slot(name: &str) -> Option<(usize, usize)> {
        let place = relation().columns.iter().position(|c| &*c.name == name)?;
        Some((place, place))
    }

    fn bind(condition: &Condition) -> Predicate {
        let mut problems = Vec::new();
        let types = TypeNames::default();
        let bound = Predicate::bind(condition, &relation(), &types, &slot, &mut problems);
        assert_eq!(problems, Vec::<String>::new());
        bound.expect("all columns exist")
    }

    fn any_condition() -> impl Strategy<Value = Condition> {
        let column = (prop_oneof![Just(Side::Row), Just(Side::Old), Just(Side::New)], "[abc]")
            .prop_map(|(side, name)| ColumnRef { side, name: name.into() });
        let literal = (0..3i32).prop_map(|n| Literal::Number(n.to_string()));
        let leaf = prop_oneof![
            (column.clone(), literal.clone()).prop_map(|(c, l)| Condition::Equals(c, l)),
            (column.clone(), proptest::collection::vec(literal, 1..3))
                .prop_map(|(c, l)| Condition::In(c, l)),
            column.prop_map(Condition::IsNull),
        ];
        leaf.prop_recursive(4, 16, 3, |inner| {
            let list = proptest::collection::vec(inner.clone(), 1..4);
            prop_oneof![
                list.clone().prop_map(Condition::And),
                list.prop_map(Condition::Or),
                inner.prop_map(|c| Condition::Not(Box::new(c))),
            ]
        })
    }

    /// SQL's own three-valued logic, over known values.
    fn reference(condition: &Condition, row: &[[Option<i32>; 2]; 3], new: bool) -> Option<bool> {
        let value = |column: &ColumnRef| {
            let side = match column.side {
                Side::Row => new,
                Side::Old => false,
                Side::New => true,
            };
            row[slot(&column.name).expect("known").0][usize::from(side)]
        };
        let equals = |value: Option<i32>, literal: &Literal| match literal {
            Literal::Number(n) => value.map(|v| v.to_string() == *n),
            _ => panic!("only numbers are generated"),
        };
        let any = |results: Vec<Option<bool>>| {
            if results.contains(&Some(true)) {
                Some(true)
            } else if results.contains(&None) {
                None
            } else {
                Some(false)
            }
        };
        match condition {
            Condition::Equals(c, l) => equals(value(c), l),
            Condition::In(c, list) => any(list.iter().map(|l| equals(value(c), l)).collect()),
            Condition::IsNull(c) => Some(value(c).is_none()),
            Condition::Not(c) => reference(c, row, new).map(|b| !b),
            Condition::Or(all) => any(all.iter().map(|c| reference(c, row, new)).collect()),
            Condition::And(all) => {
                any(all.iter().map(|c| reference(c, row, new).map(|b| !b)).collect()).map(|b| !b)
            }
        }
    }

    const TEXTS: [&[u8]; 3] = [b"0", b"1", b"2"];

    fn cell(value: Option<Option<i32>>) -> Cell<'static> {
        match value {
            None => Cell::Unknown,
            Some(None) => Cell::Null,
            Some(Some(n)) => Cell::Value(TEXTS[usize::try_from(n).expect("small")]),
        }
    }

    fn any_row<T: Clone + std::fmt::Debug>(
        value: impl Strategy<Value = T> + Clone,
    ) -> impl Strategy<Value = [[T; 2]; 3]> {
        proptest::array::uniform3(proptest::array::uniform2(value))
    }

    fn pairs(row: &[[Option<Option<i32>>; 2]; 3]) -> Vec<Pair<'static>> {
        row.iter().map(|[o, n]| Pair { old: cell(*o), new: cell(*n), same: false }).collect()
    }

    proptest! {
        #[test]
        fn known_values_give_what_sql_gives(condition in any_condition(), row in any_row(proptest::option::of(0..3i32)), new: bool) {
            let hand = if new { Hand::New } else { Hand::Old };
            let known = row.map(|pair| pair.map(Some));
            let expected = match reference(&condition, &row, new) {
                Some(true) => Truths::TRUE,
                Some(false) => Truths::FALSE,
                None => Truths::NULL,
            };
            prop_assert_eq!(bind(&condition).evaluate(&pairs(&known), hand), expected);
        }

        #[test]
        fn an_unknown_value_never_hides_what_could_hold(
            condition in any_condition(),
            row in any_row(proptest::option::of(0..3i32)),
            hidden in any_row(any::<bool>()),
            new: bool,
        ) {
            let hand = if new { Hand::New } else { Hand::Old };
            let mut partly = row.map(|pair| pair.map(Some));
            for (pair, hide) in partly.iter_mut().zip(hidden) {
                for (value, hide) in pair.iter_mut().zip(hide) {
                    if hide { *value = None; }
                }
            }
            if reference(&condition, &row, new) == Some(true) {
                prop_assert!(bind(&condition).may_hold(&pairs(&partly), hand));
            }
        }
    }

    #[test]
    fn a_column_that_is_gone_binds_to_nothing() {
        let condition = Condition::parse("a = 1 and (b = 2 or not gone is null)").expect("valid");
        let types = TypeNames::default();
        assert!(Predicate::bind(&condition, &relation(), &types, &slot, &mut Vec::new()).is_none());
    }
}
