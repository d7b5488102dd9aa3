//! Values that the environment and the command line set, and who set them.

use std::fmt;
use std::str::FromStr;

use figment::value::{Dict, Value};

use super::nesting::{self, DEEPEST, TooDeep};
use super::problem::{ConfigPath, Problem, Segment};
use super::schema;
use super::walk::{nested, parse_value};

/// A value that the environment or the command line sets.
#[derive(Clone)]
pub struct Override {
    path: ConfigPath,
    value: String,
    origin: Origin,
}

/// Who set a value, when it was not the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// An environment variable, by its name.
    Variable(String),
    /// The command line.
    CommandLine,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Variable(name) => write!(f, "environment variable {name}"),
            Origin::CommandLine => f.write_str("command line"),
        }
    }
}

/// Without the value, which may be a secret.
impl fmt::Debug for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Override({} by {})", self.path, self.origin)
    }
}

/// The text is not `path=value`. It is not repeated: it may hold a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a setting and its value, such as pipeline.max_lag=1m")]
pub struct ParseOverrideError;

impl FromStr for Override {
    type Err = ParseOverrideError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (path, value) = text.split_once('=').ok_or(ParseOverrideError)?;
        let path: ConfigPath = path.trim().split('.').collect();
        if path.0.iter().any(|segment| *segment == Segment::from("")) {
            return Err(ParseOverrideError);
        }
        Ok(Override::new(path, value.to_owned(), Origin::CommandLine))
    }
}

impl Override {
    /// Sets what is at `path`. The setting says what the text means: a text field takes it
    /// as it is, digits or not; every other is read as TOML.
    #[must_use]
    pub fn new(path: ConfigPath, value: String, origin: Origin) -> Self {
        Override { path, value, origin }
    }

    /// What it sets.
    #[must_use]
    pub fn path(&self) -> &ConfigPath {
        &self.path
    }

    /// Who sets it.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The value within the tables that it is set in.
    pub(super) fn tables(&self) -> Result<Dict, Problem> {
        let as_toml = schema::takes_text(&self.path) == Some(false);
        let toml = if as_toml { self.value.trim() } else { "" };
        nesting::of_value(self.path.0.len(), toml).map_err(|deep| self.too_deep(deep))?;
        // What is no TOML stays a text, and is reported for the type that it lacks.
        let value = as_toml.then(|| parse_value(toml)).flatten();
        nested(&self.path, value.unwrap_or_else(|| Value::from(self.value.as_str()))).ok_or_else(
            || Problem::new(self.path.clone(), "elements of a list cannot be set one by one"),
        )
    }

    fn too_deep(&self, deep: TooDeep) -> Problem {
        let what = match self.path.0.get(..4) {
            // The name itself is too long to be repeated.
            Some(start) if self.path.0.len() > DEEPEST => {
                format!("`{}...`", ConfigPath(start.to_vec()))
            }
            _ => format!("`{}`", self.path),
        };
        Problem::new(self.path.clone(), deep.message(&what)).hint(TooDeep::hint())
    }
}
