//! Completions and manual pages know every subcommand and every option.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn unstale(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_unstale")).args(arguments).output().unwrap()
}

fn stdout(arguments: &[&str]) -> String {
    let output = unstale(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// As `--help` lists them.
fn subcommands(of: &[&str]) -> Vec<String> {
    let help = stdout(&[of, &["--help"]].concat());
    let list = help.split("Commands:").nth(1).unwrap_or_default();
    let list = list.split("\n\n").next().unwrap();
    let names = list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

fn options(of: &[&str]) -> BTreeSet<String> {
    let help = stdout(&[of, &["--help"]].concat());
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    // What follows the names of the option is its value, or an alias.
    let words = lines.flat_map(|line| line.split_whitespace().take_while(|w| w.starts_with('-')));
    words
        .filter(|word| word.starts_with("--") && !word.ends_with(']'))
        .map(|word| word.trim_end_matches(',').to_owned())
        .collect()
}

#[test]
fn every_subcommand_has_a_page_with_all_its_options() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    stdout(&["man", "--dir", dir]);
    let program = subcommands(&[]);
    for expected in ["run", "warm", "invalidate", "clear", "status", "test", "verify", "man"] {
        assert!(program.iter().any(|name| name == expected), "{program:?}");
    }
    let top = page(&folder.path().join("unstale.1"));
    for name in &program {
        let path = folder.path().join(format!("unstale-{name}.1"));
        let text = page(&path);
        assert!(top.contains(&format!("unstale-{name}(1)")), "{top}");
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS"] {
            assert!(text.lines().any(|line| line == section), "{name} has no {section}: {text}");
        }
        for option in options(&[name]) {
            assert!(text.contains(&option), "{name} {option}: {text}");
        }
        assert!(stdout(&["man", name]).is_ascii(), "{name}");
        assert_eq!(stdout(&["man", name]), std::fs::read_to_string(path).unwrap());
    }
    assert!(folder.path().join("unstale-config-schema.1").exists());
    assert_eq!(unstale(&["man", "nothing"]).status.code(), Some(2));
    assert_eq!(unstale(&["man", "--dir", "/nowhere/at/all"]).status.code(), Some(1));
}

/// As `man` shows it. groff must have nothing to say against it.
fn page(path: &Path) -> String {
    let source = std::fs::read_to_string(path).unwrap();
    let groff = Command::new("groff")
        .args(["-man", "-Tutf8", "-ww", "-rLL=200n", "-P-cbou"])
        .arg(path)
        .stdin(Stdio::null())
        .output();
    let Ok(groff) = groff else {
        // Without groff the source has to do.
        return source
            .replace("\\-", "-")
            .lines()
            .map(|line| {
                line.strip_prefix(".SH ").unwrap_or(line).trim_matches('"').to_owned() + "\n"
            })
            .collect();
    };
    assert_eq!(String::from_utf8_lossy(&groff.stderr), "", "{}", path.display());
    let text = String::from_utf8_lossy(&groff.stdout).into_owned();
    text.replace(['\u{2010}', '\u{2212}'], "-")
}

#[test]
fn each_shell_is_told_every_subcommand() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = stdout(&["completions", shell]);
        for name in subcommands(&[]) {
            assert!(script.contains(&name), "{shell} does not know {name}");
        }
        for option in ["cache-type", "organization", "user-id", "dry-run", "force"] {
            assert!(script.contains(option), "{shell} does not know --{option}");
        }
    }
    assert_eq!(unstale(&["completions", "dos"]).status.code(), Some(2));
}

#[test]
fn bash_completes_by_its_script() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("unstale.bash");
    std::fs::write(&path, stdout(&["completions", "bash"])).unwrap();
    let complete = |words: &str| {
        let count = words.split(' ').count() - 1;
        let last = words.rsplit(' ').next().unwrap();
        let script = format!(
            "source {}; COMP_WORDS=({words}); COMP_CWORD={count}; _unstale unstale {last} ''; echo ${{COMPREPLY[@]}}",
            path.display()
        );
        let output = Command::new("bash").args(["-c", &script]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(complete("unstale inv"), "invalidate");
    assert_eq!(complete("unstale clear --fo"), "--force");
}
