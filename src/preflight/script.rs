//! The set-up as a script for `psql`, for whoever must not hand out the rights to run it.

use std::fmt::Write as _;

use super::facts::Facts;
use super::plan::Plan;
use super::step::{By, How, Step};
use crate::mapping::name::Quoted;

/// Writes the script. It may be run again: what is there already is left as it is.
#[must_use]
pub fn render(facts: &Facts, plan: &Plan) -> String {
    let mut script = String::new();
    let mut line = |text: &str| {
        // Writing to a String does not fail.
        _ = writeln!(script, "{text}");
    };
    line("-- Set-up for unstale, for psql. It may be run again.");
    line(&format!("-- Database: {}, daemon's role: {}", facts.database.name, facts.role.name));
    for by_hand in &plan.by_hand {
        line(&format!("-- By hand: {by_hand}"));
    }
    if plan.steps.is_empty() {
        line("-- Nothing is missing.");
        return script;
    }
    line("\\set ON_ERROR_STOP on");
    line("-- Nobody waits behind this script for longer than a moment.");
    line("SET statement_timeout = 0;");
    for step in &plan.steps {
        line("");
        line(&format!("-- {} ({})", step.why, whom(&step.by)));
        line(&statement(facts, step));
    }
    line("");
    line("-- The replication slot is not made here: it holds back WAL from its first moment on.");
    line("-- The daemon creates it when it starts.");
    script
}

fn whom(by: &By) -> String {
    match by {
        By::Superuser => "as a superuser".to_owned(),
        By::Owner(owner) => format!("as {owner}, or a superuser"),
        By::DatabaseOwner => "as the database's owner, or a superuser".to_owned(),
    }
}

fn statement(facts: &Facts, step: &Step) -> String {
    let publication = literal(&facts.publication_name);
    match &step.how {
        How::AtOnce if step.sql.starts_with("CREATE ROLE") => {
            only_if(
                &step.sql,
                &format!(
                    "NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {})",
                    literal(&facts.role.name)
                ),
            ) + &format!("\n-- Give it a password: \\password {}", Quoted(&facts.role.name))
        }
        How::AtOnce | How::First => format!("{};", step.sql),
        // Outside of any transaction; waits for open ones, and nobody waits for it.
        How::Concurrently { .. } => format!("SET lock_timeout = 0;\n{};", step.sql),
        How::Briefly { table } => format!(
            "SET lock_timeout = '100ms';\n\
             DO $unstale$\n\
             BEGIN\n  \
               FOR attempt IN 1..600 LOOP\n    \
                 BEGIN\n      \
                   {};\n      \
                   RETURN;\n    \
                 EXCEPTION WHEN lock_not_available THEN\n      \
                   PERFORM pg_sleep(1);\n    \
                 END;\n  \
               END LOOP;\n  \
               RAISE EXCEPTION '% is never free: end the transactions that hold it, and run this again', {};\n\
             END\n\
             $unstale$;",
            step.sql,
            literal(table)
        ),
        How::CreatePublication => only_if(
            &step.sql,
            &format!("NOT EXISTS (SELECT FROM pg_publication WHERE pubname = {publication})"),
        ),
        How::AddTable { schema, table } => only_if(
            &step.sql,
            &format!(
                "NOT EXISTS (SELECT FROM pg_publication_tables WHERE pubname = {publication} \
                 AND schemaname = {} AND tablename = {})",
                literal(schema),
                literal(table)
            ),
        ),
    }
}

/// psql runs what the query gives.
fn only_if(sql: &str, condition: &str) -> String {
    format!("SELECT {}\n WHERE {condition} \\gexec", literal(sql))
}

fn literal(text: &str) -> String {
    // A backslash is itself in a literal of the standard kind.
    format!("'{}'", text.replace('\'', "''"))
}
