//! Rows that several commands are tried on, and how they are asked.

use std::process::Output;

use serde_json::Value;

use crate::support::World;

/// Organizations `one` (1) with the users 11 and 12, and `two` (2) with 21.
pub(crate) async fn two_organizations() -> World {
    let world = World::new().await;
    world
        .postgres
        .execute(
            "insert into organization_organization (id, name, is_active, created_at, updated_at)
             values (1, 'one', true, now(), now()), (2, 'two', true, now(), now());
             insert into authentication_user (id, email, password, first_name, last_name,
                    is_active, is_superuser, is_staff, date_joined, organization_id)
             select i, i || '@example.com', '', '', '', true, false, false, now(), i / 10
               from unnest(array[11, 12, 21]) i",
        )
        .await
        .unwrap();
    world
}

/// Organization 1, its role 7 and the users 1 and 2, who hold it.
pub(crate) const HOLDERS: &str = "
insert into organization_organization (id, name, is_active, created_at, updated_at)
values (1, 'one', true, now(), now());
insert into permissions_role (id, name, organization_id) values (7, 'admin', 1);
insert into authentication_user
  (id, password, is_superuser, email, first_name, last_name, is_active, date_joined, organization_id, role_id)
select i, 'secret', false, 'u' || i, '', '', true, now(), 1, 7 from generate_series(1, 2) i;";

/// The exit code of a command, and what it says as JSON.
pub(crate) async fn json(world: &World, subcommand: &str, arguments: &[&str]) -> (i32, Value) {
    let output =
        world.command(subcommand).arg("--json").args(arguments).output().await.expect("it runs");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let json =
        serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stdout}{}", stderr(&output)));
    (output.status.code().expect("an exit code"), json)
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
