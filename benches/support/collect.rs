//! One report of all benchmarks: of each what it last wrote, with its date and its command.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::goal;

/// The name of what is written here; no benchmark has it.
const REPORT: &str = "report";

/// Writes `report.json` and `report.md` of all that is in the folder.
pub fn collect(folder: &Path) {
    let mut reports: Vec<Value> = fs::read_dir(folder)
        .expect("the folder of reports")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .filter(|path| path.file_stem().is_none_or(|stem| stem != REPORT))
        .filter_map(|path| serde_json::from_slice(&fs::read(path).expect("a report")).ok())
        .collect();
    reports.sort_by_key(|report| report["bench"].as_str().unwrap_or("").to_owned());
    let text = markdown(&reports);
    let json = json!({ "benches": reports });
    let json = serde_json::to_string_pretty(&json).expect("a report is JSON") + "\n";
    for (extension, text) in [("md", text), ("json", json)] {
        let file = folder.join(REPORT).with_extension(extension);
        fs::write(&file, text).expect("the report is written");
        println!("All benchmarks: {}", file.display());
    }
}

fn markdown(reports: &[Value]) -> String {
    let lines: Vec<Value> = reports
        .iter()
        .flat_map(|report| report["cases"].as_array().into_iter().flatten())
        .flat_map(|case| case["goals"].as_array().into_iter().flatten())
        .cloned()
        .collect();
    let mut text = goal::table(&lines);
    text.push_str("\n| benchmark | when | command | where |\n|---|---|---|---|\n");
    for report in reports {
        let machine = &report["machine"];
        let field = |name: &str| machine[name].as_str().unwrap_or("");
        text.push_str(&format!(
            "| {} | {} | `{}` | {} cores ({}), Postgres {}, Redis {} |\n",
            report["bench"].as_str().unwrap_or(""),
            field("date"),
            field("command"),
            machine["cores"],
            field("cpu"),
            version(field("postgres")),
            version(field("redis")),
        ));
    }
    text
}

/// The number in what a program says of itself: `postgres (PostgreSQL) 15.18 (…)`,
/// `Redis server v=7.0.15 sha=…`.
fn version(told: &str) -> &str {
    let mut words = told.split_whitespace().map(|word| word.trim_start_matches("v="));
    words.find(|word| word.starts_with(|c: char| c.is_ascii_digit())).unwrap_or(told)
}
