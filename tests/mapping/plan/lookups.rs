//! Rules with `via`: what is looked up, by which statement, and what becomes of what it finds.

use unstale::config::model::Operation;
use unstale::mapping::changes::ChangeSet;
use unstale::mapping::model::RuleId;
use unstale::pgoutput::message::ReplicaIdentity;
use unstale::pgoutput::message::Value;

use super::{Case, Full, NULL, Old, VIA, mapping, plan, shown, t};

const WHOLE_VIA: &str =
    r#"{ cache = "one", whole = true, via = "select 1 from changed where changed.org = 1" }"#;

#[test]
fn a_via_gets_the_distinct_rows_of_both_sides() {
    let case = Case::full(VIA);
    let (a, b) = ([t("1"), t("10"), t("s"), NULL], [t("1"), t("11"), t("s"), t("n")]);
    case.update(Full(&a), &b, &["look up 0: n 11", "look up 0: null 10"]);
    case.insert(&[t("5"), t("10"), t("s"), NULL], &[]);
    let index = Case::new(VIA, ReplicaIdentity::Index);
    index.update(Old::None, &b, &["all of pair: old_value_unknown"]);
    // Not UTF-8: it could not be handed back to the database.
    case.insert(&[t("1"), Value::Text(b"\xff"), t("s"), NULL], &["all of pair: old_value_unknown"]);
}

#[test]
fn a_lookup_is_one_statement_over_typed_rows() {
    let case = Case::full(VIA);
    let plan = plan(&case.mapping, ReplicaIdentity::Full);
    let lookup = plan.lookup(RuleId(0)).expect("the rule has a via");
    assert_eq!(lookup.columns, [Box::<str>::from("note"), Box::from("org")]);
    assert_eq!(lookup.outputs, ["user", "org"]);
    assert_eq!(
        lookup.sql,
        "WITH changed AS (\n  SELECT t.c0::pg_catalog.text AS \"note\", t.c1::pg_catalog.int8 AS \
         \"org\" FROM unnest($1::text[], $2::text[]) AS t(c0, c1)\n)\nSELECT DISTINCT \
         (v.\"user\")::text, (v.\"org\")::text FROM (\n    select u.id as \"user\", u.org as \
         \"org\"\n      from u join changed on changed.org = u.org and changed.note is null\n) AS v"
    );
    let whole = Case::full(WHOLE_VIA);
    let plan = super::plan(&whole.mapping, ReplicaIdentity::Full);
    let lookup = plan.lookups().next().expect("the rule has a via");
    assert!(lookup.sql.ends_with(") AS v LIMIT 1"), "{}", lookup.sql);
    assert!(lookup.outputs.is_empty());
}

#[test]
fn what_a_lookup_finds_becomes_keys_and_nulls_become_none() {
    let mapping = mapping(VIA);
    let mut out = ChangeSet::default();
    let row = |a: Option<&str>, b: Option<&str>| vec![a.map(str::to_owned), b.map(str::to_owned)];
    let rows = [row(Some("1"), Some("10")), row(Some("2"), None), row(Some("1"), Some("10"))];
    mapping.add_lookup_results(RuleId(0), Operation::Update, rows, &mut out);
    assert_eq!(shown(&mapping, &out), ["p:pair:1:10"]);
    let whole = super::mapping(WHOLE_VIA);
    let mut out = ChangeSet::default();
    let none: [Vec<Option<String>>; 0] = [];
    whole.add_lookup_results(RuleId(0), Operation::Update, none, &mut out);
    assert!(out.is_empty());
    whole.add_lookup_results(RuleId(0), Operation::Update, [vec![Some("1".to_owned())]], &mut out);
    assert_eq!(shown(&whole, &out), ["all of one: rule"]);
}
