//! The server, the role, the slot and the publication: what is found, and what mends it.

use super::facts::Facts;
use super::finding::{Finding, Section};
use super::step::{By, How, Step};
use crate::mapping::name::Quoted;
use crate::postgres::announce;
use crate::postgres::catalog::{Kind, Table};
use crate::postgres::server::new_slots_begin_whole;

/// What the publication must carry.
const PUBLISH: &str =
    "publish = 'insert, update, delete, truncate', publish_via_partition_root = true";

/// The same for generated columns (Postgres 18 and later): unless they are published, too, a
/// table that has some may not be identified by its whole row.
const GENERATED: &str = ", publish_generated_columns = stored";

/// The server, the daemon's role and the slot.
#[must_use]
pub fn server(facts: &Facts) -> Vec<Finding> {
    const HERE: Section = Section::Postgres;
    let server = &facts.server;
    let version = format!("{}.{}", server.version_num / 10_000, server.version_num % 10_000);
    let mut found = Vec::new();
    if server.version_num < 150_000 {
        let message = format!("this is Postgres {version}: Postgres 15 or later is needed");
        found.push(Finding::problem(HERE, message).hint("upgrade the server"));
    } else if server.in_recovery {
        let message = "this server is a standby, whose snapshots do not tell what is in progress";
        found.push(Finding::problem(HERE, message).hint("let postgres.url name the primary"));
    } else {
        found.push(Finding::ok(HERE, format!("Postgres {version}, primary")));
        if !new_slots_begin_whole(server.version_num) {
            let message = format!(
                "Postgres {version} may begin a new slot in the middle of a transaction: \
                 after each gap that creates one, what was open is awaited and is a second gap"
            );
            found.push(Finding::warning(HERE, message).hint("upgrade to 15.8, 16.4 or later"));
        }
    }
    match server.wal_level.as_str() {
        "logical" => found.push(Finding::ok(HERE, "wal_level is logical")),
        level => found.push(
            Finding::problem(HERE, format!("wal_level is {level}"))
                .sql(["ALTER SYSTEM SET wal_level = 'logical'"])
                .hint("as a superuser; then restart Postgres: a reload is not enough"),
        ),
    }
    found.extend(role(facts));
    found.extend(slot(facts));
    if !facts.timezone_known {
        let message = "[caches] timezone is none that this server knows";
        let hint = "write a name of SELECT name FROM pg_timezone_names, such as Europe/Berlin";
        found.push(Finding::problem(HERE, message).hint(hint));
    }
    found
}

fn role(facts: &Facts) -> Vec<Finding> {
    const HERE: Section = Section::Postgres;
    let role = &facts.role;
    let name = &role.name;
    let mut found = Vec::new();
    let steps = role_steps(facts);
    if steps.is_empty() {
        found.push(Finding::ok(
            HERE,
            format!("role {name} may replicate from {}", facts.database.name),
        ));
    }
    found.extend(steps.into_iter().map(|step| {
        let message = format!("role {name} {}", step.why);
        Finding::problem(HERE, message).sql([step.sql]).hint(whom(&step.by))
    }));
    for function in &role.no_heartbeat {
        let message = format!(
            "role {name} may not execute {function}: on an idle database it is not known how late changes are"
        );
        let sql = format!("GRANT EXECUTE ON FUNCTION {function} TO {}", Quoted(name));
        found.push(
            Finding::warning(HERE, message)
                .sql([sql])
                .hint("as a superuser, or set postgres.heartbeat = \"0s\""),
        );
    }
    if role.exists && !role.temporary {
        let message = format!(
            "role {name} may not create temporary functions: what queries read cannot be looked up"
        );
        let sql = temporary_grant(facts);
        found.push(
            Finding::warning(HERE, message)
                .sql([sql])
                .hint("as the database's owner; only check needs it"),
        );
    }
    found
}

fn whom(by: &By) -> String {
    match by {
        By::Superuser => "as a superuser".to_owned(),
        By::Owner(owner) => format!("as {owner} or a superuser"),
        By::DatabaseOwner => "as the database's owner or a superuser".to_owned(),
    }
}

fn temporary_grant(facts: &Facts) -> String {
    let (role, database) = (Quoted(&facts.role.name), Quoted(&facts.database.name));
    format!("GRANT TEMPORARY ON DATABASE {database} TO {role}")
}

/// The statements that make the daemon's role what it must be.
#[must_use]
pub fn role_steps(facts: &Facts) -> Vec<Step> {
    let role = &facts.role;
    let name = Quoted(&role.name);
    let step =
        |why: &str, sql: String, by: By| Step { why: why.to_owned(), sql, how: How::AtOnce, by };
    if !role.exists {
        let sql = match &role.replication_by {
            Some(by) => format!("CREATE ROLE {name} LOGIN IN ROLE {}", Quoted(by)),
            None => format!("CREATE ROLE {name} LOGIN REPLICATION"),
        };
        return vec![step("does not exist", sql, By::Superuser)];
    }
    let mut steps = Vec::new();
    if !role.login {
        steps.push(step("may not log in", format!("ALTER ROLE {name} LOGIN"), By::Superuser));
    }
    if !role.replication {
        let (why, sql) = match &role.replication_by {
            Some(by) => ("may not replicate", format!("GRANT {} TO {name}", Quoted(by))),
            None => ("lacks the attribute REPLICATION", format!("ALTER ROLE {name} REPLICATION")),
        };
        steps.push(step(why, sql, By::Superuser));
    }
    if !role.connect {
        let sql = format!("GRANT CONNECT ON DATABASE {} TO {name}", Quoted(&facts.database.name));
        steps.push(step("may not connect to the database", sql, By::DatabaseOwner));
    }
    steps
}

/// The grants that the daemon's role needs to look things up in these tables.
#[must_use]
pub fn grant_steps<'t>(facts: &Facts, tables: impl IntoIterator<Item = &'t Table>) -> Vec<Step> {
    let role = Quoted(&facts.role.name);
    let mut steps: Vec<Step> = Vec::new();
    for table in tables {
        let mut grant = |what: String, why: String| {
            let by = By::Owner(table.owner.clone());
            let step = Step { why, sql: format!("GRANT {what} TO {role}"), how: How::AtOnce, by };
            if !steps.iter().any(|known| known.sql == step.sql) {
                steps.push(step);
            }
        };
        if !table.role.schema_usage {
            let schema = Quoted(&table.name.schema);
            grant(format!("USAGE ON SCHEMA {schema}"), format!("lookups read tables of {schema}"));
        }
        if !table.role.select {
            let what = format!("SELECT ON TABLE {}", table.name.qualified());
            grant(what, format!("lookups and queries read {}", table.name));
        }
    }
    steps
}

/// What the daemon's role lacks to read these tables.
#[must_use]
pub fn grants<'t>(facts: &Facts, tables: impl IntoIterator<Item = &'t Table>) -> Vec<Finding> {
    const HERE: Section = Section::Postgres;
    let tables: Vec<&Table> = tables.into_iter().collect();
    let mut found = Vec::new();
    let steps = grant_steps(facts, tables.iter().copied());
    match steps.is_empty() {
        true => found.push(Finding::ok(HERE, "the role may read every table that is looked into")),
        false => {
            let message =
                format!("role {} may not read all that lookups and queries read", facts.role.name);
            let sql = steps.into_iter().map(|step| step.sql);
            found.push(Finding::problem(HERE, message).sql(sql).hint("as the tables' owner"));
        }
    }
    for table in tables.iter().filter(|table| table.role.rows_hidden) {
        let message = format!(
            "row-level security may hide rows of {} from role {}: lookups and queries miss them",
            table.name, facts.role.name
        );
        let sql = format!("ALTER ROLE {} BYPASSRLS", Quoted(&facts.role.name));
        let hint = "as a superuser; or write a policy that lets the role read every row";
        found.push(Finding::warning(HERE, message).sql([sql]).hint(hint));
    }
    found
}

fn slot(facts: &Facts) -> Vec<Finding> {
    const HERE: Section = Section::Postgres;
    let name = &facts.slot_name;
    let mut found = Vec::new();
    let drop = format!("SELECT pg_drop_replication_slot('{name}')");
    match &facts.slot {
        None => {
            found.push(Finding::note(
                HERE,
                format!("slot {name} does not exist yet: the daemon creates it when it starts"),
            ));
            if facts.slots >= facts.server.max_replication_slots {
                let message = format!(
                    "all {} replication slots are taken",
                    facts.server.max_replication_slots
                );
                let sql = format!(
                    "ALTER SYSTEM SET max_replication_slots = {}",
                    facts.slots.saturating_add(5)
                );
                let hint = "as a superuser, then restart Postgres; or drop one that nobody reads: SELECT slot_name, active FROM pg_replication_slots";
                found.push(Finding::problem(HERE, message).sql([sql]).hint(hint));
            }
        }
        Some(slot) if !slot.fits(&facts.database.name) || slot.two_phase => {
            let what = match (slot.two_phase, &slot.database) {
                (true, _) => "was created with two_phase".to_owned(),
                (_, Some(database)) if *database != facts.database.name => {
                    format!("belongs to the database {database}")
                }
                _ => "is not a permanent slot of pgoutput".to_owned(),
            };
            let hint = "if nobody needs it; or choose another name as postgres.slot";
            found
                .push(Finding::problem(HERE, format!("slot {name} {what}")).sql([drop]).hint(hint));
        }
        Some(slot) if slot.is_lost() => {
            let message = format!(
                "slot {name} is lost ({}): the daemon drops it when it starts, creates it anew, and drops everything that is cached",
                slot.invalidation_reason.as_deref().unwrap_or("WAL that it needed was removed")
            );
            found.push(
                Finding::warning(HERE, message)
                    .hint("to keep it from happening again raise max_slot_wal_keep_size"),
            );
        }
        Some(slot) => {
            let by = slot.active_pid.map_or_else(
                || "nobody reads it now".to_owned(),
                |pid| format!("PID {pid} reads it now"),
            );
            found.push(Finding::ok(HERE, format!("slot {name} can be read ({by})")));
        }
    }
    match &facts.slot {
        _ if facts.failover_wanted && facts.server.version_num < 170_000 => {
            let message = "postgres.failover is set, and this server has no failover slots: after a failover a new slot is made";
            found.push(Finding::warning(HERE, message).hint("Postgres 17 and later have them"));
        }
        Some(slot) if facts.failover_wanted && !slot.failover => {
            let message = format!(
                "slot {name} is not copied by standbys, and is once the daemon has started"
            );
            found.push(Finding::note(HERE, message));
        }
        _ => {}
    }
    if let Some(timeout) = &facts.idle_timeout {
        let message = format!(
            "idle_replication_slot_timeout is {timeout}: while the daemon is down for longer its slot \
             is lost, and the cache starts anew"
        );
        found.push(Finding::note(HERE, message));
    }
    let active = facts.slot.as_ref().is_some_and(|slot| slot.active_pid.is_some());
    if !active && facts.senders >= facts.server.max_wal_senders {
        let message = format!("all {} walsenders are in use", facts.server.max_wal_senders);
        let sql = format!("ALTER SYSTEM SET max_wal_senders = {}", facts.senders.saturating_add(5));
        found.push(
            Finding::problem(HERE, message)
                .sql([sql])
                .hint("as a superuser, then restart Postgres"),
        );
    }
    if !facts.slot_limited {
        let message = "max_slot_wal_keep_size is -1: while the daemon is down its slot holds back WAL until the disk is full";
        let hint = "set a limit that the disk can bear, such as ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; past it the slot is lost and the cache starts anew";
        found.push(Finding::note(HERE, message).hint(hint));
    }
    found
}

/// The statements that make the publication what it must be. To be run after every table
/// has its identity.
#[must_use]
pub fn publication_steps(facts: &Facts) -> Vec<Step> {
    let name = Quoted(&facts.publication_name);
    let Some(publication) = &facts.publication else {
        let tables: Vec<&Table> = publishable(facts).collect();
        let Some(first) = tables.first() else { return Vec::new() };
        let names: Vec<String> = tables.iter().map(|table| table.name.qualified()).collect();
        return vec![Step {
            why: "what the daemon reads".to_owned(),
            sql: format!(
                "CREATE PUBLICATION {name} FOR TABLE {} WITH ({PUBLISH}{})",
                names.join(", "),
                if publishes_generated(facts) { GENERATED } else { "" }
            ),
            how: How::CreatePublication,
            // It takes whoever owns them all, and may create in the database.
            by: match tables.iter().all(|table| table.owner == first.owner) {
                true => By::Owner(first.owner.clone()),
                false => By::Superuser,
            },
        }];
    };
    let by = || By::Owner(facts.publication_owner.clone().unwrap_or_default());
    let mut steps = Vec::new();
    if !(publication.insert
        && publication.update
        && publication.delete
        && publication.truncate
        && publication.via_root)
    {
        steps.push(Step {
            why: "every operation, and partitions under the name of their table".to_owned(),
            sql: format!("ALTER PUBLICATION {name} SET ({PUBLISH})"),
            how: How::AtOnce,
            by: by(),
        });
    }
    for table in publishable(facts) {
        let published = publication.table(&table.name.schema, &table.name.table);
        let add = format!("ALTER PUBLICATION {name} ADD TABLE {}", table.name.qualified());
        match published {
            None if publication.all_tables => {}
            None => steps.push(Step {
                why: format!("rules need the changes of {}", table.name),
                sql: add,
                how: How::AddTable {
                    schema: table.name.schema.to_string(),
                    table: table.name.table.to_string(),
                },
                by: by(),
            }),
            Some(published) if published.columns.is_some() => {
                // One transaction: at no moment is the table out of the publication.
                let filter = published
                    .row_filter
                    .as_ref()
                    .map(|f| format!(" WHERE {f}"))
                    .unwrap_or_default();
                steps.push(Step {
                    why: format!("without a column list, which would make the application's UPDATE of {} fail", table.name),
                    sql: format!(
                        "BEGIN; ALTER PUBLICATION {name} DROP TABLE {}; {add}{filter}; COMMIT",
                        table.name.qualified()
                    ),
                    how: How::AtOnce,
                    by: by(),
                });
            }
            Some(_) => {}
        }
    }
    steps
}

/// Whether the publication must carry generated columns.
fn publishes_generated(facts: &Facts) -> bool {
    let leaves = |table| facts.catalog.leaves(table).any(Table::has_stored);
    facts.server.version_num >= 180_000
        && publishable(facts).any(|table| table.has_stored() || leaves(table))
}

/// Lets an existing publication carry generated columns. To be run before any identity is set.
#[must_use]
pub fn generated_step(facts: &Facts) -> Option<Step> {
    let publication = facts.publication.as_ref().filter(|publication| !publication.generated)?;
    publishes_generated(facts).then(|| Step {
        why: "generated columns, without which no whole row may be an identity".to_owned(),
        sql: format!(
            "ALTER PUBLICATION {} SET ({})",
            Quoted(&publication.name),
            GENERATED.trim_start_matches(", ")
        ),
        // Else the identities would make the application's UPDATE fail.
        how: How::First,
        by: By::Owner(facts.publication_owner.clone().unwrap_or_default()),
    })
}

fn publishable(facts: &Facts) -> impl Iterator<Item = &Table> {
    facts.tables().filter(|table| {
        matches!(table.kind, Kind::Table | Kind::Partitioned)
            && !table.unlogged
            && table.root.is_none_or(|root| root == table.oid)
    })
}

/// The publication and whether the mapped tables can be in it.
#[must_use]
pub fn publication(facts: &Facts) -> Vec<Finding> {
    const HERE: Section = Section::Publication;
    let name = &facts.publication_name;
    let mut found = unpublishable(facts);
    let mut steps = publication_steps(facts);
    steps.extend(generated_step(facts));
    let sql = || steps.iter().map(|step| step.sql.clone());
    let Some(publication) = &facts.publication else {
        found.push(Finding::problem(HERE, format!("publication {name} does not exist")).sql(sql()).hint(
            "run `unstale setup`; by hand only after the replica identities below are set: until then the application's UPDATE could fail",
        ));
        return found;
    };
    if steps.is_empty() {
        let count = facts.tables().count();
        let tables = if count == 1 { "table" } else { "tables" };
        let message = format!("publication {name} carries {count} {tables}, every operation");
        found.push(Finding::ok(HERE, message));
    }
    for step in &steps {
        let message = format!("publication {name} lacks: {}", step.why);
        found.push(Finding::problem(HERE, message).sql([step.sql.clone()]));
    }
    for table in facts.tables() {
        let published = publication.table(&table.name.schema, &table.name.table);
        if let Some(filter) = published.and_then(|published| published.row_filter.as_ref()) {
            let message = format!(
                "only rows of {} with {filter} are published: changes of others reach nothing",
                table.name
            );
            let hint = "take the filter out, unless the queries read no other rows";
            found.push(Finding::warning(HERE, message).hint(hint));
        }
    }
    found.push(announced(facts));
    for (table, full) in &facts.without_identity {
        let message = match full {
            true => format!(
                "UPDATE AND DELETE ON {table} FAIL: it is published, and REPLICA IDENTITY FULL takes in \
                 generated columns that are not"
            ),
            false => format!(
                "UPDATE AND DELETE ON {table} FAIL: it is published and has no replica identity that works"
            ),
        };
        let sql = match facts.catalog.by_name(table) {
            // What its rules need is told below.
            Some(_) => Vec::new(),
            None if *full => {
                vec![format!("ALTER TABLE {} REPLICA IDENTITY DEFAULT", table.qualified())]
            }
            None => vec![format!("ALTER TABLE {} REPLICA IDENTITY FULL", table.qualified())],
        };
        found.push(
            Finding::problem(HERE, message).sql(sql).hint("see the replica identities below"),
        );
    }
    found
}

/// Whether it is told at once of what changes beside the stream.
fn announced(facts: &Facts) -> Finding {
    const HERE: Section = Section::Publication;
    if facts.announced {
        let message = "event triggers tell of rewritten tables, of partitions that come and go, and of the publication";
        return Finding::ok(HERE, message);
    }
    let message = "no stream tells of a table that is rewritten (ALTER TABLE … TYPE … USING), of a partition that \
                   is attached or detached, nor of a table that leaves the publication: what is stale by that \
                   is dropped when the daemon looks, a second or so later";
    let hint = "to close that second run `unstale setup --event-trigger --as-owner URL` with the URL of a superuser";
    Finding::warning(HERE, message).hint(hint)
}

/// The event triggers, unless they are there.
#[must_use]
pub fn event_trigger_step(facts: &Facts) -> Option<Step> {
    if facts.announced {
        return None;
    }
    // Where the daemon's tables are: a schema that is there, and that nobody minds.
    let table = facts.tables().next()?;
    let schema = Quoted(&table.name.schema);
    let in_schema =
        |sql: String, function: &&str| sql.replace(*function, &format!("{schema}.{function}"));
    let sql = announce::FUNCTIONS.iter().fold(announce::CREATE.to_owned(), in_schema);
    Some(Step {
        why: "tells of rewritten tables, of partitions and of the publication at once; the daemon sees it at its next connection"
            .to_owned(),
        sql: sql.trim_end().trim_end_matches(';').to_owned(),
        how: How::AtOnce,
        by: By::Superuser,
    })
}

fn unpublishable(facts: &Facts) -> Vec<Finding> {
    const HERE: Section = Section::Publication;
    let mut found = Vec::new();
    for (name, oid) in &facts.mapped {
        let Some(table) = oid.and_then(|oid| facts.catalog.tables.get(&oid)) else {
            let hint = "correct its name in [[tables]] (schema.table, in double quotes where it is not lower case), or create it";
            found.push(Finding::problem(HERE, format!("there is no table {name}")).hint(hint));
            continue;
        };
        let wrong = match table.kind {
            Kind::View => Some("is a view: give its rules to the tables that it reads"),
            Kind::MaterializedView => Some("is a materialized view: no stream carries its REFRESH"),
            Kind::Foreign => Some("is a foreign table: its changes are another server's"),
            Kind::Other => Some("is no table"),
            _ if table.unlogged => Some("is UNLOGGED: no stream carries its changes"),
            _ => None,
        };
        if let Some(wrong) = wrong {
            found
                .push(Finding::problem(HERE, format!("{name} {wrong}")).hint("correct [[tables]]"));
        }
        let root = table.root.and_then(|root| facts.catalog.tables.get(&root));
        if let Some(root) = table.root.filter(|root| *root != table.oid) {
            let of = facts
                .catalog
                .tables
                .get(&root)
                .map_or_else(|| "another table".to_owned(), |t| t.name.to_string());
            let message =
                format!("{name} is a partition of {of}: its changes come under that name");
            found.push(
                Finding::problem(HERE, message).hint("name the partitioned table in [[tables]]"),
            );
        } else if root.is_none() && table.kind == Kind::Table && !table.below.is_empty() {
            let message = format!(
                "{name} has children by INHERITS: their changes come under their own names"
            );
            found.push(Finding::note(HERE, message));
        }
    }
    found
}
