//! A row's change reaches exactly the keys that depended on it; and where the stream does
//! not carry what that takes, more, never less.

use std::collections::BTreeSet;

use proptest::prelude::*;
use unstale::config::model::{Config, Operation};
use unstale::mapping::Mapping;
use unstale::mapping::changes::{ChangeSet, Escalation};
use unstale::mapping::explain::Yields;
use unstale::mapping::model::RuleId;
use unstale::mapping::name::TableName;
use unstale::mapping::needs::Consequence;
use unstale::mapping::plan::TablePlan;
use unstale::mapping::types::TypeNames;
use unstale::pgoutput::encode;
use unstale::pgoutput::message::{
    OldTuple, Relation, RelationColumn, ReplicaIdentity, Tuple, Value,
};

const CACHES: &str = r#"
    [postgres]
    url = "postgres://unstale@127.0.0.1/app"
    [redis]
    url = "redis://127.0.0.1/1"
    key_prefix = "p:"
    [caches.one]
    key = "one:{org}"
    [caches.stats]
    key = "stats:{org}:{days}"
    parameters = { days = [7, 30] }
    [caches.search]
    key = "search:{org}:{generation}:{q}"
    scope = ["org"]
    [caches.pair]
    key = "pair:{user}:{org}"
"#;

fn mapping(rules: &str) -> Mapping {
    let text = format!("{CACHES}\n[[tables]]\nname = \"deals\"\ninvalidates = [{rules}]");
    let config: Config = toml_edit::de::from_str(&text).expect("the configuration is read");
    Mapping::new(&config).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

/// `deals(id int8, org int8, status text, note text)`; the key is `id`, by index `id, org`.
fn relation(identity: ReplicaIdentity) -> Relation {
    let column = |name: &str, type_id| {
        let key = match identity {
            ReplicaIdentity::Full => true,
            ReplicaIdentity::Default => name == "id",
            ReplicaIdentity::Index => matches!(name, "id" | "org"),
            ReplicaIdentity::Nothing => false,
        };
        RelationColumn { key, name: name.into(), type_id, type_modifier: -1 }
    };
    Relation {
        id: 7,
        namespace: "public".into(),
        name: "deals".into(),
        identity,
        columns: vec![
            column("id", 20),
            column("org", 20),
            column("status", 25),
            column("note", 25),
        ],
    }
}

fn plan(mapping: &Mapping, identity: ReplicaIdentity) -> TablePlan {
    let plan = mapping.plan(&relation(identity), &TypeNames::default()).expect("it has rules");
    assert_eq!(plan.problems(), Vec::<String>::new());
    plan
}

fn t(text: &str) -> Value<'_> {
    Value::Text(text.as_bytes())
}
const NULL: Value<'static> = Value::Null;
const TOAST: Value<'static> = Value::Unchanged;

/// The old row, as the test says it is sent.
#[derive(Clone, Copy)]
enum Old<'a> {
    None,
    Key(&'a [Value<'a>]),
    Full(&'a [Value<'a>]),
}
use Old::{Full, Key};

fn with_tuples<R>(
    old: Old<'_>,
    new: Option<&[Value<'_>]>,
    run: impl FnOnce(Option<OldTuple<'_>>, Option<Tuple<'_>>) -> R,
) -> R {
    let old_bytes = match old {
        Old::None => None,
        Key(values) | Full(values) => Some(encode::tuple(values)),
    };
    let new_bytes = new.map(encode::tuple);
    let new = new_bytes.as_deref().map(|bytes| Tuple::parse(bytes).expect("a tuple").0);
    let old_tuple = old_bytes.as_deref().map(|bytes| Tuple::parse(bytes).expect("a tuple").0);
    let old = match old {
        Full(_) => old_tuple.map(OldTuple::Full),
        _ => old_tuple.map(OldTuple::Key),
    };
    run(old, new)
}

fn apply_to(
    plan: &TablePlan,
    operation: Operation,
    old: Old<'_>,
    new: Option<&[Value<'_>]>,
    out: &mut ChangeSet,
) {
    with_tuples(old, new, |old, new| plan.apply(operation, old, new, out));
}

/// All that a set holds, readable and sorted.
fn shown(mapping: &Mapping, set: &ChangeSet) -> Vec<String> {
    let mut all: Vec<String> = set.keys().map(|(key, _)| key.to_string()).collect();
    for (cache, reason, _) in set.whole() {
        all.push(format!("all of {}: {reason}", mapping.cache(cache).expect("known").name));
    }
    for (rule, rows) in set.lookups() {
        for row in rows.batches(1) {
            let values: Vec<_> = row.into_iter().flatten().map(|v| v.unwrap_or("null")).collect();
            all.push(format!("look up {}: {}", rule.0, values.join(" ")));
        }
    }
    all.sort();
    all
}

struct Case {
    mapping: Mapping,
    identity: ReplicaIdentity,
}

impl Case {
    fn new(rules: &str, identity: ReplicaIdentity) -> Self {
        Case { mapping: mapping(rules), identity }
    }

    fn full(rules: &str) -> Self {
        Case::new(rules, ReplicaIdentity::Full)
    }

    #[track_caller]
    fn reaches(
        &self,
        operation: Operation,
        old: Old<'_>,
        new: Option<&[Value<'_>]>,
        expected: &[&str],
    ) {
        let plan = plan(&self.mapping, self.identity);
        let mut out = ChangeSet::default();
        apply_to(&plan, operation, old, new, &mut out);
        assert_eq!(shown(&self.mapping, &out), expected);
    }

    #[track_caller]
    fn insert(&self, new: &[Value<'_>], expected: &[&str]) {
        self.reaches(Operation::Insert, Old::None, Some(new), expected);
    }
    #[track_caller]
    fn update(&self, old: Old<'_>, new: &[Value<'_>], expected: &[&str]) {
        self.reaches(Operation::Update, old, Some(new), expected);
    }
    #[track_caller]
    fn delete(&self, old: Old<'_>, expected: &[&str]) {
        self.reaches(Operation::Delete, old, None, expected);
    }
}

const BY_ORG: &str = r#"{ cache = "one", org = "org" }"#;

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

const VIA: &str = r#"{ cache = "pair", columns = ["org", "status"], where = "id <> 5", via = """
    select u.id as "user", u.org as "org"
      from u join changed on changed.org = u.org and changed.note is null; -- done
""" }"#;

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
    let plan = self::plan(&whole.mapping, ReplicaIdentity::Full);
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
    let whole = self::mapping(WHOLE_VIA);
    let mut out = ChangeSet::default();
    let none: [Vec<Option<String>>; 0] = [];
    whole.add_lookup_results(RuleId(0), Operation::Update, none, &mut out);
    assert!(out.is_empty());
    whole.add_lookup_results(RuleId(0), Operation::Update, [vec![Some("1".to_owned())]], &mut out);
    assert_eq!(shown(&whole, &out), ["all of one: rule"]);
}

#[test]
fn a_mapped_column_that_is_gone_drops_the_whole_cache_and_is_said() {
    let rules = r#"
        { cache = "one", org = "org" },
        { cache = "stats", org = "id", columns = ["renamed"], on = ["insert", "update"] },
        { cache = "search", org = "id", where = "\"Status\" = 'x'" },
    "#;
    let mapping = mapping(rules);
    let plan = mapping
        .plan(&relation(ReplicaIdentity::Full), &TypeNames::default())
        .expect("a table with rules");
    assert_eq!(plan.problems().len(), 2, "{:?}", plan.problems());
    assert!(plan.problems()[0].contains("rule 2 (cache stats)"), "{:?}", plan.problems());
    assert!(plan.problems()[1].contains("\"status\""), "{:?}", plan.problems());
    let row = [t("1"), t("10"), t("s"), NULL];
    let mut out = ChangeSet::default();
    apply_to(&plan, Operation::Delete, Full(&row), None, &mut out);
    assert_eq!(shown(&mapping, &out), ["all of search: column_gone", "p:one:10"]);
    apply_to(&plan, Operation::Insert, Old::None, Some(&row), &mut out);
    assert!(out.whole().all(|(_, reason, _)| reason == Escalation::ColumnGone));
    assert_eq!(out.whole().count(), 2);
}

#[test]
fn a_table_without_rules_has_no_plan() {
    let mut other = relation(ReplicaIdentity::Full);
    other.namespace = "elsewhere".into();
    assert!(mapping(BY_ORG).plan(&other, &TypeNames::default()).is_none());
}

#[test]
fn a_million_rows_over_a_thousand_keys_cost_a_thousand_keys() {
    let mapping = mapping(&format!("{BY_ORG}, {VIA}"));
    let plan = plan(&mapping, ReplicaIdentity::Full);
    let mut out = ChangeSet::default();
    let tuples: Vec<Vec<u8>> =
        (0..1000).map(|n| encode::tuple(&[t("1"), t(&n.to_string()), t("s"), NULL])).collect();
    for _ in 0..1000 {
        for bytes in &tuples {
            let row = Tuple::parse(bytes).expect("a tuple").0;
            plan.apply(Operation::Insert, None, Some(row), &mut out);
            out.limit(10_000);
        }
    }
    assert_eq!(out.keys().count(), 1000);
    assert_eq!(out.len(), 2000);
    assert!(out.approximate_bytes() < 300_000, "{}", out.approximate_bytes());
    assert_eq!(out.counts().map(|(.., n)| n).sum::<u64>(), 1_000_000);
}

#[test]
fn explain_says_what_each_rule_yields_or_why_not() {
    let rules = r#"
        { cache = "one", org = "org", on = ["delete"] },
        { cache = "one", org = "org", columns = ["status"] },
        { cache = "one", org = "org", where = "status = 'x'" },
        { cache = "one", org = "note" },
        { cache = "stats", org = "org" },
        { cache = "search", whole = true },
        { cache = "pair", via = "select 1 from changed where changed.org = 1" },
    "#;
    let case = Case::full(rules);
    let row = [t("1"), t("10"), t("s"), NULL];
    let plan = plan(&case.mapping, ReplicaIdentity::Full);
    let explained =
        with_tuples(Full(&row), Some(&row), |old, new| plan.explain(Operation::Update, old, new));
    let yields: Vec<Yields> = explained.into_iter().map(|e| e.yields).collect();
    assert_eq!(yields[0], Yields::Nothing("the rule is not for this operation"));
    assert_eq!(yields[1], Yields::Nothing("none of the rule's columns has changed"));
    assert_eq!(yields[2], Yields::Nothing("the rule's where does not hold"));
    assert_eq!(yields[3], Yields::Nothing("a parameter of the key is null"));
    let keys = ["p:stats:10:30", "p:stats:10:7"].map(|key| key.as_bytes().into());
    assert_eq!(yields[4], Yields::Keys(keys.into()));
    assert_eq!(yields[5], Yields::Whole(Escalation::Rule));
    assert_eq!(yields[6], Yields::Lookup(vec![vec![Some("10".to_owned())]]));
}

#[test]
fn the_old_columns_that_rules_need_are_known() {
    let rules = r#"
        { cache = "one", org = "org", columns = ["status"],
          where = "old.note is null or new.id = 1" },
        { cache = "stats", org = "id", on = ["insert"] },
        { cache = "search", org = "note", on = ["delete"], where = "status = 'x'" },
    "#
    .replace("],\n", "],");
    let mapping = mapping(&rules);
    let needed = mapping.needed_old_columns(&TableName::new("public", "deals"));
    let shown: Vec<(&str, Vec<(u16, Consequence)>)> = needed
        .iter()
        .map(|(c, needs)| (&**c, needs.iter().map(|n| (n.rule.0, n.consequence)).collect()))
        .collect();
    use Consequence::{Escalates, Widens};
    assert_eq!(
        shown,
        [
            ("note", vec![(0, Widens), (2, Escalates)]),
            ("org", vec![(0, Escalates)]),
            ("status", vec![(0, Widens), (2, Widens)]),
        ]
    );
}

// ── Against a reference that knows everything ───────────────────────────────

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
