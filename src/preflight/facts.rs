//! What a look at the server gives: everything that the findings and the set-up rest on.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::config::model::Config;
use crate::mapping::Mapping;
use crate::mapping::name::TableName;
use crate::postgres::announce;
use crate::postgres::catalog::{Catalog, Table};
use crate::postgres::client::SqlClient;
use crate::postgres::error::PgError;
use crate::postgres::publication::Publication;
use crate::postgres::server::ServerFacts;
use crate::postgres::slot::SlotState;

/// Everything that was found.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The server.
    pub server: ServerFacts,
    /// The database and what the two roles may do in it.
    pub database: Database,
    /// The daemon's role.
    pub role: Role,
    /// The role of the connection that looked.
    pub own: Own,
    /// The publication's name.
    pub publication_name: String,
    /// The publication, if there is one.
    pub publication: Option<Publication>,
    /// Its owner.
    pub publication_owner: Option<String>,
    /// Published tables on which the server refuses UPDATE and DELETE, and whether it does so
    /// although the whole row is their identity.
    pub without_identity: Vec<(TableName, bool)>,
    /// The slot's name.
    pub slot_name: String,
    /// The slot, if there is one.
    pub slot: Option<SlotState>,
    /// How many slots there are.
    pub slots: u32,
    /// How many walsenders run.
    pub senders: u32,
    /// Event triggers tell of what changes beside the stream.
    pub announced: bool,
    /// `postgres.failover`
    pub failover_wanted: bool,
    /// `idle_replication_slot_timeout`, if there is one (Postgres 18 and later).
    pub idle_timeout: Option<String>,
    /// `max_slot_wal_keep_size` limits what a slot may hold back.
    pub slot_limited: bool,
    /// The mapping's tables, in its order; `None` for one that the database lacks.
    pub mapped: Vec<(TableName, Option<u32>)>,
    /// Tables by their OID: the mapped ones, and what else was asked for.
    pub catalog: Catalog,
    /// `[caches] timezone` is one that the server knows.
    pub timezone_known: bool,
}

/// A database.
#[derive(Debug, Clone)]
pub struct Database {
    /// Its name.
    pub name: String,
    /// Its owner.
    pub owner: String,
    /// The most bytes that a character takes in its encoding.
    pub character_bytes: usize,
}

/// The daemon's role.
#[derive(Debug, Clone)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// There is such a role.
    pub exists: bool,
    /// LOGIN
    pub login: bool,
    /// REPLICATION, or superuser, or what the server's provider has in its place.
    pub replication: bool,
    /// The server's provider gives REPLICATION by membership in this role: nobody may set
    /// the attribute (Amazon RDS and Aurora).
    pub replication_by: Option<String>,
    /// CONNECT on the database.
    pub connect: bool,
    /// TEMPORARY on the database.
    pub temporary: bool,
    /// Of the functions that write a heartbeat, those that it may not execute, with their
    /// arguments.
    pub no_heartbeat: Vec<String>,
}

/// The role of this connection.
#[derive(Debug, Clone)]
pub struct Own {
    /// Its name.
    pub name: String,
    /// May do anything.
    pub superuser: bool,
    /// CREATE on the database.
    pub create: bool,
    /// TEMPORARY on the database.
    pub temporary: bool,
    /// The roles whose rights it has, itself among them.
    pub acts_as: BTreeSet<String>,
}

const ROLES: &str = "\
SELECT d.datname::text, pg_get_userbyid(d.datdba)::text, pg_encoding_max_length(d.encoding),
       r.oid IS NOT NULL, coalesce(r.rolcanlogin, false),
       coalesce(r.rolreplication OR r.rolsuper OR pg_has_role(r.oid, by.oid, 'USAGE'), false),
       coalesce(has_database_privilege(r.oid, d.oid, 'CONNECT'), false),
       coalesce(has_database_privilege(r.oid, d.oid, 'TEMPORARY'), false),
       own.rolname::text, own.rolsuper,
       has_database_privilege(d.oid, 'CREATE'), has_database_privilege(d.oid, 'TEMPORARY'),
       ARRAY(SELECT m.rolname::text FROM pg_catalog.pg_roles m WHERE pg_has_role(m.oid, 'USAGE')),
       by.rolname::text,
       ARRAY(SELECT p.oid::regprocedure::text FROM pg_catalog.pg_proc p
              WHERE p.proname = 'pg_logical_emit_message' AND p.proargtypes[2] = 'text'::regtype
                AND NOT coalesce(has_function_privilege(r.oid, p.oid, 'EXECUTE'), true))
  FROM pg_catalog.pg_database d
  JOIN pg_catalog.pg_roles own ON own.rolname = current_user
  LEFT JOIN pg_catalog.pg_roles r ON r.rolname = $1::text::name
  LEFT JOIN pg_catalog.pg_roles by ON by.rolname = 'rds_replication'
 WHERE d.datname = current_database()";

const REPLICATION: &str = "\
SELECT (SELECT count(*) FROM pg_catalog.pg_replication_slots)::int8,
       (SELECT count(*) FROM pg_catalog.pg_stat_replication)::int8,
       current_setting('max_slot_wal_keep_size') <> '-1',
       (SELECT pg_get_userbyid(pubowner)::text FROM pg_catalog.pg_publication
         WHERE pubname = $1::text::name),
       nullif(current_setting('idle_replication_slot_timeout', true), '0')";

const WITHOUT_IDENTITY: &str = "\
WITH published AS (
    SELECT c.oid
      FROM pg_catalog.pg_publication_tables p
      JOIN pg_catalog.pg_namespace n ON n.nspname = p.schemaname
      JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
     WHERE p.pubname = $1::text::name
), holding AS (
    SELECT oid FROM published
    UNION
    SELECT tree.relid FROM published, pg_partition_tree(published.oid) tree
)
SELECT n.nspname::text, c.relname::text, c.relreplident = 'f'
  FROM holding
  JOIN pg_catalog.pg_class c ON c.oid = holding.oid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i
                    WHERE i.indrelid = c.oid AND i.indisvalid
                      AND CASE c.relreplident
                          WHEN 'd' THEN i.indisprimary AND i.indimmediate
                          WHEN 'i' THEN i.indisreplident END)
   AND (c.relreplident <> 'f' OR EXISTS (
          SELECT FROM pg_catalog.pg_attribute a, pg_catalog.pg_publication p
           WHERE a.attrelid = c.oid AND NOT a.attisdropped AND p.pubname = $1::text::name
             AND current_setting('server_version_num')::int >= 180000
             AND (a.attgenerated = 'v'
                  OR a.attgenerated = 's' AND to_jsonb(p) ->> 'pubgencols' <> 's')))
 ORDER BY 1, 2";

impl Facts {
    /// Looks at the server. `role` is the daemon's; the connection may be another's.
    pub async fn read(
        client: &SqlClient,
        config: &Config,
        mapping: &Mapping,
        role: &str,
    ) -> Result<Facts, PgError> {
        let server = ServerFacts::read(client).await?;
        let row = client.query_one(ROLES, &[&role]).await.map_err(during)?;
        let character: i32 = row.try_get(2)?;
        let database = Database {
            name: row.try_get(0)?,
            owner: row.try_get(1)?,
            character_bytes: usize::try_from(character).unwrap_or(4).max(1),
        };
        let found = Role {
            name: role.to_owned(),
            exists: row.try_get(3)?,
            login: row.try_get(4)?,
            replication: row.try_get(5)?,
            replication_by: row.try_get(13)?,
            connect: row.try_get(6)?,
            temporary: row.try_get(7)?,
            no_heartbeat: match config.postgres.heartbeat.get() {
                Duration::ZERO => Vec::new(),
                _ => row.try_get(14)?,
            },
        };
        let own = Own {
            name: row.try_get(8)?,
            superuser: row.try_get(9)?,
            create: row.try_get(10)?,
            temporary: row.try_get(11)?,
            acts_as: row.try_get::<_, Vec<String>>(12)?.into_iter().collect(),
        };
        let publication_name = config.postgres.publication.clone();
        let row = client.query_one(REPLICATION, &[&publication_name]).await.map_err(during)?;
        let count = |n: i64| u32::try_from(n).unwrap_or(u32::MAX);
        let without = client.query(WITHOUT_IDENTITY, &[&publication_name]).await.map_err(during)?;
        let names: Vec<TableName> = mapping.tables().map(|(_, table)| table.name.clone()).collect();
        let numbers = Catalog::numbers(client, &names).await?;
        let known: Vec<u32> = numbers.iter().flatten().copied().collect();
        let publication = Publication::read(client, &publication_name).await?;
        let mut catalog = Catalog::read(client, &known, role).await?;
        let unpublished = publication.as_ref().is_some_and(|publication| !publication.generated);
        for table in catalog.tables.values_mut().filter(|_| server.version_num >= 180_000) {
            table.refuses_full = table.has_computed() || unpublished && table.has_stored();
        }
        Ok(Facts {
            server,
            database,
            role: found,
            own,
            publication,
            publication_name,
            publication_owner: row.try_get(3)?,
            without_identity: without
                .iter()
                .map(|row| Ok((TableName::new(row.try_get(0)?, row.try_get(1)?), row.try_get(2)?)))
                .collect::<Result<_, tokio_postgres::Error>>()?,
            slot: SlotState::read(client, &config.postgres.slot).await?,
            slot_name: config.postgres.slot.clone(),
            announced: announce::triggers(client).await? == announce::TRIGGERS.len(),
            slots: count(row.try_get(0)?),
            senders: count(row.try_get(1)?),
            slot_limited: row.try_get(2)?,
            failover_wanted: config.postgres.failover,
            idle_timeout: row.try_get(4)?,
            mapped: names.into_iter().zip(numbers).collect(),
            catalog,
            timezone_known: timezone_known(client, &config.caches.timezone).await?,
        })
    }

    /// The mapped tables that are there.
    pub fn tables(&self) -> impl Iterator<Item = &Table> {
        self.mapped.iter().filter_map(|(_, oid)| self.catalog.tables.get(&(*oid)?))
    }
}

async fn timezone_known(client: &SqlClient, name: &str) -> Result<bool, PgError> {
    match client.query_one("SELECT now() AT TIME ZONE $1::text", &[&name]).await {
        Ok(_) => Ok(true),
        Err(error)
            if error.code() == Some(&tokio_postgres::error::SqlState::INVALID_PARAMETER_VALUE) =>
        {
            Ok(false)
        }
        Err(error) => Err(during(error)),
    }
}

fn during(error: tokio_postgres::Error) -> PgError {
    PgError::from(error).during("looking at the server")
}
