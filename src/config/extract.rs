//! Values to the model, entry by entry, so that one mistake hides no other.

use std::collections::{BTreeMap, BTreeSet};

use figment::error::{Actual, Kind};
use figment::value::{Dict, Value};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::api::Api;
use super::duration::Span;
use super::endpoints::Endpoint;
use super::layers::{POSTGRES_URL, REDIS_URL};
use super::model::{
    Admin, Audit, Cache, Caches, Config, Log, Pipeline, Postgres, Redis, Rule, Table, Warm,
    default_schedule, five_seconds,
};
use super::problem::{ConfigPath, Problem, Segment, nearest};
use super::redact::{Exposure, exposure};

const SECTIONS: &[&str] = &[
    "shadow",
    "shadow_grace",
    "postgres",
    "redis",
    "pipeline",
    "warm",
    "schedule",
    "audit",
    "admin",
    "api",
    "log",
    "caches",
    "tables",
    "endpoints",
];

/// What could be read.
pub(super) struct Extracted {
    /// Not to be used if there are problems: what is wrong was replaced by its default so
    /// that the rest can be judged too. `None` if a required section is not there at all.
    pub(super) config: Option<Config>,
    /// Where something stands in for a required setting.
    pub(super) stand_ins: Vec<ConfigPath>,
}

/// Reads the whole configuration, and adds to `problems` what is wrong with it.
pub(super) fn config(values: &Dict, problems: &mut Vec<Problem>) -> Extracted {
    let mut reader = Reader { problems, stand_ins: Vec::new() };
    let config = reader.config(values);
    Extracted { config, stand_ins: reader.stand_ins }
}

/// The settings that stand above the first section.
#[derive(Deserialize)]
#[serde(default)]
struct Shadow {
    shadow: bool,
    shadow_grace: Span,
}

impl Default for Shadow {
    fn default() -> Self {
        Shadow { shadow: false, shadow_grace: five_seconds() }
    }
}

struct Reader<'p> {
    problems: &'p mut Vec<Problem>,
    stand_ins: Vec<ConfigPath>,
}

impl Reader<'_> {
    fn config(&mut self, values: &Dict) -> Option<Config> {
        let root = ConfigPath::root();
        for name in values.keys().filter(|name| !SECTIONS.contains(&name.as_str())) {
            self.problems.push(unknown_key(root.child(name), name, SECTIONS));
        }
        let mut postgres: Option<Postgres> = self.required(values, "postgres");
        let mut redis: Option<Redis> = self.required(values, "redis");
        // A variable that is set to nothing, as compose files do, gives no secret.
        let given = |secret: &SecretString| !secret.expose_secret().is_empty();
        let mut secrets = Vec::new();
        if let Some(postgres) = &mut postgres {
            secrets.extend([&mut postgres.password, &mut postgres.replica_url]);
        }
        secrets.extend(redis.as_mut().map(|redis| &mut redis.password));
        for secret in secrets {
            *secret = secret.take().filter(given);
        }
        let settings =
            values.iter().filter(|(name, _)| ["shadow", "shadow_grace"].contains(&name.as_str()));
        let settings: Dict = settings.map(|(name, value)| (name.clone(), value.clone())).collect();
        let shadow: Option<Shadow> = self.entry(&Value::from(settings), &root);
        let Shadow { shadow, shadow_grace } = shadow.unwrap_or_default();
        let pipeline: Option<Pipeline> = self.optional(values, "pipeline");
        let warm: Option<Warm> = self.optional(values, "warm");
        let schedule = match values.get("schedule") {
            None => default_schedule(),
            given => self.list(given, &root.child("schedule"), Reader::entry),
        };
        let audit: Option<Audit> = self.optional(values, "audit");
        let admin: Option<Admin> = self.optional(values, "admin");
        let mut api: Option<Api> = self.optional(values, "api");
        if let Some(api) = &mut api {
            api.jwt.secret = api.jwt.secret.take().filter(given);
        }
        let log: Option<Log> = self.optional(values, "log");
        let caches = self.caches(values.get("caches"));
        let tables = self.list(values.get("tables"), &root.child("tables"), Reader::table);
        let endpoints =
            self.list(values.get("endpoints"), &root.child("endpoints"), Reader::entry::<Endpoint>);
        Some(Config {
            shadow,
            shadow_grace,
            postgres: postgres?,
            redis: redis?,
            pipeline: pipeline.unwrap_or_default(),
            warm: warm.unwrap_or_default(),
            schedule,
            audit: audit.unwrap_or_default(),
            admin: admin.unwrap_or_default(),
            api: api.unwrap_or_default(),
            log: log.unwrap_or_default(),
            caches,
            tables,
            endpoints,
        })
    }

    fn required<T: DeserializeOwned>(&mut self, values: &Dict, name: &str) -> Option<T> {
        if !values.contains_key(name) {
            let message = format!("there is no section [{name}]");
            let hint = format!("write at least:\n[{name}]\n{}", example(name));
            self.problems.push(Problem::new(ConfigPath::root().child(name), message).hint(hint));
        }
        self.optional(values, name)
    }

    fn optional<T: DeserializeOwned>(&mut self, values: &Dict, name: &str) -> Option<T> {
        values.get(name).and_then(|value| self.entry(value, &ConfigPath::root().child(name)))
    }

    fn caches(&mut self, value: Option<&Value>) -> Caches {
        let mut caches = Caches::default();
        let path = ConfigPath::root().child("caches");
        let Some(entries) = value.and_then(|value| self.dict(value, &path)) else { return caches };
        for (name, value) in entries {
            let at = path.child(name);
            let setting = match name.as_str() {
                "timezone" => Some((&mut caches.timezone, "\"UTC\"")),
                "organization_parameter" => {
                    Some((&mut caches.organization_parameter, "\"org_id\""))
                }
                "user_parameter" => Some((&mut caches.user_parameter, "\"user_id\"")),
                _ => None,
            };
            if let Some((setting, example)) = setting {
                match value.as_str() {
                    Some(text) => *setting = text.to_owned(),
                    None => {
                        self.expected(&format!("a text in quotes, such as {example}"), value, at)
                    }
                }
            } else if let Some(cache) = self.cache(value, &at) {
                caches.by_name.insert(name.clone(), cache);
            }
        }
        caches
    }

    /// Only a composed cache can do without a key.
    fn cache(&mut self, value: &Value, path: &ConfigPath) -> Option<Cache> {
        let mut cache: Cache = self.entry(value, path)?;
        let given = self.dict(value, path)?;
        if !given.contains_key("key") && !given.contains_key("compose") {
            let missing = path.child("key");
            // One that is misspelt is reported already.
            if !given.keys().any(|name| nearest(name, ["key"]).is_some()) {
                self.problems.push(missing_field(missing.clone(), path, "key", given));
            }
            self.stand_ins.push(missing);
            cache.key = Some(String::new());
        }
        Some(cache)
    }

    fn table(&mut self, value: &Value, path: &ConfigPath) -> Option<Table> {
        let entries = self.dict(value, path)?;
        let mut head = entries.clone();
        let rules = head.remove("invalidates");
        let rules = self.list(rules.as_ref(), &path.child("invalidates"), Reader::rule);
        let mut table: Table = self.entry(&Value::from(head), path)?;
        table.invalidates = rules;
        Some(table)
    }

    fn rule(&mut self, value: &Value, path: &ConfigPath) -> Option<Rule> {
        let mut entries = self.dict(value, path)?.clone();
        // What is no setting gives a parameter, and that is the name of a column.
        let parameters = entries.iter().filter(|(key, _)| !Rule::SETTINGS.contains(&key.as_str()));
        let wrong: Vec<_> = parameters
            .filter(|(_, value)| value.as_str().is_none())
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        for (key, value) in wrong {
            entries.remove(&key);
            let at = path.child(&key);
            match nearest(&key, Rule::SETTINGS.iter().copied()) {
                Some(_) => self.problems.push(unknown_key(at, &key, Rule::SETTINGS)),
                None => self.expected("the name of a column in quotes", &value, at),
            }
        }
        self.entry(&Value::from(entries), path)
    }

    /// Every element of a list, as `read` reads it.
    fn list<T>(
        &mut self,
        value: Option<&Value>,
        path: &ConfigPath,
        read: impl Fn(&mut Self, &Value, &ConfigPath) -> Option<T>,
    ) -> Vec<T> {
        match value {
            None => Vec::new(),
            Some(Value::Array(_, elements)) => elements
                .iter()
                .enumerate()
                .filter_map(|(index, element)| read(self, element, &path.child(index)))
                .collect(),
            Some(other) => {
                let (shape, hint) = match path.last_key() {
                    Some("tables") => (
                        "a list of tables",
                        "write [[tables]] in the file, in double brackets, once for each",
                    ),
                    Some("endpoints") => (
                        "a list of endpoints",
                        "write [[endpoints]] in the file, in double brackets, once for each",
                    ),
                    Some("schedule") => (
                        "a list of schedules",
                        "write [[schedule]] in the file, in double brackets, once for each, or schedule = [] above the first section for none",
                    ),
                    _ => ("a list of rules", "write invalidates = [{ cache = \"org_data\" }]"),
                };
                self.expected(shape, other, path.clone());
                if let Some(problem) = self.problems.last_mut() {
                    problem.hint = Some(hint.to_owned());
                }
                Vec::new()
            }
        }
    }

    fn dict<'v>(&mut self, value: &'v Value, path: &ConfigPath) -> Option<&'v Dict> {
        let found = value.as_dict();
        if found.is_none() {
            let section = path.last_key().filter(|_| path.0.len() == 1);
            match section {
                Some(name) => self.expected(&format!("a section, [{name}]"), value, path.clone()),
                None => self.expected("a table", value, path.clone()),
            }
        }
        found
    }

    /// One entry of the model.
    ///
    /// serde stops at the first mistake. It is reported, taken out, and the rest is tried
    /// again: a wrong value gives way to its default, a required one to a stand-in.
    fn entry<T: DeserializeOwned>(&mut self, value: &Value, path: &ConfigPath) -> Option<T> {
        // A struct would also be read from a list, by position.
        let mut values = self.dict(value, path)?.clone();
        let mut taken = Taken::default();
        let mut stood_in = BTreeSet::new();
        loop {
            let error = match Value::from(values.clone()).deserialize::<T>() {
                Ok(entry) => return Some(entry),
                Err(error) => error,
            };
            let at = error.path.clone();
            // No text stands in for a length of time, say. It is reported that it is missing.
            if stood_in.contains(&at) {
                return None;
            }
            if let Kind::MissingField(name) = &error.kind {
                let mut missing = at.clone();
                missing.push(name.to_string());
                stood_in.insert(missing.clone());
                let full = taken.original(path, &missing);
                self.stand_ins.push(full.clone());
                if !taken.values.contains(&missing) && !taken.meant_for(&missing) {
                    self.problems.push(missing_field(full, path, name, &values));
                }
                let stand_in = nested_insert(&mut values, &missing, Value::from(""));
                stand_in?;
            } else {
                let full = taken.original(path, &at);
                self.problems.push(mistake(full, &error.kind));
                taken.note(&at);
                nested_remove(&mut values, &at)?;
            }
        }
    }

    fn expected(&mut self, what: &str, found: &Value, path: ConfigPath) {
        let message = format!("expected {what}, found {}", described(&found.to_actual(), &path));
        self.problems.push(Problem::new(path, message));
    }
}

/// What was taken out of an entry, to tell where things stood before.
#[derive(Default)]
struct Taken {
    values: BTreeSet<Vec<String>>,
    /// By list: the positions that its elements had.
    elements: BTreeMap<Vec<String>, Vec<usize>>,
}

impl Taken {
    fn note(&mut self, at: &[String]) {
        self.values.insert(at.to_vec());
        if let Some((index, list)) = index_in_list(at) {
            self.elements.entry(list.to_vec()).or_default().push(index);
        }
    }

    /// Whether a misspelt name that is reported already was meant to be this one.
    fn meant_for(&self, missing: &[String]) -> bool {
        let Some((name, table)) = missing.split_last() else { return false };
        self.values.iter().any(|taken| {
            taken.split_last().is_some_and(|(other, beside)| {
                beside == table && nearest(other, [name.as_str()]).is_some()
            })
        })
    }

    /// The path of something in the entry at `entry`, before anything was taken out.
    fn original(&self, entry: &ConfigPath, at: &[String]) -> ConfigPath {
        let mut path = entry.clone();
        for (depth, part) in at.iter().enumerate() {
            let list = at.get(..depth).unwrap_or_default();
            let segment = match part.parse::<usize>() {
                // Elements before it that are gone count, in the order they went.
                Ok(index) => {
                    let gone = self.elements.get(list).map(Vec::as_slice).unwrap_or_default();
                    Segment::Index(
                        gone.iter().rev().fold(
                            index,
                            |i, taken| {
                                if *taken <= i { i + 1 } else { i }
                            },
                        ),
                    )
                }
                Err(_) => Segment::Key(part.clone()),
            };
            path.0.push(segment);
        }
        path
    }
}

fn index_in_list(at: &[String]) -> Option<(usize, &[String])> {
    let (last, list) = at.split_last()?;
    Some((last.parse().ok()?, list))
}

fn nested_remove(values: &mut Dict, at: &[String]) -> Option<Value> {
    let (first, rest) = at.split_first()?;
    if rest.is_empty() {
        return values.remove(first);
    }
    match values.get_mut(first)? {
        Value::Dict(_, inner) => nested_remove(inner, rest),
        Value::Array(_, elements) => {
            let (index, deeper) = rest.split_first()?;
            let index: usize = index.parse().ok()?;
            if !deeper.is_empty() || index >= elements.len() {
                return None;
            }
            Some(elements.remove(index))
        }
        _ => None,
    }
}

fn nested_insert(values: &mut Dict, at: &[String], value: Value) -> Option<()> {
    let (first, rest) = at.split_first()?;
    if rest.is_empty() {
        // What is there already was tried and is still missed: no use trying again.
        return values.insert(first.clone(), value).is_none().then_some(());
    }
    match values.get_mut(first)? {
        Value::Dict(_, inner) => nested_insert(inner, rest, value),
        _ => None,
    }
}

/// A required setting that is not there, `siblings` being the names that are.
fn missing_field(path: ConfigPath, entry: &ConfigPath, name: &str, siblings: &Dict) -> Problem {
    let what = match name {
        "key" => "`key`, the template of the cache's key,",
        "name" => "`name`, the table's name,",
        "cache" => "`cache`, the cache that it is about,",
        "path" => "`path`, where it is served,",
        "envelope" => "`envelope`, the name of the value in the answer,",
        "file" => "`file`, the path of the SQL file,",
        "task" => "`task`, what is to be done,",
        "every" => "`every`, how often it is done,",
        other => &format!("`{other}`"),
    };
    let example = match name {
        "key" => "key = \"v1:deal_stats:{org_id}:{days}\"",
        "name" => "name = \"deals_deal\"",
        "cache" => "cache = \"org_data\"",
        "file" => "query = { file = \"../sql/org_data.sql\" }",
        "path" => "path = \"/api/cached/organizations/{id}/info/\"",
        "envelope" => "envelope = \"organization\"",
        "task" => "task = \"warm\"",
        "every" => "every = \"4h\"",
        _ => example(entry.last_key().unwrap_or_default()),
    };
    let slip = siblings.keys().find(|key| nearest(key, [name]).is_some());
    Problem::new(path, format!("{what} is missing")).hint(match slip {
        Some(key) => format!("did you mean it by `{key}`? Write for example: {example}"),
        None => format!("write for example: {example}"),
    })
}

/// The one setting that a required section cannot be without.
fn example(section: &str) -> &'static str {
    if section == "redis" { REDIS_URL } else { POSTGRES_URL }
}

fn unknown_key(path: ConfigPath, name: &str, known: &[&str]) -> Problem {
    let problem = Problem::new(path, format!("there is no setting `{name}` here")).on_key();
    let all = known.join(", ");
    problem.hint(match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`? Known here: {all}"),
        None => format!("known here: {all}"),
    })
}

/// What serde found, in words. Values of secret settings are left out.
fn mistake(path: ConfigPath, kind: &Kind) -> Problem {
    match kind {
        Kind::UnknownField(name, known) => unknown_key(path, name, known),
        Kind::UnknownVariant(word, known) => {
            let quoted: Vec<_> = known.iter().map(|word| format!("\"{word}\"")).collect();
            let all = quoted.join(", ");
            let near = nearest(word, known.iter().copied());
            Problem::new(path, format!("expected one of {all}, found \"{word}\"")).hint(
                match (word.to_lowercase().as_str(), near) {
                    ("truncate", _) => "TRUNCATE counts as a delete: write \"delete\"".to_owned(),
                    (_, Some(near)) => format!("did you mean \"{near}\"?"),
                    (_, None) => format!("write one of {all}"),
                },
            )
        }
        Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected) => {
            let found = described(found, &path);
            Problem::new(path, format!("expected {}, found {found}", in_words(expected)))
        }
        Kind::Message(text) => match text.split_once('\n') {
            Some((message, hint)) => Problem::new(path, message).hint(hint),
            None => Problem::new(path, text.as_str()),
        },
        other => Problem::new(path, other.to_string()),
    }
}

/// Rust's names of types in the reader's words.
fn in_words(expected: &str) -> &str {
    match expected {
        "a string" => "a text in quotes",
        "a boolean" => "true or false",
        "a sequence" => "a list, such as [\"a\", \"b\"]",
        "path string" => "a path in quotes",
        "a map" => "a table",
        "usize" | "u64" | "u32" => "a whole number, not negative",
        other if other.starts_with("struct ") => "a table",
        other => other,
    }
}

fn described(found: &Actual, path: &ConfigPath) -> String {
    let shown = exposure(path) == Exposure::Shown;
    match found {
        Actual::Bool(truth) if shown => format!("{truth}"),
        Actual::Bool(_) => "true or false".to_owned(),
        Actual::Unsigned(number) if shown => format!("the number {number}"),
        Actual::Signed(number) if shown => format!("the number {number}"),
        Actual::Float(number) if shown => format!("the number {number}"),
        Actual::Unsigned(_) | Actual::Signed(_) | Actual::Float(_) => "a number".to_owned(),
        Actual::Str(text) if shown => format!("the text {text:?}"),
        Actual::Str(_) | Actual::Char(_) => "a text".to_owned(),
        Actual::Seq => "a list".to_owned(),
        Actual::Map => "a table".to_owned(),
        _ => "something else".to_owned(),
    }
}
