//! mapping

pub mod collide;
mod compare;
pub mod condition;
pub mod escape;
pub mod name;
pub mod template;
pub mod types;
