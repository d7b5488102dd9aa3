//! The file as it was read: where each setting stands, and what may be shown of it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use figment::value::Dict;
use toml_edit::ImDocument;

use super::diagnostics::{Diagnostics, Finding, Place, Snippet};
use super::literal;
use super::nesting::{self, TooDeep};
use super::overrides::{Origin, Override};
use super::problem::{ConfigPath, On, Problem};
use super::redact::{Exposure, Masked, exposure};
use super::walk::Walk;

/// Where the configuration came from. It turns [`Problem`]s, whoever finds them and
/// whenever, into [`Diagnostics`]. It holds no secret: what it keeps of the file is masked.
#[derive(Debug, Clone)]
pub struct Source {
    name: PathBuf,
    base_dir: PathBuf,
    shown: Arc<str>,
    spots: BTreeMap<ConfigPath, Spot>,
    overrides: Vec<(ConfigPath, String)>,
}

/// Where a setting's name and value stand.
#[derive(Debug, Clone, Default)]
struct Spot {
    key: Option<Place>,
    value: Option<Place>,
}

/// A file read: its places, its values, and what is wrong with it before anyone knows
/// what the values mean.
pub(super) struct Read {
    pub(super) source: Source,
    pub(super) values: Dict,
    pub(super) problems: Vec<Problem>,
    /// Variables that are none of our settings.
    pub(super) misnamed: Vec<(Problem, Origin)>,
}

impl Source {
    /// Reads the text of a file.
    pub(super) fn read(name: &Path, base_dir: &Path, text: &str) -> Result<Read, Diagnostics> {
        nesting::of_document(text).map_err(|deep| too_deep(name, text, deep))?;
        let document = ImDocument::parse(text).map_err(|error| syntax_error(name, text, &error))?;
        let mut walk = Walk::default();
        let values = walk.table(document.as_table(), &ConfigPath::root());
        let masked = Masked::new(text, walk.secrets(text));
        let lines = Lines::new(text);
        let spots = walk
            .spans
            .into_iter()
            .map(|(path, spans)| {
                let place = |span: Option<Range<usize>>| {
                    span.map(|span| lines.place(first_line(text, span), &masked))
                };
                (path, Spot { key: place(spans.key), value: place(spans.value) })
            })
            .collect();
        let source = Source {
            name: name.to_owned(),
            base_dir: base_dir.to_owned(),
            shown: masked.text().into(),
            spots,
            overrides: Vec::new(),
        };
        Ok(Read { source, values, problems: walk.problems, misnamed: Vec::new() })
    }

    /// The name of the file, as it was given.
    #[must_use]
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// The folder that relative paths in the file start from.
    #[must_use]
    pub fn base_dir(&self) -> &Path {
        &self.base_dir
    }

    /// Notes what was set from elsewhere, later ones over earlier ones.
    pub(super) fn note_overrides(&mut self, overrides: &[Override]) {
        self.overrides
            .extend(overrides.iter().map(|set| (set.path().clone(), set.origin().to_string())));
    }

    /// The problems with their places.
    #[must_use]
    pub fn diagnostics(&self, problems: impl IntoIterator<Item = Problem>) -> Diagnostics {
        Diagnostics::new(problems.into_iter().map(|problem| self.finding(problem)).collect())
    }

    /// Problems with what is not in the file at all.
    pub(super) fn elsewhere(problems: Vec<(Problem, Origin)>) -> Diagnostics {
        let finding = |(problem, origin): (Problem, Origin)| Finding {
            message: problem.message,
            hint: problem.hint,
            origin: Some(origin.to_string()),
            place: None,
            label: None,
            snippet: None,
        };
        Diagnostics::new(problems.into_iter().map(finding).collect())
    }

    fn finding(&self, problem: Problem) -> Finding {
        let set_elsewhere = self.override_of(&problem.path).map(ToOwned::to_owned);
        let place = match set_elsewhere {
            Some(_) => None,
            None => self.place(&problem),
        };
        let label = (!problem.path.0.is_empty()).then(|| problem.path.to_string());
        let snippet = place.clone().map(|place| Snippet {
            name: self.name.display().to_string(),
            text: Arc::clone(&self.shown),
            place,
        });
        Finding {
            message: problem.message,
            hint: problem.hint,
            origin: set_elsewhere.or_else(|| Some(self.name.display().to_string())),
            place,
            label,
            snippet,
        }
    }

    /// The variable or flag that set what is at this path, or what it is a part of, if
    /// the file did not.
    fn override_of(&self, path: &ConfigPath) -> Option<&str> {
        let set_by = |found: &dyn Fn(&ConfigPath) -> bool| {
            let mut latest_first = self.overrides.iter().rev();
            latest_first.find(|(set, _)| found(set)).map(|(_, origin)| origin.as_str())
        };
        let mut origin = set_by(&|set| path.0.starts_with(&set.0));
        let mut around = Some(path.clone());
        while let (None, Some(entry)) = (origin, around) {
            if self.spots.contains_key(&entry) {
                break;
            }
            origin = set_by(&|set| !entry.0.is_empty() && set.0.starts_with(&entry.0));
            around = entry.parent();
        }
        origin
    }

    /// The place of the problem, or of the nearest thing around it that the file has.
    fn place(&self, problem: &Problem) -> Option<Place> {
        if let Some(spot) = self.spots.get(&problem.path) {
            let (first, second) = match problem.on {
                On::Key => (&spot.key, &spot.value),
                On::Value => (&spot.value, &spot.key),
            };
            let place = first.as_ref().or(second.as_ref())?;
            return Some(match &problem.span_in_value {
                Some(within) if problem.on == On::Value => {
                    self.inside(place, &problem.path, within)
                }
                _ => place.clone(),
            });
        }
        let mut around = problem.path.parent();
        while let Some(path) = around {
            if let Some(spot) = self.spots.get(&path) {
                return spot.value.clone().or_else(|| spot.key.clone());
            }
            around = path.parent();
        }
        None
    }

    /// A part of a string value. Secrets have no parts: their mask is all there is.
    fn inside(&self, place: &Place, path: &ConfigPath, within: &Range<usize>) -> Place {
        let rest = self.shown.get(place.shown.start..).unwrap_or_default();
        let Some(literal) = literal::leading(rest).filter(|_| exposure(path) == Exposure::Shown)
        else {
            return place.clone();
        };
        let start = literal::raw_offset(literal, within.start);
        let end = literal::raw_offset(literal, within.end).max(start + 1);
        let Some(before) = literal.get(..start) else { return place.clone() };
        let (line, column) = match before.rsplit_once('\n') {
            None => (place.line, place.column + before.chars().count()),
            Some((above, last)) => {
                (place.line + above.matches('\n').count() + 1, last.chars().count() + 1)
            }
        };
        let shown = place.shown.start + start..place.shown.start + end;
        Place { line, column, shown: first_line(&self.shown, shown) }
    }
}

fn too_deep(name: &Path, text: &str, deep: TooDeep) -> Diagnostics {
    unread(name, text, deep.at..deep.at + 1, deep.message("this"), TooDeep::hint())
}

fn syntax_error(name: &Path, text: &str, error: &toml_edit::TomlError) -> Diagnostics {
    let reason = error.message().trim().replace('\n', ", ");
    unread(
        name,
        text,
        error.span().unwrap_or(0..0),
        format!("this is not TOML: {reason}"),
        "texts stand in double quotes, a section begins with [name]; see https://toml.io"
            .to_owned(),
    )
}

/// Why a file could not be read as TOML at all.
fn unread(
    name: &Path,
    text: &str,
    span: Range<usize>,
    message: String,
    hint: String,
) -> Diagnostics {
    let masked = Masked::broken(text);
    // The parser speaks of characters' bytes; it may also point behind the end.
    let boundary = |at: usize| (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let span = boundary(span.start)..boundary(span.end);
    let place = Lines::new(text).place(first_line(text, span), &masked);
    Diagnostics::new(vec![Finding {
        message,
        hint: Some(hint),
        origin: Some(name.display().to_string()),
        label: Some("here".to_owned()),
        snippet: Some(Snippet {
            name: name.display().to_string(),
            text: masked.text().into(),
            place: place.clone(),
        }),
        place: Some(place),
    }])
}

/// A range cut off at the end of its first line, so that a long value is not all shown.
fn first_line(text: &str, span: Range<usize>) -> Range<usize> {
    let shown = text.get(span.clone()).unwrap_or_default();
    let length = shown.find(['\r', '\n']).unwrap_or(shown.len());
    span.start..span.start + length
}

/// The starts of a text's lines.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn new(text: &'t str) -> Self {
        let breaks = text.match_indices('\n').map(|(offset, _)| offset + 1);
        Lines { text, starts: std::iter::once(0).chain(breaks).collect() }
    }

    fn place(&self, span: Range<usize>, masked: &Masked) -> Place {
        let line = self.starts.partition_point(|start| *start <= span.start).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let before = self.text.get(start..span.start).unwrap_or_default();
        Place { line, column: before.chars().count() + 1, shown: masked.range(span) }
    }
}
