//! What can never succeed ends the start with exit code 78 and a remedy; once changes have
//! flowed, the same is waited out.

use crate::support::{World, org, until};
use unstale::sandbox::{Postgres, Redis};

/// Starts the daemon, which must refuse with a remedy, and shows nothing that is secret.
async fn refuses(world: &World, remedies: &[&str]) {
    let mut daemon = world.spawn();
    let status = daemon.exit().await;
    until("the whole log", async || daemon.log().contains("ERROR").then_some(())).await;
    let log = daemon.log();
    assert_eq!(status.code(), Some(78), "{remedies:?}: {log}");
    for remedy in remedies {
        assert!(log.contains(remedy), "{remedy:?} is missing: {log}");
    }
    assert!(!log.contains("s3cret"), "{log}");
}

#[tokio::test]
async fn what_can_never_succeed_ends_the_start_and_is_waited_out_later() {
    let postgres = Postgres::builder()
        .hba("host all app 127.0.0.1/32 scram-sha-256")
        .setting("max_wal_senders", 20)
        .start()
        .await
        .unwrap();
    let redis = Redis::builder().setting("requirepass", "r3dis").start().await.unwrap();
    let mut world = World::with(postgres, redis).await;
    world.organizations(3).await;
    let (right, redis_right) = (world.postgres.url(), world.redis.url_db(1));
    let url = |user: &str, database: &str| {
        format!("postgres.url={}", world.postgres.url_for(user, database))
    };
    let app = |password: &str| url("app", "postgres").replace("app@", &format!("app:{password}@"));
    let (wrong_password, app_right) = (app("s3cret-wrong"), app("s3cret"));
    let (no_database, no_role) = (url("postgres", "nowhere"), url("nobody", "postgres"));
    world
        .postgres
        .execute("create role app login password 's3cret'; grant select on all tables in schema public to app")
        .await
        .unwrap();

    world.set(&wrong_password);
    refuses(&world, &["28P01", "ALTER ROLE \"app\" PASSWORD"]).await;
    world.set(&no_database);
    refuses(&world, &["3D000", "CREATE DATABASE \"nowhere\""]).await;
    world.set(&no_role);
    refuses(&world, &["28000", "CREATE ROLE \"nobody\" LOGIN REPLICATION"]).await;
    world.set(&app_right);
    refuses(&world, &["42501", "ALTER ROLE \"app\" REPLICATION"]).await;

    world.set(&format!("postgres.url={right}"));
    world.set(&format!("redis.url={}", redis_right.replace("r3dis", "s3cret-wrong")));
    refuses(&world, &["WRONGPASS", "UNSTALE_REDIS__PASSWORD"]).await;
    world.set(&format!("redis.url={}", redis_right.replace(":r3dis@", "")));
    refuses(&world, &["NOAUTH", "UNSTALE_REDIS__PASSWORD"]).await;
    world.set(&format!("redis.url={redis_right}"));

    world.postgres.execute("alter publication unstale set (publish = 'insert')").await.unwrap();
    refuses(&world, &["SET (publish = 'insert, update, delete, truncate')"]).await;
    world
        .postgres
        .execute("alter publication unstale set (publish = 'insert, update, delete, truncate')")
        .await
        .unwrap();
    world.set("postgres.publication=nothing");
    refuses(&world, &["publication nothing does not exist", "unstale setup"]).await;
    world.set("postgres.publication=unstale");

    world
        .postgres
        .execute("select pg_create_logical_replication_slot('unstale', 'test_decoding')")
        .await
        .unwrap();
    refuses(&world, &["test_decoding", "pg_drop_replication_slot('unstale')"]).await;
    world.postgres.execute("select pg_drop_replication_slot('unstale')").await.unwrap();
    // A prepared transaction would come before it is committed.
    let two_phase = "select pg_create_logical_replication_slot('unstale', 'pgoutput', false, true)";
    world.postgres.execute(two_phase).await.unwrap();
    refuses(&world, &["two_phase", "pg_drop_replication_slot('unstale')"]).await;
    world.postgres.execute("select pg_drop_replication_slot('unstale')").await.unwrap();
    world.postgres.execute("create database another").await.unwrap();
    let another = world.postgres.client_for("postgres", "another").await.unwrap();
    let of_another = "select pg_create_logical_replication_slot('unstale', 'pgoutput')";
    another.batch_execute(of_another).await.unwrap();
    refuses(&world, &["belongs to the database another"]).await;
    another.batch_execute("select pg_drop_replication_slot('unstale')").await.unwrap();

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    world.set(&format!("admin.listen={}", taken.local_addr().unwrap()));
    let mut daemon = world.spawn();
    assert_eq!(daemon.exit().await.code(), Some(78), "{}", daemon.log());
    world.set(&format!("admin.listen=127.0.0.1:{}", world.admin));

    // As an ordinary role that may replicate. Then its password changes under the daemon.
    world.postgres.execute("alter role app replication").await.unwrap();
    world.set(&app_right);
    let daemon = world.daemon().await;
    world.put_each(3).await;
    world.postgres.execute("alter role app password 'another'").await.unwrap();
    let terminate =
        "select pg_terminate_backend(pid)::text from pg_stat_activity where usename = 'app'";
    world.query_one(terminate).await;
    daemon.until_problem("28P01").await;
    world.rename(1).await;
    world.postgres.execute("alter role app password 's3cret'").await.unwrap();
    daemon.until_ready().await;
    world.settle().await;
    assert_eq!(world.keys().await, [org(2), org(3)].into());
    assert_eq!(daemon.gaps().await, [("no_state".to_owned(), 1)].into(), "{}", daemon.log());
    assert!(!daemon.log().contains("s3cret"), "{}", daemon.log());
}

#[tokio::test]
async fn a_server_without_logical_wal_is_refused() {
    let postgres = Postgres::builder().setting("wal_level", "replica").start().await.unwrap();
    let world = World::with(postgres, Redis::start().await.unwrap()).await;
    refuses(&world, &["wal_level", "ALTER SYSTEM SET wal_level = 'logical'"]).await;
}

#[tokio::test]
async fn a_server_that_is_not_there_yet_is_waited_for() {
    let world = World::new().await;
    world.organizations(1).await;
    world.redis.stop().await.unwrap();
    world.postgres.stop(unstale::sandbox::Shutdown::Fast).await.unwrap();
    let daemon = world.spawn();
    daemon.until_problem("redis: Redis did not answer").await;
    world.redis.start_again().await.unwrap();
    until("Redis' problem to go", async || {
        let problems = daemon.readyz().await?["problems"].to_string();
        (!problems.contains("redis: ") && problems.contains("postgres: ")).then_some(())
    })
    .await;
    world.postgres.start_again().await.unwrap();
    daemon.until_ready().await;
    world.put_each(1).await;
    world.rename(1).await;
    world.settle().await;
    assert_eq!(world.keys().await, [].into());
    assert!(daemon.stop().await.success());
}
