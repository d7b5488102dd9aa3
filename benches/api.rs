//! What a hit of the read API costs: beside webdis, and beside a miss.
//!
//! webdis serves what Redis holds, to everybody. The read API verifies a token, knows who that
//! is, may refuse, asks Redis for the value together with the certificate, puts it into its
//! envelope, and adds an ETag, an age and where it came from. Both serve the same entries of the
//! same Redis (a user's permissions, of 1 KiB and 20 KiB), by two threads each,
//! in turns.
//!
//! A third sends the read API's answer, byte for byte, to whatever it is asked: without Redis, a login or
//! a look at the request. Nobody answers faster, so it says how much of a request is anybody's to save.
//!
//! wrk, Redis, Postgres and the server under test share the machine's cores. So whoever takes less
//! of them leaves more to the others, and a server that costs Redis less is faster for it: that
//! is what a user with one machine has, too. On a machine where wrk has cores of its own the
//! ratios will be others. Requests a second are what all of them together reach; the CPU time of each,
//! which depends less on that, is reported beside.
//!
//! Smaller and quicker: `BENCH_ROUNDS=1 BENCH_SECONDS=2 BENCH_DEALS=50000 BENCH_TIMES=20`.

mod support;

use std::time::{Duration, Instant};

use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use support::daemon::{Daemon, free_port, log_to};
use support::fixed::Fixed;
use support::goal::{Goal, Goals, Line};
use support::ground::Ground;
use support::http::{Connection, SECRET, bearer};
use support::report::{Samples, Table, publish};
use support::webdis::Webdis;
use support::{PATIENCE, machine, progress, size, wrk};

/// Members of one organization of 20 users, by the size of their permissions as they are cached.
const USERS: [(u64, usize); 2] = [(900_001, 1024), (900_002, 20_480)];
const ORGANIZATION: u64 = 9_001;

const FIXED: &str = "the same bytes, whatever is asked";

const PERMISSIONS: &str = "/api/cached/users/permissions/";
const PREFIX: &str = "prs_cache:1:v1:";

/// Each cache that an endpoint serves: its path, and what begins the keys of its entries.
const CACHES: [(&str, &str, &[&str]); 8] = [
    ("org_data", "/api/cached/organizations/1/info/", &["org:data:"]),
    ("user_perms", PERMISSIONS, &["user_perms:"]),
    ("deal_stats", "/api/cached/organizations/1/statistics/?days=90", &["deal_stats:"]),
    ("role_info", "/api/cached/organizations/1/roles/", &["role_info:"]),
    (
        "api_dashboard, all its parts",
        "/api/cached/users/dashboard/",
        &["org:data:", "user_perms:", "deal_stats:", "role_info:", "api_response:dashboard:"],
    ),
    (
        "api_analytics",
        "/api/cached/analytics/deal-analytics/?organization_id=1&days=90",
        &["api_response:analytics:"],
    ),
    (
        "api_statistics",
        "/api/cached/analytics/performance-metrics/?organization_id=1",
        &["api_response:statistics:"],
    ),
    ("api_search", "/api/cached/search/deals/?organization_id=1&q=labs", &["api_response:search:"]),
];

/// A superuser of the demo, in its first and largest organization.
const SUPERUSER: u64 = 1;

fn main() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    #[expect(clippy::expect_used, reason = "without a runtime there is no benchmark")]
    runtime.expect("a runtime").block_on(run());
}

#[expect(clippy::expect_used, reason = "a benchmark fails by panicking")]
async fn run() {
    let rounds = size("BENCH_ROUNDS", 5);
    let seconds = size("BENCH_SECONDS", 5);
    let ground = Ground::with_deals(size("BENCH_DEALS", 200_000)).await;
    members(&ground).await;
    let machine = machine::describe(&ground.postgres);
    let folder = tempfile::tempdir().expect("a folder");
    let site = Site {
        redis: ground.redis.connection_db(1).await.expect("Redis answers"),
        webdis: Webdis::start(&ground.redis, 1, folder.path()).await,
        folder: folder.path().to_owned(),
        ground,
        seconds,
    };
    let hits = site.hits(rounds).await;
    let misses = site.misses(size("BENCH_TIMES", 200)).await;
    let goals = hits.iter().zip(USERS).flat_map(|(hits, (_, bytes))| {
        [goal(hits, bytes, "webdis", Some(Goal::AtLeast(1.5))), goal(hits, bytes, FIXED, None)]
    });
    let goals = Goals(goals.collect());
    let [small, large] = &hits;
    publish("api", &machine, &[small, large, &misses, &goals]);
}

/// Requests a second, beside another's.
fn goal(hits: &Table, bytes: usize, other: &str, goal: Option<Goal>) -> Line {
    let per_second = |name: &str| hits.get(name, "requests/s");
    let (ours, theirs) = (per_second("Unstale"), per_second(other));
    Line {
        what: format!("api: hits of {bytes} bytes"),
        ours: format!("{ours:.0} requests/s"),
        beside: format!("{other}: {theirs:.0} requests/s"),
        reached: ours / theirs,
        unit: "times as many",
        goal,
    }
}

/// Users whose permissions are, as they are cached, of just these sizes.
#[expect(clippy::expect_used, reason = "a benchmark fails by panicking")]
async fn members(ground: &Ground) {
    let client = ground.postgres.client().await.expect("a client");
    let run = |sql: String| {
        let client = &client;
        async move { client.batch_execute(&sql).await.expect("the rows are written") }
    };
    run(format!(
        "insert into organization_organization (id, name, is_active, created_at, updated_at) \
         values ({ORGANIZATION}, 'Bench', true, now(), now())"
    ))
    .await;
    let query = include_str!("../sql/caches/user_perms.sql")
        .replace("$user_id", "{user}")
        .replace("$org_id", &ORGANIZATION.to_string());
    for (user, bytes) in USERS {
        // Each takes some hundred bytes; the last one's name fills what is left.
        let permissions = (bytes - 200) / 110;
        run(format!(
            "insert into permissions_role (id, name, organization_id) values ({user}, 'Bench {user}', {ORGANIZATION}); \
             insert into auth_permission (id, name, content_type_id, codename) \
               select {user} * 1000 + i, 'Can do what ' || lpad(i::text, 4, '0') || ' says', 6, 'bench_{user}_' || lpad(i::text, 4, '0') \
                 from generate_series(1, {permissions}) i; \
             insert into permissions_role_permissions (role_id, permission_id) \
               select {user}, {user} * 1000 + i from generate_series(1, {permissions}) i; \
             insert into authentication_user (id, password, is_superuser, email, first_name, last_name, is_active, date_joined, organization_id, role_id) \
               select {user} + 100 * i, '', false, ({user} + 100 * i) || '@bench', '', '', true, now(), {ORGANIZATION}, {user} \
                 from generate_series(0, 9) i"
        ))
        .await;
        let value = query.replace("{user}", &user.to_string());
        let length = format!("select octet_length(value::text) from ({value}) v");
        let has: i32 = client.query_one(&length, &[]).await.expect("the value").get(0);
        let lacks = bytes.checked_sub(has.unsigned_abs() as usize).expect("it is not too long yet");
        let per = lacks / permissions;
        let rest = lacks % permissions;
        run(format!(
            "update auth_permission set name = name || repeat('.', {per} + case when id = {user} * 1000 + 1 then {rest} else 0 end) \
              where id between {user} * 1000 and {user} * 1000 + 999"
        ))
        .await;
    }
}

struct Site {
    redis: MultiplexedConnection,
    webdis: Webdis,
    folder: std::path::PathBuf,
    ground: Ground,
    seconds: u64,
}

/// Requests a second, their times, and what CPU they took of the server and of Redis.
struct Contender {
    name: &'static str,
    per_second: Samples,
    p50: Samples,
    p99: Samples,
    own_cpu: Samples,
    redis_cpu: Samples,
}

impl Contender {
    fn new(name: &'static str) -> Contender {
        let samples = || Samples::new(name);
        Contender {
            name,
            per_second: samples(),
            p50: samples(),
            p99: samples(),
            own_cpu: samples(),
            redis_cpu: samples(),
        }
    }

    fn row(&self, yardstick: &Contender) -> (String, Vec<f64>) {
        let all = [&self.per_second, &self.p50, &self.p99, &self.own_cpu, &self.redis_cpu];
        let mut values: Vec<f64> = all.iter().map(|samples| samples.median()).collect();
        values.insert(1, self.per_second.min());
        values.insert(2, self.per_second.max());
        values.push(self.per_second.median() / yardstick.per_second.median());
        (self.name.to_owned(), values)
    }
}

#[expect(clippy::expect_used, reason = "a benchmark fails by panicking")]
impl Site {
    /// A daemon whose API answers and whose cache can be trusted.
    async fn daemon(&self, access_log: &str) -> (Daemon, u16) {
        let port = free_port();
        let settings = [
            format!("api.listen=127.0.0.1:{port}"),
            format!("api.jwt.secret={SECRET}"),
            format!("api.access_log={access_log}"),
            log_to(&self.folder),
        ];
        let daemon = Daemon::start(&self.ground, "bench", &settings).await;
        for (user, _) in USERS {
            until_hit(port, PERMISSIONS, user).await;
        }
        (daemon, port)
    }

    async fn hits(&self, rounds: u64) -> [Table; 2] {
        let mut all = USERS.map(|_| {
            ["Unstale", "Unstale, each request logged (the default)", "webdis", FIXED]
                .map(Contender::new)
        });
        for round in 0..rounds {
            progress(&format!("hits: round {} of {rounds}", round + 1));
            for access_log in ["errors", "all"] {
                let (daemon, port) = self.daemon(access_log).await;
                for ((user, bytes), [quiet, logging, webdis, fixed]) in
                    USERS.into_iter().zip(&mut all)
                {
                    let is_quiet = access_log == "errors";
                    let unstale = if is_quiet { quiet } else { logging };
                    self.same_bytes(port, user, bytes).await;
                    let url = format!("http://127.0.0.1:{port}{PERMISSIONS}");
                    let before = hits(daemon.admin);
                    let cpu = || daemon.cpu_seconds();
                    let requests = self.load(unstale, &url, Some(&bearer(user)), &cpu).await;
                    let counted = hits(daemon.admin) - before;
                    assert!(counted >= requests, "{counted} hits, and wrk had {requests} answers");
                    if is_quiet {
                        let url =
                            format!("http://127.0.0.1:{}{}", self.webdis.port, webdis_path(user));
                        let cpu = || self.webdis.cpu_seconds();
                        self.load(webdis, &url, None, &cpu).await;
                        let answer = get(port, PERMISSIONS, Some(&bearer(user)));
                        let server = Fixed::start([answer.head.as_bytes(), &answer.body].concat());
                        let url = format!("http://127.0.0.1:{}/", server.port);
                        let cpu = || machine::cpu_seconds(std::process::id());
                        self.load(fixed, &url, None, &cpu).await;
                    }
                }
                if round + 1 == rounds && access_log == "all" {
                    self.still_fresh(port).await;
                    daemon.verify().await;
                }
                daemon.stop().await;
            }
        }
        let mut tables = all.iter().zip(USERS).map(|(contenders, (_, bytes))| {
            let [.., webdis, _] = contenders;
            Table {
                name: format!("Hits of a value of {bytes} bytes, by wrk -t 2 -c 64"),
                columns: vec![
                    ("requests/s", 0), ("min", 0), ("max", 0), ("p50 ms", 2), ("p99 ms", 2),
                    ("its CPU µs a request", 1), ("Redis' CPU µs a request", 1), ("ratio", 2),
                ],
                rows: contenders.iter().map(|contender| contender.row(webdis)).collect(),
                notes: vec![
                    format!("medians of {rounds} rounds of {} s, in turns; ratio of requests/s to webdis", self.seconds),
                    "wrk, Redis, Postgres and each server in turn share the cores; logging nothing but errors is what webdis does".to_owned(),
                ],
            }
        });
        let table = tables.next().expect("two sizes");
        [table, tables.next().expect("two sizes")]
    }

    /// One round of one contender.
    async fn load(
        &self,
        contender: &mut Contender,
        url: &str,
        header: Option<&str>,
        cpu: &dyn Fn() -> f64,
    ) -> f64 {
        let redis = || machine::cpu_seconds(self.ground.redis.pid().expect("Redis runs"));
        // What is held is held, connections to Redis are open.
        wrk::run(&self.folder, url, header, 64, 1).await;
        let before = (cpu(), redis());
        let load = wrk::run(&self.folder, url, header, 64, self.seconds).await;
        let micros = |seconds: f64| seconds / load.requests * 1e6;
        contender.own_cpu.values.push(micros(cpu() - before.0));
        contender.redis_cpu.values.push(micros(redis() - before.1));
        contender.per_second.values.push(load.per_second);
        contender.p50.values.push(load.p50_ms);
        contender.p99.values.push(load.p99_ms);
        progress(&format!(
            "{}: {:.0} requests/s, p50 {:.2} ms, p99 {:.2} ms; CPU a request {:.1} µs, Redis {:.1} µs",
            contender.name,
            load.per_second,
            load.p50_ms,
            load.p99_ms,
            micros(cpu() - before.0),
            micros(redis() - before.1)
        ));
        load.requests
    }

    /// Both serve what Redis holds, byte for byte, and that is as large as it should be.
    async fn same_bytes(&self, port: u16, user: u64, bytes: usize) {
        let key = format!("{PREFIX}user_perms:{user}:{ORGANIZATION}");
        let value: Vec<u8> = self.redis.clone().get(&key).await.expect("Redis answers");
        assert_eq!(value.len(), bytes, "the value of {key}");
        let answer = get(port, PERMISSIONS, Some(&bearer(user)));
        let body = answer.body.strip_prefix(b"{\"permissions\":").expect("the envelope");
        assert!(body.starts_with(&value), "Unstale serves something else");
        // It may still be busy with those of the last round, who have gone away.
        let begun = Instant::now();
        loop {
            let answer = get(self.webdis.port, &webdis_path(user), None);
            if answer.body == value {
                return;
            }
            let late = begun.elapsed() > Duration::from_secs(10);
            assert!(!late, "webdis serves something else: {}", answer.head);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// A change shows: what was measured was not a copy.
    async fn still_fresh(&self, port: u16) {
        let (user, _) = USERS[0];
        let sql = format!("update permissions_role set name = 'Renamed' where id = {user}");
        self.ground.postgres.execute(&sql).await.expect("the change");
        let begun = Instant::now();
        while !has(&get(port, PERMISSIONS, Some(&bearer(user))).body, b"\"Renamed\"") {
            assert!(begun.elapsed() < Duration::from_secs(10), "a change does not show");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let sql = format!("update permissions_role set name = 'Bench {user}' where id = {user}");
        self.ground.postgres.execute(&sql).await.expect("the change");
        until_hit(port, PERMISSIONS, user).await;
    }

    /// A miss beside a hit, of each cache, one request at a time.
    async fn misses(&self, times: u64) -> Table {
        let (daemon, port) = self.daemon("errors").await;
        let header = bearer(SUPERUSER);
        let mut connection = Connection::open(port).expect("the API listens");
        let mut rows = Vec::new();
        for (cache, path, prefixes) in CACHES {
            progress(&format!("hits and misses of {cache}"));
            until_hit(port, path, SUPERUSER).await;
            let (mut hit, mut miss) = (Samples::new("hit"), Samples::new("miss"));
            let mut bytes = 0;
            for _ in 0..times {
                let removed = self.remove(prefixes).await;
                assert!(removed > 0, "nothing was cached of {cache}");
                for (samples, expected) in [(&mut miss, "fwd=miss; stored"), (&mut hit, "; hit")] {
                    let answer = connection.get(path, Some(&header));
                    let how = answer.header("cache-status").unwrap_or_default();
                    assert!(
                        answer.status == 200 && how.ends_with(expected),
                        "{cache}: {}",
                        answer.head
                    );
                    samples.values.push(answer.took.as_secs_f64() * 1e3);
                    bytes = answer.body.len();
                }
            }
            let bytes = f64::from(u32::try_from(bytes).unwrap_or(u32::MAX));
            let ratio = miss.median() / hit.median();
            let figures = [&miss, &hit].map(|s| [s.median(), s.percentile(99)]).concat();
            rows.push((cache.to_owned(), [vec![bytes], figures, vec![ratio]].concat()));
        }
        daemon.verify().await;
        daemon.stop().await;
        Table {
            name: "A miss and a hit of each cache, one request at a time".to_owned(),
            columns: vec![
                ("bytes", 0),
                ("miss p50 ms", 2),
                ("p99", 2),
                ("hit p50 ms", 2),
                ("p99", 2),
                ("speed-up", 1),
            ],
            rows,
            notes: vec![
                format!(
                    "{times} times, of the demo's largest organization; a miss takes a lease, asks Postgres (which has all in memory) and stores"
                ),
                "identity has no endpoint: the process holds it".to_owned(),
            ],
        }
    }

    /// As if they had ended: the daemon is not told.
    async fn remove(&self, prefixes: &[&str]) -> usize {
        let mut redis = self.redis.clone();
        let mut removed = 0;
        for prefix in prefixes {
            let keys: Vec<String> = redis::cmd("SCAN")
                .arg(0)
                .arg("MATCH")
                .arg(format!("{PREFIX}{prefix}*"))
                .arg("COUNT")
                .arg(100_000)
                .query_async::<(String, Vec<String>)>(&mut redis)
                .await
                .expect("Redis answers")
                .1;
            removed += keys.len();
            if !keys.is_empty() {
                let _: () = redis.unlink(keys).await.expect("Redis answers");
            }
        }
        removed
    }
}

fn webdis_path(user: u64) -> String {
    format!("/GET/{PREFIX}user_perms:{user}:{ORGANIZATION}.txt")
}

#[expect(clippy::expect_used, reason = "a benchmark fails by panicking")]
fn get(port: u16, path: &str, header: Option<&str>) -> support::http::Answer {
    Connection::open(port).expect("it listens").get(path, header)
}

/// Waits until a user's request is a hit.
async fn until_hit(port: u16, path: &str, user: u64) {
    let begun = Instant::now();
    let header = bearer(user);
    loop {
        if let Some(mut connection) = Connection::open(port) {
            let answer = connection.get(path, Some(&header));
            if answer.header("cache-status").is_some_and(|how| how.ends_with("; hit")) {
                return;
            }
        }
        assert!(begun.elapsed() < PATIENCE, "{path} does not become a hit");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// How many hits of permissions the daemon has counted.
fn hits(admin: u16) -> f64 {
    let metrics = get(admin, "/metrics", None).body;
    let metrics = String::from_utf8_lossy(&metrics);
    let mut lines = metrics.lines().filter(|line| {
        line.starts_with("unstale_cache_reads_total")
            && line.contains("cache=\"user_perms\"")
            && line.contains("result=\"hit\"")
    });
    let line = lines.next().and_then(|line| line.rsplit_once(' '));
    line.map_or(0.0, |(_, value)| value.parse().unwrap_or(f64::NAN))
}

fn has(body: &[u8], part: &[u8]) -> bool {
    body.windows(part.len()).any(|window| window == part)
}
