//! Many rows cost what their distinct keys cost.

use unstale::config::model::Operation;
use unstale::mapping::changes::ChangeSet;
use unstale::pgoutput::encode;
use unstale::pgoutput::message::ReplicaIdentity;
use unstale::pgoutput::message::Tuple;

use super::{BY_ORG, NULL, VIA, mapping, plan, t};

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
