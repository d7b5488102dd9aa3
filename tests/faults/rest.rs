//! When it is quiet: every cached value against the database.

use std::collections::{BTreeSet, HashMap};

use redis::AsyncCommands as _;

use crate::load::MARK;
use crate::stage::{Stage, default_configuration};
use crate::universe::{Place, Universe};

const PREFIX: &str = "prs_cache:1:";

/// What stands for a scope's generation among the values that could be.
const ANY_GENERATION: &str = "f00d";

/// Compares all that is cached. Nobody writes, and all is applied.
pub async fn compare(stage: &Stage) {
    let client = stage.primary().client().await.unwrap();
    let loaded = default_configuration();
    let queries = unstale::config::queries(&loaded.config, loaded.source.base_dir()).unwrap();
    let universe = Universe::new(&loaded.config, &queries, &client).await;
    let mut expected: HashMap<String, String> = HashMap::new();
    let mut scopes = BTreeSet::new();
    for (Place { key, scope, .. }, value) in universe.compute(&client).await {
        scopes.extend(scope);
        expected.insert(key, value);
    }
    for row in client.query("select id, version::bigint from item", &[]).await.unwrap() {
        let (id, version): (i32, i64) = (row.get(0), row.get(1));
        expected.insert(format!("v1:item:{id}"), version.to_string());
    }
    let mut values = stage.world.values().await;
    let mut generations = BTreeSet::new();
    for scope in scopes {
        let key = format!("{PREFIX}{scope}");
        generations.extend(values.get::<_, Option<String>>(key).await.unwrap());
    }
    for key in stage.world.keys().await {
        let value: Option<String> = values.get(format!("{PREFIX}{key}")).await.unwrap();
        // It may have expired since.
        let Some(value) = value else { continue };
        let Some(known) = known_as(&key, &generations) else { continue };
        stage.ledger.count("compared");
        let now = expected.get(&known);
        if now == Some(&value) {
            continue;
        }
        let wrong = format!("{key} = {value}, and not {now:?}");
        stage.ledger.note(|tally| match value.as_str() {
            MARK => tally.lost.push(wrong),
            _ => tally.stale_stored.push(format!("at rest: {wrong}")),
        });
    }
}

/// The key with the generation that stands for any. `None`: it is a generation itself, or of
/// one that has passed, which nobody asks for.
fn known_as(key: &str, generations: &BTreeSet<String>) -> Option<String> {
    if key.ends_with(":generation") {
        return None;
    }
    let is_generation =
        |part: &&str| part.len() == 32 && part.bytes().all(|b| b.is_ascii_hexdigit());
    match key.split(':').find(is_generation) {
        None => Some(key.to_owned()),
        Some(one) => generations.contains(one).then(|| key.replace(one, ANY_GENERATION)),
    }
}
