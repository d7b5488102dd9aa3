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
//! - [`Announced::Publication`]: what is streamed may be something else, by an altered publication or by
//!   an altered table (another's name, another schema, UNLOGGED). Before the watermark passes that
//!   commit, the catalog is compared with what is streamed. Every change that is not streamed for it
//!   commits further on in the WAL, so nothing counts as fresh that lacks one. While that commit is
//!   written and nobody sees it yet (it waits for a synchronous standby), others may write what is not
//!   streamed any more, and the catalog does not tell: so nothing is certified until it is visible.
//!
//! What an event trigger is not told of is left to the looks: TRUNCATE of a single partition, DROP
//! TABLE of one (its parent is forgotten by then), NO INHERIT. DETACH … CONCURRENTLY hides the rows by a
//! first transaction, and is told of by its second. No event trigger fires where a superuser has set
//! `event_triggers = off` (from Postgres 17 on) or in single-user mode.
//!
//! Only a superuser may make one, so it is optional, and it is looked all the same. Its functions run
//! with the rights of who made them: whoever may alter a table need not be allowed to write messages, and
//! must not fail for it. Anybody who may write messages (PUBLIC, unless that was revoked) may write one of
//! these: he drops what need not be dropped, or has the catalog read once more; nothing stale comes of
//! it. What it holds is taken for numbers of tables, and nothing else.

use super::client::SqlClient;
use super::error::PgError;
use crate::pgoutput::message::LogicalMessage;

/// Whom a message is for that tells of tables.
const REWRITTEN: &str = "unstale.rewrite";

/// And of publications.
const PUBLICATION: &str = "unstale.publication";

/// The functions of the event triggers.
pub const FUNCTIONS: [&str; 2] = ["unstale_table_rewrite()", "unstale_publication_change()"];

/// An event trigger.
#[derive(Debug)]
pub struct Trigger {
    /// Its name.
    pub name: &'static str,
    event: &'static str,
    /// The commands that it is for; none: all.
    tags: &'static [&'static str],
}

/// The event triggers.
pub const TRIGGERS: [Trigger; 4] = [
    Trigger { name: "unstale_table_rewrite", event: "table_rewrite", tags: &[] },
    Trigger { name: "unstale_table_parts", event: "ddl_command_end", tags: &["ALTER TABLE"] },
    Trigger {
        name: "unstale_publication",
        event: "ddl_command_end",
        tags: &[
            "ALTER PUBLICATION",
            "ALTER SCHEMA",
            "ALTER TABLE",
            "CREATE PUBLICATION",
            "CREATE TABLE",
        ],
    },
    Trigger { name: "unstale_publication_part", event: "sql_drop", tags: &[] },
];

/// Makes the functions, in a schema that the caller sets, and the triggers. May be run again. A
/// message of a table holds all that it is a partition or a child of, too.
pub const CREATE: &str = include_str!("../../sql/event_triggers.sql");

/// What a message of ours tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announced<'a> {
    /// These tables hold other rows. See [`tables`].
    Rewritten(&'a [u8]),
    /// What is published may be something else.
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

/// The bodies of the [`FUNCTIONS`].
fn bodies() -> impl Iterator<Item = &'static str> {
    CREATE.split("$unstale$").skip(1).step_by(2)
}

/// How many of the [`TRIGGERS`] are there as [`CREATE`] makes them, and fire whatever is set.
pub async fn triggers(client: &SqlClient) -> Result<usize, PgError> {
    const FIRING: &str = "\
SELECT t.evtname::text, t.evtevent::text, coalesce(t.evttags, '{}')
  FROM pg_catalog.pg_event_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.evtfoid
 WHERE t.evtenabled = 'A' AND p.prosecdef AND p.prosrc = ANY ($1)";
    let bodies: Vec<&str> = bodies().collect();
    let rows = client
        .query(FIRING, &[&bodies])
        .await
        .map_err(|error| PgError::from(error).during("looking for the event triggers"))?;
    let mut firing = 0;
    for row in &rows {
        let (name, event): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let mut tags: Vec<String> = row.try_get(2)?;
        tags.sort();
        firing += usize::from(TRIGGERS.iter().any(|trigger| {
            trigger.name == name && trigger.event == event && tags.iter().eq(trigger.tags)
        }));
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
        for Trigger { name, event, tags } in &TRIGGERS {
            assert!(CREATE.contains(&format!("CREATE EVENT TRIGGER {name} ON {event}")));
            assert!(CREATE.contains(&format!("ALTER EVENT TRIGGER {name} ENABLE ALWAYS")));
            assert!(CREATE.contains(&tags.join("', '")), "{tags:?}");
            assert!(tags.is_sorted());
        }
        assert_eq!(CREATE.matches("CREATE EVENT TRIGGER").count(), TRIGGERS.len());
        assert_eq!(CREATE.matches("CREATE FUNCTION").count(), FUNCTIONS.len());
        assert_eq!(bodies().count(), FUNCTIONS.len());
        assert!(FUNCTIONS.iter().all(|name| CREATE.contains(&format!("CREATE FUNCTION {name}"))));
    }
}
