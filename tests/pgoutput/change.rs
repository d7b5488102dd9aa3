//! A change's whole way costs no more allocations than it did: from its bytes to what Redis gets
//! and what is told of it. Unlike time and instructions they are the same in a debug build.

use crate::baseline;
use crate::work::CASES;

#[test]
fn a_change_allocates_no_more_than_the_baseline_says() {
    let baseline = baseline::read();
    let mut known = 0;
    for case in &CASES {
        let allocations = case.run() as f64 / case.changes() as f64;
        for costs in baseline.values() {
            let before = costs[case.name].allocations;
            assert!(
                baseline::is_near(before, allocations, baseline::BLUR),
                "{} ({}): {allocations:.2} a change, {before} in benches/counts/baseline.json \
                 (`make counts` says more; UPDATE_COUNTS=1 make counts writes it anew)",
                case.name,
                case.what
            );
            known += 1;
        }
    }
    assert!(known > 0, "the baseline is empty");
}
