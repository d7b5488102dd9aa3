//! The demo proves what it says: it ends well only because nothing was stale, and it fails
//! as soon as a rule is missing.

use std::process::{Command, Output, Stdio};

fn demo(seconds: &str, rules: Option<&std::path::Path>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_unstale"));
    command.args(["demo", "--seconds", seconds]).stdin(Stdio::null());
    if let Some(rules) = rules {
        command.arg("--rules").arg(rules);
    }
    // The user's own settings must not lead the demo's daemon elsewhere.
    command.env("UNSTALE_REDIS__URL", "redis://192.0.2.1/0").env("UNSTALE_SUCH_A_SETTING", "1");
    command.output().unwrap()
}

fn last_line(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or_default().to_owned()
}

fn number(line: &str, name: &str) -> u64 {
    let value = line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("{name} is not in {line:?}")).parse().unwrap()
}

#[test]
fn the_demo_ends_with_its_proof() {
    let output = demo("6", None);
    let line = last_line(&output);
    let all = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{all}");
    assert!(line.starts_with("demo ok: transactions="), "{all}");
    let names: Vec<_> = line.split(' ').skip(2).filter_map(|word| word.split('=').next()).collect();
    let expected = [
        "transactions",
        "changes",
        "invalidated",
        "rewarmed",
        "filled",
        "voided",
        "compared",
        "stale",
        "seconds",
    ];
    assert_eq!(names, expected);
    for name in ["transactions", "changes", "invalidated", "rewarmed", "filled", "compared"] {
        assert!(number(&line, name) > 0, "{name} in {line}");
    }
    assert_eq!(number(&line, "stale"), 0);
    assert!(all.lines().any(|line| line.starts_with("second=")), "a line a second:\n{all}");
    assert!(
        all.contains("user") && all.contains("logs in → nothing"),
        "a login drops nothing:\n{all}"
    );
}

#[test]
fn the_demo_fails_when_a_table_has_no_rules() {
    let config = include_str!("../../config/unstale.toml");
    let begin = config.find("[[tables]]\nname = \"deals_deal\"").unwrap();
    let end = begin + config[begin..].find("\n]\n").unwrap() + "\n]\n".len();
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("unstale.toml");
    std::fs::write(&rules, format!("{}{}", &config[..begin], &config[end..])).unwrap();

    let output = demo("6", Some(&rules));
    let line = last_line(&output);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(line.starts_with("demo FAILED: "), "{line}");
    assert!(number(&line, "stale") > 0, "{line}");
}
