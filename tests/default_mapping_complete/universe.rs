//! Every value that could be cached, computed by the loaders that compute it for real.

use std::collections::BTreeMap;

use tokio_postgres::{Client, Statement};
use unstale::config::model::Config;
use unstale::mapping::escape::escape_into;

pub(crate) const ORGANIZATIONS: u64 = 6;
pub(crate) const USERS: u64 = 28;

/// The generation of every scope: a constant will do where a scope's entries are only
/// found while its generation is there.
const GENERATION: &str = "f00d";

/// What a key is looked up by: parameters, and the rows of all that there could be. More
/// than there are, so that those count too that nobody has or that come later.
fn space(parameter: &str) -> String {
    match parameter {
        "org_id" => format!("generate_series(1, {ORGANIZATIONS}) as org_id"),
        "user_id" => format!("generate_series(1, {USERS}) as user_id"),
        "days" => "unnest(array[7, 30, 90, 365]) as days".to_owned(),
        "type" => "unnest(array['overview', 'trends', 'sources', 'payments', 'clients']) as type"
            .to_owned(),
        "q" => "unnest(array['website', 'acme', '#1', 'dlid', '50% x:y']) as q".to_owned(),
        other => panic!("no values are known for {other}"),
    }
}

/// Where a value is in Redis, without the prefix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) cache: String,
    pub(crate) key: String,
    /// The generation without which nobody finds it.
    pub(crate) scope: Option<String>,
}

pub(crate) type Values = BTreeMap<Place, String>;

/// The loaders, prepared on one connection.
pub(crate) struct Universe {
    loaders: Vec<Loader>,
}

struct Loader {
    cache: String,
    template: String,
    parameters: Vec<String>,
    statement: Statement,
}

impl Universe {
    pub(crate) async fn new(
        config: &Config,
        queries: &BTreeMap<String, String>,
        client: &Client,
    ) -> Universe {
        let mut loaders = Vec::new();
        for (cache, settings) in &config.caches.by_name {
            // What is only composed is as fresh as its parts, each of which is here.
            let Some(key) = &settings.key else { continue };
            let parameters = parameters(key);
            let sql = for_every_key(&queries[cache], &parameters);
            let statement = client.prepare(&sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
            loaders.push(Loader {
                cache: cache.clone(),
                template: key.clone(),
                parameters,
                statement,
            });
        }
        Universe { loaders }
    }

    /// All values as the database is now. A loader that finds nothing makes a value of its
    /// own here, so that what comes into being must be dropped as well.
    pub(crate) async fn compute(&self, client: &Client) -> Values {
        let queries = self.loaders.iter().map(|loader| async {
            let rows = client.query(&loader.statement, &[]).await.expect("the loader runs");
            rows.into_iter().map(|row| loader.value(&row)).collect::<Vec<_>>()
        });
        futures_util::future::join_all(queries).await.into_iter().flatten().collect()
    }
}

impl Loader {
    fn value(&self, row: &tokio_postgres::Row) -> (Place, String) {
        let mut key = self.template.replace("{generation}", GENERATION);
        let mut scope = self.template.split_once("{generation}").map(|(scope, _)| scope.to_owned());
        for (index, parameter) in self.parameters.iter().enumerate() {
            let mut value = Vec::new();
            escape_into(row.get::<_, String>(index).as_bytes(), &mut value);
            let value = String::from_utf8(value).expect("escaped text is UTF-8");
            key = key.replace(&format!("{{{parameter}}}"), &value);
            scope = scope.map(|scope| scope.replace(&format!("{{{parameter}}}"), &value));
        }
        let scope = scope.map(|scope| scope + "generation");
        let value: Option<String> = row.get(self.parameters.len());
        (Place { cache: self.cache.clone(), key, scope }, value.unwrap_or_else(|| "absent".into()))
    }
}

fn parameters(template: &str) -> Vec<String> {
    let names = template.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    names.filter(|name| *name != "generation").map(ToOwned::to_owned).collect()
}

/// One statement for all keys of a cache, in place of one for each.
fn for_every_key(loader: &str, parameters: &[String]) -> String {
    let mut sql = loader.replace("$timezone", "'UTC'");
    for parameter in parameters {
        sql = sql.replace(&format!("${parameter}"), &format!("the_key.{parameter}"));
    }
    assert!(!sql.contains('$'), "a parameter is left: {sql}");
    let texts: Vec<String> = parameters.iter().map(|p| format!("the_key.{p}::text")).collect();
    let spaces: Vec<String> = parameters.iter().map(|p| space(p)).collect();
    let spaces: Vec<String> =
        spaces.iter().zip(parameters).map(|(s, p)| format!("(select {s}) as of_{p}")).collect();
    format!(
        "select {}, loaded.value::text from (select {} from {}) the_key left join lateral ({sql}) loaded on true",
        texts.join(", "),
        parameters.join(", "),
        spaces.join(", "),
    )
}
