//! What makes no sense is refused with what would, before any server is asked: exit code 2.

use std::process::Command;

use crate::support::World;

/// By the default configuration; nobody listens where it points.
fn refused(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_unstale"))
        .args(arguments)
        .arg("--config")
        .arg(crate::support::root().join("config/unstale.toml"))
        .args(["--set", "redis.url=redis://127.0.0.1:1/1"])
        .args(["--set", "postgres.url=postgres://nobody@127.0.0.1:1/app"])
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
    assert!(output.stdout.is_empty(), "{arguments:?} prints a result");
    error
}

#[test]
fn a_number_of_days_of_which_nothing_is_cached_is_told_with_those_that_are() {
    for arguments in [
        &["warm", "--days", "31"][..],
        &["warm", "--days", "0", "--organization", "one", "--json"],
        &["test", "--days", "31", "--cache-type", "strategic"],
        &["status", "--days", "31", "--cache-type", "deal_stats"],
        &["invalidate", "--days", "31", "--cache-type", "deal_stats"],
        &["clear", "--force", "--days", "31", "--cache-type", "deal_stats"],
    ] {
        let error = refused(arguments);
        assert!(error.contains("write one of 7, 30, 90, 365"), "{arguments:?}: {error}");
    }
}

#[test]
fn an_empty_name_is_no_name() {
    for command in ["warm", "invalidate", "clear", "status", "test"] {
        for option in ["--organization", "--user-id", "--cache-type"] {
            let error = refused(&[command, option, ""]);
            assert!(error.contains(option), "{command} {option}: {error}");
        }
    }
}

#[test]
fn a_cache_type_that_there_is_not_is_told_with_those_that_there_are() {
    for command in ["warm", "invalidate", "clear", "status", "test", "verify"] {
        let mut arguments = vec![command, "--cache-type", "strategc"];
        arguments.extend((command == "clear").then_some("--force"));
        let error = refused(&arguments);
        assert!(error.contains("all") && error.contains("org_data"), "{command}: {error}");
    }
}

#[tokio::test]
async fn options_that_fit_no_cache_are_told_cache_by_cache() {
    let world = World::new().await;
    for (subcommand, json) in [("invalidate", false), ("invalidate", true)] {
        let mut command = world.command(subcommand);
        command.args(["--cache-type", "org_data", "--user-id", "3"]);
        if json {
            command.arg("--json");
        }
        let output = command.output().await.unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains("org_data: its keys name no user"), "{error}");
        assert!(output.stdout.is_empty());
    }
}
