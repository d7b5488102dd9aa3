//! What the OpenAPI document allows is taken, what it forbids is refused, and every answer is as
//! it says: schemathesis asks the running daemon, with all its checks.
//!
//! Needs Python; installs schemathesis from PyPI once, and fails where it cannot.

use crate::support::api::{SUPERUSER, Site, bearer};
use crate::support::environment::{TESTS, command};

#[tokio::test]
async fn the_api_is_what_its_document_says() {
    let schemathesis = command(TESTS, "schemathesis");
    let mut site = Site::new().await;
    for setting in [
        "api.management_per_minute=1000000",
        // Each position of the WAL that is made up would be waited for as long.
        "api.min_lsn_timeout=1ms",
    ] {
        site.world.set(setting);
    }
    // So that he has a dashboard, too.
    let sql = "update authentication_user set organization_id = 1 where id = 4";
    site.world.postgres.execute(sql).await.unwrap();
    let daemon = site.daemon().await;
    let folder = tempfile::tempdir().unwrap();
    let output = tokio::process::Command::from(schemathesis)
        .current_dir(folder.path())
        .env("SCHEMATHESIS_HOOKS", crate::support::root().join("tests/api/schemathesis/hooks.py"))
        .args(["run", &format!("http://127.0.0.1:{}/api/openapi.json", site.port)])
        .args(["--header", &format!("Authorization: {}", bearer(SUPERUSER))])
        .args(["--checks", "all", "--phases", "examples,coverage,fuzzing"])
        .args(["--max-examples", "10", "--max-time", "30", "--no-color"])
        .args(["--seed", "1", "--generation-database", "none", "--request-timeout", "10"])
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}\n{errors}");
    for phase in ["Examples", "Coverage", "Fuzzing"] {
        assert!(told.contains(&format!("✅ {phase}")), "{phase}:\n{told}\n{errors}");
    }
    assert!(daemon.readyz().await.is_some(), "the daemon still answers");
}
