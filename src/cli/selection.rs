//! Which entries a command means: the arguments that several take.

use std::collections::BTreeSet;

use clap::builder::NonEmptyStringValueParser;

use super::Exit;
use super::output::error;
use crate::manage::selection::{Request, check_days};
use crate::mapping::Mapping;
use crate::mapping::model::CacheId;

/// Which entries are meant.
#[derive(Debug, clap::Args)]
pub(super) struct Which {
    /// all, strategic, api, user, another group, or a cache's name [default: all]
    #[arg(long, value_name = "TYPE", value_parser = NonEmptyStringValueParser::new())]
    cache_type: Option<String>,
    /// Only this organization, by its name or id
    #[arg(long, value_name = "NAME-or-ID", value_parser = NonEmptyStringValueParser::new())]
    organization: Option<String>,
    /// Only this user, by id
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    user_id: Option<String>,
    /// Only what is of so many days
    #[arg(long, value_name = "N")]
    days: Option<u32>,
}

impl Which {
    /// Whether anything but days was said.
    pub(super) fn says_whose(&self) -> bool {
        self.cache_type.is_some() || self.organization.is_some() || self.user_id.is_some()
    }

    /// The organization, as it was given.
    pub(super) fn organization(&self) -> Option<&str> {
        self.organization.as_deref()
    }

    /// What is meant, and of which caches.
    pub(super) fn request(&self, mapping: &Mapping) -> Result<(Request, BTreeSet<CacheId>), Exit> {
        let cache_type = self.cache_type.clone().unwrap_or_else(|| "all".to_owned());
        let wanted = mapping.select(&cache_type).map_err(|reason| {
            error(&format!("--cache-type: {reason}"));
            Exit::Usage
        })?;
        days(mapping, &wanted, self.days, true)?;
        let request = Request {
            cache_type,
            organization: self.organization.clone(),
            user: self.user_id.clone(),
            days: self.days,
        };
        Ok((request, wanted))
    }
}

/// Says what `--days` may be, if it is none of these.
pub(super) fn days(
    mapping: &Mapping,
    wanted: &BTreeSet<CacheId>,
    days: Option<u32>,
    scoped: bool,
) -> Result<(), Exit> {
    let known = days.map_or(Ok(()), |days| check_days(mapping, wanted, days, scoped));
    known.map_err(|reason| {
        error(&format!("--days: {reason}"));
        Exit::Usage
    })
}
