//! What a change of each kind reaches: of the old side and the new, by column, condition and operation.

use unstale::mapping::changes::ChangeSet;
use unstale::mapping::types::TypeNames;
use unstale::pgoutput::message::ReplicaIdentity;
use unstale::pgoutput::message::Value;

use super::{BY_ORG, Case, Full, Key, NULL, Old, TOAST, mapping, plan, relation, shown, t};

#[test]
fn an_update_reaches_the_old_and_the_new_side() {
    let case = Case::full(BY_ORG);
    let (a, b) = ([t("1"), t("10"), t("s"), NULL], [t("1"), t("11"), t("s"), NULL]);
    case.insert(&a, &["p:one:10"]);
    case.delete(Full(&a), &["p:one:10"]);
    case.update(Full(&a), &b, &["p:one:10", "p:one:11"]);
    case.update(Full(&a), &a, &["p:one:10"]);
}

#[test]
fn a_null_parameter_yields_no_key() {
    let case = Case::full(BY_ORG);
    let (a, none) = ([t("1"), t("10"), NULL, NULL], [t("1"), NULL, NULL, NULL]);
    case.insert(&none, &[]);
    case.update(Full(&none), &a, &["p:one:10"]);
    case.update(Full(&a), &none, &["p:one:10"]);
    case.delete(Full(&none), &[]);
    let pair = Case::full(r#"{ cache = "pair", user = "id", org = "org" }"#);
    pair.insert(&none, &[]);
}

#[test]
fn an_old_value_that_is_not_carried_drops_the_whole_cache() {
    let row = [t("1"), t("10"), t("s"), NULL];
    let key = [t("1"), NULL, NULL, NULL];
    let case = Case::new(BY_ORG, ReplicaIdentity::Default);
    case.insert(&row, &["p:one:10"]);
    case.update(Old::None, &row, &["all of one: old_value_unknown"]);
    case.update(Key(&key), &row, &["all of one: old_value_unknown"]);
    case.delete(Key(&key), &["all of one: old_value_unknown"]);
    let nothing = Case::new(BY_ORG, ReplicaIdentity::Nothing);
    nothing.update(Old::None, &row, &["all of one: old_value_unknown"]);
    nothing.delete(Old::None, &["all of one: old_value_unknown"]);
}

#[test]
fn key_columns_are_known_without_an_old_row() {
    let row = [t("1"), t("10"), t("s"), NULL];
    let case = Case::new(r#"{ cache = "one", org = "id" }"#, ReplicaIdentity::Default);
    case.update(Old::None, &row, &["p:one:1"]);
    case.update(Key(&[t("2"), NULL, NULL, NULL]), &row, &["p:one:1", "p:one:2"]);
    case.delete(Key(&[t("2"), NULL, NULL, NULL]), &["p:one:2"]);
    let index = Case::new(BY_ORG, ReplicaIdentity::Index);
    index.update(Old::None, &row, &["p:one:10"]);
    index.update(Key(&[t("1"), t("9"), NULL, NULL]), &row, &["p:one:10", "p:one:9"]);
    // A partition whose own identity lacks the column.
    index.delete(Key(&[t("1"), NULL, NULL, NULL]), &["all of one: old_value_unknown"]);
    // Without an identity there is no key that could be unchanged.
    Case::new(r#"{ cache = "one", org = "id" }"#, ReplicaIdentity::Nothing).update(
        Old::None,
        &row,
        &["all of one: old_value_unknown"],
    );
}

#[test]
fn a_toasted_value_that_was_not_touched_is_the_old_one() {
    let by_note = r#"{ cache = "one", org = "note" }"#;
    let (old, new) = ([t("1"), t("10"), t("s"), t("long")], [t("1"), t("11"), t("s"), TOAST]);
    Case::full(by_note).update(Full(&old), &new, &["p:one:long"]);
    Case::new(by_note, ReplicaIdentity::Default).update(
        Old::None,
        &new,
        &["all of one: old_value_unknown"],
    );
    let columns = r#"{ cache = "one", org = "id", columns = ["note"] }"#;
    Case::new(columns, ReplicaIdentity::Default).update(Old::None, &new, &[]);
    Case::full(columns).update(Full(&old), &new, &[]);
}

#[test]
fn a_binary_or_a_missing_value_is_unknown_and_no_panic() {
    let case = Case::full(BY_ORG);
    case.insert(
        &[t("1"), Value::Binary(b"\0\x01"), t("s"), NULL],
        &["all of one: old_value_unknown"],
    );
    case.insert(&[t("1")], &["all of one: old_value_unknown"]);
    case.insert(&[], &["all of one: old_value_unknown"]);
    case.update(Old::None, &[t("1"), t("2"), NULL, NULL], &["all of one: old_value_unknown"]);
    let columns =
        Case::new(r#"{ cache = "one", org = "id", columns = ["note"] }"#, ReplicaIdentity::Default);
    // Two unknown values are not known to be equal.
    columns.update(Old::None, &[t("1"), t("2"), NULL, Value::Binary(b"\0")], &["p:one:1"]);
}

#[test]
fn columns_restrict_updates_to_those_that_change_one_of_them() {
    let rule = r#"{ cache = "one", org = "org", columns = ["org", "status"] }"#;
    let case = Case::full(rule);
    let row = [t("1"), t("10"), t("s"), t("n")];
    case.insert(&row, &["p:one:10"]);
    case.delete(Full(&row), &["p:one:10"]);
    case.update(Full(&row), &[t("1"), t("10"), t("s"), t("m")], &[]);
    case.update(Full(&row), &[t("1"), t("10"), t("z"), t("n")], &["p:one:10"]);
    case.update(Full(&row), &[t("1"), t("10"), NULL, t("n")], &["p:one:10"]);
    let null = [t("1"), t("10"), NULL, t("n")];
    case.update(Full(&null), &null, &[]);
    // The old status is not carried: it counts as changed.
    Case::new(rule, ReplicaIdentity::Index).update(Old::None, &row, &["p:one:10"]);
    let key_only = r#"{ cache = "one", org = "org", columns = ["id"] }"#;
    Case::new(key_only, ReplicaIdentity::Default).update(Old::None, &row, &[]);
}

#[test]
fn a_condition_is_asked_of_each_side_by_itself() {
    let case = Case::full(r#"{ cache = "one", org = "org", where = "status = 'on'" }"#);
    let (on, off) = ([t("1"), t("10"), t("on"), NULL], [t("1"), t("11"), t("off"), NULL]);
    case.insert(&on, &["p:one:10"]);
    case.insert(&off, &[]);
    case.update(Full(&on), &off, &["p:one:10"]);
    case.update(Full(&off), &on, &["p:one:10"]);
    case.update(Full(&off), &off, &[]);
    case.delete(Full(&off), &[]);
    let moved = Case::full(
        r#"{ cache = "one", org = "org", where = "old.status is null and new.status = 'on'" }"#,
    );
    let fresh = [t("1"), t("10"), NULL, NULL];
    moved.insert(&on, &["p:one:10"]);
    moved.update(Full(&fresh), &on, &["p:one:10"]);
    moved.update(Full(&on), &on, &[]);
    moved.delete(Full(&fresh), &[]);
    // Unknown: it may hold.
    Case::new(
        r#"{ cache = "one", org = "id", where = "old.status = 'on'" }"#,
        ReplicaIdentity::Default,
    )
    .update(Old::None, &off, &["p:one:1"]);
}

#[test]
fn a_rule_is_for_its_operations_only_and_truncate_is_a_delete() {
    let row = [t("1"), t("10"), t("s"), NULL];
    let case = Case::full(r#"{ cache = "one", org = "org", on = ["insert"] }"#);
    case.insert(&row, &["p:one:10"]);
    case.update(Full(&row), &row, &[]);
    case.delete(Full(&row), &[]);
    let rules = r#"
        { cache = "one", org = "org", on = ["insert", "update"] },
        { cache = "stats", org = "org", on = ["delete"] },
        { cache = "search", org = "org", columns = ["status"], where = "status = 'on'" },
    "#;
    let case = Case::full(rules);
    let mut out = ChangeSet::default();
    plan(&case.mapping, ReplicaIdentity::Full).truncate(&mut out);
    assert_eq!(shown(&case.mapping, &out), ["all of search: truncate", "all of stats: truncate"]);
}

#[test]
fn enumerated_parameters_that_a_rule_does_not_give_are_all_meant() {
    let row = [t("1"), t("10"), t("30"), NULL];
    Case::full(r#"{ cache = "stats", org = "org" }"#)
        .insert(&row, &["p:stats:10:30", "p:stats:10:7"]);
    Case::full(r#"{ cache = "stats", org = "org", days = "status" }"#)
        .insert(&row, &["p:stats:10:30"]);
}

#[test]
fn a_scoped_cache_loses_its_scopes_generation() {
    let case = Case::full(r#"{ cache = "search", org = "org" }"#);
    case.insert(&[t("1"), t("10"), NULL, NULL], &["p:search:10:generation"]);
    case.insert(&[t("1"), t("a:b"), NULL, NULL], &["p:search:a%3Ab:generation"]);
    let (_, cache) = case.mapping.cache_of_key(b"p:search:10:generation").expect("it is managed");
    assert!(cache.parse_key(b"p:search:10:generation").expect("of this cache").is_generation);
    let entry = cache.parse_key(b"p:search:10:f3:x%20y").expect("an entry");
    assert!(!entry.is_generation);
    assert_eq!(entry.parameters.last(), Some(&("q", b"x y".to_vec())));
    assert!(case.mapping.cache_of_key(b"search:10:generation").is_none());
}

#[test]
fn a_whole_rule_drops_its_cache_when_the_row_is_of_it() {
    let case = Case::full(
        r#"{ cache = "one", whole = true, columns = ["status"], where = "org is null" }"#,
    );
    let global = [t("1"), NULL, t("a"), NULL];
    case.insert(&global, &["all of one: rule"]);
    case.insert(&[t("1"), t("10"), t("a"), NULL], &[]);
    case.update(Full(&global), &global, &[]);
    case.update(Full(&global), &[t("1"), t("10"), t("b"), NULL], &["all of one: rule"]);
}

#[test]
fn a_table_without_rules_has_no_plan() {
    let mut other = relation(ReplicaIdentity::Full);
    other.namespace = "elsewhere".into();
    assert!(mapping(BY_ORG).plan(&other, &TypeNames::default()).is_none());
}
