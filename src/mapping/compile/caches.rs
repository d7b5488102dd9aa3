//! `[caches.*]`

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::config::duration::Span;
use crate::config::model::{Cache, Config, OnChange, Scalar};
use crate::config::problem::{ConfigPath, Problem, nearest};

use super::super::collide::KeyPattern;
use super::super::escape::escape_into;
use super::super::model::{CacheId, CacheModel};
use super::super::shape::{KeyShape, MAX_VARIANTS};
use super::super::template::{GENERATION, Template, is_parameter_name};

/// Where the daemon keeps its own state: no cache may reach there.
const CONTROL_PREFIX: &str = "unstale:";

/// Whether some of the daemon's own keys begin with this, or it with what they begin with.
pub(crate) fn reaches_own_keys(prefix: &str) -> bool {
    prefix.starts_with(CONTROL_PREFIX) || CONTROL_PREFIX.starts_with(prefix)
}

/// What commands take for several caches at once.
const RESERVED_NAMES: [&str; 4] = ["all", "strategic", "api", "user"];

/// The caches as far as they could be compiled, by name.
pub(super) struct Caches<'c> {
    by_name: BTreeMap<&'c str, (CacheId, Option<CacheModel>)>,
    pub(super) key_prefix: &'c str,
    config: &'c Config,
}

impl<'c> Caches<'c> {
    pub(super) fn compile(config: &'c Config, problems: &mut Vec<Problem>) -> Self {
        let mut caches =
            Caches { by_name: BTreeMap::new(), key_prefix: &config.redis.key_prefix, config };
        // What has no key is only composed, of others' entries.
        let keyed = config.caches.by_name.iter().filter(|(_, cache)| cache.key.is_some());
        for (index, (name, cache)) in keyed.enumerate() {
            let path = ConfigPath::root().child("caches").child(name);
            let Ok(id) = u16::try_from(index).map(CacheId) else {
                let message = format!("more than {} caches", u16::MAX);
                problems.push(Problem::new(path, message).hint("run a second daemon"));
                break;
            };
            let mut compiler = CacheCompiler { config, name, cache, path, problems };
            caches.by_name.insert(name, (id, compiler.compile()));
        }
        for (name, cache) in config.caches.by_name.iter().filter(|(_, c)| c.key.is_none()) {
            let path = ConfigPath::root().child("caches").child(name);
            CacheCompiler { config, name, cache, path, problems }.check_name();
        }
        caches.refuse_collisions(problems);
        caches
    }

    /// A cache by name: `None` if there is no such cache, `Some((_, None))` if it is there
    /// but wrong.
    pub(super) fn get(&self, name: &str) -> Option<(CacheId, Option<&CacheModel>)> {
        self.by_name.get(name).map(|(id, model)| (*id, model.as_ref()))
    }

    /// What a composed cache without a key names as its parts; `None` for any other name.
    pub(super) fn parts_of_composed(&self, name: &str) -> Option<Vec<&'c str>> {
        let cache = self.config.caches.by_name.get(name).filter(|cache| cache.key.is_none())?;
        Some(cache.compose.iter().flatten().filter_map(|piece| piece.cache.as_deref()).collect())
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &'c str> {
        self.by_name.keys().copied()
    }

    pub(super) fn into_models(self) -> Vec<CacheModel> {
        self.by_name.into_values().filter_map(|(_, model)| model).collect()
    }

    /// Pairs where a purge of the first may drop entries of the second.
    pub(super) fn overlaps(&self) -> Vec<(CacheId, CacheId)> {
        let models: Vec<_> = self.models().collect();
        let mut overlaps = Vec::new();
        for (id, purged) in &models {
            for (other_id, other) in models.iter().filter(|(other_id, _)| other_id != id) {
                // A parameter may go on as the longer prefix does.
                let begins = other.prefix.starts_with(&purged.prefix)
                    || purged.prefix.starts_with(&other.prefix)
                        && other.template.parameters().next().is_some();
                if begins {
                    overlaps.push((*id, *other_id));
                }
            }
        }
        overlaps
    }

    fn models(&self) -> impl Iterator<Item = (CacheId, &CacheModel)> {
        self.by_name.values().filter_map(|(id, model)| Some((*id, model.as_ref()?)))
    }

    fn refuse_collisions(&self, problems: &mut Vec<Problem>) {
        let mut seen: Vec<(&CacheModel, Vec<KeyPattern>)> = Vec::new();
        for (_, model) in self.models() {
            let path = ConfigPath::root().child("caches").child(&*model.name).child("key");
            let patterns = patterns(model);
            if let [entries, generation] = patterns.as_slice()
                && entries.can_collide(generation)
            {
                let message = "an entry could have the same key as its scope's generation";
                let hint = "put a separator and the open-ended parameters behind {generation}";
                problems.push(Problem::new(path.clone(), message).hint(hint));
            }
            for (other, others) in &seen {
                if patterns.iter().any(|a| others.iter().any(|b| a.can_collide(b))) {
                    let message = format!(
                        "the caches {} ({}) and {} ({}) can have the same key",
                        other.name, other.template, model.name, model.template
                    );
                    let hint = format!(
                        "give each a prefix of its own, such as v1:{}: and v1:{}:",
                        other.name, model.name
                    );
                    problems.push(Problem::new(path.clone(), message).hint(hint));
                }
            }
            seen.push((model, patterns));
        }
    }
}

/// Every key of a cache: its entries', and its generations'.
fn patterns(model: &CacheModel) -> Vec<KeyPattern> {
    let escaped = |value: &String| {
        let mut text = Vec::new();
        escape_into(value.as_bytes(), &mut text);
        String::from_utf8_lossy(&text).into_owned()
    };
    let enumerated = model
        .enumerated
        .iter()
        .map(|(name, values)| (name.clone(), values.iter().map(escaped).collect()))
        .collect();
    [Some(&model.template), model.generation_key.as_ref()]
        .into_iter()
        .flatten()
        .map(|template| KeyPattern::new(template, &enumerated))
        .collect()
}

struct CacheCompiler<'a> {
    config: &'a Config,
    name: &'a str,
    cache: &'a Cache,
    path: ConfigPath,
    problems: &'a mut Vec<Problem>,
}

impl CacheCompiler<'_> {
    fn report(&mut self, problem: Problem, hint: impl Into<String>) {
        self.problems.push(problem.hint(hint));
    }

    fn compile(&mut self) -> Option<CacheModel> {
        let before = self.problems.len();
        self.check_name();
        let key = self.path.child("key");
        let template = match Template::parse(self.cache.key.as_deref().unwrap_or_default()) {
            Ok(template) => template,
            Err(error) => {
                let problem = Problem::new(key, error.message).within(error.span);
                self.report(problem, error.hint);
                return None;
            }
        };
        let key_prefix = &self.config.redis.key_prefix;
        let prefix = format!("{key_prefix}{}", template.prefix());
        if reaches_own_keys(&prefix) {
            let message =
                format!("keys that begin with {CONTROL_PREFIX} are the daemon's own state");
            self.report(Problem::new(key, message), "begin the key with another text");
        }
        let enumerated = self.enumerations(&template);
        self.check_scope(&template);
        let scoped = self.cache.scope.is_some();
        let generation_key = if scoped { template.generation_key() } else { None };
        let target = generation_key.as_ref().unwrap_or(&template);
        let open = |name: &str| !enumerated.contains_key(name);
        if KeyShape::new(key_prefix.as_bytes(), target, &enumerated, &open).is_none() {
            let message = format!("its enumerated parameters make more than {MAX_VARIANTS} keys");
            let place = self.path.child("parameters");
            let hint = "enumerate fewer values, or make it a scoped cache: scope = […] and \
                        {generation} in the key";
            self.report(Problem::new(place, message), hint);
        }
        (self.problems.len() == before).then(|| CacheModel {
            name: self.name.into(),
            scope: self.cache.scope.clone(),
            generation_key,
            enumerated,
            group: self.cache.group.as_deref().map(Into::into),
            priority: self.cache.priority,
            rewarm: self.cache.rewarm,
            ttl: self.cache.ttl.unwrap_or(self.config.redis.default_ttl).get(),
            max_staleness: self.max_staleness(),
            negative_ttl: self.cache.negative_ttl.map(|ttl| ttl.get()),
            max_value_bytes: self.cache.max_value_bytes,
            prefix: prefix.into_bytes().into(),
            key_prefix_length: key_prefix.len(),
            template,
        })
    }

    fn max_staleness(&self) -> Option<Duration> {
        match self.cache.on_change {
            OnChange::Drop => None,
            OnChange::Refresh => self.cache.max_staleness.map(Span::get),
        }
    }

    fn check_name(&mut self) {
        let (name, path) = (self.name, self.path.clone());
        if !is_parameter_name(name) {
            let message = format!("{name:?} is no name for a cache");
            let hint = "use lower-case letters, digits and _: commands and metrics name it";
            self.report(Problem::new(path.clone(), message).on_key(), hint);
        }
        let groups = self.config.caches.by_name.values().filter_map(|c| c.group.as_deref());
        if RESERVED_NAMES.into_iter().chain(groups).any(|taken| taken == name) {
            let message = format!("{name} already means several caches, in commands");
            self.report(Problem::new(path, message).on_key(), "give the cache another name");
        }
    }

    fn enumerations(&mut self, template: &Template) -> BTreeMap<String, Vec<String>> {
        let mut enumerated = BTreeMap::new();
        let cache = self.cache;
        for (name, values) in &cache.parameters {
            let path = self.path.child("parameters").child(name);
            if !template.parameters().any(|p| p == name) {
                let problem = no_such_parameter(path.clone(), name, template, template);
                self.problems.push(problem);
            } else if name == GENERATION {
                let message = "generation is random and cannot be enumerated";
                self.report(Problem::new(path.clone(), message).on_key(), "leave it out");
            }
            let texts: Vec<String> = values.iter().map(scalar).collect();
            if texts.is_empty() {
                let message = format!("the parameter {name} has no value");
                self.report(
                    Problem::new(path.clone(), message),
                    "list its values, or leave it out",
                );
            }
            let mut seen = BTreeSet::new();
            for (index, text) in texts.iter().enumerate() {
                if !seen.insert(text) {
                    let message = format!("{text} stands here a second time");
                    self.report(Problem::new(path.child(index), message), "leave it out");
                }
            }
            enumerated.insert(name.clone(), texts);
        }
        enumerated
    }

    fn check_scope(&mut self, template: &Template) {
        let parameters: Vec<&str> = template.parameters().collect();
        let generation = parameters.iter().position(|name| *name == GENERATION);
        let (key, path) = (self.path.child("key"), self.path.child("scope"));
        let (scope, before, behind) = match (self.cache.scope.as_ref(), generation) {
            (None, None) => return,
            (None, Some(_)) => {
                let message = "the key has {generation}, but the cache has no scope";
                let hint = "add scope = […] with the parameters before {generation}";
                return self.report(Problem::new(key, message), hint);
            }
            (Some(_), None) => {
                let message = "a scoped cache has {generation} in its key, behind its scope";
                let hint =
                    "write for example v1:search:{org_id}:{generation}:{q}, or leave out scope";
                return self.report(Problem::new(key, message), hint);
            }
            (Some(scope), Some(at)) => {
                let (before, behind) = parameters.split_at_checked(at).unwrap_or_default();
                (scope, before, behind)
            }
        };
        if behind.len() < 2 {
            let message = "nothing is behind {generation}: each scope would have one entry only";
            let hint =
                "put the open-ended parameters behind it, or leave out scope and {generation}";
            self.report(Problem::new(key, message), hint);
        }
        for (index, name) in scope.iter().enumerate() {
            let place = path.child(index);
            if scope.iter().take(index).any(|earlier| earlier == name) {
                let message = format!("{name} stands here a second time");
                self.report(Problem::new(place, message), "leave it out");
            } else if !parameters.contains(&name.as_str()) {
                let mut problem = no_such_parameter(place, name, template, template);
                problem.on = Default::default();
                self.problems.push(problem);
            } else if !before.contains(&name.as_str()) {
                let message = format!("{{{name}}} is not before {{generation}} in the key");
                let hint = "a scope's parameters stand before {generation}, the others behind it";
                self.report(Problem::new(place, message), hint);
            }
        }
        for name in before.iter().filter(|name| !scope.iter().any(|s| s == *name)) {
            let message =
                format!("{{{name}}} stands before {{generation}} but is not in the scope");
            let hint = format!("add \"{name}\" to the scope, or put it behind {{generation}}");
            self.report(Problem::new(path.clone(), message), hint);
        }
    }
}

/// A parameter that a key does not have. `all` is the template, `target` what may be given.
pub(super) fn no_such_parameter(
    path: ConfigPath,
    name: &str,
    all: &Template,
    target: &Template,
) -> Problem {
    let known: Vec<&str> = target.parameters().collect();
    let message = format!("the key {all} has no parameter {name} to give");
    let hint = match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean {near}?"),
        None if known.is_empty() => "it has no parameters at all".to_owned(),
        None => format!("its parameters are {}", known.join(", ")),
    };
    Problem::new(path, message).on_key().hint(hint)
}

pub(super) fn scalar(value: &Scalar) -> String {
    match value {
        Scalar::Number(number) => number.to_string(),
        Scalar::Text(text) => text.clone(),
    }
}
