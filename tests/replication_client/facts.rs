//! What is read by SQL, as a role that has REPLICATION, CONNECT and nothing else.

use std::time::Duration;

use unstale::postgres::client::SqlClient;
use unstale::postgres::conninfo::ConnectOptions;
use unstale::postgres::error::{Class, Kind, PgError};
use unstale::postgres::gate::{Gate, current_snapshot};
use unstale::postgres::publication::Publication;
use unstale::postgres::server::ServerFacts;
use unstale::postgres::suspects::{XactStatus, suspects, xact_status};
use unstale::snapshot::FullXid;

use crate::cluster::Cluster;
use crate::login::check;
use crate::stream::connect;

/// A server and the URL of a role without any grant.
async fn with_humble_role(settings: &[(&str, &str)]) -> (Cluster, ConnectOptions) {
    let cluster = Cluster::start(settings).await;
    cluster
        .sql(
            "CREATE ROLE humble LOGIN REPLICATION;
             REVOKE ALL ON DATABASE postgres FROM public;
             GRANT CONNECT ON DATABASE postgres TO humble",
        )
        .await;
    let options = ConnectOptions::parse(&cluster.url("humble")).unwrap();
    (cluster, options)
}

async fn client(options: &ConnectOptions) -> SqlClient {
    SqlClient::connect_read_only(options, Duration::from_secs(10)).await.unwrap()
}

#[tokio::test]
async fn the_incarnation_changes_with_a_crash_and_not_with_a_restart() {
    let (cluster, options) = with_humble_role(&[]).await;
    let facts = || async { ServerFacts::read(&client(&options).await).await.unwrap() };
    let first = facts().await;
    cluster.restart().await;
    assert_eq!(facts().await.incarnation, first.incarnation, "a clean restart");
    cluster.sql("SELECT pg_stat_reset_shared('bgwriter')").await;
    assert_eq!(facts().await.incarnation, first.incarnation, "one view reset");

    cluster.kill().await;
    cluster.launch_again().await;
    let second = facts().await;
    assert_ne!(second.incarnation, first.incarnation, "kill -9 of the postmaster");
    assert_eq!((&second.system_id, second.timeline), (&first.system_id, first.timeline));

    cluster.crash_child().await;
    let third = facts().await;
    assert_ne!(third.incarnation, second.incarnation, "kill -9 of a child");
    cluster.restart().await;
    assert_eq!(facts().await.incarnation, third.incarnation, "a clean restart after a crash");
}

#[tokio::test]
async fn facts_agree_with_the_replication_connection_s() {
    let (cluster, options) =
        with_humble_role(&[("wal_sender_timeout", "2500ms"), ("max_wal_senders", "7")]).await;
    let facts = ServerFacts::read(&client(&options).await).await.unwrap();
    let mut connection = connect(&cluster.url("humble")).await.unwrap();
    let identity = connection.identify_system().await.unwrap();
    assert_eq!(facts.system_id, identity.system_id);
    assert_eq!((facts.timeline, identity.timeline), (1, 1));
    assert!(facts.wal_flush <= identity.wal_flush && facts.wal_flush <= facts.wal_insert);
    assert_eq!(facts.wal_level, "logical");
    assert_eq!(facts.wal_sender_timeout, Some(Duration::from_millis(2500)));
    assert_eq!((facts.max_wal_senders, facts.in_recovery), (7, false));
    let version = connection.parameter("server_version").unwrap();
    assert!(version.starts_with(&(facts.version_num / 10_000).to_string()), "{version}");
    assert_eq!(connection.parameter("TimeZone"), Some("UTC"));
    assert_eq!(connection.parameter("DateStyle").unwrap().split(',').next(), Some("ISO"));
}

#[tokio::test]
async fn a_snapshot_shows_what_is_committed_and_not_what_runs() {
    let (cluster, options) = with_humble_role(&[]).await;
    let open = cluster.admin().await;
    open.batch_execute("BEGIN").await.unwrap();
    let xid: String =
        open.query_one("SELECT pg_current_xact_id()::text", &[]).await.unwrap().get(0);
    let xid = FullXid(xid.parse().unwrap());
    let gate = Gate::open(client(&options).await).await.unwrap();
    assert!(!gate.snapshot().await.unwrap().shows(xid.short()));
    assert_eq!(xact_status(gate.client(), xid).await.unwrap(), XactStatus::InProgress);
    open.batch_execute("COMMIT").await.unwrap();
    assert!(gate.snapshot().await.unwrap().shows(xid.short()));
    assert!(current_snapshot(gate.client()).await.unwrap().contains(xid));
    assert_eq!(xact_status(gate.client(), xid).await.unwrap(), XactStatus::Committed);

    open.batch_execute("BEGIN").await.unwrap();
    let xid: String =
        open.query_one("SELECT pg_current_xact_id()::text", &[]).await.unwrap().get(0);
    open.batch_execute("ROLLBACK").await.unwrap();
    let xid = FullXid(xid.parse().unwrap());
    assert_eq!(xact_status(gate.client(), xid).await.unwrap(), XactStatus::Aborted);
}

#[tokio::test]
async fn suspects_are_the_writers_of_the_given_tables_and_nobody_else() {
    let (cluster, options) = with_humble_role(&[("max_prepared_transactions", "2")]).await;
    cluster
        .sql(
            "CREATE TABLE a (id int); CREATE TABLE b (id int);
             CREATE TABLE p (id int) PARTITION BY RANGE (id);
             CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);",
        )
        .await;
    let oid = |table: &'static str| {
        let cluster = &cluster;
        async move {
            let text = cluster.value(&format!("SELECT '{table}'::regclass::oid")).await;
            text.unwrap().parse::<u32>().unwrap()
        }
    };
    let (a, p) = (oid("a").await, oid("p").await);
    let client = client(&options).await;
    assert_eq!(suspects(&client, &[a, p]).await.unwrap(), []);

    let begin = |sql: &'static str| {
        let cluster = &cluster;
        async move {
            let session = cluster.admin().await;
            session.batch_execute(&format!("BEGIN; {sql}")).await.unwrap();
            let xid = session.query_one("SELECT pg_current_xact_id()::text", &[]).await.unwrap();
            (FullXid(xid.get::<_, &str>(0).parse().unwrap()), session)
        }
    };
    let (writer, session) = begin("SAVEPOINT s; INSERT INTO a VALUES (1); RELEASE s").await;
    let (to_partition, _open) = begin("INSERT INTO p1 VALUES (1)").await;
    let (_, _other) = begin("INSERT INTO b VALUES (1)").await;
    let (_, _reader) = begin("SELECT * FROM a").await;
    assert_eq!(suspects(&client, &[a]).await.unwrap(), [writer]);
    assert_eq!(suspects(&client, &[a, p]).await.unwrap(), [writer, to_partition]);
    assert_eq!(suspects(&client, &[]).await.unwrap(), []);

    session.batch_execute("PREPARE TRANSACTION 'p'").await.unwrap();
    assert_eq!(suspects(&client, &[a]).await.unwrap(), [writer], "a prepared one");
    session.batch_execute("COMMIT PREPARED 'p'").await.unwrap();
    assert_eq!(suspects(&client, &[a]).await.unwrap(), []);
}

#[tokio::test]
async fn a_transaction_that_waits_for_a_standby_is_a_suspect() {
    let (cluster, options) = with_humble_role(&[]).await;
    cluster.sql("CREATE TABLE a (id int)").await;
    let a: u32 = cluster.value("SELECT 'a'::regclass::oid").await.unwrap().parse().unwrap();
    cluster.set("synchronous_standby_names", "nobody").await;
    let session = cluster.admin().await;
    let stuck =
        tokio::spawn(async move { session.batch_execute("INSERT INTO a VALUES (1)").await });
    cluster
        .wait_for("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'", Some("1"))
        .await;
    // The own xid that is needed must not itself wait for the standby.
    let client = client(&options).await;
    let tables = [a];
    let found = tokio::time::timeout(Duration::from_secs(5), suspects(&client, &tables));
    let found = found.await.expect("does not hang behind the standby").unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(xact_status(&client, found[0]).await.unwrap(), XactStatus::InProgress);
    stuck.abort();
}

#[tokio::test]
async fn a_publication_is_read_with_all_that_it_leaves_out() {
    let (cluster, options) = with_humble_role(&[]).await;
    cluster
        .sql(
            r#"CREATE SCHEMA "Other";
             CREATE TABLE a (id int PRIMARY KEY, x int, y int GENERATED ALWAYS AS (x + 1) STORED);
             CREATE TABLE b (id int PRIMARY KEY, x int);
             CREATE TABLE "Other"."C d" (id int PRIMARY KEY, x int);
             CREATE TABLE p (id int) PARTITION BY RANGE (id);
             CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
             CREATE PUBLICATION pub FOR TABLE a, b (id), "Other"."C d" WHERE (id > 5), p
               WITH (publish = 'insert, update, delete', publish_via_partition_root = true)"#,
        )
        .await;
    let client = client(&options).await;
    assert_eq!(Publication::read(&client, "none").await.unwrap(), None);
    let publication = Publication::read(&client, "pub").await.unwrap().unwrap();
    assert!(publication.insert && publication.update && publication.delete);
    assert!(!publication.truncate && !publication.all_tables && publication.via_root);
    let names: Vec<_> = publication.tables.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["C d", "a", "b", "p"]);
    assert_eq!(publication.table("public", "a").unwrap().columns, None);
    assert_eq!(publication.table("public", "b").unwrap().columns, Some(vec!["id".to_owned()]));
    let filtered = publication.table("Other", "C d").unwrap();
    assert_eq!(filtered.row_filter.as_deref(), Some("(id > 5)"));

    let before = publication.fingerprint();
    cluster.sql("ALTER TABLE a ADD z int; CREATE TABLE unrelated (id int)").await;
    let same = Publication::read(&client, "pub").await.unwrap().unwrap();
    assert_eq!(same.fingerprint(), before, "what is published stays all columns");
    cluster.sql("ALTER PUBLICATION pub DROP TABLE b").await;
    let less = Publication::read(&client, "pub").await.unwrap().unwrap();
    assert_ne!(less.fingerprint(), before);
}

#[tokio::test]
async fn a_lost_sql_connection_says_so() {
    let (cluster, options) = with_humble_role(&[]).await;
    let client = client(&options).await;
    assert!(!client.is_lost());
    cluster
        .sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'humble'")
        .await;
    let error = tokio::time::timeout(Duration::from_secs(10), client.lost()).await.unwrap();
    assert_eq!((error.kind(), error.class()), (Kind::Lost, Class::Retry), "{error}");
    assert!(client.is_lost());
    let error: PgError = client.query_one("SELECT 1", &[]).await.unwrap_err().into();
    assert_eq!((error.kind(), error.class()), (Kind::Lost, Class::Retry), "{error}");
}

#[tokio::test]
async fn limits_of_a_session_hold() {
    let (cluster, options) = with_humble_role(&[]).await;
    cluster.sql("CREATE TABLE a (id int)").await;
    let slow = SqlClient::connect(&options, Duration::from_millis(100)).await.unwrap();
    let error: PgError = slow.batch_execute("SELECT pg_sleep(10)").await.unwrap_err().into();
    check(&error, Kind::Canceled, Class::Retry, "statement_timeout");
    let error: PgError = slow.query("SELECT * FROM a", &[]).await.unwrap_err().into();
    check(&error, Kind::Privilege, Class::Stop, "GRANT");
    let error: PgError = slow.query("SELECT * FROM nowhere", &[]).await.unwrap_err().into();
    check(&error, Kind::Missing, Class::Stop, "search_path");

    cluster.sql("GRANT ALL ON a TO humble").await;
    let reader = client(&options).await;
    let error: PgError = reader.batch_execute("DELETE FROM a").await.unwrap_err().into();
    assert_eq!((error.sqlstate(), error.class()), (Some("25006"), Class::Stop));
    let zone: String = reader.query_one("SHOW timezone", &[]).await.unwrap().get(0);
    assert_eq!(zone, "UTC");
    let name = "SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()";
    assert_eq!(reader.query_one(name, &[]).await.unwrap().get::<_, &str>(0), "unstale");
}
