//! The Redis users of docs/PERMISSIONS.md: the daemon's can do all that the daemon does, the
//! application's can read what is managed and cannot change it.

use crate::support::acl::{add_user, rights, url};
use crate::support::{World, until};
use redis::{AsyncCommands, RedisResult};

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
    for (command, arguments) in [
        ("status", &[][..]),
        ("test", &["--organization", "1", "--cache-type", "org_data"]),
        ("report", &[]),
        ("invalidate", &["--cache-type", "all"]),
    ] {
        let output = world.command(command).args(arguments).output().await.unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{command}: {stderr}");
        assert!(!String::from_utf8_lossy(&output.stdout).contains("grant"), "{command}");
    }
    // Which reports rest on, and nobody waits for here.
    let client = redis::Client::open(url(&world, "unstale")).unwrap();
    let mut own = client.get_multiplexed_async_connection().await.unwrap();
    let mut idle = redis::cmd("OBJECT");
    let _: u64 =
        idle.arg("IDLETIME").arg("unstale:unstale:state").query_async(&mut own).await.unwrap();
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

#[tokio::test]
async fn an_application_with_keys_of_its_own_reads_managed_ones_and_cannot_change_them() {
    let world = World::new().await;
    add_user(&world, "django").await;
    world.put(&["v1:org:data:1"]).await;
    let client = redis::Client::open(url(&world, "django")).unwrap();
    let mut app = client.get_multiplexed_async_connection().await.unwrap();
    let (managed, own) = ("prs_cache:1:v1:org:data:1", "prs_cache:1:session:7");

    let value: Option<String> = app.get(managed).await.unwrap();
    assert_eq!(value.as_deref(), Some("{}"));
    let _: i64 = app.pttl(managed).await.unwrap();
    let _: Option<String> = app.get("unstale:unstale:fresh").await.unwrap();
    // Its own, in the ways of a cache and of a session store.
    let _: () = app.set_ex(own, "a", 60).await.unwrap();
    let _: () = app.expire(own, 120).await.unwrap();
    let _: i64 = app.incr("prs_cache:1:throttle:7", 1).await.unwrap();
    let _: () = redis::pipe().atomic().set(own, "b").get(own).query_async(&mut app).await.unwrap();
    let gone: i64 = app.del(own).await.unwrap();
    assert_eq!(gone, 1);

    let refused: [RedisResult<redis::Value>; 12] = [
        app.set(managed, "x").await,
        app.set_ex(managed, "x", 60).await,
        app.append(managed, "x").await,
        app.del(managed).await,
        app.unlink(managed).await,
        app.get_del(managed).await,
        app.expire(managed, 1).await,
        app.rename(managed, own).await,
        app.set("unstale:unstale:state", "x").await,
        app.del("unstale:unstale:fresh").await,
        app.keys("*").await,
        redis::cmd("FLUSHDB").query_async(&mut app).await,
    ];
    for (n, answer) in refused.into_iter().enumerate() {
        let code = answer.map_err(|error| error.code().map(str::to_owned));
        assert_eq!(code, Err(Some("NOPERM".to_owned())), "the answer {n}");
    }
    assert!(world.keys().await.contains("v1:org:data:1"));
}

#[test]
fn the_readme_shows_the_same_lines() {
    let readme = std::fs::read_to_string(crate::support::root().join("README.md")).unwrap();
    for user in ["unstale", "app"] {
        let line = format!("\nuser {user} on >… {}\n", rights(user).join(" "));
        assert!(readme.contains(&line), "README has no line {line}");
    }
}
