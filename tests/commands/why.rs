//! `unstale why` tells what dropped a key, from whoever still knows.

use std::process::Output;

use crate::support::World;
use redis::AsyncCommands;
use serde_json::Value;

async fn run(world: &World, arguments: &[&str]) -> Output {
    world.command("why").args(arguments).output().await.expect("it runs")
}

async fn why(world: &World, key: &str) -> Value {
    let output = run(world, &["--json", key]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("a JSON object")
}

#[tokio::test]
async fn the_change_that_dropped_a_key_is_told_with_or_without_the_prefix() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    world.organizations(2).await;
    world.settle().await;
    world.put(&["v1:org:data:1", "v1:org:data:2"]).await;
    let told = why(&world, "v1:org:data:2").await;
    assert_eq!(told["redis"]["present"], true);
    assert!((3_500_000..=3_600_000).contains(&told["redis"]["ttl_ms"].as_i64().unwrap()), "{told}");
    assert!(told["redis"]["lease_ttl_ms"].is_null());

    let client = world.postgres.client().await.unwrap();
    let sql = "with u as (update organization_organization set name = 'new' where id = 1)
               select pg_current_xact_id()::text";
    let xid: String = client.query_one(sql, &[]).await.unwrap().get(0);
    world.until_gone("v1:org:data:1").await;
    world.settle().await;
    for key in ["v1:org:data:1", "prs_cache:1:v1:org:data:1"] {
        let told = why(&world, key).await;
        assert_eq!(told["key"], "prs_cache:1:v1:org:data:1");
        assert_eq!(
            (&told["cache"], &told["parameters"]["org_id"]),
            (&"org_data".into(), &"1".into())
        );
        assert_eq!(told["redis"]["present"], false);
        assert_eq!(
            (&told["redis"]["valid"], &told["redis"]["certified"]),
            (&true.into(), &true.into())
        );
        let drop = &told["daemon"]["last_drop"];
        assert_eq!(drop["table"], "organization_organization");
        assert_eq!((&drop["operation"], &drop["present"]), (&"update".into(), &true.into()));
        assert_eq!(drop["xid"].to_string(), xid);
        assert!(drop["lsn"].as_str().unwrap().parse::<unstale::lsn::Lsn>().is_ok(), "{drop}");
        assert!(
            drop["rule"].as_str().unwrap().starts_with("organization_organization -> org_data")
        );
        assert!(drop["age_seconds"].as_f64().unwrap() < 60.0);
        assert!(told["rules"].as_array().unwrap().len() >= 3, "users, deals, organizations");
    }
    let output = run(&world, &["v1:org:data:1"]).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("  cache       org_data org_id=1\n"), "{text}");
    assert!(
        text.contains(&format!("update of organization_organization, xid {xid}, LSN ")),
        "{text}"
    );
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn a_dropped_generation_and_a_dropped_cache_are_reasons_too() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    world.organizations(1).await;
    world.settle().await;
    world.put(&["v1:api_response:analytics:1:generation"]).await;
    world.rename(1).await;
    world.until_gone("v1:api_response:analytics:1:generation").await;
    world.settle().await;
    let told = why(&world, "v1:api_response:analytics:1:gen7:30:overview").await;
    assert_eq!(told["cache"], "api_analytics");
    assert_eq!(told["generation"]["of_entry"], "gen7");
    assert_eq!(told["generation"]["key"], "prs_cache:1:v1:api_response:analytics:1:generation");
    assert!(told["redis"]["generation"].is_null());
    assert_eq!(told["daemon"]["last_drop"]["table"], "organization_organization");

    world.put(&["v1:deal_stats:1:7"]).await;
    world.postgres.execute("truncate deals_deal cascade").await.unwrap();
    world.until_gone("v1:deal_stats:1:7").await;
    world.settle().await;
    let told = why(&world, "v1:deal_stats:1:7").await;
    let whole = &told["daemon"]["last_whole_drop"];
    assert_eq!((&whole["reason"], &whole["operation"]), (&"truncate".into(), &"truncate".into()));
    assert_eq!(whole["table"], "deals_deal");
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn without_a_daemon_redis_alone_tells_and_without_both_it_fails() {
    let mut world = World::new().await;
    let daemon = world.daemon().await;
    assert!(daemon.stop().await.success());
    world.put(&["v1:org:data:1"]).await;
    let mut values = world.values().await;
    let lease = "unstale:unstale:lease:{prs_cache:1:v1:org:data:1}";
    let _: () = values.set_ex(lease, "token", 30).await.unwrap();
    // The certificate outlives the daemon for seconds; here they are over.
    let _: () = values.del("unstale:unstale:fresh").await.unwrap();
    let output = run(&world, &["v1:org:data:1"]).await;
    let (text, said) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert!(said.contains("no daemon answers at 127.0.0.1:"), "{said}");
    assert!(text.contains("  in Redis    yes, lives 59m "), "{text}");
    assert!(text.contains("  lease       taken, expires in "), "{text}");
    assert!(text.contains("applied up to LSN "), "{text}");
    assert!(!text.contains("last drop"), "{text}");

    // A key that is nobody's.
    let told = why(&world, "session:7").await;
    assert_eq!(told["key"], "prs_cache:1:session:7");
    assert!(told["cache"].is_null() && told["daemon"].is_null());

    world.set("redis.url=redis://127.0.0.1:1/0");
    let output = run(&world, &["v1:org:data:1"]).await;
    assert_eq!(output.status.code(), Some(69));
    assert!(output.stdout.is_empty());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("no daemon answers") && said.contains("Redis did not answer"), "{said}");
}
