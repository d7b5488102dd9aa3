//! The replica identity of each mapped table: what is found, and what mends it.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::Facts;
use super::finding::{Finding, Section};
use super::identity::{Carried, Choice, carried, choose, steps};
use super::step::{By, How, Step};
use crate::mapping::Mapping;
use crate::mapping::needs::Consequence;
use crate::pgoutput::message::ReplicaIdentity;
use crate::postgres::catalog::{Kind, Table};

const HERE: Section = Section::ReplicaIdentity;

/// The statements that give every mapped table the identity that its rules need.
#[must_use]
pub fn identity_steps(facts: &Facts, mapping: &Mapping) -> Vec<Step> {
    facts.tables().flat_map(|table| table_steps(facts, mapping, table)).collect()
}

/// What is found of every mapped table's identity.
#[must_use]
pub fn findings(facts: &Facts, mapping: &Mapping) -> Vec<Finding> {
    facts
        .tables()
        .flat_map(|table| match table.kind {
            Kind::Partitioned => partitioned(facts, mapping, table),
            _ => ordinary(facts, mapping, table),
        })
        .collect()
}

fn table_steps(facts: &Facts, mapping: &Mapping, table: &Table) -> Vec<Step> {
    match table.kind {
        Kind::Table => steps(table, &choice(facts, mapping, table)),
        Kind::Partitioned => partition_steps(facts, mapping, table),
        _ => Vec::new(),
    }
}

fn choice(facts: &Facts, mapping: &Mapping, table: &Table) -> Choice {
    let needed = needed(mapping, table);
    let names = needed.keys().map(String::as_str).collect();
    choose(table, &names, facts.database.character_bytes)
}

/// The old columns that the rules need, each with the caches that are dropped as a whole
/// while it is unknown.
fn needed(mapping: &Mapping, table: &Table) -> BTreeMap<String, BTreeSet<String>> {
    let needs = mapping.needed_old_columns(&table.name);
    let streamed = needs.into_iter().filter(|(name, _)| {
        // A generated column is not streamed at all; its rule says so by itself.
        table.column(name).is_some_and(|column| column.generated_from.is_none())
    });
    streamed
        .map(|(name, needs)| {
            let escalating = needs.iter().filter(|need| need.consequence == Consequence::Escalates);
            let caches = escalating
                .filter_map(|need| mapping.cache(mapping.rule(need.rule)?.cache))
                .map(|cache| cache.name.to_string());
            (name.to_string(), caches.collect())
        })
        .collect()
}

fn ordinary(facts: &Facts, mapping: &Mapping, table: &Table) -> Vec<Finding> {
    let steps = table_steps(facts, mapping, table);
    let sql = || steps.iter().map(|step| step.sql.clone());
    let carried = carried(table);
    if let Carried::Nothing(reason) = &carried {
        // That it is published makes it worse, and is told of all published tables.
        return vec![
            Finding::problem(HERE, format!("{reason}: no old value of it comes through"))
                .sql(sql()),
        ];
    }
    let needed = needed(mapping, table);
    let missing: Vec<&String> = needed.keys().filter(|name| !carried.has(name)).collect();
    if missing.is_empty() {
        let mut found = vec![Finding::ok(HERE, format!("{}: {}", table.name, described(table)))];
        if !steps.is_empty() {
            let message = format!("{} has an index of an earlier set-up", table.name);
            found.push(Finding::warning(HERE, message).sql(sql()));
        }
        return found;
    }
    vec![lacking(table, &needed, &missing).sql(sql())]
}

fn lacking(
    table: &Table,
    needed: &BTreeMap<String, BTreeSet<String>>,
    missing: &[&String],
) -> Finding {
    let names = |missing: &[&String]| {
        missing.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let dropped: BTreeSet<&str> =
        missing.iter().filter_map(|name| needed.get(*name)).flatten().map(String::as_str).collect();
    let lacks = format!("{}: changes carry no old value of {}", table.name, names(missing));
    if dropped.is_empty() {
        let message =
            format!("{lacks}: each UPDATE counts as a change of it, and drops more than it must");
        return Finding::warning(HERE, message);
    }
    let caches: Vec<&str> = dropped.into_iter().collect();
    let message = format!(
        "{lacks}: EACH UPDATE that a rule takes for a change, and each DELETE, drops ALL of {}",
        caches.join(", ")
    );
    Finding::warning(HERE, message)
}

fn described(table: &Table) -> String {
    match table.identity {
        ReplicaIdentity::Full => "all old values (FULL)".to_owned(),
        ReplicaIdentity::Index => match table.indexes.iter().find(|index| index.identity) {
            Some(index) => format!("the old values that are needed (index {})", index.name),
            None => "none".to_owned(),
        },
        ReplicaIdentity::Default => "the primary key is enough".to_owned(),
        ReplicaIdentity::Nothing => "none".to_owned(),
    }
}

/// What gives a partitioned table and its partitions one identity.
///
/// The stream announces the identity of the root, and sends what the partition's own holds;
/// where the two differ the daemon believes no old value of the table at all
/// ([`partitions`](crate::postgres::partitions)). A partition that is made later has the
/// default identity, and an index would have to be made for each: so it is the primary key
/// where that is enough, and FULL where it is not.
fn partition_steps(facts: &Facts, mapping: &Mapping, root: &Table) -> Vec<Step> {
    let needed = needed(mapping, root);
    let enough = |carried: &Carried<'_>| needed.keys().all(|column| carried.has(column));
    let promised = carried(root);
    let primary = Table { identity: ReplicaIdentity::Default, ..root.clone() };
    let wanted = match (&promised, root.identity) {
        (Carried::All, _) => ReplicaIdentity::Full,
        (Carried::Columns(_), ReplicaIdentity::Default) if enough(&promised) => {
            ReplicaIdentity::Default
        }
        _ if matches!(carried(&primary), Carried::Columns(_)) && enough(&carried(&primary)) => {
            ReplicaIdentity::Default
        }
        _ => ReplicaIdentity::Full,
    };
    let computed = facts.catalog.leaves(root).any(Table::has_computed);
    let (what, why) = match wanted {
        // The server would refuse the application's own statements.
        ReplicaIdentity::Full if computed => ("DEFAULT", "no generated column can be published"),
        ReplicaIdentity::Full => ("FULL", "the primary key is not enough"),
        _ => ("DEFAULT", "the primary key is enough"),
    };
    let wanted = if computed { ReplicaIdentity::Default } else { wanted };
    // The root last: until then the stream promises less.
    let all = facts.catalog.leaves(root).chain([root]);
    all.filter(|table| table.identity != wanted)
        .map(|table| Step {
            why: format!("{}: {why}", table.name),
            sql: format!("ALTER TABLE {} REPLICA IDENTITY {what}", table.name.qualified()),
            how: How::Briefly { table: table.name.qualified() },
            by: By::Owner(table.owner.clone()),
        })
        .collect()
}

fn partitioned(facts: &Facts, mapping: &Mapping, root: &Table) -> Vec<Finding> {
    let mut found = Vec::new();
    let steps = partition_steps(facts, mapping, root);
    let sql = || steps.iter().map(|step| step.sql.clone());
    let promised = carried(root);
    let differs: Vec<String> = facts
        .catalog
        .leaves(root)
        .filter(|leaf| carried(leaf) != promised)
        .map(|leaf| leaf.name.to_string())
        .collect();
    let needed = needed(mapping, root);
    let missing: Vec<&String> = needed.keys().filter(|name| !promised.has(name)).collect();
    if let Carried::Nothing(reason) = &promised {
        let message = format!("{reason}: no old value of it comes through");
        found.push(Finding::problem(HERE, message).sql(sql()));
    } else if !missing.is_empty() {
        found.push(lacking(root, &needed, &missing).sql(sql()));
    } else if !differs.is_empty() {
        let message = format!(
            "{} of the partitions of {} have another replica identity than it ({}): NO old value \
             of the table is believed",
            differs.len(),
            root.name,
            differs.join(", ")
        );
        found.push(Finding::warning(HERE, message).sql(sql()));
    } else {
        found.push(Finding::ok(HERE, format!("{}: {}", root.name, described(root))));
    }
    if root.identity == ReplicaIdentity::Full || !missing.is_empty() {
        let message = format!(
            "{} is partitioned: give each new partition REPLICA IDENTITY FULL before it is \
             attached, else everything is dropped once, and its old values are not believed",
            root.name
        );
        found.push(Finding::note(HERE, message));
    }
    let message = format!(
        "{} is partitioned: ATTACH and DETACH PARTITION, and DROP of a partition, carry no row \
         changes",
        root.name
    );
    found.push(Finding::note(HERE, message).hint("drop the caches of its rules after one of them"));
    found
}
