//! Redis: the state that carries the guarantee, and the values that it is about.
//!
//! One key, `unstale:<slot>:state`, holds everything that must survive or be lost
//! together ([`state`]). Every change to it is one step of one script ([`session`]):
//! the script refuses unless the *nonce* it finds is the one that this daemon's last
//! acknowledged step wrote, or the one that this very step writes (its answer was lost,
//! it is being sent again). So the steps form a chain, and whatever breaks the history
//! of this Redis breaks the chain:
//!
//! * *The answer was lost.* The step is sent again, on a new connection, with the same
//!   nonce. If it had happened, it happens again: removing keys twice is harmless.
//! * *An old command arrives late*, from a connection given up long ago. By then a later
//!   step was acknowledged, neither of its nonces is found, it does nothing.
//! * *Redis restarted and lost its last writes, or an old dump was put back.* The nonce
//!   found is an older one: values that were removed may be back. The chain is broken
//!   and the caller declares a gap.
//! * *Another daemon owns the slot now.* It claimed the chain with a nonce of its own.
//!
//! A [`Session`](session::Session) is one connection that never reconnects by itself: after an error it is
//! dropped, whatever was under way counts as "may have happened".
//!
//! A cluster will need a state and a chain a shard; that is why nothing outside of this
//! room knows that there is one.

pub mod error;
pub mod fills;
pub mod keys;
mod lines;
mod lost;
pub mod notices;
mod pace;
pub mod purge;
pub mod reader;
pub mod remove;
pub mod scan;
pub mod schedule;
mod script;
pub mod session;
pub mod state;
