//! Who gets in, and what is said to those who do not.

use std::time::Duration;

use secrecy::SecretString;
use unstale::postgres::client::SqlClient;
use unstale::postgres::conninfo::ConnectOptions;
use unstale::postgres::error::{Class, Kind, PgError};
use unstale::postgres::replication::ReplicationConnection;
use unstale::sandbox::Postgres;

use crate::cluster::Cluster;

/// Tries both kinds of connection: they must agree.
pub async fn try_both(url: &str) -> Result<(), PgError> {
    let options = ConnectOptions::parse(url).unwrap();
    let replication = ReplicationConnection::connect(&options).await;
    let sql = SqlClient::connect(&options, Duration::from_secs(5)).await;
    match (replication, sql) {
        (Ok(mut replication), Ok(sql)) => {
            assert_eq!(replication.identify_system().await.unwrap().database, "postgres");
            assert_eq!(sql.query_one("SELECT 1", &[]).await.unwrap().get::<_, i32>(0), 1);
            Ok(())
        }
        (Err(replication), Err(sql)) => {
            assert_eq!(
                (replication.kind(), replication.class()),
                (sql.kind(), sql.class()),
                "{replication} / {sql}"
            );
            Err(replication)
        }
        (replication, sql) => panic!("{:?} / {:?}", replication.err(), sql.err()),
    }
}

/// Checks what an error is and that it says what to do.
pub fn check(error: &PgError, kind: Kind, class: Class, remedy: &str) {
    assert_eq!((error.kind(), error.class()), (kind, class), "{error}");
    let said = error.remedy().unwrap_or_default();
    assert!(said.contains(remedy), "{error}: nothing about {remedy:?}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

const METHODS: &str = "\
host all scram 127.0.0.1/32 scram-sha-256
host all md5 127.0.0.1/32 md5
host all plain 127.0.0.1/32 password
host all trusted 127.0.0.1/32 trust
host all pampered 127.0.0.1/32 gss
local all scram scram-sha-256
";

async fn with_methods() -> Cluster {
    let cluster = Cluster::start_with_hba(METHODS, Postgres::builder()).await;
    cluster
        .sql(
            "CREATE ROLE scram LOGIN REPLICATION PASSWORD 'hunter2';
             CREATE ROLE plain LOGIN REPLICATION PASSWORD 'hunter2';
             CREATE ROLE trusted LOGIN REPLICATION;
             CREATE ROLE outside LOGIN REPLICATION;
             SET password_encryption = md5;
             CREATE ROLE md5 LOGIN REPLICATION PASSWORD 'hunter2';",
        )
        .await;
    cluster
}

#[tokio::test]
async fn every_method_lets_the_right_password_in_and_no_other() {
    let cluster = with_methods().await;
    try_both(&cluster.url("trusted")).await.unwrap();
    for user in ["scram", "md5", "plain"] {
        try_both(&cluster.url(&format!("{user}:hunter2"))).await.unwrap();
        let wrong = try_both(&cluster.url(&format!("{user}:wrong"))).await.unwrap_err();
        check(&wrong, Kind::Login, Class::Stop, "PGPASSWORD");
        assert_eq!(wrong.sqlstate(), Some("28P01"));
        let none = try_both(&cluster.url(user)).await.unwrap_err();
        check(&none, Kind::Login, Class::Stop, "PGPASSWORD");
    }
    try_both(&format!("{}&password=hunter2", cluster.socket_url("scram"))).await.unwrap();
}

#[tokio::test]
async fn whoever_is_turned_away_is_told_why() {
    let cluster = with_methods().await;
    let gss = ReplicationConnection::connect(&options(&cluster.url("pampered"))).await.err();
    // Debian builds know GSSAPI; without a keytab the server asks for it all the same.
    let gss = gss.expect("no GSSAPI");
    assert_eq!((gss.kind(), gss.class()), (Kind::Login, Class::Stop), "{gss}");

    let no_entry = try_both(&cluster.url("outside")).await.unwrap_err();
    check(&no_entry, Kind::Login, Class::Stop, "pg_hba.conf");
    check(&no_entry, Kind::Login, Class::Stop, "pg_reload_conf");
    let nobody = try_both(&cluster.socket_url("nobody")).await.unwrap_err();
    check(&nobody, Kind::Login, Class::Stop, "CREATE ROLE");

    let elsewhere = cluster.url("trusted").replace("/postgres", "/no%22where");
    let missing = try_both(&elsewhere).await.unwrap_err();
    check(&missing, Kind::NoDatabase, Class::Stop, r#"CREATE DATABASE "no""where""#);

    cluster.sql("ALTER ROLE trusted NOREPLICATION").await;
    let error = ReplicationConnection::connect(&options(&cluster.url("trusted"))).await.err();
    check(&error.unwrap(), Kind::Privilege, Class::Stop, r#"ALTER ROLE "trusted" REPLICATION"#);

    cluster
        .sql("ALTER ROLE trusted REPLICATION; REVOKE CONNECT ON DATABASE postgres FROM public")
        .await;
    let error = SqlClient::connect(&options(&cluster.url("trusted")), Duration::ZERO).await.err();
    check(
        &error.unwrap(),
        Kind::Privilege,
        Class::Stop,
        r#"GRANT CONNECT ON DATABASE "postgres" TO "trusted""#,
    );
}

#[tokio::test]
async fn a_password_of_too_many_rounds_is_told_with_what_stores_it_anew() {
    let cluster = with_methods().await;
    // What a later Postgres stores by scram_iterations = 100001.
    let key = "A".repeat(43) + "=";
    let stored = format!("SCRAM-SHA-256$100001:c2FsdHNhbHRzYWx0c2FsdA==${key}:{key}");
    cluster.sql(&format!("ALTER ROLE scram PASSWORD '{stored}'")).await;
    let error = try_both(&cluster.url("scram:hunter2")).await.unwrap_err();
    check(&error, Kind::Login, Class::Stop, "scram_iterations");
    check(&error, Kind::Login, Class::Stop, r#"ALTER ROLE "scram" PASSWORD"#);
    assert!(error.what().contains("100001 rounds"), "{error}");
}

fn options(url: &str) -> ConnectOptions {
    ConnectOptions::parse(url).unwrap()
}

#[tokio::test]
async fn channel_binding_is_never_given_up_when_required() {
    let cluster = with_methods().await;
    // No TLS in the server: nothing to bind to.
    for user in ["scram:hunter2", "md5:hunter2", "plain:hunter2", "trusted"] {
        let url = format!("{}?channel_binding=require", cluster.url(user));
        let error = try_both(&url).await.unwrap_err();
        check(&error, Kind::Login, Class::Stop, "channel_binding");
    }
}

#[tokio::test]
async fn the_password_file_and_an_explicit_password_are_used() {
    let cluster = with_methods().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("localhost:{}:*:scram:hunter2\n", cluster.port)).unwrap();
    // The environment is the process's: the test runner gives every test one of its own, and
    // here no other thread reads it.
    let sure = std::env::var("NEXTEST").is_ok();
    if sure {
        // SAFETY: single-threaded until here (current-thread runtime).
        #[allow(unsafe_code, reason = "the variable is what is tested")]
        unsafe {
            std::env::set_var("PGPASSFILE", file.path());
        }
        let found = ConnectOptions::load(&cluster.socket_url("scram"), None).unwrap();
        SqlClient::connect(&found, Duration::ZERO).await.unwrap();
    }
    let wrong = SecretString::from("wrong".to_owned());
    let explicit = ConnectOptions::load(&cluster.socket_url("scram"), Some(wrong)).unwrap();
    let error = SqlClient::connect(&explicit, Duration::ZERO).await.err().unwrap();
    check(&error, Kind::Login, Class::Stop, "PGPASSWORD");
    let right = options(&cluster.url("scram")).with_user("md5", Some("hunter2".to_owned().into()));
    SqlClient::connect(&right, Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_not_there_is_tried_again() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let refused = try_both(&format!("postgres://me@127.0.0.1:{port}/postgres")).await.unwrap_err();
    check(&refused, Kind::Unreachable, Class::Retry, "listen");
    let folder = "postgres:///postgres?host=/nowhere&user=me";
    check(&try_both(folder).await.unwrap_err(), Kind::Unreachable, Class::Retry, "listen");

    // One that takes the connection and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let url = format!("postgres://me@127.0.0.1:{port}/postgres?connect_timeout=1");
    check(&try_both(&url).await.unwrap_err(), Kind::Timeout, Class::Retry, "connect_timeout");
}

#[tokio::test]
async fn what_is_no_postgres_is_refused_without_reading_on() {
    use tokio::io::AsyncWriteExt as _;
    for answer in
        [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"N\x45\x7f\xff\xff\xff", b"NR\xff\xff\xff\xff"]
    {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.write_all(answer).await.unwrap();
            tokio::time::sleep(Duration::from_secs(30)).await;
        });
        let url = format!("postgres://me@127.0.0.1:{port}/postgres");
        let error = ReplicationConnection::connect(&options(&url)).await.err().unwrap();
        check(&error, Kind::Protocol, Class::Bug, "Postgres server");
    }
}
