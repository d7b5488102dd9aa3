//! What a Django application reads from the cache is what the database says, however it
//! writes: the ways in which signals-based invalidation goes wrong, one by one, with the
//! real Django and django-redis (`tests/django`) beside the real daemon.
//!
//! Django's own ORM is the judge: it computes each value a second time, without the SQL of
//! the loaders. Needs Python; installs Django from PyPI once, and fails where it cannot.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::python::{Django, python};
use crate::support::{Daemon, PATIENCE, World};
use redis::AsyncCommands;
use serde_json::{Map, Value, json};
use unstale::config::Override;
use unstale::fill::filler::Filler;
use unstale::loader::load::{Bounds, Loader};
use unstale::mapping::Mapping;
use unstale::metrics::Metrics;
use unstale::postgres::conninfo::ConnectOptions;
use unstale::rules::Rules;
use unstale::store::fills::Fills;
use unstale::store::keys::ControlKeys;
use unstale::store::session::Address;

const SIZES: &str =
    "set demo.organizations = 4; set demo.users = 24; set demo.deals = 400; set demo.clients = 8;";

const DROPPED_WHOLE: &str = r#"unstale_escalations_total{cache="role_info",reason="rule"}"#;

/// Values by the application's key.
type Values = BTreeMap<String, Value>;

/// An application with its database and its cache, and Unstale beside them.
struct Site {
    world: World,
    daemon: Daemon,
    heart: tokio_postgres::Client,
    redis: redis::aio::MultiplexedConnection,
    django: Django,
    filler: Arc<Filler>,
    mapping: Arc<Mapping>,
    /// Every entry there has been so far: its cache, parameters and key.
    entries: BTreeMap<String, Value>,
    days: &'static [u32],
}

impl Site {
    /// The demo's rows, and an empty cache.
    async fn new(warm: bool, days: &'static [u32]) -> Site {
        let python = python();
        not_across_midnight().await;
        let mut world = World::new().await;
        world.set(&format!("warm.enabled={warm}"));
        let rows =
            std::fs::read_to_string(crate::support::root().join("sql/demo/data.sql")).unwrap();
        world.postgres.execute(&format!("{SIZES}{rows}")).await.unwrap();
        world.publish_heartbeat().await;
        let mut django = Django::start(python, &world);
        django.call(json!(["prepare"])).await;
        let daemon = world.daemon().await;
        let (filler, mapping) = filler(&world);
        Site {
            heart: world.postgres.client().await.unwrap(),
            redis: world.values().await,
            world,
            daemon,
            django,
            filler,
            mapping,
            entries: BTreeMap::new(),
            days,
        }
    }

    /// Looks for entries that have become possible.
    async fn find_entries(&mut self) {
        for entry in array(self.django.call(json!(["entries", self.days])).await) {
            self.entries.insert(entry[2].as_str().unwrap().to_owned(), entry);
        }
    }

    /// Reads each entry through the cache, as the application's servers do.
    async fn fill(&self) {
        for entry in self.entries.values() {
            let (cache, _) = self.mapping.cache_by_name(entry[0].as_str().unwrap()).unwrap();
            let parameters: Vec<(&str, String)> = entry[1]
                .as_object()
                .unwrap()
                .iter()
                .map(|(name, value)| (name.as_str(), value.to_string()))
                .collect();
            let parameters: Vec<_> = parameters.iter().map(|(n, v)| (*n, v.as_str())).collect();
            self.filler.read(cache, &parameters).await.unwrap();
        }
    }

    /// What Django's cache gives.
    async fn cached(&mut self) -> Values {
        let keys: Vec<_> = self.entries.keys().collect();
        values(self.django.call(json!(["get", keys])).await)
    }

    /// What Django's ORM says: what there has to be in a cache that holds everything.
    async fn truth(&mut self) -> Values {
        let entries: Vec<_> = self.entries.values().collect();
        let mut truth = values(self.django.call(json!(["truth", entries])).await);
        truth.retain(|_, value| !value.is_null());
        truth
    }

    async fn settle(&mut self) {
        self.world.settle_quickly(&self.heart, &mut self.redis).await;
    }

    async fn writes(&mut self) -> Vec<String> {
        strings(self.django.call(json!(["writes"])).await)
    }
}

/// Reads through the cache by lease, in the test's own process.
fn filler(world: &World) -> (Arc<Filler>, Arc<Mapping>) {
    let overrides: Vec<Override> = world.settings.iter().map(|s| s.parse().unwrap()).collect();
    let loaded = unstale::config::load(Some(&world.config), &overrides).unwrap();
    let rules = Rules::compile(&loaded).unwrap();
    let bounds = Bounds {
        connections: 2,
        statement_timeout: Duration::from_secs(5),
        wait: Duration::from_secs(10),
    };
    let options = ConnectOptions::parse(&world.postgres.url()).unwrap();
    let loader = Loader::new(&rules, options, bounds).unwrap();
    let fills =
        Fills::new(Address::new(&loaded.config.redis).unwrap(), ControlKeys::new("unstale"));
    let mapping = Arc::clone(&rules.mapping);
    let prefix = &loaded.config.redis.key_prefix;
    let metrics = Metrics::new().unwrap();
    (Arc::new(Filler::new(fills, loader, Arc::clone(&mapping), prefix, metrics)), mapping)
}

/// The last days end at midnight, and what was right before is not after. Waits until a day
/// begins that is about to.
async fn not_across_midnight() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let left = 86_400 - now % 86_400;
    if left < 60 {
        tokio::time::sleep(Duration::from_secs(left)).await;
    }
}

fn array(value: Value) -> Vec<Value> {
    serde_json::from_value(value).unwrap()
}

fn strings(value: Value) -> Vec<String> {
    serde_json::from_value(value).unwrap()
}

fn values(value: Value) -> Values {
    let map: Map<String, Value> = serde_json::from_value(value).unwrap();
    map.into_iter().collect()
}

/// The keys at which two sets of values differ.
fn differing(one: &Values, other: &Values) -> BTreeSet<String> {
    let keys = one.keys().chain(other.keys());
    keys.filter(|key| one.get(*key) != other.get(*key)).cloned().collect()
}

/// Fails with the first value that is not as it has to be.
fn assert_same(cached: &Values, truth: &Values, when: &str) {
    if let Some(key) = differing(cached, truth).first() {
        panic!(
            "{when}: {key}\n  is in the cache: {}\n  and has to be:   {}",
            cached.get(key).unwrap_or(&Value::Null),
            truth.get(key).unwrap_or(&Value::Null)
        );
    }
}

#[tokio::test]
async fn django_finds_each_value_by_its_own_key_and_its_orm_agrees() {
    let mut site = Site::new(false, &[7, 30, 90, 365]).await;
    let tables = site.django.call(json!(["tables"])).await;
    assert_eq!(tables["demo"], tables["django"], "the demo's tables are those that Django makes");
    site.django.call(json!(["unusual_rows"])).await;
    site.settle().await;
    site.find_entries().await;
    site.fill().await;

    let truth = site.truth().await;
    for cache in ["org:data", "user_perms", "identity", "role_info", "deal_stats"] {
        let keys = truth.keys().filter(|key| key.starts_with(&format!("v1:{cache}:"))).count();
        assert!(keys > 8, "{keys} entries of {cache} prove little");
    }
    assert_same(&site.cached().await, &truth, "after the fills");
    let keys: BTreeSet<String> = truth.keys().cloned().collect();
    assert_eq!(site.world.keys().await, keys, "and Redis holds these and no others");

    for (key, longest) in
        [("v1:org:data:1", 3600), ("v1:identity:1", 300), ("v1:deal_stats:1:30", 900)]
    {
        let described = site.django.call(json!(["describe", key])).await;
        assert_eq!(described["redis_key"], format!("prs_cache:1:{key}"));
        assert_eq!(described["value"], truth[key]);
        let ttl = described["ttl"].as_i64().unwrap();
        assert!(ttl > 0 && ttl <= longest, "{key} lives for another {ttl} s");
        let raw: String = site.redis.get(format!("prs_cache:1:{key}")).await.unwrap();
        assert_eq!(serde_json::from_str::<Value>(&raw).unwrap(), truth[key], "plain JSON");
    }
}

#[tokio::test]
async fn after_each_kind_of_write_what_it_made_stale_is_gone_and_a_bystander_stays() {
    let mut site = Site::new(false, &[30]).await;
    site.find_entries().await;
    site.fill().await;
    let mut before = site.truth().await;
    assert_same(&site.cached().await, &before, "after the first fills");

    for write in site.writes().await {
        let expected = strings(site.django.call(json!(["write", write])).await);
        site.settle().await;
        site.find_entries().await;
        let truth = site.truth().await;
        let changed = differing(&before, &truth);
        for key in &expected {
            assert!(changed.contains(key), "{write} was to change {key}");
        }
        assert_eq!(expected.is_empty(), changed.is_empty(), "{write} changed {changed:?}");

        let cached = site.cached().await;
        for key in &changed {
            assert_eq!(cached.get(key), None, "{write}: {key} is stale");
        }
        for (key, value) in &before {
            let bystander = key.starts_with("v1:org:data:4")
                || key.starts_with("v1:role_info:4")
                || key.starts_with("v1:deal_stats:4");
            if expected.is_empty() || bystander && !changed.contains(key) {
                assert_eq!(cached.get(key), Some(value), "{write} dropped {key} for nothing");
            }
        }
        site.fill().await;
        assert_same(&site.cached().await, &truth, &format!("filled after {write}"));
        before = truth;
    }
}

#[tokio::test]
async fn after_each_kind_of_write_what_was_cached_comes_back_current() {
    let mut site = Site::new(true, &[30]).await;
    site.find_entries().await;
    site.fill().await;
    let mut before = site.truth().await;
    let mut dropped_whole = 0.0;

    for write in site.writes().await {
        site.django.call(json!(["write", write])).await;
        let truth = site.truth().await;
        site.settle().await;
        // A rule that points to a cache as a whole (a global role changed) removes entries
        // that nobody has listed: the next reader brings those back.
        let drops = site.daemon.metric(DROPPED_WHOLE).await;
        let whole = drops > dropped_whole;
        dropped_whole = drops;
        let listed = |key: &str| !(whole && key.starts_with("v1:role_info:"));
        // Nobody reads meanwhile: what was cached and still has a value comes by itself.
        let mut due = truth.clone();
        due.retain(|key, _| before.contains_key(key) && listed(key));
        let start = Instant::now();
        loop {
            let mut cached = site.cached().await;
            cached.retain(|key, _| listed(key));
            if cached == due {
                break;
            }
            if start.elapsed() > PATIENCE {
                assert_same(&cached, &due, &format!("long after {write}"));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        site.find_entries().await;
        site.fill().await;
        before = site.truth().await;
        assert_same(&site.cached().await, &before, &format!("filled after {write}"));
    }
}
