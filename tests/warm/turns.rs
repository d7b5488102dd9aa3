//! Of several who would do a scheduled task one does it, and what is due when outlives them all.

use std::time::Duration;

use crate::support::until;
use redis::AsyncCommands;
use unstale::config::model;
use unstale::sandbox::Redis;
use unstale::store::keys::ControlKeys;
use unstale::store::schedule::{Again, Begin, Records, Task};
use unstale::store::session::Address;

const KEY: &str = "unstale:s:schedule:report";
const HOUR: Duration = Duration::from_secs(3600);
const LONG: Duration = Duration::from_secs(60);
const NONE: Duration = Duration::ZERO;
const GO: Begin = Begin::Go { anew: false };

struct Ground {
    redis: Redis,
    records: Records,
}

impl Ground {
    async fn new() -> Self {
        _ = rustls::crypto::ring::default_provider().install_default();
        let redis = Redis::start().await.unwrap();
        let config = format!(r#"{{ "url": "{}" }}"#, redis.url_db(1));
        let config: model::Redis = serde_json::from_str(&config).unwrap();
        let records = Records::new(Address::new(&config).unwrap(), ControlKeys::new("s"));
        Ground { redis, records }
    }

    async fn begin(&self, task: &Task, first: Duration, longest: Duration) -> Begin {
        self.records.begin(task, first, longest).await.unwrap()
    }

    async fn renew(&self, task: &Task) -> bool {
        self.records.renew(task).await.unwrap()
    }

    async fn end(&self, task: &Task, after_begin: Duration, at_least: Duration) -> bool {
        let again = Again { after_begin, at_least };
        self.records.end(task, again, "done", "it went \"well\"").await.unwrap()
    }
}

fn task(token: &str, turn: Duration) -> Task {
    Task::new(&ControlKeys::new("s"), "report", token, HOUR).with_turn(turn)
}

fn waits_about(begin: Begin, expected: Duration) {
    let Begin::Wait(wait) = begin else { panic!("{begin:?}") };
    assert!(wait <= expected && wait + LONG > expected, "{wait:?}, expected {expected:?}");
}

#[tokio::test]
async fn one_of_two_has_the_turn_until_it_ends_it() {
    let ground = Ground::new().await;
    let (a, b) = (task("a", LONG), task("b", LONG));
    assert_eq!(ground.begin(&a, NONE, HOUR).await, GO);
    waits_about(ground.begin(&b, NONE, HOUR).await, LONG);
    assert_eq!(ground.begin(&a, NONE, HOUR).await, GO, "its answer was lost");
    assert!(ground.renew(&a).await && !ground.renew(&b).await && !ground.end(&b, HOUR, NONE).await);
    assert!(ground.end(&a, HOUR, NONE).await);
    assert!(!ground.end(&a, HOUR, NONE).await, "it has ended");
    waits_about(ground.begin(&a, NONE, HOUR).await, HOUR);
    waits_about(ground.begin(&b, NONE, HOUR).await, HOUR);
}

#[tokio::test]
async fn the_turn_of_one_who_died_or_froze_goes_to_another_and_does_not_come_back() {
    let ground = Ground::new().await;
    let (frozen, other) = (task("frozen", Duration::from_millis(100)), task("other", LONG));
    assert_eq!(ground.begin(&frozen, NONE, HOUR).await, GO);
    let anew = until("the turn to expire", async || match ground.begin(&other, NONE, HOUR).await {
        Begin::Go { anew } => Some(anew),
        Begin::Wait(_) => None,
    })
    .await;
    assert!(anew, "it is told that another had begun");
    assert!(!ground.renew(&frozen).await, "thawed, it notices");
    assert!(!ground.end(&frozen, NONE, NONE).await, "and ends nothing of the other's");
    waits_about(ground.begin(&frozen, NONE, HOUR).await, LONG);
    assert!(ground.end(&other, HOUR, NONE).await);
}

#[tokio::test]
async fn what_is_due_when_is_remembered_and_a_shorter_period_holds_at_once() {
    let ground = Ground::new().await;
    let a = task("a", LONG);
    waits_about(ground.begin(&a, 4 * HOUR, 5 * HOUR).await, 4 * HOUR);
    waits_about(ground.begin(&a, NONE, 5 * HOUR).await, 4 * HOUR);
    waits_about(ground.begin(&a, NONE, HOUR).await, HOUR);
    // Its record was lost, or is something else.
    let mut values = ground.redis.connection_db(1).await.unwrap();
    let _: () = values.del(KEY).await.unwrap();
    waits_about(ground.begin(&a, 2 * HOUR, 5 * HOUR).await, 2 * HOUR);
    for other in ["no JSON", "7", "{}"] {
        let _: () = values.set(KEY, other).await.unwrap();
        waits_about(ground.begin(&a, HOUR, 5 * HOUR).await, HOUR);
    }
    let left: i64 = values.pttl(KEY).await.unwrap();
    assert!(left > 0, "a task that is not in any configuration any more is forgotten");
}

#[tokio::test]
async fn a_task_that_takes_longer_than_its_period_pauses_first() {
    let ground = Ground::new().await;
    let a = task("a", LONG);
    assert_eq!(ground.begin(&a, NONE, HOUR).await, GO);
    assert!(ground.end(&a, NONE, HOUR).await);
    waits_about(ground.begin(&a, NONE, 2 * HOUR).await, HOUR);
}
