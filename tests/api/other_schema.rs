//! Another schema gets its endpoints by configuration alone.

use crate::support::World;
use crate::support::api::{Site, bearer};
use unstale::sandbox::{Postgres, Redis};

const SCHEMA: &str = "
create table team (id uuid primary key, title text not null);
create table account (id bigint primary key, team uuid references team (id), boss boolean not null);
alter table account replica identity full;
create publication unstale for table team, account with (publish_via_partition_root = true);
insert into team values ('c0ffee00-0000-0000-0000-00000000000a', 'A'), ('c0ffee00-0000-0000-0000-00000000000b', 'B');
insert into account values (1, 'c0ffee00-0000-0000-0000-00000000000a', false), (2, 'c0ffee00-0000-0000-0000-00000000000b', false), (3, null, true);
";

const CONFIG: &str = r#"
[postgres]
url = "postgres://x/y"
[redis]
url = "redis://x"

[caches.who]
key = "who:{user_id}"
query = """select json_build_object('user_id', id, 'organization_id', team, 'organization_is_active', team is not null,
  'role_name', null, 'is_active', true, 'is_superuser', boss) from account where id = $user_id::bigint"""

[caches.team]
key = "team:{team}"
query = "select json_build_object('title', title) from team where id = $team::uuid"

[[tables]]
name = "team"
invalidates = [{ cache = "team", team = "id", columns = ["title"] }]

[[tables]]
name = "account"
invalidates = [{ cache = "who", user_id = "id" }]

[api]
identity = "who"

[[endpoints]]
path = "/teams/{team}"
cache = "team"
envelope = "team"
who = "member"
organization = "team"
parameters = { team = { path = "team", type = "uuid" } }

[[endpoints]]
path = "/teams/first/title/"
cache = "team"
envelope = "team"
who = "anyone"
parameters = { team = { constant = "C0FFEE00-0000-0000-0000-00000000000A", type = "uuid" } }
"#;

#[tokio::test]
async fn another_schema_is_served_by_its_own_endpoints() {
    let postgres = Postgres::builder().start().await.unwrap();
    postgres.execute(SCHEMA).await.unwrap();
    let world = World::bare(postgres, Redis::start().await.unwrap(), crate::support::root());
    let mut site = Site::of(world);
    site.world.configure(CONFIG);
    let _daemon = site.daemon().await;
    let upper = "/teams/C0FFEE00-0000-0000-0000-00000000000A/";
    let lower = "/teams/c0ffee00-0000-0000-0000-00000000000a";
    let first = site.get_as(1, upper).await;
    assert_eq!((first.status, first.json()["team"]["title"].as_str()), (200, Some("A")));
    assert_eq!(first.header("cache-control"), Some("private, no-cache"));
    assert_eq!(site.get_as(1, lower).await.header("cache-status"), Some("unstale; hit"));
    assert_eq!(site.get_as(2, lower).await.status, 403);
    assert_eq!(site.get_as(3, lower).await.status, 200);
    assert_eq!(site.get_as(1, "/teams/c0ffee").await.status, 404);
    assert_eq!(site.get("/teams/first/title", &[]).await.json()["team"]["title"], "A");
    // Both spellings are one entry, which a change reaches.
    let sql = "update team set title = 'AA' where id = 'c0ffee00-0000-0000-0000-00000000000a'";
    site.world.postgres.execute(sql).await.unwrap();
    let lsn = site.world.wal_end().await.to_string();
    let authorization = bearer(1);
    let own = [("Authorization", authorization.as_str()), ("Unstale-Min-LSN", lsn.as_str())];
    assert_eq!(site.get(upper, &own).await.json()["team"]["title"], "AA");
}
