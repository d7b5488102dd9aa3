//! docs/METRICS.md has every metric, and none that there is not.

use std::collections::BTreeSet;

const PAGE: &str = include_str!("../../docs/METRICS.md");
const SOURCE: &str = include_str!("../../src/metrics.rs");

/// What stands between quotes behind one of these.
fn made() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for maker in ["make.", "IntGauge::new", "HistogramOpts::new"] {
        for rest in SOURCE.split(maker).skip(1) {
            let Some((call, rest)) = rest.split_once("(\"") else { continue };
            if call.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
                names.insert(rest.split('"').next().unwrap().to_owned());
            }
        }
    }
    names
}

#[test]
fn each_metric_stands_in_the_page_and_each_in_the_page_is_there() {
    let made = made();
    assert!(made.len() > 40 && made.contains("inconsistent_seconds"), "{made:?}");
    let told: BTreeSet<String> = PAGE
        .split("`unstale_")
        .skip(1)
        .map(|rest| rest.split(['`', '{']).next().unwrap().to_owned())
        .collect();
    assert_eq!(made, told);
}
