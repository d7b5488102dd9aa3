//! The Redis users of docs/PERMISSIONS.md.

use super::{World, root};

/// The rights of a user, as the line in the page gives them.
pub fn rights(user: &str) -> Vec<String> {
    let page = std::fs::read_to_string(root().join("docs/PERMISSIONS.md")).unwrap();
    let start = format!("user {user} on >… ");
    let line = page.lines().find_map(|line| line.strip_prefix(&start));
    line.unwrap_or_else(|| panic!("the page has no line {start}"))
        .split(' ')
        .map(str::to_owned)
        .collect()
}

/// Makes a user of that name, with the page's rights.
pub async fn add_user(world: &World, user: &str) {
    let mut command = redis::cmd("ACL");
    command.arg("SETUSER").arg(user).arg("reset").arg("on").arg(">secret").arg(rights(user));
    let _: () = command.query_async(&mut world.values().await).await.unwrap();
}

/// Redis as that user reaches it.
pub fn url(world: &World, user: &str) -> String {
    world.redis.url_db(1).replace("redis://", &format!("redis://{user}:secret@"))
}
