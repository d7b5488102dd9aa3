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
async fn one_transaction(reader: &mut FrameReader) -> (String, Lsn) {
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
