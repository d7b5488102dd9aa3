//! When it is quiet: every cached value against the database, every counter against the log.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use redis::AsyncCommands as _;

use crate::load::{MARK, MARKED};
use crate::stage::{Stage, default_configuration};
use crate::universe::{Place, Universe};

const PREFIX: &str = "prs_cache:1:";

/// What stands for a scope's generation among the values that could be.
const ANY_GENERATION: &str = "f00d";

/// Compares all that is cached. Nobody writes, and all is applied.
pub async fn compare(stage: &Stage) {
    let client = stage.world.postgres.client().await.unwrap();
    let loaded = default_configuration();
    let queries = unstale::config::queries(&loaded.config, loaded.source.base_dir()).unwrap();
    let universe = Universe::new(&loaded.config, &queries, &client).await;
    let mut expected: HashMap<String, String> = HashMap::new();
    let mut scopes = BTreeSet::new();
    for (Place { key, scope, .. }, value) in universe.compute(&client).await {
        scopes.extend(scope);
        expected.insert(key, value);
    }
    for row in client.query("select id, version from item", &[]).await.unwrap() {
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

/// What the daemon of the moment has counted, and what it has written into its log.
pub async fn audit(stage: &Stage) {
    let daemon = stage.daemon.lock().await;
    // Of one that has ended by itself enough is known.
    let Some((_, metrics)) = daemon.get("/metrics").await else { return };
    let log = daemon.log();
    let gaps = gaps(&log);
    let drops = count_by(&log, "dropping a whole cache", &["cache", "reason"]);
    let counted = [
        ("gaps", counters(&metrics, "unstale_gaps_total"), gaps),
        ("escalations", counters(&metrics, "unstale_escalations_total"), drops),
    ];
    let applied = log.lines().filter(|line| line.contains("applied transactions="));
    let applied: Vec<&str> = applied.collect();
    let sum = |field: &str| -> u64 {
        applied.iter().filter_map(|line| self::field(line, field)?.parse::<u64>().ok()).sum()
    };
    let total = |name: &str| counters(&metrics, name).values().sum::<u64>();
    let sums = [
        ("transactions", total("unstale_transactions_total"), sum("transactions")),
        ("invalidations", total("unstale_invalidations_total"), sum("keys")),
    ];
    // A mark is beside the protocol until its row changes, and that is what the daemon says.
    let stale = log.lines().filter(|line| line.contains("a cached value is stale"));
    let stale = stale.filter(|line| !field(line, "key").is_some_and(is_marked));
    let stale: Vec<String> =
        stale.map(|line| format!("by the daemon's own audit: {line}")).collect();
    stage.ledger.note(|tally| {
        for (what, counted, logged) in counted {
            if counted != logged {
                tally.other.push(format!("{what}: counted {counted:?}, logged {logged:?}"));
            }
        }
        for (what, counted, logged) in sums {
            if counted != logged {
                tally.other.push(format!("{what}: counted {counted}, logged {logged}"));
            }
        }
        tally.stale_stored.extend(stale);
    });
}

fn is_marked(key: &str) -> bool {
    let row = key.rsplit_once("v1:item:").and_then(|(_, row)| row.parse().ok());
    row.is_some_and(|row| MARKED.contains(&row))
}

/// How many gaps there were, by reason.
pub fn gaps(log: &str) -> BTreeMap<String, u64> {
    count_by(log, "gap: everything managed was dropped", &["reason"])
}

/// The counters of a family that are not zero, by the values of their labels.
fn counters(metrics: &str, family: &str) -> BTreeMap<String, u64> {
    metrics
        .lines()
        .filter_map(|line| {
            let rest = line.strip_prefix(family)?;
            let (labels, value) = rest.rsplit_once(' ')?;
            let mut values: Vec<&str> = labels.split('"').skip(1).step_by(2).collect();
            values.sort_unstable();
            Some((values.join(" "), value.parse().ok()?))
        })
        .filter(|(_, value)| *value > 0)
        .collect()
}

/// How many lines with this message there are, by the values of these fields.
fn count_by(log: &str, message: &str, fields: &[&str]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for line in log.lines().filter(|line| line.contains(message)) {
        let mut values: Vec<&str> = fields.iter().filter_map(|name| field(line, name)).collect();
        values.sort_unstable();
        *counts.entry(values.join(" ")).or_default() += 1;
    }
    counts
}

/// A field's value in a line of the log.
fn field<'l>(line: &'l str, name: &str) -> Option<&'l str> {
    let (_, rest) = line.split_once(&format!(" {name}="))?;
    let end = rest.find(' ').unwrap_or(rest.len());
    rest.get(..end).map(|value| value.trim_matches('"'))
}
