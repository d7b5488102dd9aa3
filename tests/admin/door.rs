//! Who may read the admin listener: nobody by a name that is somebody else's, no page of another
//! origin, and no more consoles at once than there is room for.

use crate::support::api::{Answer, Client};
use crate::support::{Daemon, PATIENCE, World, until};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// The same as in the code.
const SEATS: usize = 16;
const PLACES: usize = 256;

async fn ask(world: &World, path: &str, headers: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
    let answer = Client { port: world.admin }.raw(request.as_bytes()).await.unwrap();
    Answer::parse(&answer).unwrap()
}

/// Opens a console's feed; gives the status and what comes.
async fn watch(world: &World) -> (u16, BufReader<TcpStream>) {
    let mut stream = TcpStream::connect(("127.0.0.1", world.admin)).await.unwrap();
    stream.write_all(b"GET /console/events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    (line.split(' ').nth(1).unwrap().parse().unwrap(), stream)
}

async fn until_told(stream: &mut BufReader<TcpStream>) {
    let told = async {
        let mut line = String::new();
        while !line.starts_with("data: {") {
            line.clear();
            assert!(stream.read_line(&mut line).await.unwrap() > 0, "the feed ended");
        }
    };
    tokio::time::timeout(PATIENCE, told).await.expect("something is told");
}

async fn listening(world: &World) -> Daemon {
    let daemon = world.spawn();
    until("the admin listener", async || daemon.get("/healthz").await).await;
    daemon
}

#[tokio::test]
async fn names_and_pages_that_are_not_ours_are_turned_away() {
    let mut world = World::new().await;
    world.config = world.folder.path().join("unstale.toml");
    let toml = std::fs::read_to_string(crate::support::root().join("config/unstale.toml")).unwrap();
    let toml = toml.replace("../sql/", &format!("{}/sql/", crate::support::root().display()));
    world.configure(&format!("{toml}\n[admin]\nhosts = [\"ops.internal\"]\n"));
    let daemon = listening(&world).await;
    for path in ["/", "/metrics", "/readyz", "/why?key=a", "/console/key?key=a", "/console/events"]
    {
        let answer = ask(&world, path, "Host: evil.example:9187\r\n").await;
        assert_eq!(answer.status, 421, "{path}");
        assert!(answer.text().contains("admin.hosts"), "{}", answer.text());
        // Both are looked at where they differ.
        let absolute = format!("http://evil.example{path}");
        assert_eq!(ask(&world, &absolute, "Host: localhost\r\n").await.status, 421, "{path}");
    }
    for host in ["ops.internal", "OPS.internal:9187", "localhost", "127.0.0.1:1", "[::1]"] {
        let answer = ask(&world, "/why?key=a", &format!("Host: {host}\r\n")).await;
        assert_eq!(answer.status, 200, "{host}: {}", answer.text());
    }
    for asks in ["Sec-Fetch-Site: cross-site", "Origin: http://evil.example", "Origin: null"] {
        for path in ["/why?key=a", "/console/key?key=a", "/console/events"] {
            let answer = ask(&world, path, &format!("Host: localhost\r\n{asks}\r\n")).await;
            assert_eq!(answer.status, 403, "{path} {asks}");
            assert_eq!(answer.header("access-control-allow-origin"), None);
        }
    }
    let page = ask(&world, "/", "Host: localhost\r\nSec-Fetch-Site: cross-site\r\n").await;
    assert_eq!(page.status, 200, "a link to it may be followed");
    let policy = page.header("content-security-policy").unwrap();
    for rule in ["default-src 'none'", "script-src 'sha256-", "frame-ancestors 'none'"] {
        assert!(policy.contains(rule), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(page.header("access-control-allow-origin"), None);
    drop(daemon);
}

#[tokio::test]
async fn who_watches_has_a_seat_and_there_are_only_so_many() {
    let world = World::new().await;
    let _daemon = listening(&world).await;
    let mut watching = Vec::new();
    for _ in 0..SEATS {
        let (status, mut feed) = watch(&world).await;
        assert_eq!(status, 200);
        until_told(&mut feed).await;
        watching.push(feed);
    }
    assert_eq!(watch(&world).await.0, 503);
    watching.pop();
    let mut feed = until("a seat that is free again", async || {
        let (status, feed) = watch(&world).await;
        (status == 200).then_some(feed)
    })
    .await;
    until_told(&mut feed).await;
    for feed in &mut watching {
        until_told(feed).await;
    }
}

#[tokio::test]
async fn who_holds_connections_open_takes_no_more_than_the_listeners_places() {
    let world = World::new().await;
    let daemon = listening(&world).await;
    let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answered = async || {
        let answer = Client { port: world.admin }.raw(request).await.unwrap_or_default();
        answer.starts_with(b"HTTP/1.1 200")
    };
    let mut idle = Vec::new();
    while answered().await {
        assert!(idle.len() < 2 * PLACES, "there is no end of it");
        idle.push(TcpStream::connect(("127.0.0.1", world.admin)).await.unwrap());
    }
    // The pipeline's own connections are none of them.
    world.settle().await;
    drop(idle);
    until("a place that is free again", async || answered().await.then_some(())).await;
    drop(daemon);
}

/// Takes as long as it takes to fill what lies between both, and the patience after that.
#[cfg_attr(not(feature = "long-tests"), ignore = "takes a minute")]
#[tokio::test]
async fn who_does_not_read_loses_his_seat() {
    let world = World::new().await;
    let _daemon = listening(&world).await;
    let mut idle = Vec::new();
    for _ in 0..SEATS {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(2048).unwrap();
        let mut stream = socket.connect(([127, 0, 0, 1], world.admin).into()).await.unwrap();
        stream.write_all(b"GET /console/events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        // Answered, and so seated; and no more is read.
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 200");
        idle.push(stream);
    }
    assert_eq!(watch(&world).await.0, 503);
    until("a seat that is free again", async || (watch(&world).await.0 == 200).then_some(())).await;
}
