//! What a look at the servers comes to.

use serde::Serialize;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Good to know.
    Note,
    /// It works, and could work better: more is dropped than need be, or a check could not
    /// be made.
    Warning,
    /// The daemon cannot run, the application's own statements fail, or something stale may
    /// stay in the cache.
    Problem,
}

/// Which part of the report a finding is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Section {
    /// The server, the role, the slot.
    Postgres,
    /// What the stream carries.
    Publication,
    /// Which old values it carries.
    ReplicaIdentity,
    /// What queries and lookups read, and which rules cover it.
    Dependencies,
    /// The replica that loads may read.
    Replica,
    /// Redis.
    Redis,
    /// What the read API says.
    Api,
}

impl Section {
    /// The heading of the part.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Section::Postgres => "Postgres",
            Section::Publication => "Publication",
            Section::ReplicaIdentity => "Replica identity",
            Section::Dependencies => "Dependencies",
            Section::Replica => "Replica",
            Section::Redis => "Redis",
            Section::Api => "Read API",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The part of the report.
    pub section: Section,
    /// How much it matters.
    pub level: Level,
    /// What was found, in one sentence without a full stop.
    pub message: String,
    /// `file:line:column`, if it is about the configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// What to do, where no SQL says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The statements that mend it, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sql: Vec<String>,
}

impl Finding {
    /// As it should be.
    #[must_use]
    pub fn ok(section: Section, message: impl Into<String>) -> Finding {
        Finding::new(section, Level::Ok, message)
    }

    /// Good to know.
    #[must_use]
    pub fn note(section: Section, message: impl Into<String>) -> Finding {
        Finding::new(section, Level::Note, message)
    }

    /// Works, and could work better.
    #[must_use]
    pub fn warning(section: Section, message: impl Into<String>) -> Finding {
        Finding::new(section, Level::Warning, message)
    }

    /// Must be mended.
    #[must_use]
    pub fn problem(section: Section, message: impl Into<String>) -> Finding {
        Finding::new(section, Level::Problem, message)
    }

    fn new(section: Section, level: Level, message: impl Into<String>) -> Finding {
        let message = message.into();
        Finding { section, level, message, place: None, hint: None, sql: Vec::new() }
    }

    /// Says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Finding {
        self.hint = Some(hint.into());
        self
    }

    /// Says where.
    #[must_use]
    pub fn at(mut self, place: Option<String>) -> Finding {
        self.place = place;
        self
    }

    /// Says which statements mend it.
    #[must_use]
    pub fn sql(mut self, sql: impl IntoIterator<Item = impl Into<String>>) -> Finding {
        self.sql.extend(sql.into_iter().map(Into::into));
        self
    }
}
