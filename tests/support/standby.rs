//! A standby beside a primary.

use std::time::Duration;

use unstale::sandbox::Postgres;

/// Starts one that replays this much later. Commits wait for it as `synchronous_commit` says; for
/// `None` they do not.
pub async fn follow(primary: &Postgres, delay: Duration, commit: Option<&str>) -> Postgres {
    let standby = primary.standby().apply_delay(delay).start().await.expect("a standby");
    if let Some(commit) = commit {
        primary.set("synchronous_commit", commit).await.expect("a setting");
        primary.set("synchronous_standby_names", "standby").await.expect("a setting");
    }
    standby
}
