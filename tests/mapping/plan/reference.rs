//! Against a reference that knows every value: nothing that depended on the row is missed.

use std::collections::BTreeSet;

use proptest::prelude::*;
use unstale::config::model::Operation;
use unstale::mapping::changes::ChangeSet;
use unstale::pgoutput::message::ReplicaIdentity;
use unstale::pgoutput::message::Value;

use super::{Case, Full, Key, NULL, Old, TOAST, apply_to, plan, t};

type Row = [Option<&'static str>; 4];
type Holds = fn(&Row, Option<&Row>, Option<&Row>) -> bool;

/// Conditions with what they mean when every value is known: of the row at hand, the old
/// row (absent: all null) and the new one.
const CONDITIONS: [(&str, Holds); 4] = [
    ("", |_, _, _| true),
    ("where = \"status = 'a'\",", |row, _, _| row[2] == Some("a")),
    ("where = \"status <> 'a' or note is null\",", |row, _, _| {
        row[2].is_some_and(|s| s != "a") || row[3].is_none()
    }),
    ("where = \"old.status is null and not new.note = 'b'\",", |_, old, new| {
        old.is_none_or(|o| o[2].is_none()) && new.and_then(|n| n[3]).is_some_and(|n| n != "b")
    }),
];

const COLUMNS: [(&str, &[usize]); 3] = [
    ("", &[0, 1, 2, 3]),
    ("columns = [\"org\", \"status\"],", &[1, 2]),
    ("columns = [\"note\"],", &[3]),
];

fn any_row() -> impl Strategy<Value = Row> {
    let value = || prop_oneof![Just(None), Just(Some("a")), Just(Some("b"))];
    let key = || prop_oneof![Just(Some("1")), Just(Some("2"))];
    (key(), prop_oneof![1 => Just(None), 3 => key()], value(), value())
        .prop_map(|(id, org, status, note)| [id, org, status, note])
}

fn any_operation() -> impl Strategy<Value = Operation> {
    prop_oneof![Just(Operation::Insert), Just(Operation::Update), Just(Operation::Delete)]
}

fn any_identity() -> impl Strategy<Value = ReplicaIdentity> {
    prop_oneof![
        Just(ReplicaIdentity::Full),
        Just(ReplicaIdentity::Default),
        Just(ReplicaIdentity::Index)
    ]
}

fn values(row: &Row) -> Vec<Value<'static>> {
    row.iter().map(|v| v.map_or(NULL, t)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn nothing_that_depended_on_the_row_is_missed(
        (old_row, new_row, operation, identity) in (any_row(), any_row(), any_operation(), any_identity()),
        toast: bool,
        parameter in prop_oneof![Just(0usize), Just(1), Just(3)],
        condition in 0..CONDITIONS.len(),
        columns in 0..COLUMNS.len(),
    ) {
        let key: &[usize] = match identity {
            ReplicaIdentity::Default => &[0],
            // Only NOT NULL columns can be in it.
            ReplicaIdentity::Index if old_row[1].is_some() && new_row[1].is_some() => &[0, 1],
            _ => &[0, 1, 2, 3],
        };
        let identity = if key.len() == 4 { ReplicaIdentity::Full } else { identity };
        let name = ["id", "org", "status", "note"][parameter];
        let ((filter, filtered), (text, holds)) = (COLUMNS[columns], CONDITIONS[condition]);
        let case = Case::new(&format!("{{ cache = \"one\", {filter} {text} org = \"{name}\" }}"), identity);

        // What SQL would say.
        let (old, new) = match operation {
            Operation::Insert => (None, Some(&new_row)),
            Operation::Delete => (Some(&old_row), None),
            _ => (Some(&old_row), Some(&new_row)),
        };
        let passed_over = !filter.is_empty()
            && operation == Operation::Update
            && filtered.iter().all(|c| old_row[*c] == new_row[*c]);
        let expected: BTreeSet<String> = [old, new]
            .into_iter()
            .flatten()
            .filter(|row| !passed_over && holds(row, old, new))
            .filter_map(|row| row[parameter].map(|v| format!("p:one:{v}")))
            .collect();

        // What Postgres would send.
        let key_row: Vec<_> = (0..4)
            .map(|c| if key.contains(&c) { old_row[c].map_or(NULL, t) } else { NULL })
            .collect();
        let key_changed = key.iter().any(|c| old_row[*c] != new_row[*c]);
        let full_row = values(&old_row);
        let sent_old = match operation {
            Operation::Insert => Old::None,
            _ if identity == ReplicaIdentity::Full => Full(&full_row),
            Operation::Update if !key_changed => Old::None,
            _ => Key(&key_row),
        };
        let mut sent_new = values(&new_row);
        let untouched = operation == Operation::Update && old_row[3] == new_row[3];
        if toast && untouched && new_row[3].is_some() {
            sent_new[3] = TOAST;
        }
        let sent_new = (operation != Operation::Delete).then_some(&*sent_new);

        let plan = plan(&case.mapping, identity);
        let mut out = ChangeSet::default();
        apply_to(&plan, operation, sent_old, sent_new, &mut out);
        let found: BTreeSet<String> = out.keys().map(|(key, _)| key.to_string()).collect();
        if identity == ReplicaIdentity::Full || operation == Operation::Insert {
            prop_assert_eq!(found, expected);
            prop_assert_eq!(out.whole().count(), 0);
        } else if out.whole().count() == 0 {
            prop_assert!(found.is_superset(&expected), "found {:?}, not {:?}", found, expected);
        }
    }
}
