//! The names of types, by OID: built-in ones by heart, others from the stream.

use std::collections::HashMap;

use tokio_postgres::types::Type;

use super::name::{Quoted, TableName};

/// What the stream's Type messages have said so far. pgoutput sends them before the
/// Relation that uses a type which is not built in.
#[derive(Debug, Clone, Default)]
pub struct TypeNames {
    user_defined: HashMap<u32, TableName>,
}

impl TypeNames {
    /// Notes a Type message.
    pub fn insert(&mut self, oid: u32, schema: &str, name: &str) {
        self.user_defined.insert(oid, TableName::new(schema, name));
    }

    /// The type as SQL text that does not depend on `search_path`; `None` if it was never
    /// announced.
    #[must_use]
    pub fn sql_name(&self, oid: u32) -> Option<String> {
        match Type::from_oid(oid) {
            // Quoted, since pg_catalog."char" is another type than char.
            Some(builtin) => Some(format!("pg_catalog.{}", Quoted(builtin.name()))),
            None => self.user_defined.get(&oid).map(TableName::qualified),
        }
    }

    /// The name alone of a type that is not built in.
    pub(super) fn bare_name(&self, oid: u32) -> Option<&str> {
        self.user_defined.get(&oid).map(|name| &*name.table)
    }
}
