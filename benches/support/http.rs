//! One connection that asks and waits: for times, and for what is in an answer.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

pub struct Connection {
    stream: TcpStream,
}

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    pub took: Duration,
}

impl Connection {
    pub fn open(port: u16) -> Option<Connection> {
        let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_nodelay(true).expect("an option of the socket");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("an option of the socket");
        Some(Connection { stream })
    }

    pub fn get(&mut self, path: &str, header: Option<&str>) -> Answer {
        let header = header.map_or_else(String::new, |header| format!("{header}\r\n"));
        let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{header}\r\n");
        let start = Instant::now();
        self.stream.write_all(request.as_bytes()).expect("the request is sent");
        let (mut answer, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
        let end = loop {
            let read = self.stream.read(&mut buffer).expect("an answer");
            assert!(read > 0, "the connection was closed");
            answer.extend_from_slice(&buffer[..read]);
            if let Some(at) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = str::from_utf8(&answer[..at]).expect("a head");
                let length =
                    field(head, "content-length").map_or(0, |l| l.parse().expect("a length"));
                if answer.len() >= at + 4 + length {
                    break at;
                }
            }
        };
        let took = start.elapsed();
        let body = answer.split_off(end + 4);
        let head = String::from_utf8(answer).expect("a head");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        Answer { status, head, body, took }
    }
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }
}

pub fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().find_map(|line| {
        let (known, value) = line.split_once(':')?;
        known.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

/// What the daemon and the tokens are keyed with.
pub const SECRET: &str = "the secret key of the application, as Django has one";

/// The header of a user, as djangorestframework-simplejwt makes it, for a day.
pub fn bearer(user: u64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.expect("a time").as_secs();
    let claims = serde_json::json!({
        "token_type": "access", "exp": now + 86_400, "iat": now,
        "jti": "0123456789abcdef0123456789abcdef", "user_id": user,
    });
    let parts = [r#"{"alg":"HS256","typ":"JWT"}"#, &claims.to_string()];
    let signed = parts.map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()));
    format!("Authorization: Bearer {signed}.{signature}")
}
