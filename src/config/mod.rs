//! The configuration: its model, its layers and its diagnostics.

pub mod duration;
pub mod model;
pub mod problem;
