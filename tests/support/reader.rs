//! Reads through the cache by lease, in the test's own process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use unstale::config::Override;
use unstale::fill::filler::{Filler, How, Read};
use unstale::loader::load::{Bounds, Loader};
use unstale::mapping::Mapping;
use unstale::mapping::model::CacheId;
use unstale::metrics::Metrics;
use unstale::postgres::conninfo::ConnectOptions;
use unstale::rules::Rules;
use unstale::store::fills::Fills;
use unstale::store::keys::ControlKeys;
use unstale::store::session::Address;

use super::World;

pub struct Reader {
    pub filler: Arc<Filler>,
    pub mapping: Arc<Mapping>,
    pub metrics: Metrics,
    pub queries: BTreeMap<String, String>,
}

impl Reader {
    /// With the settings that the world's daemons are started with.
    pub fn new(world: &World) -> Reader {
        Reader::of(world, &world.postgres.url())
    }

    /// The same, from a server of one's own.
    pub fn of(world: &World, url: &str) -> Reader {
        let overrides: Vec<Override> = world.settings.iter().map(|s| s.parse().unwrap()).collect();
        let loaded = unstale::config::load(Some(&world.config), &overrides).unwrap();
        let rules = Rules::compile(&loaded).unwrap();
        let bounds = Bounds {
            connections: 4,
            statement_timeout: Duration::from_secs(20),
            wait: Duration::from_secs(20),
        };
        let options = ConnectOptions::parse(url).unwrap();
        let loader = Loader::new(&rules, options, bounds).unwrap();
        let fills = fills(world);
        let metrics = Metrics::new().unwrap();
        let mapping = Arc::clone(&rules.mapping);
        let prefix = &loaded.config.redis.key_prefix;
        let filler = Filler::new(fills, loader, Arc::clone(&mapping), prefix, metrics.clone());
        Reader { filler: Arc::new(filler), mapping, metrics, queries: rules.queries }
    }

    pub fn cache(&self, name: &str) -> CacheId {
        self.mapping.cache_by_name(name).unwrap().0
    }

    /// An entry, be its cache composed or not.
    pub async fn read(&self, cache: &str, values: &[(&str, &str)]) -> (Option<String>, How) {
        text(self.filler.read(self.cache(cache), values).await.expect("a value"))
    }

    /// What a name stands for.
    pub async fn named(&self, name: &str, values: &[(&str, &str)]) -> (Option<String>, How) {
        text(self.filler.read_named(name, values).await.expect("a value"))
    }

    /// How many queries a cache has cost.
    pub fn loads(&self, cache: &str) -> u64 {
        self.metrics.load_seconds.with_label_values(&[cache]).get_sample_count()
    }

    /// How many fills came to this.
    pub fn fills(&self, cache: &str, outcome: &str) -> u64 {
        self.metrics.fills.with_label_values(&[cache, outcome]).get()
    }
}

/// The way to Redis for whoever reads and fills.
pub fn fills(world: &World) -> Fills {
    let overrides: Vec<Override> = world.settings.iter().map(|s| s.parse().unwrap()).collect();
    let loaded = unstale::config::load(Some(&world.config), &overrides).unwrap();
    Fills::new(Address::new(&loaded.config.redis).unwrap(), ControlKeys::new("unstale"))
}

fn text(read: Read) -> (Option<String>, How) {
    (read.value.map(|value| String::from_utf8(value.into()).unwrap()), read.how)
}
