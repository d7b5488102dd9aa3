//! Reading through the cache with the real daemon beside it.

use std::sync::Arc;

use crate::support::World;
use crate::support::reader::Reader;
use redis::AsyncCommands;
use unstale::fill::filler::{How, ReadError};

async fn world() -> World {
    let world = World::new().await;
    world
        .postgres
        .execute(
            "insert into organization_organization (id, name, is_active, created_at, updated_at)
             values (1, 'one', true, '2026-01-02 03:04:05.678901+00', now())",
        )
        .await
        .unwrap();
    world
}

#[tokio::test]
async fn a_value_is_loaded_once_then_cached_then_dropped_by_a_change() {
    let world = world().await;
    let _daemon = world.daemon().await;
    let reader = Reader::new(&world);
    let one = [("org_id", "1")];
    let (value, how) = reader.read("org_data", &one).await;
    assert_eq!(how, How::Stored);
    let value = value.unwrap();
    assert!(
        value.contains(r#""name":"one""#) && value.contains(r#""total_deal_value":"0.00""#),
        "{value}"
    );
    assert!(value.contains(r#""created_at":"2026-01-02T03:04:05.678901Z""#), "{value}");
    assert_eq!(reader.read("org_data", &one).await, (Some(value.clone()), How::Hit));
    let raw: String = world.values().await.get("prs_cache:1:v1:org:data:1").await.unwrap();
    assert_eq!(raw, value, "what is stored is what the query gave");

    world.postgres.execute("update organization_organization set name = 'two'").await.unwrap();
    world.settle().await;
    let (value, how) = reader.read("org_data", &one).await;
    assert_eq!(how, How::Stored);
    assert!(value.unwrap().contains(r#""name":"two""#));
}

#[tokio::test]
async fn a_thousand_misses_cost_one_query() {
    let world = world().await;
    let _daemon = world.daemon().await;
    let reader = Arc::new(Reader::new(&world));
    let readers: Vec<_> = (0..200)
        .map(|_| {
            let reader = Arc::clone(&reader);
            tokio::spawn(async move {
                reader.read("deal_stats", &[("org_id", "1"), ("days", "30")]).await
            })
        })
        .collect();
    for reader in readers {
        let (value, how) = reader.await.unwrap();
        assert!(value.is_some() && matches!(how, How::Stored | How::Hit), "{how:?}");
    }
    assert_eq!(reader.loads("deal_stats"), 1);
    let ttl: i64 = world.values().await.pttl("prs_cache:1:v1:deal_stats:1:30").await.unwrap();
    assert!(ttl > 0 && ttl <= 15 * 60 * 1000, "{ttl}");
}

#[tokio::test]
async fn a_scoped_entry_is_dropped_with_its_scope() {
    let world = world().await;
    let _daemon = world.daemon().await;
    let reader = Reader::new(&world);
    let search = [("org_id", "1"), ("q", "a:{b}*c")];
    assert_eq!(reader.read("api_search", &search).await.1, How::Stored);
    assert_eq!(reader.read("api_search", &search).await.1, How::Hit);
    world
        .postgres
        .execute("insert into deals_deal (id, deal_id, organization_id, client_id, deal_name, deal_value, currency,
                    verification_status, payment_status, payment_method, source_type, deal_date, created_at, updated_at)
                  select gen_random_uuid(), 'D1', 1, 1, 'a:{b}*c d', 5, 'USD', 'pending', 'initial payment', 'bank',
                    'google', now(), now(), now() from set_config('session_replication_role', 'replica', true)")
        .await
        .unwrap();
    world.settle().await;
    let (value, how) = reader.read("api_search", &search).await;
    assert_eq!(how, How::Stored);
    assert!(value.unwrap().contains(r#""count":1"#));
}

#[tokio::test]
async fn what_cannot_be_stored_is_loaded_all_the_same() {
    let world = world().await;
    let daemon = world.daemon().await;
    let reader = Reader::new(&world);
    let one = [("org_id", "1")];
    assert_eq!(reader.read("org_data", &[("org_id", "404")]).await, (None, How::Absent));
    assert!(matches!(
        reader.filler.read(reader.cache("org_data"), &[("user_id", "1")]).await,
        Err(ReadError::Parameters(_))
    ));
    assert!(daemon.stop().await.success());
    let _: () = redis::cmd("DEL")
        .arg("unstale:unstale:state")
        .query_async(&mut world.values().await)
        .await
        .unwrap();
    assert_eq!(reader.read("org_data", &one).await.1, How::Unleased);
    assert_eq!(reader.read("api_search", &[("org_id", "1"), ("q", "ab")]).await.1, How::Unleased);
    world.redis.stop().await.unwrap();
    let (value, how) = reader.read("org_data", &one).await;
    assert_eq!(how, How::Unstored);
    assert!(value.unwrap().contains(r#""name":"one""#));
}

#[tokio::test]
async fn a_query_that_fails_stores_nothing_and_leaves_no_lease() {
    let world = world().await;
    let _daemon = world.daemon().await;
    let reader = Reader::new(&world);
    let wrong = [("org_id", "not a number")];
    assert!(matches!(
        reader.filler.read(reader.cache("org_data"), &wrong).await,
        Err(ReadError::Load(_))
    ));
    let leases: Vec<String> = redis::cmd("KEYS")
        .arg("unstale:unstale:lease:*")
        .query_async(&mut world.values().await)
        .await
        .unwrap();
    assert!(leases.is_empty(), "{leases:?}");
}
