//! All ways in which rows are written.

use std::time::Duration;

use super::{Ground, set, until};
use unstale::sandbox::Postgres;

const SCHEMA: &str = "
    create table org (id int primary key, name text);
    create table item (id int primary key,
        org int not null references org (id) on delete cascade on update cascade deferrable initially deferred,
        name text, rank int unique deferrable initially deferred);
    create table note (id int primary key, org int references org (id) on delete set null, text text);
    alter table org replica identity full; alter table item replica identity full;
    alter table note replica identity full;
    insert into org select i, 'org ' || i from generate_series(1, 5) i;
    insert into item select i, i, 'item ' || i, i from generate_series(1, 3) i;
    insert into note select i, i, 'note ' || i from generate_series(1, 3) i;
    create publication unstale for table org, item, note;";

const RULES: &str = r#"
    [caches.items]
    key = "items:{k}"
    query = "select coalesce(jsonb_agg(jsonb_build_array(id, name, rank) order by id), '[]') from item where org = $k::int"
    ttl = "1h"
    [caches.notes]
    key = "notes:{k}"
    query = "select coalesce(jsonb_agg(jsonb_build_array(id, text) order by id), '[]') from note where org = $k::int"
    ttl = "1h"
    [[tables]]
    name = "item"
    invalidates = [{ cache = "items", k = "org", columns = ["id", "org", "name", "rank"] }]
    [[tables]]
    name = "note"
    invalidates = [{ cache = "notes", k = "org" }]
"#;

const ENTRIES: [&str; 10] = [
    "items:1", "items:2", "items:3", "items:4", "items:5", "notes:1", "notes:2", "notes:3",
    "notes:4", "notes:5",
];

#[tokio::test]
async fn what_the_server_does_by_itself_reaches_what_depends_on_it() {
    let mut ground = Ground::new(SCHEMA, RULES, &ENTRIES).await;
    // No statement names these tables.
    ground.check("delete from org where id = 1", &["items:1", "notes:1"]).await;
    let both = ["items:2", "items:4", "notes:2"];
    let sql = "begin; update note set org = null where org = 2; delete from org where id = 4;
               update org set id = 4 where id = 2; commit";
    ground.check(sql, &both).await;
    // Checked at the commit: until then two rows have one rank, and an item no organization.
    let sql = "begin; update item set rank = 3 where id = 2; update item set rank = 2 where id = 3; commit";
    ground.check(sql, &["items:3", "items:4"]).await;
    let sql = "begin; insert into item values (9, 9, 'early', 9); insert into org values (9, 'late'); commit;
               begin; update item set org = 5 where id = 9; commit";
    ground.check(sql, &["items:5"]).await;
    // Refused at the commit: nothing has happened.
    ground.fill().await;
    let sql =
        "begin; insert into item values (10, 99, 'nobody', 10); update item set name = 'x'; commit";
    assert!(ground.client.batch_execute(sql).await.is_err());
    ground.settle().await;
    assert_eq!(ground.gone().await, set(&[]));

    // As a restore does it: without triggers, hence without the cascade.
    let sql = "set session_replication_role = replica; delete from org where id = 5;
               update note set text = 'r' where id = 3; reset session_replication_role";
    ground.check(sql, &["notes:3"]).await;
    let sql = "create function shout() returns trigger language plpgsql as
                 'begin update note set text = upper(text) where org = new.org; return null; end';
               create trigger shout after update on item for each row execute function shout();
               update item set name = 'loud' where id = 3";
    ground.check(sql, &["items:3", "notes:3"]).await;
    ground.stop().await;
}

#[tokio::test]
async fn every_statement_that_writes_reaches_what_depends_on_it() {
    let mut ground = Ground::new(SCHEMA, RULES, &ENTRIES).await;
    let upsert = "insert into item values (1, 1, 'new', 1), (20, 2, 'more', 20)
                  on conflict (id) do update set name = excluded.name";
    ground.check(upsert, &["items:1", "items:2"]).await;
    let nothing =
        "insert into item values (1, 3, 'no', 1), (21, 4, 'yes', 21) on conflict do nothing";
    // A deferrable constraint cannot be an arbiter, the key can.
    let nothing = nothing.replace("on conflict do", "on conflict (id) do");
    ground.check(&nothing, &["items:4"]).await;
    let merge = "merge into item using (values (1, 'merged'), (20, null), (22, 'made')) as s (id, name) on item.id = s.id
                 when matched and s.name is null then delete
                 when matched then update set name = s.name
                 when not matched then insert values (s.id, 5, s.name, s.id)";
    ground.check(merge, &["items:1", "items:2", "items:5"]).await;
    let moved = "with gone as (delete from item where id in (21, 22) returning *)
                 insert into item select id + 10, 3, name, rank + 10 from gone";
    ground.check(moved, &["items:3", "items:4", "items:5"]).await;
    let by_hand = "begin; declare c cursor for select * from item where id = 2 for update; fetch c;
                   update item set name = 'current' where current of c; commit";
    ground.check(by_hand, &["items:2"]).await;
    let exception = "do $$ begin
            update item set name = 'kept' where id = 1;
            begin update item set name = 'lost' where id = 2; raise 'x'; exception when others then null; end;
        end $$";
    ground.check(exception, &["items:1"]).await;
    let program = "create procedure many() language plpgsql as
            'begin update item set name = ''one'' where id = 1; commit; update item set name = ''two'' where id = 2; rollback;
             update item set name = ''three'' where id = 3; end'";
    ground.execute(program).await;
    ground.check("call many()", &["items:1", "items:3"]).await;
    ground.check("update item set name = name", &[]).await;

    for (copy, rows, changed) in [
        (
            "copy item from stdin",
            "40\t4\tcopied\t40\n41\t5\tcopied\t41\n",
            vec!["items:4", "items:5"],
        ),
        ("copy note from stdin (format csv)", "50,4,\n51,5,x\n", vec!["notes:4", "notes:5"]),
    ] {
        ground.fill().await;
        let before = ground.fresh().await;
        copy_in(&ground, copy, rows).await;
        ground.settle().await;
        let change = ground.judge(before).await;
        assert_eq!(change.changed, set(&changed));
        assert_eq!(change.gone, set(&changed), "{copy}");
    }
    // Its rows are of one page, and marked as visible to everybody from the start.
    let client = ground.world.postgres.client().await.unwrap();
    ground.fill().await;
    client.batch_execute("begin; truncate note").await.unwrap();
    let sink = client.copy_in::<_, bytes::Bytes>("copy note from stdin (freeze)").await.unwrap();
    send(sink, "60\t1\tfrozen\n").await;
    client.batch_execute("commit").await.unwrap();
    ground.settle().await;
    assert_eq!(ground.gone().await, set(&["notes:1", "notes:2", "notes:3", "notes:4", "notes:5"]));
    ground.stop().await;
}

async fn copy_in(ground: &Ground, copy: &str, rows: &'static str) {
    send(ground.client.copy_in::<_, bytes::Bytes>(copy).await.unwrap(), rows).await;
}

async fn send(sink: tokio_postgres::CopyInSink<bytes::Bytes>, rows: &'static str) {
    use futures_util::SinkExt;
    let mut sink = Box::pin(sink);
    sink.send(bytes::Bytes::from_static(rows.as_bytes())).await.unwrap();
    sink.close().await.unwrap();
}

/// The rows stay as they are; the table gets another file. More goes, never less.
#[tokio::test]
async fn a_table_that_is_written_anew_leaves_nothing_stale() {
    let mut ground = Ground::new(SCHEMA, RULES, &ENTRIES).await;
    let items = ["items:1", "items:2", "items:3", "items:4", "items:5"];
    ground.check_soon("vacuum full item", &[], &items).await;
    ground.check_soon("cluster item using item_pkey", &[], &items).await;
    let retyped = "alter table item alter name type varchar using 'all of them ' || id";
    ground.check_soon(retyped, &["items:1", "items:2", "items:3"], &items).await;
    let added = "alter table note add made timestamptz default clock_timestamp();
                 update note set text = 'n' where id = 1";
    ground
        .check_soon(added, &["notes:1"], &["notes:1", "notes:2", "notes:3", "notes:4", "notes:5"])
        .await;
    for sql in ["vacuum (freeze) item", "analyze item", "reindex table concurrently item"] {
        ground.check(sql, &[]).await;
    }
    ground.check("update item set name = 'x' where id = 1", &["items:1"]).await;
    assert_eq!(ground.gaps().await.len(), 1);
    ground.stop().await;
}

/// Rows that another database sends: they have an origin, and another's commit time.
#[tokio::test]
async fn rows_that_are_replicated_into_a_table_reach_what_depends_on_it() {
    let publisher = Postgres::start().await.unwrap();
    publisher.execute(SCHEMA).await.unwrap();
    publisher
        .execute("truncate org, item, note; create publication theirs for table item, note")
        .await
        .unwrap();
    publisher.execute("alter table item drop constraint item_org_fkey").await.unwrap();
    let mut ground = Ground::new(SCHEMA, RULES, &ENTRIES).await;
    ground.fill().await;
    publisher.execute("insert into item values (70, 1, 'sent', 70)").await.unwrap();
    let subscribe = format!(
        "create subscription s connection '{}' publication theirs with (streaming = on)",
        publisher.url()
    );
    let before = ground.fresh().await;
    ground.execute(&subscribe).await;
    // The first copy of the table, then what follows.
    ground.world.until_gone("items:1").await;
    publisher.execute("insert into item values (71, 2, 'sent', 71)").await.unwrap();
    ground.world.until_gone("items:2").await;
    ground.world.settle().await;
    let change = ground.judge(before).await;
    assert_eq!(change.changed, set(&["items:1", "items:2"]));
    assert_eq!(change.gone, change.changed);
    // Until each table is synchronized, its changes come in transactions of their own.
    let pending = "select count(*)::text from pg_subscription_rel where srsubstate <> 'r'";
    until("all tables to be synchronized", async || {
        (ground.world.query_one(pending).await == "0").then_some(())
    })
    .await;
    ground.fill().await;
    let before = ground.fresh().await;
    publisher
        .execute("update item set name = 'again', org = 3 where id = 70; truncate note")
        .await
        .unwrap();
    // A transaction's whole caches go before its keys.
    ground.world.until_gone("notes:1").await;
    ground.world.settle().await;
    let change = ground.judge(before).await;
    assert!(change.gone.is_superset(&set(&["items:1", "items:3", "notes:3"])), "{:?}", change.gone);
    assert!(change.gone.is_superset(&change.changed));

    // It was committed somewhere else, long ago or by a clock that is ahead.
    for (at, id) in [("2001-01-01", 1), ("2199-01-01", 2)] {
        let sql = format!(
            "select pg_replication_origin_create('o{id}'); select pg_replication_origin_session_setup('o{id}');
             begin; select pg_replication_origin_xact_setup('0/{id}', '{at}');
             update item set name = '{at}' where id = {id}; commit;
             select pg_replication_origin_session_reset()"
        );
        ground.check(&sql, &[&format!("items:{id}")]).await;
        // What it says of the time is no lag, and no reason to be unready.
        tokio::time::timeout(Duration::from_secs(5), ground.daemon.until_ready()).await.unwrap();
    }
    ground.execute("drop subscription s").await;
    assert_eq!(ground.gaps().await.len(), 1);
    ground.stop().await;
}
