//! Counting: this program runs itself under valgrind.
//!
//! One process runs several cases, one after the other: half of what a process takes is valgrind's
//! start. Callgrind writes a file of what it has counted since the last one, each time that one of
//! two functions is called.

use std::hint::black_box;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::baseline::Cost;
use super::work::Case;

/// Names the cases to the process that is counted.
const ASKED: &str = "COUNTED";

/// What that process prints before the numbers of a case.
const MARK: &str = "counted: ";

/// From here on it counts. Callgrind knows it by its name.
#[inline(never)]
pub(crate) fn counting_begins() {
    black_box("begins");
}

/// Until here.
#[inline(never)]
pub(crate) fn counting_ends() {
    black_box("ends");
}

/// Whether this process is one that is counted. Then it has run its cases.
pub(crate) fn is_counted() -> bool {
    let Ok(names) = std::env::var(ASKED) else { return false };
    for name in names.split(',') {
        let case = Case::named(name).expect("a case");
        let allocations = case.run();
        // A test harness may have begun a line.
        let answer = format!("\n{MARK}{} {allocations}\n", case.changes());
        std::io::stdout().write_all(answer.as_bytes()).expect("the answer is told");
    }
    true
}

/// Counts what these cases do, in a process that runs them. `to_it` adds the arguments by which
/// this program comes to [`is_counted`]. `COUNTS_KEEP=folder` keeps callgrind's files.
pub(crate) fn count(cases: &[&Case], to_it: impl Fn(&mut Command)) -> Vec<Cost> {
    let names: Vec<&str> = cases.iter().map(|case| &*case.name).collect();
    let names = names.join(",");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("callgrind");
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--dump-before=*counting_begins*"])
        .arg("--dump-before=*counting_ends*")
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(std::env::current_exe().expect("this program"))
        .env(ASKED, &names)
        .stdin(Stdio::null());
    to_it(&mut command);
    let output = command.output().expect("valgrind starts: `scripts/setup.sh tests` installs it");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{names}: {complaints}");
    let printed = String::from_utf8_lossy(&output.stdout);
    let answers = printed.lines().filter_map(|line| line.strip_prefix(MARK));
    let costs: Vec<Cost> = cases
        .iter()
        .zip(answers)
        .enumerate()
        .map(|(at, (case, answer))| {
            // A file of what was before each case, and one of the case.
            let file = file.with_extension((2 * at + 2).to_string());
            let total = total(&file);
            if let Some(kept) = std::env::var_os("COUNTS_KEEP").map(PathBuf::from) {
                let kept = kept.join(format!("callgrind.{}", case.name));
                std::fs::copy(&file, kept).expect("callgrind's file is kept");
            }
            let (changes, allocations) = answer.split_once(' ').expect("two numbers");
            let changes: f64 = changes.parse().expect("a number");
            let allocations: f64 = allocations.parse().expect("a number");
            let round = |value: f64| (value * 10.0).round() / 10.0;
            Cost { instructions: round(total / changes), allocations: round(allocations / changes) }
        })
        .collect();
    assert_eq!(costs.len(), cases.len(), "{names}: not all of them have run: {printed}");
    costs
}

/// How many instructions a file has, which ends where a case does.
fn total(file: &Path) -> f64 {
    let text =
        std::fs::read_to_string(file).expect("callgrind's file: the two functions are called");
    let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let why = line("desc: Trigger: ").expect("why it was written");
    assert!(why.contains("counting_ends"), "{}: written for {why}", file.display());
    line("totals: ").expect("its totals").trim().parse().expect("a number")
}
