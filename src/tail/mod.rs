//! Changes and the keys that they reach, live: what `unstale tail` prints.
//!
//! # A slot of its own
//!
//! The stream comes from a TEMPORARY logical slot that ends with the connection. So it
//! works while no daemon runs, takes nothing away from one that does (each slot gets every
//! change), and leaves nothing behind. It begins where the slot became consistent
//! (`following from LSN …`): every transaction that commits from there on is printed,
//! whole, in commit order. A lost connection takes the slot along, so what comes next
//! would have a hole: the command ends instead of going on.
//!
//! Like every slot it makes the server keep WAL that was not read. What was handed to the
//! printer is acknowledged, so that is little, unless the reader of the output stops
//! reading: then the server waits, and keeps it (`max_slot_wal_keep_size` bounds that). A
//! reader that has gone away ends the command, also when nothing changes.
//!
//! # What a line says
//!
//! One line a change, in the stream's order, then one for the commit. A change line tells
//! the keys that the rules make of the row's own columns. What a rule finds by a query
//! (`via`) stands on the commit line: as in the daemon, the queries run once a
//! transaction, over all of its rows, after the transaction has become visible. Neither
//! line ever holds a row's values, but for those of its key.
//!
//! The *key* of a row is its primary key where the stream carries that, else the columns
//! of its replica identity's index. Under FULL without a primary key, and under NOTHING,
//! it is null.
//!
//! Memory is bounded as in the daemon: a change is printed and forgotten, a transaction
//! keeps its distinct keys and lookup rows, at most `pipeline.max_keys_per_transaction`.

pub mod follow;
mod key;
mod line;
mod transaction;
