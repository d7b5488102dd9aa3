//! Where values come from: the defaults, then the file, then the environment, then the
//! command line. A later layer wins, setting by setting.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::Serialized;
use figment::value::Dict;

use super::diagnostics::Diagnostics;
use super::environment;
use super::overrides::Override;
use super::problem::{ConfigPath, Problem};
use super::source::{Read, Source};

/// Where the file is looked for when nobody names it.
pub const DEFAULT_FILES: [&str; 3] =
    ["config/unstale.toml", "unstale.toml", "/etc/unstale/unstale.toml"];

/// Examples of the two settings that no configuration can be without.
pub(super) const POSTGRES_URL: &str = "url = \"postgres://unstale@127.0.0.1:5432/app\"";
pub(super) const REDIS_URL: &str = "url = \"redis://127.0.0.1:6379/0\"";

/// Everything that a configuration is made of.
#[derive(Clone)]
pub struct Layers {
    /// The file.
    pub file: File,
    /// Environment variables; only those that begin with `UNSTALE_` count.
    pub environment: Vec<(OsString, OsString)>,
    /// The command line's settings.
    pub overrides: Vec<Override>,
}

/// Where the file is.
#[derive(Clone)]
pub enum File {
    /// Here.
    At(PathBuf),
    /// Where `UNSTALE_CONFIG` says, else at the first of these that exists.
    FirstOf(Vec<PathBuf>),
    /// Nowhere: this is its text.
    Text {
        /// What diagnostics call it.
        name: PathBuf,
        /// The folder that relative paths in it start from.
        base_dir: PathBuf,
        /// TOML.
        text: String,
    },
}

/// Without the text, which may hold secrets.
impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            File::At(path) => f.debug_tuple("At").field(path).finish(),
            File::FirstOf(paths) => f.debug_tuple("FirstOf").field(paths).finish(),
            File::Text { name, .. } => f.debug_tuple("Text").field(name).finish(),
        }
    }
}

/// Without the values of variables, which may be secrets.
impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.environment.iter().map(|(name, _)| name).collect();
        f.debug_struct("Layers")
            .field("file", &self.file)
            .field("environment", &names)
            .field("overrides", &self.overrides)
            .finish()
    }
}

impl Layers {
    /// Those of this process: the file that is named or found, the environment, and what the
    /// command line sets.
    #[must_use]
    pub fn of_process(file: Option<&Path>, overrides: &[Override]) -> Self {
        Layers {
            file: match file {
                Some(path) => File::At(path.to_owned()),
                None => File::FirstOf(DEFAULT_FILES.map(PathBuf::from).to_vec()),
            },
            environment: std::env::vars_os().collect(),
            overrides: overrides.to_vec(),
        }
    }

    /// A text alone, without an environment.
    #[must_use]
    pub fn text(name: &str, text: &str) -> Self {
        Layers {
            file: File::Text {
                name: PathBuf::from(name),
                base_dir: PathBuf::from("."),
                text: text.to_owned(),
            },
            environment: Vec::new(),
            overrides: Vec::new(),
        }
    }

    /// All values in one, and what is wrong with them as far as nobody knows what they mean.
    pub(super) fn merge(&self) -> Result<Read, Diagnostics> {
        let mut read = self.read_file()?;
        let (mut overrides, misnamed) = environment::overrides(&self.environment);
        overrides.extend(self.overrides.iter().cloned());
        read.source.note_overrides(&overrides);
        read.misnamed = misnamed;
        let mut figment = Figment::from(Serialized::defaults(&read.values));
        for set in &overrides {
            match set.tables() {
                Ok(tables) => figment = figment.merge(Serialized::defaults(tables)),
                Err(problem) => read.problems.push(problem),
            }
        }
        match figment.extract::<Dict>() {
            Ok(values) => read.values = values,
            // No type is asked for yet: nothing that could be wrong with them.
            Err(error) => read.problems.push(Problem::new(ConfigPath::root(), error.to_string())),
        }
        Ok(read)
    }

    fn read_file(&self) -> Result<Read, Diagnostics> {
        let (path, given) = match &self.file {
            File::Text { name, base_dir, text } => return Source::read(name, base_dir, text),
            File::At(path) => (path.clone(), true),
            File::FirstOf(paths) => match environment::config_file(&self.environment) {
                Some(path) => (path, true),
                None => match paths.iter().find(|path| path.exists()) {
                    Some(path) => (path.clone(), false),
                    None => return Err(nowhere(paths)),
                },
            },
        };
        let bytes = std::fs::read(&path).map_err(|error| {
            let hint = if given {
                "check the path of --config or UNSTALE_CONFIG, and that this user may read the file"
            } else {
                "let this user read the file, or name another one by --config or UNSTALE_CONFIG"
            };
            Diagnostics::of_file(&path, format!("cannot be read: {error}"), hint)
        })?;
        let text = String::from_utf8(bytes).map_err(|error| not_utf8(&path, &error))?;
        let base_dir = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        Source::read(&path, base_dir, &text)
    }
}

fn nowhere(paths: &[PathBuf]) -> Diagnostics {
    let looked: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    Diagnostics::of_file(
        Path::new("no configuration"),
        format!("found none at {}", looked.join(", ")),
        &format!(
            "name the file by --config or UNSTALE_CONFIG, or write one; the least that it needs:\n\
             [postgres]\n{POSTGRES_URL}\n[redis]\n{REDIS_URL}"
        ),
    )
}

fn not_utf8(path: &Path, error: &std::string::FromUtf8Error) -> Diagnostics {
    let before = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let last = before.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    let column = String::from_utf8_lossy(last).chars().count() + 1;
    Diagnostics::of_file(
        path,
        format!("line {line}, column {column} is not UTF-8"),
        "save the file as UTF-8: TOML knows no other encoding",
    )
}
