//! What a row's values lead to, and what those lead to that the stream does not carry.

use super::{ITEM_KEYS, ITEM_RULES, ITEMS, Live};

#[tokio::test]
async fn a_condition_holds_for_the_old_and_the_new_row_each_for_itself() {
    let schema = "
        create table job (id bigint primary key, org bigint, status text, urgent boolean, note text);
        alter table job replica identity full;
        create publication unstale for table job;";
    let rules = r#"
        [caches.open]
        key = "open:{org}"
        [caches.closing]
        key = "closing:{org}"
        [caches.urgent]
        key = "urgent:{org}"
        [caches.made]
        key = "made:{org}"
        [[tables]]
        name = "job"
        invalidates = [
          { cache = "open", org = "org", where = "status = 'open'", columns = ["org", "status"] },
          { cache = "closing", org = "org", on = ["update"], where = "old.status = 'open' and new.status <> 'open'" },
          { cache = "urgent", org = "org", where = "urgent and status not in ('closed', 'void')" },
          { cache = "made", org = "org", on = ["insert", "delete"] },
        ]
    "#;
    let mut live = Live::new(schema, rules).await;
    let keys =
        ["open:1", "open:2", "closing:1", "closing:2", "urgent:1", "urgent:2", "made:1", "made:2"];
    live.check(&keys, "insert into job values (1, 1, 'open', false)", &["open:1", "made:1"]).await;
    live.check(&keys, "insert into job values (2, 1, 'closed', true)", &["made:1"]).await;
    live.check(&keys, "update job set note = 'x'", &[]).await;
    live.check(&keys, "update job set org = 2 where id = 2", &[]).await;
    live.check(
        &keys,
        "update job set org = 2, urgent = true where id = 1",
        &["open:1", "open:2", "urgent:2"],
    )
    .await;
    live.check(
        &keys,
        "update job set status = 'closed', org = 1 where id = 1",
        &["open:2", "urgent:2", "closing:1", "closing:2"],
    )
    .await;
    live.check(&keys, "update job set status = null where id = 1", &[]).await;
    live.check(&keys, "update job set status = 'open' where id = 1", &["open:1", "urgent:1"]).await;
    live.check(&keys, "delete from job", &["open:1", "urgent:1", "made:1", "made:2"]).await;
    // Nothing is known of the rows that were there.
    live.check(
        &keys,
        "truncate job",
        &["open:1", "open:2", "urgent:1", "urgent:2", "made:1", "made:2"],
    )
    .await;
    live.stop().await;
}

#[tokio::test]
async fn an_old_value_that_is_not_carried_drops_the_cache_whole_and_is_counted() {
    let mut live =
        Live::new(&ITEMS.replace("replica identity full", "replica identity default"), ITEM_RULES)
            .await;
    let unknown = "old_value_unknown";
    live.check(&ITEM_KEYS, "insert into item values (3, 3)", &["org:3", "id:3"]).await;
    live.check(
        &ITEM_KEYS,
        "update item set org = 2 where id = 1",
        &["org:1", "org:2", "org:3", "id:1"],
    )
    .await;
    assert_eq!(live.escalations("by_org", unknown).await, 1.0);
    live.check(
        &ITEM_KEYS,
        "update item set note = 'x' where id = 1",
        &["org:1", "org:2", "org:3", "id:1"],
    )
    .await;
    live.check(&ITEM_KEYS, "delete from item where id = 1", &["org:1", "org:2", "org:3", "id:1"])
        .await;
    assert_eq!(live.escalations("by_org", unknown).await, 3.0);
    // A changed key is carried by every identity.
    live.check(
        &ITEM_KEYS,
        "update item set id = 1 where id = 2",
        &["org:1", "org:2", "org:3", "id:1", "id:2"],
    )
    .await;

    let sql = "alter table item alter org set not null; update item set name = ''; alter table item alter name set not null;
               create unique index unstale_ri_item on item (id, org, name);
               alter table item replica identity using index unstale_ri_item";
    live.run(sql).await;
    let counted = live.escalations("by_org", unknown).await;
    live.check(&ITEM_KEYS, "update item set note = 'y' where id = 1", &["id:1"]).await;
    let counted = live.escalations("by_org", unknown).await.max(counted);
    live.check(&ITEM_KEYS, "update item set org = 1 where id = 1", &["org:1", "org:2", "id:1"])
        .await;
    live.check(&ITEM_KEYS, "delete from item where id = 1", &["org:1", "id:1"]).await;
    assert_eq!(live.escalations("by_org", unknown).await, counted);

    live.check(
        &ITEM_KEYS,
        "alter table item replica identity full; update item set org = 1 where id = 3",
        &["org:1", "org:3", "id:3"],
    )
    .await;

    // Then Postgres refuses to update or delete; what is inserted is exact.
    live.check(
        &ITEM_KEYS,
        "alter table item replica identity nothing; insert into item values (2, 2, '')",
        &["org:2", "id:2"],
    )
    .await;
    live.stop().await;
}

#[tokio::test]
async fn a_transaction_past_the_key_limit_drops_the_largest_caches_whole() {
    let limit = ["pipeline.max_keys_per_transaction=100"];
    let mut live = Live::with(ITEMS, ITEM_RULES, "postgres", &limit).await;
    let keys = ["org:1", "org:77", "org:7777", "id:1", "id:77", "id:7777"];
    // 100 keys, then 162.
    live.check(
        &keys,
        "insert into item select 1000 + i, 100 + i from generate_series(1, 50) i",
        &[],
    )
    .await;
    let sql = "insert into item select 2000 + i, 77 + i from generate_series(0, 80) i;";
    live.check(&keys, sql, &["org:77", "id:1", "id:77", "id:7777"]).await;
    assert_eq!(live.escalations("by_id", "key_limit").await, 1.0);
    assert_eq!(live.escalations("by_org", "key_limit").await, 0.0);
    // However often they change, few keys are few keys.
    let sql = "do $$ begin
                 for i in 1..300 loop update item set name = i::text where id = 1; end loop;
               end $$";
    live.check(&keys, sql, &["org:1", "id:1"]).await;
    let sql =
        "begin; insert into item select 3000 + i, 300 + i from generate_series(1, 200) i; commit";
    live.check(&keys, sql, &keys).await;
    assert_eq!(live.escalations("by_org", "key_limit").await, 1.0);
    live.stop().await;
}

#[tokio::test]
async fn no_value_forges_another_key() {
    let schema = "
        create table pair (a text, b text);
        alter table pair replica identity full;
        create publication unstale for table pair;";
    let rules = r#"
        [caches.pair]
        key = "p:{a}:{b}"
        [caches.scoped]
        key = "s:{a}:{generation}:{q}"
        scope = ["a"]
        [caches.via]
        key = "v:{b}:{a}"
        [[tables]]
        name = "pair"
        invalidates = [
          { cache = "pair", a = "a", b = "b" },
          { cache = "scoped", a = "a" },
          { cache = "via", via = "select changed.a, changed.b from changed" },
        ]
    "#;
    let mut live = Live::new(schema, rules).await;
    let keys = [
        "p:x%3Ay:z",
        "p:x:y%3Az",
        "p:x:y:z",
        "p:x:y",
        "v:z:x%3Ay",
        "v:y%3Az:x",
        "s:x:generation",
        "s:x%3Ay:generation",
        "s:x:f00d:q",
        "s:x%3Ay:f00d:q",
    ];
    live.check(
        &keys,
        "insert into pair values ('x:y', 'z')",
        &["p:x%3Ay:z", "v:z:x%3Ay", "s:x%3Ay:generation"],
    )
    .await;
    live.check(
        &keys,
        "insert into pair values ('x', 'y:z')",
        &["p:x:y%3Az", "v:y%3Az:x", "s:x:generation"],
    )
    .await;
    let keys = [
        "p::",
        "p:%25:%2A",
        "p:*:*",
        "p:%:*",
        "p:a%20b%0Ac:Größe%F0%9F",
        "p:a%20b%0Ac:Größe🙂",
        "p:a",
        "s:%7Bgeneration%7D:generation",
        "s:generation:generation",
    ];
    live.check(&keys, "insert into pair values ('', '')", &["p::"]).await;
    live.check(&keys, "insert into pair values ('%', '*')", &["p:%25:%2A"]).await;
    live.check(&keys, "insert into pair values (E'a b\nc', 'Größe🙂')", &["p:a%20b%0Ac:Größe🙂"])
        .await;
    live.check(
        &keys,
        "insert into pair values ('{generation}', '')",
        &["s:%7Bgeneration%7D:generation"],
    )
    .await;
    live.check(&keys, "insert into pair values (null, 'x'), ('a', null)", &[]).await;
    live.stop().await;
}

#[tokio::test]
async fn two_rules_of_a_cache_reach_what_either_of_them_reaches() {
    let schema = "
        create table transfer (id bigint primary key, payer bigint, payee bigint);
        alter table transfer replica identity full;
        create publication unstale for table transfer;";
    let rules = r#"
        [caches.balance]
        key = "b:{account}"
        [[tables]]
        name = "transfer"
        invalidates = [
          { cache = "balance", account = "payer" },
          { cache = "balance", account = "payee" },
          { cache = "balance", whole = true, where = "payer is null and payee is null" },
        ]
    "#;
    let mut live = Live::new(schema, rules).await;
    let keys = ["b:1", "b:2", "b:3", "b:4"];
    live.check(&keys, "insert into transfer values (1, 1, 2)", &["b:1", "b:2"]).await;
    live.check(&keys, "update transfer set payee = 3", &["b:1", "b:2", "b:3"]).await;
    live.check(&keys, "update transfer set payee = null", &["b:1", "b:3"]).await;
    live.check(&keys, "insert into transfer values (2, 4, 4)", &["b:4"]).await;
    live.check(&keys, "update transfer set payer = null where id = 1", &keys).await;
    assert_eq!(live.escalations("balance", "rule").await, 1.0);
    live.stop().await;
}
