//! A table's shape from the catalog, as the stream would announce it before the table's
//! next change: for whoever asks before there is one.

use super::client::SqlClient;
use super::error::PgError;
use crate::pgoutput::message::{Relation, RelationColumn, ReplicaIdentity};

/// A table as the catalog has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableShape {
    /// What the stream's Relation message says.
    pub relation: Relation,
    /// Each column's type as SQL, for this session: `numeric(12,2)`. As long as
    /// `relation.columns`.
    pub declared: Vec<String>,
    /// The columns of the primary key, in the table's order; none without one.
    pub primary_key: Vec<Box<str>>,
    /// What the stream's Type messages say of columns whose type is not built in.
    pub types: Vec<NamedType>,
    /// The topmost partitioned table that this is a partition of, as schema and name.
    pub partition_of: Option<(String, String)>,
    /// It is a partitioned table: old values follow each partition's own identity.
    pub is_partitioned: bool,
}

/// The name of a type that is not built in; of a domain that of its base type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedType {
    /// The type's OID, as [`RelationColumn::type_id`] names it.
    pub oid: u32,
    /// The schema.
    pub schema: String,
    /// The name.
    pub name: String,
}

/// What the server's own source reserves for built-in objects (`FirstGenbkiObjectId`):
/// types below it are not announced.
const FIRST_USER_DEFINED: u32 = 10_000;

const TABLE: &str = "\
SELECT c.oid, c.relreplident::text, c.relkind = 'p', rn.nspname::text, r.relname::text
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_class r
    ON c.relispartition AND r.oid = pg_catalog.pg_partition_root(c.oid)
  LEFT JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace
 WHERE n.nspname = $1::text::name AND c.relname = $2::text::name AND c.relkind IN ('r', 'p')";

// What pgoutput sends: no dropped columns, no generated ones. Of an index only its key
// columns count, what it INCLUDEs does not; a deferrable primary key identifies no row.
const COLUMNS: &str = "\
SELECT a.attname::text, a.atttypid, a.atttypmod,
       pg_catalog.format_type(a.atttypid, a.atttypmod),
       coalesce(a.attnum = ANY ((p.indkey::int2[])[0:p.indnkeyatts - 1]), false),
       coalesce(a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]), false),
       b.schema, b.name
  FROM pg_catalog.pg_attribute a
  LEFT JOIN pg_catalog.pg_index p
    ON p.indrelid = a.attrelid AND p.indisprimary AND p.indisvalid AND p.indimmediate
  LEFT JOIN pg_catalog.pg_index i ON i.indrelid = a.attrelid AND i.indisreplident
  LEFT JOIN LATERAL (
         WITH RECURSIVE base AS (
           SELECT t.* FROM pg_catalog.pg_type t WHERE t.oid = a.atttypid
           UNION ALL
           SELECT t.* FROM base JOIN pg_catalog.pg_type t ON t.oid = base.typbasetype
            WHERE base.typtype = 'd')
         SELECT tn.nspname::text AS schema, base.typname::text AS name
           FROM base JOIN pg_catalog.pg_namespace tn ON tn.oid = base.typnamespace
          WHERE base.typtype <> 'd') b ON true
 WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
 ORDER BY a.attnum";

impl TableShape {
    /// Looks for a table (also a partitioned one) by the names that the catalog holds.
    pub async fn read(
        client: &SqlClient,
        schema: &str,
        name: &str,
    ) -> Result<Option<TableShape>, PgError> {
        let during = |error| PgError::from(error).during("reading the table's shape");
        let Some(table) = client.query_opt(TABLE, &[&schema, &name]).await.map_err(during)? else {
            return Ok(None);
        };
        let oid: u32 = table.try_get(0)?;
        let identity: &str = table.try_get(1)?;
        let identity = match identity {
            "n" => ReplicaIdentity::Nothing,
            "f" => ReplicaIdentity::Full,
            "i" => ReplicaIdentity::Index,
            _ => ReplicaIdentity::Default,
        };
        let root: Option<String> = table.try_get(3)?;
        let mut shape = TableShape {
            relation: Relation {
                id: oid,
                namespace: schema.into(),
                name: name.into(),
                identity,
                columns: Vec::new(),
            },
            declared: Vec::new(),
            primary_key: Vec::new(),
            types: Vec::new(),
            partition_of: root.zip(table.try_get(4)?),
            is_partitioned: table.try_get(2)?,
        };
        for row in client.query(COLUMNS, &[&oid]).await.map_err(during)? {
            let (name, type_id): (&str, u32) = (row.try_get(0)?, row.try_get(1)?);
            let (primary, replica): (bool, bool) = (row.try_get(4)?, row.try_get(5)?);
            if primary {
                shape.primary_key.push(name.into());
            }
            if type_id >= FIRST_USER_DEFINED {
                let base: (Option<String>, Option<String>) = (row.try_get(6)?, row.try_get(7)?);
                if let (Some(schema), Some(name)) = base {
                    shape.types.push(NamedType { oid: type_id, schema, name });
                }
            }
            shape.declared.push(row.try_get(3)?);
            shape.relation.columns.push(RelationColumn {
                key: match identity {
                    ReplicaIdentity::Default => primary,
                    ReplicaIdentity::Nothing => false,
                    ReplicaIdentity::Full => true,
                    ReplicaIdentity::Index => replica,
                },
                name: name.into(),
                type_id,
                type_modifier: row.try_get(2)?,
            });
        }
        Ok(Some(shape))
    }
}
