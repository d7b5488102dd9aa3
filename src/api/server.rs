//! Connections: how many, how slow, until when. What HTTP/1.1 is, hyper knows.
//!
//! Whoever is slow costs a connection and no more: the head of a request must come within
//! `api.header_timeout` (or a quarter more: [`Pulse`](crate::impatient::Pulse)), an idle connection is
//! kept as long, and an answer must be taken in as fast. Past `api.max_connections` one is told so and closed, at once.
//!
//! # Too much
//!
//! Everything that can pile up has a bound, so that too much ends in 503 and not in ever longer
//! waits: connections (`api.max_connections`; each has one request under way, HTTP/1.1 knows no
//! more), queries (`api.max_loads`; readers of one key share one), the wait for a query
//! (`api.max_load_wait`) and for another's lease (2 s), Redis (`redis.timeout`, and then it is left
//! alone for half a second), and the request as a whole (`api.request_timeout`). What waits
//! holds up nobody else: hits need no query and no lease, and go on while misses are refused.

use std::convert::Infallible;
use std::io;
use std::iter;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::service::Api;
use super::threads::Threads;
use crate::impatient::Impatient;

/// So many of those who are too many are told so at once; further ones are just closed.
const TOLD: usize = 64;

const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/problem+json\r\nx-content-type-options: nosniff\r\n\
    cache-control: no-store\r\nretry-after: 1\r\n\
    content-length: 142\r\nconnection: close\r\n\r\n\
    {\"type\":\"urn:problem-type:unstale:unavailable\",\"title\":\"Not available now\",\"status\":503,\
    \"detail\":\"too many connections (api.max_connections)\"}";

/// Takes the address.
///
/// # Errors
/// If it is taken or not ours: what to change.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|e| {
        format!("cannot listen on {address} (api.listen): {e}; choose another address, stop what listens there, or set api.enabled = false")
    })
}

/// Serves until it is told to stop, and what was under way has ended.
pub async fn serve(
    listener: TcpListener,
    api: Arc<Api>,
    threads: Arc<Threads>,
    stop: CancellationToken,
) {
    if let Ok(address) = listener.local_addr() {
        info!(%address, "serving the read API");
    }
    let room = Arc::new(Semaphore::new(api.settings.max_connections));
    let told = Arc::new(Semaphore::new(TOLD));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            // It goes to another runtime.
            accepted = listener.accept() => accepted.and_then(|(stream, _)| stream.into_std()),
            () = stop.cancelled() => break,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: those that are open come to an end.
                warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        if let Ok(permit) = Arc::clone(&room).try_acquire_owned() {
            let (api, stop) = (Arc::clone(&api), stop.clone());
            let connection = connection(stream, api, stop, permit);
            threads.spawn(connections.track_future(connection));
        } else if let Ok(permit) = Arc::clone(&told).try_acquire_owned() {
            connections.spawn(async move {
                if let Ok(stream) = TcpStream::from_std(stream) {
                    _ = tokio::time::timeout(Duration::from_secs(1), refuse(stream)).await;
                }
                drop(permit);
            });
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn connection(
    stream: std::net::TcpStream,
    api: Arc<Api>,
    stop: CancellationToken,
    place: OwnedSemaphorePermit,
) {
    let stream = match TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => return warn!(%error, "a connection was not taken up"),
    };
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "small answers may wait for each other");
    }
    let patience = api.settings.header_timeout.get();
    let max_header_bytes = api.settings.max_header_bytes;
    let stream = Impatient::new(stream, patience, place);
    let pulse = stream.pulse();
    let of_requests = Arc::clone(&pulse);
    let service = service_fn(move |request| {
        let (api, pulse) = (Arc::clone(&api), Arc::clone(&of_requests));
        async move {
            pulse.asked();
            let answer = api.handle(request).await;
            pulse.answered();
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .header_read_timeout(None) // the pulse sees to it
        .max_buf_size(max_header_bytes)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // Asked only when it was woken itself, not with each request: what all connections wait for has a
    // lock that all of them take.
    let mut interrupted: FuturesUnordered<_> = iter::once(async {
        tokio::select! {
            () = pulse.stands_still(patience) => Interrupt::StoodStill,
            () = stop.cancelled() => Interrupt::Stop,
        }
    })
    .collect();
    let ended = tokio::select! {
        biased;
        ended = &mut connection => ended,
        Some(interrupt) = interrupted.next() => match interrupt {
            Interrupt::StoodStill => return debug!("a connection stood still"),
            Interrupt::Stop => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        },
    };
    if let Err(error) = ended {
        debug!(%error, "a connection ended");
    }
}

/// Why a connection ends that has not ended by itself.
enum Interrupt {
    StoodStill,
    Stop,
}

/// 503, whatever is asked. The request is read, or the client would see a reset instead.
async fn refuse(mut stream: TcpStream) -> io::Result<()> {
    let mut head = [0; 4096];
    _ = stream.read(&mut head).await?;
    stream.write_all(TOO_MANY).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_is_as_long_as_it_says() {
        let text = str::from_utf8(TOO_MANY).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }
}
