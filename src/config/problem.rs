//! What is wrong with a configuration, addressed by where it stands.
//!
//! Whoever finds a problem (the loader, the mapping, Postgres at `check`) names the
//! place by its path; [`super::Source`] knows the file and turns the path into a
//! line and a column. Nothing here knows of TOML.

use std::fmt;
use std::ops::Range;

/// One step of a [`ConfigPath`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    /// A key of a table.
    Key(String),
    /// An element of an array, from 0.
    Index(usize),
}

impl From<&str> for Segment {
    fn from(key: &str) -> Self {
        Segment::Key(key.to_owned())
    }
}

impl From<String> for Segment {
    fn from(key: String) -> Self {
        Segment::Key(key)
    }
}

impl From<&String> for Segment {
    fn from(key: &String) -> Self {
        Segment::Key(key.clone())
    }
}

impl From<usize> for Segment {
    fn from(index: usize) -> Self {
        Segment::Index(index)
    }
}

/// Where in the configuration: `caches.org_data.key`, `tables[3].invalidates[0].where`.
///
/// ```
/// use unstale::config::problem::ConfigPath;
///
/// let rule = ConfigPath::root().child("tables").child(3).child("invalidates").child(0);
/// assert_eq!(rule.child("where").to_string(), "tables[3].invalidates[0].where");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigPath(pub Vec<Segment>);

impl ConfigPath {
    /// The file as a whole.
    #[must_use]
    pub fn root() -> Self {
        ConfigPath(Vec::new())
    }

    /// One step further: a key (a string) or an element (a number).
    #[must_use]
    pub fn child(&self, segment: impl Into<Segment>) -> Self {
        let mut segments = self.0.clone();
        segments.push(segment.into());
        ConfigPath(segments)
    }

    /// One step back; `None` at the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let (_, before) = self.0.split_last()?;
        Some(ConfigPath(before.to_vec()))
    }

    /// The last key on the way, past any indices: `where` of `tables[3].where[0]`.
    #[must_use]
    pub fn last_key(&self) -> Option<&str> {
        self.0.iter().rev().find_map(|segment| match segment {
            Segment::Key(key) => Some(key.as_str()),
            Segment::Index(_) => None,
        })
    }
}

impl<S: Into<Segment>> FromIterator<S> for ConfigPath {
    fn from_iter<I: IntoIterator<Item = S>>(segments: I) -> Self {
        ConfigPath(segments.into_iter().map(Into::into).collect())
    }
}

impl fmt::Display for ConfigPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Key(key) => {
                    if position > 0 {
                        f.write_str(".")?;
                    }
                    if is_bare(key) { f.write_str(key)? } else { write!(f, "{key:?}")? }
                }
            }
        }
        Ok(())
    }
}

/// Whether TOML takes the key without quotes.
fn is_bare(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

/// Which half of `key = value` a problem is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum On {
    /// The name: it is unknown, or names something that is.
    Key,
    /// What it is set to.
    #[default]
    Value,
}

/// One thing that is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where. A path that the file does not hold points at the nearest part that it does.
    pub path: ConfigPath,
    /// What was found and what is allowed, in one sentence without a full stop.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
    /// The name or the value.
    pub on: On,
    /// Bytes within the string value (after TOML's escapes are read), such as one word
    /// of a `where`. Only with [`On::Value`].
    pub span_in_value: Option<Range<usize>>,
}

impl Problem {
    /// A problem with the value at `path`.
    #[must_use]
    pub fn new(path: ConfigPath, message: impl Into<String>) -> Self {
        Problem { path, message: message.into(), hint: None, on: On::Value, span_in_value: None }
    }

    /// Says what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Points at the name instead of the value.
    #[must_use]
    pub fn on_key(mut self) -> Self {
        self.on = On::Key;
        self
    }

    /// Points at these bytes of the string value.
    #[must_use]
    pub fn within(mut self, span: Range<usize>) -> Self {
        self.span_in_value = Some(span);
        self
    }
}

/// The name among `known` that `found` was probably meant to be, if one is near enough.
#[must_use]
pub fn nearest<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A third of the letters may be wrong: enough for a slip, not for another word.
    let reach = (found.chars().count() / 3).clamp(1, 3);
    let folded = found.to_lowercase();
    known
        .into_iter()
        .filter(|name| *name != found)
        .map(|name| (strsim::osa_distance(&folded, &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= reach)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_as_one_writes_it() {
        let path = ConfigPath::root().child("tables").child(3).child("invalidates").child(0);
        assert_eq!(path.child("where").to_string(), "tables[3].invalidates[0].where");
        assert_eq!(ConfigPath::from_iter(["caches", "a b"]).to_string(), "caches.\"a b\"");
        assert_eq!(path.last_key(), Some("invalidates"));
    }

    #[test]
    fn a_slip_of_the_pen_is_recognised_and_another_word_is_not() {
        let known = ["org_data", "deal_stats", "user_perms"];
        assert_eq!(nearest("org_dta", known), Some("org_data"));
        assert_eq!(nearest("Deal_Stats", known), Some("deal_stats"));
        assert_eq!(nearest("use_rperms", known), Some("user_perms"));
        assert_eq!(nearest("identity", known), None);
    }
}
