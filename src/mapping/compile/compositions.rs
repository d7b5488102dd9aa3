//! `[caches.*] compose`

use std::collections::BTreeSet;

use crate::config::model::{Cache, Config, Piece};
use crate::config::problem::{ConfigPath, Problem, nearest};

use super::super::composition::{Composition, Content, Member, Part};
use super::super::model::CacheModel;
use super::caches::{Caches, no_such_parameter, scalar};

/// All compositions, by name.
pub(super) fn compile(
    config: &Config,
    caches: &Caches<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<Composition> {
    let composed = config.caches.by_name.iter().filter(|(_, cache)| cache.compose.is_some());
    composed
        .filter_map(|(name, cache)| {
            let before = problems.len();
            let mut composer =
                Composer { config, caches, problems, parts: Vec::new(), around: Vec::new() };
            let members = composer.members(name, cache)?;
            let parts = composer.parts;
            let models = parts.iter().filter_map(|part| Some((part, caches.get(&part.name)?.1?)));
            let parameters: BTreeSet<Box<str>> = models
                .flat_map(|(part, model)| {
                    let fixed = |name: &str| part.fixed.iter().any(|(fixed, _)| &**fixed == name);
                    model.template.parameters().filter(move |name| !fixed(name)).map(Into::into)
                })
                .collect();
            let checker = Checker { name, cache, parameters: &parameters, parts: &parts, problems };
            checker.check(&members);
            (problems.len() == before).then(|| Composition {
                name: name.as_str().into(),
                group: cache.group.as_deref().map(Into::into),
                ttl: cache.ttl.unwrap_or(config.redis.default_ttl).get(),
                parameters,
                parts,
                members,
            })
        })
        .collect()
}

fn path_of(name: &str) -> ConfigPath {
    ConfigPath::from_iter(["caches", name, "compose"])
}

struct Composer<'a, 'c> {
    config: &'c Config,
    caches: &'a Caches<'c>,
    problems: &'a mut Vec<Problem>,
    parts: Vec<Part>,
    /// The compositions that are being read, from the outermost one.
    around: Vec<&'c str>,
}

impl<'c> Composer<'_, 'c> {
    fn report(&mut self, path: ConfigPath, message: impl Into<String>, hint: impl Into<String>) {
        // What stands in another composition is reported with that one.
        if self.around.len() == 1 {
            self.problems.push(Problem::new(path, message).hint(hint));
        }
    }

    /// `None` if it contains itself.
    fn members(&mut self, name: &'c str, cache: &'c Cache) -> Option<Vec<Member>> {
        if self.around.contains(&name) {
            return None;
        }
        self.around.push(name);
        let mut members = Vec::new();
        for (index, piece) in cache.compose.iter().flatten().enumerate() {
            let path = path_of(name).child(index);
            if let Some(mut more) = self.piece(name, piece, &path) {
                members.append(&mut more);
            }
        }
        self.around.pop();
        Some(members)
    }

    fn piece(&mut self, whole: &str, piece: &'c Piece, path: &ConfigPath) -> Option<Vec<Member>> {
        let content = match (&piece.cache, &piece.number, &piece.text) {
            (Some(cache), None, None) => return self.part(whole, cache, piece, path),
            (None, Some(name), None) => Content::Number(name.as_str().into()),
            (None, None, Some(name)) => Content::Text(name.as_str().into()),
            _ => {
                let hint = "such as { member = \"organization\", cache = \"org_data\" } or \
                            { member = \"user_id\", number = \"user_id\" }";
                self.report(path.clone(), "a piece is one of cache, number and text", hint);
                return None;
            }
        };
        for (setting, given) in
            [("pick", piece.pick.is_some()), ("parameters", !piece.parameters.is_empty())]
        {
            if given {
                let message = format!("`{setting}` is for a piece that is a cache's");
                self.report(path.child(setting), message, "leave it out");
            }
        }
        let Some(member) = &piece.member else {
            let hint = "add member = \"…\", the name under which it stands";
            self.report(path.clone(), "a parameter needs a name in the value", hint);
            return None;
        };
        Some(vec![Member::Named(member.as_str().into(), content)])
    }

    fn part(
        &mut self,
        whole: &str,
        cache: &'c str,
        piece: &'c Piece,
        path: &ConfigPath,
    ) -> Option<Vec<Member>> {
        let Some((cache, settings)) = self.config.caches.by_name.get_key_value(cache) else {
            let names = || self.config.caches.by_name.keys().map(String::as_str);
            let hint = match nearest(cache, names()) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("the caches are {}", names().collect::<Vec<_>>().join(", ")),
            };
            self.report(path.child("cache"), format!("there is no cache {cache}"), hint);
            return None;
        };
        // Its own entry, if it names itself and has one; else what the other composes.
        let composed = settings.compose.is_some() && (cache != whole || settings.key.is_none());
        if composed {
            return self.composition(cache, settings, piece, path);
        }
        // A cache that is wrong is reported where it stands.
        let (id, model) = self.caches.get(cache)?;
        let model = model?;
        if model.generation_key.is_some() {
            let hint = "only what is found by one key can be read together with the others";
            self.report(path.child("cache"), format!("{cache} is scoped: it is no part"), hint);
            return None;
        }
        let fixed = self.fixed(piece, model, path);
        let part = Part { cache: id, name: cache.as_str().into(), fixed };
        let part = match self.parts.iter().position(|known| *known == part) {
            Some(index) => index,
            None => {
                self.parts.push(part);
                self.parts.len() - 1
            }
        };
        match (&piece.member, &piece.pick) {
            (Some(name), None) => {
                Some(vec![Member::Named(name.as_str().into(), Content::Part(part))])
            }
            (name, Some(pick)) => {
                let name = name.as_ref().unwrap_or(pick).as_str().into();
                let content = Content::Picked { part, member: pick.as_str().into() };
                Some(vec![Member::Named(name, content)])
            }
            (None, None) => Some(vec![Member::All { part }]),
        }
    }

    fn composition(
        &mut self,
        cache: &'c str,
        settings: &'c Cache,
        piece: &Piece,
        path: &ConfigPath,
    ) -> Option<Vec<Member>> {
        for (setting, given) in
            [("pick", piece.pick.is_some()), ("parameters", !piece.parameters.is_empty())]
        {
            if given {
                let message = format!("{cache} is composed itself: `{setting}` is for an entry");
                self.report(path.child(setting), message, "name the parts that you mean here");
            }
        }
        let Some(members) = self.members(cache, settings) else {
            // Each of those in the circle tells of it; one that only leads there does not.
            if self.around.first() == Some(&cache) {
                let round = format!("{}, {cache}", self.around.join(", "));
                let message = format!("a value cannot hold itself: {round}");
                let hint = "leave it out; only a cache with a `key` has an own entry to name";
                self.problems.push(Problem::new(path.child("cache"), message).hint(hint));
            }
            return None;
        };
        Some(match &piece.member {
            Some(name) => vec![Member::Named(name.as_str().into(), Content::Object(members))],
            None => members,
        })
    }

    fn fixed(
        &mut self,
        piece: &Piece,
        model: &CacheModel,
        path: &ConfigPath,
    ) -> Vec<(Box<str>, String)> {
        let mut fixed = Vec::new();
        for (name, value) in &piece.parameters {
            let at = path.child("parameters").child(name);
            let value = scalar(value);
            if !model.template.parameters().any(|known| known == name) {
                if self.around.len() == 1 {
                    let problem = no_such_parameter(at, name, &model.template, &model.template);
                    self.problems.push(problem);
                }
            } else if let Some(values) = model.enumerated.get(name)
                && !values.contains(&value)
            {
                let message = format!("{value} is not among the values of {name}");
                let hint = format!("[caches.{}] has {}", model.name, values.join(", "));
                self.report(at, message, hint);
            }
            fixed.push((name.as_str().into(), value));
        }
        fixed
    }
}

/// Looks at a composition as a whole.
struct Checker<'a> {
    name: &'a str,
    cache: &'a Cache,
    parameters: &'a BTreeSet<Box<str>>,
    parts: &'a [Part],
    problems: &'a mut Vec<Problem>,
}

impl Checker<'_> {
    fn check(self, members: &[Member]) {
        let path = path_of(self.name);
        if self.cache.key.is_some() && !self.parts.iter().any(|part| &*part.name == self.name) {
            let name = self.name;
            let message = format!("the own entry of {name} is not among its parts");
            let hint = format!("add {{ cache = \"{name}\" }} to them, or leave out its `key`");
            self.problems.push(Problem::new(path.clone(), message).hint(hint));
        }
        let mut names = BTreeSet::new();
        for member in members {
            let Member::Named(name, content) = member else { continue };
            if !names.insert(name) {
                let message = format!("the member {name} stands here a second time");
                let hint = "give one of them another name, or leave it out";
                self.problems.push(Problem::new(path.clone(), message).hint(hint));
            }
            if let Content::Number(parameter) | Content::Text(parameter) = content
                && !self.parameters.contains(parameter)
            {
                let message = format!("no part has the parameter {parameter}");
                let known: Vec<&str> = self.parameters.iter().map(|name| &**name).collect();
                let hint = format!("the parameters of the parts are {}", known.join(", "));
                self.problems.push(Problem::new(path.clone(), message).hint(hint));
            }
        }
    }
}
