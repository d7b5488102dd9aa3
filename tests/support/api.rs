//! The read API of a real daemon, with users of every kind, and a client that sends bytes.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Daemon, PATIENCE, World, free_port, until};

pub const SECRET: &str = "the secret key of the application, as Django has one";

/// Users, by what they are.
pub const MEMBER: u32 = 1;
pub const OTHER_MEMBER: u32 = 2;
pub const ADMIN: u32 = 3;
pub const SUPERUSER: u32 = 4;
pub const INACTIVE: u32 = 5;
pub const NOWHERE: u32 = 6;
pub const MEMBER_OF_INACTIVE: u32 = 7;

/// Whoever may ask: anonymous, member of organization 1, member of 2, admin of 1, superuser,
/// inactive, of no organization, admin of an inactive one.
pub const ROLES: [Option<u32>; 8] = [
    None,
    Some(MEMBER),
    Some(OTHER_MEMBER),
    Some(ADMIN),
    Some(SUPERUSER),
    Some(INACTIVE),
    Some(NOWHERE),
    Some(MEMBER_OF_INACTIVE),
];

const ROWS: &str = "
insert into organization_organization (id, name, is_active, created_at, updated_at)
values (1, 'one', true, '2026-01-02 03:04:05.678901+00', now()), (2, 'two', true, now(), now()), (3, 'three', false, now(), now());
insert into django_content_type (id, app_label, model) values (1, 'deals', 'deal');
insert into auth_permission (id, name, content_type_id, codename) values (1, 'Can add deal', 1, 'add_deal');
insert into permissions_role (id, name, organization_id) values (1, 'Sales', 1), (2, 'Org-Admin', 1), (3, 'Sales', 2), (4, 'organization admin', 3);
insert into permissions_role_permissions (role_id, permission_id) values (1, 1), (2, 1);
insert into authentication_user (id, password, is_superuser, email, first_name, last_name, is_active, date_joined, organization_id, role_id)
values (1, '', false, '1@x', '', '', true, now(), 1, 1),
       (2, '', false, '2@x', '', '', true, now(), 2, 3),
       (3, '', false, '3@x', '', '', true, now(), 1, 2),
       (4, '', true, '4@x', '', '', true, now(), null, null),
       (5, '', false, '5@x', '', '', false, now(), 1, 2),
       (6, '', false, '6@x', '', '', true, now(), null, null),
       (7, '', false, '7@x', '', '', true, now(), 3, 4);
insert into clients_client (id, client_name, organization_id, created_at, updated_at) values (1, 'Acme', 1, now(), now());
insert into deals_deal (id, deal_id, organization_id, client_id, deal_name, deal_value, verification_status, payment_status, payment_method, source_type, deal_date, created_at, updated_at)
values ('00000000-0000-0000-0000-000000000001', 'D-1', 1, 1, 'Big deal', 100.50, 'verified', 'full_payment', 'bank', 'google', '2026-01-01', now(), now());
";

/// A world with rows, and an address for the API.
pub struct Site {
    pub world: World,
    pub client: Client,
}

/// Who asks a daemon's API.
#[derive(Clone, Copy)]
pub struct Client {
    pub port: u16,
}

impl std::ops::Deref for Site {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Site {
    pub async fn new() -> Site {
        let world = World::new().await;
        world.postgres.execute(ROWS).await.expect("the rows");
        Site::of(world)
    }

    /// The same for a world of one's own.
    pub fn of(mut world: World) -> Site {
        let port = free_port();
        world.set("api.enabled=true");
        world.set(&format!("api.listen=127.0.0.1:{port}"));
        world.set(&format!("api.jwt.secret={SECRET}"));
        Site { world, client: Client { port } }
    }

    /// Daemons that are started from here on serve at another address.
    pub fn elsewhere(&mut self) -> Client {
        let port = free_port();
        self.world.set(&format!("api.listen=127.0.0.1:{port}"));
        Client { port }
    }

    /// Starts the daemon and waits until the cache can be trusted and the API answers.
    pub async fn daemon(&self) -> Daemon {
        let daemon = self.world.daemon().await;
        self.until_served().await;
        daemon
    }
}

impl Client {
    pub async fn until_served(&self) {
        until("the API to listen", async || self.try_get("/", &[]).await).await;
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).await.expect("the API listens")
    }

    /// What comes back of these bytes until the connection is closed.
    pub async fn raw(&self, request: &[u8]) -> Option<Vec<u8>> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
        stream.write_all(request).await.ok()?;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        read.expect("an answer in time").ok()?;
        Some(answer)
    }

    pub async fn request(&self, line: &str, headers: &[(&str, &str)]) -> Option<Answer> {
        let headers: String = headers.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
        let request = format!("{line} HTTP/1.1\r\nHost: api\r\nConnection: close\r\n{headers}\r\n");
        Answer::parse(&self.raw(request.as_bytes()).await?)
    }

    pub async fn try_get(&self, path: &str, headers: &[(&str, &str)]) -> Option<Answer> {
        self.request(&format!("GET {path}"), headers).await
    }

    pub async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.try_get(path, headers).await.expect("an answer")
    }

    /// As a user.
    pub async fn get_as(&self, user: u32, path: &str) -> Answer {
        self.get(path, &[("Authorization", &bearer(user))]).await
    }
}

impl Answer {
    pub fn parse(bytes: &[u8]) -> Option<Answer> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&bytes[..end]).ok()?;
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(n, v)| (n.to_lowercase(), v.to_owned())).collect();
        let answer = Answer { status, headers, body: bytes[end + 4..].to_vec() };
        // Whoever answers, and whatever: what has a body is not taken for something else.
        let sniffed = answer.header("x-content-type-options") != Some("nosniff");
        assert!(answer.body.is_empty() || !sniffed, "{answer:?}");
        Some(answer)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a text")
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The last part of a problem's type.
    pub fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        assert_eq!(self.header("cache-control"), Some("no-store"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{self:?}");
        let name = problem["type"].as_str().expect("a type").rsplit(':').next();
        name.unwrap_or_default().to_owned()
    }
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_secs()
}

/// The header's value for a user, as djangorestframework-simplejwt makes it.
pub fn bearer(user: u32) -> String {
    let claims = serde_json::json!({
        "token_type": "access", "exp": now() + 300, "iat": now(), "jti": "f00", "user_id": user,
    });
    format!("Bearer {}", token(r#"{"alg":"HS256","typ":"JWT"}"#, &claims.to_string(), SECRET))
}

/// Signed by HMAC with SHA-256, whatever the header says.
pub fn token(header: &str, claims: &str, secret: &str) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes())))
}
