//! The certificate tells whoever reads Redis directly whether anyone keeps it fresh.

use std::time::{Duration, Instant};

use crate::support::{World, until};
use redis::AsyncCommands;
use unstale::lsn::Lsn;

const FRESH: &str = "unstale:unstale:fresh";

/// Its watermark, and for how many milliseconds it stands.
async fn certificate(world: &World) -> Option<(Lsn, i64)> {
    let mut values = world.values().await;
    let (watermark, life): (Option<String>, i64) = redis::pipe()
        .atomic()
        .get(FRESH)
        .pttl(FRESH)
        .query_async(&mut values)
        .await
        .expect("Redis answers");
    Some((watermark?.parse().expect("an LSN"), life))
}

/// Waits until it has not been renewed for two periods: then it stands for less.
async fn until_no_longer_renewed(world: &World) {
    let start = Instant::now();
    until("a certificate that runs out", async || {
        let standing = certificate(world).await.map_or(0, |(_, life)| life);
        assert!(start.elapsed() < Duration::from_secs(14), "still renewed: {standing} ms");
        (standing < 7_500).then_some(())
    })
    .await;
}

#[tokio::test]
async fn it_is_renewed_as_long_as_both_sides_answer() {
    let mut world = World::new().await;
    let (redis, postgres) = (world.redis_proxy().await, world.postgres_proxy().await);
    world.organizations(1).await;
    let daemon = world.daemon().await;
    world.settle().await;
    let (watermark, life) = until("the certificate", async || certificate(&world).await).await;
    assert!(watermark <= world.watermark().await);
    assert!((1..=10_000).contains(&life), "{life}");

    // Renewed: its life goes up again, and the watermark with the database.
    world.rename(1).await;
    world.settle().await;
    until("the certificate to follow", async || {
        (certificate(&world).await?.0 > watermark).then_some(())
    })
    .await;
    until("it to wear", async || (certificate(&world).await?.1 < 9_700).then_some(())).await;
    until("it to be renewed", async || (certificate(&world).await?.1 > 9_900).then_some(())).await;

    // The daemon is cut off from Redis.
    redis.pause();
    until_no_longer_renewed(&world).await;
    redis.resume().await;
    until("it to be renewed", async || (certificate(&world).await?.1 > 9_000).then_some(())).await;

    // Postgres falls silent: what is committed now nobody hears of.
    postgres.pause();
    until_no_longer_renewed(&world).await;
    daemon.until_problem("silent").await;
    postgres.resume().await;
    daemon.until_ready().await;
    until("it to be renewed", async || (certificate(&world).await?.1 > 9_000).then_some(())).await;
    assert_eq!(daemon.gaps().await.len(), 1, "{}", daemon.log());

    // A gap takes it away at once, and only what is valid again has one.
    let _: () = world.values().await.hset("unstale:unstale:state", "nonce", "x").await.unwrap();
    daemon.until_gap("chain_broken").await;
    until("the certificate", async || certificate(&world).await).await;

    // And nobody renews it once the daemon is gone.
    assert!(daemon.stop().await.success());
    until_no_longer_renewed(&world).await;
}
