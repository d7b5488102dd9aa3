//! The Redis users that README names: the daemon's can do all that the daemon does, the
//! application's can read and nothing else.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use redis::{AsyncCommands, RedisResult};
use support::{World, until};

/// The rights of a user, as the line in README gives them.
fn rights(user: &str) -> Vec<String> {
    let readme = std::fs::read_to_string(support::root().join("README.md")).unwrap();
    let start = format!("user {user} on >… ");
    let line = readme.lines().find_map(|line| line.strip_prefix(&start));
    line.unwrap_or_else(|| panic!("README has no line {start}"))
        .split(' ')
        .map(str::to_owned)
        .collect()
}

async fn add_user(world: &World, user: &str) {
    let mut command = redis::cmd("ACL");
    command.arg("SETUSER").arg(user).arg("reset").arg("on").arg(">secret").arg(rights(user));
    let _: () = command.query_async(&mut world.values().await).await.unwrap();
}

fn url(world: &World, user: &str) -> String {
    world.redis.url_db(1).replace("redis://", &format!("redis://{user}:secret@"))
}

#[tokio::test]
async fn the_daemons_user_can_do_all_that_the_daemon_does() {
    let mut world = World::new().await;
    add_user(&world, "unstale").await;
    world.set(&format!("redis.url={}", url(&world, "unstale")));
    world.set("warm.enabled=true");
    world.organizations(2).await;
    world.set("caches.role_info.on_change=refresh");
    world.set("caches.role_info.max_staleness=200ms");
    let daemon = world.daemon().await;
    // A refresh, which a change overtakes while somebody has the lease.
    world.put(&["v1:role_info:1"]).await;
    let lease = "unstale:unstale:lease:{prs_cache:1:v1:role_info:1}";
    let _: () = world.values().await.set_ex(lease, "somebody", 1).await.unwrap();
    let role = "insert into permissions_role (name, organization_id) values ('a', 1)";
    world.postgres.execute(role).await.unwrap();
    daemon.until_metric(r#"unstale_refreshes_total{cache="role_info",outcome="busy"}"#, 1.0).await;
    // A removal and a fill.
    world.put(&["v1:org:data:1"]).await;
    world.rename(1).await;
    until("a rewarmed value", async || {
        let value: Option<String> =
            world.values().await.get("prs_cache:1:v1:org:data:1").await.unwrap();
        value.filter(|value| value.contains("total_users")).map(drop)
    })
    .await;
    // A whole cache, and everything.
    world.put(&["v1:user_perms:1:1"]).await;
    world.postgres.execute("truncate permissions_role_permissions").await.unwrap();
    world.until_gone("v1:user_perms:1:1").await;
    let why = world.command("why").arg("v1:org:data:1").output().await.unwrap();
    assert!(why.status.success(), "{}", String::from_utf8_lossy(&why.stderr));
    let _: () = redis::cmd("FLUSHALL").query_async(&mut world.values().await).await.unwrap();
    daemon.until_ready().await;
    assert!(!daemon.log().contains("NOPERM"), "{}", daemon.log());
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn the_applications_user_can_read_and_nothing_else() {
    let world = World::new().await;
    add_user(&world, "app").await;
    world.put(&["v1:org:data:1"]).await;
    let client = redis::Client::open(url(&world, "app")).unwrap();
    let mut app = client.get_multiplexed_async_connection().await.unwrap();
    let value: Option<String> = app.get("prs_cache:1:v1:org:data:1").await.unwrap();
    assert!(value.is_some());
    let _: Option<String> = app.get("unstale:unstale:fresh").await.unwrap();
    let refused: [RedisResult<()>; 4] = [
        app.set("prs_cache:1:v1:org:data:1", "x").await,
        app.del("prs_cache:1:v1:org:data:1").await,
        app.set("unstale:unstale:state", "x").await,
        app.get("somebody:else's").await,
    ];
    for answer in refused {
        assert_eq!(answer.unwrap_err().code(), Some("NOPERM"));
    }
}
