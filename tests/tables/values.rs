//! What a column may hold: values stored apart, generated ones, types of all kinds, keys of
//! several columns.

use super::{Ground, taken_apart};
use unstale::sandbox::Postgres;

/// A value that is stored apart from its row, and is not sent again while it stays.
fn long(letter: char) -> String {
    std::iter::repeat_n(letter, 2200).collect()
}

#[tokio::test]
async fn a_value_stored_apart_that_was_not_touched_still_names_its_entry() {
    let schema = "
        create table doc (id int primary key, slug text not null, body text, n int);
        alter table doc alter slug set storage external, alter body set storage external;
        alter table doc set (toast_tuple_target = 128);
        create unique index doc_slug on doc (id, slug);
        alter table doc replica identity full;
        create publication unstale for table doc;";
    let rules = r#"
        [caches.doc]
        key = "doc:{k}"
        query = "select coalesce(jsonb_agg(jsonb_build_array(d.id, d.n, md5(d.body)) order by d.id), '[]') from doc d where d.slug = $k::text"
        ttl = "1h"
        [[tables]]
        name = "doc"
        invalidates = [{ cache = "doc", k = "slug" }]
    "#;
    let (a, b) = (format!("doc:{}", long('a')), format!("doc:{}", long('b')));
    let mut ground = Ground::new(schema, rules, &[&a, &b]).await;
    let insert = format!(
        "insert into doc values (1, '{}', repeat('x', 3000), 0), (2, '{}', repeat('y', 3000), 0)",
        long('a'),
        long('b')
    );
    ground.check(&insert, &[&a, &b]).await;
    let apart = "select count(*)::text from pg_class t join pg_class c on c.reltoastrelid = t.oid \
                 where c.relname = 'doc' and pg_relation_size(t.oid) > 0";
    assert_eq!(ground.world.query_one(apart).await, "1", "nothing is stored apart");

    // Neither the key's value nor the other long one comes with the new row.
    ground.check("update doc set n = 1 where id = 1", &[&a]).await;
    ground.check("update doc set body = repeat('z', 3000) where id = 2", &[&b]).await;
    let moved = format!("update doc set slug = '{}' where id = 1", long('b'));
    ground.check(&moved, &[&a, &b]).await;
    let back = format!("update doc set slug = '{}' where id = 1", long('a'));
    ground.check(&back, &[&a, &b]).await;

    // By an index the old value comes although it is stored apart.
    ground.execute("alter table doc replica identity using index doc_slug").await;
    ground.check("update doc set n = 2 where id = 1", &[&a]).await;
    ground.check(&moved, &[&a, &b]).await;
    ground.check("delete from doc where id = 2", &[&b]).await;
    ground.check(&back, &[&a, &b]).await;

    // By the primary key alone nobody knows whose entry it is: all go.
    ground.execute("alter table doc replica identity default").await;
    ground.check_more("update doc set n = 3 where id = 1", &[&a], &[&a, &b]).await;
    ground.stop().await;
}

#[tokio::test]
async fn a_generated_column_changes_with_those_behind_it() {
    let postgres = Postgres::start().await.unwrap();
    let version = postgres.client().await.unwrap().query_one("show server_version_num", &[]).await;
    let version: u32 = version.unwrap().get::<_, &str>(0).parse().unwrap();
    // From then on the whole row is no identity unless all of it is published.
    let all = if version >= 180_000 { "with (publish_generated_columns = stored)" } else { "" };
    let schema = "
        create table line (id int primary key, item int not null, price numeric not null, n int not null,
                           total numeric generated always as (price * n) stored);
        alter table line replica identity full;
        create publication unstale for table line";
    let rules = r#"
        [caches.total]
        key = "total:{k}"
        query = "select coalesce(jsonb_agg(total order by id), '[]') from line where item = $k::int"
        ttl = "1h"
        [[tables]]
        name = "line"
        invalidates = [{ cache = "total", k = "item", columns = ["id", "item", "price", "n"] }]
    "#;
    let schema = format!("{schema} {all}");
    let mut ground = Ground::on(postgres, &schema, rules, &["total:1", "total:2"]).await;
    ground
        .check("insert into line values (1, 1, 2.50, 2), (2, 2, 1, 1)", &["total:1", "total:2"])
        .await;
    ground.check("update line set n = 3 where id = 1", &["total:1"]).await;
    ground.check("update line set price = 3 where id = 2", &["total:2"]).await;
    ground.check("update line set n = 3 where id = 1", &[]).await;
    ground.check_says("total: every change of what it reads reaches it").await;

    // Computed in another way: every row is written anew, and no row is sent.
    let sql = "alter table line drop total;
               alter table line add total numeric generated always as (price * n + 1) stored";
    ground.check_soon(sql, &["total:1", "total:2"], &["total:1", "total:2"]).await;
    if version >= 180_000 {
        // Computed when it is read: nobody can publish it, so the key alone is left.
        let sql = "alter table line replica identity default; alter table line drop total;
                   alter table line add total numeric generated always as (price * n + 2) virtual";
        ground.execute(sql).await;
        ground.settle().await;
        let both = ["total:1", "total:2"];
        ground.check_more("update line set n = 4 where id = 1", &["total:1"], &both).await;
        ground.check_says("total: every change of what it reads reaches it").await;
        ground.check_says("line: changes carry no old value of item").await;
        ground.execute("alter table line replica identity full").await;
        ground.check_says("UPDATE AND DELETE ON line FAIL").await;
        assert!(ground.client.batch_execute("update line set n = 5").await.is_err());
    }
    ground.stop().await;
}

/// Every kind of value that the stream may write, as a part of a key.
#[tokio::test]
async fn types_of_all_kinds_name_their_entries() {
    let schema = r#"
        create schema kinds;
        create domain kinds.amount as numeric(10, 2) check (value >= 0);
        create domain kinds.code as text check (value <> '');
        create type kinds.state as enum ('new', 'in work', 'done');
        create type kinds.pair as (a int, b text);
        create table thing (
            id uuid primary key, n smallint, big bigint, price kinds.amount, code kinds.code,
            state kinds.state, tags text[], pair kinds.pair, flag boolean, day date,
            at timestamptz, span interval, ip inet, bits bit(4), raw bytea, doc jsonb, range int4range);
        alter table thing replica identity full;
        create publication unstale for table thing;"#;
    let columns = [
        ("id", "uuid"),
        ("n", "smallint"),
        ("big", "bigint"),
        ("price", "kinds.amount"),
        ("code", "kinds.code"),
        ("state", "kinds.state"),
        ("tags", "text[]"),
        ("pair", "kinds.pair"),
        ("flag", "boolean"),
        ("day", "date"),
        ("span", "interval"),
        ("ip", "inet"),
        ("bits", "bit(4)"),
        ("raw", "bytea"),
        ("range", "int4range"),
    ];
    let mut rules = String::new();
    let mut invalidates = String::new();
    for (column, kind) in columns {
        rules += &format!(
            "[caches.of_{column}]\nkey = \"of_{column}:{{k}}\"\nttl = \"1h\"\n\
             query = \"select jsonb_build_object('n', count(*), 'docs', jsonb_agg(doc order by id)) from thing where {column} = $k::{kind}\"\n"
        );
        invalidates += &format!("{{ cache = \"of_{column}\", k = \"{column}\" }},\n");
    }
    rules += &format!("[[tables]]\nname = \"thing\"\ninvalidates = [\n{invalidates}]\n");
    let before = [
        "of_id:5e2b5a5e-0000-4000-8000-000000000001",
        "of_n:-7",
        "of_big:9223372036854775807",
        "of_price:1.50",
        "of_code:x",
        "of_state:in work",
        "of_tags:{\"a b\",c}",
        "of_pair:(1,\"x y\")",
        "of_flag:t",
        "of_day:2024-02-29",
        "of_span:1 day 02",
        "of_ip:10.0.0.1/8",
        "of_bits:1010",
        "of_raw:\\xdeadbeef",
        "of_range:[1,5)",
    ];
    let mut ground = Ground::new(schema, &rules, &[]).await;
    // A colon would be taken for the end of a parameter here, and the interval has two.
    let entries: Vec<(String, String)> = before
        .iter()
        .map(|key| {
            let (cache, values) = taken_apart(key);
            let value = if cache == "of_span" { "1 day 02:03:04" } else { values[0].1 };
            (cache.to_owned(), value.to_owned())
        })
        .collect();
    let row =
        "'5e2b5a5e-0000-4000-8000-000000000001', -7, 9223372036854775807, 1.5, 'x', 'in work',
               '{a b,c}', '(1,x y)', true, '2024-02-29', '2024-02-29 12:00+00', '1 day 2:3:4',
               '10.0.0.1/8', '1010', '\\xdeadbeef', '{}', '[1,4]'";
    for (what, sql) in [
        ("insert", format!("insert into thing values ({row})")),
        ("update", "update thing set doc = '{\"a\": 1}'".to_owned()),
        ("delete", "delete from thing".to_owned()),
    ] {
        let mut stored = Vec::new();
        for (cache, value) in &entries {
            let values = [("k", value.as_str())];
            let (text, how) = ground.reader.read(cache, &values).await;
            assert!(format!("{how:?}").contains("Stored"), "{what} {cache}: {how:?}");
            stored.push(text);
        }
        assert_eq!(ground.world.keys().await.len(), entries.len(), "each is stored");
        ground.execute(&sql).await;
        ground.settle().await;
        let left = ground.world.keys().await;
        assert!(left.is_empty(), "{what} left {left:?}\n{}", ground.daemon.log());
        for ((cache, value), was) in entries.iter().zip(stored) {
            let cache = ground.reader.cache(cache);
            let is = ground.reader.filler.load_past(cache, &[("k", value)]).await.unwrap();
            assert_ne!(is.map(Vec::from), was.map(String::into_bytes), "{what} changes nothing");
        }
    }
    ground.stop().await;
}

#[tokio::test]
async fn keys_of_several_columns_and_tables_without_any() {
    let schema = "
        create table seat (org int, row_no int, name text, note text, primary key (org, row_no));
        create table log (org int, what text);
        alter table log replica identity full;
        create publication unstale for table seat, log;";
    let rules = r#"
        [caches.seat]
        key = "seat:{k}:{l}"
        query = "select coalesce(jsonb_agg(name), '[]') from seat s where org = $k::int and row_no = $l::int"
        ttl = "1h"
        [caches.log]
        key = "log:{k}"
        query = "select coalesce(jsonb_agg(what order by what), '[]') from log where org = $k::int"
        ttl = "1h"
        [[tables]]
        name = "seat"
        invalidates = [{ cache = "seat", k = "org", l = "row_no" }]
        [[tables]]
        name = "log"
        invalidates = [{ cache = "log", k = "org" }]
    "#;
    let mut ground =
        Ground::new(schema, rules, &["seat:1:1", "seat:1:2", "seat:2:1", "log:1", "log:2"]).await;
    ground
        .check("insert into seat values (1, 1, 'a'), (2, 1, 'b')", &["seat:1:1", "seat:2:1"])
        .await;
    ground.check("update seat set name = 'c' where org = 1", &["seat:1:1"]).await;
    // The old key comes with any identity.
    ground.check("update seat set row_no = 2 where org = 1", &["seat:1:1", "seat:1:2"]).await;
    ground.check("delete from seat where org = 2", &["seat:2:1"]).await;
    // Of two rows that are alike, one goes.
    ground.check("insert into log values (1, 'x'), (1, 'x'), (2, 'y')", &["log:1", "log:2"]).await;
    ground
        .check("delete from log where ctid = (select min(ctid) from log where org = 1)", &["log:1"])
        .await;
    ground.check("update log set org = 2 where org = 1", &["log:1", "log:2"]).await;
    assert_eq!(ground.gaps().await.len(), 1);
    ground.stop().await;
}
