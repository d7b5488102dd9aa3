//! `unstale tail` as its users drive it: what it prints, when it ends, what it refuses.

use std::collections::BTreeSet;
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use crate::rows::{HOLDERS, stderr};
use crate::support::{PATIENCE, World, until};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout};
use unstale::sandbox::{Postgres, Redis};

struct Tail {
    child: Child,
    stdout: Option<Lines<BufReader<ChildStdout>>>,
    _stderr: Lines<BufReader<ChildStderr>>,
}

impl Tail {
    /// Starts it and waits until it follows.
    async fn start(world: &World, arguments: &[&str]) -> Tail {
        let mut child = world
            .command("tail")
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("tail starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("stderr")).lines();
        loop {
            let line = stderr.next_line().await.expect("a line").expect("tail follows");
            if line.starts_with("following from LSN ") {
                break;
            }
        }
        let stdout = child.stdout.take().map(|stdout| BufReader::new(stdout).lines());
        Tail { child, stdout, _stderr: stderr }
    }

    async fn line(&mut self) -> Option<String> {
        let stdout = self.stdout.as_mut().expect("not closed");
        let line = tokio::time::timeout(PATIENCE, stdout.next_line()).await.expect("in time");
        line.expect("UTF-8")
    }

    async fn json(&mut self) -> Value {
        serde_json::from_str(&self.line().await.expect("a line")).expect("JSON")
    }

    async fn rest(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = self.line().await {
            lines.push(line);
        }
        lines
    }

    async fn ended(&mut self) -> ExitStatus {
        tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it ends").expect("a status")
    }
}

/// Runs it to its end.
async fn run(world: &World, arguments: &[&str]) -> Output {
    let output = world.command("tail").args(arguments).output();
    tokio::time::timeout(PATIENCE, output).await.expect("it ends").expect("it starts")
}

fn texts(line: &Value) -> BTreeSet<&str> {
    line["keys"].as_array().expect("keys").iter().map(|key| key.as_str().expect("text")).collect()
}

#[tokio::test]
async fn a_change_line_has_its_rows_keys_and_the_commit_line_what_only_queries_find() {
    let world = World::new().await;
    world.postgres.execute(HOLDERS).await.unwrap();
    let mut tail = Tail::start(&world, &["--json"]).await;
    world.postgres.execute("update permissions_role set name = 'boss' where id = 7").await.unwrap();
    let change = tail.json().await;
    assert_eq!(change["kind"], "change");
    assert_eq!(
        (&change["schema"], &change["table"]),
        (&"public".into(), &"permissions_role".into())
    );
    assert_eq!((&change["operation"], &change["key"]["id"]), (&"update".into(), &7.into()));
    assert_eq!(texts(&change), BTreeSet::from(["prs_cache:1:v1:role_info:1"]));
    let yields: BTreeSet<(&str, &str)> = change["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| (rule["cache"].as_str().unwrap(), rule["yields"].as_str().unwrap()))
        .collect();
    let expected = [
        ("role_info", "keys"),
        ("user_perms", "lookup"),
        ("identity", "lookup"),
        ("api_dashboard", "lookup"),
    ];
    assert_eq!(yields, BTreeSet::from(expected), "the rule for global roles does not apply");

    let commit = tail.json().await;
    assert_eq!((&commit["kind"], &commit["xid"]), (&"commit".into(), &change["xid"]));
    let found = [
        "prs_cache:1:v1:user_perms:1:1",
        "prs_cache:1:v1:user_perms:2:1",
        "prs_cache:1:v1:identity:1",
        "prs_cache:1:v1:identity:2",
        "prs_cache:1:v1:api_response:dashboard:1:1",
        "prs_cache:1:v1:api_response:dashboard:2:1",
    ];
    assert_eq!(texts(&commit), BTreeSet::from(found));

    // A TRUNCATE reaches whole caches: each rule says so, and the commit line once.
    world.postgres.execute("truncate clients_client cascade").await.unwrap();
    let tables = [tail.json().await, tail.json().await];
    assert!(tables.iter().all(|line| line["operation"] == "truncate" && line["key"].is_null()));
    let commit = tail.json().await;
    let whole: BTreeSet<&str> =
        commit["whole"].as_array().unwrap().iter().map(|w| w["cache"].as_str().unwrap()).collect();
    assert!(whole.contains("deal_stats") && whole.contains("org_data"), "{commit}");
}

#[tokio::test]
async fn text_lines_show_the_key_and_no_other_value() {
    let world = World::new().await;
    let mut tail = Tail::start(&world, &["--max", "4"]).await;
    world.postgres.execute(HOLDERS).await.unwrap();
    let lines = tail.rest().await;
    assert_eq!(lines.len(), 4, "{lines:?}");
    let user = &lines[2];
    assert!(user.contains(" insert authentication_user id=1 -> "), "{user}");
    assert!(user.contains(" prs_cache:1:v1:user_perms:1:1 "), "{user}");
    assert!(!lines.concat().contains("secret"), "{lines:?}");
    assert!(tail.ended().await.success(), "--max is a good end");
}

#[tokio::test]
async fn it_ends_at_a_position_once_everything_before_it_is_printed() {
    let world = World::new().await;
    let client = world.postgres.client().await.unwrap();
    let row = client.query_one("select (pg_current_wal_insert_lsn() + 20000)::text", &[]);
    let until: String = row.await.unwrap().get(0);
    let mut tail = Tail::start(&world, &["--json", "--until-lsn", &until]).await;
    let mut written = Vec::new();
    loop {
        let sql = "insert into organization_organization (name, is_active, created_at, updated_at)
                   values (gen_random_uuid()::text, true, now(), now()) returning id";
        let id: i64 = client.query_one(sql, &[]).await.unwrap().get(0);
        let past = format!("select pg_current_wal_flush_lsn() >= '{until}'::pg_lsn");
        if client.query_one(&past, &[]).await.unwrap().get(0) {
            break;
        }
        written.push(id);
    }
    let lines = tail.rest().await;
    let printed: Vec<i64> = lines
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["kind"] == "change")
        .map(|line| line["key"]["id"].as_i64().unwrap())
        .collect();
    assert!(printed.starts_with(&written), "{printed:?} lacks some of {written:?}");
    assert!(printed.len() <= written.len() + 1);
    assert!(tail.ended().await.success());
    // Also when nothing is written any more.
    let until = world.wal_end().await.to_string();
    let output = run(&world, &["--until-lsn", &until]).await;
    assert!(output.status.success() && output.stdout.is_empty(), "{}", stderr(&output));
}

#[tokio::test]
async fn only_the_tables_asked_for_are_printed() {
    let world = World::new().await;
    let table = ["--json", "--table", "Public.AUTHENTICATION_USER", "--max", "2"];
    let mut tail = Tail::start(&world, &table).await;
    world.postgres.execute(HOLDERS).await.unwrap();
    let lines = tail.rest().await;
    assert_eq!(lines.len(), 2);
    assert!(
        lines.iter().all(|line| line.contains("\"table\":\"authentication_user\"")),
        "{lines:?}"
    );
}

#[tokio::test]
async fn a_reader_that_goes_away_ends_it_though_nothing_changes_and_the_slot_goes_too() {
    let world = World::new().await;
    let mut tail = Tail::start(&world, &[]).await;
    assert_eq!(world.query_one("select count(*) from pg_replication_slots").await, "1");
    drop(tail.stdout.take());
    assert!(tail.ended().await.success(), "a closed pipe is a good end");
    until("the slot to be gone", async || {
        let slots = world.query_one("select count(*) from pg_replication_slots").await;
        (slots == "0").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_reader_that_pauses_costs_neither_the_connection_nor_a_line() {
    let postgres = Postgres::builder().setting("wal_sender_timeout", "2s").start().await.unwrap();
    let world = World::with(postgres, Redis::start().await.unwrap()).await;
    let mut tail = Tail::start(&world, &["--json", "--table", "clients_client"]).await;
    let fill = "insert into clients_client (client_name, organization_id, created_at, updated_at)
                select 'c', 1, now(), now() from generate_series(1, 20000)";
    let sql = format!("set session_replication_role = replica; {fill}");
    world.postgres.execute(&sql).await.unwrap();
    // Three times as long as the server waits for a sign of life.
    tokio::time::sleep(Duration::from_secs(6)).await;
    for id in 1..=20_000 {
        assert_eq!(tail.json().await["key"]["id"], id);
    }
    assert_eq!(tail.json().await["kind"], "commit");
    world.postgres.execute(&sql).await.unwrap();
    assert_eq!(tail.json().await["key"]["id"], 20_001, "it still follows");
}

#[tokio::test]
async fn what_cannot_be_followed_is_refused_with_what_to_do() {
    let mut world = World::new().await;
    world.postgres.execute("create table beside (id int primary key)").await.unwrap();
    let said = async |world: &World, arguments: &[&str], code: i32, part: &str| {
        let output = run(world, arguments).await;
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(part), "{said}");
        assert!(output.stdout.is_empty());
    };
    said(&world, &["--table", "a.b.c"], 2, "a table is named table or schema.table").await;
    said(&world, &["--until-lsn", "17"], 2, "16/B374D848").await;
    said(&world, &["--table", "deals_dael"], 2, "did you mean deals_deal?").await;
    said(&world, &["--table", "beside"], 78, "ALTER PUBLICATION unstale ADD TABLE beside").await;
    world.set("postgres.publication=nobodys");
    said(&world, &[], 78, "unstale setup").await;
    world.set("postgres.url=postgres://nobody@127.0.0.1:1/none");
    said(&world, &[], 69, "cannot connect").await;
}
