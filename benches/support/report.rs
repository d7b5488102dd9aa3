//! Samples, their medians, and how they are shown.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// What one contender took, round by round.
#[derive(Debug, Clone)]
pub struct Samples {
    pub name: &'static str,
    pub seconds: Vec<f64>,
}

impl Samples {
    pub fn new(name: &'static str) -> Samples {
        Samples { name, seconds: Vec::new() }
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.seconds.clone();
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
        let sorted = self.sorted();
        sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
    }

    pub fn json(&self) -> Value {
        json!({
            "name": self.name, "seconds": self.seconds,
            "min": self.min(), "median": self.median(), "max": self.max(),
        })
    }
}

/// One thing that was done by several contenders in turn. The last one is what the others
/// are compared with.
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

    pub fn json(&self) -> Value {
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

/// Prints the report as Markdown and writes it as JSON.
pub fn publish(bench: &str, machine: &Value, cases: &[Case]) {
    println!("## {bench}\n");
    for (name, value) in machine.as_object().into_iter().flatten() {
        println!("- {name}: {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    }
    for case in cases {
        println!("\n{}", case.markdown());
    }
    let file = folder().join(format!("{bench}.json"));
    let report = json!({
        "bench": bench,
        "machine": machine,
        "cases": cases.iter().map(Case::json).collect::<Vec<_>>(),
    });
    let text = serde_json::to_string_pretty(&report).expect("a report is JSON");
    std::fs::create_dir_all(folder())
        .and_then(|()| std::fs::write(&file, text + "\n"))
        .unwrap_or_else(|error| panic!("cannot write {}: {error}", file.display()));
    println!("\nWritten to {}", file.display());
}

fn folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from);
    target.join("bench")
}
