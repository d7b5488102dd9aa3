//! Whatever sessions do with savepoints in large transactions, following them while they are
//! in progress drops the same keys as following them after their commits, and counts the
//! same changes.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::{Daemon, World, until};
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use tokio_postgres::Client;
use unstale::lsn::Lsn;
use unstale::sandbox::{Postgres, Redis};

const MAPPING: &str = r#"
[postgres]
url = "postgres://set-by-flag"
[redis]
url = "redis://set-by-flag"
key_prefix = "prs_cache:1:"
[caches.item]
key = "item:{id}"
[caches.group]
key = "group:{group}"
[caches.via]
key = "via:{id}"
[caches.rare]
key = "rare:{id}"
[caches.emptied]
key = "emptied:{id}"
[[tables]]
name = "item"
invalidates = [
    { cache = "item", id = "id" },
    { cache = "group", group = "group_id", columns = ["group_id"] },
]
[[tables]]
name = "part"
invalidates = [{ cache = "via", via = "select changed.item as id from changed" }]
[[tables]]
name = "rare"
invalidates = [{ cache = "rare", whole = true }]
[[tables]]
name = "emptied"
invalidates = [{ cache = "emptied", id = "id" }]
"#;

const SESSIONS: u32 = 4;
/// Each session has rows of its own, and some are everybody's.
const OWN: u32 = 1000;
const SHARED: u32 = 200;
const GROUPS: u32 = 400;
const ROUNDS: u32 = if cfg!(feature = "long-tests") { 150 } else { 6 };

fn every_key() -> BTreeSet<String> {
    let rows = SESSIONS * OWN + SHARED;
    let items = (1..=rows).flat_map(|id| [format!("item:{id}"), format!("via:{id}")]);
    let groups = (0..GROUPS).map(|group| format!("group:{group}"));
    let rare = (1..=3).flat_map(|id| [format!("rare:{id}"), format!("emptied:{id}")]);
    items.chain(groups).chain(rare).collect()
}

/// A session's transaction: statements, of which some may fail.
async fn transaction(client: &Client, session: u32, rng: &mut fastrand::Rng) {
    let run = async |sql: String| client.batch_execute(&sql).await.is_ok();
    run("begin; set local lock_timeout = '20ms'".to_owned()).await;
    let mut savepoints: Vec<u32> = Vec::new();
    let mut next = 0;
    for _ in 0..rng.u32(1..25) {
        let range = |rng: &mut fastrand::Rng| {
            let shared = rng.u32(..8) == 0;
            let (first, rows) =
                if shared { (SESSIONS * OWN, SHARED) } else { (session * OWN, OWN) };
            let from = first + rng.u32(1..=rows);
            format!("between {from} and {}", (from + rng.u32(..=rows / 2)).min(first + rows))
        };
        let done = match rng.u32(..100) {
            0..25 => run(format!("update item set filler = repeat('x', 50) where id {}", range(rng))).await,
            25..32 => run(format!("update item set group_id = (group_id + 1) % {GROUPS} where id {}", range(rng))).await,
            32..38 => run(format!("delete from item where id {}", range(rng))).await,
            38..44 => run(format!(
                "insert into item select i, i % {GROUPS}, repeat('y', 50) from generate_series(1, 5000) i \
                 where i {} on conflict do nothing", range(rng)
            )).await,
            44..52 => run(format!("update part set filler = repeat('z', 40) where id {}", range(rng))).await,
            // Moves the parts of one item to another.
            52..54 => run(format!("update part set item = id where id {}", range(rng))).await,
            54 => run("insert into rare values (1)".to_owned()).await,
            // In a subtransaction it would look like a rewrite, a second or so later: the new
            // file's writer is not who came through.
            55 if savepoints.is_empty() => run("truncate emptied".to_owned()).await,
            56..58 => run("insert into emptied values (1)".to_owned()).await,
            // Of a table that nobody truncates: with a TRUNCATE it would look like a rewrite, too.
            58 => run("alter table rare add column if not exists more int".to_owned()).await,
            // Rows each in a subtransaction, some of which fail.
            59..63 => run(format!(
                "do $$ declare r int; begin
                   for r in select id from item where id {} loop
                     begin
                       update item set filler = 'p' where id = r;
                       if random() < 0.3 then raise exception 'no'; end if;
                     exception when raise_exception then null; end;
                   end loop; end $$", range(rng)
            )).await,
            // Fails.
            63 => run("insert into item values (1, 1, null)".to_owned()).await,
            64..80 => {
                next += 1;
                savepoints.push(next);
                run(format!("savepoint s{next}")).await
            }
            80..88 => match savepoints.len() {
                0 => true,
                some => {
                    let at = rng.usize(..some);
                    let name = savepoints[at];
                    savepoints.truncate(at);
                    run(format!("release s{name}")).await
                }
            },
            _ => false,
        };
        if !done {
            // By intention, or since something failed: back to a savepoint, or to nothing.
            let Some(at) = savepoints.len().checked_sub(1 + rng.usize(..2)) else {
                break;
            };
            savepoints.truncate(at + 1);
            assert!(run(format!("rollback to s{}", savepoints[at])).await);
        }
    }
    // Of a transaction that has failed, this is a rollback.
    run(if rng.u32(..5) == 0 { "rollback" } else { "commit" }.to_owned()).await;
}

async fn keys(values: &mut MultiplexedConnection) -> BTreeSet<String> {
    let found: Vec<String> =
        redis::cmd("KEYS").arg("prs_cache:1:*").query_async(values).await.unwrap();
    found.into_iter().map(|key| key.trim_start_matches("prs_cache:1:").to_owned()).collect()
}

async fn put(values: &mut MultiplexedConnection, all: &BTreeSet<String>) {
    let mut pipe = redis::pipe();
    for key in all {
        pipe.set_ex(format!("prs_cache:1:{key}"), "{}", 3600).ignore();
    }
    let _: () = pipe.query_async(values).await.unwrap();
}

async fn until_watermark(values: &mut MultiplexedConnection, slot: &str, end: Lsn) {
    until(&format!("the watermark of {slot} to pass {end}"), async || {
        let state = format!("unstale:{slot}:state");
        let watermark: Option<String> = values.hget(state, "watermark").await.unwrap();
        (watermark?.parse::<Lsn>().ok()? >= end).then_some(())
    })
    .await;
}

async fn changes(daemon: &Daemon) -> BTreeMap<String, String> {
    let (_, text) = daemon.get("/metrics").await.unwrap();
    let lines = text.lines().filter(|line| line.starts_with("unstale_changes_total"));
    lines
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .collect()
}

#[tokio::test]
async fn in_progress_or_after_the_commit_the_same_goes() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    let postgres = Postgres::builder().setting("logical_decoding_work_mem", "64kB");
    let postgres = postgres.start().await.unwrap();
    let mut world = World::with(postgres, Redis::start().await.unwrap()).await;
    let rows = SESSIONS * OWN + SHARED;
    world
        .postgres
        .execute(&format!(
            "create table item (id int primary key, group_id int not null, filler text not null default ''); \
             alter table item replica identity full; \
             create table part (id int primary key, item int not null, filler text not null default ''); \
             alter table part replica identity full; \
             create table rare (n int); create table emptied (id int); \
             alter table emptied replica identity full; \
             alter publication unstale set table item, part, rare, emptied; \
             insert into item select i, i % {GROUPS} from generate_series(1, {rows}) i; \
             insert into part select i, i from generate_series(1, {rows}) i; \
             update part set item = item + 7"
        ))
        .await
        .unwrap();
    world.configure(MAPPING);
    let streaming = world.daemon().await;
    // The reference reads another slot into another database of the same Redis.
    world.set("postgres.slot=reference");
    world.set("postgres.streaming=off");
    world.set(&format!("redis.url={}", world.redis.url_db(2)));
    let reference = world.spawn_another();
    reference.until_ready().await;
    let mut values = [world.values().await, world.redis.connection_db(2).await.unwrap()];
    let all = every_key();
    let mut dropped = 0;
    for round in 0..ROUNDS {
        for values in &mut values {
            put(values, &all).await;
        }
        let mut sessions = Vec::new();
        for session in 0..SESSIONS {
            let client = world.postgres.client().await.unwrap();
            let seed = seed.wrapping_add(u64::from(round * SESSIONS + session));
            sessions.push(tokio::spawn(async move {
                let mut rng = fastrand::Rng::with_seed(seed);
                for _ in 0..rng.u32(1..4) {
                    transaction(&client, session, &mut rng).await;
                }
            }));
        }
        for session in sessions {
            session.await.unwrap();
        }
        world.query_one("select pg_logical_emit_message(true, 'test', '')::text").await;
        let end = world.wal_end().await;
        until_watermark(&mut values[0], "unstale", end).await;
        until_watermark(&mut values[1], "reference", end).await;
        let [ours, theirs] =
            [keys(&mut values[0].clone()).await, keys(&mut values[1].clone()).await];
        dropped += all.len() - theirs.len();
        let less: Vec<_> = ours.difference(&theirs).collect();
        let more: Vec<_> = theirs.difference(&ours).collect();
        assert!(
            less.is_empty() && more.is_empty(),
            "SEED={seed} round {round}: left {less:?}, and needlessly gone {more:?}\n{}\n\
             the reference:\n{}",
            streaming.log(),
            reference.log()
        );
    }
    println!("{dropped} keys dropped in {ROUNDS} rounds");
    assert!(dropped > 1000, "the test tests nothing");
    until("the same counts", async || {
        (changes(&streaming).await == changes(&reference).await).then_some(())
    })
    .await;
    let streamed = "select stream_txns::text from pg_stat_replication_slots where slot_name = ";
    until("blocks to have been sent", async || {
        (world.query_one(&format!("{streamed} 'unstale'")).await != "0").then_some(())
    })
    .await;
    assert_eq!(world.query_one(&format!("{streamed} 'reference'")).await, "0");
}
