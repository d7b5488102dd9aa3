//! Test only: named points at which a daemon dies, or is held, when a test says so.
//!
//! A crash between two steps is what most arguments of this room are about, and no timing of a
//! kill from outside meets it. `UNSTALE_TEST_POINTS` names a folder; whoever comes by a point
//! looks there for a file of its name, and does once what is written in it: `kill` is a kill -9,
//! `hold` waits there until the file (`NAME.reached` by then) is gone. Only builds with debug
//! assertions have it; any other refuses the variable as a setting that does not exist.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

use crate::config::TEST_POINTS;

/// How often who is held looks whether he may go on.
const HELD: Duration = Duration::from_millis(1);

/// A place in the pipeline between two things that a crash may part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The slot has been created, nothing is streamed from it yet.
    SlotCreated,
    /// The slot is ours, the state in Redis was not read since.
    SlotTaken,
    /// A gap: the state is invalid, nothing is purged yet.
    Declared,
    /// Everything that was to be dropped is, and the step that says so was not sent.
    Purged,
    /// Whole caches are closed, none is dropped yet.
    Closed,
    /// The chain was claimed.
    Claimed,
    /// Transactions were found visible, and not handed on.
    Admitted,
    /// A step is about to be sent.
    Step,
    /// A large batch: some of its steps are done.
    BetweenSteps,
    /// A batch is applied, and nobody knows.
    Applied,
    /// Postgres is about to be told.
    Report,
}

impl Point {
    /// All of them.
    pub const ALL: [Point; 11] = [
        Point::SlotCreated,
        Point::SlotTaken,
        Point::Declared,
        Point::Purged,
        Point::Closed,
        Point::Claimed,
        Point::Admitted,
        Point::Step,
        Point::BetweenSteps,
        Point::Applied,
        Point::Report,
    ];

    /// The file's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Point::SlotCreated => "slot_created",
            Point::SlotTaken => "slot_taken",
            Point::Declared => "declared",
            Point::Purged => "purged",
            Point::Closed => "closed",
            Point::Claimed => "claimed",
            Point::Admitted => "admitted",
            Point::Step => "step",
            Point::BetweenSteps => "between_steps",
            Point::Applied => "applied",
            Point::Report => "report",
        }
    }
}

/// Where tests say what is to happen; nowhere, but in tests.
#[derive(Debug, Clone, Default)]
pub struct Points {
    folder: Option<Arc<Path>>,
}

impl Points {
    /// What the environment asks for. The only place that reads it, once at the start.
    #[must_use]
    pub fn from_environment() -> Self {
        let asked = std::env::var_os(TEST_POINTS).filter(|_| cfg!(debug_assertions));
        if asked.is_some() {
            tracing::error!("{TEST_POINTS} is set: this daemon dies when a test says so; unset it");
        }
        Points { folder: asked.map(|folder| PathBuf::from(folder).into()) }
    }

    /// Comes by a point.
    pub async fn reach(&self, point: Point) {
        if let Some(folder) = &self.folder {
            obey(folder, point).await;
        }
    }
}

async fn obey(folder: &Path, point: Point) {
    let order = folder.join(point.as_str());
    let reached = order.with_extension("reached");
    // Once: whoever moves the file has the order.
    if std::fs::rename(&order, &reached).is_err() {
        return;
    }
    match std::fs::read_to_string(&reached).unwrap_or_default().trim() {
        "hold" => {
            while reached.exists() {
                tokio::time::sleep(HELD).await;
            }
        }
        _ => _ = kill_process(getpid(), Signal::KILL),
    }
}
