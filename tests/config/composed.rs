//! What a composition may be: it is refused where it could not be joined, and means its parts.

use unstale::config::model::Config;
use unstale::config::problem::Problem;
use unstale::mapping::Mapping;

const SERVERS: &str = r#"
    [postgres]
    url = "postgres://unstale@127.0.0.1/app"
    [redis]
    url = "redis://127.0.0.1/1"
"#;

fn config(text: &str) -> Config {
    toml_edit::de::from_str(&format!("{SERVERS}{PARTS}{text}")).expect("it is read")
}

fn problems(text: &str) -> Vec<Problem> {
    Mapping::new(&config(text)).err().unwrap_or_default()
}

fn mapping(text: &str) -> Mapping {
    Mapping::new(&config(text)).unwrap()
}

const PARTS: &str = r#"
    [caches.org]
    key = "org:{org_id}"
    group = "g"
    [caches.stats]
    key = "stats:{org_id}:{days}"
    parameters = { days = [7, 30] }
    [caches.found]
    key = "found:{org_id}:{generation}:{q}"
    scope = ["org_id"]
    [caches.own]
    key = "own:{user_id}"
"#;

#[test]
fn a_composition_that_could_not_be_joined_is_refused_where_it_says_so() {
    for (pieces, path) in [
        ("{ }", "[0]"),
        ("{ member = \"m\" }", "[0]"),
        ("{ member = \"m\", cache = \"org\", text = \"org_id\" }", "[0]"),
        ("{ number = \"org_id\" }, { cache = \"org\" }", "[0]"),
        ("{ cache = \"orgs\" }", "[0].cache"),
        ("{ cache = \"found\" }", "[0].cache"),
        ("{ cache = \"c\" }", "[0].cache"),
        ("{ cache = \"d\" }", "d"),
        ("{ cache = \"d\", pick = \"x\" }", "d"),
        ("{ cache = \"stats\", parameters = { day = 30 } }", "[0].parameters.day"),
        ("{ cache = \"stats\", parameters = { days = 31 } }", "[0].parameters.days"),
        ("{ cache = \"org\" }, { member = \"m\", number = \"user_id\" }", ""),
        ("{ cache = \"org\" }, { member = \"m\", text = \"org_id\", pick = \"x\" }", "[1].pick"),
        ("{ member = \"m\", cache = \"org\" }, { member = \"m\", cache = \"own\" }", ""),
    ] {
        let circle = if path == "d" { "[caches.d]\ncompose = [{ cache = \"c\" }]\n" } else { "" };
        let found = problems(&format!("[caches.c]\ncompose = [{pieces}]\n{circle}"));
        let paths: Vec<String> = found.iter().map(|problem| problem.path.to_string()).collect();
        if path == "d" {
            assert!(
                paths.contains(&"caches.d.compose[0].cache".to_owned()),
                "{pieces}: {found:#?}"
            );
        } else {
            assert_eq!(paths, [format!("caches.c.compose{path}")], "{pieces}: {found:#?}");
        }
        assert!(found.iter().all(|problem| problem.hint.is_some()), "{found:#?}");
    }
    let key = "key = \"c:{user_id}\"";
    let found = problems(&format!("[caches.c]\n{key}\ncompose = [{{ cache = \"org\" }}]"));
    assert!(found.len() == 1 && found[0].message.contains("own entry of c"), "{found:#?}");
}

#[test]
fn a_rule_cannot_reach_what_is_only_composed() {
    let rule = "[[tables]]\nname = \"t\"\ninvalidates = [{ cache = \"c\", org_id = \"o\" }]";
    let composed = "[caches.c]\ncompose = [{ cache = \"org\" }, { cache = \"own\" }]";
    let found = problems(&format!("{composed}\n{rule}"));
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].path.to_string(), "tables[0].invalidates[0].cache");
    assert!(found[0].message.contains("has no entries of its own"), "{found:#?}");
    assert!(found[0].hint.as_ref().unwrap().ends_with("org, own"), "{found:#?}");
}

#[test]
fn a_composed_cache_means_its_parts_and_changes_no_key() {
    let composed = r#"
        [caches.all_of_it]
        group = "h"
        compose = [{ cache = "org" }, { member = "thirty", cache = "stats", parameters = { days = 30 } }]
        [caches.more]
        key = "more:{user_id}"
        compose = [{ cache = "all_of_it" }, { cache = "more" }]
    "#;
    let mapping = mapping(composed);
    let names = |cache_type: &str| -> Vec<String> {
        let found = mapping.select(cache_type).unwrap();
        found.iter().map(|id| mapping.cache(*id).unwrap().name.to_string()).collect()
    };
    assert_eq!(names("all_of_it"), ["org", "stats"]);
    assert_eq!(names("h"), ["org", "stats"]);
    assert_eq!(names("more"), ["more", "org", "stats"]);
    assert_eq!(names("user"), ["more", "own"]);
    assert_eq!(names("all"), ["found", "more", "org", "own", "stats"]);
    assert!(mapping.select("nothing").unwrap_err().contains("all_of_it, found, more"));
    let more = mapping.composition("more").unwrap();
    assert_eq!(more.parameters.iter().map(|p| &**p).collect::<Vec<_>>(), ["org_id", "user_id"]);
    // What is only composed decides no key: an earlier run's work stays good.
    let without = self::mapping("[caches.more]\nkey = \"more:{user_id}\"");
    assert_eq!(mapping.fingerprint(), without.fingerprint());
}
