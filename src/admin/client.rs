//! Asking a running daemon's admin listener: one question a connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// How long the daemon may take: it answers from memory.
const WITHIN: Duration = Duration::from_secs(5);

/// The most that an answer may hold.
const LIMIT: usize = 1 << 20;

/// Where a daemon that listens on `listen` is asked from the same machine.
#[must_use]
pub fn reach(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// The body of the answer to `GET` of a path with its query.
///
/// # Errors
/// If nobody answers, or not with 200: what happened, in words.
pub async fn get(address: SocketAddr, path: &str) -> Result<Bytes, String> {
    let (status, body) = ask(address, path).await?;
    if status == StatusCode::OK { Ok(body) } else { Err(format!("it answered {status}")) }
}

/// The answer to `GET` of a path with its query, whatever its status.
///
/// # Errors
/// If nobody answers: what happened, in words.
pub async fn ask(address: SocketAddr, path: &str) -> Result<(StatusCode, Bytes), String> {
    send(address, Method::GET, path, WITHIN).await
}

/// The answer to a request without a body, whatever its status.
///
/// # Errors
/// If nobody answers within that time: what happened, in words.
pub async fn send(
    address: SocketAddr,
    method: Method,
    path: &str,
    within: Duration,
) -> Result<(StatusCode, Bytes), String> {
    tokio::time::timeout(within, exchange(address, method, path))
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {within:?}")))
}

async fn exchange(
    address: SocketAddr,
    method: Method,
    path: &str,
) -> Result<(StatusCode, Bytes), String> {
    let stream = TcpStream::connect(address).await.map_err(|e| e.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| e.to_string())?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, address.to_string())
        .header(header::CONTENT_TYPE, "application/json")
        .body(Empty::<Bytes>::new())
        .map_err(|e| e.to_string())?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LIMIT).collect().await;
        let body = body.map_err(|e| e.to_string())?.to_bytes();
        Ok((status, body))
    };
    tokio::pin!(answer);
    // The connection moves the bytes of both; it may end before the answer is taken in.
    tokio::select! {
        answered = &mut answer => answered,
        ended = connection => match ended {
            Ok(()) => answer.await,
            Err(e) => Err(e.to_string()),
        },
    }
}
