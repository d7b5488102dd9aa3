//! One table and what every test of the stream or of the servers needs of it: rows, and a cache that
//! each of them is an entry of.

/// Five items and the publication.
pub const SCHEMA: &str = "
    create table item (id int primary key, name text not null);
    alter table item replica identity full;
    insert into item select i, 'first' from generate_series(1, 5) i;
    create publication unstale for table item;";

/// What is cached of an item goes with its row.
pub const RULES: &str = r#"
    [caches.item]
    key = "item:{id}"
    [[tables]]
    name = "item"
    invalidates = [{ cache = "item", id = "id" }]
"#;

/// Changes an item: its entry must go.
pub fn touching(id: u32) -> String {
    format!("update item set name = name || '.' where id = {id}")
}
