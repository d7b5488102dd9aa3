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

/// The parameters of one entry: names and values.
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
}

/// Whose entries are meant.
#[derive(Debug, Clone, Copy, Default)]
pub struct Whose<'a> {
    /// One organization, by name or id; `None`: all that are active.
    pub organization: Option<&'a str>,
    /// How many users of each organization, at the most.
    pub users: u32,
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
        "the population of {cache} names ${parameter}: there are only $organization and $users"
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

    /// What its columns must be named.
    #[must_use]
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Hands out every entry; says how many there were, or ends when nobody listens any more.
    ///
    /// # Errors
    /// If the database does not answer, or refuses the query.
    pub async fn each<T>(
        &self,
        client: &SqlClient,
        whose: Whose<'_>,
        to: &mpsc::Sender<T>,
        entry: impl Fn(Values) -> T,
    ) -> Result<u64, PgError> {
        let users = whose.users.to_string();
        let given: Vec<Option<Text<'_>>> = self
            .given
            .iter()
            .map(|given| match given {
                Given::Organization => whose.organization.map(Text),
                Given::Users => Some(Text(&users)),
            })
            .collect();
        let statement = client.prepare(&self.sql).await?;
        let given = given.iter().map(|value| value as &(dyn ToSql + Sync));
        let rows = client.query_raw(&statement, given).await?;
        pin_mut!(rows);
        let mut handed_out = 0;
        while let Some(row) = rows.try_next().await? {
            let mut values = Values::with_capacity(self.columns.len());
            for (at, name) in self.columns.iter().enumerate() {
                // A null parameter yields no key.
                if let Some(value) = row.try_get::<_, Option<String>>(at)? {
                    values.push((name.clone(), value));
                }
            }
            if values.len() < self.columns.len() {
                continue;
            }
            for variant in &self.variants {
                let values = values.iter().chain(variant).cloned().collect();
                if to.send(entry(values)).await.is_err() {
                    return Ok(handed_out);
                }
                handed_out += 1;
            }
        }
        Ok(handed_out)
    }
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
