//! What a change did cost, as `baseline.json` has it.
//!
//! Allocations are the same in every build, by every compiler and on every architecture.
//! Instructions are of one architecture and one kind of build. Those of the tests' build, which is
//! not optimized, are also of one compiler: the next one may translate the same lines otherwise.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What one change costs in one case.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cost {
    pub(crate) instructions: f64,
    pub(crate) allocations: f64,
}

/// By case.
pub(crate) type Figures = BTreeMap<String, f64>;

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Baseline {
    pub(crate) allocations: Figures,
    /// By architecture, then by [`Build`](super::judge::Build).
    pub(crate) instructions: BTreeMap<String, BTreeMap<String, Instructions>>,
}

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Instructions {
    /// Who made the build, as `rustc --version` has it.
    pub(crate) rustc: String,
    pub(crate) cases: Figures,
}

pub(crate) fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/counts/baseline.json")
}

impl Baseline {
    pub(crate) fn read() -> Baseline {
        let text = std::fs::read_to_string(file()).expect("the baseline");
        serde_json::from_str(&text).expect("the baseline is JSON")
    }

    pub(crate) fn write(&self) {
        let text = serde_json::to_string_pretty(self).expect("JSON") + "\n";
        std::fs::write(file(), text).expect("the baseline is written");
    }
}
