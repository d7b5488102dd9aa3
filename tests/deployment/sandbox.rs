//! The sandbox keeps its promises: real servers, private, that come and go as told.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::certificates::Authority;
use redis::AsyncCommands;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres_rustls::MakeRustlsConnect;
use unstale::sandbox::{
    Postgres, Proxy, Redis, SandboxError, ServerTls, Shutdown, peak_rss_bytes, rss_bytes,
};

const BOUND: Duration = Duration::from_secs(20);

async fn one(postgres: &Postgres, sql: &str) -> String {
    let client = postgres.client().await.expect("a connection");
    client.query_one(sql, &[]).await.expect("one row").get(0)
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < BOUND, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" Z")))
}

/// Whether a segment of System V shared memory exists that this process has made.
fn has_shared_memory(pid: u32) -> bool {
    let segments = std::fs::read_to_string("/proc/sysvipc/shm").expect("a list");
    segments.lines().any(|line| line.split_whitespace().nth(4) == Some(&pid.to_string()))
}

#[tokio::test]
async fn two_of_each_run_side_by_side_and_know_nothing_of_each_other() {
    let (a, b) = tokio::join!(Postgres::start(), Postgres::start());
    let (a, b) = (a.expect("starts"), b.expect("starts"));
    let (c, d) = tokio::join!(Redis::start(), Redis::start());
    let (c, d) = (c.expect("starts"), d.expect("starts"));

    a.execute("create table t ()").await.expect("creates");
    assert_eq!(one(&b, "select coalesce(to_regclass('t')::text, 'none')").await, "none");
    let identifier = "select system_identifier::text from pg_control_system()";
    assert_ne!(one(&a, identifier).await, one(&b, identifier).await, "one server, not two");

    let _: () = c.connection().await.expect("connects").set("k", 1).await.expect("sets");
    let seen: Option<u32> = d.connection().await.expect("connects").get("k").await.expect("gets");
    assert_eq!(seen, None);
}

#[tokio::test]
async fn every_way_in_leads_to_the_server() {
    let postgres = Postgres::start().await.expect("starts");
    postgres.execute("create role app login").await.expect("creates");
    postgres.execute("create database \"an app\"").await.expect("creates");
    for url in [postgres.url_for("app", "an app"), postgres.socket_url("app", "an app")] {
        let (client, connection) =
            tokio_postgres::connect(&url, tokio_postgres::NoTls).await.expect("connects");
        tokio::spawn(connection);
        let row = client.query_one("select current_user::text, current_database()::text", &[]);
        let row = row.await.expect("answers");
        assert_eq!((row.get(0), row.get(1)), ("app", "an app"), "{url}");
    }

    let redis = Redis::builder().setting("requirepass", "s3cr:t").start().await.expect("starts");
    let socket = format!("redis+unix://{}?pass=s3cr:t&db=3", redis.socket().display());
    for url in [redis.url_db(3), socket] {
        let client = redis::Client::open(url.as_str()).expect("a URL");
        let mut connection = client.get_multiplexed_async_connection().await.expect("connects");
        let info: String =
            redis::cmd("CLIENT").arg("INFO").query_async(&mut connection).await.expect("answers");
        assert!(info.contains(" db=3 "), "{url}: {info}");
    }
}

#[tokio::test]
async fn settings_hold_from_the_start_and_change_while_it_runs() {
    let postgres = Postgres::builder()
        .setting("wal_sender_timeout", "2s")
        .setting("application_name", r"it's \ quoted")
        .hba("host all app 127.0.0.1/32 scram-sha-256")
        .start()
        .await
        .expect("starts");
    assert_eq!(one(&postgres, "select current_setting('wal_level')").await, "logical");
    assert_eq!(one(&postgres, "select current_setting('wal_sender_timeout')").await, "2s");
    assert_eq!(
        one(&postgres, "select reset_val from pg_settings where name = 'application_name'").await,
        "sandbox",
        "the client's own name wins",
    );
    postgres.set("work_mem", "5MB").await.expect("sets");
    assert_eq!(one(&postgres, "select current_setting('work_mem')").await, "5MB");

    postgres.execute("create role app login password 'right'").await.expect("creates");
    let wrong = postgres.url_for("app", "postgres").replace("app@", "app:wrong@");
    let refused = tokio_postgres::connect(&wrong, tokio_postgres::NoTls).await.err();
    let code = refused.as_ref().and_then(|error| error.code()).map(|code| code.code());
    assert_eq!(code, Some("28P01"), "{refused:?}");

    let redis = Redis::builder().setting("maxmemory", "7mb").start().await.expect("starts");
    let mut connection = redis.connection().await.expect("connects");
    let (_, limit): (String, String) = redis::cmd("CONFIG")
        .arg("GET")
        .arg("maxmemory")
        .query_async(&mut connection)
        .await
        .expect("answers");
    assert_eq!(limit, (7 << 20).to_string());
}

#[tokio::test]
async fn both_servers_speak_tls_and_can_demand_a_certificate() {
    let authority = Authority::new("the servers' root");
    let tls = ServerTls { client_ca: Some(authority.pem()), ..authority.server(&["127.0.0.1"]) };
    let client = authority.client("app");

    let postgres = Postgres::builder()
        .hba("hostssl all app 127.0.0.1/32 cert")
        .tls(tls.clone())
        .start()
        .await
        .expect("starts");
    postgres.execute("create role app login").await.expect("creates");
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).expect("PEM"))
        .expect("a root");
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .expect("versions")
    .with_root_certificates(roots);
    let url = format!("{}?sslmode=require", postgres.url_for("app", "postgres"));
    let connect = MakeRustlsConnect::new(config.clone().with_no_client_auth());
    assert!(tokio_postgres::connect(&url, connect).await.is_err(), "came without a certificate");
    let chain = vec![CertificateDer::from_pem_slice(client.certificate.as_bytes()).expect("PEM")];
    let key = PrivateKeyDer::from_pem_slice(client.key.as_bytes()).expect("PEM");
    let config = config.with_client_auth_cert(chain, key).expect("a pair");
    let connect = MakeRustlsConnect::new(config);
    let (_client, _connection) = tokio_postgres::connect(&url, connect).await.expect("connects");

    let redis = Redis::builder().tls(tls).start().await.expect("starts");
    let url = redis.tls_url(0).expect("a TLS port");
    let certificates = |client_tls| redis::TlsCertificates {
        client_tls,
        root_cert: Some(authority.pem().into_bytes()),
    };
    let identity = redis::ClientTlsConfig {
        client_cert: client.certificate.clone().into_bytes(),
        client_key: client.key.clone().into_bytes(),
    };
    for (identity, welcome) in [(None, false), (Some(identity), true)] {
        let client = redis::Client::build_with_tls(url.as_str(), certificates(identity));
        let client = client.expect("a client");
        let reached = async {
            let mut connection = client.get_multiplexed_async_connection().await?;
            connection.set::<_, _, ()>("k", 1).await
        };
        assert_eq!(reached.await.is_ok(), welcome);
    }
}

#[tokio::test]
async fn a_wrong_setting_is_told_by_the_servers_own_log() {
    let error = Postgres::builder().setting("shared_buffers", "many").start().await.unwrap_err();
    assert!(matches!(error, SandboxError::Ended { .. }), "{error:?}");
    assert!(error.to_string().contains("shared_buffers"), "{error}");
    let error = Redis::builder().setting("maxmemory", "many").start().await.unwrap_err();
    assert!(matches!(error, SandboxError::Ended { .. }), "{error:?}");
    assert!(error.to_string().contains("maxmemory"), "{error}");
}

#[tokio::test]
async fn postgres_keeps_its_data_over_restart_and_crash() {
    let postgres = Postgres::start().await.expect("starts");
    let (url, first) = (postgres.url(), postgres.pid());
    postgres.execute("create table t (id int); insert into t values (1)").await.expect("runs");
    for how in [Shutdown::Fast, Shutdown::Immediate] {
        postgres.restart(how).await.expect("restarts");
    }
    postgres.execute("insert into t values (2)").await.expect("inserts");
    let started = one(&postgres, "select pg_postmaster_start_time()::text").await;

    let backend = postgres.client().await.expect("connects");
    let backend: i32 =
        backend.query_one("select pg_backend_pid()", &[]).await.expect("answers").get(0);
    postgres.kill9().await.expect("dies");
    assert_eq!(postgres.pid(), None);
    assert!(!alive(backend.unsigned_abs()), "a backend survived");
    assert!(postgres.client().await.is_err());
    postgres.start_again().await.expect("recovers");

    assert_eq!(one(&postgres, "select count(*)::text from t").await, "2");
    assert_ne!(one(&postgres, "select pg_postmaster_start_time()::text").await, started);
    assert_eq!(postgres.url(), url, "it moved");
    assert_ne!(postgres.pid(), first);
    assert!(postgres.start_again().await.is_err(), "it was started twice");

    let last = postgres.pid().expect("runs");
    postgres.kill9().await.expect("dies");
    drop(postgres);
    assert!(!has_shared_memory(last), "shared memory was left");
}

#[tokio::test]
async fn redis_comes_back_empty_or_from_an_old_dump() {
    let redis = Redis::start().await.expect("starts");
    let mut connection = redis.connection().await.expect("connects");
    let _: () = connection.set("k", "old").await.expect("sets");
    let dump = redis.save_dump().await.expect("saves");
    let _: () = connection.set("k", "new").await.expect("sets");
    let _: () = connection.set("later", 1).await.expect("sets");

    redis.restore_dump(&dump).await.expect("restores");
    let mut connection = redis.connection().await.expect("connects");
    let found: (Option<String>, Option<String>) =
        connection.mget(&["k", "later"]).await.expect("gets");
    assert_eq!(found, (Some("old".to_owned()), None));

    let _: () = connection.flushall().await.expect("flushes");
    redis.save_dump().await.expect("saves");
    let _: () = connection.set("k", "lost").await.expect("sets");
    redis.kill9().await.expect("dies");
    assert!(redis.connection().await.is_err());
    redis.start_again().await.expect("starts");
    let mut connection = redis.connection().await.expect("connects");
    let _: () = connection.set("k", "lost too").await.expect("sets");
    redis.restart().await.expect("restarts");
    let mut connection = redis.connection().await.expect("connects");
    assert_eq!(connection.get::<_, Option<String>>("k").await.expect("gets"), None);
}

#[tokio::test]
async fn a_standby_follows_by_its_name_and_can_be_promoted() {
    let primary = Postgres::start().await.expect("starts");
    primary.execute("create table t (id int)").await.expect("creates");
    let standby = primary.standby().application_name("s1").slot("s1").start().await;
    let standby = standby.expect("starts");
    primary.set("synchronous_standby_names", "s1").await.expect("sets");
    primary
        .execute("set synchronous_commit = remote_apply; insert into t values (1)")
        .await
        .expect("commits on both");
    assert_eq!(one(&standby, "select count(*)::text from t").await, "1");
    assert_eq!(
        one(&primary, "select active::text from pg_replication_slots where slot_name = 's1'").await,
        "true"
    );
    let identifier = "select system_identifier::text from pg_control_system()";
    assert_eq!(one(&primary, identifier).await, one(&standby, identifier).await);

    assert_eq!(one(&standby, "select pg_is_in_recovery()::text").await, "true");
    standby.promote().await.expect("promotes");
    assert_eq!(one(&standby, "select pg_is_in_recovery()::text").await, "false");
}

#[tokio::test]
async fn a_delayed_standby_shows_a_commit_later() {
    let primary = Postgres::start().await.expect("starts");
    primary.execute("create table t (id int)").await.expect("creates");
    let delay = Duration::from_millis(400);
    let standby = primary.standby().apply_delay(delay).start().await.expect("starts");
    let committed = Instant::now();
    primary.execute("insert into t values (1)").await.expect("inserts");
    eventually("the row arrives", async || {
        one(&standby, "select count(*)::text from t").await == "1"
    })
    .await;
    assert!(committed.elapsed() >= delay, "{:?}", committed.elapsed());
}

#[tokio::test]
async fn a_paused_server_keeps_connections_open_and_silent() {
    let (postgres, redis) = (Postgres::start().await, Redis::start().await);
    let (postgres, redis) = (postgres.expect("starts"), redis.expect("starts"));
    let client = postgres.client().await.expect("connects");
    let mut connection = redis.connection().await.expect("connects");

    postgres.pause().await;
    redis.pause().await;
    let silence = Duration::from_millis(100);
    assert!(tokio::time::timeout(silence, client.simple_query("select 1")).await.is_err());
    assert!(tokio::time::timeout(silence, connection.exists::<_, bool>("k")).await.is_err());
    postgres.resume();
    redis.resume();
    client.simple_query("select 1").await.expect("answers on the same connection");
    connection.exists::<_, bool>("k").await.expect("answers on the same connection");
}

#[tokio::test]
async fn a_server_is_gone_once_it_is_dropped_even_while_paused() {
    let (postgres, redis) = (Postgres::start().await, Redis::start().await);
    let (postgres, redis) = (postgres.expect("starts"), redis.expect("starts"));
    let folders = [postgres.data_dir(), redis.socket().parent().expect("a folder").to_owned()];
    let pids = [postgres.pid().expect("runs"), redis.pid().expect("runs")];
    assert!(folders.iter().all(|folder| folder.exists()));
    postgres.pause().await;
    drop((postgres, redis));
    assert!(folders.iter().all(|folder| !folder.exists()), "a folder was left");
    assert!(!pids.into_iter().any(alive), "a server was left");
}

/// Not a test of its own: what tests below run in processes of their own.
#[tokio::test]
async fn child_process_that_ends_as_it_is_told() {
    let Ok(end) = std::env::var("SANDBOX_TEST_END") else { return };
    let (postgres, redis) = (Postgres::start().await, Redis::start().await);
    let (postgres, redis) = (postgres.expect("starts"), redis.expect("starts"));
    let story = format!(
        "{}\n{}\n{}",
        postgres.pid().expect("runs"),
        redis.pid().expect("runs"),
        postgres.socket_dir().display(),
    );
    std::fs::write(std::env::var("SANDBOX_TEST_STORY").expect("a file"), story).expect("writes");
    match end.as_str() {
        "peace" => {}
        "panic" => panic!("on purpose"),
        _ => std::future::pending().await,
    }
}

struct Child {
    process: std::process::Child,
    story: tempfile::NamedTempFile,
}

impl Child {
    fn start(end: &str) -> Child {
        Child::start_in(&std::env::temp_dir(), end)
    }

    fn start_in(temporary: &Path, end: &str) -> Child {
        let story = tempfile::NamedTempFile::new().expect("a file");
        let process = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "sandbox::child_process_that_ends_as_it_is_told", "--nocapture"])
            .env("SANDBOX_TEST_END", end)
            .env("TMPDIR", temporary)
            .env("SANDBOX_TEST_STORY", story.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        Child { process, story }
    }

    /// The process ids of its servers, and the folder of one.
    async fn story(&self) -> ([u32; 2], String) {
        let mut lines = Vec::new();
        eventually("the child has started its servers", async || {
            let text = std::fs::read_to_string(self.story.path()).expect("a story");
            lines = text.lines().map(str::to_owned).collect();
            lines.len() == 3
        })
        .await;
        let pid = |line: &String| line.parse().expect("a process id");
        ([pid(&lines[0]), pid(&lines[1])], lines[2].clone())
    }
}

#[tokio::test]
async fn nothing_is_left_of_a_test_that_panics() {
    let mut child = Child::start("panic");
    let (pids, folder) = child.story().await;
    assert!(!child.process.wait().expect("ends").success());
    assert!(!pids.into_iter().any(alive), "a server was left");
    assert!(!Path::new(&folder).exists(), "a folder was left");
}

#[tokio::test]
async fn nothing_is_left_of_a_process_that_is_killed() {
    let mut child = Child::start("kill");
    let (pids, folder) = child.story().await;
    assert!(pids.into_iter().all(alive) && has_shared_memory(pids[0]));
    child.process.kill().expect("kills");
    child.process.wait().expect("ends");
    eventually("its servers die with it", async || !pids.into_iter().any(alive)).await;
    // Not the very next, should another one be at it just now.
    eventually("its folder goes with one of the next sandboxes", async || {
        Redis::start().await.expect("starts");
        !Path::new(&folder).exists()
    })
    .await;
    assert!(!has_shared_memory(pids[0]), "shared memory was left");
}

#[tokio::test]
async fn a_template_that_is_broken_or_made_by_two_at_once_harms_nobody() {
    let temporary = tempfile::tempdir().expect("a folder");
    // Postgres' own account must be able to pass through.
    std::fs::set_permissions(temporary.path(), Permissions::from_mode(0o711)).expect("opens it");
    for round in ["made", "mended"] {
        let mut children = [(); 2].map(|()| Child::start_in(temporary.path(), "peace"));
        for child in &mut children {
            assert!(child.process.wait().expect("ends").success(), "not {round}");
        }
        let root = std::fs::read_dir(temporary.path()).expect("a folder").next();
        let root = root.expect("one entry").expect("one entry").path();
        let left: Vec<_> = std::fs::read_dir(root)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.is_dir() && !path.ends_with("ports"))
            .collect();
        assert_eq!(left.len(), 1, "one template and nothing else: {left:?}");
        std::fs::remove_file(left[0].join("global/pg_filenode.map")).expect("nibbles at it");
    }
}

/// Answers each byte by the next one.
async fn incrementing_server() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                while let Ok(byte) = stream.read_u8().await {
                    if stream.write_u8(byte + 1).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn the_proxy_fails_as_it_is_told_and_recovers() {
    let proxy = Proxy::start(incrementing_server().await).await.expect("starts");
    let connect = || TcpStream::connect(proxy.address());
    let silence = Duration::from_millis(50);

    let mut stream = connect().await.expect("connects");
    stream.write_u8(1).await.expect("writes");
    assert_eq!(stream.read_u8().await.expect("answers"), 2);

    proxy.pause();
    stream.write_u8(5).await.expect("writes");
    assert!(tokio::time::timeout(silence, stream.read_u8()).await.is_err(), "not paused");
    proxy.resume().await;
    assert_eq!(stream.read_u8().await.expect("answers"), 6, "what was held back was lost");

    proxy.delay(silence);
    let start = Instant::now();
    stream.write_u8(7).await.expect("writes");
    assert_eq!(stream.read_u8().await.expect("answers"), 8);
    assert!(start.elapsed() >= 2 * silence, "each way takes longer");
    proxy.resume().await;

    proxy.lose_answers();
    stream.write_u8(9).await.expect("writes");
    assert!(tokio::time::timeout(silence, stream.read_u8()).await.is_err(), "not lost");
    proxy.cut();
    assert!(stream.read_u8().await.is_err(), "not cut");
    proxy.resume().await;

    let mut stream = connect().await.expect("connects after a cut");
    stream.write_u8(1).await.expect("writes");
    assert_eq!(stream.read_u8().await.expect("answers"), 2);
    proxy.refuse().await;
    let refused = connect().await.expect_err("is refused");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    stream.write_u8(3).await.expect("writes");
    assert_eq!(stream.read_u8().await.expect("an open connection stays"), 4);
    proxy.resume().await;
    let mut stream = connect().await.expect("connects again");

    let address = proxy.address();
    drop(proxy);
    assert!(stream.read_u8().await.is_err(), "a connection outlived the proxy");
    eventually("the port closes", async || TcpStream::connect(address).await.is_err()).await;
}

#[tokio::test]
async fn memory_of_a_server_is_measured() {
    let redis = Redis::start().await.expect("starts");
    let pid = redis.pid().expect("runs");
    let before = rss_bytes(pid).expect("measures");
    let mut connection = redis.connection().await.expect("connects");
    let _: () = connection.set("k", vec![1u8; 32 << 20]).await.expect("sets");
    let after = rss_bytes(pid).expect("measures");
    assert!(after > before + (24 << 20), "{before} {after}");
    assert!(peak_rss_bytes(pid).expect("measures") >= after);
    drop(redis);
    assert!(rss_bytes(pid).is_err());
}
