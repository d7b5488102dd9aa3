//! Readers who ask now and then, each on a connection of its own, while something happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::report::Samples;

/// One who reads.
pub trait Reader: Send + 'static {
    /// Reads the entry of this number, and says whether it was cached.
    fn read(&mut self, number: usize) -> impl Future<Output = bool> + Send;
}

/// What all of them saw.
pub struct Seen {
    /// Milliseconds from the question to the answer.
    pub millis: Samples,
    pub hits: usize,
}

impl Seen {
    /// Of a hundred reads.
    pub fn hit_percent(&self) -> f64 {
        let count = |n: usize| f64::from(u32::try_from(n).expect("it fits"));
        100.0 * count(self.hits) / count(self.millis.values.len())
    }
}

/// Lets each of them read, with that pause from one question to the next, until `until` is done.
pub async fn read_while<R: Reader, T>(
    readers: &mut Vec<R>,
    pause: Duration,
    until: impl Future<Output = T>,
) -> (Seen, T) {
    let over = Arc::new(AtomicBool::new(false));
    let all = u32::try_from(readers.len()).expect("it fits");
    let start = Instant::now();
    let mut reading = JoinSet::new();
    for (number, mut reader) in (0_u32..).zip(readers.drain(..)) {
        let over = Arc::clone(&over);
        // Not all at the same moment.
        let mut due = start + pause * number / all;
        reading.spawn(async move {
            let (mut millis, mut hits) = (Vec::new(), 0);
            let mut entry = number as usize;
            while !over.load(Ordering::Relaxed) {
                tokio::time::sleep_until(due.into()).await;
                let asked = Instant::now();
                hits += usize::from(reader.read(entry).await);
                millis.push(asked.elapsed().as_secs_f64() * 1e3);
                entry += 1;
                // Who had to wait for an answer does not ask twice for that.
                due = (due + pause).max(Instant::now());
            }
            (reader, millis, hits)
        });
    }
    let done = until.await;
    over.store(true, Ordering::Relaxed);
    let mut seen = Seen { millis: Samples::new("reads"), hits: 0 };
    while let Some(read) = reading.join_next().await {
        let (reader, millis, hits) = read.expect("a reader goes on");
        readers.push(reader);
        seen.millis.values.extend(millis);
        seen.hits += hits;
    }
    (seen, done)
}

/// One who asks the read API, one path after the other.
pub struct OfApi {
    stream: TcpStream,
    requests: Arc<[String]>,
    buffer: Vec<u8>,
}

impl OfApi {
    pub async fn connect(port: u16, header: &str, paths: &[String]) -> OfApi {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the API listens");
        stream.set_nodelay(true).expect("an option of the socket");
        let request = |path| format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{header}\r\n\r\n");
        OfApi { stream, requests: paths.iter().map(request).collect(), buffer: Vec::new() }
    }
}

impl Reader for OfApi {
    async fn read(&mut self, number: usize) -> bool {
        let request = &self.requests[number % self.requests.len()];
        self.stream.write_all(request.as_bytes()).await.expect("the request is sent");
        self.buffer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.buffer).await.expect("an answer");
            assert!(read > 0, "the connection was closed");
            let Some(end) = memchr::memmem::find(&self.buffer, b"\r\n\r\n") else { continue };
            let head = str::from_utf8(&self.buffer[..end]).expect("a head");
            let length = super::http::field(head, "content-length");
            if self.buffer.len() >= end + 4 + length.map_or(0, |l| l.parse().expect("a length")) {
                assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
                return super::http::field(head, "cache-status")
                    .is_some_and(|s| s.ends_with("hit"));
            }
        }
    }
}
