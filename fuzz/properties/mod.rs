//! What must hold whatever the bytes are: a file for each parser. Each `check` gives whether the input
//! was well-formed, and panics if a promise is broken.
//!
//! The fuzz targets call them, and so does `tests/fuzzed`, on a bounded number of inputs.

pub(crate) mod config;
pub(crate) mod pgoutput;
pub(crate) mod request;
pub(crate) mod template;
pub(crate) mod token;
