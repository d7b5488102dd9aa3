//! What a publication may leave out, and how tables come into it.

use super::{Ground, set};
use unstale::postgres::announce;
use unstale::sandbox::Postgres;

const RULES: &str = r#"
    [caches.org]
    key = "org:{k}"
    query = "select coalesce(jsonb_agg(jsonb_build_array(id, name) order by id), '[]') from item where org = $k::int and active"
    ttl = "1h"
    [[tables]]
    name = "item"
    invalidates = [{ cache = "org", k = "org" }]
"#;

const ORGS: [&str; 3] = ["org:1", "org:2", "org:3"];

const TABLE: &str = "
    create table item (id int primary key, org int not null, active boolean not null, name text);
    alter table item replica identity full;
    insert into item values (1, 1, true, 'a'), (2, 2, false, 'b');";

/// A row that leaves the filter comes as a DELETE, one that enters it as an INSERT.
#[tokio::test]
async fn a_row_that_leaves_or_enters_the_filter_reaches_what_depends_on_it() {
    let schema =
        format!("{TABLE} create publication unstale for table item where (active and org <> 3);");
    let mut ground = Ground::new(&schema, RULES, &ORGS[..2]).await;
    ground.check_says("only rows of item with").await;
    ground.check("update item set name = 'x' where id = 1", &["org:1"]).await;
    ground.check("update item set name = 'y' where id = 2", &[]).await;
    ground.check("update item set active = false where id = 1", &["org:1"]).await;
    ground.check("update item set active = true, org = 2 where id = 1", &["org:2"]).await;
    // From what is published to what is not, by another column.
    ground.check("update item set org = 3 where id = 1", &["org:2"]).await;
    ground.check("update item set org = 1 where id = 1", &["org:1"]).await;
    ground.check("delete from item where id = 1", &["org:1"]).await;
    ground
        .check_gap("alter publication unstale set table item, heartbeat", "publication_changed")
        .await;
    ground.stop().await;

    // With the key alone: the old row has what the filter reads, and no more.
    let schema = "
        create table item (id int, org int not null, active boolean not null, name text, primary key (id, active));
        insert into item values (1, 1, true, 'a'), (2, 2, true, 'b');
        create publication unstale for table item where (active);";
    let mut ground = Ground::new(schema, RULES, &ORGS[..2]).await;
    let sql = "update item set active = false where id = 1";
    ground.check_more(sql, &["org:1"], &["org:1", "org:2"]).await;
    ground.check("update item set active = true where id = 1", &["org:1"]).await;
    ground.stop().await;
}

#[tokio::test]
async fn a_column_that_is_not_published_drops_more_and_never_less() {
    let schema = "
        create table item (id int, org int not null, active boolean not null, name text, primary key (id, org, active));
        insert into item values (1, 1, true, 'a'), (2, 2, true, 'b');
        create publication unstale for table item (id, org, active);";
    let by_name =
        RULES.replace("k = \"org\" }", "k = \"org\", columns = [\"org\", \"active\", \"name\"] }");
    let mut ground = Ground::new(schema, &by_name, &ORGS[..2]).await;
    ground.check_says("without a column list").await;
    // It cannot be told whether the name has changed, nor that this was all: all go.
    let sql = "update item set name = 'x' where id = 1";
    ground.check_more(sql, &["org:1"], &["org:1", "org:2"]).await;
    ground.daemon.until_problem("no column name").await;
    let sql = "alter publication unstale set table item, heartbeat";
    ground.check_gap(sql, "publication_changed").await;
    ground.check("update item set name = 'y' where id = 1", &["org:1"]).await;
    ground.daemon.until_ready().await;
    ground.stop().await;
}

#[tokio::test]
async fn of_all_tables_and_of_all_of_a_schema_those_count_that_are_mapped() {
    for of in ["all tables", "tables in schema public"] {
        let schema = format!("{TABLE} create publication unstale for {of};");
        let mut ground = Ground::new(&schema, RULES, &ORGS).await;
        ground.check("update item set name = 'x' where id = 1", &["org:1"]).await;
        // Others come and go, and change their shape.
        let sql = "create table other (a int primary key); insert into other values (1); drop table other";
        ground.check(sql, &[]).await;
        // Put in another's place, by which the application never noticed a thing.
        ground.execute("create table next (like item including all); alter table next replica identity full;
             insert into next select id, org, not active, name from item").await;
        let swap =
            "begin; alter table item rename to previous; alter table next rename to item; commit";
        ground.check_gap(swap, "publication_changed").await;
        ground.check("update item set name = 'y' where id = 2", &["org:2"]).await;
        ground.check("update previous set name = 'z'", &[]).await;
        if of.contains("schema") {
            // Out of the schema that is published: nothing may stay cached.
            ground.fill().await;
            ground.execute("create schema away; alter table item set schema away").await;
            ground.daemon.until_problem("publication unstale lacks item").await;
            assert_eq!(ground.gone().await, set(&ORGS));
            ground
                .execute("update away.item set name = 'w'; alter table away.item set schema public")
                .await;
            ground.daemon.until_ready().await;
            ground.check("update item set name = 'v' where id = 2", &["org:2"]).await;
        }
        if of == "all tables" {
            // Nothing of it is written to the WAL any more.
            ground.fill().await;
            ground.execute("alter table item set unlogged").await;
            ground.daemon.until_problem("publication unstale lacks item").await;
            assert_eq!(ground.gone().await, set(&ORGS));
            ground
                .execute("update item set name = 'unheard of'; alter table item set logged")
                .await;
            ground.daemon.until_ready().await;
            ground.check("update item set name = 'heard' where id = 2", &["org:2"]).await;
        }
        ground.stop().await;
    }
}

/// With event triggers it is told of in the stream: before anything that came after it counts as
/// fresh, all is gone.
#[tokio::test]
async fn a_table_that_is_published_no_more_without_a_word_of_the_publication_is_told_of() {
    let next =
        "create table next (like item including all); alter table next replica identity full;
        insert into next select id, org, not active, name from item";
    let swap =
        "begin; alter table item rename to previous; alter table next rename to item; commit;
        update item set name = 'n'; drop table previous";
    let anew = "begin; drop table item; create table item (id int primary key, org int, active boolean, name text);
        alter table item replica identity full; insert into item values (1, 1, true, 'anew'); commit";
    let unlogged = "alter table item set unlogged; update item set name = 'unheard of'";
    let away =
        "create schema away; alter table item set schema away; update away.item set name = 'w'";
    let renamed = "alter schema public rename to former; create schema public;
        create table heartbeat (n int); create table item (like former.item including all);
        alter table item replica identity full";
    for (of, changes) in [
        ("all tables", vec![("", anew), (next, swap), ("", renamed), ("", unlogged)]),
        ("tables in schema public", vec![("", anew), (next, swap), ("", away)]),
        ("table item", vec![(next, swap)]),
    ] {
        let schema = format!("{TABLE} create publication unstale for {of}; {}", announce::CREATE);
        let mut ground = Ground::new(&schema, RULES, &ORGS).await;
        for (before, change) in changes {
            ground.execute(before).await;
            ground.check_told(change).await;
            if change == anew || change == swap && of != "table item" || change == renamed {
                ground.daemon.until_ready().await;
            }
        }
        ground.stop().await;
    }
}

/// A second publication of the same server is nobody's business.
#[tokio::test]
async fn publications_of_others_change_nothing() {
    let schema = format!("{TABLE} create publication unstale for table item;");
    let mut ground = Ground::on(Postgres::start().await.unwrap(), &schema, RULES, &ORGS).await;
    let sql = "create publication theirs for table item where (org = 1) with (publish = 'insert');
               update item set name = 'x' where id = 1; alter publication theirs set (publish = 'delete');
               drop publication theirs";
    ground.check(sql, &["org:1"]).await;
    assert_eq!(ground.gaps().await.len(), 1);
    ground.stop().await;
}
