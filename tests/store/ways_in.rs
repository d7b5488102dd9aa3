//! Every way into Redis that the configuration can name, end to end.

use crate::certificates::Authority;
use crate::support::{World, org};
use unstale::sandbox::{Postgres, Redis};

/// The daemon comes in, starts and drops a key.
async fn works(world: &World) {
    let daemon = world.daemon().await;
    world.settle().await;
    world.put_each(2).await;
    world.rename(1).await;
    world.settle().await;
    assert_eq!(world.keys().await, [org(2)].into(), "{}", daemon.log());
    // A whole cache and a gap need other commands than a key does.
    world.put(&["v1:org:data:of another life"]).await;
    world.postgres.execute("truncate deals_deal cascade").await.unwrap();
    world.settle().await;
    assert_eq!(world.keys().await, [].into(), "{}", daemon.log());
    assert!(!daemon.log().contains("NOPERM"), "{}", daemon.log());
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn over_tls_with_the_right_authority_only() {
    let authority = Authority::new("ours");
    let redis = Redis::builder().tls(authority.server(&["127.0.0.1"])).start().await.unwrap();
    let mut world = World::with(Postgres::start().await.unwrap(), redis).await;
    world.organizations(3).await;
    let file = |name: &str, authority: &Authority| {
        let path = world.folder.path().join(name);
        std::fs::write(&path, authority.pem()).unwrap();
        format!("redis.ca_file={}", path.display())
    };
    let (right, wrong) = (file("right.pem", &authority), file("wrong.pem", &Authority::new("x")));
    world.set(&format!("redis.url={}", world.redis.tls_url(1).unwrap()));

    // Without it, and with another: never connected, and the reason is told.
    let daemon = world.spawn();
    daemon.until_problem("certificate").await;
    daemon.kill9().await;
    world.set(&wrong);
    let daemon = world.spawn();
    daemon.until_problem("certificate").await;
    assert_eq!(world.state("valid").await, None, "it came in all the same");
    daemon.kill9().await;

    world.set(&right);
    works(&world).await;

    world.set("redis.ca_file=/nowhere/ca.pem");
    let mut daemon = world.spawn();
    assert_eq!(daemon.exit().await.code(), Some(78), "{}", daemon.log());
    daemon.until_log("/nowhere/ca.pem").await;
}

#[tokio::test]
async fn by_unix_socket_and_with_the_rights_that_the_remedy_names() {
    let mut world = World::new().await;
    world.organizations(3).await;
    world.set(&format!("redis.url=unix://{}?db=1", world.redis.socket().display()));
    works(&world).await;

    // Exactly what the hint for NOPERM tells to grant.
    let refused = unstale::store::error::StoreError::Refused {
        code: "NOPERM".to_owned(),
        message: String::new(),
    };
    let remedy = refused.remedy();
    let grants = remedy.split_once(": ").unwrap().1.split_once(" (").unwrap().0;
    let grants = grants.replace("<key_prefix>", "prs_cache:1:");
    let mut command = redis::cmd("ACL");
    command.arg(&["SETUSER", "daemon", "on", ">secret"]).arg(grants.split(' ').collect::<Vec<_>>());
    command.exec_async(&mut world.values().await).await.unwrap();
    let url = world.redis.url_db(1).replace("redis://", "redis://daemon@");
    world.set(&format!("redis.url={url}"));
    let secret = world.folder.path().join("password");
    std::fs::write(&secret, "secret\n").unwrap();
    world.set(&format!("redis.password_file={}", secret.display()));
    let mut flush = world.values().await;
    redis::cmd("FLUSHALL").exec_async(&mut flush).await.unwrap();
    works(&world).await;
}
