//! What happens to daemons.

use std::time::{Duration, Instant};

use unstale::pipeline::points::Point;

use super::OFTEN;
use crate::stage::Stage;
use crate::support::Daemon;
use crate::what::Edit;

/// At most, on a slow machine.
const STARTS: Duration = Duration::from_secs(60);

/// How long whoever was overtaken goes on.
const THAWED: Duration = Duration::from_millis(500);

/// After that long nothing comes of it any more.
const PROVOKED: Duration = Duration::from_secs(2);

const QUERIES: [&str; 2] = ["to_jsonb(version)", "to_jsonb(version + 0)"];

const ENDPOINT: &str = r#"
[[endpoints]]
path = "/more/{id}/"
cache = "item"
envelope = "item"
who = "anyone"
parameters = { id = { path = "id", type = "integer" } }
"#;

impl Stage {
    pub(super) async fn freeze_daemon(&self, lasts: Duration) {
        let daemon = self.daemon.lock().await;
        daemon.signal("STOP");
        tokio::time::sleep(lasts).await;
        daemon.signal("CONT");
    }

    pub(super) async fn restart_daemon(&self) {
        let mut daemon = self.daemon.lock().await;
        self.end_daemon(&mut daemon).await;
        self.replace(&mut daemon, self.start());
    }

    /// SIGTERM, which it obeys as soon as it listens.
    async fn end_daemon(&self, daemon: &mut Daemon) {
        until_it_listens(daemon).await;
        self.look_at(daemon, false);
        daemon.signal("TERM");
        let ended = tokio::time::timeout(STARTS, daemon.child.wait()).await;
        let status = ended.expect("it ends within pipeline.drain_timeout").unwrap();
        if !status.success() {
            let wrong = format!("SIGTERM ended it with {status}\n{}", daemon.log());
            self.ledger.note(|tally| tally.other.push(wrong));
        }
    }

    /// Sees to it that the point comes, and starts another one when it has killed.
    pub(super) async fn kill_daemon_at(&self, point: Point, lasts: Duration) {
        let start = Instant::now();
        self.points.kill(point);
        while !self.points.is_reached(point) && start.elapsed() < lasts {
            self.provoke(point, lasts / 2).await;
            let provoked = Instant::now();
            while !self.points.is_reached(point) && provoked.elapsed() < PROVOKED.min(lasts) {
                tokio::time::sleep(OFTEN).await;
            }
        }
        if self.points.is_reached(point) {
            self.ledger.count("killed_at_points");
            tokio::time::sleep(OFTEN).await;
        }
        self.kill_daemon(Some(point)).await;
        self.points.go_on(point);
    }

    /// What leads to that point, if nothing hinders it just then.
    async fn provoke(&self, point: Point, within: Duration) {
        match point {
            Point::SlotCreated => self.drop_slot(within).await,
            Point::SlotTaken | Point::Claimed => self.end_walsender().await,
            Point::Declared | Point::Purged => self.redis(&["DEL", "unstale:unstale:state"]).await,
            Point::Closed => self.write("truncate permissions_role_permissions").await,
            Point::BetweenSteps => {
                self.write("update item set version = version where id between 101 and 200").await;
            }
            Point::Admitted | Point::Step | Point::Applied | Point::Report => {}
        }
    }

    pub(super) async fn replace_daemon(&self, lasts: Duration) {
        let mut daemon = self.daemon.lock().await;
        let (second, port) = self.start_another();
        tokio::time::sleep(lasts).await;
        self.succeed(&mut daemon, second, port).await;
    }

    /// It has the slot, unless the first one lets go of it meanwhile: then it gives it back.
    pub(super) async fn double_daemon(&self, lasts: Duration) {
        let _first = self.daemon.lock().await;
        let (mut second, _) = self.start_another();
        tokio::time::sleep(lasts).await;
        self.end_daemon(&mut second).await;
        self.count_gaps(&second);
    }

    pub(super) async fn overtake_daemon(&self, lasts: Duration) {
        let mut first = self.daemon.lock().await;
        first.signal("STOP");
        self.end_walsender().await;
        let (second, port) = self.start_another();
        let start = Instant::now();
        while start.elapsed() < lasts {
            if second.readyz().await.is_some_and(|readiness| readiness["ready"] == true) {
                self.ledger.count("overtaken");
                break;
            }
            tokio::time::sleep(OFTEN).await;
        }
        // What it had under way is on its way again, and must not do anything.
        first.signal("CONT");
        tokio::time::sleep(THAWED).await;
        self.succeed(&mut first, second, port).await;
    }

    /// The first one is killed, and the other is the daemon of the moment.
    async fn succeed(&self, first: &mut Daemon, second: Daemon, port: u16) {
        self.look_at(first, false);
        _ = first.child.kill().await;
        self.replace(first, second);
        self.serves_at(port);
    }

    pub(super) async fn reload_daemon(&self, edit: Edit, lasts: Duration) {
        let daemon = self.daemon.lock().await;
        until_it_listens(&daemon).await;
        let before = std::fs::read_to_string(&self.world.config).unwrap();
        let (of, to) = (QUERIES[0], QUERIES[1]);
        self.configure(&match edit {
            Edit::Query if before.contains(of) => before.replace(of, to),
            Edit::Query => before.replace(to, of),
            Edit::Endpoints if before.contains(ENDPOINT) => before.replace(ENDPOINT, ""),
            Edit::Endpoints => before.clone() + ENDPOINT,
            Edit::Broken => before.clone() + "\n[caches.broken]\nno_such_setting = 1\n",
        });
        daemon.signal("HUP");
        self.ledger.count("reloads");
        if edit == Edit::Broken {
            tokio::time::sleep(lasts).await;
            self.configure(&before);
            daemon.signal("HUP");
        }
    }

    /// Half a file is none.
    fn configure(&self, toml: &str) {
        let draft = self.world.config.with_extension("draft");
        std::fs::write(&draft, toml).unwrap();
        std::fs::rename(draft, &self.world.config).unwrap();
    }
}

/// Before it listens for signals, any would end it as it ends any program. It does so first of
/// all.
async fn until_it_listens(daemon: &Daemon) {
    let start = Instant::now();
    while daemon.get("/healthz").await.is_none() {
        assert!(start.elapsed() < STARTS, "the daemon does not listen\n{}", daemon.log());
        tokio::time::sleep(OFTEN).await;
    }
}
