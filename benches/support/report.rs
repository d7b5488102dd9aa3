//! Samples, their medians, and how they are shown.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::collect::collect;

/// What one contender took or reached, round by round.
#[derive(Debug, Clone)]
pub struct Samples {
    pub name: &'static str,
    pub values: Vec<f64>,
}

impl Samples {
    pub fn new(name: &'static str) -> Samples {
        Samples { name, values: Vec::new() }
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    pub fn min(&self) -> f64 {
        self.sorted().first().copied().unwrap_or(f64::NAN)
    }

    pub fn max(&self) -> f64 {
        self.sorted().last().copied().unwrap_or(f64::NAN)
    }

    /// Of an even number of rounds the lower one of the middle.
    pub fn median(&self) -> f64 {
        self.percentile(50)
    }

    /// The value that so many of a hundred do not exceed.
    pub fn percentile(&self, percent: usize) -> f64 {
        let sorted = self.sorted();
        let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        sorted.get(at).copied().unwrap_or(f64::NAN)
    }

    pub fn json(&self) -> Value {
        json!({
            "name": self.name, "values": self.values,
            "min": self.min(), "median": self.median(), "max": self.max(),
        })
    }
}

/// What is told of each round: its name, how many decimals it is shown with, and what becomes of
/// the rounds.
pub type Column = (&'static str, usize, fn(&Samples) -> f64);

/// A part of a report.
pub trait Section {
    fn markdown(&self) -> String;
    fn json(&self) -> Value;
}

/// One thing that was done by several contenders in turn, in seconds. The last one is what
/// the others are compared with.
#[derive(Debug)]
pub struct Case {
    pub name: String,
    pub contenders: Vec<Samples>,
    /// Lines of facts beside the times.
    pub notes: Vec<(String, Value)>,
}

impl Case {
    /// The ratio of medians to those of the yardstick.
    pub fn ratio(&self, contender: &Samples) -> f64 {
        contender.median() / self.contenders.last().map_or(f64::NAN, Samples::median)
    }
}

impl Section for Case {
    fn json(&self) -> Value {
        let contenders: Vec<Value> = self
            .contenders
            .iter()
            .map(|samples| {
                let mut value = samples.json();
                if let Some(fields) = value.as_object_mut() {
                    fields.insert("ratio".to_owned(), json!(self.ratio(samples)));
                }
                value
            })
            .collect();
        let notes: serde_json::Map<String, Value> = self.notes.iter().cloned().collect();
        json!({ "name": self.name, "contenders": contenders, "notes": notes })
    }

    fn markdown(&self) -> String {
        let yardstick = self.contenders.last().map_or("", |samples| samples.name);
        let mut text = format!(
            "### {}\n\n| | min s | median s | max s | ratio to {yardstick} |\n|---|---:|---:|---:|---:|\n",
            self.name
        );
        for samples in &self.contenders {
            text.push_str(&format!(
                "| {} | {:.3} | {:.3} | {:.3} | {:.2} |\n",
                samples.name,
                samples.min(),
                samples.median(),
                samples.max(),
                self.ratio(samples)
            ));
        }
        for (name, value) in &self.notes {
            text.push_str(&format!("\n- {name}: {value}"));
        }
        text.push('\n');
        text
    }
}

/// Figures of several kinds: a row a contender (or a cache, a rate), the samples of each column.
#[derive(Debug)]
pub struct Table {
    pub name: String,
    /// The columns behind the first: what, and with how many decimals it is shown.
    pub columns: Vec<(&'static str, usize)>,
    /// Each with a median a column; what was not measured is not a number.
    pub rows: Vec<(String, Vec<f64>)>,
    /// What must be known to read it.
    pub notes: Vec<String>,
}

impl Table {
    /// What stands in a column of a row; not a number where there is none.
    pub fn get(&self, row: &str, column: &str) -> f64 {
        let values = self.rows.iter().find(|(name, _)| name == row).map(|(_, values)| values);
        let at = self.columns.iter().position(|(name, _)| *name == column);
        let value = values.zip(at).and_then(|(values, at)| values.get(at));
        value.copied().unwrap_or(f64::NAN)
    }
}

impl Section for Table {
    fn json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|(name, values)| {
                let columns = self.columns.iter().zip(values);
                let mut row: serde_json::Map<String, Value> = columns
                    .map(|((column, _), value)| ((*column).to_owned(), json!(value)))
                    .collect();
                row.insert("name".to_owned(), json!(name));
                Value::Object(row)
            })
            .collect();
        json!({ "name": self.name, "rows": rows, "notes": self.notes })
    }

    fn markdown(&self) -> String {
        let mut text = format!("### {}\n\n|", self.name);
        for (column, _) in &self.columns {
            text.push_str(&format!(" | {column}"));
        }
        text.push_str(&format!(" |\n|---|{}\n", "---:|".repeat(self.columns.len())));
        for (name, values) in &self.rows {
            text.push_str(&format!("| {name}"));
            for ((_, decimals), value) in self.columns.iter().zip(values) {
                if value.is_nan() {
                    text.push_str(" | –");
                } else {
                    text.push_str(&format!(" | {value:.decimals$}"));
                }
            }
            text.push_str(" |\n");
        }
        for note in &self.notes {
            text.push_str(&format!("\n- {note}"));
        }
        text.push('\n');
        text
    }
}

/// Prints the report as Markdown, writes it as that and as JSON, and puts it into the report
/// of all benchmarks.
pub fn publish(bench: &str, machine: &Value, sections: &[&dyn Section]) {
    let mut text = format!("## {bench}\n\n");
    for (name, value) in machine.as_object().into_iter().flatten() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        text.push_str(&format!("- {name}: {value}\n"));
    }
    for section in sections {
        text.push_str(&format!("\n{}", section.markdown()));
    }
    println!("{text}");
    let report = json!({
        "bench": bench,
        "machine": machine,
        "cases": sections.iter().map(|section| section.json()).collect::<Vec<_>>(),
    });
    let json = serde_json::to_string_pretty(&report).expect("a report is JSON") + "\n";
    for (extension, text) in [("md", text), ("json", json)] {
        let file = folder().join(bench).with_extension(extension);
        std::fs::create_dir_all(folder())
            .and_then(|()| std::fs::write(&file, text))
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", file.display()));
        println!("Written to {}", file.display());
    }
    collect(&folder());
}

fn folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from);
    target.join("bench")
}
