//! `unstale warm` fills exactly what is missing.

use std::collections::BTreeSet;

use crate::rows::json;
use crate::support::World;
use redis::AsyncCommands;
use serde_json::Value;

async fn warm(world: &World, arguments: &[&str]) -> (i32, Value) {
    json(world, "warm", arguments).await
}

/// Organizations `one` (1) and `two` (2) are active, `closed` (3) is not. Of the users of
/// `one`, 11 logged in last, then 12; 13 never did; 14 is not active. 21 is of `two`, 31
/// of `closed`.
async fn world() -> World {
    let world = World::new().await;
    world
        .postgres
        .execute(
            "insert into organization_organization (id, name, is_active, created_at, updated_at)
             values (1, 'one', true, now(), now()), (2, 'two', true, now(), now()),
                    (3, 'closed', false, now(), now());
             insert into authentication_user (id, email, password, first_name, last_name,
                    is_active, is_superuser, is_staff, date_joined, organization_id, last_login)
             select i, i || '@example.com', '', '', '', i <> 14, false, false, now(), i / 10,
                    case when i <> 13 then timestamptz '2026-01-01' - make_interval(days => i) end
               from unnest(array[11, 12, 13, 14, 21, 31]) i",
        )
        .await
        .unwrap();
    world
}

/// The keys of organizations and users, as the default configuration has them.
fn expected(organizations: &[u32], users: &[(u32, u32)]) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for org in organizations {
        keys.insert(format!("v1:org:data:{org}"));
        keys.insert(format!("v1:role_info:{org}"));
        keys.insert(format!("v1:api_response:statistics:{org}"));
        keys.extend([7, 30, 90, 365].map(|days| format!("v1:deal_stats:{org}:{days}")));
    }
    for (user, org) in users {
        keys.insert(format!("v1:user_perms:{user}:{org}"));
        keys.insert(format!("v1:identity:{user}"));
        keys.insert(format!("v1:api_response:dashboard:{user}:{org}"));
    }
    keys
}

#[tokio::test]
async fn what_is_missing_is_filled_and_nothing_twice() {
    let world = world().await;
    let _daemon = world.daemon().await;
    let (code, told) = warm(&world, &[]).await;
    let wanted = expected(&[1, 2], &[(11, 1), (12, 1), (13, 1), (21, 2)]);
    assert_eq!(code, 0, "{told}");
    assert_eq!(world.keys().await, wanted, "active organizations and users only");
    assert_eq!(told["total"]["stored"], wanted.len(), "{told}");
    let ttl: i64 = world.values().await.ttl("prs_cache:1:v1:org:data:1").await.unwrap();
    assert!((3200..=3600).contains(&ttl), "a whole life, less some chance: {ttl}");

    let _: () = world.values().await.del("prs_cache:1:v1:identity:12").await.unwrap();
    let (code, told) = warm(&world, &[]).await;
    assert_eq!((code, &told["total"]["stored"]), (0, &1.into()), "{told}");
    assert_eq!(told["total"]["present"], wanted.len() - 1, "{told}");
    let (code, told) = warm(&world, &[]).await;
    assert_eq!((code, &told["total"]["stored"]), (0, &0.into()), "{told}");
}

#[tokio::test]
async fn one_organization_is_meant_by_name_or_id_even_if_it_is_not_active() {
    for (name, organization, users) in
        [("two", 2, vec![(21, 2)]), ("2", 2, vec![(21, 2)]), ("closed", 3, vec![(31, 3)])]
    {
        let world = world().await;
        let _daemon = world.daemon().await;
        let (code, told) = warm(&world, &["--organization", name]).await;
        assert_eq!(code, 0, "{told}");
        assert_eq!(world.keys().await, expected(&[organization], &users), "{name}");
    }
}

#[tokio::test]
async fn an_organization_that_there_is_not_is_an_error() {
    let world = world().await;
    let _daemon = world.daemon().await;
    let output = world.command("warm").args(["--organization", "' or true --"]).output().await;
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("exact name or its id"));
    assert!(world.keys().await.is_empty());
}

#[tokio::test]
async fn so_many_users_are_warmed_and_those_who_logged_in_last() {
    let mut world = world().await;
    let _daemon = world.daemon().await;
    let (code, told) = warm(&world, &["--users", "1", "--cache-type", "identity"]).await;
    assert_eq!(code, 0, "{told}");
    let keys = |users: &[u32]| -> BTreeSet<String> {
        users.iter().map(|user| format!("v1:identity:{user}")).collect()
    };
    assert_eq!(world.keys().await, keys(&[11, 21]));
    world.set("warm.users=2");
    warm(&world, &["--cache-type", "identity"]).await;
    assert_eq!(world.keys().await, keys(&[11, 12, 21]));
}

#[tokio::test]
async fn one_user_is_meant_by_id_even_if_it_is_not_active() {
    for (user, organization, arguments) in [
        (13, 1, &["--user-id", "13"][..]),
        (14, 1, &["--user-id", "14", "--organization", "one"]),
        (31, 3, &["--user-id", "31", "--organization", "closed", "--cache-type", "user"]),
    ] {
        let world = world().await;
        let _daemon = world.daemon().await;
        let (code, told) = warm(&world, arguments).await;
        assert_eq!(code, 0, "{told}");
        assert_eq!(world.keys().await, expected(&[], &[(user, organization)]), "{told}");
        if arguments.len() == 2 {
            assert!(told["left_out"]["org_data"].as_str().unwrap().contains("no user"), "{told}");
        }
        let (code, _) = warm(&world, &["--user-id", "99"]).await;
        assert_eq!(code, 1, "there is none");
    }
}

#[tokio::test]
async fn days_narrow_what_goes_by_days() {
    let world = world().await;
    let _daemon = world.daemon().await;
    let (code, _) = warm(&world, &["--organization", "two", "--days", "30"]).await;
    assert_eq!(code, 0);
    let mut wanted = expected(&[2], &[(21, 2)]);
    wanted.retain(|key| !key.starts_with("v1:deal_stats") || key.ends_with(":30"));
    assert_eq!(world.keys().await, wanted);
}

#[tokio::test]
async fn a_cache_type_is_a_group_or_the_users_caches() {
    let world = world().await;
    let _daemon = world.daemon().await;
    let (code, _) = warm(&world, &["--cache-type", "user"]).await;
    assert_eq!(code, 0);
    assert_eq!(world.keys().await, expected(&[], &[(11, 1), (12, 1), (13, 1), (21, 2)]));
    let (code, told) = warm(&world, &["--cache-type", "strategic"]).await;
    assert_eq!(code, 0);
    assert_eq!(told["caches"]["deal_stats"]["stored"], 8, "{told}");
    let order: Vec<&str> = told["caches"].as_object().unwrap().keys().map(|k| &**k).collect();
    assert_eq!(order, ["identity", "org_data", "user_perms", "deal_stats", "role_info"]);

    let output = world.command("warm").args(["--cache-type", "api", "--verbose"]).output().await;
    let output = output.unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("api_search is left out"));
}

#[tokio::test]
async fn nothing_is_filled_where_no_daemon_has_made_it_safe() {
    let mut world = world().await;
    let output = world.command("warm").output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("unstale run"));
    assert!(world.keys().await.is_empty());
    world.set("redis.url=redis://127.0.0.1:1/1");
    assert_eq!(world.command("warm").output().await.unwrap().status.code(), Some(69));
    world.set("caches.org_data.population=select $days as org_id");
    assert_eq!(world.command("warm").output().await.unwrap().status.code(), Some(78));
}

#[tokio::test]
async fn an_entry_that_cannot_be_computed_is_told_and_the_others_are_filled() {
    let world = world().await;
    let _daemon = world.daemon().await;
    let output = world
        .command("warm")
        .args(["--set", "caches.role_info.query=select null::json where $org_id <> ''"])
        .args(["--cache-type", "strategic"])
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("role_info"), "{told}");
    assert!(world.keys().await.contains("v1:org:data:1"));
    assert!(!world.keys().await.contains("v1:role_info:1"));
}
