//! The event triggers that tell in the stream itself of what it does not carry.
//!
//! `ALTER TABLE … TYPE … USING` changes every row, ATTACH and DETACH PARTITION bring and take
//! rows, and no row is sent. A table that leaves the publication goes on being written to, and none
//! of that is sent. Without help the daemon finds out by the tables' files and ties
//! ([`storage`](super::storage)) and by the catalog ([`publication`](super::publication)), a second or
//! so later. An event trigger runs in the same transaction: the message that it writes comes with the
//! commit, and goes through the gate with it.
//!
//! - [`Announced::Rewritten`]: what depends on the tables goes like by any other change.
//! - [`Announced::Publication`]: before the watermark passes that commit, the publication is compared
//!   with the one that is streamed. Every change that is not streamed for it commits further on in the
//!   WAL, so nothing counts as fresh that lacks one.
//!
//! What an event trigger is not told of is left to the looks: TRUNCATE of a single partition, DROP
//! TABLE of one (its parent is forgotten by then), NO INHERIT; a table that leaves a schema that is
//! published as a whole. DETACH … CONCURRENTLY hides the rows by a first transaction, and is told of
//! by its second.
//!
//! Only a superuser may make one, so it is optional, and it is looked all the same. Anybody who may
//! write to the database may write such a message: he could as well change the rows. What it holds is
//! taken for numbers of tables, and nothing else.

use super::client::SqlClient;
use super::error::PgError;
use crate::pgoutput::message::LogicalMessage;

/// Whom a message is for that tells of tables.
const REWRITTEN: &str = "unstale.rewrite";

/// And of publications.
const PUBLICATION: &str = "unstale.publication";

/// The functions of the event triggers.
pub const FUNCTIONS: [&str; 2] = ["unstale_table_rewrite()", "unstale_publication_change()"];

/// The event triggers, by name and event.
pub const TRIGGERS: [(&str, &str); 4] = [
    ("unstale_table_rewrite", "table_rewrite"),
    ("unstale_table_parts", "ddl_command_end"),
    ("unstale_publication", "ddl_command_end"),
    ("unstale_publication_part", "sql_drop"),
];

/// Makes the functions, in a schema that the caller sets, and the triggers. May be run again. A
/// message of a table holds all that it is a partition or a child of, too.
pub const CREATE: &str = include_str!("../../sql/event_triggers.sql");

/// What a message of ours tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announced<'a> {
    /// These tables hold other rows. See [`tables`].
    Rewritten(&'a [u8]),
    /// A publication is another one, or gone.
    Publication,
}

impl<'a> Announced<'a> {
    /// `None`: it is somebody else's. One outside of any transaction tells nothing of a commit.
    #[must_use]
    pub fn read(message: &LogicalMessage<'a>) -> Option<Self> {
        match message.prefix {
            _ if !message.transactional => None,
            REWRITTEN => Some(Announced::Rewritten(message.content)),
            PUBLICATION => Some(Announced::Publication),
            _ => None,
        }
    }
}

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
    }

    #[test]
    fn what_is_made_is_what_is_looked_for() {
        assert!([REWRITTEN, PUBLICATION].iter().all(|prefix| CREATE.contains(prefix)));
        assert!(TRIGGERS.iter().all(|(name, event)| {
            CREATE.contains(&format!("CREATE EVENT TRIGGER {name} ON {event}"))
        }));
        assert_eq!(CREATE.matches("CREATE EVENT TRIGGER").count(), TRIGGERS.len());
        assert_eq!(CREATE.matches("CREATE OR REPLACE FUNCTION").count(), FUNCTIONS.len());
        assert!(FUNCTIONS.iter().all(|name| CREATE.contains(&format!("FUNCTION {name}"))));
    }
}
