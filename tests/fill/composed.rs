//! Composed values on real servers: joined byte for byte from their parts, which are read in
//! one round trip and dropped each by itself.

use std::collections::BTreeSet;

use crate::support::reader::Reader;
use crate::support::{World, until};
use redis::AsyncCommands;
use unstale::fill::filler::{How, ReadError};

/// Organization 1 with users 1 and 2 (one role, one permission), and organization 2 without.
const ROWS: &str = "
    set session_replication_role = replica;
    insert into organization_organization (id, name, is_active, created_at, updated_at)
    values (1, 'one', true, '2026-01-02 03:04:05.678901+00', now()), (2, 'two', true, now(), now());
    insert into django_content_type (id, app_label, model) values (1, 'deals', 'deal');
    insert into auth_permission (id, name, content_type_id, codename)
    values (1, 'Can view \"deals\"', 1, 'view_deal');
    insert into permissions_role (id, name, organization_id) values (11, 'Sales', 1);
    insert into permissions_role_permissions (id, role_id, permission_id) values (111, 11, 1);
    insert into authentication_user (id, password, is_superuser, email, first_name, last_name, is_active, date_joined, organization_id, role_id)
    values (1, '', false, 'a@x', '', '', true, now(), 1, 11), (2, '', true, 'b@x', '', '', true, now(), 1, null);
";

const A_DEAL: &str = "
    set session_replication_role = replica;
    insert into deals_deal (id, deal_id, organization_id, client_id, deal_name, deal_value, currency,
        verification_status, payment_status, payment_method, source_type, deal_date, created_at, updated_at)
    select gen_random_uuid(), 'D1', 1, 1, 'deal', 12345, 'USD', 'pending', 'initial payment', 'bank',
        'google', now(), now(), now()
";

async fn world() -> World {
    let world = World::new().await;
    world.postgres.execute(ROWS).await.unwrap();
    world
}

fn values<'v>(user: &'v str, org: &'v str) -> [(&'v str, &'v str); 2] {
    [("user_id", user), ("org_id", org)]
}

/// What a cache's query gives, in the database's own words.
async fn by_sql(world: &World, reader: &Reader, cache: &str, user: u32, org: u32) -> String {
    let sql = reader.queries[cache]
        .replace("$user_id", &user.to_string())
        .replace("$org_id", &org.to_string())
        .replace("$days", "30")
        .replace("$timezone", "'UTC'");
    world.query_one(&sql).await
}

/// The dashboard as it must be, without the brace that closes it.
async fn dashboard_by_sql(world: &World, reader: &Reader, user: u32, org: u32) -> String {
    let part = async |cache| by_sql(world, reader, cache, user, org).await;
    format!(
        r#"{{"user_id":{user},"organization_id":{org},"organization_data":{},"user_permissions":{},"deal_statistics":{},"role_information":{}"#,
        part("org_data").await,
        part("user_perms").await,
        part("deal_stats").await,
        part("role_info").await,
    )
}

#[tokio::test]
async fn a_dashboard_is_its_parts_joined_byte_for_byte() {
    let world = world().await;
    let _daemon = world.daemon().await;
    let reader = Reader::new(&world);
    for user in [1, 2] {
        let dashboard = dashboard_by_sql(&world, &reader, user, 1).await;
        let (id, expected) = (user.to_string(), format!("{dashboard}}}"));
        // User 2 finds the organization's parts, and his own are filled.
        let first = reader.named("dashboard", &values(&id, "1")).await;
        assert_eq!(first, (Some(expected.clone()), How::Stored));
        let again = reader.named("dashboard", &values(&id, "1")).await;
        assert_eq!(again, (Some(expected), How::Hit));

        let own = by_sql(&world, &reader, "api_dashboard", user, 1).await;
        let (_, actions) = own.split_once(r#""quick_actions":"#).expect("quick actions");
        let actions = actions.strip_suffix('}').expect("the last member");
        assert!(actions.contains("view_deals"), "{actions}");
        let expected = format!("{dashboard},\"quick_actions\":{actions}}}");
        let api = reader.named("api_dashboard", &values(&id, "1")).await;
        assert_eq!(api, (Some(expected.clone()), How::Stored));
        serde_json::from_str::<serde_json::Value>(&expected).expect("JSON");
        // What is stored under the key is the user's own part alone.
        let key = format!("prs_cache:1:v1:api_response:dashboard:{user}:1");
        let stored: String = world.values().await.get(key).await.unwrap();
        assert_eq!(stored, own);
        assert_eq!(reader.read("api_dashboard", &values(&id, "1")).await, (Some(own), How::Hit));
    }
    for cache in ["org_data", "deal_stats", "role_info"] {
        assert_eq!(reader.loads(cache), 1, "{cache} is shared by all users");
    }
    let keys = world.keys().await;
    assert!(!keys.iter().any(|key| key.contains("dashboard:1:1") && !key.contains("api_response")));
}

#[tokio::test]
async fn one_deal_drops_the_figures_and_no_user_s_part() {
    let world = world().await;
    let _daemon = world.daemon().await;
    let reader = Reader::new(&world);
    for user in ["1", "2"] {
        reader.named("api_dashboard", &values(user, "1")).await;
    }
    let before = world.keys().await;
    world.postgres.execute(A_DEAL).await.unwrap();
    world.settle().await;
    let gone: BTreeSet<String> = before.difference(&world.keys().await).cloned().collect();
    let figures = ["v1:deal_stats:1:30", "v1:org:data:1"].map(str::to_owned);
    assert_eq!(gone, BTreeSet::from(figures));
    for user in [1, 2] {
        let expected = dashboard_by_sql(&world, &reader, user, 1).await + "}";
        assert!(expected.contains("12345.00"), "{expected}");
        let (value, _) = reader.named("dashboard", &values(&user.to_string(), "1")).await;
        assert_eq!(value, Some(expected));
    }
    assert_eq!(reader.loads("user_perms"), 2, "once for each user");
    assert_eq!(reader.loads("deal_stats"), 2, "once before the deal, once after");
}

#[tokio::test]
async fn all_parts_are_asked_for_before_any_answer_comes() {
    let mut world = world().await;
    let direct = world.redis.connection_db(1).await.unwrap();
    let _daemon = world.daemon().await;
    let proxy = world.redis_proxy().await;
    let reader = Reader::new(&world);
    // The connection is there, and the script is known.
    reader.named("dashboard", &values("1", "1")).await;
    let leases = async || {
        let mut direct = direct.clone();
        let found: Vec<String> = redis::cmd("KEYS")
            .arg("unstale:unstale:lease:*")
            .query_async(&mut direct)
            .await
            .unwrap();
        found.len()
    };
    assert_eq!(leases().await, 0);
    proxy.lose_answers();
    let reading = tokio::spawn({
        let filler = reader.filler.clone();
        async move { filler.read_named("dashboard", &[("user_id", "2"), ("org_id", "2")]).await }
    });
    until("a lease on each of the four parts", async || (leases().await == 4).then_some(())).await;
    assert!(!reading.is_finished(), "no answer has come");
    proxy.cut();
    // Nothing is stored by leases that are lost; the value is given all the same.
    assert_eq!(reading.await.unwrap().unwrap().value, None, "user 2 is not of organization 2");
}

#[tokio::test]
async fn there_is_no_dashboard_of_an_organization_that_one_is_not_of() {
    let world = world().await;
    let _daemon = world.daemon().await;
    let reader = Reader::new(&world);
    assert_eq!(reader.named("dashboard", &values("1", "2")).await, (None, How::Absent));
    assert_eq!(reader.named("api_dashboard", &values("404", "1")).await, (None, How::Absent));
    world
        .postgres
        .execute("update authentication_user set organization_id = 2 where id = 1")
        .await
        .unwrap();
    world.settle().await;
    assert_eq!(reader.named("dashboard", &values("1", "1")).await.0, None);
    let (moved, _) = reader.named("dashboard", &values("1", "2")).await;
    assert_eq!(moved, Some(dashboard_by_sql(&world, &reader, 1, 2).await + "}"));
}

#[tokio::test]
async fn what_would_make_a_key_that_no_change_reaches_is_refused() {
    let world = world().await;
    let _daemon = world.daemon().await;
    let reader = Reader::new(&world);
    for (user, org) in [("1", "01"), ("1", " 1"), ("1e0", "1"), ("", "1")] {
        let read = reader.filler.read_named("dashboard", &values(user, org)).await;
        assert!(matches!(read, Err(ReadError::Parameters(_))), "{user:?} {org:?}: {read:?}");
    }
    let missing = reader.filler.read_named("dashboard", &[("user_id", "1")]).await;
    assert!(matches!(missing, Err(ReadError::Parameters(_))), "{missing:?}");
    let days = [("org_id", "1"), ("days", "31")];
    let read = reader.filler.read_named("deal_stats", &days).await;
    assert!(matches!(read, Err(ReadError::Parameters(_))), "{read:?}");
    assert!(world.keys().await.is_empty());
}

#[tokio::test]
async fn a_part_that_cannot_be_loaded_is_an_error_and_the_others_are_stored() {
    let world = world().await;
    let _daemon = world.daemon().await;
    let reader = Reader::new(&world);
    world.postgres.execute("alter table deals_deal rename to elsewhere").await.unwrap();
    // org_data reads the deals, too; role_info and user_perms do not.
    let read = reader.filler.read_named("dashboard", &values("1", "1")).await;
    assert!(matches!(read, Err(ReadError::Load(_))), "{read:?}");
    let keys = world.keys().await;
    let stored = ["v1:role_info:1", "v1:user_perms:1:1"].map(str::to_owned);
    assert_eq!(keys, BTreeSet::from(stored));
}
