//! The compiled configuration: caches, tables and the rules between them.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::config::model::{Operation, Priority, Rewarm};

use super::composition::Composition;
use super::condition::Condition;
pub use super::id::{CacheId, RuleId, TableId};
use super::name::TableName;
use super::shape::KeyShape;
use super::template::Template;
use super::via::Via;

/// What depends on what: the configuration's caches and tables, checked and compiled.
///
/// Immutable; a reload makes a new one. Ids are those of one mapping and mean nothing in
/// another with a different [`Mapping::fingerprint`].
#[derive(Debug)]
pub struct Mapping {
    pub(super) caches: Vec<CacheModel>,
    pub(super) compositions: Vec<Composition>,
    pub(super) tables: Vec<TableModel>,
    pub(super) rules: Vec<RuleModel>,
    pub(super) table_by_name: HashMap<TableName, TableId>,
    pub(super) overlaps: Vec<(CacheId, CacheId)>,
    pub(super) fingerprint: Fingerprint,
    pub(super) organization_parameter: Box<str>,
    pub(super) user_parameter: Box<str>,
}

/// One kind of entries.
#[derive(Debug)]
pub struct CacheModel {
    /// Its name in the configuration, commands and metrics.
    pub name: Box<str>,
    /// Its keys, without `redis.key_prefix`.
    pub template: Template,
    /// For a scoped cache the parameters that a rule gives.
    pub scope: Option<Vec<String>>,
    /// For a scoped cache the key that holds the scope's generation.
    pub generation_key: Option<Template>,
    /// The values of the enumerated parameters, as they are (not escaped).
    pub enumerated: BTreeMap<String, Vec<String>>,
    /// The group that commands name.
    pub group: Option<Box<str>>,
    /// What goes first.
    pub priority: Priority,
    /// Whether what a change removed is filled again.
    pub rewarm: Rewarm,
    /// How long an entry lives at most.
    pub ttl: Duration,
    /// How long an old value may stay after the first change that it lacks, while a new one
    /// is computed (`on_change = "refresh"`); `None`: not at all.
    pub max_staleness: Option<Duration>,
    /// How long it is remembered that there is nothing to cache; `None`: it is not.
    pub negative_ttl: Option<Duration>,
    /// A larger value is not stored.
    pub max_value_bytes: Option<usize>,
    /// What every Redis key of it begins with, `redis.key_prefix` included: a purge scans
    /// for this. Literal, not a pattern.
    pub prefix: Box<[u8]>,
    /// How long `redis.key_prefix` is within [`CacheModel::prefix`].
    pub(super) key_prefix_length: usize,
}

impl CacheModel {
    /// What a rule names: the entries, or of a scoped cache the generation's key.
    #[must_use]
    pub fn target(&self) -> &Template {
        self.generation_key.as_ref().unwrap_or(&self.template)
    }

    /// Takes a Redis key (with `redis.key_prefix`) apart; `None` if it is not of this cache.
    #[must_use]
    pub fn parse_key(&self, key: &[u8]) -> Option<ParsedKey<'_>> {
        let key = key.strip_prefix(self.prefix.get(..self.key_prefix_length)?)?;
        let generation = self.generation_key.as_ref().filter(|t| t.values(key).is_some());
        let parameters = generation.unwrap_or(&self.template).values(key)?;
        Some(ParsedKey { parameters, is_generation: generation.is_some() })
    }
}

/// A key of a cache, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedKey<'a> {
    /// The parameters and their values, in the key's order.
    pub parameters: Vec<(&'a str, Vec<u8>)>,
    /// It holds a scope's generation, and is no entry.
    pub is_generation: bool,
}

/// A table and its rules.
#[derive(Debug)]
pub struct TableModel {
    /// Its name.
    pub name: TableName,
    /// Its rules, in the order of the configuration.
    pub rules: Vec<RuleId>,
}

/// One rule of a table.
#[derive(Debug)]
pub struct RuleModel {
    /// The table.
    pub table: TableId,
    /// Its place in the table's `invalidates`, from 0.
    pub position: usize,
    /// The cache that it reaches.
    pub cache: CacheId,
    /// The operations that it is for.
    pub on: Operations,
    /// The columns of which an UPDATE must change one.
    pub columns: Option<Vec<Box<str>>>,
    /// The condition on the row.
    pub condition: Option<Condition>,
    pub(super) target: Target,
}

/// How a rule finds what it drops.
#[derive(Debug)]
pub(super) enum Target {
    /// Keys from the row's own columns: one for each of the shape's parameters.
    Columns { shape: Arc<KeyShape>, columns: Vec<Box<str>> },
    /// Keys from a query over the changed rows.
    Lookup { via: Via, shape: Arc<KeyShape> },
    /// The whole cache, if a query over the changed rows finds anything.
    WholeIfFound { via: Via },
    /// The whole cache.
    Whole,
}

impl RuleModel {
    /// The query over the changed rows.
    #[must_use]
    pub fn via(&self) -> Option<&Via> {
        match &self.target {
            Target::Lookup { via, .. } | Target::WholeIfFound { via } => Some(via),
            Target::Columns { .. } | Target::Whole => None,
        }
    }

    /// Whether it drops all of the cache at once.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        matches!(self.target, Target::WholeIfFound { .. } | Target::Whole)
    }

    /// Each parameter with the column of the row that gives it; empty with a `via`.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = match &self.target {
            Target::Columns { shape, columns } => Some(shape.parameters.iter().zip(columns)),
            _ => None,
        };
        pairs.into_iter().flatten().map(|(parameter, column)| (&**parameter, &**column))
    }

    pub(super) fn shape(&self) -> Option<&Arc<KeyShape>> {
        match &self.target {
            Target::Columns { shape, .. } | Target::Lookup { shape, .. } => Some(shape),
            Target::WholeIfFound { .. } | Target::Whole => None,
        }
    }
}

/// A set of operations. TRUNCATE is in it if DELETE is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operations(u8);

impl Operations {
    /// All of them.
    pub const ALL: Operations = Operations(7);

    fn bit(operation: Operation) -> u8 {
        match operation {
            Operation::Insert => 1,
            Operation::Update => 2,
            Operation::Delete | Operation::Truncate => 4,
        }
    }

    /// Whether the operation is one of them.
    #[must_use]
    pub fn contains(self, operation: Operation) -> bool {
        self.0 & Self::bit(operation) != 0
    }
}

impl FromIterator<Operation> for Operations {
    fn from_iter<I: IntoIterator<Item = Operation>>(operations: I) -> Self {
        Operations(operations.into_iter().fold(0, |set, operation| set | Self::bit(operation)))
    }
}

/// A hash of everything that decides which keys depend on what. While it stays the same,
/// what an earlier run has applied stays good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub u64);

/// 16 hexadecimal digits.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Mapping {
    /// The caches, by name.
    pub fn caches(&self) -> impl Iterator<Item = (CacheId, &CacheModel)> {
        (0..).map(CacheId).zip(&self.caches)
    }

    /// A cache; `None` for an id of another mapping.
    #[must_use]
    pub fn cache(&self, id: CacheId) -> Option<&CacheModel> {
        self.caches.get(usize::from(id.0))
    }

    /// A cache by its name.
    #[must_use]
    pub fn cache_by_name(&self, name: &str) -> Option<(CacheId, &CacheModel)> {
        self.caches().find(|(_, cache)| &*cache.name == name)
    }

    /// The composed caches, by name.
    #[must_use]
    pub fn compositions(&self) -> &[Composition] {
        &self.compositions
    }

    /// A composed cache by its name. Its own entries, if it has any, are those of
    /// [`Mapping::cache_by_name`].
    #[must_use]
    pub fn composition(&self, name: &str) -> Option<&Composition> {
        self.compositions.iter().find(|composition| &*composition.name == name)
    }

    /// The cache that a Redis key (with `redis.key_prefix`) is of.
    #[must_use]
    pub fn cache_of_key(&self, key: &[u8]) -> Option<(CacheId, &CacheModel)> {
        self.caches().find(|(_, cache)| cache.parse_key(key).is_some())
    }

    /// The tables, in the order of the configuration.
    pub fn tables(&self) -> impl Iterator<Item = (TableId, &TableModel)> {
        (0..).map(TableId).zip(&self.tables)
    }

    /// A table by its name.
    #[must_use]
    pub fn table(&self, name: &TableName) -> Option<(TableId, &TableModel)> {
        let id = *self.table_by_name.get(name)?;
        Some((id, self.table_by_id(id)?))
    }

    /// A table; `None` for an id of another mapping.
    #[must_use]
    pub fn table_by_id(&self, id: TableId) -> Option<&TableModel> {
        self.tables.get(usize::from(id.0))
    }

    /// The rules of all tables.
    pub fn rules(&self) -> impl Iterator<Item = (RuleId, &RuleModel)> {
        (0..).map(RuleId).zip(&self.rules)
    }

    /// The rules of a table.
    pub fn rules_of(&self, table: TableId) -> impl Iterator<Item = (RuleId, &RuleModel)> {
        self.rules().filter(move |(_, rule)| rule.table == table)
    }

    /// A rule; `None` for an id of another mapping.
    #[must_use]
    pub fn rule(&self, id: RuleId) -> Option<&RuleModel> {
        self.rules.get(usize::from(id.0))
    }

    /// A rule in words, with its place in the configuration.
    #[must_use]
    pub fn describe(&self, id: RuleId) -> String {
        let Some(rule) = self.rule(id) else { return "a rule of an earlier mapping".to_owned() };
        let cache = self.cache(rule.cache).map(|cache| &*cache.name).unwrap_or_default();
        let table = rule.table.0;
        format!(
            "{} -> {cache} (tables[{table}].invalidates[{}])",
            self.table_name(rule.table),
            rule.position
        )
    }

    /// A table's name as logs and metrics show it: without the schema if it is `public`.
    #[must_use]
    pub fn table_name(&self, id: TableId) -> String {
        match self.table_by_id(id) {
            Some(table) if &*table.name.schema == "public" => table.name.table.to_string(),
            Some(table) => table.name.to_string(),
            None => String::new(),
        }
    }

    /// What the Redis keys of all caches begin with: a purge scans for these.
    #[must_use]
    pub fn prefixes(&self) -> Vec<Vec<u8>> {
        self.caches.iter().map(|cache| cache.prefix.to_vec()).collect()
    }

    /// Pairs of caches where purging the first also drops entries of the second: harmless
    /// (more is dropped, never less), but worth knowing.
    #[must_use]
    pub fn overlaps(&self) -> &[(CacheId, CacheId)] {
        &self.overlaps
    }

    /// The parameter of keys that names an organization.
    #[must_use]
    pub fn organization_parameter(&self) -> &str {
        &self.organization_parameter
    }

    /// The parameter of keys that names a user.
    #[must_use]
    pub fn user_parameter(&self) -> &str {
        &self.user_parameter
    }

    /// See [`Fingerprint`].
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}
