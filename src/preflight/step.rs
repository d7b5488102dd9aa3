//! A statement of the set-up.

/// One statement, and how it must be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What it is for, in a few words.
    pub why: String,
    /// The statement, without a semicolon.
    pub sql: String,
    /// How it must be run.
    pub how: How,
    /// Whom the server lets run it.
    pub by: By,
}

/// How a statement must be run, so that the application never waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// As it is.
    AtOnce,
    /// As it is; and if it cannot be, nothing that follows may be.
    First,
    /// Builds or drops an index beside the application's work: outside of a transaction,
    /// for as long as it takes.
    Concurrently {
        /// The index, in SQL: left behind invalid when it fails.
        index: String,
        /// Drops it, rather than creating it.
        drops: bool,
    },
    /// Takes a lock that shuts everybody out: waits for it a moment only, and again and
    /// again, since those who come later would stand in line behind it.
    Briefly {
        /// The table, in SQL.
        table: String,
    },
    /// Creates the publication; a script asks first whether there is one.
    CreatePublication,
    /// Adds a table to the publication; a script asks first whether it is in.
    AddTable {
        /// The schema, as the catalog has it.
        schema: String,
        /// The table, as the catalog has it.
        table: String,
    },
}

/// Whom the server lets run a statement (superusers always).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// A superuser only.
    Superuser,
    /// The owner of something.
    Owner(String),
    /// The owner of the database, or whoever may grant it.
    DatabaseOwner,
}
