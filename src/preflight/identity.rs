//! Which old values a table's changes carry, which its rules need, and the cheapest way from
//! the one to the other.
//!
//! An UPDATE carries the old values of the replica identity's columns if one of them
//! changed, a DELETE always (manual, "Publication"). So the cheapest identity is an index
//! over just the columns that are needed; `FULL` writes every old row to the WAL.
//!
//! An identity must not break the application: an index entry that is too long makes its
//! INSERT fail, so only columns with a bounded width go into one. And a published table
//! without any identity makes its UPDATE and DELETE fail, so there must be no moment without.

use std::collections::BTreeSet;

use tokio_postgres::types::Type;

use super::step::{By, How, Step};
use crate::mapping::name::Quoted;
use crate::pgoutput::message::ReplicaIdentity;
use crate::postgres::catalog::{Column, Index, Kind, Table};

/// What the names of our own indexes begin with.
pub const INDEX_PREFIX: &str = "unstale_ri_";

/// The most that a btree's entry may hold (a third of a page, manual, "B-Tree
/// Implementation"), less some for alignment.
const MAX_ENTRY_BYTES: usize = 2_600;
const MAX_INDEX_COLUMNS: usize = 32;
const MAX_NAME_BYTES: usize = 63;

/// The old values that a table's changes carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Carried<'t> {
    /// None, and the server refuses UPDATE and DELETE once the table is published. Why.
    Nothing(String),
    /// Those of these columns.
    Columns(BTreeSet<&'t str>),
    /// All.
    All,
}

impl Carried<'_> {
    /// Whether the column's old value is among them.
    #[must_use]
    pub fn has(&self, column: &str) -> bool {
        match self {
            Carried::Nothing(_) => false,
            Carried::Columns(columns) => columns.contains(column),
            Carried::All => true,
        }
    }
}

/// The identity that a table should get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// The one that it has.
    Keep,
    /// The primary key.
    Default,
    /// A unique index that is there.
    UseIndex(String),
    /// A unique index yet to be made.
    CreateIndex {
        /// Its name.
        name: String,
        /// Its columns.
        columns: Vec<String>,
        /// One of the same name that was never finished.
        replaces_invalid: bool,
    },
    /// Every column, and why no index will do.
    Full(String),
}

/// What a table's changes carry now.
#[must_use]
pub fn carried(table: &Table) -> Carried<'_> {
    let name = &table.name;
    match table.identity {
        ReplicaIdentity::Full if table.refuses_full => Carried::Nothing(format!(
            "REPLICA IDENTITY FULL of {name} takes in generated columns that are not published, so \
             Postgres 18 refuses UPDATE and DELETE of it"
        )),
        ReplicaIdentity::Full => Carried::All,
        ReplicaIdentity::Nothing => {
            Carried::Nothing(format!("{name} has REPLICA IDENTITY NOTHING"))
        }
        ReplicaIdentity::Default => match primary_key(table) {
            Some(index) => Carried::Columns(names(table, index).collect()),
            None if table.indexes.iter().any(|index| index.primary) => Carried::Nothing(format!(
                "the primary key of {name} is DEFERRABLE, and so no identity"
            )),
            None => Carried::Nothing(format!("{name} has no primary key")),
        },
        ReplicaIdentity::Index => match table.indexes.iter().find(|index| index.identity) {
            Some(index) if index.valid => Carried::Columns(names(table, index).collect()),
            Some(index) => Carried::Nothing(format!(
                "the index {} that is the replica identity of {name} is invalid",
                Quoted(&index.name)
            )),
            None => Carried::Nothing(format!(
                "the index that was the replica identity of {name} has been dropped"
            )),
        },
    }
}

/// The cheapest identity that carries the needed columns. `character` is the most bytes
/// that a character takes in the database's encoding.
#[must_use]
pub fn choose(table: &Table, needed: &BTreeSet<&str>, character: usize) -> Choice {
    let now = match table.identity {
        // What is stored will be published by then.
        ReplicaIdentity::Full if !table.has_computed() => Carried::All,
        _ => carried(table),
    };
    if !matches!(now, Carried::Nothing(_)) && needed.iter().all(|column| now.has(column)) {
        return Choice::Keep;
    }
    let covers = |index: &Index| {
        let columns: BTreeSet<&str> = names(table, index).collect();
        needed.is_subset(&columns)
    };
    if primary_key(table).is_some_and(covers) {
        return Choice::Default;
    }
    let existing = table.indexes.iter().filter(|index| usable(table, index) && covers(index));
    if let Some(index) = existing.min_by_key(|index| index.columns.len()) {
        return Choice::UseIndex(index.name.clone());
    }
    match index_columns(table, needed, character) {
        Ok(columns) => {
            let (name, replaces_invalid) = index_name(table, &columns);
            Choice::CreateIndex { name, columns, replaces_invalid }
        }
        Err(reason) if !table.has_computed() => Choice::Full(reason),
        // More is dropped than must be, but the application's own statements work.
        Err(_) if !matches!(now, Carried::Nothing(_)) => Choice::Keep,
        Err(_) if primary_key(table).is_some() => Choice::Default,
        Err(_) => {
            let usable = table.indexes.iter().filter(|index| usable(table, index));
            let least = usable.min_by_key(|index| index.columns.len());
            least.map_or(Choice::Keep, |index| Choice::UseIndex(index.name.clone()))
        }
    }
}

/// The statements that give a table its identity, in order.
#[must_use]
pub fn steps(table: &Table, choice: &Choice) -> Vec<Step> {
    let qualified = table.name.qualified();
    let in_schema = |index: &str| format!("{}.{}", Quoted(&table.name.schema), Quoted(index));
    let owner = || By::Owner(table.owner.clone());
    let drop = |index: &str, why: &str| Step {
        why: why.to_owned(),
        sql: format!("DROP INDEX CONCURRENTLY IF EXISTS {}", in_schema(index)),
        how: How::Concurrently { index: in_schema(index), drops: true },
        by: owner(),
    };
    let identity = |what: &str, why: String| Step {
        why,
        sql: format!("ALTER TABLE {qualified} REPLICA IDENTITY {what}"),
        how: How::Briefly { table: qualified.clone() },
        by: owner(),
    };
    let using = |index: &str| {
        let why = format!("old values of {} come with the columns of this index", table.name);
        identity(&format!("USING INDEX {}", Quoted(index)), why)
    };
    let mut steps = Vec::new();
    let kept = match choice {
        Choice::Keep => table.indexes.iter().find(|index| index.identity).map(|index| &index.name),
        Choice::Default => {
            let why = format!("the primary key of {} carries all that is needed", table.name);
            steps.push(identity("DEFAULT", why));
            None
        }
        Choice::UseIndex(index) => {
            steps.push(using(index));
            Some(index)
        }
        Choice::CreateIndex { name, columns, replaces_invalid } => {
            if *replaces_invalid {
                steps.push(drop(name, "an earlier attempt left it unfinished"));
            }
            let columns: Vec<String> = columns.iter().map(|c| Quoted(c).to_string()).collect();
            steps.push(Step {
                why: format!("carries the old values that the rules of {} need", table.name),
                sql: format!(
                    "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS {} ON {qualified} ({})",
                    Quoted(name),
                    columns.join(", ")
                ),
                how: How::Concurrently { index: in_schema(name), drops: false },
                by: owner(),
            });
            steps.push(using(name));
            Some(name)
        }
        Choice::Full(reason) => {
            steps.push(identity("FULL", format!("{}: {reason}", table.name)));
            None
        }
    };
    let old = table.indexes.iter().filter(|index| {
        index.name.starts_with(INDEX_PREFIX)
            && Some(&index.name) != kept
            // Dropped at the beginning, and made anew.
            && !matches!(choice, Choice::CreateIndex { name, .. } if *name == index.name)
    });
    // Only now: until the new identity stands, the old one is needed.
    steps.extend(old.map(|index| drop(&index.name, "no longer the replica identity")));
    steps
}

fn names<'t>(table: &'t Table, index: &'t Index) -> impl Iterator<Item = &'t str> {
    index
        .columns
        .iter()
        .filter_map(|number| table.column_numbered(*number))
        .map(|column| column.name.as_str())
}

fn primary_key(table: &Table) -> Option<&Index> {
    table.indexes.iter().find(|index| index.primary && index.valid && index.immediate)
}

/// What the server accepts for USING INDEX.
fn usable(table: &Table, index: &Index) -> bool {
    let not_null = |number: &i16| table.column_numbered(*number).is_some_and(|c| c.not_null);
    index.unique
        && index.valid
        && index.immediate
        && !index.partial
        && !index.columns.is_empty()
        && index.columns.iter().all(not_null)
}

/// The columns of an index that would carry all that is needed, or why there can be none.
fn index_columns(
    table: &Table,
    needed: &BTreeSet<&str>,
    character: usize,
) -> Result<Vec<String>, String> {
    if table.kind == Kind::Partitioned {
        return Err("a partition that is made later would lack the index".to_owned());
    }
    let nullable: Vec<&str> = needed
        .iter()
        .filter(|name| table.column(name).is_some_and(|column| !column.not_null))
        .copied()
        .collect();
    if !nullable.is_empty() {
        return Err(format!("{} may be null, which no identity index allows", nullable.join(", ")));
    }
    let unique = table.indexes.iter().filter(|index| usable(table, index));
    let base = primary_key(table).or_else(|| unique.min_by_key(|index| index.columns.len()));
    let Some(base) = base else {
        return Err("it has no unique index over columns that are NOT NULL".to_owned());
    };
    let mut columns: Vec<&Column> =
        base.columns.iter().filter_map(|number| table.column_numbered(*number)).collect();
    // In the table's order, so that the same need gives the same index.
    let more = table.columns.iter().filter(|column| needed.contains(&*column.name));
    for column in more {
        if !columns.iter().any(|known| known.number == column.number) {
            columns.push(column);
        }
    }
    if columns.len() > MAX_INDEX_COLUMNS {
        return Err(format!("an index has {MAX_INDEX_COLUMNS} columns at most"));
    }
    let mut bytes = 0;
    for column in &columns {
        // What is in the primary key already is no new danger.
        let known = base.columns.contains(&column.number);
        match width(column, character) {
            Some(width) => bytes += width,
            None if known => {}
            None => {
                return Err(format!(
                    "{} has no bounded length, and a value too long for an index would make the \
                     application's INSERT fail",
                    column.name
                ));
            }
        }
    }
    if bytes > MAX_ENTRY_BYTES {
        return Err(format!(
            "the columns may take {bytes} bytes together, and more than {MAX_ENTRY_BYTES} in an \
             index could make the application's INSERT fail"
        ));
    }
    Ok(columns.iter().map(|column| column.name.clone()).collect())
}

/// The most bytes that a value takes in an index; `None` if nothing bounds it.
fn width(column: &Column, character: usize) -> Option<usize> {
    if column.is_enum {
        return Some(4);
    }
    let modifier = usize::try_from(column.type_modifier).ok();
    match Type::from_oid(column.type_id)? {
        Type::BOOL | Type::CHAR => Some(1),
        Type::INT2 => Some(2),
        Type::INT4 | Type::OID | Type::FLOAT4 | Type::DATE => Some(4),
        Type::INT8
        | Type::FLOAT8
        | Type::TIME
        | Type::TIMESTAMP
        | Type::TIMESTAMPTZ
        | Type::MONEY
        | Type::MACADDR
        | Type::MACADDR8 => Some(8),
        Type::UUID | Type::INTERVAL | Type::TIMETZ => Some(16),
        Type::INET | Type::CIDR => Some(24),
        Type::NAME => Some(64),
        // The modifier holds the length and four more.
        Type::VARCHAR | Type::BPCHAR => Some(modifier?.checked_sub(4)? * character + 4),
        // Two bytes for four digits; the modifier's upper half is the precision.
        Type::NUMERIC => Some((modifier?.checked_sub(4)? >> 16) / 2 + 16),
        _ => None,
    }
}

/// A name for the index, and whether an unfinished one of that name is in the way.
fn index_name(table: &Table, columns: &[String]) -> (String, bool) {
    let taken = |name: &str| table.indexes.iter().find(|index| index.name == name);
    let in_the_way = |index: &Index| !index.valid && !index.identity;
    let plain = cut(format!("{INDEX_PREFIX}{}", table.name.table), MAX_NAME_BYTES);
    match taken(&plain) {
        None => return (plain, false),
        Some(index) if in_the_way(index) => return (plain, true),
        Some(_) => {}
    }
    // Another set of columns: the old index must stand until the new one does.
    let hash = xxhash_rust::xxh3::xxh3_64(columns.join("\0").as_bytes());
    let suffix = format!("_{:08x}", hash & 0xffff_ffff);
    let name = cut(plain, MAX_NAME_BYTES - suffix.len()) + &suffix;
    let replaces = taken(&name).is_some_and(in_the_way);
    (name, replaces)
}

fn cut(mut name: String, bytes: usize) -> String {
    while name.len() > bytes {
        name.pop();
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::name::TableName;

    fn column(number: i16, name: &str, kind: &Type, type_modifier: i32, not_null: bool) -> Column {
        Column {
            number,
            name: name.to_owned(),
            type_id: kind.oid(),
            type_name: ("pg_catalog".to_owned(), kind.name().to_owned()),
            is_enum: false,
            type_modifier,
            not_null,
            generated_from: None,
            computed: false,
        }
    }

    fn index(name: &str, columns: &[i16]) -> Index {
        Index {
            name: name.to_owned(),
            columns: columns.to_vec(),
            unique: true,
            primary: name == "pkey",
            valid: true,
            immediate: true,
            partial: false,
            identity: false,
        }
    }

    /// `t (id int primary key, a varchar(20) not null, b int, long varchar(800) not null,
    /// text text not null)`
    fn table() -> Table {
        Table {
            oid: 1,
            name: TableName::new("public", "t"),
            kind: Kind::Table,
            unlogged: false,
            owner: "app".to_owned(),
            identity: ReplicaIdentity::Default,
            refuses_full: false,
            columns: vec![
                column(1, "id", &Type::INT4, -1, true),
                column(2, "a", &Type::VARCHAR, 24, true),
                column(3, "b", &Type::INT4, -1, false),
                column(4, "long", &Type::VARCHAR, 804, true),
                column(5, "text", &Type::TEXT, -1, true),
            ],
            indexes: vec![index("pkey", &[1])],
            root: None,
            below: Vec::new(),
            references: Vec::new(),
            role: crate::postgres::catalog::TableRights::default(),
            own: crate::postgres::catalog::TableRights::default(),
        }
    }

    fn chosen(table: &Table, needed: &[&str]) -> Choice {
        choose(table, &needed.iter().copied().collect(), 4)
    }

    #[test]
    fn the_primary_key_is_kept_where_it_is_enough_and_taken_back_where_it_would_be() {
        let mut table = table();
        assert_eq!(chosen(&table, &["id"]), Choice::Keep);
        table.identity = ReplicaIdentity::Nothing;
        assert_eq!(chosen(&table, &[]), Choice::Default);
        // A deferrable primary key is no identity.
        table.indexes[0].immediate = false;
        assert!(matches!(carried(&table), Carried::Nothing(_)));
        assert!(matches!(chosen(&table, &[]), Choice::Full(_)));
    }

    #[test]
    fn an_index_is_taken_only_if_the_server_would_and_no_entry_can_be_too_long() {
        let table = table();
        let Choice::CreateIndex { name, columns, .. } = chosen(&table, &["a"]) else {
            panic!("an index would do");
        };
        assert_eq!((name.as_str(), columns), ("unstale_ri_t", vec!["id".into(), "a".into()]));
        for (needed, why) in [("b", "null"), ("text", "no bounded length"), ("long", "bytes")] {
            match chosen(&table, &[needed]) {
                Choice::Full(reason) => assert!(reason.contains(why), "{needed}: {reason}"),
                other => panic!("{needed}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_whole_row_is_no_identity_of_a_table_with_columns_that_nobody_can_publish() {
        let mut table = table();
        let generated = Column { generated_from: Some(vec![1]), ..table.columns[2].clone() };
        table.columns.push(Column { number: 6, ..generated });
        table.identity = ReplicaIdentity::Full;
        table.refuses_full = true;
        // It is stored: published it does no harm.
        assert!(matches!(carried(&table), Carried::Nothing(_)));
        assert_eq!(chosen(&table, &["b"]), Choice::Keep);
        table.columns[5].computed = true;
        assert_eq!(chosen(&table, &["b"]), Choice::Default);
        assert!(matches!(chosen(&table, &["a"]), Choice::CreateIndex { .. }));
        table.identity = ReplicaIdentity::Default;
        assert_eq!(chosen(&table, &["b"]), Choice::Keep);
        table.indexes[0].immediate = false;
        table.indexes.push(index("other", &[2]));
        assert_eq!(chosen(&table, &["b"]), Choice::UseIndex("other".to_owned()));
    }

    #[test]
    fn of_the_indexes_that_are_there_the_smallest_that_fits_is_taken() {
        let fitting = index("fits", &[2, 1]);
        let unfit: [fn(&mut Index); 5] = [
            |i| i.unique = false,
            |i| i.partial = true,
            |i| i.valid = false,
            |i| i.immediate = false,
            |i| i.columns = vec![2, 3],
        ];
        for make in unfit {
            let mut table = table();
            table.indexes.extend([fitting.clone(), index("larger", &[1, 2, 4])]);
            assert_eq!(chosen(&table, &["a"]), Choice::UseIndex("fits".to_owned()));
            make(&mut table.indexes[1]);
            assert_eq!(chosen(&table, &["a"]), Choice::UseIndex("larger".to_owned()));
        }
    }

    #[test]
    fn an_index_stands_until_the_next_one_does_and_an_unfinished_one_goes_first() {
        let mut table = table();
        table.identity = ReplicaIdentity::Index;
        table.indexes.push(Index { identity: true, ..index("unstale_ri_t", &[1]) });
        let choice = chosen(&table, &["a"]);
        let statements: Vec<String> = steps(&table, &choice).into_iter().map(|s| s.sql).collect();
        let [create, alter, drop] = statements.as_slice() else { panic!("{statements:?}") };
        assert!(create.contains(" unstale_ri_t_") && alter.contains(" unstale_ri_t_"));
        assert_eq!(drop, "DROP INDEX CONCURRENTLY IF EXISTS public.unstale_ri_t");

        let unfinished = table.indexes.last_mut().unwrap();
        (unfinished.identity, unfinished.valid) = (false, false);
        table.identity = ReplicaIdentity::Default;
        let choice = chosen(&table, &["a"]);
        let first = steps(&table, &choice).into_iter().next().unwrap();
        assert_eq!(first.sql, "DROP INDEX CONCURRENTLY IF EXISTS public.unstale_ri_t");
    }

    #[test]
    fn a_name_is_never_too_long() {
        let mut table = table();
        table.name = TableName::new("public", &"é".repeat(31));
        let Choice::CreateIndex { name, .. } = chosen(&table, &["a"]) else { panic!("an index") };
        assert!(name.len() <= MAX_NAME_BYTES && name.starts_with(INDEX_PREFIX));
    }
}
