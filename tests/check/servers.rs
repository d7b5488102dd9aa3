//! What `check` says of servers that are not as they must be, and its exit codes.

use crate::preflight::Ground;
use unstale::sandbox::{Postgres, Redis};

async fn ready() -> Ground {
    let ground = Ground::demo().await;
    ground.set_up().await.expect(0);
    ground
}

#[tokio::test]
async fn a_server_that_cannot_stream_is_told_with_the_setting() {
    let ground = Ground::empty(
        Postgres::builder()
            .setting("wal_level", "replica")
            .setting("max_slot_wal_keep_size", "1GB"),
    )
    .await;
    ground.as_django(include_str!("../../sql/demo/schema.sql")).await;
    let ended = ground.set_up().await.expect(1);
    ended.says("left  wal_level is replica");
    let ended = ground.check().await.expect(1);
    ended.says("ALTER SYSTEM SET wal_level = 'logical';");
    ended.says("1 problem, 1 warning");
}

#[tokio::test]
async fn connections_that_leave_the_machine_in_the_clear_are_told() {
    let ground = ready().await;
    ground.check().await.expect(0).says_not("is not encrypted");
    // Loopback, spelled as only the resolver knows it.
    let anywhere = |url: String| url.replace("127.0.0.1", "127.1");
    let postgres = format!("postgres.url={}", anywhere(ground.url("unstale")));
    let redis = format!("redis.url={}", anywhere(ground.redis.url()));
    let ended = ground.run(&["check", "--set", &postgres, "--set", &redis]).await.expect(0);
    ended.says("warning  the connection to 127.1 need not be encrypted (sslmode=prefer");
    ended.says("sslmode=verify-full");
    ended.says("warning  the connection to 127.1 is not encrypted (redis://)");
    ended.says("rediss://");
}

#[tokio::test]
async fn a_slot_is_told_apart() {
    let ground = ready().await;
    ground.check().await.expect(0).says("slot unstale does not exist yet");
    let create = |plugin: &str, two_phase: bool| {
        format!(
            "select pg_create_logical_replication_slot('unstale', '{plugin}', false, {two_phase})"
        )
    };
    let drop = "select pg_drop_replication_slot('unstale')";
    ground.as_superuser(&create("pgoutput", false)).await;
    ground.check().await.expect(0).says("slot unstale can be read (nobody reads it now)");
    ground.as_superuser(drop).await;
    ground.as_superuser(&create("test_decoding", false)).await;
    ground.check().await.expect(1).says("slot unstale is not a permanent slot of pgoutput");
    ground.as_superuser(drop).await;
    ground.as_superuser(&create("pgoutput", true)).await;
    ground.check().await.expect(1).says("slot unstale was created with two_phase");
}

#[tokio::test]
async fn a_grant_that_is_missing_is_told_and_the_rest_is_looked_at() {
    let ground = ready().await;
    ground.as_superuser("revoke temporary on database app from public").await;
    let ended = ground.check().await.expect(0);
    ended.says("GRANT TEMPORARY ON DATABASE app TO unstale;");
    ground.as_superuser("grant temporary on database app to unstale").await;
    let emit = "function pg_logical_emit_message(boolean, text, text)";
    ground.as_superuser(&format!("revoke execute on {emit} from public")).await;
    let ended = ground.check().await.expect(0);
    ended.says("GRANT EXECUTE ON FUNCTION pg_logical_emit_message(boolean,text,text) TO unstale;");
    ground.as_superuser(&format!("grant execute on {emit} to unstale")).await;
    ground.as_django("revoke select on deals_deal from unstale").await;
    ground.check().await.expect(1).says("GRANT SELECT ON TABLE public.deals_deal TO unstale;");
    ground.set_up().await.expect(0);
    ground.as_django("alter table deals_deal enable row level security").await;
    let ended = ground.check().await.expect(0);
    ended.says("row-level security may hide rows of deals_deal");
    ended.says("ALTER ROLE unstale BYPASSRLS;");
}

#[tokio::test]
async fn published_tables_without_identity_are_told_whoever_published_them() {
    let ground = ready().await;
    ground.as_django("create table other (a int); alter publication unstale add table other").await;
    let ended = ground.check().await.expect(1);
    ended.says("UPDATE AND DELETE ON other FAIL");
    ended.says("ALTER TABLE public.other REPLICA IDENTITY FULL;");
}

#[tokio::test]
async fn what_no_stream_carries_is_told() {
    let ground = ready().await;
    ground.as_django("alter publication unstale drop table clients_client; alter table clients_client rename to c2; create view clients_client as select * from c2").await;
    ground.check().await.expect(1).says("clients_client is a view");
    ground.as_django("drop view clients_client; create unlogged table clients_client (like c2 including all)").await;
    ground.check().await.expect(1).says("clients_client is UNLOGGED");
    ground.as_django("drop table clients_client").await;
    let ended = ground.check().await.expect(1);
    ended.says("there is no table clients_client");
    ground.set_up().await.expect(78).says("has no table clients_client");
}

#[tokio::test]
async fn exit_codes_tell_who_must_act() {
    let ground = ready().await;
    let json = ground.run(&["check", "--json"]).await.expect(0).out;
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["ok"], true, "{json}");
    assert_eq!(report["problems"], 0);
    assert!(report["findings"].as_array().unwrap().len() > 20);

    // Nobody there, a login that is refused, a database that is not there.
    let nobody = "postgres.url=postgres://unstale@127.0.0.1:1/app";
    ground.run(&["check", "--set", nobody]).await.expect(69).says("Redis 7.");
    let stranger = format!("postgres.url={}", ground.url("stranger"));
    ground.run(&["check", "--set", &stranger]).await.expect(78);
    let nowhere = format!("postgres.url={}", ground.postgres.url_for("unstale", "nowhere"));
    ground.run(&["check", "--set", &nowhere]).await.expect(78);
    let redis = "redis.url=redis://127.0.0.1:1/0";
    ground.run(&["check", "--set", redis]).await.expect(69).says("publication unstale carries");
    ground.configure("[caches.x]\n");
    ground.check().await.expect(78);
}

#[tokio::test]
async fn redis_is_tried_with_what_the_daemon_does() {
    let mut ground = ready().await;
    ground.redis = Redis::builder()
        .setting("maxmemory-policy", "allkeys-lru")
        .setting("maxmemory", "64mb")
        .start()
        .await
        .unwrap();
    ground
        .check()
        .await
        .expect(0)
        .says("maxmemory-policy is allkeys-lru: Redis may evict the daemon's state");
    let mut connection = ground.redis.connection().await.unwrap();
    let user = |rules: &[&str]| {
        let mut command = redis::cmd("ACL");
        command.arg("SETUSER").arg("daemon").arg("reset").arg("on").arg(">secret");
        rules.iter().for_each(|rule| {
            command.arg(rule);
        });
        command
    };
    let url = format!("redis.url=redis://daemon:secret@{}/0", ground.redis.address());
    let allowed = [
        "~unstale:*",
        "~prs_cache:1:*",
        "+@read",
        "+@write",
        "+@scripting",
        "+info",
        "+ping",
        "+select",
        "+client",
    ];
    user(&allowed).exec_async(&mut connection).await.unwrap();
    ground
        .run(&["check", "--set", &url])
        .await
        .expect(0)
        .says("the user may do all that the daemon does");
    for without in [0, 1, 4] {
        let rules: Vec<&str> = allowed
            .iter()
            .enumerate()
            .filter(|(n, _)| *n != without)
            .map(|(_, rule)| *rule)
            .collect();
        user(&rules).exec_async(&mut connection).await.unwrap();
        let ended = ground.run(&["check", "--set", &url]).await.expect(1);
        ended.says("Redis refused: NOPERM");
        ended.says("grant the daemon's Redis user");
    }
    let left: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
    assert!(left.is_empty(), "check leaves nothing behind: {left:?}");
}
