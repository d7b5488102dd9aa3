//! What leads to Postgres leads to two servers, or to a standby: the snapshots of one say nothing of
//! the other's stream, so nothing is followed, and nothing can be cached.

use std::net::SocketAddr;

use crate::support::items::{RULES, SCHEMA};
use crate::support::{Daemon, World, free_port, lacks, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use unstale::sandbox::{Postgres, Redis};

/// A balancer that knows nothing of logical replication: it leads by what a connection asks for.
async fn balancer(ordinary: SocketAddr, replication: SocketAddr) -> u16 {
    let port = free_port();
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                // The first message: its length, and what is asked for.
                let mut startup = vec![0; 4];
                client.read_exact(&mut startup).await?;
                let length = u32::from_be_bytes(startup[..4].try_into().unwrap());
                startup.resize(usize::try_from(length).unwrap(), 0);
                client.read_exact(&mut startup[4..]).await?;
                let replicates = startup.windows(12).any(|part| part == b"replication\0");
                let target = if replicates { replication } else { ordinary };
                let mut server = TcpStream::connect(target).await?;
                server.write_all(&startup).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    port
}

async fn world() -> World {
    let (postgres, redis) = (Postgres::start().await.unwrap(), Redis::start().await.unwrap());
    World::of(postgres, redis, SCHEMA, RULES).await
}

/// A daemon by way of the balancer.
async fn balanced(world: &mut World, replication: &Postgres) -> Daemon {
    let port = balancer(world.postgres.address(), replication.address()).await;
    let url = format!("postgres://postgres@127.0.0.1:{port}/postgres?sslmode=disable");
    world.set(&format!("postgres.url={url}"));
    world.spawn()
}

async fn follows_nothing(world: &World, daemon: &Daemon) {
    daemon.until_not_ready().await;
    assert_ne!(world.state("valid").await.as_deref(), Some("1"), "{}", daemon.log());
    assert!(!daemon.log().contains("started anew"), "{}", daemon.log());
}

#[tokio::test]
async fn two_servers_behind_one_address_are_told_apart() {
    let mut world = world().await;
    let other = Postgres::start().await.unwrap();
    other.execute(SCHEMA).await.unwrap();
    let daemon = balanced(&mut world, &other).await;
    daemon.until_log("two connections reached two servers (system identifiers ").await;
    follows_nothing(&world, &daemon).await;
    assert_eq!(World::ask(&other, "select count(*)::text from pg_replication_slots").await, "0");
    daemon.kill9().await;

    // A copy that became a primary has the same identifier; each has a slot of that name.
    if lacks(&world.postgres, "pg_basebackup") {
        return;
    }
    let copy = world.postgres.standby().start().await.unwrap();
    copy.promote().await.unwrap();
    for server in [&world.postgres, &copy] {
        let slot = "select pg_create_logical_replication_slot('unstale', 'pgoutput')";
        server.execute(slot).await.unwrap();
    }
    let daemon = balanced(&mut world, &copy).await;
    daemon.until_log("let postgres.url name one server, without a pooler").await;
    follows_nothing(&world, &daemon).await;
}

#[tokio::test]
async fn a_standby_is_not_followed_until_it_is_a_primary() {
    let mut world = world().await;
    if lacks(&world.postgres, "pg_basebackup") {
        return;
    }
    let standby = world.postgres.standby().start().await.unwrap();
    world.set(&format!("postgres.url={}", standby.url()));
    let daemon = world.spawn();
    daemon.until_log("this server is a standby").await;
    follows_nothing(&world, &daemon).await;
    standby.promote().await.unwrap();
    daemon.until_ready().await;
    world.put(&["item:1"]).await;
    standby.execute("update item set name = 'second'").await.unwrap();
    until("the change", async || world.keys().await.is_empty().then_some(())).await;
    assert!(daemon.stop().await.success());
}
