//! What a change costs, in instructions and allocations: the same on a busy machine as on a calm
//! one, so that a regression can be told from the weather.
//!
//! `make counts` builds this in a profile of its own (debug builds are no measure, and a release
//! build takes minutes), runs each case of `work.rs` under callgrind and compares what it counts
//! with `baseline.json`. Past the tolerance, in either direction, it fails: what became cheaper is
//! worth keeping, too. `UPDATE_COUNTS=1 make counts` writes the baseline anew.
//!
//! Counts are of one architecture, and differ a little between compilers and C libraries
//! (`memcpy`): hence the tolerance. An architecture without a baseline is measured and
//! not judged. What they leave out: system calls, and how long memory is waited for.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark fails by panicking and prints its result"
)]

mod allocations;
mod baseline;
mod stream;
mod work;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use baseline::{BLUR, Cost, TOLERANCE, is_near};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next() {
        // Under callgrind: this very program, one case.
        Some(name) => {
            let case = work::CASES.iter().find(|case| case.name == name).expect("a case");
            println!("{} {}", case.changes(), case.run());
            ExitCode::SUCCESS
        }
        None => judge(),
    }
}

fn judge() -> ExitCode {
    let mut baseline = baseline::read();
    let known = baseline.entry(std::env::consts::ARCH.to_owned()).or_default();
    let mut found = BTreeMap::new();
    let mut complaints = Vec::new();
    println!("| case | instructions | allocations | what |\n|---|---:|---:|---|");
    for case in work::CASES {
        let cost = measure(case.name);
        let (instructions, allocations) = (cost.instructions, cost.allocations);
        println!("| {} | {instructions:.0} | {allocations:.1} | {} |", case.name, case.what);
        match known.get(case.name) {
            Some(before) => complaints.extend(compare(case.name, *before, cost)),
            None => complaints.push(format!("{}: not in the baseline", case.name)),
        }
        found.insert(case.name.to_owned(), cost);
    }
    if std::env::var_os("UPDATE_COUNTS").is_some() {
        *known = found;
        let text = serde_json::to_string_pretty(&baseline).expect("JSON") + "\n";
        std::fs::write(baseline::file(), text).expect("the baseline is written");
        println!("\nWritten to {}", baseline::file().display());
        return ExitCode::SUCCESS;
    }
    if known.is_empty() {
        println!("\nNo baseline of {}: nothing to compare with.", std::env::consts::ARCH);
        return ExitCode::SUCCESS;
    }
    if complaints.is_empty() {
        println!("\nAll within {:.0} % of {}", TOLERANCE * 100.0, baseline::file().display());
        return ExitCode::SUCCESS;
    }
    for complaint in complaints {
        eprintln!("counts: {complaint}");
    }
    eprintln!("counts: if that is meant, UPDATE_COUNTS=1 make counts, and say why in the commit");
    ExitCode::FAILURE
}

fn compare(case: &str, before: Cost, now: Cost) -> Vec<String> {
    let judged = |what: &str, before: f64, now: f64, blur: f64| {
        (!is_near(before, now, blur)).then(|| {
            let word = if now > before { "more" } else { "fewer" };
            format!("{case}: {now:.1} {what} a change, {word} than the {before:.1} of the baseline")
        })
    };
    let mut all = Vec::new();
    all.extend(judged("instructions", before.instructions, now.instructions, 1.0));
    all.extend(judged("allocations", before.allocations, now.allocations, BLUR));
    all
}

/// Runs one case under callgrind. Only [`work::measured`] counts.
fn measure(case: &str) -> Cost {
    let folder = tempfile::tempdir().expect("a folder");
    let kept: Option<PathBuf> = std::env::var_os("COUNTS_KEEP").map(PathBuf::from);
    let file = kept.unwrap_or_else(|| folder.path().to_owned()).join(format!("callgrind.{case}"));
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*measured*"])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(std::env::current_exe().expect("this program"))
        .arg(case)
        .stdin(Stdio::null())
        .output()
        .expect("valgrind starts (scripts/setup.sh tests installs it)");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{case}: {complaints}");
    let printed = String::from_utf8_lossy(&output.stdout);
    let (changes, allocations) = printed.trim().split_once(' ').expect("two numbers");
    let changes: f64 = changes.parse().expect("a number");
    let allocations: f64 = allocations.parse().expect("a number");
    let text = std::fs::read_to_string(&file).expect("callgrind's file");
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    let total: f64 = total.expect("its totals").trim().parse().expect("a number");
    assert!(total > 0.0, "{case}: callgrind did not find the function that is measured");
    let round = |value: f64| (value * 10.0).round() / 10.0;
    Cost { instructions: round(total / changes), allocations: round(allocations / changes) }
}
