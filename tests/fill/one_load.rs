//! One load of a key at a time in one daemon, whoever loads it: what fills after changes, and
//! the readers of the read API.

use crate::support::api::{MEMBER, Site};
use crate::support::{World, org, until};

/// Its snapshot is taken when it begins; it ends when nobody holds the advisory lock 7.
const GATED: &str = "select json_build_object('name', (select name from organization_organization
    where id = $org_id::bigint), 'gate', pg_advisory_xact_lock_shared(7)::text)";

const LOADS: &str = r#"unstale_load_seconds_count{cache="org_data"}"#;

async fn at_the_gate(world: &World) -> u32 {
    let sql = "select count(*)::text from pg_stat_activity
                where wait_event_type = 'Lock' and wait_event = 'advisory'";
    world.query_one(sql).await.parse().unwrap()
}

#[tokio::test]
async fn a_reader_waits_for_a_load_that_a_change_has_voided_and_then_loads_anew() {
    let mut site = Site::new().await;
    let (query, gated) =
        ("{ file = \"../sql/caches/org_data.sql\" }", format!("\"\"\"{GATED}\"\"\""));
    site.world.reconfigure(|toml| toml.replace(query, &gated));
    site.world.set("warm.enabled=true");
    let daemon = site.daemon().await;
    let world = &site.world;
    world.settle().await;
    // Who the reader is must be known: the gate is for one cache alone.
    assert_eq!(site.get_as(MEMBER, "/api/cached/organizations/1/roles/").await.status, 200);

    let gate = world.postgres.client().await.unwrap();
    gate.batch_execute("select pg_advisory_lock(7)").await.unwrap();
    world.put(&[&org(1)]).await;
    world.rename(1).await;
    until("it to be filled again", async || (at_the_gate(world).await == 1).then_some(())).await;
    // Another change: what is being loaded will not be stored.
    world.rename(1).await;
    world.settle().await;
    let client = site.client;
    let reading =
        tokio::spawn(
            async move { client.get_as(MEMBER, "/api/cached/organizations/1/info/").await },
        );
    until("the reader to wait, or to load", async || {
        let waits = daemon.metric("unstale_leases_waiting").await > 0.0;
        (waits || at_the_gate(world).await > 1).then_some(())
    })
    .await;
    assert_eq!(at_the_gate(world).await, 1, "two loads of one key at once");
    gate.batch_execute("select pg_advisory_unlock(7)").await.unwrap();
    let answer = reading.await.unwrap();
    let body = String::from_utf8(answer.body).unwrap();
    assert!(answer.status == 200 && body.contains(r#""one++""#), "{body}");
    assert_eq!(daemon.metric(LOADS).await, 2.0, "what the change voided, and what he has got");
    assert!(daemon.stop().await.success());
}
