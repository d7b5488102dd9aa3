//! What bounds fills: a value's size, and the connections that they share.

use std::sync::Arc;
use std::time::Duration;

use crate::support::World;
use crate::support::reader::Reader;
use unstale::fill::filler::How;

#[tokio::test]
async fn a_value_that_is_too_large_is_answered_and_not_stored() {
    let mut world = World::new().await;
    let old = "key = \"v1:org:data:{org_id}\"";
    world.reconfigure(|toml| toml.replace(old, &format!("{old}\nmax_value_bytes = 300")));
    world.organizations(2).await;
    let long = "update organization_organization set name = repeat('x', 200) where id = 2";
    world.postgres.execute(long).await.unwrap();
    let _daemon = world.daemon().await;
    let reader = Reader::new(&world);
    assert_eq!(reader.read("org_data", &[("org_id", "1")]).await.1, How::Stored);
    for _ in 0..2 {
        let (value, how) = reader.read("org_data", &[("org_id", "2")]).await;
        assert_eq!(how, How::TooLarge);
        assert!(value.unwrap().len() > 300);
    }
    assert_eq!(reader.fills("org_data", "too_large"), 2);
    assert_eq!(world.keys().await.into_iter().collect::<Vec<_>>(), ["v1:org:data:1"]);
    let leases: Vec<String> = redis::cmd("KEYS")
        .arg("unstale:unstale:lease:*")
        .query_async(&mut world.values().await)
        .await
        .unwrap();
    assert!(leases.is_empty(), "{leases:?}");
}

#[tokio::test]
async fn connections_grow_with_the_load_up_to_the_bound() {
    let mut world = World::new().await;
    world.organizations(300).await;
    let _daemon = world.daemon().await;
    let proxy = world.redis_proxy().await;
    world.set("redis.max_connections=3");
    world.set("redis.timeout=30s");
    let clients = async || {
        let list: String =
            redis::cmd("CLIENT").arg("LIST").query_async(&mut world.values().await).await.unwrap();
        list.lines().count()
    };
    let others = clients().await;
    let reader = Arc::new(Reader::new(&world));
    reader.read("org_data", &[("org_id", "1")]).await;
    assert_eq!(clients().await, others + 1, "one is enough for one");
    proxy.delay(Duration::from_millis(20));
    // Twice: what grows is there for those who come later.
    for round in ["org_data", "role_info"] {
        let readers: Vec<_> = (1..=300)
            .map(|org| {
                let reader = Arc::clone(&reader);
                let org = org.to_string();
                tokio::spawn(async move { reader.read(round, &[("org_id", &org)]).await })
            })
            .collect();
        for reader in readers {
            let (value, how) = reader.await.unwrap();
            assert!(value.is_some() && matches!(how, How::Stored | How::Hit), "{how:?}");
        }
        assert!(clients().await <= others + 3, "{}", clients().await);
    }
    assert!(clients().await > others + 1, "it never grew");
}
