//! What a plan says of itself: what is wrong with it, what it yields, what it needs.

use unstale::config::model::Operation;
use unstale::mapping::changes::ChangeSet;
use unstale::mapping::changes::Escalation;
use unstale::mapping::explain::Yields;
use unstale::mapping::name::TableName;
use unstale::mapping::needs::Consequence;
use unstale::mapping::types::TypeNames;
use unstale::pgoutput::message::ReplicaIdentity;

use super::{Case, Full, NULL, Old, apply_to, mapping, plan, relation, shown, t, with_tuples};

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
