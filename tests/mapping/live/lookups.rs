//! Lookups that find, and lookups that are refused.

use super::Live;

#[tokio::test]
async fn a_lookup_follows_the_types_of_its_columns_and_says_when_it_cannot() {
    let schema = "
        create schema \"My Types\";
        create type \"My Types\".\"Kind\" as enum ('one', 'two words');
        create table thing (id bigint primary key, kind \"My Types\".\"Kind\");
        create table owner (kind \"My Types\".\"Kind\", org text);
        insert into owner values ('one', '1'), ('two words', '2'), (null, '3');
        alter table thing replica identity full;
        create publication unstale for table thing;";
    let rules = r#"
        [caches.c]
        key = "c:{org}"
        [[tables]]
        name = "thing"
        invalidates = [{ cache = "c", via = "select o.org from owner o join changed on changed.kind = o.kind" }]
    "#;
    let mut live = Live::new(schema, rules).await;
    let keys = ["c:1", "c:2", "c:3"];
    live.check(&keys, "insert into thing values (1, 'one')", &["c:1"]).await;
    live.check(&keys, "update thing set kind = 'two words'", &["c:1", "c:2"]).await;
    live.check(&keys, "update thing set kind = null", &["c:2"]).await;
    live.check(
        &keys,
        "insert into thing values (2, 'one'), (3, 'two words'); delete from thing",
        &["c:1", "c:2"],
    )
    .await;

    // A text does not compare with an enum: the lookup is refused.
    live.check(
        &keys,
        "alter table thing alter kind type text; insert into thing values (4, 'one')",
        &keys,
    )
    .await;
    assert!(live.escalations("c", "lookup_failed").await >= 1.0);
    live.daemon.until_problem("the lookup of thing").await;

    live.check(
        &keys,
        "alter table owner alter kind type text; insert into thing values (5, 'one')",
        &["c:1"],
    )
    .await;
    live.until_no_problem().await;
    live.stop().await;
}

#[tokio::test]
async fn a_lookup_that_is_refused_drops_its_cache_whole_until_it_is_mended() {
    let schema = "
        create role reader login replication;
        create table thing (id bigint primary key, kind int);
        create table owner (kind int, org int);
        insert into owner values (1, 1), (2, 2);
        alter table thing replica identity full;
        grant select on thing, owner to reader; grant pg_monitor to reader;
        create publication unstale for table thing;";
    let rules = r#"
        [caches.c]
        key = "c:{org}"
        [caches.plain]
        key = "plain:{id}"
        [[tables]]
        name = "thing"
        invalidates = [
          { cache = "c", via = "select o.org from owner o join changed on changed.kind = o.kind" },
          { cache = "plain", id = "id" },
        ]
    "#;
    let mut live = Live::with(schema, rules, "reader", &[]).await;
    let keys = ["c:1", "c:2", "plain:1", "plain:2"];
    live.check(&keys, "insert into thing values (1, 1)", &["c:1", "plain:1"]).await;

    live.check(
        &keys,
        "alter table owner rename to possessor; update thing set kind = 2",
        &["c:1", "c:2", "plain:1"],
    )
    .await;
    live.daemon.until_problem("the lookup of thing").await;
    assert_eq!(live.escalations("c", "lookup_failed").await, 1.0);
    assert_eq!(live.daemon.get("/healthz").await.unwrap().0, 200);

    live.run("alter table possessor rename to owner; revoke select on owner from reader").await;
    live.check(&keys, "update thing set kind = 1", &["c:1", "c:2", "plain:1"]).await;
    assert_eq!(live.escalations("c", "lookup_failed").await, 2.0);
    live.daemon.until_problem("42501").await;

    live.run("grant select on owner to reader").await;
    live.check(&keys, "update thing set kind = 2", &["c:1", "c:2", "plain:1"]).await;
    live.until_no_problem().await;
    live.check(&keys, "insert into thing values (2, 2)", &["c:2", "plain:2"]).await;
    // Made anew, it is another table of the same name.
    live.check(&keys, "drop table owner; create table owner (org text, kind bigint); grant select on owner to reader; insert into owner values ('2', 1); update thing set kind = 1 where id = 1", &["c:2", "plain:1"]).await;
    live.check(&keys, "drop table owner; insert into thing values (3, 3)", &["c:1", "c:2"]).await;
    live.daemon.until_problem("the lookup of thing").await;
    live.stop().await;
}

#[tokio::test]
async fn a_lookup_that_takes_too_long_drops_its_cache_whole() {
    let schema = "
        create table thing (id bigint primary key, seconds float);
        alter table thing replica identity full;
        create publication unstale for table thing;";
    let rules = r#"
        [caches.c]
        key = "c:{id}"
        [[tables]]
        name = "thing"
        invalidates = [
          { cache = "c", via = "select changed.id, pg_sleep(changed.seconds)::text as slept from changed" },
        ]
    "#;
    let mut live =
        Live::with(schema, rules, "postgres", &["postgres.statement_timeout=300ms"]).await;
    live.check(&["c:1", "c:2"], "insert into thing values (1, 0)", &["c:1"]).await;
    live.check(&["c:1", "c:2"], "insert into thing values (2, 30)", &["c:1", "c:2"]).await;
    live.daemon.until_problem("57014").await;
    live.check(&["c:1", "c:2"], "insert into thing values (3, 0)", &[]).await;
    live.until_no_problem().await;
    live.stop().await;
}

#[tokio::test]
async fn thousands_of_lookups_find_each_its_own() {
    let schema = "
        create table member (id bigint primary key, team int not null);
        create table team (id int primary key, name text);
        insert into team select i, 't' from generate_series(1, 20000) i;
        insert into member select i, i from generate_series(1, 20000) i;
        alter table team replica identity full; alter table member replica identity full;
        analyze;
        create publication unstale for table member, team;";
    let rules = r#"
        [caches.member]
        key = "m:{id}:{kind}"
        parameters = { kind = ["a b", 7] }
        [[tables]]
        name = "team"
        invalidates = [{ cache = "member", via = "select m.id from member m join changed on changed.id = m.team" }]
        [[tables]]
        name = "member"
        invalidates = [{ cache = "member", id = "id" }]
    "#;
    let mut live = Live::new(schema, rules).await;
    let all: Vec<String> = (1..=20_000).map(|i| format!("m:{i}:7")).collect();
    let mut pipeline = redis::pipe();
    for key in &all {
        pipeline.set_ex(format!("prs_cache:1:{key}"), "{}", 3600).ignore();
    }
    let _: () = pipeline.query_async(&mut live.values).await.unwrap();
    live.check(
        &["m:1:a%20b", "m:2000:a%20b", "m:2000:a b"],
        "update team set name = 'x' where id between 1001 and 2000",
        &["m:2000:a%20b"],
    )
    .await;
    let left = live.world.keys().await;
    assert_eq!(all.iter().filter(|key| !left.contains(*key)).count(), 1000);
    // More than one query takes, and old and new rows both.
    live.check(&[], "update team set id = id + 100000 where id between 3001 and 15000", &[]).await;
    let left = live.world.keys().await;
    assert_eq!(all.iter().filter(|key| !left.contains(*key)).count(), 13_000);
    live.stop().await;
}
