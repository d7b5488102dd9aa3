//! The spine: a row changes in Postgres, exactly the right Redis keys go.

use std::collections::BTreeSet;

use crate::support::World;

fn set(keys: &[&str]) -> BTreeSet<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

#[tokio::test]
async fn a_changed_row_removes_exactly_the_keys_that_depended_on_it() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    world
        .postgres
        .execute(
            "insert into organization_organization (id, name, is_active, created_at, updated_at) values (1, 'a', true, now(), now()), (2, 'b', true, now(), now())",
        )
        .await
        .unwrap();
    world.settle().await;
    world
        .put(&[
            "v1:org:data:1",
            "v1:org:data:2",
            "v1:deal_stats:1:7",
            "v1:api_response:analytics:1:generation",
        ])
        .await;
    world
        .postgres
        .execute("update organization_organization set name = 'c' where id = 1")
        .await
        .unwrap();
    world.settle().await;
    assert_eq!(
        world.keys().await,
        set(&["v1:org:data:2", "v1:deal_stats:1:7"]),
        "{}",
        daemon.log()
    );
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn one_change_can_be_followed_through_the_log_by_its_xid_and_its_lsn() {
    let world = World::new().await;
    world.organizations(2).await;
    let daemon = world.daemon().await;
    world.settle().await;
    let change = "update organization_organization set name = 'c' where id = 1;
                  select pg_current_xact_id()::xid::text";
    let xid = world.query_one(change).await;
    world.settle().await;
    let log = daemon.log();
    let lines: Vec<&str> = log.lines().filter(|l| l.contains(&format!("xid={xid} "))).collect();
    let lsn = |line: &str| {
        line.split("lsn=").nth(1).and_then(|rest| rest.split(' ').next()).map(str::to_owned)
    };
    for step in ["received", "visible", "applied"] {
        let line = lines.iter().find(|line| line.contains(step));
        assert!(line.is_some_and(|line| lsn(line) == lsn(lines[0])), "{step} of {xid}:\n{log}");
    }
    assert!(daemon.stop().await.success());
}
