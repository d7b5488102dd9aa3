//! What `pgoutput` says (manual, "Logical Replication Message Formats").

/// A table (or its partition root) as the stream announces it before its first change
/// and after every change of its shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// The table's OID, by which row changes name it.
    pub id: u32,
    /// The schema; never empty (the stream's empty name for `pg_catalog` is filled in).
    pub namespace: Box<str>,
    /// The table.
    pub name: Box<str>,
    /// Which old values UPDATE and DELETE carry.
    pub identity: ReplicaIdentity,
    /// The columns, in the order of the tuples.
    pub columns: Vec<RelationColumn>,
}

/// A column of a [`Relation`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelationColumn {
    /// Whether it is part of the replica identity's key (under FULL: every column).
    pub key: bool,
    /// Its name.
    pub name: Box<str>,
    /// The OID of its type.
    pub type_id: u32,
    /// Its type modifier (`atttypmod`), -1 for none.
    pub type_modifier: i32,
}

/// Which old values a table's UPDATE and DELETE carry (manual, `REPLICA IDENTITY`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReplicaIdentity {
    /// The primary key's.
    Default,
    /// None.
    Nothing,
    /// All.
    Full,
    /// Those of a unique index over NOT NULL columns.
    Index,
}

/// One column of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// SQL NULL. In an [`OldTuple::Key`] also every column outside of the key.
    Null,
    /// A TOASTed value that the UPDATE did not touch: the old row's, not sent.
    Unchanged,
    /// In the type's text form.
    Text(&'a [u8]),
    /// In the type's binary form (only when asked for by `binary`).
    Binary(&'a [u8]),
}

/// The old row of an UPDATE or DELETE, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldTuple<'a> {
    /// Only the replica identity's columns hold values.
    Key(Tuple<'a>),
    /// The whole row (REPLICA IDENTITY FULL).
    Full(Tuple<'a>),
}

/// A row: as many values as its [`Relation`] has columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple<'a> {
    columns: u16,
    body: &'a [u8],
}
