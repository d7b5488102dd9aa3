//! What types cannot say: ranges, names, addresses.
//!
//! What the mapping means (which rule gives which parameter) is [`crate::mapping`]'s to
//! judge; what only a server can know (time zones, tables) is judged at `check`.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use secrecy::{ExposeSecret, SecretString};

use super::duration::Span;
use super::model::{
    Admin, Cache, Config, OnChange, Pipeline, Postgres, Redis, Rewarm, Rule, Schedule, Warm,
};
use super::problem::{ConfigPath, Problem, nearest};

/// Names that commands give to several caches at once.
const GROUPS: [&str; 2] = ["strategic", "api"];
/// Names that commands give to sets that are no group.
const SETS: [&str; 2] = ["all", "user"];

/// Everything that is out of range or badly named.
pub(super) fn config(config: &Config) -> Vec<Problem> {
    let mut checks = Checks { problems: Vec::new() };
    checks.span(
        ConfigPath::root().child("shadow_grace"),
        config.shadow_grace,
        Span::milliseconds(100)..=Span::seconds(600),
    );
    checks.postgres(&config.postgres);
    checks.redis(&config.redis);
    checks.pipeline(&config.pipeline);
    checks.warm(&config.warm);
    for (index, schedule) in config.schedule.iter().enumerate() {
        let path = ConfigPath::root().child("schedule").child(index);
        let before = config.schedule.iter().take(index);
        checks.schedule(config, schedule, before, &path);
    }
    let per_second = usize::try_from(config.audit.per_second).unwrap_or(usize::MAX);
    checks.number(ConfigPath::from_iter(["audit", "per_second"]), per_second, 0..=1000);
    checks.admin(&config.admin);
    checks.api(config, &config.api);
    checks.log_level(&config.log.level);
    let caches = &config.caches;
    for (key, text, example) in [
        ("timezone", &caches.timezone, "\"UTC\""),
        ("organization_parameter", &caches.organization_parameter, "\"org_id\""),
        ("user_parameter", &caches.user_parameter, "\"user_id\""),
    ] {
        checks.not_empty("caches", key, text, example);
    }
    for (name, cache) in &config.caches.by_name {
        checks.cache(config, name, cache);
    }
    for (index, table) in config.tables.iter().enumerate() {
        let path = ConfigPath::root().child("tables").child(index);
        if table.name.trim().is_empty() {
            let problem = Problem::new(path.child("name"), "the table's name is empty");
            checks
                .problems
                .push(problem.hint("write it as in SQL: \"deals_deal\" or \"schema.table\""));
        }
        for (index, rule) in table.invalidates.iter().enumerate() {
            checks.rule(rule, &path.child("invalidates").child(index));
        }
    }
    checks.problems
}

/// Collects what is wrong.
pub(super) struct Checks {
    problems: Vec<Problem>,
}

impl Checks {
    pub(super) fn add(
        &mut self,
        path: ConfigPath,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.problems.push(Problem::new(path, message).hint(hint));
    }

    fn admin(&mut self, admin: &Admin) {
        let of_name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        for (index, name) in admin.hosts.iter().enumerate() {
            if name.is_empty() || !name.chars().all(of_name) {
                self.add(
                    ConfigPath::from_iter(["admin", "hosts"]).child(index),
                    format!("{name:?} is not the name of a host"),
                    "write the name alone, such as \"unstale.internal\": no scheme, no port, no wildcard; IP addresses and localhost need not be listed",
                );
            }
        }
    }

    fn postgres(&mut self, postgres: &Postgres) {
        let at = |key: &str| ConfigPath::from_iter(["postgres", key]);
        let schemes = ["postgres://", "postgresql://"];
        self.url(at("url"), &postgres.url, &schemes);
        if let Some(replica) = &postgres.replica_url {
            self.url(at("replica_url"), replica, &schemes);
        }
        let longest = Span::seconds(10);
        self.span(at("replica_wait"), postgres.replica_wait, Span::seconds(0)..=longest);
        self.one_password("postgres", &postgres.password, postgres.password_file.is_some());
        let slot = &postgres.slot;
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if slot.is_empty() || slot.len() > 63 || !slot.bytes().all(plain) {
            self.add(
                at("slot"),
                format!("{slot:?} is no name for a replication slot"),
                "Postgres allows 1 to 63 lower case letters, digits and underscores",
            );
        }
        if postgres.publication.is_empty() || postgres.publication.len() > 63 {
            self.add(
                at("publication"),
                format!("{:?} is no name for a publication", postgres.publication),
                "Postgres allows 1 to 63 bytes",
            );
        }
        let hour = Span::seconds(3600);
        self.span(
            at("status_interval"),
            postgres.status_interval,
            Span::milliseconds(100)..=Span::seconds(60),
        );
        self.span(
            at("statement_timeout"),
            postgres.statement_timeout,
            Span::milliseconds(100)..=hour,
        );
        self.span(at("stream_timeout"), postgres.stream_timeout, Span::seconds(1)..=hour);
        if postgres.stream_timeout.get() < postgres.status_interval.get() * 2 {
            self.add(
                at("stream_timeout"),
                format!(
                    "{} is less than twice postgres.status_interval, {}",
                    postgres.stream_timeout, postgres.status_interval
                ),
                "the server is asked for a sign of life once in that interval: write more here, or less there",
            );
        }
        if postgres.heartbeat != Span::seconds(0) {
            self.span(at("heartbeat"), postgres.heartbeat, Span::milliseconds(100)..=hour);
        }
    }

    fn redis(&mut self, redis: &Redis) {
        let at = |key: &str| ConfigPath::from_iter(["redis", key]);
        self.url(at("url"), &redis.url, &["redis://", "rediss://", "unix://", "redis+unix://"]);
        self.one_password("redis", &redis.password, redis.password_file.is_some());
        self.span(at("timeout"), redis.timeout, Span::milliseconds(10)..=Span::seconds(300));
        self.ttl(at("default_ttl"), redis.default_ttl);
        self.number(at("max_connections"), redis.max_connections, 1..=10_000);
    }

    fn pipeline(&mut self, pipeline: &Pipeline) {
        let at = |key: &str| ConfigPath::from_iter(["pipeline", key]);
        let many = 10_000_000;
        self.number(at("max_keys_per_transaction"), pipeline.max_keys_per_transaction, 1..=many);
        self.number(at("max_keys_ahead"), pipeline.max_keys_ahead, 1..=many);
        self.number(at("max_keys_per_script"), pipeline.max_keys_per_script, 1..=5_000);
        self.number(at("remembered_drops"), pipeline.remembered_drops, 0..=many);
        self.span(at("max_lag"), pipeline.max_lag, Span::milliseconds(100)..=Span::seconds(86_400));
        self.span(
            at("drain_timeout"),
            pipeline.drain_timeout,
            Span::seconds(0)..=Span::seconds(3600),
        );
    }

    fn warm(&mut self, warm: &Warm) {
        let at = |key: &str| ConfigPath::from_iter(["warm", key]);
        self.number(at("concurrency"), warm.concurrency, 1..=100);
        self.number(at("max_queue"), warm.max_queue, 1..=10_000_000);
        self.number(at("users"), usize::try_from(warm.users).unwrap_or(usize::MAX), 0..=1_000_000);
    }

    fn schedule<'s>(
        &mut self,
        config: &Config,
        schedule: &Schedule,
        mut before: impl Iterator<Item = &'s Schedule>,
        path: &ConfigPath,
    ) {
        let task = schedule.task.as_str();
        if before.any(|other| other.name() == schedule.name()) {
            self.add(
                path.child("task"),
                format!("{} is scheduled twice", schedule.name()),
                "take one of them out, or give them other caches or organizations",
            );
        }
        if !schedule.task.is_about_caches() {
            let about_all = "leave it out, or write task = \"warm\" or task = \"invalidate\"";
            if schedule.cache_type != "all" {
                let message = format!("`{task}` is about all caches");
                self.add(path.child("cache_type"), message, about_all);
            }
            if schedule.organization.is_some() {
                let message = format!("`{task}` is about all organizations");
                self.add(path.child("organization"), message, about_all);
            }
        }
        let year = Span::seconds(365 * 86_400);
        self.span(path.child("every"), schedule.every, Span::seconds(1)..=year);
        let caches = &config.caches.by_name;
        let groups = caches.values().filter_map(|cache| cache.group.as_deref());
        let known: BTreeSet<&str> =
            caches.keys().map(String::as_str).chain(groups).chain(SETS).collect();
        let named = schedule.cache_type.as_str();
        if !known.contains(named) {
            let near = nearest(named, known.iter().copied());
            let near = near.map(|near| format!("did you mean \"{near}\"? ")).unwrap_or_default();
            let all: Vec<&str> = known.into_iter().collect();
            self.add(
                path.child("cache_type"),
                format!("{named:?} is no cache and no group"),
                format!("{near}known here: {}", all.join(", ")),
            );
        }
    }

    fn log_level(&mut self, level: &str) {
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        let path = ConfigPath::from_iter(["log", "level"]);
        // A bare word that is no level would be taken for the name of a module.
        let bare = level.split(',').map(str::trim).find(|part| {
            !part.contains(['=', ':', '[']) && !LEVELS.contains(&part.to_lowercase().as_str())
        });
        let hint = "write error, warn, info, debug, trace or off, or a filter such as \"info,unstale::pipeline=debug\"";
        if let Some(word) = bare {
            let near = nearest(word, LEVELS).map(|near| format!("did you mean \"{near}\"? "));
            self.add(path, format!("{word:?} is not a level"), near.unwrap_or_default() + hint);
        } else if let Err(error) = level.parse::<tracing_subscriber::filter::Targets>() {
            self.add(path, format!("{level:?} is not a filter: {error}"), hint);
        }
    }

    fn cache(&mut self, config: &Config, name: &str, cache: &Cache) {
        let path = ConfigPath::from_iter(["caches", name]);
        self.cache_name(config, name, &path);
        match cache.key {
            None => self.composed(cache, &path),
            Some(_) => {
                self.on_change(cache, cache.ttl.unwrap_or(config.redis.default_ttl), &path);
            }
        }
        if cache.key.as_deref().is_some_and(str::is_empty) {
            self.add(
                path.child("key"),
                "the cache's key is empty",
                "write a template such as \"v1:org:data:{org_id}\"",
            );
        }
        if let Some(group) = cache.group.as_deref()
            && (group.is_empty() || SETS.contains(&group))
        {
            self.add(
                path.child("group"),
                format!("{group:?} is no name for a group"),
                "commands use \"all\" and \"user\" for sets of their own: take another name",
            );
        }
        if let Some(ttl) = cache.ttl {
            self.ttl(path.child("ttl"), ttl);
        }
        if let Some(ttl) = cache.negative_ttl {
            self.ttl(path.child("negative_ttl"), ttl);
        }
        if let Some(stale) = cache.stale_if_error {
            let path = path.child("stale_if_error");
            self.span(path, stale, Span::seconds(1)..=Span::seconds(86_400));
        }
        if cache.max_value_bytes == Some(0) {
            self.add(
                path.child("max_value_bytes"),
                "no value is that small",
                "write a number of bytes, such as 1048576, or leave it out: then there is no limit",
            );
        }
        if cache.compose.as_ref().is_some_and(Vec::is_empty) {
            self.add(
                path.child("compose"),
                "the value is composed of nothing",
                "name the parts, such as compose = [{ member = \"organization\", cache = \"org_data\" }], or leave `compose` out",
            );
        }
        for (parameter, values) in &cache.parameters {
            let at = path.child("parameters").child(parameter);
            if values.is_empty() {
                self.add(
                    at,
                    format!("`{parameter}` has no values"),
                    "list them all, such as days = [7, 30, 90, 365], or leave the parameter out",
                );
            } else if let Some(index) = (1..values.len())
                .find(|i| values.iter().take(*i).any(|v| Some(v) == values.get(*i)))
            {
                self.add(
                    at.child(index),
                    format!("`{parameter}` has this value twice"),
                    "take one of them out",
                );
            }
        }
        if let Some(scope) = &cache.scope {
            let mut seen = BTreeSet::new();
            let twice = scope.iter().position(|parameter| !seen.insert(parameter));
            if scope.is_empty() {
                self.add(path.child("scope"), "the scope has no parameters", "name those that the rules give, such as scope = [\"org_id\"], or leave scope out");
            } else if let Some(index) = twice {
                self.add(
                    path.child("scope").child(index),
                    "the scope has this parameter twice",
                    "take one of them out",
                );
            }
        }
    }

    fn on_change(&mut self, cache: &Cache, ttl: Span, path: &ConfigPath) {
        let at = path.child("max_staleness");
        match (cache.on_change, cache.max_staleness) {
            (OnChange::Drop, None) => {}
            (OnChange::Drop, Some(_)) => self.add(
                at,
                "nothing of this cache is ever stale: a change drops it",
                "leave max_staleness out, or write on_change = \"refresh\"",
            ),
            (OnChange::Refresh, None) => self.add(
                path.child("on_change"),
                "nothing says how long an old value may stay",
                "add for example max_staleness = \"1s\", or leave on_change out: a change then drops the entry",
            ),
            (OnChange::Refresh, Some(span)) => {
                let hour = Span::seconds(3600);
                self.span(at.clone(), span, Span::milliseconds(50)..=hour);
                if span >= ttl {
                    self.add(
                        at,
                        format!("{span} is no less than the time to live, {ttl}"),
                        "every entry would end by itself before it had to be refreshed: write less",
                    );
                }
            }
        }
        if cache.on_change == OnChange::Drop {
            return;
        }
        if cache.rewarm == Rewarm::Never {
            self.add(
                path.child("on_change"),
                "with rewarm = \"never\" nobody would refresh it",
                "add rewarm = \"if_cached\"",
            );
        }
        if cache.scope.is_some() {
            self.add(
                path.child("on_change"),
                "a scoped cache cannot be refreshed: nobody can list the entries of a scope",
                "leave on_change out: a change then drops the scope",
            );
        }
    }

    /// Without a key there are no entries: what is about entries says nothing.
    fn composed(&mut self, cache: &Cache, path: &ConfigPath) {
        let of_entries = [
            ("query", cache.query.is_some()),
            ("population", cache.population.is_some()),
            ("parameters", !cache.parameters.is_empty()),
            ("scope", cache.scope.is_some()),
            ("rewarm", cache.rewarm != Rewarm::Never),
            ("negative_ttl", cache.negative_ttl.is_some()),
            ("max_value_bytes", cache.max_value_bytes.is_some()),
            ("on_change", cache.on_change != OnChange::Drop),
            ("max_staleness", cache.max_staleness.is_some()),
        ];
        for (setting, _) in of_entries.into_iter().filter(|(_, given)| *given) {
            let problem = Problem::new(
                path.child(setting),
                format!(
                    "a composed cache without a `key` has no entries of its own, so `{setting}` says nothing"
                ),
            );
            let hint =
                format!("write `{setting}` at its parts, or give it a `key` for a part of its own");
            self.problems.push(problem.on_key().hint(hint));
        }
    }

    /// Commands, metrics and paths of the read API name a cache.
    fn cache_name(&mut self, config: &Config, name: &str, path: &ConfigPath) {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        let used = config.caches.by_name.values().any(|cache| cache.group.as_deref() == Some(name));
        let mut problem = |message: String, hint: &str| {
            self.problems.push(Problem::new(path.clone(), message).hint(hint).on_key());
        };
        if name.is_empty() || !name.bytes().all(plain) {
            problem(
                format!("{name:?} is no name for a cache"),
                "use letters, digits, underscores and dashes: commands and metrics name it",
            );
        } else if GROUPS.contains(&name) || SETS.contains(&name) || used {
            problem(
                format!("`{name}` names several caches in commands, so it cannot name one"),
                "take another name",
            );
        }
    }

    fn rule(&mut self, rule: &Rule, path: &ConfigPath) {
        if rule.on.as_ref().is_some_and(Vec::is_empty) {
            self.add(path.child("on"), "the rule is for no operation", "name some, such as on = [\"insert\", \"delete\"], or leave `on` out: then it is for all");
        }
        if rule.columns.as_ref().is_some_and(Vec::is_empty) {
            self.add(
                path.child("columns"),
                "no column is named, so no UPDATE would count",
                "name the columns that matter, or write on = [\"insert\", \"delete\"] if none does",
            );
        }
        let texts = [("where", rule.condition.as_ref()), ("via", rule.via.as_ref())];
        for (key, text) in texts {
            if text.is_some_and(|text| text.trim().is_empty()) {
                self.add(
                    path.child(key),
                    format!("`{key}` is empty"),
                    format!("write it, or leave `{key}` out"),
                );
            }
        }
    }

    fn url(&mut self, path: ConfigPath, url: &SecretString, schemes: &[&str]) {
        let url = url.expose_secret();
        if !schemes.iter().any(|scheme| url.starts_with(scheme)) {
            let all = schemes.join(", ");
            // The URL itself may hold a password: it is not repeated.
            self.add(
                path,
                "the URL does not begin with a scheme that is known here".to_owned(),
                format!("it begins with one of {all}"),
            );
        }
    }

    fn one_password(&mut self, section: &str, password: &Option<SecretString>, file: bool) {
        if password.is_some() && file {
            self.add(
                ConfigPath::from_iter([section, "password_file"]),
                "there are two passwords: `password` and `password_file`",
                "keep one of them",
            );
        }
    }

    fn not_empty(&mut self, section: &str, key: &str, text: &str, example: &str) {
        if text.trim().is_empty() {
            self.add(
                ConfigPath::from_iter([section, key]),
                format!("`{key}` is empty"),
                format!("write for example {example}"),
            );
        }
    }

    fn ttl(&mut self, path: ConfigPath, ttl: Span) {
        self.span(path, ttl, Span::seconds(1)..=Span::seconds(366 * 86_400));
    }

    pub(super) fn span(&mut self, path: ConfigPath, span: Span, allowed: RangeInclusive<Span>) {
        if !allowed.contains(&span) {
            let message = format!("{span} is out of range");
            self.add(
                path,
                message,
                format!("from {} to {} is allowed", allowed.start(), allowed.end()),
            );
        }
    }

    pub(super) fn number(
        &mut self,
        path: ConfigPath,
        number: usize,
        allowed: RangeInclusive<usize>,
    ) {
        if !allowed.contains(&number) {
            let message = format!("{number} is out of range");
            self.add(
                path,
                message,
                format!("from {} to {} is allowed", allowed.start(), allowed.end()),
            );
        }
    }
}
