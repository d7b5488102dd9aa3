//! Every mistake in a configuration is reported with its place, what was found, what is
//! allowed, and all independent ones at once.

use unstale::config::problem::{ConfigPath, Problem};
use unstale::config::{Diagnostics, Layers, Loaded, Style};

/// The least that a file must say.
pub(crate) const MINIMAL: &str =
    "[postgres]\nurl = \"postgres://u@h/d\"\n[redis]\nurl = \"redis://h\"\n";

fn load(text: &str) -> Result<Loaded, Diagnostics> {
    Layers::text("unstale.toml", text).load()
}

/// The one-line form of what is wrong with the minimal file and `more`.
fn wrong(more: &str) -> String {
    let found = load(&format!("{MINIMAL}{more}")).expect_err(more).to_string();
    format!("{more}\n{found}\n")
}

#[test]
fn each_kind_of_mistake_names_its_place_and_its_remedy() {
    let cases = [
        "[cachez]",
        "[log]\nlevle = \"info\"",
        "[log]\nlevel = \"inof\"",
        "[log]\nlevel = \"info,unstale=lots\"",
        "[log]\nformat = \"jsn\"",
        "[log]\nformat = 1",
        "log = [\"info\", \"json\"]",
        "[admin]\nlisten = \"localhost\"",
        "[admin]\nlisten = 9187",
        "[pipeline]\nmax_keys_ahead = 0",
        "[pipeline]\nmax_keys_ahead = -1",
        "[pipeline]\nmax_keys_ahead = \"5\"",
        "[pipeline]\nmax_keys_per_script = 1.5",
        "[pipeline]\nmax_lag = 30",
        "[pipeline]\nmax_lag = \"30\"",
        "[pipeline]\nmax_lag = \"1 hourr\"",
        "[pipeline]\nmax_lag = 1979-05-27",
        "[pipeline]\ndrain_timeout = \"2h\"",
        "[[caches]]\nkey = \"k\"",
        "[caches]\ntimezone = 1",
        "[caches.c]\nttl = \"1h\"",
        "[caches.c]\nkey = \"k\"\nttl = 3600",
        "[caches.c]\nkey = \"k\"\nttl = \"0s\"",
        "[caches.c]\nkey = \"k\"\nquery = 1",
        "[caches.c]\nkey = \"k\"\nquery = { fil = \"x.sql\" }",
        "[caches.c]\nkey = \"k\"\nquery = {}",
        "[caches.c]\nkey = \"k\"\npriority = \"hihg\"",
        "[caches.c]\nkey = \"k\"\npriority = 0",
        "[caches.c]\nkey = \"k\"\nparameters = { days = [7, 1.5, true] }",
        "[caches.c]\nkey = \"k\"\nparameters.days = []",
        "[caches.c]\nkey = \"k\"\nparameters.days = [7, 30, 7]",
        "[caches.c]\nkey = \"k\"\nscope = []",
        "[caches.c]\nkey = \"k\"\non_change = \"keep\"",
        "[caches.c]\nkey = \"k\"\nmax_staleness = \"1s\"",
        "[caches.c]\nkey = \"k\"\non_change = \"refresh\"",
        "[caches.c]\nkey = \"k\"\non_change = \"refresh\"\nmax_staleness = \"1s\"\nscope = [\"a\"]",
        "[caches.c]\nkey = \"k\"\nrewarm = \"always\"\non_change = \"refresh\"\nmax_staleness = \"2h\"\nttl = \"1h\"",
        "[caches.c]\nkey = \"k\"\nnegative_ttl = \"0s\"\nmax_value_bytes = 0",
        "[caches.c]\ncompose = []",
        "[caches.c]\nkye = \"k\"",
        "[caches.c]\ncompose = { m = \"a\" }",
        "[caches.c]\ncompose = [{ member = \"m\", cach = \"a\" }]",
        "[caches.c]\nquery = \"select 1\"\nrewarm = \"always\"\ncompose = [{ cache = \"a\" }]",
        "[caches.\"a b\"]\nkey = \"k\"",
        "[caches.strategic]\nkey = \"k\"",
        "[schedule]\ntask = \"warm\"",
        "[[schedule]]\nevery = \"4h\"",
        "[[schedule]]\ntask = \"warm\"",
        "[[schedule]]\ntask = \"dream\"\nevery = \"6h\"",
        "[[schedule]]\ntask = \"report\"\nevery = \"6h\"\norganization = 7",
        "[[schedule]]\ntask = \"maintenance\"\nevery = \"6h\"\ncache_type = \"api\"",
        "[[schedule]]\ntask = \"report\"\nevery = \"6h\"\n[[schedule]]\ntask = \"report\"\nevery = \"1h\"",
        "[[schedule]]\ntask = \"warm\"\nevery = \"often\"",
        "[[schedule]]\ntask = \"warm\"\nevery = \"0s\"\nfor = \"all\"",
        "[[schedule]]\ntask = \"warm\"\nevery = \"4h\"\ncache_type = \"usr\"",
        "[tables]\nname = \"t\"",
        "[[tables]]\ninvalidates = []",
        "[[tables]]\nname = \"t\"\ninvalidate = []",
        "[[tables]]\nname = \"t\"\ninvalidates = { cache = \"c\" }",
        "[[tables]]\nname = \"t\"\ninvalidates = [{ id = \"id\" }]",
        "[[tables]]\nname = \"t\"\ninvalidates = [{ cache = \"c\", colums = [\"a\"] }]",
        "[[tables]]\nname = \"t\"\ninvalidates = [{ cache = \"c\", org_id = 5 }]",
        "[[tables]]\nname = \"t\"\ninvalidates = [{ cache = \"c\", on = [\"insert\", \"upsert\", \"truncate\"] }]",
        "[[tables]]\nname = \"t\"\ninvalidates = [{ cache = \"c\", on = \"insert\" }]",
        "[[tables]]\nname = \"t\"\ninvalidates = [{ cache = \"c\", columns = [] }]",
        "[[tables]]\nname = \"t\"\ninvalidates = [{ cache = \"c\", whole = \"yes\" }]",
        "[[tables]]\nname = \"t\"\n[[tables.invalidates]]\ncache = \"c\"\nwhere = \" \"",
        "[log]\nlevel = \"info\"\nlevel = \"warn\"",
        "[log\n",
        "[log]\nlevel = info",
        "[log]\nlevel = \"info",
    ];
    insta::assert_snapshot!(cases.map(wrong).join("\n"));
}

#[test]
fn a_replica_is_a_url_and_a_short_wait() {
    let with = |settings: &str| load(&MINIMAL.replace("[redis]", &format!("{settings}\n[redis]")));
    let good = with("replica_url = \"postgres://u@standby/d\"\nreplica_wait = \"0s\"").unwrap();
    assert!(good.config.postgres.replica_url.is_some());
    // As compose files give what is not set.
    assert!(with("replica_url = \"\"").unwrap().config.postgres.replica_url.is_none());
    let none = with("").unwrap().config.postgres;
    assert!(none.replica_url.is_none() && none.replica_wait.get().as_millis() == 100);
    for (wrong, said) in [
        ("replica_url = \"host=h\"", "begins with one of postgres://, postgresql://"),
        ("replica_url = 5", "expected a text in quotes, found a number"),
        ("replica_wait = \"1m\"", "from 0s to 10s is allowed"),
        ("replica_wait = 100", "replica_wait"),
        ("replica_ulr = \"postgres://h\"", "did you mean `replica_url`"),
    ] {
        let found = with(wrong).expect_err(wrong).render(100, Style::Plain);
        assert!(found.contains(said) && found.contains("unstale.toml:3"), "{wrong}: {found}");
    }
}

#[test]
fn what_is_missing_is_shown_as_it_is_to_be_written() {
    insta::assert_snapshot!(load("").unwrap_err());
    insta::assert_snapshot!(load("[postgres]\nslot = \"a\"\n\n[redis]\n").unwrap_err());
}

#[test]
fn all_independent_mistakes_come_at_once_in_the_order_of_the_file() {
    let text = r#"# Nobody writes this many at once; but if so, all are told.
[postgres]
url = "mysql://u@h/d"
publicaton = "p"
slot = "Not A Slot"
status_interval = 1

[redis]
url = "redis://h"
timeout = "2 seconds"

[pipelines]

[caches.org_data]
key = "v1:org:data:{org_id}"
tll = "1h"
priority = "urgent"

[caches.role_info]
kye = "v1:role_info:{org_id}"

[[tables]]
name = "deals_deal"
invalidates = [
  { cache = "org_data", org_id = "organization_id", on = ["insrt", "update", "remove"] },
  { cach = "org_data", where = 1, columns = "deal_value" },
]

[[tables]]
nmae = "authentication_user"
invalidates = [{ cache = "org_data", org_id = ["organization_id"] }]
"#;
    let diagnostics = load(text).unwrap_err();
    insta::assert_snapshot!("all_at_once", diagnostics.render(100, Style::Plain));
    insta::assert_snapshot!("all_at_once_by_line", diagnostics);
}

#[test]
fn a_problem_found_later_is_shown_where_it_stands() {
    let text = r#"[postgres]
url = "postgres://u@h/d"
[redis]
url = "redis://h"
[caches.org_data]
key = "v1:org:data:{org_id}"
[[tables]]
name = "deals_deal"
invalidates = [
  { cache = "org_dta", org_id = "organization_id", where = "a = 'é' and bb = 1" },
  { cache = "org_data", via = """
      select o.id as org_id
        from organisation o join changed on true""" },
]
"#;
    let loaded = load(text).unwrap();
    let rules = ConfigPath::root().child("tables").child(0).child("invalidates");
    let via = loaded.config.tables[0].invalidates[1].via.clone().unwrap();
    let organisation = via.find("organisation").unwrap();
    let condition = loaded.config.tables[0].invalidates[0].condition.clone().unwrap();
    let column = condition.find("bb").unwrap();
    let problems = [
        Problem::new(rules.child(0).child("cache"), "there is no cache `org_dta`")
            .hint("did you mean `org_data`?"),
        Problem::new(rules.child(0).child("where"), "there is no column `bb`")
            .within(column..column + 2),
        Problem::new(rules.child(1).child("via"), "relation \"organisation\" does not exist")
            .within(organisation..organisation + "organisation".len()),
        Problem::new(rules.child(1).child("org_id"), "nobody gives `org_id`"),
        Problem::new(ConfigPath::from_iter(["caches", "org_data"]), "no rule reaches this cache")
            .on_key(),
    ];
    insta::assert_snapshot!(loaded.source.diagnostics(problems).render(100, Style::Plain));
}

#[test]
fn a_good_configuration_says_nothing() {
    let loaded = load(&format!(
        r#"{MINIMAL}password = "secret"
[caches]
timezone = "Europe/Berlin"
[caches.deal_stats]
key = "v1:deal_stats:{{org_id}}:{{days}}"
query = "select 1"
parameters = {{ days = [7, 30, "all"] }}
ttl = "15m"
group = "strategic"
priority = "high"
[[tables]]
name = "deals_deal"
invalidates = [{{ cache = "deal_stats", org_id = "organization_id", on = ["insert"], where = "a = 1" }}]
"#
    ))
    .unwrap_or_else(|wrong| panic!("{wrong}"));
    let cache = &loaded.config.caches.by_name["deal_stats"];
    assert_eq!(cache.ttl.unwrap().to_string(), "15m");
    assert_eq!(cache.parameters["days"].len(), 3);
    let rule = &loaded.config.tables[0].invalidates[0];
    assert_eq!(rule.parameters["org_id"], "organization_id");
    assert_eq!(rule.parameters.len(), 1);
}
