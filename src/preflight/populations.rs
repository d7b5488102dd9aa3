//! Whether each `population` can be asked: what it is, what it returns, what it reads.
//!
//! No rule need cover what it reads: it only says which entries are worth filling.

use super::facts::Facts;
use super::finding::{Finding, Section};
use super::places::Places;
use crate::postgres::client::SqlClient;
use crate::postgres::error::PgError;
use crate::postgres::reads::{Reads, ReadsError, describe};
use crate::rules::Rules;
use crate::warm::population::Population;

const HERE: Section = Section::Dependencies;

/// What all of them read, and what is wrong with them.
pub async fn gather(
    client: &SqlClient,
    rules: &Rules,
    facts: &Facts,
    places: &Places<'_>,
) -> Result<(Vec<Reads>, Vec<Finding>), PgError> {
    let (mut reads, mut findings) = (Vec::new(), Vec::new());
    for (_, cache) in rules.mapping.caches() {
        let Some(text) = rules.populations.get(&*cache.name) else { continue };
        let at = |offset| places.in_population(&cache.name, text, offset);
        let population = match Population::new(cache, text) {
            Ok(population) => population,
            Err(error) => {
                findings.push(Finding::problem(HERE, error.to_string()).at(at(0)));
                continue;
            }
        };
        match describe(client, population.sql(), facts.own.temporary).await {
            Ok(described) => reads.push(described.reads),
            Err(ReadsError::Postgres(error)) => return Err(error),
            Err(ReadsError::Statement { message, hint, offset }) => {
                let message = format!("population of {}: {message}", cache.name);
                let place = at(population.original(offset.unwrap_or_default()));
                let hint = hint.unwrap_or_else(|| match population.columns() {
                    [] => "correct the query".to_owned(),
                    columns => format!("it returns {}, named so", columns.join(", ")),
                });
                findings.push(Finding::problem(HERE, message).at(place).hint(hint));
            }
        }
    }
    Ok((reads, findings))
}
