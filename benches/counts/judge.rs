//! Whether a change costs what it did. Past the tolerance, in either direction, it does not: what
//! became cheaper is worth keeping, too.
//!
//! Three things are judged. *Allocations*, wherever this runs: one more a change is one too many.
//! *Growth*, wherever this runs: fifty times the rules, or sixty-four times the tables, and a
//! change costs the same within a fifth. *Instructions*, where the baseline has this architecture
//! and this kind of build; those of the tests' build only by the compiler of the baseline. Where
//! they are not judged it is said.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Command;

use super::baseline::{Baseline, Cost, Figures, Instructions, file};
use super::callgrind::count;
use super::work::{Case, GROWTH, cases};

/// How far allocations may be from the baseline: what grows now and then makes no whole numbers.
const BLUR: f64 = 0.2;

/// For the smallest machine that is promised to be enough; and never more, for what a process has run
/// before moves its counts a little.
const PROCESSES: usize = 2;

/// Flat is what stays within this.
pub(crate) const FLAT: f64 = 1.2;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Build {
    /// As the tests are built.
    Tests,
    /// As `make counts` builds it.
    Optimized,
}

impl Build {
    fn name(self) -> &'static str {
        match self {
            Build::Tests => "tests",
            Build::Optimized => "optimized",
        }
    }

    /// How far instructions may be from the baseline. Hash seeds make up to 0.8 %; compilers and C
    /// libraries (`memcpy`) differ a little, even optimized.
    fn tolerance(self) -> f64 {
        match self {
            Build::Tests => 0.05,
            Build::Optimized => 0.10,
        }
    }

    /// How the baseline is written anew.
    fn command(self) -> &'static str {
        match self {
            Build::Tests => "UPDATE_COUNTS=1 cargo test --test counts",
            Build::Optimized => "UPDATE_COUNTS=1 make counts",
        }
    }
}

/// Counts all cases, tells what was found, and gives what is wrong with it.
pub(crate) fn judge(build: Build, to_it: impl Fn(&mut Command) + Sync) -> Vec<String> {
    let found = count_all(to_it);
    let mut told = "| case | instructions | allocations | what |\n|---|---:|---:|---|\n".to_owned();
    for (case, cost) in &found {
        let Cost { instructions, allocations } = cost;
        let Case { name, what, .. } = case;
        writeln!(told, "| {name} | {instructions:.0} | {allocations:.1} | {what} |").expect("text");
    }
    let mut baseline = Baseline::read();
    let rustc = rustc();
    let arch = std::env::consts::ARCH;
    let known = baseline.instructions.entry(arch.to_owned()).or_default();
    let known = known.entry(build.name().to_owned()).or_default();
    let mut complaints = growth(&found);
    if std::env::var_os("UPDATE_COUNTS").is_some() {
        let figures = |of: fn(&Cost) -> f64| -> Figures {
            found.iter().map(|(case, cost)| (case.name.to_string(), of(cost))).collect()
        };
        *known = Instructions { rustc, cases: figures(|cost| cost.instructions) };
        baseline.allocations = figures(|cost| cost.allocations);
        baseline.write();
        writeln!(told, "\nWritten to {}", file().display()).expect("text");
    } else {
        let reason = unjudged(build, known, &rustc);
        if let Some(reason) = &reason {
            writeln!(told, "\nINSTRUCTIONS ARE NOT JUDGED: {reason}").expect("text");
        }
        let instructions = reason.is_none().then_some((&known.cases, build.tolerance()));
        complaints.extend(beside(&found, &baseline.allocations, instructions));
        if !complaints.is_empty() {
            complaints
                .push(format!("if that is meant: {}, and say why in the commit", build.command()));
        }
    }
    // Not by a macro: a test harness would keep it to itself.
    std::io::stderr().write_all(told.as_bytes()).expect("what was found is told");
    complaints
}

/// Why instructions are only told, if they are.
fn unjudged(build: Build, known: &Instructions, rustc: &str) -> Option<String> {
    if known.cases.is_empty() {
        return Some(format!("no baseline of {}; {}", std::env::consts::ARCH, build.command()));
    }
    (build == Build::Tests && known.rustc != rustc).then(|| {
        format!(
            "this build, which is not optimized, is by {rustc}, the baseline by {}; {}, \
             or trust `make counts`",
            known.rustc,
            build.command()
        )
    })
}

type Found = Vec<(Case, Cost)>;

fn count_all(to_it: impl Fn(&mut Command) + Sync) -> Found {
    let of_shapes = GROWTH.as_flattened().iter().copied().map(Case::of);
    let all: Vec<Case> = cases().into_iter().chain(of_shapes).collect();
    // Neighbours take about as long as each other.
    let share = |nth: usize| all.iter().skip(nth).step_by(PROCESSES).collect::<Vec<_>>();
    let costs: Vec<Vec<Cost>> = std::thread::scope(|scope| {
        let counting = |nth| {
            let (share, to_it) = (share(nth), &to_it);
            scope.spawn(move || count(&share, to_it))
        };
        let counted: Vec<_> = (0..PROCESSES).map(counting).collect();
        counted.into_iter().map(|thread| thread.join().expect("all are counted")).collect()
    });
    let mut costs: Vec<_> = costs.into_iter().map(Vec::into_iter).collect();
    let turn = (0..PROCESSES).cycle();
    all.into_iter()
        .zip(turn)
        .map(|(case, nth)| (case, costs[nth].next().expect("a cost of each")))
        .collect()
}

/// What differs from the baseline.
fn beside(
    found: &Found,
    allocations: &Figures,
    instructions: Option<(&Figures, f64)>,
) -> Vec<String> {
    let mut complaints = Vec::new();
    for (case, cost) in found {
        let mut judged = |what: &str, before: Option<&f64>, now: f64, blur: f64| {
            complaints.extend(compare(&case.name, what, before.copied(), now, blur));
        };
        judged("allocations", allocations.get(&*case.name), cost.allocations, BLUR);
        if let Some((instructions, tolerance)) = instructions {
            let before = instructions.get(&*case.name);
            judged(
                "instructions",
                before,
                cost.instructions,
                before.map_or(0.0, |n| n * tolerance),
            );
        }
    }
    complaints
}

/// `blur`: how far from the baseline is near.
pub(crate) fn compare(
    case: &str,
    what: &str,
    before: Option<f64>,
    now: f64,
    blur: f64,
) -> Option<String> {
    let Some(before) = before else {
        return Some(format!("{case}: {what} are not in the baseline"));
    };
    // A hundredth of what is rounded to tenths on both sides.
    ((now - before).abs() > blur + 0.001).then(|| {
        let word = if now > before { "more" } else { "fewer" };
        let percent = (now / before - 1.0) * 100.0;
        format!("{case}: {now:.1} {what} a change, {word} than the {before:.1} of the baseline ({percent:+.1} %)")
    })
}

/// What is not flat.
fn growth(found: &Found) -> Vec<String> {
    let cost = |name: &str| found.iter().find(|(case, _)| case.name == name).map(|(_, cost)| *cost);
    let each = GROWTH.iter().filter_map(|[small, large]| {
        let (small, large) = (Case::of(*small), Case::of(*large));
        let (least, most) = (cost(&small.name)?, cost(&large.name)?);
        let ratio =
            (most.instructions / least.instructions).max(most.allocations / least.allocations);
        (ratio > FLAT).then(|| {
            format!(
                "{}: {ratio:.2} times the cost of {}, at most {FLAT} are flat",
                large.what, small.what
            )
        })
    });
    each.collect()
}

/// Whose build this is: that of the toolchain that runs it.
fn rustc() -> String {
    let output = Command::new("rustc").arg("--version").output();
    let version = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    version.unwrap_or_else(|error| format!("nobody knows which compiler ({error})"))
}
