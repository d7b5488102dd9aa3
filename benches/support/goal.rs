//! What was aimed at, and what was reached.

use serde_json::{Value, json};

use super::report::Section;

/// How one thing went.
#[derive(Debug, Clone)]
pub struct Line {
    /// What was done.
    pub what: String,
    /// What Unstale took or reached.
    pub ours: String,
    /// The other, and what it took or reached.
    pub beside: String,
    /// What the goal speaks of, in `unit`.
    pub reached: f64,
    /// "times its speed", "ms": what `reached` is.
    pub unit: &'static str,
    /// What was aimed at; `None`: told for what it is.
    pub goal: Option<Goal>,
}

/// What was aimed at.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    /// So much or more.
    AtLeast(f64),
    /// So much or less.
    AtMost(f64),
}

impl Goal {
    /// What was not measured meets nothing.
    fn is_met_by(self, reached: f64) -> bool {
        match self {
            Goal::AtLeast(bound) => reached >= bound,
            Goal::AtMost(bound) => reached <= bound,
        }
    }

    fn text(self) -> String {
        match self {
            Goal::AtLeast(bound) => format!("≥ {bound}"),
            Goal::AtMost(bound) => format!("≤ {bound}"),
        }
    }
}

/// A benchmark's lines: what the report of all benchmarks tells of it.
#[derive(Debug)]
pub struct Goals(pub Vec<Line>);

impl Line {
    fn json(&self) -> Value {
        json!({
            "what": self.what,
            "unstale": self.ours,
            "beside": self.beside,
            "reached": self.reached,
            "unit": self.unit,
            "goal": self.goal.map(Goal::text),
            "met": self.goal.map(|goal| goal.is_met_by(self.reached)),
        })
    }
}

impl Section for Goals {
    fn json(&self) -> Value {
        json!({ "name": "goals", "goals": self.0.iter().map(Line::json).collect::<Vec<_>>() })
    }

    fn markdown(&self) -> String {
        let lines: Vec<Value> = self.0.iter().map(Line::json).collect();
        format!("### Goals\n\n{}", table(&lines))
    }
}

/// Lines as they were written, as a table.
pub fn table(lines: &[Value]) -> String {
    let mut text =
        "| what | Unstale | beside | reached | goal | |\n|---|---|---|---|---|---|\n".to_owned();
    for line in lines {
        let field = |name: &str| line[name].as_str().unwrap_or("");
        let met = match line["met"].as_bool() {
            Some(true) => "met",
            Some(false) => "**missed**",
            None => "",
        };
        let reached =
            line["reached"].as_f64().map_or("–".to_owned(), |value| format!("{value:.2}"));
        text.push_str(&format!(
            "| {} | {} | {} | {reached} {} | {} | {met} |\n",
            field("what"),
            field("unstale"),
            field("beside"),
            field("unit"),
            field("goal"),
        ));
    }
    text
}
