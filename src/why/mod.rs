//! What is known of a key: whether it is cached, since when and from which snapshot, what can drop
//! it and what did last. For `unstale why` and the console.
//!
//! Redis is asked for the key itself ([`stored`]), the daemon for what it remembers ([`answer`],
//! over its admin listener or in its own process). [`report`] puts both together; where one of them
//! does not answer, what the other knows is told.

pub mod answer;
pub mod key;
pub mod report;
mod since;
pub mod stored;
