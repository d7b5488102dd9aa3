//! Schemas, and names that need quotes.

use super::Ground;

/// Tables differ by case or schema alone; what no rule is for is published, too.
const SCHEMA: &str = r#"
    create schema "Sales Dept"; create schema other;
    create table "Sales Dept"."Order ""Items""" ("Id" int primary key, "shopId" int not null, "a""b" text, id int);
    create table item (id int primary key, org int not null, name text);
    create table "Item" (id int primary key, org int not null, name text);
    create table other.item (id int primary key, org int not null, name text);
    alter table "Sales Dept"."Order ""Items""" replica identity full; alter table item replica identity full;
    alter table "Item" replica identity full; alter table other.item replica identity full;
    insert into "Sales Dept"."Order ""Items""" values (1, 1, 'a', 2), (2, 2, 'b', 1);
    insert into item values (1, 1, 'a'); insert into "Item" values (1, 1, 'a');
    insert into other.item values (1, 1, 'a');
    create publication unstale for table "Sales Dept"."Order ""Items""", item, "Item", other.item;"#;

const RULES: &str = r#"
    [caches.shop]
    key = "shop:{k}"
    query = '''select coalesce(jsonb_agg(jsonb_build_array("Id", "a""b") order by "Id"), '[]') from "Sales Dept"."Order ""Items""" where "shopId" = $k::int'''
    ttl = "1h"
    [caches.line]
    key = "line:{k}"
    query = '''select coalesce(jsonb_agg("a""b"), '[]') from "Sales Dept"."Order ""Items""" where "Id" = $k::int'''
    ttl = "1h"
    [caches.lower]
    key = "lower:{k}"
    query = "select coalesce(jsonb_agg(name), '[]') from item where org = $k::int"
    ttl = "1h"
    [caches.upper]
    key = "upper:{k}"
    query = '''select coalesce(jsonb_agg(name), '[]') from "Item" where org = $k::int'''
    ttl = "1h"
    [[tables]]
    name = '"Sales Dept"."Order ""Items"""'
    invalidates = [
        { cache = "shop", k = '"shopId"', columns = ['"Id"', '"shopId"', '"a""b"'] },
        { cache = "line", via = '''select changed."Id" as k from changed''', where = '''"a""b" is not null''' },
    ]
    [[tables]]
    name = "public.ITEM"
    invalidates = [{ cache = "lower", k = "ORG" }]
    [[tables]]
    name = '"Item"'
    invalidates = [{ cache = "upper", k = "org" }]
"#;

const ENTRIES: [&str; 6] = ["shop:1", "shop:2", "line:1", "line:2", "lower:1", "upper:1"];

#[tokio::test]
async fn tables_are_told_apart_by_schema_and_case_and_columns_by_case() {
    let mut ground = Ground::new(SCHEMA, RULES, &ENTRIES).await;
    let items = r#""Sales Dept"."Order ""Items""""#;
    let sql = format!(r#"update {items} set "a""b" = 'x' where "Id" = 1"#);
    ground.check(&sql, &["shop:1", "line:1"]).await;
    let sql = format!(r#"update {items} set "shopId" = 2 where "Id" = 1"#);
    ground.check_more(&sql, &["shop:1", "shop:2"], &["shop:1", "shop:2", "line:1"]).await;
    // `id` is another column than `"Id"`.
    let sql = format!(r#"update {items} set id = id + 5 where "Id" = 2"#);
    ground.check_more(&sql, &[], &["line:2"]).await;
    ground.check("update item set name = 'x'", &["lower:1"]).await;
    ground.check(r#"update "Item" set name = 'x'"#, &["upper:1"]).await;
    ground.check("update other.item set name = 'x'; truncate other.item", &[]).await;
    // A row, a rewrite and a TRUNCATE name their tables each in a way of its own.
    let sql = r#"alter table "Item" alter name type varchar using name || '!'"#;
    ground.check_soon(sql, &["upper:1"], &["upper:1"]).await;
    let all = ["shop:1", "shop:2", "line:1", "line:2"];
    ground.check_more(&format!("truncate {items}"), &["shop:2", "line:1", "line:2"], &all).await;
    // One takes the place of another.
    let sql = r#"begin; alter table item rename to "was item"; alter table "Item" rename to item;
                 alter table "was item" rename to "Item"; commit"#;
    ground.check_gap(sql, "publication_changed").await;
    ground.check("update item set name = 'y'", &["lower:1"]).await;
    ground.check(r#"update "Item" set name = 'y'"#, &["upper:1"]).await;
    ground.stop().await;
}
