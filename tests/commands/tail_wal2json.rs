//! `unstale tail --json` agrees with wal2json, which somebody else wrote, on what changed.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use crate::support::{PATIENCE, World, root};
use bytes::Bytes;
use futures_util::SinkExt;
use serde_json::{Map, Value};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use unstale::sandbox::{Postgres, Redis};

/// One change, as both tell it.
#[derive(Debug, Clone, PartialEq)]
struct Change {
    schema: String,
    table: String,
    operation: String,
    key: Value,
    new_key: Option<Value>,
}

/// The transactions in the order of their commits.
type Transactions = Vec<(u64, Vec<Change>)>;

/// Which columns tail shows as a row's key, written by hand.
fn key_columns(schema: &str, table: &str) -> &'static [&'static str] {
    match (schema, table) {
        ("Odd Schema", "Order \"Items\"") => &["Tenant", "Line No", "at", "open"],
        // FULL, or DEFAULT, without a primary key: nothing names the row.
        ("odd", "notes" | "log") => &[],
        // An index that lacks the primary key: an old row has nothing else.
        ("public", "permissions_role_permissions") => &["role_id", "permission_id"],
        _ => &["id"],
    }
}

const ODD_TABLES: &str = r#"
create schema "Odd Schema";
create schema odd;
create type odd.mood as enum ('fine', 'so so');
create domain odd.tenant as integer;
create table "Odd Schema"."Order ""Items""" (
    "Tenant" odd.tenant, "Line No" numeric(12, 3), at timestamptz, open boolean,
    mood odd.mood, remarks text, double numeric generated always as ("Line No" * 2) stored,
    primary key ("Line No", at, "Tenant", open));
create table odd.notes (a text, b integer);
create table odd.log (a text);
create table odd.floats (id double precision primary key, big text);
alter table odd.floats alter column big set storage external;
alter table odd.notes replica identity full;
alter table odd.floats replica identity full;
alter table authentication_user replica identity full;
alter table permissions_role_permissions
    replica identity using index permissions_role_permissions_role_id_permission_id_uniq;
create publication unstale for all tables with (publish_via_partition_root = true);
"#;

/// One statement of the workload.
fn statement(rng: &mut fastrand::Rng) -> String {
    let n = rng.u32(1..=30);
    let some = |table: &str, key: &str| {
        format!("({key}) in (select {key} from {table} order by random() limit {n})")
    };
    let deals = some("deals_deal", "id");
    let users = some("authentication_user", "id");
    let links = some("permissions_role_permissions", "id");
    let floats = some("odd.floats", "id");
    let items = some(r#""Odd Schema"."Order ""Items""""#, r#""Tenant", "Line No", at, open"#);
    match rng.u32(..100) {
        0..14 => format!(
            "insert into deals_deal select gen_random_uuid(), gen_random_uuid()::text, i, i, null, 'd', i, 'USD',
             'pending', 'x', 'bank', 'google', current_date, null, repeat('r', 3000), now(), now() from generate_series(1, {n}) i"
        ),
        14..24 => format!("update deals_deal set deal_value = deal_value + 1 where {deals}"),
        24..29 => format!("update deals_deal set id = gen_random_uuid() where {deals}"),
        29..34 => format!("delete from deals_deal where {deals}"),
        34..44 => format!(
            "insert into authentication_user (password, is_superuser, email, first_name, last_name, is_active, date_joined, organization_id)
             select '', false, gen_random_uuid(), 'ä', '\"', true, now(), i from generate_series(1, {n}) i"
        ),
        44..52 => format!("update authentication_user set last_login = now(), organization_id = null where {users}"),
        52..55 => format!("update authentication_user set id = id + 1000000 where {users}"),
        55..58 => format!("delete from authentication_user where {users}"),
        58..63 => format!(
            "insert into permissions_role_permissions (role_id, permission_id)
             select i, (random() * 1e9)::int from generate_series(1, {n}) i on conflict do nothing"
        ),
        63..66 => format!("update permissions_role_permissions set permission_id = (random() * 1e9)::int where {links}"),
        66..68 => format!("update permissions_role_permissions set id = id + 1000000 where {links}"),
        68..70 => format!("delete from permissions_role_permissions where {links}"),
        70..78 => format!(
            "insert into \"Odd Schema\".\"Order \"\"Items\"\"\" select i, (random() * 1e6)::numeric(12, 3), now() - random() * interval '9 days', i % 2 = 0,
             'so so', E'new\\nline' from generate_series(1, {n}) i"
        ),
        78..81 => format!("update \"Odd Schema\".\"Order \"\"Items\"\"\" set remarks = 'x', mood = null where {items}"),
        81..83 => format!("update \"Odd Schema\".\"Order \"\"Items\"\"\" set open = not open, \"Line No\" = \"Line No\" + 0.5 where {items}"),
        83..84 => format!("delete from \"Odd Schema\".\"Order \"\"Items\"\"\" where {items}"),
        84..86 => format!("insert into odd.notes select 'n', i from generate_series(1, {n}) i"),
        86..88 => "update odd.notes set b = b + 1 where b % 7 = 0; delete from odd.notes where b > 40".to_owned(),
        88..90 => format!("insert into odd.log select 'l' from generate_series(1, {n})"),
        90..93 => format!(
            "insert into odd.floats select random() * 1e300 ^ random(), repeat('t', 5000) from generate_series(1, {n});
             insert into odd.floats values ('NaN'), ('-Infinity'), (-0.5), (1e21) on conflict do nothing"
        ),
        93..95 => format!("update odd.floats set id = id / 3 where {floats}"),
        95..96 => format!("delete from odd.floats where {floats}"),
        96 => "truncate clients_client cascade".to_owned(),
        97 => "truncate odd.notes, odd.log, \"Odd Schema\".\"Order \"\"Items\"\"\"".to_owned(),
        _ => format!(
            "insert into clients_client (client_name, organization_id, created_at, updated_at)
             select 'c', i, now(), now() from generate_series(1, {n}) i"
        ),
    }
}

/// The lock is taken first, so that COPY never waits for one: when the server refuses a COPY (a
/// deadlock with TRUNCATE), the driver sends a second Sync, and its answer, if it comes before
/// the next question, closes the connection.
async fn copy(client: &Client, rng: &mut fastrand::Rng) -> Result<(), tokio_postgres::Error> {
    client.batch_execute("lock table odd.log in row exclusive mode").await?;
    let sink = client.copy_in("copy odd.log from stdin").await?;
    futures_util::pin_mut!(sink);
    let rows: String = (0..rng.u32(1..200)).map(|i| format!("row {i}\n")).collect();
    sink.send(Bytes::from(rows)).await?;
    sink.finish().await.map(drop)
}

async fn transaction(
    client: &Client,
    rng: &mut fastrand::Rng,
) -> Result<(), tokio_postgres::Error> {
    client.batch_execute("begin").await?;
    for _ in 0..rng.u32(1..8) {
        match rng.u32(..10) {
            0 => {
                let (undone, kept) = (statement(rng), statement(rng));
                let sql = format!("savepoint s; {undone}; rollback to s; {kept}; release s");
                client.batch_execute(&sql).await?;
            }
            1 => copy(client, rng).await?,
            _ => client.batch_execute(&statement(rng)).await?,
        }
    }
    let end = if rng.u32(..10) == 0 { "rollback" } else { "commit" };
    client.batch_execute(end).await
}

/// One session of the workload; where another session's row is in the way, it gives way.
async fn session(client: Client, mut rng: fastrand::Rng, transactions: usize) {
    // Rows need not refer to others here.
    client.batch_execute("set session_replication_role = replica").await.expect("superuser");
    for _ in 0..transactions {
        if let Err(error) = transaction(&client, &mut rng).await {
            let given_up = [SqlState::T_R_DEADLOCK_DETECTED, SqlState::UNIQUE_VIOLATION];
            assert!(error.code().is_some_and(|code| given_up.contains(code)), "{error:?}");
            client.batch_execute("rollback").await.expect("rolls back");
        }
    }
}

fn pick(columns: &Value, names: &[&str]) -> Value {
    let all: BTreeMap<&str, &Value> = columns
        .as_array()
        .expect("columns")
        .iter()
        .map(|column| (column["name"].as_str().expect("a name"), &column["value"]))
        .collect();
    let picked: Map<String, Value> =
        names.iter().map(|name| ((*name).to_owned(), all[name].clone())).collect();
    Value::Object(picked)
}

/// JSON has no NaN: wal2json writes null, tail the server's text.
fn without_infinities(mut key: Value) -> Value {
    if let Some(object) = key.as_object_mut() {
        for value in object.values_mut() {
            if matches!(value.as_str(), Some("NaN" | "Infinity" | "-Infinity")) {
                *value = Value::Null;
            }
        }
    }
    key
}

fn signal(child: &tokio::process::Child, name: &str) {
    let pid = child.id().expect("it runs").to_string();
    let kill = std::process::Command::new("kill").args([&format!("-{name}"), &pid]).status();
    assert!(kill.expect("kill runs").success());
}

/// What wal2json says.
async fn reference(client: &Client) -> Transactions {
    let rows = client
        .query(
            "select xid::text::bigint, data from pg_logical_slot_get_changes('reference', null, null, 'format-version', '2', 'include-transaction', 'true')",
            &[],
        )
        .await
        .expect("wal2json");
    let mut transactions: Transactions = Vec::new();
    for row in rows {
        let xid = u64::try_from(row.get::<_, i64>(0)).expect("an xid");
        let line: Value = serde_json::from_str(row.get(1)).expect("JSON");
        let text = |field: &str| line[field].as_str().expect(field).to_owned();
        let operation = match line["action"].as_str() {
            Some("B") => {
                transactions.push((xid, Vec::new()));
                continue;
            }
            Some("C") => continue,
            Some("I") => "insert",
            Some("U") => "update",
            Some("D") => "delete",
            Some("T") => "truncate",
            other => panic!("action {other:?}"),
        };
        let (schema, table) = (text("schema"), text("table"));
        let names = key_columns(&schema, &table);
        let (key, new_key) = match operation {
            _ if names.is_empty() => (Value::Null, None),
            "insert" => (pick(&line["columns"], names), None),
            "update" => {
                let (old, new) = (pick(&line["identity"], names), pick(&line["columns"], names));
                (old.clone(), Some(new).filter(|new| *new != old))
            }
            "delete" => (pick(&line["identity"], names), None),
            _ => (Value::Null, None),
        };
        let change = Change { schema, table, operation: operation.to_owned(), key, new_key };
        transactions.last_mut().expect("a begin").1.push(change);
    }
    transactions.retain(|(_, changes)| !changes.is_empty());
    transactions
}

/// What tail said.
fn told(output: &[String]) -> Transactions {
    let mut transactions: Transactions = Vec::new();
    let mut open: Vec<Change> = Vec::new();
    for line in output {
        let line: Value = serde_json::from_str(line).expect("a JSON object a line");
        let text = |field: &str| line[field].as_str().expect(field).to_owned();
        if line["kind"] == "commit" {
            assert_eq!(line["changes"], open.len(), "{line}");
            let xid = line["xid"].as_u64().expect("an xid");
            transactions.push((xid, std::mem::take(&mut open)));
            continue;
        }
        assert_eq!(line["kind"], "change");
        open.push(Change {
            schema: text("schema"),
            table: text("table"),
            operation: text("operation"),
            key: without_infinities(line["key"].clone()),
            new_key: line.get("new_key").cloned().map(without_infinities),
        });
    }
    assert!(open.is_empty(), "changes without a commit");
    transactions
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tail_agrees_with_wal2json_on_table_operation_and_key_of_a_random_workload() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let postgres = Postgres::builder()
        .setting("deadlock_timeout", "50ms")
        .start()
        .await
        .expect("Postgres starts");
    let schema = std::fs::read_to_string(root().join("sql/demo/schema.sql")).expect("the schema");
    postgres.execute(&schema).await.expect("the schema loads");
    postgres.execute(ODD_TABLES).await.expect("more tables");
    let redis = Redis::start().await.expect("Redis starts");
    let world = World::bare(postgres, redis, &root().join("config/unstale.toml"));

    let client = world.postgres.client().await.expect("a client");
    client.batch_execute("set timezone = 'UTC'").await.expect("a setting");
    client
        .query("select pg_create_logical_replication_slot('reference', 'wal2json')", &[])
        .await
        .expect("wal2json is installed (scripts/setup.sh)");

    let mut tail = world
        .command("tail")
        .arg("--json")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("tail starts");
    let mut says = BufReader::new(tail.stderr.take().expect("its stderr")).lines();
    let ready = says.next_line().await.expect("a line").expect("a line");
    assert!(ready.starts_with("following from LSN "), "{ready}");
    let mut lines = BufReader::new(tail.stdout.take().expect("its stdout")).lines();
    let (tell_last, last) = tokio::sync::oneshot::channel::<u32>();
    let reading = tokio::spawn(async move {
        // Read while the workload runs, as whoever tails does.
        let (mut output, mut last, mut xid) = (Vec::new(), Some(last), None);
        loop {
            if let Some(waiting) = &mut last
                && let Ok(told) = waiting.try_recv()
            {
                (xid, last) = (Some(told), None);
            }
            let line = tokio::time::timeout(Duration::from_millis(20), lines.next_line()).await;
            if let Ok(line) = line {
                output.push(line.expect("UTF-8").expect("tail goes on"));
            }
            let end = xid.map(|xid| format!("\"xid\":{xid},\"changes\":1,"));
            if end.is_some_and(|end| output.last().is_some_and(|line: &String| line.contains(&end)))
            {
                return output;
            }
        }
    });

    let mut rng = fastrand::Rng::with_seed(seed);
    let mut sessions = Vec::new();
    for _ in 0..3 {
        let client = world.postgres.client().await.expect("a client");
        sessions.push(tokio::spawn(session(client, rng.fork(), 100)));
    }
    for session in sessions {
        if let Err(error) = session.await {
            panic!("{error} (seed {seed})\n{}", world.postgres.log_tail());
        }
    }
    // The last transaction: when it is printed, everything is.
    let last = client
        .query_one("with ended as (insert into odd.log values ('the end')) select pg_current_xact_id()::text", &[])
        .await
        .expect("inserts");
    let xid: u64 = last.get::<_, &str>(0).parse().expect("an xid");
    tell_last.send(u32::try_from(xid).expect("a young cluster")).expect("the reader waits");
    let output = tokio::time::timeout(PATIENCE, reading).await.expect("in time").expect("read");
    signal(&tail, "TERM");
    let ended = tokio::time::timeout(PATIENCE, tail.wait()).await.expect("in time");
    assert!(ended.expect("a status").success(), "SIGTERM is a good end");

    let expected = reference(&client).await;
    let total: usize = expected.iter().map(|(_, changes)| changes.len()).sum();
    assert!(total >= 10_000, "only {total} changes (seed {seed})");
    for operation in ["insert", "update", "delete", "truncate"] {
        let some = expected.iter().flat_map(|(_, c)| c).any(|c| c.operation == operation);
        assert!(some, "no {operation} (seed {seed})");
    }
    let moved = expected.iter().flat_map(|(_, c)| c).any(|c| c.new_key.is_some());
    assert!(moved, "no key changed (seed {seed})");

    let found = told(&output);
    for (expected, found) in expected.iter().zip(&found) {
        assert_eq!(found.0, expected.0, "the order of transactions (seed {seed})");
        for (expected, found) in expected.1.iter().zip(&found.1) {
            assert_eq!(found, expected, "seed {seed}");
        }
        assert_eq!(found.1.len(), expected.1.len(), "seed {seed}");
    }
    assert_eq!(found.len(), expected.len(), "seed {seed}");
}
