//! What `check` says of a replica: whether loads will be from there, and why not.

use crate::preflight::{ALL_DONE, Ended, Ground};
use unstale::sandbox::Postgres;

async fn ready() -> (Ground, Postgres) {
    let ground = Ground::demo().await;
    ground.set_up().await.expect(0);
    let standby = ground.postgres.standby().start().await.unwrap();
    (ground, standby)
}

async fn check(ground: &Ground, replica: &str) -> Ended {
    ground.run(&["check", "--set", &format!("postgres.replica_url={replica}")]).await.expect(0)
}

#[tokio::test]
async fn a_replica_that_will_be_read_is_told_and_one_that_will_not_with_the_reason() {
    let (ground, standby) = ready().await;
    ground.check().await.expect(0).says_not("Replica\n");
    let good = check(&ground, &standby.url_for("unstale", "app")).await;
    good.says("a standby of the primary, on its timeline 1");
    good.says("bytes of WAL behind the primary");
    good.says(ALL_DONE);

    check(&ground, &ground.url("unstale")).await.says("the replica is no standby");
    let nobody = check(&ground, "postgres://unstale:hunter2@127.0.0.1:1/app").await;
    nobody.says("the replica cannot be reached");
    nobody.says_not("hunter2");
    ground.as_superuser("create role plain login").await;
    let plain = check(&ground, &standby.url_for("plain", "app")).await;
    plain.says("ALTER ROLE plain REPLICATION;");
    plain.says("GRANT SELECT ON TABLE deals_deal TO plain;");

    standby.set("max_standby_streaming_delay", "1s").await.unwrap();
    let strict = check(&ground, &standby.url_for("unstale", "app")).await;
    strict.says("hot_standby_feedback = on");
    standby.set("recovery_min_apply_delay", "5s").await.unwrap();
    let late = check(&ground, &standby.url_for("unstale", "app")).await;
    late.says("the replica replays 5s late");
}

#[tokio::test]
async fn a_replica_that_cannot_be_a_url_is_told_with_its_place() {
    let (ground, _standby) = ready().await;
    let wrong = ground.run(&["check", "--set", "postgres.replica_url=hunter2"]).await.expect(78);
    wrong.says("the URL does not begin with a scheme that is known here");
    wrong.says_not("hunter2");
    let wrong = ground
        .run(&["check", "--set", "postgres.replica_url=postgres://u@h:port/d"])
        .await
        .expect(78);
    wrong.says("postgres.replica_url: ");
}
