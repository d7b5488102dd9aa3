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
        Kind::Partitioned => partition_steps(facts, table),
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

/// What mends partitions.
///
/// The stream announces the identity of the root, and sends what the partition's own holds:
/// old values that the root promises and the partition lacks arrive as NULL, which no
/// consumer can tell from a value. A partition that is made later has the default identity.
/// So the root stays at its primary key, which every partition has, unless somebody has
/// decided otherwise: then every partition must follow.
fn partition_steps(facts: &Facts, root: &Table) -> Vec<Step> {
    let full = |table: &Table, why: &str| Step {
        why: format!("{}: {why}", table.name),
        sql: format!("ALTER TABLE {} REPLICA IDENTITY FULL", table.name.qualified()),
        how: How::Briefly { table: table.name.qualified() },
        by: By::Owner(table.owner.clone()),
    };
    let mut steps: Vec<Step> = facts
        .catalog
        .leaves(root)
        .filter(|leaf| falls_short(root, leaf))
        .map(|leaf| full(leaf, "must carry what the partitioned table promises"))
        .collect();
    if matches!(carried(root), Carried::Nothing(_)) && root.identity != ReplicaIdentity::Full {
        steps.push(full(root, "without a primary key, all columns are its identity"));
    }
    steps
}

/// Whether the partition carries less than the root's identity promises, or nothing.
fn falls_short(root: &Table, leaf: &Table) -> bool {
    let leaf = carried(leaf);
    match (carried(root), &leaf) {
        (_, Carried::Nothing(_)) => true,
        (Carried::All | Carried::Nothing(_), _) => leaf != Carried::All,
        (Carried::Columns(promised), _) => !promised.iter().all(|column| leaf.has(column)),
    }
}

fn partitioned(facts: &Facts, mapping: &Mapping, root: &Table) -> Vec<Finding> {
    let mut found = Vec::new();
    let steps = partition_steps(facts, root);
    if !steps.is_empty() {
        let short: Vec<String> = facts
            .catalog
            .leaves(root)
            .filter(|leaf| falls_short(root, leaf))
            .map(|leaf| leaf.name.to_string())
            .collect();
        let message = match short.is_empty() {
            true => format!("{} has no identity that its partitions could share", root.name),
            false => format!(
                "{} of {} carry fewer old values than it promises: they arrive as NULL, and what \
                 depended on them stays in the cache",
                short.join(", "),
                root.name
            ),
        };
        found.push(Finding::problem(HERE, message).sql(steps.into_iter().map(|step| step.sql)));
    }
    let needed = needed(mapping, root);
    let promised = carried(root);
    let missing: Vec<&String> = needed.keys().filter(|name| !promised.has(name)).collect();
    if promised == Carried::All {
        let message = format!(
            "{} is partitioned and has REPLICA IDENTITY FULL: give each new partition the same \
             before it is attached, or what depended on its old values stays in the cache",
            root.name
        );
        found.push(Finding::warning(HERE, message));
    } else if !missing.is_empty() && !matches!(promised, Carried::Nothing(_)) {
        let all = facts.catalog.leaves(root).chain([root]);
        let sql = all
            .map(|table| format!("ALTER TABLE {} REPLICA IDENTITY FULL", table.name.qualified()));
        let hint = "setup leaves this to you: if you run these, every later partition must get \
                    REPLICA IDENTITY FULL before it is attached";
        found.push(lacking(root, &needed, &missing).sql(sql).hint(hint));
    } else if found.is_empty() {
        found.push(Finding::ok(HERE, format!("{}: {}", root.name, described(root))));
    }
    let message = format!(
        "{} is partitioned: ATTACH and DETACH PARTITION, and DROP of a partition, carry no row changes",
        root.name
    );
    found.push(Finding::note(HERE, message).hint("after one of them drop its caches"));
    found
}
