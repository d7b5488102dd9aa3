//! The event triggers that tell in the stream itself of rows that it does not carry.
//!
//! `ALTER TABLE … TYPE … USING` changes every row, ATTACH and DETACH PARTITION bring and take
//! rows, and no row is sent. Without help the daemon finds out by the tables' files and ties, a
//! second or so later ([`storage`](super::storage)). An event trigger runs in the same
//! transaction: the message that it writes comes with the commit, goes through the gate with it,
//! and what depends on the table goes like by any other change.
//!
//! What an event trigger is not told of is left to the files: TRUNCATE of a single partition, DROP
//! TABLE of one (its parent is forgotten by then), NO INHERIT. DETACH … CONCURRENTLY hides the rows by a
//! first transaction, and is told of by its second.
//!
//! Only a superuser may make one, so it is optional, and the files are looked at all the same.
//! Anybody who may write to the database may write such a message: he could as well change the
//! rows. What it holds is taken for numbers of tables, and nothing else.

use super::client::SqlClient;
use super::error::PgError;

/// Whom the message is for.
pub const PREFIX: &str = "unstale.rewrite";

/// What the event trigger of rewrites is called, and the function of both.
pub const NAME: &str = "unstale_table_rewrite";

/// The event triggers, by name and event.
pub const TRIGGERS: [(&str, &str); 2] =
    [(NAME, "table_rewrite"), ("unstale_table_parts", "ddl_command_end")];

/// Makes the function, in a schema that the caller sets, and the triggers. May be run again. The
/// message holds the table and all that it is a partition or a child of.
pub const CREATE: &str = include_str!("../../sql/rewrites.sql");

/// The tables that a message tells of (OIDs). What is no number is passed over.
pub fn tables(content: &[u8]) -> impl Iterator<Item = u32> {
    let numbers = std::str::from_utf8(content).unwrap_or_default().split(',');
    numbers.filter_map(|number| number.parse().ok())
}

/// How many of the [`TRIGGERS`] are there, and fire.
pub async fn triggers(client: &SqlClient) -> Result<usize, PgError> {
    const FIRING: &str = "\
SELECT evtname::text, evtevent::text FROM pg_catalog.pg_event_trigger
 WHERE evtname = ANY ($1::text[]::name[]) AND evtenabled IN ('O', 'A')";
    let names = TRIGGERS.map(|(name, _)| name);
    let rows = client
        .query(FIRING, &[&names.as_slice()])
        .await
        .map_err(|error| PgError::from(error).during("looking for the event triggers"))?;
    let mut firing = 0;
    for row in &rows {
        firing += usize::from(TRIGGERS.contains(&(row.try_get(0)?, row.try_get(1)?)));
    }
    Ok(firing)
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
        assert!(CREATE.contains(PREFIX));
        assert!(TRIGGERS.iter().all(|(name, event)| {
            CREATE.contains(&format!("CREATE EVENT TRIGGER {name} ON {event}"))
        }));
    }
}
