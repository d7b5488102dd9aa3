//! Encrypted connections: which are made, which are refused, and what is said then.

use std::time::Duration;

use unstale::lsn::Lsn;
use unstale::postgres::error::{Class, Kind};
use unstale::sandbox::{Postgres, ServerTls};

use crate::certificates::Authority;
use crate::cluster::Cluster;
use crate::login::{check, try_both};
use crate::stream::{connect, one_transaction, pgoutput};

const HBA: &str = "\
hostssl all certified 127.0.0.1/32 trust clientcert=verify-ca
hostssl all scram 127.0.0.1/32 scram-sha-256
hostssl all trusted 127.0.0.1/32 trust
hostnossl all open 127.0.0.1/32 trust
";

/// A server with the certificate `name` of `authority`.
async fn server(authority: &Authority, name: &str) -> Cluster {
    let read = |file: &str| std::fs::read_to_string(authority.path(file)).unwrap();
    let identity = ServerTls {
        certificate: read(&format!("{name}.crt")),
        key: read(&format!("{name}.key")),
        client_ca: Some(read("ca.crt")),
    };
    let cluster = Cluster::start_with_hba(HBA, Postgres::builder().tls(identity)).await;
    cluster
        .sql(
            "CREATE ROLE scram LOGIN REPLICATION PASSWORD 'hunter2';
             CREATE ROLE trusted LOGIN REPLICATION;
             CREATE ROLE certified LOGIN REPLICATION;
             CREATE ROLE open LOGIN REPLICATION;",
        )
        .await;
    cluster
}

#[tokio::test]
async fn each_sslmode_takes_what_it_should_and_nothing_else() {
    let authority = Authority::new();
    authority.issue("server", "rsa:2048", "sha256", Some("DNS:localhost"));
    let cluster = server(&authority, "server").await;
    let ca = authority.path("ca.crt").display().to_string();
    let other = authority.path("other.crt").display().to_string();
    let by_name =
        |query: &str| format!("postgres://trusted@localhost:{}/postgres?{query}", cluster.port);
    let by_address = |query: &str| format!("{}?{query}", cluster.url("trusted"));

    for good in [
        by_address(""),
        by_address("sslmode=prefer"),
        by_address("sslmode=require"),
        by_address(&format!("sslmode=require&sslrootcert={ca}")),
        by_address(&format!("sslmode=verify-ca&sslrootcert={ca}")),
        by_name(&format!("sslmode=verify-full&sslrootcert={ca}")),
    ] {
        try_both(&good).await.unwrap_or_else(|error| panic!("{good}: {error}"));
    }
    for bad in [
        by_address(&format!("sslmode=require&sslrootcert={other}")),
        by_address(&format!("sslmode=verify-ca&sslrootcert={other}")),
        by_name(&format!("sslmode=verify-full&sslrootcert={other}")),
        by_name("sslrootcert=system"),
    ] {
        let error = try_both(&bad).await.expect_err(&bad);
        // A machine without ca-certificates has no system authorities at all.
        if error.kind() != Kind::Settings {
            check(&error, Kind::Tls, Class::Stop, "sslrootcert");
        }
    }
    let name = by_address(&format!("sslmode=verify-full&sslrootcert={ca}"));
    check(&try_both(&name).await.unwrap_err(), Kind::Tls, Class::Stop, "subjectAltName");
    let nothing = by_address("sslmode=verify-ca&sslrootcert=/nowhere.pem");
    check(&try_both(&nothing).await.unwrap_err(), Kind::Settings, Class::Stop, "PEM");
    // The server insists on TLS for this role.
    let plain = by_address("sslmode=disable");
    check(&try_both(&plain).await.unwrap_err(), Kind::Login, Class::Stop, "sslmode");
}

#[tokio::test]
async fn a_self_signed_certificate_can_be_trusted_itself() {
    let authority = Authority::new();
    let cluster = server(&authority, "ca").await;
    let ca = authority.path("ca.crt").display().to_string();
    let url = format!("{}?sslmode=verify-ca&sslrootcert={ca}", cluster.url("trusted"));
    try_both(&url).await.unwrap();
}

#[tokio::test]
async fn scram_binds_to_the_session_whatever_signed_the_certificate() {
    let authority = Authority::new();
    for (key, digest) in [
        ("rsa:2048", "sha256"),
        ("rsa:2048", "sha384"),
        ("rsa:2048", "sha512"),
        ("ec:params", "sha256"),
    ] {
        let key = match key {
            "ec:params" => "ec -pkeyopt ec_paramgen_curve:prime256v1",
            other => other,
        };
        authority.issue("server", key, digest, Some("DNS:localhost"));
        let cluster = server(&authority, "server").await;
        for binding in ["require", "prefer", "disable"] {
            let url = format!(
                "{}?sslmode=require&channel_binding={binding}",
                cluster.url("scram:hunter2")
            );
            try_both(&url)
                .await
                .unwrap_or_else(|error| panic!("{key} {digest} {binding}: {error}"));
        }
        let wrong = format!("{}?channel_binding=require", cluster.url("scram:wrong"));
        check(&try_both(&wrong).await.unwrap_err(), Kind::Login, Class::Stop, "PGPASSWORD");
        let trust = format!("{}?channel_binding=require", cluster.url("trusted"));
        check(&try_both(&trust).await.unwrap_err(), Kind::Login, Class::Stop, "channel_binding");
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown_when_asked_for() {
    let authority = Authority::new();
    authority.issue("server", "rsa:2048", "sha256", Some("DNS:localhost"));
    authority.issue("client", "rsa:2048", "sha256", None);
    let cluster = server(&authority, "server").await;
    let (cert, key) = (authority.path("client.crt"), authority.path("client.key"));
    let url = format!(
        "{}?sslmode=require&sslcert={}&sslkey={}",
        cluster.url("certified"),
        cert.display(),
        key.display()
    );
    try_both(&url).await.unwrap();
    let without = format!("{}?sslmode=require", cluster.url("certified"));
    let error = try_both(&without).await.unwrap_err();
    assert_eq!(error.class(), Class::Stop, "{error}");
    let swapped = format!(
        "{}?sslmode=require&sslcert={}&sslkey={}",
        cluster.url("certified"),
        cert.display(),
        authority.path("server.key").display()
    );
    check(&try_both(&swapped).await.unwrap_err(), Kind::Settings, Class::Stop, "private key");
}

#[tokio::test]
async fn a_server_without_tls_is_taken_or_refused_as_asked() {
    let cluster = Cluster::start(&[]).await;
    try_both(&format!("{}?sslmode=prefer", cluster.url("postgres"))).await.unwrap();
    let required = format!("{}?sslmode=require", cluster.url("postgres"));
    check(&try_both(&required).await.unwrap_err(), Kind::Tls, Class::Stop, "ssl = on");
    // libpq, too: a unix socket needs no encryption, whatever sslmode says.
    try_both(&format!("{}&sslmode=require", cluster.socket_url("postgres"))).await.unwrap();
}

#[tokio::test]
async fn over_tls_too_feedback_keeps_a_stream_alive_that_nobody_reads() {
    let authority = Authority::new();
    authority.issue("server", "rsa:2048", "sha256", Some("DNS:localhost"));
    let cluster = server(&authority, "server").await;
    cluster.set("wal_sender_timeout", "4s").await;
    cluster.sql("CREATE TABLE t (id int, x text); CREATE PUBLICATION pub FOR TABLE t").await;
    let url = format!("{}?sslmode=require", cluster.url("scram:hunter2"));
    let mut connection = connect(&url).await.unwrap();
    let start = connection.create_slot("s").await.unwrap();
    let (mut reader, mut writer) =
        connection.start_replication("s", start, &pgoutput()).await.unwrap();
    cluster.sql("INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 30000) i").await;
    let patience = std::time::Instant::now();
    while patience.elapsed() < Duration::from_secs(7) {
        writer.status(Lsn::ZERO, Lsn::ZERO, Lsn::ZERO, false).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let (types, _) = one_transaction(&mut reader).await;
    assert_eq!(types.len(), 30_003, "BR, the inserts, C");
    writer.finish().await.unwrap();
    reader.drain(Duration::from_secs(10)).await.unwrap();
    writer.terminate().await.unwrap();
}
