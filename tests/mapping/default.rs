//! The default mapping, row by row of "what depends on what": what a change reaches, and
//! that it reaches nothing else.
//!
//! Everything that could be cached is put into Redis before each scenario. Its change is
//! made, and exactly the keys that it names must be gone.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::support::{Daemon, World};
use redis::aio::MultiplexedConnection;
use tokio_postgres::Client;

/// Two organizations at work (1 and 2) and one without anything (3).
///
/// | user | organization | role |
/// |---|---|---|
/// | 1 | 1 | 11, of organization 1 |
/// | 2 | 1 | 10, global |
/// | 3 | 2 | 12, of organization 2 |
/// | 4 | 2 | none |
/// | 5 | none | 10, global |
/// | 6 | none | none |
///
/// Nobody holds the roles 13 (of organization 1), 14 (global), 15 (of organization 3).
/// Client 1 has a deal of organization 1; client 2, of organization 2, has deals of both;
/// client 3, of organization 1, has none. No role has permission 4, and 5 is one of a role
/// that nobody holds; no permission has content type 3.
const ROWS: &str = "
    insert into organization_organization (id, name, is_active, created_at, updated_at)
    values (1, 'one', true, now(), now()), (2, 'two', true, now(), now()), (3, 'three', true, now(), now());
    insert into django_content_type (id, app_label, model)
    values (1, 'deals', 'deal'), (2, 'clients', 'client'), (3, 'project', 'project');
    insert into auth_permission (id, name, content_type_id, codename)
    values (1, 'Can view deal', 1, 'view_deal'), (2, 'Can add deal', 1, 'add_deal'),
           (3, 'Can view client', 2, 'view_client'), (4, 'Can add client', 2, 'add_client'),
           (5, 'Can verify', 1, 'verify_deal');
    insert into permissions_role (id, name, organization_id)
    values (10, 'Admin', null), (11, 'Sales', 1), (12, 'Verifier', 2), (13, 'Trainee', 1),
           (14, 'Support', null), (15, 'Sales', 3);
    insert into permissions_role_permissions (id, role_id, permission_id)
    values (101, 10, 1), (111, 11, 1), (112, 11, 2), (123, 12, 3), (141, 14, 2), (155, 15, 5);
    insert into authentication_user (id, password, is_superuser, email, first_name, last_name, is_active, date_joined, organization_id, role_id)
    values (1, '', false, 'a@x', '', '', true, now(), 1, 11), (2, '', false, 'b@x', '', '', true, now(), 1, 10),
           (3, '', false, 'c@x', '', '', true, now(), 2, 12), (4, '', true, 'd@x', '', '', true, now(), 2, null),
           (5, '', false, 'e@x', '', '', true, now(), null, 10), (6, '', false, 'f@x', '', '', true, now(), null, null);
    insert into clients_client (id, client_name, organization_id, created_at, updated_at)
    values (1, 'c1', 1, now(), now()), (2, 'c2', 2, now(), now()), (3, 'c3', 1, now(), now());
    insert into project_project (id, name, status, organization_id, client_id, created_at)
    values (1, 'p1', 'open', 1, 1, now());
    insert into deals_deal (id, deal_id, organization_id, client_id, deal_name, deal_value, verification_status, payment_status, payment_method, source_type, deal_date, created_at, updated_at)
    select ('00000000-0000-0000-0000-00000000000' || i)::uuid, 'D' || i, o, c, 'deal', 10, 'pending', 'initial payment', 'cash', 'google', current_date, now(), now()
      from (values (1, 1, 1), (2, 1, 2), (3, 2, 2)) d (i, o, c);
    insert into deals_payment (id, deal_id, received_amount, status, payment_date, created_at)
    values (1, '00000000-0000-0000-0000-000000000001', 5, 'initiated', current_date, now());
";

const NO_ROWS: &str = "
    delete from deals_payment; delete from deals_deal; delete from project_project;
    delete from clients_client; delete from authentication_user;
    delete from permissions_role_permissions; delete from permissions_role;
    delete from auth_permission; delete from django_content_type;
    delete from organization_organization;
";

const ORGANIZATIONS: [u32; 3] = [1, 2, 3];
/// 7 is for who is inserted.
const USERS: [u32; 7] = [1, 2, 3, 4, 5, 6, 7];
const DAYS: [u32; 4] = [7, 30, 90, 365];

/// Keys that nothing here may ever reach.
const FOREIGN: [&str; 4] =
    ["v1:org:data", "v1:org:database:1", "v2:org:data:1", "v1:deal_stats_2:1:7"];

/// Every key that could be cached, by its short name.
fn universe() -> Vec<(String, String)> {
    let mut keys = Vec::new();
    let mut add = |short: String, key: String| keys.push((short, key));
    for org in ORGANIZATIONS {
        add(format!("org_data:{org}"), format!("v1:org:data:{org}"));
        add(format!("statistics:{org}"), format!("v1:api_response:statistics:{org}"));
        add(format!("role_info:{org}"), format!("v1:role_info:{org}"));
        for days in DAYS {
            add(format!("deal_stats:{org}"), format!("v1:deal_stats:{org}:{days}"));
        }
        // An entry stays where it is when its generation goes: nobody finds it any more.
        for (cache, entry) in [("analytics", "30:overview"), ("search", "acme%20ltd")] {
            let scope = format!("v1:api_response:{cache}:{org}");
            add(format!("{cache}:{org}"), format!("{scope}:generation"));
            add(format!("{cache}-entry:{org}"), format!("{scope}:f00d:{entry}"));
        }
        for user in USERS {
            add(format!("perms:{user}@{org}"), format!("v1:user_perms:{user}:{org}"));
            let dashboard = format!("v1:api_response:dashboard:{user}:{org}");
            add(format!("dashboard:{user}@{org}"), dashboard);
        }
    }
    for user in USERS {
        add(format!("identity:{user}"), format!("v1:identity:{user}"));
    }
    keys.extend(FOREIGN.map(|key| (key.to_owned(), key.to_owned())));
    keys
}

/// What a word of an expectation stands for, as the beginnings of short names.
fn expand(word: &str) -> Vec<String> {
    match word.split_once(':') {
        // user:1@2 is all that is the user's own in that organization.
        Some(("user", who)) => vec![format!("perms:{who}"), format!("dashboard:{who}"), {
            format!("identity:{}", who.split('@').next().unwrap_or(who))
        }],
        // What a deal's figures stand in.
        Some(("figures", org)) => ["org_data", "statistics", "deal_stats", "analytics", "search"]
            .map(|c| format!("{c}:{org}"))
            .into(),
        // A whole cache, entries and all.
        Some((cache, "*")) => vec![format!("{cache}:*"), format!("{cache}-entry:*")],
        _ => vec![word.to_owned()],
    }
}

fn keys_of(expectation: &str) -> BTreeSet<String> {
    let universe = universe();
    let mut keys = BTreeSet::new();
    for name in expectation.split_whitespace().flat_map(expand) {
        let matches = |short: &str| match name.strip_suffix('*') {
            Some(beginning) => short.starts_with(beginning),
            None => short == name,
        };
        let mut found = universe.iter().filter(|(s, _)| matches(s)).map(|(_, key)| key).peekable();
        // Not every cache has entries.
        assert!(found.peek().is_some() || name.contains("-entry"), "{name} is no key");
        keys.extend(found.cloned());
    }
    keys
}

/// A change and all that it reaches.
struct Scenario {
    change: &'static str,
    sql: &'static str,
    gone: &'static str,
}

const fn change(change: &'static str, sql: &'static str, gone: &'static str) -> Scenario {
    Scenario { change, sql, gone }
}

/// The world of a file's scenarios: one daemon for all of them.
struct Ground {
    world: World,
    daemon: Daemon,
    client: Client,
    values: MultiplexedConnection,
}

impl Ground {
    async fn new() -> Ground {
        let world = World::new().await;
        world.publish_heartbeat().await;
        let daemon = world.daemon().await;
        let client = world.postgres.client().await.unwrap();
        let values = world.values().await;
        Ground { world, daemon, client, values }
    }

    /// Puts every row and every key where it was.
    async fn restore(&mut self) {
        self.client
            .batch_execute(&format!("begin; {NO_ROWS} {ROWS} commit"))
            .await
            .expect("the rows are put back");
        self.world.settle_quickly(&self.client, &mut self.values).await;
        let mut pipeline = redis::pipe();
        for (_, key) in universe() {
            pipeline.set_ex(format!("prs_cache:1:{key}"), "{}", 3600).ignore();
        }
        let _: () = pipeline.query_async(&mut self.values).await.unwrap();
    }

    /// What the change removes from a full cache.
    async fn gone_after(&mut self, sql: &str) -> BTreeSet<String> {
        self.restore().await;
        let before: BTreeSet<String> = universe().into_iter().map(|(_, key)| key).collect();
        assert_eq!(self.world.keys().await, before);
        self.client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        self.world.settle_quickly(&self.client, &mut self.values).await;
        let left = self.world.keys().await;
        assert!(left.is_subset(&before), "the daemon wrote a value");
        before.difference(&left).cloned().collect()
    }

    /// Runs the scenarios; fails with every one that did something else.
    async fn check(mut self, scenarios: &[Scenario]) {
        let mut wrong = String::new();
        for scenario in scenarios {
            let gone = self.gone_after(scenario.sql).await;
            let expected = keys_of(scenario.gone);
            if gone != expected {
                let kept: Vec<_> = expected.difference(&gone).collect();
                let more: Vec<_> = gone.difference(&expected).collect();
                writeln!(wrong, "{}\n  kept: {kept:?}\n  gone too: {more:?}", scenario.change)
                    .unwrap();
            }
        }
        assert!(wrong.is_empty(), "{wrong}\n{}", self.daemon.log());
        assert_eq!(self.daemon.readyz().await.unwrap()["problems"], serde_json::json!([]));
        assert!(self.daemon.stop().await.success());
    }
}

#[tokio::test]
async fn an_organization_reaches_its_data_its_analytics_and_the_identity_of_its_users() {
    Ground::new()
        .await
        .check(&[
            change(
                "inserted",
                "insert into organization_organization (id, name, is_active, created_at, updated_at) values (4, 'four', true, now(), now())",
                "",
            ),
            change(
                "inserted where its keys were cached before",
                "begin; delete from permissions_role_permissions where role_id = 15; delete from permissions_role where id = 15; delete from organization_organization where id = 3;
                 insert into organization_organization (id, name, is_active, created_at, updated_at) values (3, 'three', true, now(), now()); commit",
                "org_data:3 analytics:3 role_info:3",
            ),
            change("deleted with its role", "begin; delete from organization_organization where id = 3; delete from permissions_role where id = 15; delete from permissions_role_permissions where id = 155; commit",
                "org_data:3 analytics:3 role_info:3",
            ),
            change("name", "update organization_organization set name = 'other' where id = 1", "org_data:1 analytics:1"),
            change("is_active", "update organization_organization set is_active = false where id = 1", "org_data:1 identity:1 identity:2"),
            change("created_at", "update organization_organization set created_at = '2020-01-01Z' where id = 1", "org_data:1"),
            change(
                "all of them at once",
                "update organization_organization set is_active = not is_active, name = name || '!'",
                "org_data:1 org_data:2 org_data:3 analytics:1 analytics:2 analytics:3 identity:1 identity:2 identity:3 identity:4",
            ),
            change("what no query reads", "update organization_organization set description = 'x', sales_goal = 1, updated_at = '2020-01-01Z'", ""),
            change("the same again", "update organization_organization set name = name, is_active = is_active, created_at = created_at", ""),
            change("truncated with all that hangs on it", "truncate organization_organization cascade",
                "org_data:* identity:* statistics:* role_info:* perms:* dashboard:* deal_stats:* analytics:* search:*"),
        ])
        .await;
}

#[tokio::test]
async fn a_user_reaches_the_organization_that_was_left_the_one_that_was_joined_and_their_own() {
    Ground::new()
        .await
        .check(&[
            change(
                "inserted",
                "insert into authentication_user (id, password, is_superuser, email, first_name, last_name, is_active, date_joined, organization_id, role_id) values (7, '', false, 'g@x', '', '', true, now(), 1, 11)",
                "org_data:1 statistics:1 role_info:1 user:7@1",
            ),
            change(
                "inserted without organization",
                "insert into authentication_user (id, password, is_superuser, email, first_name, last_name, is_active, date_joined) values (7, '', false, 'g@x', '', '', true, now())",
                "identity:7",
            ),
            change("deleted", "delete from authentication_user where id = 1", "org_data:1 statistics:1 role_info:1 user:1@1"),
            change("deleted without organization", "delete from authentication_user where id = 6", "identity:6"),
            change(
                "moved to another organization",
                "update authentication_user set organization_id = 2 where id = 1",
                "org_data:1 statistics:1 role_info:1 user:1@1 org_data:2 statistics:2 role_info:2 user:1@2",
            ),
            change(
                "moved there and back in one transaction",
                "begin; update authentication_user set organization_id = 2 where id = 1; update authentication_user set organization_id = 1 where id = 1; commit",
                "org_data:1 statistics:1 role_info:1 user:1@1 org_data:2 statistics:2 role_info:2 user:1@2",
            ),
            change("left", "update authentication_user set organization_id = null where id = 1", "org_data:1 statistics:1 role_info:1 user:1@1"),
            change("joined", "update authentication_user set organization_id = 2 where id = 5", "org_data:2 statistics:2 role_info:2 user:5@2"),
            change("is_active", "update authentication_user set is_active = false where id = 3", "org_data:2 statistics:2 role_info:2 user:3@2"),
            change("role_id", "update authentication_user set role_id = 13 where id = 1", "role_info:1 user:1@1"),
            change("role_id to null", "update authentication_user set role_id = null where id = 1", "role_info:1 user:1@1"),
            change("role_id from null", "update authentication_user set role_id = 10 where id = 4", "role_info:2 user:4@2"),
            change("role_id without organization", "update authentication_user set role_id = 14 where id = 5", "identity:5"),
            change("is_superuser", "update authentication_user set is_superuser = true where id = 1", "user:1@1"),
            change(
                "is_superuser of all, which user 4 is already",
                "update authentication_user set is_superuser = true",
                "user:1@1 user:2@1 user:3@2 identity:5 identity:6",
            ),
            change("id", "update authentication_user set id = 7 where id = 1", "user:1@1 user:7@1"),
            change("a login", "update authentication_user set last_login = now()", ""),
            change("a new password", "update authentication_user set password = repeat('x', 100)", ""),
            change("names", "update authentication_user set first_name = 'x', last_name = 'y', email = 'x' || email, phone = '1'", ""),
            change("the same again, as save() writes it", "update authentication_user set is_active = is_active, organization_id = organization_id, role_id = role_id, last_login = now()", ""),
        ])
        .await;
}

#[tokio::test]
async fn a_role_reaches_its_organization_and_its_holders_and_a_global_one_every_organization() {
    Ground::new()
        .await
        .check(&[
            change("inserted", "insert into permissions_role (id, name, organization_id) values (16, 'new', 1)", "role_info:1"),
            change("a global one inserted", "insert into permissions_role (id, name) values (16, 'new')", "role_info:*"),
            change("deleted", "delete from permissions_role where id = 13", "role_info:1"),
            change(
                "a global one deleted",
                "begin; delete from permissions_role_permissions where role_id = 14; delete from permissions_role where id = 14; commit",
                "role_info:*",
            ),
            change("name", "update permissions_role set name = 'other' where id = 11", "role_info:1 user:1@1"),
            change("name of one that nobody holds", "update permissions_role set name = 'other' where id = 13", "role_info:1"),
            change("name of a global one", "update permissions_role set name = 'other' where id = 10", "role_info:* user:2@1 identity:5"),
            change("given to another organization", "update permissions_role set organization_id = 2 where id = 11", "role_info:1 role_info:2 user:1@1"),
            change("made global", "update permissions_role set organization_id = null where id = 11", "role_info:* user:1@1"),
            change("global no more", "update permissions_role set organization_id = 2 where id = 10", "role_info:* user:2@1 identity:5"),
            change("renamed and held by another one in the same transaction",
                "begin; update authentication_user set role_id = 11 where id = 3; update permissions_role set name = 'other' where id = 11; commit",
                "role_info:1 role_info:2 user:1@1 user:3@2",
            ),
            change("renamed after a holder was detached",
                "begin; update authentication_user set role_id = null where id = 1; update permissions_role set name = 'other' where id = 11; commit",
                "role_info:1 user:1@1",
            ),
            change("the same again", "update permissions_role set name = name, organization_id = organization_id", ""),
        ])
        .await;
}

/// As Django's collector deletes: the children itself, in whatever order.
#[tokio::test]
async fn a_role_that_goes_with_its_children_is_missed_by_nobody_in_any_order() {
    const PARTS: [&str; 3] = [
        "delete from permissions_role_permissions where role_id = 11;",
        "update authentication_user set role_id = null where role_id = 11;",
        "delete from permissions_role where id = 11;",
    ];
    let mut ground = Ground::new().await;
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let sql = format!("begin; {} commit", order.map(|part| PARTS[part]).join(" "));
        assert_eq!(ground.gone_after(&sql).await, keys_of("role_info:1 user:1@1"), "{sql}");
    }
}

#[tokio::test]
async fn a_roles_permission_given_or_taken_reaches_its_organization_and_its_holders() {
    Ground::new()
        .await
        .check(&[
            change("given", "insert into permissions_role_permissions (role_id, permission_id) values (11, 3)", "role_info:1 perms:1@1 dashboard:1@1"),
            change("taken", "delete from permissions_role_permissions where id = 112", "role_info:1 perms:1@1 dashboard:1@1"),
            change("given to a global role", "insert into permissions_role_permissions (role_id, permission_id) values (10, 3)", "role_info:* perms:2@1 dashboard:2@1"),
            change("taken from a global role", "delete from permissions_role_permissions where id = 101", "role_info:* perms:2@1 dashboard:2@1"),
            change("given to a role that nobody holds", "insert into permissions_role_permissions (role_id, permission_id) values (13, 3)", "role_info:1"),
            change("exchanged for another", "update permissions_role_permissions set permission_id = 3 where id = 112", "role_info:1 perms:1@1 dashboard:1@1"),
            change(
                "moved to another role",
                "update permissions_role_permissions set role_id = 12 where id = 112",
                "role_info:1 perms:1@1 dashboard:1@1 role_info:2 perms:3@2 dashboard:3@2",
            ),
            change(
                "moved from a global role",
                "update permissions_role_permissions set role_id = 12 where id = 101",
                "role_info:* perms:2@1 dashboard:2@1 perms:3@2 dashboard:3@2",
            ),
            change("its own id", "update permissions_role_permissions set id = id + 1000", ""),
            change(
                "taken while a holder leaves",
                "begin; delete from permissions_role_permissions where id = 112; update authentication_user set role_id = 13 where id = 1; commit",
                "role_info:1 user:1@1",
            ),
        ])
        .await;
}

#[tokio::test]
async fn a_permission_reaches_the_organizations_that_list_it_and_who_has_it() {
    Ground::new()
        .await
        .check(&[
            change("inserted", "insert into auth_permission (id, name, content_type_id, codename) values (6, 'n', 1, 'n')", ""),
            change("deleted", "delete from auth_permission where id = 4", ""),
            change("codename", "update auth_permission set codename = 'x' where id = 3", "role_info:2 perms:3@2 dashboard:3@2"),
            change("name", "update auth_permission set name = 'x' where id = 3", "role_info:2 perms:3@2 dashboard:3@2"),
            change("name of a global role's", "update auth_permission set name = 'x' where id = 1", "role_info:* perms:1@1 dashboard:1@1 perms:2@1 dashboard:2@1"),
            change("codename of what nobody has", "update auth_permission set codename = 'x' where id = 4", ""),
            change("codename of what a role lists that nobody holds", "update auth_permission set codename = 'x' where id = 5", "role_info:3"),
            change("content_type_id", "update auth_permission set content_type_id = 3 where id = 3", "perms:3@2"),
            change("the same again", "update auth_permission set name = name, codename = codename, content_type_id = content_type_id", ""),
            change(
                "deleted, then its place in a role",
                "begin; delete from auth_permission where id = 3; delete from permissions_role_permissions where permission_id = 3; commit",
                "role_info:2 perms:3@2 dashboard:3@2",
            ),
            change(
                "deleted after its place in a role",
                "begin; delete from permissions_role_permissions where permission_id = 3; delete from auth_permission where id = 3; commit",
                "role_info:2 perms:3@2 dashboard:3@2",
            ),
        ])
        .await;
}

#[tokio::test]
async fn a_content_type_reaches_who_has_a_permission_of_it() {
    Ground::new()
        .await
        .check(&[
            change("inserted", "insert into django_content_type (id, app_label, model) values (4, 'x', 'y')", ""),
            change("deleted", "delete from django_content_type where id = 3", ""),
            change("model", "update django_content_type set model = 'x' where id = 2", "perms:3@2"),
            change("app_label", "update django_content_type set app_label = 'x' where id = 1", "perms:1@1 perms:2@1"),
            change("of no permission", "update django_content_type set app_label = 'x' where id = 3", ""),
            change("the same again", "update django_content_type set app_label = app_label, model = model", ""),
            change(
                "deleted with its permissions",
                "begin; delete from django_content_type where id = 2; delete from auth_permission where content_type_id = 2; delete from permissions_role_permissions where permission_id = 3; commit",
                "role_info:2 perms:3@2 dashboard:3@2",
            ),
        ])
        .await;
}

#[tokio::test]
async fn a_deal_reaches_the_figures_that_it_stands_in() {
    Ground::new()
        .await
        .check(&[
            change(
                "inserted",
                "insert into deals_deal select ('00000000-0000-0000-0000-00000000000' || 4)::uuid, 'D4', 1, 1, null, deal_name, deal_value, currency, verification_status, payment_status, payment_method, source_type, deal_date, due_date, deal_remarks, created_at, updated_at from deals_deal where deal_id = 'D1'",
                "figures:1",
            ),
            change("deleted", "delete from deals_deal where deal_id = 'D3'", "figures:2"),
            change(
                "deleted with its payment",
                "begin; delete from deals_deal where deal_id = 'D1'; delete from deals_payment; commit",
                "figures:1",
            ),
            change("moved to another organization", "update deals_deal set organization_id = 2 where deal_id = 'D1'", "figures:1 figures:2"),
            change("deal_value", "update deals_deal set deal_value = 11 where deal_id = 'D1'", "figures:1"),
            change("verification_status", "update deals_deal set verification_status = 'verified' where deal_id = 'D1'", "figures:1"),
            change("verified in bulk", "update deals_deal set verification_status = 'verified'", "figures:1 figures:2"),
            change("payment_status", "update deals_deal set payment_status = 'full_payment' where deal_id = 'D1'", "deal_stats:1 analytics:1 search:1"),
            change("payment_method", "update deals_deal set payment_method = 'bank' where deal_id = 'D1'", "deal_stats:1 analytics:1"),
            change("source_type", "update deals_deal set source_type = 'linkedin' where deal_id = 'D1'", "deal_stats:1 analytics:1"),
            change("created_at", "update deals_deal set created_at = created_at - interval '8 days' where deal_id = 'D1'", "deal_stats:1 analytics:1"),
            change("client_id", "update deals_deal set client_id = 3 where deal_id = 'D1'", "deal_stats:1 analytics:1 search:1"),
            change("deal_date", "update deals_deal set deal_date = deal_date - 1 where deal_id = 'D1'", "search:1"),
            change("deal_name", "update deals_deal set deal_name = 'x' where deal_id = 'D1'", "search:1"),
            change("deal_id", "update deals_deal set deal_id = 'x' where deal_id = 'D1'", "search:1"),
            change("id", "update deals_deal set id = '00000000-0000-0000-0000-000000000009' where deal_id = 'D2'", "search:1"),
            change("remarks", "update deals_deal set deal_remarks = repeat('x', 10000)", ""),
            change("whatever no query reads", "update deals_deal set due_date = deal_date, currency = 'EUR', project_id = 1, updated_at = now()", ""),
            change("the same again, as save() writes it", "update deals_deal set deal_value = deal_value + 0.00, deal_name = deal_name, updated_at = now()", ""),
            change("rolled back", "begin; delete from deals_payment; delete from deals_deal; rollback", ""),
            change(
                "rolled back to a savepoint",
                "begin; savepoint s; update deals_deal set deal_value = 12 where deal_id = 'D3'; rollback to s; update deals_deal set deal_date = deal_date - 1 where deal_id = 'D1'; commit",
                "search:1",
            ),
            change(
                "inserted or updated",
                "insert into deals_deal select id, deal_id, organization_id, client_id, null, deal_name, 12, currency, verification_status, payment_status, payment_method, source_type, deal_date, due_date, deal_remarks, created_at, updated_at from deals_deal where deal_id = 'D3' on conflict (id) do update set deal_value = excluded.deal_value",
                "figures:2",
            ),
        ])
        .await;
}

#[tokio::test]
async fn a_client_reaches_the_organizations_of_its_deals_and_not_its_own() {
    Ground::new()
        .await
        .check(&[
            change("inserted", "insert into clients_client (id, client_name, organization_id, created_at, updated_at) values (4, 'c4', 1, now(), now())", ""),
            change("deleted", "delete from clients_client where id = 3", ""),
            change("client_name", "update clients_client set client_name = 'x' where id = 1", "deal_stats:1 analytics:1 search:1"),
            change(
                "client_name of one with deals elsewhere",
                "update clients_client set client_name = 'x' where id = 2",
                "deal_stats:1 analytics:1 search:1 deal_stats:2 analytics:2 search:2",
            ),
            change("client_name of one without deals", "update clients_client set client_name = 'x' where id = 3", ""),
            change("organization_id", "update clients_client set organization_id = 3", ""),
            change("whatever no query reads", "update clients_client set email = 'x', phone = 'y', remarks = 'z', updated_at = now()", ""),
            change("the same again", "update clients_client set client_name = client_name", ""),
            change(
                "deleted, then its deals",
                "begin; delete from clients_client where id = 2; delete from deals_deal where client_id = 2; commit",
                "figures:1 figures:2",
            ),
            change(
                "deleted after its deals",
                "begin; delete from deals_deal where client_id = 2; delete from clients_client where id = 2; commit",
                "figures:1 figures:2",
            ),
            change(
                "renamed with a new deal elsewhere",
                "begin; update clients_client set client_name = 'x' where id = 1; update deals_deal set client_id = 1 where deal_id = 'D3'; commit",
                "deal_stats:1 analytics:1 search:1 deal_stats:2 analytics:2 search:2",
            ),
        ])
        .await;
}

#[tokio::test]
async fn payments_and_projects_reach_nothing() {
    Ground::new()
        .await
        .check(&[
            change(
                "a payment",
                "update deals_payment set received_amount = 1, status = 'verified'",
                "",
            ),
            change("a payment deleted", "delete from deals_payment", ""),
            change("a project", "update project_project set name = 'x', organization_id = 2", ""),
            change("a project deleted", "delete from project_project", ""),
            change(
                "both truncated",
                "truncate deals_payment, project_project cascade",
                // The deals hang on their projects.
                "org_data:* statistics:* deal_stats:* analytics:* search:*",
            ),
        ])
        .await;
}

/// Nobody knows which rows there were: the caches that deletes of them reach go, whole.
#[tokio::test]
async fn a_truncated_table_drops_the_caches_that_it_reaches_whole_and_no_other() {
    let ground = Ground::new().await;
    // Else each takes along what hangs on it.
    let loosen = "do $$ declare c record; begin
        for c in select conrelid::regclass as t, conname from pg_constraint where contype = 'f' loop
            execute format('alter table %s drop constraint %I', c.t, c.conname);
        end loop; end $$";
    ground.world.postgres.execute(loosen).await.unwrap();
    ground
        .check(&[
            change("organizations", "truncate organization_organization", "org_data:* analytics:* identity:*"),
            change("users", "truncate authentication_user", "org_data:* statistics:* role_info:* perms:* identity:* dashboard:*"),
            change("roles", "truncate permissions_role", "role_info:* perms:* identity:* dashboard:*"),
            change("roles' permissions", "truncate permissions_role_permissions", "role_info:* perms:* dashboard:*"),
            change("permissions", "truncate auth_permission", "role_info:* perms:* dashboard:*"),
            change("content types", "truncate django_content_type", "perms:*"),
            change("deals", "truncate deals_deal", "org_data:* statistics:* deal_stats:* analytics:* search:*"),
            change("clients", "truncate clients_client", "deal_stats:* analytics:* search:*"),
            change("payments and projects", "truncate deals_payment, project_project", ""),
            change("two at once", "truncate django_content_type, organization_organization", "perms:* org_data:* analytics:* identity:*"),
            change("and rolled back", "begin; truncate deals_deal; rollback", ""),
            change("with rows written before and after", "begin; update deals_deal set deal_name = 'x'; truncate clients_client; update django_content_type set model = model || 'x'; commit",
                "deal_stats:* analytics:* search:* perms:1@1 perms:2@1 perms:3@2"),
        ])
        .await;
}
