//! Counting a function's instructions by callgrind: the benchmark runs itself under valgrind.

use std::process::{Command, Stdio};

use super::shape::Shape;

/// What asks this program to be the one that is counted.
const ASKED: &str = "--counted";

/// The shape to run, if this process is the one that is counted.
pub fn asked_for() -> Option<Shape> {
    let mut arguments = std::env::args().skip_while(|argument| argument != ASKED).skip(1);
    let mut number = || arguments.next()?.parse().ok();
    Some(Shape { tables: number()?, rules: number()? })
}

/// How many instructions are executed within a function (by its name, which must not be
/// inlined) and whatever it calls, in a process that runs that shape.
pub fn count(shape: Shape, function: &str) -> f64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(format!("--toggle-collect=*{function}*"))
        .arg(std::env::current_exe().expect("this program"))
        .args([ASKED, &shape.tables.to_string(), &shape.rules.to_string()])
        .stdin(Stdio::null())
        .output()
        .expect("valgrind starts: make setup-bench installs it");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "valgrind failed:\n{told}");
    // ==1234== Collected : 5678
    let collected = told.lines().find_map(|line| line.split_once("Collected : "));
    let collected = collected.and_then(|(_, number)| number.trim().parse::<f64>().ok());
    let collected = collected.filter(|number| *number > 0.0);
    collected.unwrap_or_else(|| panic!("{function} was not counted:\n{told}"))
}
