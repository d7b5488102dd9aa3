//! Which entries a cache should have: its `population`, a query of the configuration.
//!
//! It gives a row an entry, with columns named like the parameters of the cache's key. Those
//! that are enumerated are not asked for: each row stands for all of their values.

use futures_util::{TryStreamExt, pin_mut};
use tokio::sync::mpsc;
use tokio_postgres::types::ToSql;

use crate::loader::parameters::{ParameterError, Parametrized};
use crate::loader::text::Text;
use crate::mapping::model::CacheModel;
use crate::mapping::template::GENERATION;
use crate::postgres::client::SqlClient;
use crate::postgres::error::PgError;

/// Parameters of entries: names and values.
pub type Values = Vec<(String, String)>;

/// A population, ready to be asked.
#[derive(Debug)]
pub struct Population {
    sql: String,
    /// The configuration's text, and where it begins in `sql`.
    query: Parametrized,
    begins_at: usize,
    given: Vec<Given>,
    columns: Vec<String>,
    /// The values of the enumerated parameters, in all their combinations.
    variants: Vec<Values>,
}

#[derive(Debug, Clone, Copy)]
enum Given {
    Organization,
    Users,
    User,
}

/// Whose entries are meant.
#[derive(Debug, Clone, Copy, Default)]
pub struct Whose<'a> {
    /// One organization, by name or id; `None`: all that are active.
    pub organization: Option<&'a str>,
    /// How many users of each organization, at the most.
    pub users: u32,
    /// One user, by id; `None`: as many as `users` says.
    pub user: Option<&'a str>,
    /// Parameters that must have this value, in the keys that have them.
    pub only: &'a [(&'a str, &'a str)],
}

impl Whose<'_> {
    /// More users than any organization has, as an int of Postgres.
    pub const EVERYBODY: u32 = i32::MAX.unsigned_abs();

    fn means<'v>(&self, values: impl IntoIterator<Item = (&'v str, &'v str)>) -> bool {
        let is_other = |(name, found): (&str, &str)| {
            self.only.iter().any(|(known, value)| *known == name && *value != found)
        };
        !values.into_iter().any(is_other)
    }
}

/// Why a population cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum PopulationError {
    /// It is no query.
    #[error("the population of {cache}: {source}; {}", source.hint)]
    Query {
        /// The cache.
        cache: String,
        /// What is wrong with it.
        source: ParameterError,
    },
    /// It names a parameter that there is not.
    #[error(
        "the population of {cache} names ${parameter}: there are only $organization, $users and $user"
    )]
    Parameter {
        /// The cache.
        cache: String,
        /// The parameter.
        parameter: String,
    },
}

impl Population {
    /// Prepares the population of a cache.
    ///
    /// # Errors
    /// If it is no query, or names a parameter that there is not.
    pub fn new(cache: &CacheModel, text: &str) -> Result<Self, PopulationError> {
        let query = Parametrized::parse(text)
            .map_err(|source| PopulationError::Query { cache: cache.name.to_string(), source })?;
        let given = query.names.iter().map(|name| match name.as_str() {
            "organization" => Ok(Given::Organization),
            "users" => Ok(Given::Users),
            "user" => Ok(Given::User),
            other => Err(PopulationError::Parameter {
                cache: cache.name.to_string(),
                parameter: other.to_owned(),
            }),
        });
        let given = given.collect::<Result<_, _>>()?;
        let columns: Vec<String> = cache
            .template
            .parameters()
            .filter(|name| *name != GENERATION && !cache.enumerated.contains_key(*name))
            .map(str::to_owned)
            .collect();
        let wanted: String = columns.iter().map(|name| format!("\"{name}\"::text, ")).collect();
        // The line break ends a comment that the query may end with.
        let head = format!("select {wanted}true from (\n");
        let sql = format!("{head}{}\n) as population", query.sql);
        let begins_at = head.len();
        Ok(Population { sql, query, begins_at, given, columns, variants: variants(cache) })
    }

    /// The statement as it is run.
    #[must_use]
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// The byte of the configuration's text that stands at a byte of the statement: its
    /// first for what was put around it.
    #[must_use]
    pub fn original(&self, offset: usize) -> usize {
        let inside = offset.checked_sub(self.begins_at).filter(|at| *at <= self.query.sql.len());
        inside.map_or(0, |offset| self.query.original(offset))
    }

    /// Whether it can say which entries are those of one organization.
    #[must_use]
    pub fn names_organization(&self) -> bool {
        self.given.iter().any(|given| matches!(given, Given::Organization))
    }

    /// What its columns must be named.
    #[must_use]
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// All entries. They are read at once, however long what is done with them takes: a
    /// statement that waited for its reader would run into its timeout, and hold back vacuum.
    ///
    /// # Errors
    /// If the database does not answer, or refuses the query.
    pub async fn list(&self, client: &SqlClient, whose: Whose<'_>) -> Result<Entries<'_>, PgError> {
        let users = whose.users.to_string();
        let given: Vec<Option<Text<'_>>> = self
            .given
            .iter()
            .map(|given| match given {
                Given::Organization => whose.organization.map(Text),
                Given::Users => Some(Text(&users)),
                Given::User => whose.user.map(Text),
            })
            .collect();
        let statement = client.prepare(&self.sql).await?;
        let given = given.iter().map(|value| value as &(dyn ToSql + Sync));
        let rows = client.query_raw(&statement, given).await?;
        pin_mut!(rows);
        let variants = self.variants.iter().filter(|values| whose.means(pairs(values))).collect();
        let (text, ends) = (String::new(), Vec::new());
        let mut entries = Entries { of: self, variants, rows: 0, text, ends };
        'rows: while let Some(row) = rows.try_next().await? {
            let known = (entries.text.len(), entries.ends.len());
            for (at, name) in self.columns.iter().enumerate() {
                let value = row.try_get::<_, Option<&str>>(at)?;
                // A null parameter yields no key.
                let Some(value) = value.filter(|value| whose.means([(&**name, *value)])) else {
                    entries.text.truncate(known.0);
                    entries.ends.truncate(known.1);
                    continue 'rows;
                };
                entries.text.push_str(value);
                entries.ends.push(entries.text.len());
            }
            entries.rows += 1;
        }
        Ok(entries)
    }

    /// Hands out every entry; says how many there were, or ends when nobody listens any more.
    ///
    /// # Errors
    /// As [`Population::list`].
    pub async fn each<T>(
        &self,
        client: &SqlClient,
        whose: Whose<'_>,
        to: &mpsc::Sender<T>,
        entry: impl Fn(Values) -> T,
    ) -> Result<u64, PgError> {
        let entries = self.list(client, whose).await?;
        let mut handed_out = 0;
        for index in 0..entries.len() {
            let Some(values) = entries.get(index) else { continue };
            let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
            if to.send(entry(values.into_iter().map(owned).collect())).await.is_err() {
                break;
            }
            handed_out += 1;
        }
        Ok(handed_out)
    }
}

/// The entries of a population. Kept small: there may be millions.
#[derive(Debug)]
pub struct Entries<'a> {
    of: &'a Population,
    /// Those of the population's that are meant.
    variants: Vec<&'a Values>,
    rows: usize,
    /// The values of all rows, one after the other.
    text: String,
    /// Where each of them ends.
    ends: Vec<usize>,
}

impl Entries<'_> {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows * self.variants.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The parameters of one, with their names.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Vec<(&str, &str)>> {
        let row = index.checked_div(self.variants.len()).filter(|row| *row < self.rows)?;
        let variant = self.variants.get(index % self.variants.len())?;
        let columns = self.of.columns.len();
        let mut values = Vec::with_capacity(columns + variant.len());
        for (at, name) in self.of.columns.iter().enumerate() {
            let at = row * columns + at;
            let start = match at.checked_sub(1) {
                Some(before) => *self.ends.get(before)?,
                None => 0,
            };
            values.push((name.as_str(), self.text.get(start..*self.ends.get(at)?)?));
        }
        values.extend(pairs(variant));
        Some(values)
    }
}

fn pairs(values: &Values) -> impl Iterator<Item = (&str, &str)> {
    values.iter().map(|(name, value)| (name.as_str(), value.as_str()))
}

/// All combinations of the enumerated parameters' values; one empty one if there are none.
fn variants(cache: &CacheModel) -> Vec<Values> {
    let mut variants = vec![Values::new()];
    for (name, values) in &cache.enumerated {
        let longer = |variant: &Values| -> Vec<Values> {
            let with = |value: &String| {
                let mut variant = variant.clone();
                variant.push((name.clone(), value.clone()));
                variant
            };
            values.iter().map(with).collect()
        };
        variants = variants.iter().flat_map(longer).collect();
    }
    variants
}
