//! Every counter of the daemon of the moment against what its log says, and its gauges at rest.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use crate::load::MARKED;
use crate::stage::Stage;
use crate::support::PATIENCE;

/// What stands in the log of what is counted.
enum Told {
    /// A line each, with the labels as its fields.
    Lines(&'static str, &'static [&'static str]),
    /// The sum of a field of such lines, by the labels that are fields, too.
    Sum(&'static str, &'static str, &'static [&'static str]),
    /// The same, but its labels are told by no line.
    Total(&'static str, &'static str),
    /// It does not happen here.
    Never,
    /// By no line: there would be one for each entry.
    Not,
}

/// Every counter there is. (Of what is read and filled there would be a line for each.)
const COUNTERS: [(&str, Told); 22] = [
    ("transactions_total", Told::Sum(BATCH, "transactions", &[])),
    ("changes_total", Told::Total(BATCH, "rows")),
    ("invalidations_total", Told::Sum(REMOVED, "keys", &["cache"])),
    ("invalidated_present_total", Told::Sum(REMOVED, "present", &["cache"])),
    ("escalations_total", Told::Lines("dropping a whole cache", &["cache", "reason"])),
    ("gaps_total", Told::Lines(GAP, &["reason"])),
    ("reconnects_total", Told::Lines("connecting anew service=", &["service"])),
    ("stalls_total", Told::Lines("stalled stall=", &["stall"])),
    ("requests_total", Told::Lines("request method=", &["endpoint", "status"])),
    ("warm_holds_total", Told::Lines("warming waits for the stream to catch up", &[])),
    ("heartbeats_total", Told::Never),
    ("refreshes_total", Told::Never),
    ("maintenance_removed_total", Told::Never),
    ("schedule_runs_total", Told::Never),
    ("shadow_keys_total", Told::Never),
    ("fills_total", Told::Not),
    ("cache_reads_total", Told::Not),
    ("replica_reads_total", Told::Not),
    ("verify_total", Told::Not),
    ("warm_dropped_total", Told::Not),
    ("warm_given_up_total", Told::Not),
    ("warm_ups_total", Told::Not),
];

const BATCH: &str = "a batch was applied";
const REMOVED: &str = "keys were removed";
const GAP: &str = "gap: everything managed was dropped";

/// What these gauges are when everything is applied.
const AT_REST: [(&str, &str); 5] = [
    ("unstale_parked_transactions", "0"),
    ("unstale_streamed_transactions", "0"),
    ("unstale_streamed_keys", "0"),
    ("unstale_ready", "1"),
    ("unstale_certified", "1"),
];

/// The log comes by a pipe, and a connection may just be lost.
const AGREE: Duration = PATIENCE;

/// Notes whatever does not agree. Nobody writes or reads, and all is applied.
pub async fn audit(stage: &Stage) {
    let daemon = stage.daemon.lock().await;
    let start = Instant::now();
    let wrong = loop {
        // Of one that has ended by itself enough is known.
        let Some((_, metrics)) = daemon.get("/metrics").await else { return };
        let wrong = differences(&metrics, &daemon.log());
        if wrong.is_empty() || start.elapsed() > AGREE {
            break wrong;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let log = daemon.log();
    // A mark is beside the protocol until its row changes, and that is what the daemon says.
    let stale = log.lines().filter(|line| line.contains("a cached value is stale"));
    let stale = stale.filter(|line| !field(line, "key").is_some_and(is_marked));
    // It is true, but nothing else is promised where no event trigger tells.
    let stale = stale.filter(|line| !stage.ledger.may_overlook(time(line)));
    let stale: Vec<String> =
        stale.map(|line| format!("by the daemon's own audit: {line}")).collect();
    stage.ledger.count("audited");
    stage.ledger.note(|tally| {
        tally.other.extend(wrong);
        tally.stale_stored.extend(stale);
    });
}

fn differences(metrics: &str, log: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let families = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE unstale_"));
    let families = families.filter_map(|line| line.strip_suffix(" counter"));
    for family in families {
        let counted = counters(metrics, &format!("unstale_{family}"));
        let told = COUNTERS.iter().find(|(name, _)| *name == family).map(|(_, told)| told);
        let (counted, logged) = match told {
            Some(Told::Lines(message, labels)) => (counted, sums(log, message, None, labels)),
            Some(Told::Sum(message, of, labels)) => (counted, sums(log, message, Some(of), labels)),
            Some(Told::Total(message, of)) => (total(counted), sums(log, message, Some(of), &[])),
            Some(Told::Never) => (counted, BTreeMap::new()),
            Some(Told::Not) => continue,
            None => {
                wrong.push(format!("{family} is a counter that nobody compares"));
                continue;
            }
        };
        if counted != logged {
            wrong.push(format!("{family}: counted {counted:?}, logged {logged:?}"));
        }
    }
    let of = |name: &str| counters(metrics, name).remove("").unwrap_or_default();
    let (each, all) =
        (of("unstale_commit_to_invalidated_seconds_count"), of("unstale_transactions_total"));
    if each != all {
        wrong.push(format!("{all} transactions were counted, and the times of {each}"));
    }
    let value = |name: &str| metrics.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
    for (gauge, at_rest) in AT_REST {
        let is = value(gauge);
        if is != Some(at_rest) {
            wrong.push(format!("{gauge} is {is:?} at rest, and not {at_rest}"));
        }
    }
    wrong
}

/// When a line was written.
fn time(line: &str) -> SystemTime {
    let (time, _) = line.split_once(' ').unwrap();
    humantime::parse_rfc3339(time).unwrap()
}

fn is_marked(key: &str) -> bool {
    let row = key.rsplit_once("v1:item:").and_then(|(_, row)| row.parse().ok());
    row.is_some_and(|row| MARKED.contains(&row))
}

/// How many gaps there were, by reason.
pub fn gaps(log: &str) -> BTreeMap<String, u64> {
    sums(log, GAP, None, &["reason"])
}

/// The counters of a family that are not zero, by the values of their labels.
fn counters(metrics: &str, family: &str) -> BTreeMap<String, u64> {
    metrics
        .lines()
        .filter_map(|line| {
            let rest = line.strip_prefix(family).filter(|rest| rest.starts_with(['{', ' ']))?;
            let (labels, value) = rest.rsplit_once(' ')?;
            let mut values: Vec<&str> = labels.split('"').skip(1).step_by(2).collect();
            values.sort_unstable();
            Some((values.join(" "), value.parse().ok()?))
        })
        .filter(|(_, value)| *value > 0)
        .collect()
}

fn total(counted: BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let sum = counted.into_values().sum::<u64>();
    (sum > 0).then(|| (String::new(), sum)).into_iter().collect()
}

/// The sums of a field of the lines with this message, by the values of other fields; of no
/// field: how many lines there are.
fn sums(log: &str, message: &str, of: Option<&str>, labels: &[&str]) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for line in log.lines().filter(|line| line.contains(message)) {
        let mut values: Vec<&str> = labels.iter().filter_map(|name| field(line, name)).collect();
        values.sort_unstable();
        let one = of.map_or(Some(1), |name| field(line, name)?.parse().ok());
        *sums.entry(values.join(" ")).or_default() += one.unwrap_or_default();
    }
    sums.retain(|_, sum| *sum > 0);
    sums
}

/// A field's value in a line of the log.
fn field<'l>(line: &'l str, name: &str) -> Option<&'l str> {
    let (_, rest) = line.split_once(&format!(" {name}="))?;
    let end = rest.find(' ').unwrap_or(rest.len());
    rest.get(..end).map(|value| value.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "\
# TYPE unstale_transactions_total counter
unstale_transactions_total 3
# TYPE unstale_invalidations_total counter
unstale_invalidations_total{cache=\"a\"} 5
unstale_invalidations_total{cache=\"b\"} 0
# TYPE unstale_commit_to_invalidated_seconds histogram
unstale_commit_to_invalidated_seconds_count 3
unstale_parked_transactions 0
unstale_streamed_transactions 0
unstale_streamed_keys 0
unstale_ready 1
unstale_certified 1
";

    const LOG: &str = "\
DEBUG unstale::pipeline::apply: keys were removed cache=a keys=2 present=0
DEBUG unstale::pipeline::apply: a batch was applied transactions=1 rows=2 keys=2 watermark=0/1
DEBUG unstale::pipeline::apply: keys were removed cache=a keys=3 present=1
DEBUG unstale::pipeline::apply: a batch was applied transactions=2 rows=2 keys=3 watermark=0/2
";

    #[test]
    fn whatever_is_counted_and_not_logged_or_logged_and_not_counted_is_found() {
        assert_eq!(differences(METRICS, LOG), [""; 0]);
        let without_a_line = LOG.lines().skip(1).collect::<Vec<_>>().join("\n");
        assert_eq!(differences(METRICS, &without_a_line).len(), 1);
        assert_eq!(differences(METRICS, "").len(), 2);
        for (of, to) in [
            ("transactions_total 3", "transactions_total 4"),
            ("cache=\"b\"} 0", "cache=\"b\"} 1"),
            ("_ready 1", "_ready 0"),
            ("seconds_count 3", "seconds_count 2"),
            ("# TYPE unstale_transactions_total", "# TYPE unstale_new_total"),
        ] {
            let changed = METRICS.replace(of, to);
            assert!(!differences(&changed, LOG).is_empty(), "{to}");
        }
    }
}
