//! What the catalog says of tables: their columns, unique indexes, replica identity,
//! partitions, and what a role may do with them.

use std::collections::{BTreeMap, BTreeSet};

use super::client::SqlClient;
use super::error::PgError;
use crate::mapping::name::TableName;
use crate::pgoutput::message::ReplicaIdentity;

/// Tables by their OID.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// The tables that were asked for, the roots of those that are partitions, and all below
    /// them.
    pub tables: BTreeMap<u32, Table>,
}

/// What a relation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An ordinary table, or a partition that holds rows.
    Table,
    /// A partitioned table, which holds none itself.
    Partitioned,
    /// A view.
    View,
    /// A materialized view: it changes by REFRESH, which no stream carries.
    MaterializedView,
    /// A foreign table: its changes are another server's.
    Foreign,
    /// Anything else.
    Other,
}

/// A table.
#[derive(Debug, Clone)]
pub struct Table {
    /// Its OID.
    pub oid: u32,
    /// Its name.
    pub name: TableName,
    /// What it is.
    pub kind: Kind,
    /// UNLOGGED or temporary: nothing of it is written to the WAL.
    pub unlogged: bool,
    /// Its owner.
    pub owner: String,
    /// `REPLICA IDENTITY`, as it was set.
    pub identity: ReplicaIdentity,
    /// The server refuses UPDATE and DELETE while the whole row is the identity: it has
    /// generated columns that are not published (Postgres 18 and later).
    pub refuses_full: bool,
    /// Its columns, without dropped ones.
    pub columns: Vec<Column>,
    /// Its indexes.
    pub indexes: Vec<Index>,
    /// The topmost table that it is a partition of.
    pub root: Option<u32>,
    /// Of a partitioned table: every table below it. Of another: its children by INHERITS.
    pub below: Vec<u32>,
    /// Tables that a foreign key of this one references, each with the key's columns.
    pub references: Vec<(u32, BTreeSet<i16>)>,
    /// What the daemon's role may do.
    pub role: TableRights,
    /// What this connection's role may do.
    pub own: TableRights,
}

/// What a role may do with a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableRights {
    /// SELECT on all of it.
    pub select: bool,
    /// USAGE of its schema.
    pub schema_usage: bool,
    /// CREATE in its schema, which an index needs.
    pub schema_create: bool,
    /// It owns the table, or is a member of the role that does.
    pub owns: bool,
    /// Row-level security may hide rows from it.
    pub rows_hidden: bool,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its number.
    pub number: i16,
    /// Its name.
    pub name: String,
    /// Its type's OID.
    pub type_id: u32,
    /// The schema and the name of its type.
    pub type_name: (String, String),
    /// Its type is an enum.
    pub is_enum: bool,
    /// Its type modifier, -1 for none.
    pub type_modifier: i32,
    /// NOT NULL
    pub not_null: bool,
    /// Of a generated column: the columns that it is computed from. Not streamed, unless it is
    /// stored and the publication says so (Postgres 18).
    pub generated_from: Option<Vec<i16>>,
    /// Generated when it is read (`VIRTUAL`, Postgres 18): never streamed.
    pub computed: bool,
}

/// An index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// Its name, in its table's schema.
    pub name: String,
    /// Its key columns by number, 0 for an expression; without INCLUDE.
    pub columns: Vec<i16>,
    /// UNIQUE
    pub unique: bool,
    /// The primary key's.
    pub primary: bool,
    /// Built completely.
    pub valid: bool,
    /// Checked at each row: not DEFERRABLE.
    pub immediate: bool,
    /// Has a WHERE.
    pub partial: bool,
    /// Is meant by REPLICA IDENTITY USING INDEX.
    pub identity: bool,
}

impl Table {
    /// Whether it has generated columns that are stored.
    #[must_use]
    pub fn has_stored(&self) -> bool {
        self.columns.iter().any(|column| column.generated_from.is_some() && !column.computed)
    }

    /// Whether it has generated columns that no publication can carry.
    #[must_use]
    pub fn has_computed(&self) -> bool {
        self.columns.iter().any(|column| column.computed)
    }

    /// A column by its name.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// A column by its number.
    #[must_use]
    pub fn column_numbered(&self, number: i16) -> Option<&Column> {
        self.columns.iter().find(|column| column.number == number)
    }
}

const NUMBERS: &str = "\
SELECT c.oid
  FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS asked (schema, name, position)
  LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = asked.schema
  LEFT JOIN pg_catalog.pg_class c
    ON c.relnamespace = n.oid AND c.relname = asked.name AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
 ORDER BY asked.position";

const TABLES: &str = "\
WITH RECURSIVE below (top, oid) AS (
    SELECT seed, seed
      FROM unnest($1::oid[]) AS asked (oid),
           unnest(ARRAY[asked.oid, pg_partition_root(asked.oid)::oid]) AS seed
     WHERE seed IS NOT NULL
    UNION
    SELECT below.top, i.inhrelid FROM below JOIN pg_catalog.pg_inherits i ON i.inhparent = below.oid
), role AS (
    SELECT r.oid, r.rolname, r.rolsuper OR r.rolbypassrls AS sees_all, r.rolname = current_user AS own
      FROM pg_catalog.pg_roles r WHERE r.rolname IN ($2::text::name, current_user)
), rights AS (
    SELECT c.oid, role.rolname, role.own,
           has_table_privilege(role.oid, c.oid, 'SELECT') AS may_select,
           has_schema_privilege(role.oid, c.relnamespace, 'USAGE') AS may_use,
           has_schema_privilege(role.oid, c.relnamespace, 'CREATE') AS may_create,
           pg_has_role(role.oid, c.relowner, 'USAGE') AS owns,
           c.relrowsecurity AND NOT role.sees_all
             AND (c.relforcerowsecurity OR NOT pg_has_role(role.oid, c.relowner, 'USAGE')) AS hidden
      FROM pg_catalog.pg_class c, role
)
SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence <> 'p',
       pg_get_userbyid(c.relowner)::text, c.relreplident::text,
       CASE WHEN c.relispartition THEN pg_partition_root(c.oid)::oid END,
       ARRAY(SELECT b.oid FROM below b WHERE b.top = c.oid AND b.oid <> c.oid ORDER BY b.oid),
       coalesce(named.may_select, false), coalesce(named.may_use, false),
       coalesce(named.may_create, false), coalesce(named.owns, false), coalesce(named.hidden, false),
       own.may_select, own.may_use, own.may_create, own.owns, own.hidden
  FROM (SELECT DISTINCT oid FROM below) b
  JOIN pg_catalog.pg_class c ON c.oid = b.oid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN rights named ON named.oid = c.oid AND named.rolname = $2::text::name
  JOIN rights own ON own.oid = c.oid AND own.own
 ORDER BY c.oid";

const COLUMNS: &str = "\
SELECT a.attrelid, a.attnum, a.attname::text, a.atttypid, tn.nspname::text, t.typname::text,
       t.typtype = 'e', a.atttypmod, a.attnotnull,
       CASE WHEN a.attgenerated <> '' THEN ARRAY(
           SELECT DISTINCT d.refobjsubid::int2
             FROM pg_catalog.pg_attrdef e
             JOIN pg_catalog.pg_depend d
               ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.objid = e.oid
              AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = a.attrelid
            WHERE e.adrelid = a.attrelid AND e.adnum = a.attnum
              AND d.refobjsubid NOT IN (0, a.attnum)) END,
       a.attgenerated = 'v'
  FROM pg_catalog.pg_attribute a
  JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
  JOIN pg_catalog.pg_namespace tn ON tn.oid = t.typnamespace
 WHERE a.attrelid = ANY ($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY a.attrelid, a.attnum";

const INDEXES: &str = "\
SELECT i.indrelid, c.relname::text,
       ARRAY(SELECT k FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS key (k, position)
              WHERE position <= i.indnkeyatts ORDER BY position),
       i.indisunique, i.indisprimary, i.indisvalid, i.indimmediate, i.indpred IS NOT NULL,
       i.indisreplident
  FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
 WHERE i.indrelid = ANY ($1::oid[])
 ORDER BY i.indrelid, c.relname COLLATE \"C\"";

const REFERENCES: &str = "\
SELECT conrelid, confrelid, conkey FROM pg_catalog.pg_constraint
 WHERE contype = 'f' AND convalidated AND conrelid = ANY ($1::oid[])";

impl Catalog {
    /// The OIDs of tables by name, in the same order; `None` where there is no such table.
    pub async fn numbers<'n>(
        client: &SqlClient,
        names: impl IntoIterator<Item = &'n TableName>,
    ) -> Result<Vec<Option<u32>>, PgError> {
        let (schemas, tables): (Vec<&str>, Vec<&str>) =
            names.into_iter().map(|name| (&*name.schema, &*name.table)).unzip();
        let rows = client.query(NUMBERS, &[&schemas, &tables]).await.map_err(during)?;
        Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
    }

    /// Reads tables, the roots of partitions, and everything below them. `role` need not exist: it may do nothing then.
    pub async fn read(client: &SqlClient, oids: &[u32], role: &str) -> Result<Catalog, PgError> {
        let mut catalog = Catalog::default();
        for row in client.query(TABLES, &[&oids, &role]).await.map_err(during)? {
            let rights = |first: usize| -> Result<TableRights, tokio_postgres::Error> {
                Ok(TableRights {
                    select: row.try_get(first)?,
                    schema_usage: row.try_get(first + 1)?,
                    schema_create: row.try_get(first + 2)?,
                    owns: row.try_get(first + 3)?,
                    rows_hidden: row.try_get(first + 4)?,
                })
            };
            let oid = row.try_get(0)?;
            let table = Table {
                oid,
                name: TableName::new(row.try_get(1)?, row.try_get(2)?),
                kind: match row.try_get(3)? {
                    "r" => Kind::Table,
                    "p" => Kind::Partitioned,
                    "v" => Kind::View,
                    "m" => Kind::MaterializedView,
                    "f" => Kind::Foreign,
                    _ => Kind::Other,
                },
                unlogged: row.try_get(4)?,
                owner: row.try_get(5)?,
                identity: match row.try_get(6)? {
                    "f" => ReplicaIdentity::Full,
                    "i" => ReplicaIdentity::Index,
                    "n" => ReplicaIdentity::Nothing,
                    _ => ReplicaIdentity::Default,
                },
                refuses_full: false,
                columns: Vec::new(),
                indexes: Vec::new(),
                root: row.try_get(7)?,
                below: row.try_get(8)?,
                references: Vec::new(),
                role: rights(9)?,
                own: rights(14)?,
            };
            catalog.tables.insert(oid, table);
        }
        catalog.read_parts(client).await?;
        Ok(catalog)
    }

    async fn read_parts(&mut self, client: &SqlClient) -> Result<(), PgError> {
        let oids: Vec<u32> = self.tables.keys().copied().collect();
        for row in client.query(COLUMNS, &[&oids]).await.map_err(during)? {
            let Some(table) = self.tables.get_mut(&row.try_get(0)?) else { continue };
            table.columns.push(Column {
                number: row.try_get(1)?,
                name: row.try_get(2)?,
                type_id: row.try_get(3)?,
                type_name: (row.try_get(4)?, row.try_get(5)?),
                is_enum: row.try_get(6)?,
                type_modifier: row.try_get(7)?,
                not_null: row.try_get(8)?,
                generated_from: row.try_get(9)?,
                computed: row.try_get(10)?,
            });
        }
        for row in client.query(INDEXES, &[&oids]).await.map_err(during)? {
            let Some(table) = self.tables.get_mut(&row.try_get(0)?) else { continue };
            table.indexes.push(Index {
                name: row.try_get(1)?,
                columns: row.try_get(2)?,
                unique: row.try_get(3)?,
                primary: row.try_get(4)?,
                valid: row.try_get(5)?,
                immediate: row.try_get(6)?,
                partial: row.try_get(7)?,
                identity: row.try_get(8)?,
            });
        }
        for row in client.query(REFERENCES, &[&oids]).await.map_err(during)? {
            let Some(table) = self.tables.get_mut(&row.try_get(0)?) else { continue };
            let columns: Vec<i16> = row.try_get(2)?;
            table.references.push((row.try_get(1)?, columns.into_iter().collect()));
        }
        Ok(())
    }

    /// A table by its name.
    #[must_use]
    pub fn by_name(&self, name: &TableName) -> Option<&Table> {
        self.tables.values().find(|table| table.name == *name)
    }

    /// The tables below a table that hold rows.
    pub fn leaves<'c>(&'c self, table: &'c Table) -> impl Iterator<Item = &'c Table> {
        table
            .below
            .iter()
            .filter_map(|oid| self.tables.get(oid))
            .filter(|table| table.kind != Kind::Partitioned)
    }
}

fn during(error: tokio_postgres::Error) -> PgError {
    PgError::from(error).during("reading the catalog")
}
