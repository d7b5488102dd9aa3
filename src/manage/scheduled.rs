//! What the daemon does now and then: when it is due, what came of it last. As Redis remembers it,
//! so whether a daemon runs or not.

use std::time::Duration;

use serde::Serialize;

use crate::config::model::Config;
use crate::store::error::StoreError;
use crate::store::schedule::{Record, read};
use crate::store::session::Session;

/// A task of the schedule, as the configuration has it.
#[derive(Debug, Clone)]
pub struct Planned {
    name: String,
    every: Duration,
}

/// A task of the schedule, and how it stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scheduled {
    /// Its name, such as `warm:all`.
    pub task: String,
    /// How often, a tenth more or less.
    pub every_seconds: f64,
    /// Somebody does it now.
    pub running: bool,
    /// How long until it is due; 0: it is, and a daemon that streams begins it. `null`: none has
    /// looked yet.
    pub next_in_seconds: Option<f64>,
    /// Its last run; `null`: none has ended yet.
    pub last: Option<LastRun>,
}

/// The last run of a task.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LastRun {
    /// How long ago it ended.
    pub ended_seconds_ago: f64,
    /// How long it took.
    pub seconds: f64,
    /// `done` or `failed`.
    pub result: String,
    /// The same in words.
    pub detail: String,
}

/// The tasks that the configuration asks for.
#[must_use]
pub fn planned(config: &Config) -> Vec<Planned> {
    let each = config.schedule.iter();
    each.map(|schedule| Planned { name: schedule.name(), every: schedule.every.get() }).collect()
}

/// How they stand.
///
/// # Errors
/// If Redis does not answer.
pub async fn scheduled(
    session: &Session,
    planned: &[Planned],
) -> Result<Vec<Scheduled>, StoreError> {
    let (now, records) = read(session, planned.iter().map(|task| task.name.as_str())).await?;
    let each = planned.iter().zip(records);
    Ok(each.map(|(task, record)| Scheduled::new(task, record, now)).collect())
}

impl Scheduled {
    fn new(task: &Planned, record: Record, now: f64) -> Self {
        let seconds = |ms: f64| (ms / 1000.0).max(0.0);
        let last = match (record.last_began, record.last_ended, record.result) {
            (Some(began), Some(ended), Some(result)) => Some(LastRun {
                ended_seconds_ago: seconds(now - ended),
                seconds: seconds(ended - began),
                result,
                detail: record.detail.unwrap_or_default(),
            }),
            _ => None,
        };
        Scheduled {
            task: task.name.clone(),
            every_seconds: task.every.as_secs_f64(),
            running: record.held_until.is_some_and(|until| until > now),
            next_in_seconds: record.due.map(|due| seconds(due - now)),
            last,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_tells_what_was_and_what_will_be() {
        let task = Planned { name: "report".to_owned(), every: Duration::from_secs(60) };
        let none = Scheduled::new(&task, Record::default(), 5_000.0);
        assert_eq!((none.running, none.next_in_seconds, none.last), (false, None, None));
        let record = Record {
            due: Some(7_000.0),
            held_until: Some(6_000.0),
            last_began: Some(1_000.0),
            last_ended: Some(1_500.0),
            result: Some("done".to_owned()),
            detail: None,
        };
        let known = Scheduled::new(&task, record.clone(), 5_000.0);
        assert_eq!((known.running, known.next_in_seconds), (true, Some(2.0)));
        let last = known.last.unwrap();
        assert_eq!((last.seconds, last.ended_seconds_ago), (0.5, 3.5));
        let expired = Scheduled::new(&task, record, 8_000.0);
        assert_eq!((expired.running, expired.next_in_seconds), (false, Some(0.0)));
    }
}
