//! Streaming: what arrives, what keeps it alive, how it ends.

use std::time::Duration;

use unstale::lsn::Lsn;
use unstale::postgres::conninfo::ConnectOptions;
use unstale::postgres::error::{Class, Kind, PgError};
use unstale::postgres::feedback::FeedbackWriter;
use unstale::postgres::frames::{Frame, FrameReader};
use unstale::postgres::replication::{PgoutputOptions, ReplicationConnection, Streaming};

use crate::cluster::Cluster;

pub fn pgoutput() -> PgoutputOptions {
    PgoutputOptions {
        protocol: 1,
        publications: vec!["pub".into()],
        streaming: Streaming::Off,
        messages: false,
        binary: false,
    }
}

pub async fn connect(url: &str) -> Result<ReplicationConnection, PgError> {
    ReplicationConnection::connect(&ConnectOptions::parse(url).unwrap()).await
}

/// A server with a table and a publication, and a stream of it.
async fn streaming(settings: &[(&str, &str)]) -> (Cluster, FrameReader, FeedbackWriter) {
    let cluster = Cluster::start(settings).await;
    cluster
        .sql("CREATE TABLE t (id int PRIMARY KEY, x text); CREATE PUBLICATION pub FOR TABLE t")
        .await;
    let mut connection = connect(&cluster.url("postgres")).await.unwrap();
    let start = connection.create_slot("s").await.unwrap();
    let (reader, writer) = connection.start_replication("s", start, &pgoutput()).await.unwrap();
    (cluster, reader, writer)
}

/// Reads until a commit message; the types of the messages, and the LSN behind the commit.
pub async fn one_transaction(reader: &mut FrameReader) -> (String, Lsn) {
    let mut types = String::new();
    loop {
        while let Some(frame) = reader.next().unwrap() {
            if let Frame::XLogData { data, .. } = frame {
                types.push(char::from(data[0]));
                if data[0] == b'C' {
                    let end = u64::from_be_bytes(data[10..18].try_into().unwrap());
                    return (types, Lsn(end));
                }
            }
        }
        tokio::time::timeout(Duration::from_secs(20), reader.fill()).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn inserts_arrive_and_feedback_moves_the_slot() {
    let (cluster, mut reader, mut writer) = streaming(&[]).await;
    cluster.sql("INSERT INTO t SELECT i, 'x' FROM generate_series(1, 3) i").await;
    let (types, end) = one_transaction(&mut reader).await;
    assert_eq!(types, "BRIIIC");
    writer.status(end, end, end, false).await.unwrap();
    cluster
        .wait_for(
            &format!("SELECT confirmed_flush_lsn >= '{end}' FROM pg_replication_slots"),
            Some("t"),
        )
        .await;
}

#[tokio::test]
async fn a_message_larger_than_the_buffer_arrives_whole() {
    let (cluster, mut reader, _writer) = streaming(&[]).await;
    cluster
        .sql(
            "ALTER TABLE t ALTER x SET STORAGE EXTERNAL;
             INSERT INTO t VALUES (1, repeat('x', 3000000)), (2, repeat('y', 300000)), (3, 'z')",
        )
        .await;
    let mut sizes = Vec::new();
    while sizes.len() < 3 {
        while let Some(frame) = reader.next().unwrap() {
            if let Frame::XLogData { data, .. } = frame
                && data[0] == b'I'
            {
                let fill = *data.last().unwrap();
                sizes.push((data.iter().rev().take_while(|&&b| b == fill).count(), fill));
            }
        }
        if sizes.len() < 3 {
            reader.fill().await.unwrap();
        }
    }
    assert_eq!(sizes, [(3_000_000, b'x'), (300_000, b'y'), (1, b'z')]);
}

#[tokio::test]
async fn a_fill_that_is_given_up_loses_nothing() {
    let (cluster, mut reader, _writer) = streaming(&[]).await;
    let write = async {
        for i in 0..40 {
            cluster.sql(&format!("INSERT INTO t VALUES ({i}, repeat('x', 5000))")).await;
        }
    };
    let read = async {
        let mut inserts = 0;
        while inserts < 40 {
            while let Some(frame) = reader.next().unwrap() {
                if let Frame::XLogData { data, .. } = frame {
                    inserts += usize::from(data[0] == b'I');
                }
            }
            // Dropped every time before or while something arrives.
            let soon = Duration::from_micros(300);
            if let Ok(filled) = tokio::time::timeout(soon, reader.fill()).await {
                filled.unwrap();
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), async { tokio::join!(write, read) })
        .await
        .expect("all inserts");
}

#[tokio::test]
async fn a_keepalive_comes_when_asked_for() {
    let (_cluster, mut reader, mut writer) = streaming(&[]).await;
    writer.status(Lsn::ZERO, Lsn::ZERO, Lsn::ZERO, true).await.unwrap();
    let keepalive = async {
        loop {
            while let Some(frame) = reader.next().unwrap() {
                if let Frame::Keepalive { wal_end, clock, reply_requested: false } = frame {
                    return (wal_end, clock);
                }
            }
            reader.fill().await.unwrap();
        }
    };
    let (wal_end, clock) =
        tokio::time::timeout(Duration::from_secs(10), keepalive).await.expect("a keepalive");
    assert!(wal_end > Lsn::ZERO);
    let now = unstale::postgres::feedback::clock_now();
    assert!((now - clock).abs() < 60_000_000, "{clock} is not of this minute, {now}");
}

#[tokio::test]
async fn feedback_alone_keeps_a_stream_alive_that_nobody_reads() {
    let (cluster, mut reader, mut writer) = streaming(&[("wal_sender_timeout", "4s")]).await;
    // More than all socket buffers hold, so that the walsender hangs in its write.
    cluster.sql("INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 30000) i").await;
    let patience = std::time::Instant::now();
    while patience.elapsed() < Duration::from_secs(7) {
        writer.status(Lsn::ZERO, Lsn::ZERO, Lsn::ZERO, false).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let (types, _) = one_transaction(&mut reader).await;
    assert_eq!(types.len(), 30_003, "BR, the inserts, C");

    // And without feedback the same stream would not have lived.
    cluster.wait_for("SELECT count(*) FROM pg_stat_replication", Some("1")).await;
    cluster.wait_for("SELECT count(*) FROM pg_stat_replication", Some("0")).await;
}

#[tokio::test]
async fn a_clean_finish_leaves_the_slot_free() {
    let (cluster, mut reader, mut writer) = streaming(&[]).await;
    cluster.sql("INSERT INTO t VALUES (1, 'x')").await;
    let (_, end) = one_transaction(&mut reader).await;
    writer.status(end, end, end, false).await.unwrap();
    writer.finish().await.unwrap();
    reader.drain(Duration::from_secs(10)).await.unwrap();
    // The slot is free as soon as the stream has ended, while the connection still stands.
    let slot = "SELECT active FROM pg_replication_slots";
    assert_eq!(cluster.value(slot).await.as_deref(), Some("f"));
    writer.terminate().await.unwrap();

    let connection = connect(&cluster.url("postgres")).await.unwrap();
    let (mut reader, _writer) =
        connection.start_replication("s", Lsn::ZERO, &pgoutput()).await.unwrap();
    cluster.sql("INSERT INTO t VALUES (2, 'y')").await;
    assert_eq!(one_transaction(&mut reader).await.0, "BRIC", "what was acknowledged stays away");
}

/// Reads until the stream fails.
async fn failure(reader: &mut FrameReader) -> PgError {
    let failed = async {
        loop {
            loop {
                match reader.next() {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(error) => return error,
                }
            }
            if let Err(error) = reader.fill().await {
                return error;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), failed).await.expect("a failure")
}

#[tokio::test]
async fn a_server_that_goes_away_is_worth_another_try() {
    let (cluster, mut reader, writer) = streaming(&[]).await;
    cluster.kill().await;
    let error = failure(&mut reader).await;
    assert_eq!((error.kind(), error.class()), (Kind::Lost, Class::Retry), "{error}");
    drop((reader, writer));
    cluster.launch_again().await;

    let connection = connect(&cluster.url("postgres")).await.unwrap();
    let (mut reader, writer) =
        connection.start_replication("s", Lsn::ZERO, &pgoutput()).await.unwrap();
    cluster.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_replication").await;
    let error = failure(&mut reader).await;
    assert_eq!((error.kind(), error.class()), (Kind::Lost, Class::Retry), "{error}");
    drop((reader, writer));

    let connection = connect(&cluster.url("postgres")).await.unwrap();
    let (mut reader, mut writer) =
        connection.start_replication("s", Lsn::ZERO, &pgoutput()).await.unwrap();
    // A clean shutdown waits until exactly what was sent is confirmed, then ends the stream.
    let ended = async {
        loop {
            loop {
                let confirmed = match reader.next() {
                    Ok(Some(Frame::Keepalive { wal_end, .. })) => wal_end,
                    Ok(Some(_)) => continue,
                    Ok(None) => break,
                    Err(error) => return error,
                };
                writer.status(confirmed, confirmed, confirmed, false).await.unwrap();
            }
            if let Err(error) = reader.fill().await {
                return error;
            }
        }
    };
    let (error, ()) = tokio::join!(ended, cluster.stop_fast());
    assert_eq!((error.kind(), error.class()), (Kind::Lost, Class::Retry), "{error}");
    let error = connect(&cluster.url("postgres")).await.err().unwrap();
    assert_eq!(error.class(), Class::Retry, "{error}");
}

#[tokio::test]
async fn a_publication_that_is_missing_is_named_when_the_first_change_comes() {
    let (cluster, mut reader, _writer) = streaming(&[]).await;
    cluster.sql("DROP PUBLICATION pub; INSERT INTO t VALUES (1, 'x')").await;
    let error = failure(&mut reader).await;
    assert_eq!((error.kind(), error.class()), (Kind::Missing, Class::Stop), "{error}");
    assert!(error.remedy().unwrap().contains("\"pub\""), "{error}");
}

#[tokio::test]
async fn a_publication_may_have_any_name() {
    let cluster = Cluster::start(&[]).await;
    cluster.sql(r#"CREATE TABLE t (id int); CREATE PUBLICATION "a ""b'c,\d" FOR TABLE t"#).await;
    let mut connection = connect(&cluster.url("postgres")).await.unwrap();
    let start = connection.create_slot("s").await.unwrap();
    let options = PgoutputOptions { publications: vec![r#"a "b'c,\d"#.into()], ..pgoutput() };
    let (mut reader, _writer) = connection.start_replication("s", start, &options).await.unwrap();
    cluster.sql("INSERT INTO t VALUES (1)").await;
    assert_eq!(one_transaction(&mut reader).await.0, "BRIC");
}

#[tokio::test]
async fn the_stream_works_over_a_unix_socket() {
    let (cluster, reader, writer) = streaming(&[]).await;
    drop((reader, writer));
    cluster.wait_for("SELECT active FROM pg_replication_slots", Some("f")).await;
    let connection = connect(&cluster.socket_url("postgres")).await.unwrap();
    let (mut reader, _writer) =
        connection.start_replication("s", Lsn::ZERO, &pgoutput()).await.unwrap();
    cluster.sql("INSERT INTO t VALUES (1, 'x')").await;
    assert_eq!(one_transaction(&mut reader).await.0, "BRIC");
}
