//! Tables and rules in any number.
//!
//! Each table has ten columns beside its `id`, and its rules go by the columns that have changed
//! (`columns`), each to a cache of its own. A change is of one row, of which it changes `c0`:
//! by that it reaches the table's last rule and no other.

use super::stream::Stream;

/// Columns of a table beside its `id`: c0, c1, …
const COLUMNS: usize = 10;

/// What all keys begin with.
pub(crate) const PREFIX: &str = "bench:";

/// How many tables, and how many rules each of them has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) tables: usize,
    pub(crate) rules: usize,
}

impl Shape {
    /// As `unstale.toml` has it.
    pub(crate) fn config(self) -> String {
        let mut caches = String::new();
        let mut tables = String::new();
        for table in 0..self.tables {
            let mut rules = String::new();
            for rule in 0..self.rules {
                let cache = cache(table, rule);
                let column = match self.rules - 1 - rule {
                    0 => 0,
                    other => 1 + other % (COLUMNS - 1),
                };
                caches.push_str(&format!("[caches.{cache}]\nkey = \"{cache}:{{id}}\"\n"));
                rules.push_str(&format!(
                    "  {{ cache = \"{cache}\", id = \"id\", columns = [\"c{column}\"] }},\n"
                ));
            }
            tables
                .push_str(&format!("[[tables]]\nname = \"t{table}\"\ninvalidates = [\n{rules}]\n"));
        }
        format!(
            "[postgres]\nurl = \"postgres://is.set/by-the-benchmark\"\n\
             [redis]\nurl = \"redis://is.set\"\nkey_prefix = \"{PREFIX}\"\n{caches}{tables}"
        )
    }

    /// The tables with rows of these ids, spread over them, and their publication.
    pub(crate) fn schema(self, rows: usize) -> String {
        let columns: String =
            (0..COLUMNS).map(|c| format!(", c{c} bigint not null default 0")).collect();
        let tables = self.tables;
        let each = (0..tables).map(|table| {
            format!(
                "create table t{table} (id bigint primary key{columns}); \
                 alter table t{table} replica identity full; \
                 insert into t{table} select i from generate_series(0, {rows} - 1) i where i % {tables} = {table}; "
            )
        });
        let names: Vec<String> = (0..tables).map(|table| format!("t{table}")).collect();
        let publication = format!("create publication unstale for table {}", names.join(", "));
        each.chain([publication]).collect()
    }

    /// Changes the rows `0..rows`, a transaction each.
    pub(crate) fn burst(self, rows: usize) -> String {
        let tables = self.tables;
        format!(
            "do $$ begin for i in 0..{rows} - 1 loop \
               execute format('update t%s set c0 = c0 + 1 where id = $1', i % {tables}) using i; \
               commit; \
             end loop; end $$"
        )
    }

    /// What depends on a row's `c0`.
    pub(crate) fn key(self, id: usize) -> String {
        format!("{PREFIX}{}:{id}", cache(id % self.tables, self.rules - 1))
    }

    /// What the server would send of so many changes, of one table after the other.
    pub(crate) fn stream(self, changes: u64) -> Stream {
        Stream::of_shape(self, changes)
    }

    /// As [`named`](Shape::named) reads it.
    pub(crate) fn name(self) -> String {
        format!("tables_{}_rules_{}", self.tables, self.rules)
    }

    pub(crate) fn named(name: &str) -> Option<Shape> {
        let (tables, rules) = name.strip_prefix("tables_")?.split_once("_rules_")?;
        Some(Shape { tables: tables.parse().ok()?, rules: rules.parse().ok()? })
    }

    pub(crate) fn table(table: usize) -> String {
        format!("t{table}")
    }

    /// Of each table.
    pub(crate) fn columns() -> impl Iterator<Item = String> {
        std::iter::once("id".to_owned()).chain((0..COLUMNS).map(|c| format!("c{c}")))
    }
}

fn cache(table: usize, rule: usize) -> String {
    format!("t{table:02}r{rule:03}")
}
