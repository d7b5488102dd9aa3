//! The table of endpoints: what is served where, to whom, from which cache. Compiled from
//! `[[endpoints]]` and pure; an OpenAPI document can be made of it.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::HeaderValue;
use bytes::Bytes;

use super::identity::Identity;
use super::own::Own;
use super::parameters::{Parameter, Query, Values, decode};
use super::problem::Problem as Refusal;
use super::schemas::{Schemas, check};
use crate::config::duration::Span;
use crate::config::endpoints::{Endpoint as Written, Who};
use crate::config::model::Config;
use crate::config::problem::{ConfigPath, Problem, nearest};
use crate::mapping::Mapping;
use crate::mapping::model::{CacheId, CacheModel};
use crate::mapping::template::GENERATION;

/// The parameter of the identity cache.
pub const USER_ID: &str = "user_id";

/// All endpoints.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    endpoints: Vec<Endpoint>,
    /// What the values look like.
    pub schemas: Schemas,
    /// The cache that says who a user is; there is one unless all is for anyone.
    pub identity: Option<CacheId>,
}

/// One endpoint.
#[derive(Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The path as it was written: the label `endpoint` of the metrics.
    pub template: Box<str>,
    segments: Vec<Segment>,
    /// What is served.
    pub target: Target,
    /// The cache's name.
    pub cache: Box<str>,
    /// How long its entries live at most, in seconds.
    pub ttl: u64,
    /// For how long an older value is answered while the database does not answer.
    pub stale_if_error: Option<Duration>,
    /// Who may.
    pub who: Who,
    /// The parameters of the cache's key.
    pub parameters: Vec<Parameter>,
    /// The parameter that names the organization.
    pub organization: Box<str>,
    /// The parameter that names the user.
    pub user: Box<str>,
    /// What browsers may keep.
    pub cache_control: HeaderValue,
    /// The name of the value in the answer.
    pub envelope: Box<str>,
    /// Whether the daemon's live figures stand beside the value.
    pub live: bool,
    /// What it is, in a few words.
    pub summary: Option<Box<str>>,
    /// What a value looks like.
    pub example: Option<serde_json::Value>,
    /// What stands before the value in the answer.
    pub opening: Bytes,
    closings: [Bytes; 2],
}

/// What an endpoint serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// An entry of a cache.
    Entry(CacheId),
    /// What a composed cache joins; by its name.
    Composed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(Box<str>),
    Parameter(Box<str>),
}

/// An endpoint, and what its path says.
#[derive(Debug)]
pub struct Matched<'e, 'p> {
    /// It.
    pub endpoint: &'e Endpoint,
    /// Its number among all.
    pub number: usize,
    path: Vec<(&'e str, &'p str)>,
}

impl Endpoints {
    /// Compiles them.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn compile(
        config: &Config,
        mapping: &Mapping,
        schemas: &BTreeMap<String, serde_json::Value>,
    ) -> Result<Endpoints, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for (index, written) in config.endpoints.iter().enumerate() {
            let at = ConfigPath::root().child("endpoints").child(index);
            let mut compiler = Compiler { at, problems: &mut problems };
            let Some(endpoint) = compiler.endpoint(config, mapping, written) else { continue };
            if Own::find(&written.path).is_some() {
                let message = format!("{} is served by the daemon itself", written.path);
                compiler.add("path", message, "give it another path");
            }
            let is_same = |other: &Endpoint| alike(&other.segments, &endpoint.segments);
            if let Some(other) = endpoints.iter().find(|other| is_same(other)) {
                let message = format!("{} is served already, as {}", written.path, other.template);
                compiler.add("path", message, "give it a path of its own");
            }
            endpoints.push(endpoint);
        }
        for (name, schema) in schemas {
            if let Err(message) = check(schema) {
                let path = ConfigPath::from_iter(["caches", name, "schema"]);
                problems
                    .push(Problem::new(path, message).hint("see json-schema.org, draft 2020-12"));
            }
        }
        let identity = mapping.cache_by_name(&config.api.identity);
        let takes_user =
            identity.is_some_and(|(_, cache)| cache.template.parameters().eq([USER_ID]));
        if endpoints.iter().any(|endpoint| endpoint.who != Who::Anyone) && !takes_user {
            let path = ConfigPath::from_iter(["api", "identity"]);
            let message = format!(
                "{:?} is no cache whose key has the parameter {{{USER_ID}}} and no other",
                config.api.identity
            );
            problems.push(Problem::new(path, message).hint(
                "name the cache that says who a user is, such as [caches.identity] with key = \"v1:identity:{user_id}\"",
            ));
        }
        if identity.is_some_and(|(_, cache)| cache.max_staleness.is_some()) {
            let path = ConfigPath::from_iter(["caches", &config.api.identity, "on_change"]);
            let problem =
                Problem::new(path, "who a user is must not be served after it has changed");
            problems.push(
                problem.hint("leave out `on_change` here, or name another cache by api.identity"),
            );
        }
        let named = config.caches.by_name.get(&config.api.identity);
        if named.is_some_and(|cache| cache.stale_if_error.is_some()) {
            let path = ConfigPath::from_iter(["caches", &config.api.identity, "stale_if_error"]);
            let message = "who a user is must not be told by an old value: who was dismissed would keep his access just while nobody can look";
            problems.push(Problem::new(path, message).hint("leave out `stale_if_error` here"));
        }
        let identity = identity.map(|(id, _)| id);
        if !problems.is_empty() {
            return Err(problems);
        }
        let served = endpoints.iter().map(|endpoint| &*endpoint.cache);
        let schemas = Schemas::new(schemas, mapping, served);
        Ok(Endpoints { endpoints, schemas, identity })
    }

    /// In the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.iter()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// The endpoint of a path, with or without the slash at its end. Segments are compared
    /// as they were sent: `%2e`, `//` and other ways to spell a path lead nowhere.
    #[must_use]
    pub fn find<'p>(&self, path: &'p str) -> Option<Matched<'_, 'p>> {
        let path = path.strip_prefix('/')?;
        let path = path.strip_suffix('/').unwrap_or(path);
        self.endpoints.iter().enumerate().find_map(|(number, endpoint)| {
            let mut found = Vec::new();
            let mut rest = Some(path);
            for segment in &endpoint.segments {
                let after = match segment {
                    Segment::Literal(literal) => rest?.strip_prefix(&**literal)?,
                    Segment::Parameter(name) => {
                        let (raw, after) = rest?.split_at(rest?.find('/').unwrap_or(rest?.len()));
                        if raw.is_empty() {
                            return None;
                        }
                        found.push((&**name, raw));
                        after
                    }
                };
                rest = match after {
                    "" => None,
                    _ => Some(after.strip_prefix('/')?),
                };
            }
            rest.is_none().then_some(Matched { endpoint, number, path: found })
        })
    }
}

impl<'e> Matched<'e, '_> {
    /// The parameters of the request.
    ///
    /// # Errors
    /// What is answered instead.
    pub fn values(
        &self,
        query: &Query<'_>,
        identity: Option<&Identity>,
    ) -> Result<Values<'e>, Refusal> {
        let path = |name: &str| {
            let (_, raw) = self.path.iter().find(|(known, _)| *known == name)?;
            decode(raw, false).map(|text| text.into_owned())
        };
        let mut values = Values { values: Vec::new(), cached: true };
        for parameter in &self.endpoint.parameters {
            let value = parameter.value(path, query, identity)?;
            values.cached &= parameter.cached.as_ref().is_none_or(|cached| cached.contains(&value));
            values.values.push((&parameter.name, value));
        }
        Ok(values)
    }
}

impl Endpoint {
    /// What stands behind the value in the answer.
    #[must_use]
    pub fn closing(&self, cached: bool) -> &Bytes {
        let [loaded, hit] = &self.closings;
        if cached { hit } else { loaded }
    }
}

fn closing(cache: &str, ttl: u64, cached: bool) -> Bytes {
    let name = serde_json::Value::from(cache);
    format!(",\"cache_info\":{{\"cached\":{cached},\"cache_type\":{name},\"ttl\":{ttl}}}}}").into()
}

/// What a cache's name stands for.
struct Served<'m> {
    target: Target,
    parameters: Vec<&'m str>,
    ttl: u64,
    /// The caches that it is read from, each with the parameters that it fixes itself.
    caches: Vec<(&'m CacheModel, Vec<&'m str>)>,
}

impl<'m> Served<'m> {
    fn find(mapping: &'m Mapping, name: &str) -> Option<Served<'m>> {
        if let Some(composition) = mapping.composition(name) {
            let caches = composition.parts.iter().filter_map(|part| {
                let fixed = part.fixed.iter().map(|(name, _)| &**name).collect();
                Some((mapping.cache(part.cache)?, fixed))
            });
            return Some(Served {
                target: Target::Composed,
                parameters: composition.parameters.iter().map(|name| &**name).collect(),
                ttl: composition.ttl.as_secs(),
                caches: caches.collect(),
            });
        }
        let (id, cache) = mapping.cache_by_name(name)?;
        let parameters = cache.template.parameters().filter(|name| *name != GENERATION);
        Some(Served {
            target: Target::Entry(id),
            parameters: parameters.collect(),
            ttl: cache.ttl.as_secs(),
            caches: vec![(cache, Vec::new())],
        })
    }

    /// The values of a parameter that are cached, where not all are.
    fn enumerated(&self, name: &str) -> Option<&'m Vec<String>> {
        let open = self.caches.iter().filter(|(_, fixed)| !fixed.contains(&name));
        open.map(|(cache, _)| *cache).find_map(|cache| cache.enumerated.get(name))
    }
}

struct Compiler<'p> {
    at: ConfigPath,
    problems: &'p mut Vec<Problem>,
}

impl Compiler<'_> {
    fn add(&mut self, setting: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.problems.push(Problem::new(self.at.child(setting), message).hint(hint));
    }

    fn endpoint(
        &mut self,
        config: &Config,
        mapping: &Mapping,
        written: &Written,
    ) -> Option<Endpoint> {
        let segments = self.segments(&written.path);
        if written.envelope.is_empty() || written.envelope == "cache_info" {
            self.add("envelope", "the value needs a name of its own", "such as \"organization\"");
        }
        let cache_control = HeaderValue::from_str(&written.cache_control);
        if cache_control.is_err() {
            self.add("cache_control", "this is no header", "such as \"max-age=900, private\"");
        }
        let example = written.example.as_deref().and_then(|text| {
            serde_json::from_str(text)
                .map_err(|error| {
                    self.add(
                        "example",
                        format!("this is no JSON: {error}"),
                        "write a value as the cache holds it",
                    )
                })
                .ok()
        });
        let Some(served) = Served::find(mapping, &written.cache) else {
            let composed = mapping.compositions().iter().map(|composition| &*composition.name);
            let known = mapping.caches().map(|(_, cache)| &*cache.name).chain(composed);
            let known: Vec<&str> = known.collect();
            let near = nearest(&written.cache, known.iter().copied());
            let hint = match near {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("known: {}", known.join(", ")),
            };
            self.add("cache", format!("there is no cache {:?}", written.cache), hint);
            return None;
        };
        let has_query =
            config.caches.by_name.get(&written.cache).is_some_and(|c| c.query.is_some());
        if !has_query && matches!(served.target, Target::Entry(_)) {
            let message = format!("the cache {} has no query", written.cache);
            self.add("cache", message, format!("add `query = …` to [caches.{}]", written.cache));
        }
        let of_key = &served.parameters;
        let mut parameters = Vec::new();
        for (name, parameter) in &written.parameters {
            if !of_key.contains(&name.as_str()) {
                self.parameter(name, "", format!("the key of {} has no {{{name}}}", written.cache));
                continue;
            }
            match Parameter::compile(name, parameter, served.enumerated(name)) {
                Ok(parameter) => parameters.push(parameter),
                Err((setting, message)) => self.parameter(name, setting, message),
            }
        }
        for name in of_key.iter().filter(|name| !written.parameters.contains_key(**name)) {
            let message =
                format!("nothing says where {{{name}}} of the key of {} comes from", written.cache);
            self.add("parameters", message, format!("such as {name} = {{ query = \"{name}\" }}"));
        }
        let segments = segments?;
        self.sources(written, &parameters, &segments);
        Some(Endpoint {
            template: written.path.as_str().into(),
            segments,
            target: served.target,
            cache: written.cache.as_str().into(),
            ttl: served.ttl,
            stale_if_error: config
                .caches
                .by_name
                .get(&written.cache)
                .and_then(|cache| cache.stale_if_error)
                .map(Span::get),
            who: written.who,
            parameters,
            organization: written.organization.as_str().into(),
            user: written.user.as_str().into(),
            cache_control: cache_control.ok()?,
            envelope: written.envelope.as_str().into(),
            live: written.live,
            summary: written.summary.as_deref().map(Into::into),
            example,
            opening: format!("{{{}:", serde_json::Value::from(&*written.envelope)).into(),
            closings: [false, true].map(|cached| closing(&written.cache, served.ttl, cached)),
        })
    }

    fn segments(&mut self, path: &str) -> Option<Vec<Segment>> {
        let hint = "write it such as \"/api/cached/organizations/{id}/info/\"";
        let Some(inner) = path.strip_prefix('/') else {
            self.add("path", "the path does not begin with a slash", hint);
            return None;
        };
        let inner = inner.strip_suffix('/').unwrap_or(inner);
        let mut segments = Vec::new();
        for segment in inner.split('/') {
            let plain = |text: &str| {
                !text.is_empty()
                    && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
            };
            let name = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            match name {
                Some(name) if plain(name) => segments.push(Segment::Parameter(name.into())),
                None if plain(segment) && segment != "." && segment != ".." => {
                    segments.push(Segment::Literal(segment.into()));
                }
                _ => {
                    self.add("path", format!("{segment:?} is no part of a path"), hint);
                    return None;
                }
            }
        }
        Some(segments)
    }

    fn parameter(&mut self, name: &str, setting: &str, message: String) {
        let at = self.at.child("parameters").child(name);
        let at = if setting.is_empty() { at } else { at.child(setting) };
        let hint = "see EndpointParameter in config/unstale.schema.json for what is allowed";
        self.problems.push(Problem::new(at, message).hint(hint));
    }

    /// Whether each parameter comes from somewhere, and who may can be told.
    fn sources(&mut self, written: &Written, parameters: &[Parameter], segments: &[Segment]) {
        for parameter in parameters {
            let name = &parameter.name;
            let in_path = |path: &str| segments.contains(&Segment::Parameter(path.into()));
            match (&parameter.path, &parameter.query, parameter.identity, &parameter.constant) {
                (None, None, None, None) => {
                    let message = format!("nothing says where {name} comes from");
                    self.parameter(name, "", message);
                }
                (Some(path), None, None, None) if !in_path(path) => {
                    let message = format!("the path has no {{{path}}}");
                    self.parameter(name, "path", message);
                }
                (Some(_), None, None, None) | (None, _, _, None) | (None, None, None, Some(_)) => {}
                _ => {
                    let message = format!(
                        "{name} comes from several places; only query and identity go together"
                    );
                    self.parameter(name, "", message);
                }
            }
            if parameter.identity.is_some() && written.who == Who::Anyone {
                let message = format!("{name} is the user's, and who = \"anyone\" needs no user");
                self.parameter(name, "identity", message);
            }
        }
        for segment in segments {
            if let Segment::Parameter(name) = segment
                && !parameters.iter().any(|p| p.path.as_deref() == Some(&**name))
            {
                let hint = format!("such as org_id = {{ path = \"{name}\", type = \"integer\" }}");
                self.add("path", format!("no parameter comes from {{{name}}}"), hint);
            }
        }
        let names = |name: &str| parameters.iter().any(|parameter| *parameter.name == *name);
        if matches!(written.who, Who::Member | Who::Admin) && !names(&written.organization) {
            let message = format!(
                "whose {} may? No parameter is named {:?}",
                if written.who == Who::Admin { "administrators" } else { "members" },
                written.organization
            );
            self.add(
                "who",
                message,
                "name the parameter that is the organization: organization = \"…\"",
            );
        }
    }
}

/// Whether two paths are the same but for their parameters' names.
fn alike(one: &[Segment], other: &[Segment]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|pair| match pair {
            (Segment::Literal(one), Segment::Literal(other)) => one == other,
            (Segment::Parameter(_), Segment::Parameter(_)) => true,
            _ => false,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Layers, Loaded};

    const HEAD: &str = "[postgres]\nurl = \"postgres://h/d\"\n[redis]\nurl = \"redis://h\"\n\
         [caches.identity]\nkey = \"v1:identity:{user_id}\"\nquery = \"select 1\"\n\
         [caches.stats]\nkey = \"v1:stats:{org_id}:{days}\"\nquery = \"select 1\"\nparameters = { days = [7, 30] }\n";

    fn compile(endpoints: &str) -> Result<Endpoints, Vec<String>> {
        compile_below(HEAD, endpoints)
    }

    fn compile_below(head: &str, endpoints: &str) -> Result<Endpoints, Vec<String>> {
        let Loaded { config, .. } = Layers::text("t.toml", &format!("{head}{endpoints}"))
            .load()
            .map_err(|d| vec![d.to_string()])?;
        let mapping = Mapping::new(&config).unwrap();
        Endpoints::compile(&config, &mapping, &BTreeMap::new()).map_err(|problems| {
            problems.iter().map(|p| format!("{}: {}", p.path, p.message)).collect()
        })
    }

    const GOOD: &str = "[[endpoints]]\npath = \"/o/{id}/stats/\"\ncache = \"stats\"\nenvelope = \"statistics\"\nwho = \"member\"\n\
         [endpoints.parameters]\norg_id = { path = \"id\", type = \"integer\" }\n\
         days = { query = \"days\", type = \"integer\", default = 30, max = 365 }\n";

    #[test]
    fn a_path_is_found_with_and_without_its_slash_and_in_no_other_spelling() {
        let endpoints = compile(GOOD).unwrap();
        for (path, query, expected) in [
            ("/o/7/stats/", "", Some(("7", "30", true))),
            ("/o/7/stats", "days=7", Some(("7", "7", true))),
            ("/o/007/stats", "days=8", Some(("7", "8", false))),
            ("/o//stats/", "", None),
            ("//o/7/stats/", "", None),
            ("/o/7/stats//", "", None),
            ("/o/7/x/../stats/", "", None),
            ("/o/7/%73tats/", "", None),
            ("/O/7/stats/", "", None),
            ("/o/7/stats/more", "", None),
            ("/o/7", "", None),
            ("/", "", None),
            ("", "", None),
        ] {
            let found = endpoints.find(path).map(|matched| {
                let values = matched.values(&Query::parse(query), None).unwrap();
                (
                    values.get("org_id").unwrap().to_owned(),
                    values.get("days").unwrap().to_owned(),
                    values.cached,
                )
            });
            let expected =
                expected.map(|(org, days, cached)| (org.to_owned(), days.to_owned(), cached));
            assert_eq!(found, expected, "{path}?{query}");
        }
        for path in
            ["/o/x/stats/", "/o/7%2f8/stats/", "/o/%00/stats/", "/o/-7/stats/", "/o/7:30/stats/"]
        {
            let refused =
                endpoints.find(path).unwrap().values(&Query::default(), None).unwrap_err();
            assert_eq!(refused.status.as_u16(), 404, "{path}");
        }
    }

    #[test]
    fn the_value_stands_in_its_envelope_byte_by_byte() {
        let endpoints = compile(GOOD).unwrap();
        let endpoint = endpoints.iter().next().unwrap();
        let body = [&*endpoint.opening, b"{\"a\":1}", &**endpoint.closing(true)].concat();
        let expected =
            br#"{"statistics":{"a":1},"cache_info":{"cached":true,"cache_type":"stats","ttl":300}}"#;
        assert_eq!(body, expected);
    }

    #[test]
    fn what_cannot_be_served_is_refused_where_it_stands() {
        for (change, part) in [
            (("\"stats\"", "\"stat\""), "endpoints[0].cache: there is no cache"),
            (("/o/{id}/stats/", "o/{id}"), "endpoints[0].path: the path does not begin"),
            (("/o/{id}/stats/", "/o//{id}/"), "endpoints[0].path: \"\" is no part"),
            (("/o/{id}/stats/", "/o/{i d}/"), "endpoints[0].path"),
            (
                ("/o/{id}/stats/", "/o/{other}/"),
                "endpoints[0].parameters.org_id.path: the path has no {id}",
            ),
            (("path = \"id\", ", ""), "endpoints[0].parameters.org_id: nothing says where"),
            (("path = \"id\"", "path = \"id\", query = \"o\""), "org_id comes from several places"),
            (("org_id = {", "orgid = {"), "the key of stats has no {orgid}"),
            (("default = 30", "default = 400"), "endpoints[0].parameters.days.default"),
            (("envelope = \"statistics\"", "envelope = \"cache_info\""), "endpoints[0].envelope"),
            (("who = \"member\"", "who = \"member\"\norganization = \"o\""), "endpoints[0].who"),
            (("who = \"member\"", "example = \"{\""), "endpoints[0].example: this is no JSON"),
            (("/o/{id}/stats/", "/api/openapi.json"), "is served by the daemon itself"),
            (("who = \"member\"", "cache_control = \"a\\nb\""), "endpoints[0].cache_control"),
            (("[[endpoints]]", "[api]\nidentity = \"stats\"\n[[endpoints]]"), "api.identity"),
        ] {
            let problems = compile(&GOOD.replacen(change.0, change.1, 1)).unwrap_err();
            assert!(problems.iter().any(|p| p.contains(part)), "{change:?}: {problems:?}");
        }
        let stale = HEAD.replacen(
            "query",
            "rewarm = \"if_cached\"\non_change = \"refresh\"\nmax_staleness = \"1s\"\nquery",
            1,
        );
        let problems = compile_below(&stale, GOOD).unwrap_err();
        assert!(problems[0].contains("caches.identity.on_change"), "{problems:?}");
        let stale = HEAD.replacen("query", "stale_if_error = \"1m\"\nquery", 1);
        let problems = compile_below(&stale, GOOD).unwrap_err();
        assert!(problems[0].contains("caches.identity.stale_if_error"), "{problems:?}");
        let twice = format!("{GOOD}{}", GOOD.replace("{id}", "{o}").replace("\"id\"", "\"o\""));
        assert!(compile(&twice).unwrap_err().iter().any(|p| p.contains("is served already")));
    }
}
