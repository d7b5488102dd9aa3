//! What nests without end, wherever it comes from, is refused by name and place as any other mistake;
//! the stack has an end, and who overflows it says nothing.

use std::process::{Command, Output};

use crate::diagnostics::MINIMAL;

/// `unstale check` with the minimal file and `more`, before it asks any server.
fn check(more: &str, set: &[&str], variables: &[(&str, &str)]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("unstale.toml");
    std::fs::write(&file, format!("{MINIMAL}{more}")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_unstale"));
    command.arg("check").arg("--config").arg(file).envs(variables.iter().copied());
    for setting in set {
        command.arg("--set").arg(setting);
    }
    command.output().unwrap()
}

/// What it says, in one line without marks: it is drawn in as many columns as there are.
#[track_caller]
fn refused(output: &Output) -> String {
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(78), "{:?}: {said:.2000}", output.status);
    said.split(|c: char| c.is_whitespace() || c == '|')
        .filter(|w| !w.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

const ALLOWED: &str = "at most 32 levels are allowed";

#[test]
fn a_variable_whose_name_has_no_end_is_refused_by_its_name() {
    let name = format!("UNSTALE_CACHES{}", "__A".repeat(20_000));
    let said = refused(&check("", &[], &[(&name, "1")]));
    assert!(said.contains("environment variable UNSTALE_CACHES__A__A"), "{said:.2000}");
    assert!(said.contains("`caches.a.a.a...` nests 20001 levels deep"), "{said:.2000}");
    assert!(said.contains(ALLOWED), "{said:.2000}");
}

#[test]
fn a_variable_whose_value_has_no_end_is_refused_by_its_name() {
    let lists = "[".repeat(60_000);
    // Each name and each run of brackets is one that the parser takes; together they are 6,000 levels.
    let names = format!("{{{} = ", ["a"; 79].join("."));
    let tables = format!("{}1{}", names.repeat(78), "}".repeat(78));
    for (value, levels) in [(lists, 60_003), (tables, 6_165)] {
        let said = refused(&check("", &[], &[("UNSTALE_CACHES__A__PARAMETERS", &value)]));
        let told = format!("`caches.a.parameters` nests {levels} levels deep");
        assert!(
            said.contains("environment variable UNSTALE_CACHES__A__PARAMETERS"),
            "{said:.2000}"
        );
        assert!(said.contains(&told) && said.contains(ALLOWED), "{said:.2000}");
    }
}

#[test]
fn an_option_that_has_no_end_is_refused_by_its_setting() {
    let value = format!("caches.a.parameters={}", "{a=".repeat(30_000));
    let name = format!("caches{}=1", ".a".repeat(30_000));
    for (setting, told) in [
        (value, "command line: `caches.a.parameters` nests 30003 levels deep"),
        (name, "command line: `caches.a.a.a...` nests 30001 levels deep"),
    ] {
        let said = refused(&check("", &[&setting], &[]));
        assert!(said.contains(told) && said.contains(ALLOWED), "{said:.2000}");
    }
}

#[test]
fn a_file_that_nests_without_end_is_refused_at_its_place() {
    let names = format!("{{{} = ", ["a"; 79].join("."));
    let parameters = |value: &str| format!("[caches.a]\nparameters = {value}");
    for (more, place, levels) in [
        (parameters(&"[".repeat(9_000)), "6:43", 9_003),
        (format!("[{}]", ["a"; 9_000].join(".")), "5:65", 9_000),
        (parameters(&format!("{}1{}", names.repeat(78), "}".repeat(78))), "6:173", 6_165),
    ] {
        let said = refused(&check(&more, &[], &[]));
        assert!(said.contains(&format!("unstale.toml:{place}")), "{said:.2000}");
        assert!(said.contains(&format!("this nests {levels} levels deep")), "{said:.2000}");
        assert!(said.contains(ALLOWED), "{said:.2000}");
    }
}

#[test]
fn a_text_may_hold_as_many_brackets_as_one_likes() {
    let brackets = "[{".repeat(100);
    let mut layers = unstale::config::Layers::text("unstale.toml", MINIMAL);
    layers.environment = vec![("UNSTALE_REDIS__KEY_PREFIX".into(), brackets.clone().into())];
    assert_eq!(layers.load().unwrap().config.redis.key_prefix, brackets);
}
