//! Slots: created, refused, held by another, lost.

use std::time::Duration;

use unstale::lsn::Lsn;
use unstale::postgres::client::SqlClient;
use unstale::postgres::conninfo::ConnectOptions;
use unstale::postgres::error::{Class, Kind};
use unstale::postgres::gate::Gate;
use unstale::postgres::replication::PgoutputOptions;
use unstale::postgres::server::ServerFacts;
use unstale::postgres::slot::{SlotState, drop_slot};

use crate::cluster::Cluster;
use crate::login::check;
use crate::stream::{connect, pgoutput};

async fn sql(cluster: &Cluster) -> SqlClient {
    let options = ConnectOptions::parse(&cluster.url("postgres")).unwrap();
    SqlClient::connect(&options, Duration::from_secs(10)).await.unwrap()
}

#[tokio::test]
async fn a_slot_is_created_seen_busy_and_dropped() {
    let cluster = Cluster::start(&[("max_replication_slots", "2")]).await;
    let client = sql(&cluster).await;
    assert_eq!(SlotState::read(&client, "s").await.unwrap(), None);

    let mut connection = connect(&cluster.url("postgres")).await.unwrap();
    let pid = connection.backend_pid();
    let start = connection.create_slot("s").await.unwrap();
    let slot = SlotState::read(&client, "s").await.unwrap().unwrap();
    assert!(slot.fits("postgres") && !slot.is_lost() && !slot.fits("other"));
    assert_eq!((slot.active_pid, slot.confirmed_flush), (None, Some(start)));
    assert_eq!(slot.wal_status.as_deref(), Some("reserved"));

    let again = connection.create_slot("s").await.unwrap_err();
    check(&again, Kind::Server, Class::Stop, "exists already");
    connection.create_slot("s2").await.unwrap();
    let full = connection.create_slot("s3").await.unwrap_err();
    check(&full, Kind::Limit, Class::Stop, "max_replication_slots");
    let name = connection.create_slot("no; DROP \"it").await.unwrap_err();
    check(&name, Kind::Settings, Class::Stop, "lower-case");

    let _stream = connection.start_replication("s", start, &pgoutput()).await.unwrap();
    assert_eq!(SlotState::read(&client, "s").await.unwrap().unwrap().active_pid, Some(pid));
    let second = connect(&cluster.url("postgres")).await.unwrap();
    let busy = second.start_replication("s", start, &pgoutput()).await.err().unwrap();
    check(&busy, Kind::SlotBusy { pid: Some(pid) }, Class::Retry, &format!("pid = {pid}"));

    let held = drop_slot(&client, "s").await.unwrap_err();
    assert_eq!(held.class(), Class::Retry, "{held}");
    assert!(drop_slot(&client, "s2").await.unwrap());
    assert!(!drop_slot(&client, "s2").await.unwrap(), "none is left");

    let third = connect(&cluster.url("postgres")).await.unwrap();
    let missing = third.start_replication("s2", start, &pgoutput()).await.err().unwrap();
    check(&missing, Kind::Missing, Class::Stop, "pg_replication_slots");
}

#[tokio::test]
async fn a_wal_level_that_is_too_low_is_told_with_its_statement() {
    let cluster = Cluster::start(&[("wal_level", "replica")]).await;
    let mut connection = connect(&cluster.url("postgres")).await.unwrap();
    let error = connection.create_slot("s").await.unwrap_err();
    check(&error, Kind::WalLevel, Class::Stop, "ALTER SYSTEM SET wal_level = 'logical'");
    // The connection is still good.
    assert_eq!(connection.query("SELECT 1").await.unwrap(), [[Some("1".to_owned())]]);
}

#[tokio::test]
async fn a_slot_that_lost_its_wal_is_known_as_lost() {
    let cluster = Cluster::start(&[
        ("max_slot_wal_keep_size", "1MB"),
        ("min_wal_size", "32MB"),
        ("max_wal_size", "32MB"),
    ])
    .await;
    connect(&cluster.url("postgres")).await.unwrap().create_slot("s").await.unwrap();
    let client = sql(&cluster).await;
    for _ in 0..8 {
        cluster.sql("CREATE TABLE x (); DROP TABLE x").await;
        cluster.sql("SELECT pg_switch_wal()").await;
    }
    cluster.sql("CHECKPOINT").await;
    let slot = SlotState::read(&client, "s").await.unwrap().unwrap();
    assert!(slot.is_lost(), "{slot:?}");
    let connection = connect(&cluster.url("postgres")).await.unwrap();
    let error = connection.start_replication("s", Lsn::ZERO, &pgoutput()).await.err().unwrap();
    check(&error, Kind::SlotLost, Class::Stop, "pg_drop_replication_slot");
}

#[tokio::test]
async fn the_role_s_own_timeouts_do_not_end_a_slot_s_creation() {
    let cluster = Cluster::start(&[]).await;
    cluster
        .sql(
            "CREATE TABLE t (id int);
             ALTER ROLE postgres SET lock_timeout = '200ms';
             ALTER ROLE postgres SET statement_timeout = '200ms'",
        )
        .await;
    let open = cluster.admin().await;
    open.batch_execute("SET statement_timeout = 0; BEGIN; INSERT INTO t VALUES (1)").await.unwrap();
    let mut connection = connect(&cluster.url("postgres")).await.unwrap();
    let (created, ()) = tokio::join!(connection.create_slot("s"), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        open.batch_execute("COMMIT").await.unwrap();
    });
    created.unwrap();
}

#[tokio::test]
async fn a_slot_that_is_not_ours_to_read_is_told_by_what_it_is() {
    let cluster = Cluster::start(&[]).await;
    cluster.sql("CREATE DATABASE other").await;
    let other = format!("{}?dbname=other", cluster.url("postgres"));
    connect(&other).await.unwrap().create_slot("elsewhere").await.unwrap();
    cluster
        .sql(
            "SELECT pg_create_physical_replication_slot('physical');
             SELECT pg_create_logical_replication_slot('testing', 'test_decoding')",
        )
        .await;
    for (slot, said) in
        [("elsewhere", "database is other"), ("physical", "physical slot"), ("testing", "pgoutput")]
    {
        let connection = connect(&cluster.url("postgres")).await.unwrap();
        let error = connection.start_replication(slot, Lsn::ZERO, &pgoutput()).await.err().unwrap();
        check(&error, Kind::Server, Class::Stop, said);
    }
    let mut connection = connect(&cluster.url("postgres")).await.unwrap();
    connection.create_slot("s").await.unwrap();
    let newer = PgoutputOptions { protocol: 9, ..pgoutput() };
    let error = connection.start_replication("s", Lsn::ZERO, &newer).await.err().unwrap();
    check(&error, Kind::Server, Class::Stop, "Postgres 15 takes protocol 3");
}

#[tokio::test]
async fn a_standby_is_told_apart_from_the_primary() {
    let primary = Cluster::start(&[]).await;
    let standby = primary.standby().await;
    let client = sql(&standby).await;
    let facts = ServerFacts::read(&client).await.unwrap();
    assert!(facts.in_recovery);
    assert_eq!(facts.system_id, ServerFacts::read(&sql(&primary).await).await.unwrap().system_id);
    let error = Gate::open(client).await.unwrap().snapshot().await.unwrap_err();
    check(&error, Kind::Standby, Class::Stop, "primary");
    let mut connection = connect(&standby.url("postgres")).await.unwrap();
    let error = connection.create_slot("s").await.unwrap_err();
    check(&error, Kind::Standby, Class::Stop, "primary");
}
