//! The event trigger that tells of rewrites in the stream itself.
//!
//! `ALTER TABLE … TYPE … USING` changes every row, and no row is sent. Without help the daemon
//! finds out by the table's file, a second or so later ([`storage`](super::storage)). An event
//! trigger runs in the same transaction: the message that it writes comes with the commit, goes
//! through the gate with it, and what depends on the table goes like by any other change.
//!
//! Only a superuser may make one, so it is optional, and the files are looked at all the same.
//! Anybody who may write to the database may write such a message: he could as well change the
//! rows. What it holds is taken for numbers of tables, and nothing else.

use super::client::SqlClient;
use super::error::PgError;

/// Whom the message is for.
pub const PREFIX: &str = "unstale.rewrite";

/// What the event trigger is called, and its function.
pub const NAME: &str = "unstale_table_rewrite";

/// Makes the function, in a schema that the caller sets, and the trigger. May be run again. The
/// message holds the table and all that it is a partition or a child of.
pub const CREATE: &str = include_str!("../../sql/rewrites.sql");

/// The tables that a message tells of (OIDs). What is no number is passed over.
pub fn tables(content: &[u8]) -> impl Iterator<Item = u32> {
    let numbers = std::str::from_utf8(content).unwrap_or_default().split(',');
    numbers.filter_map(|number| number.parse().ok())
}

/// Whether the event trigger is there, and fires.
pub async fn is_there(client: &SqlClient) -> Result<bool, PgError> {
    const TRIGGER: &str = "\
SELECT EXISTS (SELECT FROM pg_catalog.pg_event_trigger
                WHERE evtname = $1::text::name AND evtevent = 'table_rewrite'
                  AND evtenabled IN ('O', 'A'))";
    let row = client
        .query_one(TRIGGER, &[&NAME])
        .await
        .map_err(|error| PgError::from(error).during("looking for the event trigger"))?;
    Ok(row.try_get(0)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_message_holds_it_is_numbers_or_nothing() {
        let numbers = |content: &[u8]| tables(content).collect::<Vec<_>>();
        assert_eq!(numbers(b"16384,16390"), [16_384, 16_390]);
        assert_eq!(numbers(b"16384,x,-1,99999999999,,7 "), [16_384]);
        assert_eq!(numbers(b"\xff,16384"), [] as [u32; 0]);
        assert_eq!(numbers(b""), [] as [u32; 0]);
        assert!(CREATE.contains(NAME) && CREATE.contains(PREFIX));
    }
}
