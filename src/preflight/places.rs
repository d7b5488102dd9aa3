//! Where in the configuration, or in a file of SQL, something is wrong: `file:line:column`.

use std::path::{Component, Path, PathBuf};

use crate::config::Source;
use crate::config::model::{Config, Query};
use crate::config::problem::{ConfigPath, Problem};
use crate::mapping::model::{Mapping, RuleModel};

/// Finds places.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    /// The file.
    pub source: &'a Source,
    /// What it says.
    pub config: &'a Config,
}

impl Places<'_> {
    /// The place of a setting.
    #[must_use]
    pub fn of(&self, path: ConfigPath) -> Option<String> {
        self.of_problem(Problem::new(path, ""))
    }

    fn of_problem(&self, problem: Problem) -> Option<String> {
        let found = self.source.diagnostics([problem]);
        let place = found.findings().first()?.place()?;
        Some(format!("{}:{}:{}", self.source.name().display(), place.line, place.column))
    }

    /// The place of a byte of a cache's query.
    #[must_use]
    pub fn in_query(&self, cache: &str, sql: &str, offset: usize) -> Option<String> {
        let query = self.config.caches.by_name.get(cache)?.query.as_ref()?;
        self.in_sql(ConfigPath::from_iter(["caches", cache, "query"]), query, sql, offset)
    }

    /// The place of a byte of a cache's population.
    #[must_use]
    pub fn in_population(&self, cache: &str, sql: &str, offset: usize) -> Option<String> {
        let query = self.config.caches.by_name.get(cache)?.population.as_ref()?;
        self.in_sql(ConfigPath::from_iter(["caches", cache, "population"]), query, sql, offset)
    }

    fn in_sql(&self, path: ConfigPath, query: &Query, sql: &str, offset: usize) -> Option<String> {
        match query {
            Query::Inline(_) => self.within(path, sql, offset),
            Query::File { file } => {
                let before = sql.get(..boundary(sql, offset))?;
                let line = before.matches('\n').count() + 1;
                let column = before.rsplit('\n').next()?.chars().count() + 1;
                let file = plain(&self.source.base_dir().join(file));
                Some(format!("{}:{line}:{column}", file.display()))
            }
        }
    }

    /// The place of a byte of a text setting.
    #[must_use]
    pub fn within(&self, path: ConfigPath, text: &str, offset: usize) -> Option<String> {
        let start = boundary(text, offset);
        let end = start + text.get(start..)?.chars().next().map_or(0, char::len_utf8);
        self.of_problem(Problem::new(path, "").within(start..end))
    }
}

/// Where a rule stands.
#[must_use]
pub fn rule_path(rule: &RuleModel) -> ConfigPath {
    ConfigPath::root()
        .child("tables")
        .child(usize::from(rule.table.0))
        .child("invalidates")
        .child(rule.position)
}

/// Where a rule stands, in words.
#[must_use]
pub fn rule_name(mapping: &Mapping, rule: &RuleModel) -> String {
    format!("rule {} of {}", rule.position + 1, mapping.table_name(rule.table))
}

/// The character's beginning at or before an offset.
fn boundary(text: &str, offset: usize) -> usize {
    let mut at = offset.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// `config/../sql/a.sql` is `sql/a.sql`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match (part, plain.components().next_back()) {
            (Component::ParentDir, Some(Component::Normal(_))) => {
                plain.pop();
            }
            _ => plain.push(part),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_goes_no_way_twice() {
        for (path, expected) in [
            ("config/../sql/a.sql", "sql/a.sql"),
            ("../a.sql", "../a.sql"),
            ("/a/./b/../c", "/a/c"),
        ] {
            assert_eq!(plain(Path::new(path)), Path::new(expected), "{path}");
        }
    }
}
