//! Large transactions are followed while they are in progress, and what is applied in the end
//! is exactly what they committed.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use crate::support::{Daemon, World, until};
use tokio_postgres::Client;
use unstale::sandbox::{Postgres, Redis, peak_rss_bytes, rss_bytes};

const MAPPING: &str = r#"
[postgres]
url = "postgres://set-by-flag"
[redis]
url = "redis://set-by-flag"
key_prefix = "prs_cache:1:"
[caches.item]
key = "item:{id}"
[caches.via]
key = "via:{id}"
[caches.every]
key = "every:{id}"
[[tables]]
name = "item"
invalidates = [{ cache = "item", id = "id" }]
[[tables]]
name = "part"
invalidates = [{ cache = "via", via = "select p.item as id from part p join changed on p.id = changed.id" }]
[[tables]]
name = "settings"
invalidates = [{ cache = "every", whole = true }]
"#;

/// How many items there are.
const ITEMS: u32 = 3000;

/// A server that sends blocks early, and tables with rows.
async fn world() -> World {
    let postgres = Postgres::builder().setting("logical_decoding_work_mem", "64kB");
    let postgres = postgres.start().await.unwrap();
    let mut world = World::with(postgres, Redis::start().await.unwrap()).await;
    world
        .postgres
        .execute(&format!(
            "create table item (id int primary key, filler text not null default '', spare int); \
             create table part (id int primary key, item int not null, filler text not null default ''); \
             create table settings (name text primary key); \
             alter publication unstale set table item, part, settings; \
             insert into item select i, '', i + 5000 from generate_series(1, {ITEMS}) i; \
             insert into part select i, i + 10000 from generate_series(1, {ITEMS}) i"
        ))
        .await
        .unwrap();
    world.configure(MAPPING);
    world
}

fn item(id: u32) -> String {
    format!("item:{id}")
}

fn items(ids: impl IntoIterator<Item = u32>) -> BTreeSet<String> {
    ids.into_iter().map(item).collect()
}

async fn put(world: &World, keys: &BTreeSet<String>) {
    world.put(&keys.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

fn touch(ids: RangeInclusive<u32>) -> String {
    let (first, last) = ids.into_inner();
    format!("update item set filler = filler || '+' where id between {first} and {last};")
}

async fn session(world: &World) -> Client {
    world.postgres.client().await.unwrap()
}

/// Waits until that many keys of transactions in progress have come.
async fn until_held(daemon: &Daemon, transactions: f64, keys: f64) {
    daemon.until_metric("unstale_streamed_transactions", transactions).await;
    until(&format!("{keys} keys of transactions in progress"), async || {
        (daemon.metric("unstale_streamed_keys").await >= keys).then_some(())
    })
    .await;
}

/// The server sent blocks, and wrote nothing to its disk.
async fn assert_streamed(world: &World) {
    let counts = "select (stream_txns > 0)::text || ' ' || spill_txns::text \
                  from pg_stat_replication_slots where slot_name = 'unstale'";
    until("the server to have sent blocks and spilled nothing", async || {
        (world.query_one(counts).await == "true 0").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_subtransaction_that_is_rolled_back_takes_nothing_away() {
    let world = world().await;
    let daemon = world.daemon().await;
    put(&world, &items(1..=ITEMS)).await;
    let client = session(&world).await;
    client
        .batch_execute(&format!("begin; {} savepoint a; {}", touch(1..=10), touch(5..=2000)))
        .await
        .unwrap();
    until_held(&daemon, 1.0, 1000.0).await;
    assert_eq!(world.keys().await, items(1..=ITEMS), "nothing goes before the commit");
    // Of what both touched, nothing is taken back; of what was touched again, neither.
    client
        .batch_execute(&format!(
            "rollback to a; {} savepoint b; {}",
            touch(20..=30),
            touch(40..=1500)
        ))
        .await
        .unwrap();
    // Nor does what is rolled back later take along who was released before it.
    let sql =
        format!("release b; savepoint c; {} savepoint d; {}", touch(45..=2200), touch(2300..=2400));
    client.batch_execute(&sql).await.unwrap();
    until_held(&daemon, 1.0, 1600.0).await;
    client.batch_execute("release d; rollback to c").await.unwrap();
    client.batch_execute(&format!("{} commit", touch(2990..=ITEMS))).await.unwrap();
    world.settle().await;
    let gone: BTreeSet<u32> =
        (1..=10).chain(20..=30).chain(40..=1500).chain(2990..=ITEMS).collect();
    assert_eq!(world.keys().await, items((1..=ITEMS).filter(|id| !gone.contains(id))));
    assert_eq!(daemon.metric("unstale_streamed_transactions").await, 0.0);
    assert_eq!(daemon.metric("unstale_streamed_keys").await, 0.0);
    let changes = "unstale_changes_total{op=\"update\",table=\"item\"}";
    daemon.until_metric(changes, 10.0 + 11.0 + 1461.0 + 11.0).await;
    assert_streamed(&world).await;
}

/// Each row in a subtransaction of its own, every third rolled back, in a procedure.
const EXCEPTIONS: &str = "do $$ begin
    for i in 1..3000 loop
        begin
            update item set filler = repeat('x', 100) where id = i;
            update part set filler = repeat('x', 100) where id = i;
            begin
                insert into settings values ('rolled back ' || i);
                raise exception 'inner';
            exception when others then null;
            end;
            if i % 3 = 0 then raise exception 'outer'; end if;
        exception when others then null;
        end;
    end loop;
end $$";

#[tokio::test]
async fn thousands_of_exceptions_in_a_procedure_take_nothing_away() {
    let world = world().await;
    let daemon = world.daemon().await;
    let via =
        |ids: &mut dyn Iterator<Item = u32>| ids.map(|id| format!("via:{}", id + 10_000)).collect();
    let vias: BTreeSet<String> = via(&mut (1..=ITEMS));
    let every: BTreeSet<String> = ["every:1".to_owned()].into();
    put(&world, &(&(&items(1..=ITEMS) | &vias) | &every)).await;
    world.postgres.execute(EXCEPTIONS).await.unwrap();
    world.settle().await;
    let left: BTreeSet<String> = via(&mut (1..=ITEMS).filter(|id| id % 3 == 0));
    let expected = &(&left | &items((1..=ITEMS).filter(|id| id % 3 == 0))) | &every;
    assert_eq!(world.keys().await, expected);
    assert!(!daemon.log().contains("dropping a whole cache"), "{}", daemon.log());
    daemon.until_metric("unstale_changes_total{op=\"update\",table=\"item\"}", 2000.0).await;
    assert_eq!(daemon.metric("unstale_changes_total{op=\"insert\",table=\"settings\"}").await, 0.0);
    assert_streamed(&world).await;
}

#[tokio::test]
async fn a_transaction_that_is_rolled_back_takes_nothing_away_and_no_memory() {
    let world = world().await;
    let daemon = world.daemon().await;
    put(&world, &items(1..=ITEMS)).await;
    let client = session(&world).await;
    client.batch_execute(&format!("begin; truncate settings; {}", touch(1..=ITEMS))).await.unwrap();
    until_held(&daemon, 1.0, 2000.0).await;
    client.batch_execute("rollback").await.unwrap();
    daemon.until_metric("unstale_streamed_transactions", 0.0).await;
    world.settle().await;
    assert_eq!(daemon.metric("unstale_streamed_keys").await, 0.0);
    assert_eq!(world.keys().await, items(1..=ITEMS));
    assert!(!daemon.log().contains("dropping a whole cache"), "{}", daemon.log());
    assert_eq!(daemon.metric("unstale_changes_total{op=\"update\",table=\"item\"}").await, 0.0);
}

#[tokio::test]
async fn several_at_once_do_not_mix() {
    let world = world().await;
    let daemon = world.daemon().await;
    put(&world, &items(1..=ITEMS)).await;
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(session(&world).await);
    }
    for round in 0..3 {
        for (n, client) in (0..).zip(&sessions) {
            let (low, high) = (n * 700 + round * 200 + 1, n * 700 + round * 200 + 200);
            let begin = if round == 0 { "begin;" } else { "" };
            let sql = format!("{begin} {} {}", touch(low..=high), touch(low..=high));
            client.batch_execute(&sql).await.unwrap();
            world.postgres.execute(&touch(2900 + n..=2900 + n)).await.unwrap();
            world.until_gone(&item(2900 + n)).await;
        }
    }
    until_held(&daemon, 4.0, 1600.0).await;
    let left = |gone: &BTreeSet<u32>| items((1..=ITEMS).filter(|id| !gone.contains(id)));
    let mut gone: BTreeSet<u32> = (2900..=2903).collect();
    assert_eq!(world.keys().await, left(&gone), "others go by");
    for (n, end) in [(2, "commit"), (0, "rollback"), (3, "rollback"), (1, "commit")] {
        sessions[n].batch_execute(end).await.unwrap();
        world.settle().await;
        if end == "commit" {
            let n = u32::try_from(n).unwrap();
            gone.extend(n * 700 + 1..=n * 700 + 600);
        }
        assert_eq!(world.keys().await, left(&gone));
    }
    assert_eq!(daemon.metric("unstale_streamed_transactions").await, 0.0);
}

/// An open transaction of which blocks have come, with others committed behind its
/// beginning, such that the slot's position is past it.
async fn opened_and_passed(world: &World, daemon: &Daemon) -> Client {
    put(world, &items(1..=ITEMS)).await;
    let client = session(world).await;
    client
        .batch_execute(&format!(
            "begin; {} savepoint a; {} rollback to a; {}",
            touch(1..=900),
            touch(1000..=1900),
            touch(2000..=2500)
        ))
        .await
        .unwrap();
    let begun = world.wal_end().await;
    until_held(daemon, 1.0, 1000.0).await;
    world.postgres.execute(&touch(ITEMS..=ITEMS)).await.unwrap();
    world.until_gone(&item(ITEMS)).await;
    until("the slot to pass the transaction's beginning", async || {
        (world.confirmed_flush().await > begun).then_some(())
    })
    .await;
    client
}

async fn assert_committed_whole(world: &World, client: &Client) {
    assert_eq!(world.keys().await, items(1..ITEMS), "nothing before the commit");
    client.batch_execute(&format!("{} commit", touch(2600..=2600))).await.unwrap();
    world.settle().await;
    let gone: BTreeSet<u32> = (1..=900).chain(2000..=2500).chain([2600, ITEMS]).collect();
    assert_eq!(world.keys().await, items((1..=ITEMS).filter(|id| !gone.contains(id))));
}

#[tokio::test]
async fn a_daemon_that_is_killed_in_the_midst_reads_all_of_it_again() {
    let world = world().await;
    let daemon = world.daemon().await;
    let client = opened_and_passed(&world, &daemon).await;
    daemon.kill9().await;
    let daemon = world.daemon().await;
    // What lies before the slot's position the server spills; with more it goes on in blocks.
    client.batch_execute(&touch(1..=900)).await.unwrap();
    until_held(&daemon, 1.0, 1000.0).await;
    assert_committed_whole(&world, &client).await;
    assert_eq!(daemon.gaps().await, [].into(), "{}", daemon.log());
}

#[tokio::test]
async fn what_commits_while_the_daemon_is_away_comes_whole() {
    let world = world().await;
    let daemon = world.daemon().await;
    let client = opened_and_passed(&world, &daemon).await;
    daemon.kill9().await;
    assert_committed_whole_later(&world, &client).await;
}

async fn assert_committed_whole_later(world: &World, client: &Client) {
    client.batch_execute(&format!("{} commit", touch(2600..=2600))).await.unwrap();
    let daemon = world.daemon().await;
    world.settle().await;
    let gone: BTreeSet<u32> = (1..=900).chain(2000..=2500).chain([2600, ITEMS]).collect();
    assert_eq!(world.keys().await, items((1..=ITEMS).filter(|id| !gone.contains(id))));
    assert_eq!(daemon.gaps().await, [].into(), "{}", daemon.log());
}

#[tokio::test]
async fn a_connection_that_is_cut_in_the_midst_forgets_what_was_open() {
    let mut world = world().await;
    let proxy = world.postgres_proxy().await;
    let daemon = world.daemon().await;
    let client = opened_and_passed(&world, &daemon).await;
    proxy.cut();
    daemon.until_log("trying again").await;
    daemon.until_ready().await;
    assert_committed_whole(&world, &client).await;
    assert_eq!(daemon.gaps().await.len(), 1, "but the first start: {}", daemon.log());
}

#[tokio::test]
async fn a_crash_of_the_server_in_the_midst_is_a_gap_and_leaves_nothing_open() {
    let world = world().await;
    let daemon = world.daemon().await;
    let client = opened_and_passed(&world, &daemon).await;
    world.postgres.kill9().await.unwrap();
    world.postgres.start_again().await.unwrap();
    daemon.until_gap("crash_recovery").await;
    drop(client);
    // Nobody rolled it back in the WAL: it may come once more, until the server says who runs.
    world.postgres.execute("checkpoint").await.unwrap();
    daemon.until_metric("unstale_streamed_transactions", 0.0).await;
    put(&world, &items(1..=ITEMS)).await;
    world.postgres.execute(&touch(1..=900)).await.unwrap();
    world.settle().await;
    assert_eq!(world.keys().await, items(901..=ITEMS));
}

#[tokio::test]
async fn its_commit_passes_the_gate_like_any_other() {
    let world = world().await;
    let daemon = world.daemon().await;
    put(&world, &items(1..=ITEMS)).await;
    let client = session(&world).await;
    client.batch_execute(&format!("begin; {}", touch(1..=1500))).await.unwrap();
    until_held(&daemon, 1.0, 1000.0).await;
    world.postgres.set("synchronous_standby_names", "nobody").await.unwrap();
    let stuck = tokio::spawn(async move { client.batch_execute("commit").await });
    daemon.until_metric("unstale_parked_transactions", 1.0).await;
    // It is committed, and nobody sees it.
    let sql = format!("set synchronous_commit = local; {}", touch(2000..=2000));
    world.postgres.execute(&sql).await.unwrap();
    world.until_gone(&item(2000)).await;
    assert_eq!(world.keys().await, items((1..=ITEMS).filter(|id| *id != 2000)));
    world.release_standby().await;
    stuck.await.unwrap().unwrap();
    world.settle().await;
    assert_eq!(world.keys().await, items((1501..=ITEMS).filter(|id| *id != 2000)));
}

#[tokio::test]
async fn a_table_altered_on_the_way_is_read_as_it_is_to_each() {
    let world = world().await;
    world.postgres.execute("alter table item replica identity full").await.unwrap();
    let daemon = world.daemon().await;
    put(&world, &items(1..=ITEMS)).await;
    let client = session(&world).await;
    // Another shape; then all of that did not happen.
    client
        .batch_execute(&format!(
            "begin; {} savepoint a; alter table item add column more text default 'm'; {} \
             alter table item drop column filler; update item set more = 'n' where id between 700 and 1500;",
            touch(1..=600),
            touch(601..=1300),
        ))
        .await
        .unwrap();
    until_held(&daemon, 1.0, 1000.0).await;
    client.batch_execute(&format!("rollback to a; {}", touch(2000..=2900))).await.unwrap();
    client.batch_execute("commit").await.unwrap();
    world.settle().await;
    let gone: BTreeSet<u32> = (1..=600).chain(2000..=2900).collect();
    assert_eq!(world.keys().await, items((1..=ITEMS).filter(|id| !gone.contains(id))));
    // And once for good: the id is another column. What comes after it is read like that.
    put(&world, &items((1..=ITEMS).chain(5001..=5000 + ITEMS))).await;
    client
        .batch_execute(&format!(
            "begin; {} alter table item rename id to x; alter table item rename spare to id; \
             alter table item rename x to spare; \
             update item set filler = 'y' where spare between 100 and 1700",
            touch(1..=800),
        ))
        .await
        .unwrap();
    until_held(&daemon, 1.0, 2000.0).await;
    client.batch_execute("commit").await.unwrap();
    world.postgres.execute("update item set filler = 'z' where spare = 77").await.unwrap();
    world.settle().await;
    let left = (801..=ITEMS).chain(5001..=5000 + ITEMS);
    let left = left.filter(|id| !(5100..=6700).contains(id) && *id != 5077);
    assert_eq!(world.keys().await, items(left), "{}", daemon.log());
    assert!(!daemon.log().contains("dropping a whole cache"), "{}", daemon.log());
    assert_eq!(daemon.gaps().await.len(), 1, "{}", daemon.log());
}

#[tokio::test]
async fn past_the_limit_a_cache_goes_as_a_whole_unless_it_was_rolled_back() {
    let mut world = world().await;
    world.set("pipeline.max_keys_per_transaction=500");
    let daemon = world.daemon().await;
    let other: BTreeSet<String> = ["via:10001".to_owned(), "via:10002".to_owned()].into();
    put(&world, &(&items(1..=ITEMS) | &other)).await;
    let client = session(&world).await;
    client
        .batch_execute(&format!(
            "begin; update part set filler = 'x' where id = 1; savepoint a; {}",
            touch(1..=ITEMS)
        ))
        .await
        .unwrap();
    daemon.until_metric("unstale_streamed_transactions", 1.0).await;
    client.batch_execute(&format!("rollback to a; {} commit", touch(8..=9))).await.unwrap();
    world.settle().await;
    let left: BTreeSet<String> = ["via:10002".to_owned()].into();
    let expected = &items((1..=ITEMS).filter(|id| ![8, 9].contains(id))) | &left;
    assert_eq!(world.keys().await, expected, "{}", daemon.log());
    // The same for good.
    world.postgres.execute(&touch(1..=ITEMS)).await.unwrap();
    world.settle().await;
    assert_eq!(world.keys().await, left);
    let escalations = "unstale_escalations_total{cache=\"item\",reason=\"key_limit\"}";
    daemon.until_metric(escalations, 1.0).await;
    assert_streamed(&world).await;
    // What began before the part that is rolled back stays: nobody knows any more which keys it had.
    put(&world, &items(1..=ITEMS)).await;
    let sql =
        format!("begin; {} savepoint a; {} rollback to a; commit", touch(1..=1), touch(1..=ITEMS));
    world.postgres.execute(&sql).await.unwrap();
    world.settle().await;
    assert_eq!(world.keys().await, left, "{}", daemon.log());
}

#[tokio::test]
async fn all_that_are_open_are_bounded_together_and_the_largest_gives_way() {
    let mut world = world().await;
    world.set("pipeline.max_keys_per_transaction=2000");
    world.set("pipeline.max_keys_ahead=2000");
    let daemon = world.daemon().await;
    let parts: BTreeSet<String> = (1..=ITEMS).map(|id| format!("via:{}", id + 10_000)).collect();
    put(&world, &(&items(1..=ITEMS) | &parts)).await;
    let (large, small) = (session(&world).await, session(&world).await);
    large.batch_execute(&format!("begin; {}", touch(1..=1900))).await.unwrap();
    until_held(&daemon, 1.0, 1000.0).await;
    small.batch_execute("begin; update part set filler = 'x' where id <= 1500").await.unwrap();
    // Unless something is sent behind it, the rest of a transaction waits at the server.
    daemon.until_metric("unstale_streamed_transactions", 2.0).await;
    small.batch_execute("commit").await.unwrap();
    world.settle().await;
    let parts = parts.iter().filter(|key| key["via:".len()..].parse::<u32>().unwrap() > 11_500);
    let parts: BTreeSet<String> = parts.cloned().collect();
    assert_eq!(world.keys().await, &items(1..=ITEMS) | &parts, "the smaller one is exact");
    large.batch_execute("commit").await.unwrap();
    world.settle().await;
    assert_eq!(world.keys().await, parts, "the larger one dropped its cache");
    assert!(daemon.log().contains("dropping a whole cache"), "{}", daemon.log());
}

#[tokio::test]
async fn switched_off_it_comes_after_its_commit() {
    let mut world = world().await;
    world.set("postgres.streaming=off");
    let daemon = world.daemon().await;
    put(&world, &items(1..=ITEMS)).await;
    let sql =
        format!("begin; {} savepoint a; {} rollback to a; commit", touch(1..=900), touch(1..=2000));
    world.postgres.execute(&sql).await.unwrap();
    world.settle().await;
    assert_eq!(world.keys().await, items(901..=ITEMS));
    let streamed =
        "select stream_txns::text from pg_stat_replication_slots where slot_name = 'unstale'";
    until("the server to have spilled", async || {
        let spilled =
            "select spill_txns::text from pg_stat_replication_slots where slot_name = 'unstale'";
        (world.query_one(spilled).await != "0").then_some(())
    })
    .await;
    assert_eq!(world.query_one(streamed).await, "0");
    drop(daemon);
}

/// How many subtransactions one transaction has.
const SUBTRANSACTIONS: u32 = if cfg!(feature = "long-tests") { 300_000 } else { 30_000 };

#[tokio::test]
async fn subtransactions_without_number_cost_no_memory() {
    let world = world().await;
    // The server looks at all subtransactions for each block: not too many blocks.
    world.postgres.set("logical_decoding_work_mem", "1MB").await.unwrap();
    let daemon = world.daemon().await;
    world.settle().await;
    put(&world, &items(1..=ITEMS)).await;
    let idle = rss_bytes(daemon.pid()).unwrap();
    world
        .postgres
        .execute(&format!(
            "do $$ begin
                 for i in 1..{SUBTRANSACTIONS} loop
                     begin
                         update item set filler = 'x' where id = 1 + i % 50;
                         if i % 5 = 0 then raise exception 'rolled back'; end if;
                     exception when others then null;
                     end;
                 end loop;
             end $$"
        ))
        .await
        .unwrap();
    world.settle().await;
    let peak = peak_rss_bytes(daemon.pid()).unwrap();
    assert!(peak < idle + (16 << 20), "{} MiB over idle", (peak - idle) >> 20);
    let gone: BTreeSet<u32> = (1..=50).filter(|id| id % 5 != 1).collect();
    assert_eq!(world.keys().await, items((1..=ITEMS).filter(|id| !gone.contains(id))));
    assert_streamed(&world).await;
}
