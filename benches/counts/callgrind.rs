//! Counting one case: this program runs itself under valgrind.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::baseline::Cost;
use super::work::Case;

/// Names the case to the process that is counted.
const ASKED: &str = "COUNTED";

/// What that process prints before its numbers.
const MARK: &str = "counted: ";

/// Whether this process is one that is counted. Then it has run its case.
pub(crate) fn is_counted() -> bool {
    let Ok(name) = std::env::var(ASKED) else { return false };
    let case = Case::named(&name).expect("a case");
    let allocations = case.run();
    // A test harness may have begun a line.
    let answer = format!("\n{MARK}{} {allocations}\n", case.changes());
    std::io::stdout().write_all(answer.as_bytes()).expect("the answer is told");
    true
}

/// Counts what [`measured`](super::work::measured) does, and whatever it calls, in a process that
/// runs this case. `to_it` adds the arguments by which this program comes to [`is_counted`].
pub(crate) fn count(case: &Case, to_it: impl Fn(&mut Command)) -> Cost {
    let name = &case.name;
    let folder = tempfile::tempdir().expect("a folder");
    let kept: Option<PathBuf> = std::env::var_os("COUNTS_KEEP").map(PathBuf::from);
    let file = kept.unwrap_or_else(|| folder.path().to_owned()).join(format!("callgrind.{name}"));
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--toggle-collect=*measured*"])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(std::env::current_exe().expect("this program"))
        .env(ASKED, &*case.name)
        .stdin(Stdio::null());
    to_it(&mut command);
    let output = command.output().expect("valgrind starts: `scripts/setup.sh tests` installs it");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {complaints}");
    let printed = String::from_utf8_lossy(&output.stdout);
    let answer = printed.lines().find_map(|line| line.strip_prefix(MARK));
    let (changes, allocations) =
        answer.and_then(|answer| answer.split_once(' ')).expect("its answer");
    let changes: f64 = changes.parse().expect("a number");
    let allocations: f64 = allocations.parse().expect("a number");
    let text = std::fs::read_to_string(&file).expect("callgrind's file");
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    let total: f64 = total.expect("its totals").trim().parse().expect("a number");
    assert!(total > 0.0, "{name}: callgrind did not find the function that is measured");
    let round = |value: f64| (value * 10.0).round() / 10.0;
    Cost { instructions: round(total / changes), allocations: round(allocations / changes) }
}
