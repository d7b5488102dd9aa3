//! REPLICA IDENTITY of all four kinds, and its change while rows come.

use super::Ground;

const SCHEMA: &str = "
    create table item (id int primary key, org int not null, name text);
    create unique index item_org on item (id, org);
    insert into item values (1, 1, 'a'), (2, 2, 'b'), (3, 3, 'c');
    create publication unstale for table item;";

const RULES: &str = r#"
    [caches.org]
    key = "org:{k}"
    query = "select coalesce(jsonb_agg(jsonb_build_array(id, name) order by id), '[]') from item where org = $k::int"
    ttl = "1h"
    [caches.item]
    key = "item:{k}"
    query = "select to_jsonb(i) from item i where id = $k::int"
    ttl = "1h"
    [[tables]]
    name = "item"
    invalidates = [{ cache = "org", k = "org" }, { cache = "item", k = "id" }]
"#;

const ENTRIES: [&str; 6] = ["org:1", "org:2", "org:3", "item:1", "item:2", "item:3"];

#[tokio::test]
async fn whichever_identity_a_table_has_and_gets_nothing_stale_is_left() {
    let mut ground = Ground::new(SCHEMA, RULES, &ENTRIES).await;
    let orgs = ["org:1", "org:2", "org:3"];
    for round in 0..2 {
        // Nothing but the key: whose entry it was is unknown.
        ground.execute("alter table item replica identity default").await;
        let sql = format!("update item set name = 'd{round}' where id = 1");
        ground.check_more(&sql, &["org:1", "item:1"], &[&orgs[..], &["item:1"]].concat()).await;
        ground.check_says("item: changes carry no old value of org").await;

        // An old row that comes has the key, and nulls that mean nothing.
        let moved =
            format!("delete from item where id = 3; insert into item values (3, 2, 'm{round}')");
        let (of_3, back) = (["org:2", "org:3", "item:3"], "update item set org = 3 where id = 3");
        let gone = [&orgs[..], &["item:3"]].concat();
        ground.check_more(&moved, &of_3, &gone).await;
        ground.check_more(back, &of_3, &gone).await;

        // In one transaction with rows before and after it.
        let sql = format!(
            "begin; update item set name = 'x{round}' where id = 2;
             alter table item replica identity full;
             update item set org = 2 where id = 1; update item set org = 1 where id = 1;
             update item set name = 'y{round}' where id = 3; commit"
        );
        let changed = ["org:2", "org:3", "item:2", "item:3"];
        let gone = [&orgs[..], &["item:1", "item:2", "item:3"]].concat();
        ground.check_more(&sql, &changed, &gone).await;
        let sql = format!("update item set name = 'f{round}' where id = 1");
        ground.check(&sql, &["org:1", "item:1"]).await;
        ground.check("update item set org = 2 where id = 1", &["org:1", "org:2", "item:1"]).await;
        ground.check("update item set org = 1 where id = 1", &["org:1", "org:2", "item:1"]).await;

        ground.execute("alter table item replica identity using index item_org").await;
        let sql = format!("update item set name = 'i{round}' where id = 1");
        ground.check(&sql, &["org:1", "item:1"]).await;
        ground.check("update item set org = 3 where id = 1", &["org:1", "org:3", "item:1"]).await;
        ground.check("update item set org = 1 where id = 1", &["org:1", "org:3", "item:1"]).await;

        ground.check(&moved, &of_3).await;
        ground.check(back, &of_3).await;

        // Nothing: the server itself refuses what could not be told.
        ground.execute("alter table item replica identity nothing").await;
        let refused = ground.client.batch_execute("update item set name = 'n'").await;
        assert!(refused.is_err(), "it is published without an identity");
        ground.check_says("UPDATE AND DELETE ON item FAIL").await;
        let id = 10 + round;
        ground.check(&format!("insert into item values ({id}, 1, 'n')"), &["org:1"]).await;
    }
    assert_eq!(ground.gaps().await.len(), 1);
    ground.stop().await;
}

/// An index that carries the old values is dropped, and the table's identity with it.
#[tokio::test]
async fn an_identity_whose_index_goes_leaves_nothing_stale() {
    let mut ground = Ground::new(SCHEMA, RULES, &ENTRIES).await;
    ground.execute("alter table item replica identity using index item_org").await;
    ground.check("update item set name = 'i' where id = 1", &["org:1", "item:1"]).await;
    ground.execute("drop index item_org").await;
    assert!(ground.client.batch_execute("update item set name = 'x'").await.is_err());
    ground.execute("alter table item replica identity full").await;
    ground.check("update item set name = 'j' where id = 1", &["org:1", "item:1"]).await;
    // Another primary key: another column names the old row.
    let sql = "begin; alter table item replica identity default; alter table item drop constraint item_pkey;
               alter table item add primary key (org, id); commit";
    ground.execute(sql).await;
    ground.check("update item set name = 'k' where id = 1", &["org:1", "item:1"]).await;
    ground.check("update item set org = 2 where id = 1", &["org:1", "org:2", "item:1"]).await;
    ground.stop().await;
}
