//! What a change did cost, as `baseline.json` has it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// How far a count may be from the baseline.
pub(crate) const TOLERANCE: f64 = 0.10;

/// Of allocations: what grows now and then makes no whole numbers.
pub(crate) const BLUR: f64 = 0.2;

/// What one change costs in one case.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Cost {
    pub(crate) instructions: f64,
    pub(crate) allocations: f64,
}

/// By architecture, then by case.
pub(crate) type Baseline = BTreeMap<String, BTreeMap<String, Cost>>;

pub(crate) fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/counts/baseline.json")
}

pub(crate) fn read() -> Baseline {
    let text = std::fs::read_to_string(file()).expect("the baseline");
    serde_json::from_str(&text).expect("the baseline is JSON")
}

/// Whether a count is what it was; `blur`: what is nothing.
pub(crate) fn is_near(before: f64, now: f64, blur: f64) -> bool {
    (now - before).abs() <= (before * TOLERANCE).max(blur)
}
