//! Clocks are set, days are longer and shorter: nothing that is cached outlives what it says.

use std::time::{Duration, Instant};

use crate::support::clock::Clock;
use crate::support::items::{SCHEMA, touching};
use crate::support::{Daemon, World, until};
use redis::AsyncCommands;
use unstale::loader::day::{BEGAN, ENDS};
use unstale::sandbox::{Postgres, Redis};

/// `today` is of the day, since its query asks for the time zone.
const RULES: &str = r#"
    [caches.item]
    key = "item:{id}"
    query = "select jsonb_build_object('name', name) from item where id = $id::int"
    population = "select id from item"
    ttl = "30d"
    [caches.today]
    key = "today:{id}"
    query = "select jsonb_build_object('day', (now() at time zone $timezone)::date) from item where id = $id::int"
    population = "select id from item"
    ttl = "30d"
    [[tables]]
    name = "item"
    invalidates = [{ cache = "item", id = "id" }, { cache = "today", id = "id" }]
"#;

async fn world(postgres: Postgres) -> World {
    let mut world = World::of(postgres, Redis::start().await.unwrap(), SCHEMA, RULES).await;
    world.set("warm.enabled=true");
    world.set(r#"schedule=[{ task = "warm", every = "1s" }]"#);
    world
}

async fn touch(world: &World, id: u32) {
    world.postgres.execute(&touching(id)).await.unwrap();
}

/// All changes are applied, and everybody may know.
async fn all_is_well(world: &World, daemon: &Daemon) {
    for id in 1..=3 {
        touch(world, id).await;
    }
    world.settle().await;
    daemon.until_ready().await;
    until("the certificate", async || {
        let life: i64 = world.values().await.pttl("unstale:unstale:fresh").await.unwrap();
        assert!(life <= 10_000, "{life}");
        (life > 8_000).then_some(())
    })
    .await;
    let readyz = daemon.readyz().await.unwrap();
    let lag = readyz["lag_seconds"].as_f64().unwrap();
    assert!((0.0..60.0).contains(&lag), "{readyz}");
    assert_eq!(daemon.gaps().await, [("no_state".to_owned(), 1)].into(), "{}", daemon.log());
}

/// Fills both caches, and says how long the entries live at most, in ms.
async fn lives(world: &World) -> [i64; 2] {
    let mut values = world.values().await;
    let keys = ["prs_cache:1:item:1", "prs_cache:1:today:1"];
    let _: () = values.del(&keys).await.unwrap();
    let mut lives = [0; 2];
    for (life, key) in lives.iter_mut().zip(keys) {
        *life = until(&format!("{key} to be filled again"), async || {
            let life: i64 = world.values().await.pttl(key).await.unwrap();
            (life > 0).then_some(life)
        })
        .await;
    }
    lives
}

/// How long the day lasts in Postgres' eyes, in ms.
async fn left_of_the_day(world: &World) -> i64 {
    let sql = "select ceil(extract(epoch from date_trunc('day', now()) + '1 day' - now()) * 1000)::bigint::text";
    world.query_one(sql).await.parse().unwrap()
}

const RUNS: &str = r#"unstale_schedule_runs_total{result="done",task="warm:all"}"#;
const MONTH: i64 = 30 * 86_400_000;

#[tokio::test]
async fn a_daemon_whose_clock_is_set_goes_on_and_stores_nothing_for_longer() {
    let world = world(Postgres::start().await.unwrap()).await;
    let clock = Clock::new();
    let mut command = world.command("run");
    command.envs(clock.environment());
    let daemon = world.spawn_with(command, world.admin);
    daemon.until_ready().await;
    for by in ["+0", "+5h", "-9h", "+30d", "-400d", "+1h"] {
        clock.set(by);
        all_is_well(&world, &daemon).await;
        // Asked first: later there is less.
        let left = left_of_the_day(&world).await;
        let [item, today] = lives(&world).await;
        assert!(today <= left, "{by}: {today} of {left} ms\n{}", daemon.log());
        assert!((MONTH / 10 * 8..=MONTH).contains(&item), "{by}: {item}");
        // What is done now and then is done neither never nor without pause.
        let (before, start) = (daemon.metric(RUNS).await, Instant::now());
        daemon.until_at_least(RUNS, before + 2.0).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let (done, took) = (daemon.metric(RUNS).await - before, start.elapsed().as_secs_f64());
        assert!(done <= took / 0.8 + 2.0, "{by}: {done} in {took} s\n{}", daemon.log());
    }
    for metric in ["unstale_commit_to_invalidated_seconds_sum", "unstale_parked_seconds"] {
        assert!(daemon.metric(metric).await >= 0.0, "{metric}");
    }
    let stalls = daemon.get("/metrics").await.unwrap().1;
    let stalls: Vec<_> = stalls.lines().filter(|l| l.starts_with("unstale_stalls_total")).collect();
    assert!(stalls.iter().all(|line| line.ends_with(" 0")), "{stalls:?}");
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn a_server_whose_clock_is_set_is_followed_and_no_lag_is_negative() {
    let clock = Clock::new();
    let mut postgres = Postgres::builder();
    for (name, value) in clock.environment() {
        postgres = postgres.environment(name, &value);
    }
    let world = world(postgres.start().await.unwrap()).await;
    let daemon = world.daemon().await;
    for by in ["+0", "+3h", "-7h", "+40d", "+0"] {
        clock.set(by);
        let told = world.query_one("select now()::text").await;
        all_is_well(&world, &daemon).await;
        assert!(daemon.metric("unstale_replication_lag_seconds").await >= 0.0, "{by}: {told}");
    }
    for metric in [
        "unstale_commit_to_invalidated_seconds_sum",
        r#"unstale_inconsistent_seconds_sum{cache="item"}"#,
    ] {
        assert!(daemon.metric(metric).await >= 0.0, "{metric}\n{}", daemon.log());
    }
    assert!(daemon.stop().await.success());
}

/// Each quarter of an hour of the months in which clocks are changed somewhere, compared with
/// the first at which the date is another.
#[tokio::test]
async fn a_day_begins_and_ends_with_its_date_in_every_zone() {
    let postgres = Postgres::start().await.unwrap();
    let of = |sql: &str| sql.replace("$1::text", "zone").replace("now()", "at");
    let (ends, began) = (of(ENDS), of(BEGAN));
    assert!(ends.contains("at AT TIME ZONE zone"), "{ends}");
    let sql = format!(
        "with quarters as (
             select zone, at, (at at time zone zone)::date as day
               from unnest(array['UTC', 'Europe/Berlin', 'America/New_York', 'Atlantic/Azores', 'America/Havana',
                                 'America/Santiago', 'America/Asuncion', 'Asia/Beirut', 'Africa/Cairo',
                                 'Australia/Lord_Howe', 'Pacific/Chatham', 'Asia/Kolkata']) zone,
                    unnest(array['2024-03-01', '2024-09-01', '2024-10-15']::timestamptz[]) beginning,
                    generate_series(beginning, beginning + '45 days', '15 minutes') at),
         days as (select zone, day, min(at) as first from quarters group by zone, day),
         truth as (select zone, day, first,
                          lead(first) over (partition by zone order by day) as next,
                          lag(day) over (partition by zone order by day) = day - 1 as whole
                     from days)
         select format('%s %s: %s to %s, but it is %s to %s', zone, at, {began}, {ends}, first, next)
           from quarters join truth using (zone, day)
          where whole and next - first < '2 days' and ({began} <> first or {ends} <> next)
          order by 1 limit 20"
    );
    let client = postgres.client().await.unwrap();
    let wrong = client.query(&sql, &[]).await.unwrap_or_else(|error| panic!("{sql}\n{error:?}"));
    let wrong: Vec<String> = wrong.iter().map(|row| row.get(0)).collect();
    assert_eq!(wrong, [""; 0]);
    // It would have found them: of the two midnights of such a night Postgres means the later.
    let naive = "select (date '2024-10-27')::timestamp at time zone 'Atlantic/Azores' > '2024-10-27 00:00+00'";
    assert!(client.query_one(naive, &[]).await.unwrap().get::<_, bool>(0));
}
