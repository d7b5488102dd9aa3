//! Counters that stand at zero from the start, label by label.
//!
//! Prometheus sees how much a counter has grown between two looks at it. One that comes
//! into being with its first event has not grown: `increase(…)` gives nothing, and an alert
//! on a first stale entry or a first escalation would not fire. So what can be counted is
//! named before it is.

use crate::audit::compare::Verdict;
use crate::config::model::{Operation, Priority, Schedule};
use crate::fill::filler::How;
use crate::manage::maintain::Unfit;
use crate::mapping::Mapping;
use crate::mapping::changes::Escalation;
use crate::metrics::Metrics;
use crate::schedule::attend;
use crate::warm::agenda::Reason;
use crate::warm::{attend as warming, refresh, rewarm};

const OPERATIONS: [Operation; 4] =
    [Operation::Insert, Operation::Update, Operation::Delete, Operation::Truncate];
const PRIORITIES: [Priority; 3] = [Priority::High, Priority::Medium, Priority::Low];

/// The services whose connections are counted.
const SERVICES: [&str; 2] = ["postgres", "redis"];

/// Names every series that this schedule can give.
pub fn name_scheduled(metrics: &Metrics, schedule: &[Schedule]) {
    for entry in schedule {
        for result in attend::RESULTS {
            metrics.schedule_runs.with_label_values(&[&*entry.name(), result]);
        }
    }
}

/// Names every series that this mapping can give. What has counted already keeps its count.
pub fn name_all(metrics: &Metrics, mapping: &Mapping) {
    for (_, cache) in mapping.caches() {
        let cache = &*cache.name;
        for result in Verdict::RESULTS {
            metrics.verify.with_label_values(&[cache, result]);
        }
        for reason in Escalation::ALL {
            metrics.escalations.with_label_values(&[cache, reason.as_str()]);
        }
        for outcome in How::ALL {
            metrics.fills.with_label_values(&[cache, outcome.as_str()]);
        }
        for reason in Unfit::ALL {
            metrics.maintenance_removed.with_label_values(&[cache, reason.as_str()]);
        }
        for reason in rewarm::GIVEN_UP {
            metrics.warm_given_up.with_label_values(&[cache, reason]);
        }
        for outcome in refresh::OUTCOMES {
            metrics.refreshes.with_label_values(&[cache, outcome]);
        }
        metrics.invalidations.with_label_values(&[cache]);
        metrics.invalidated_present.with_label_values(&[cache]);
        metrics.load_seconds.with_label_values(&[cache]);
    }
    for (id, _) in mapping.tables() {
        let table = mapping.table_name(id);
        for operation in OPERATIONS {
            metrics.changes.with_label_values(&[&*table, operation.as_str()]);
        }
    }
    for priority in PRIORITIES {
        metrics.warm_queue.with_label_values(&[priority.as_str()]);
        metrics.warm_dropped.with_label_values(&[priority.as_str()]);
    }
    for reason in Reason::ALL {
        for result in warming::RESULTS {
            metrics.warm_ups.with_label_values(&[reason.as_str(), result]);
        }
    }
    for service in SERVICES {
        metrics.reconnects.with_label_values(&[service]);
    }
}
