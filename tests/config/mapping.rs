//! A wrong mapping is refused as a whole, each mistake at its place with what to do next.

use unstale::config::model::Config;
use unstale::config::problem::{On, Problem};
use unstale::mapping::Mapping;

const SERVERS: &str = r#"
    [postgres]
    url = "postgres://unstale@127.0.0.1/app"
    [redis]
    url = "redis://127.0.0.1/1"
    key_prefix = "p:"
"#;

fn config(text: &str) -> Config {
    toml_edit::de::from_str(&format!("{SERVERS}{text}")).expect("the configuration is read")
}

fn problems(text: &str) -> Vec<Problem> {
    Mapping::new(&config(text)).err().unwrap_or_default()
}

/// The one problem's path, message and hint.
#[track_caller]
fn only(text: &str) -> (String, String, String) {
    let mut problems = problems(text);
    assert_eq!(problems.len(), 1, "{text}\n{problems:#?}");
    let problem = problems.remove(0);
    (problem.path.to_string(), problem.message, problem.hint.unwrap_or_default())
}

#[track_caller]
fn only_cache(cache: &str) -> (String, String, String) {
    only(&format!("[caches.c]\n{cache}"))
}

const CACHES: &str = r#"
    [caches.deal_stats]
    key = "stats:{org_id}:{days}"
    parameters = { days = [7, 30] }
    [caches.search]
    key = "search:{org_id}:{generation}:{q}"
    scope = ["org_id"]
"#;

#[track_caller]
fn only_rule(rule: &str) -> (String, String, String) {
    let text = format!("{CACHES}[[tables]]\nname = \"t\"\ninvalidates = [{rule}]");
    let (path, message, hint) = only(&text);
    let path = path.strip_prefix("tables[0].invalidates[0]").expect("it is the rule's").to_owned();
    (path, message, hint)
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let found = problems(
        r#"
        [caches.a]
        key = "{x}"
        [caches.b]
        key = "b:{x}"
        [[tables]]
        name = "order items"
        invalidates = [{ cache = "bb", x = "x" }, { cache = "b", y = "y", where = "a = " }]
        [[tables]]
        name = "t"
        "#,
    );
    let paths: Vec<String> = found.iter().map(|p| p.path.to_string()).collect();
    assert_eq!(
        paths,
        [
            "caches.a.key",
            "tables[0].name",
            "tables[0].invalidates[0].cache",
            "tables[0].invalidates[1].where",
            "tables[0].invalidates[1].y",
            "tables[0].invalidates[1]",
            "tables[1]",
        ]
    );
    assert!(found.iter().all(|problem| problem.hint.is_some()), "{found:#?}");
}

#[test]
fn a_name_that_is_nearly_right_is_suggested() {
    let (path, _, hint) = only_rule(r#"{ cache = "deal_stat", org_id = "o" }"#);
    assert_eq!((path.as_str(), hint.as_str()), (".cache", "did you mean deal_stats?"));
    let found = problems(&format!(
        "{CACHES}[[tables]]\nname = \"t\"\ninvalidates = [{{ cache = \"search\", orgid = \"o\" }}]"
    ));
    assert_eq!(found.first().and_then(|p| p.hint.as_deref()), Some("did you mean org_id?"));
    assert_eq!(found.first().map(|p| p.on), Some(On::Key));
    let (path, message, hint) =
        only_rule(r#"{ cache = "search", org_id = "o", wher = "a is null" }"#);
    assert_eq!(path, ".wher");
    assert_eq!(
        (message.as_str(), hint.as_str()),
        ("a rule has no setting wher", "did you mean where?")
    );
}

#[test]
fn a_parameter_that_nobody_gives_is_named() {
    let (path, message, hint) = only_rule(r#"{ cache = "deal_stats", days = "d" }"#);
    assert_eq!(path, "");
    assert!(message.contains("the parameter org_id of"), "{message}");
    assert!(hint.contains("org_id = \"column\""), "{hint}");
    let (path, message, _) = only_rule(r#"{ cache = "search", org_id = "o", q = "q" }"#);
    assert_eq!(path, ".q");
    assert!(message.contains("no parameter q to give"), "{message}");
}

#[test]
fn a_rule_that_contradicts_itself_is_refused() {
    for (rule, path) in [
        (r#"{ cache = "search", whole = true, org_id = "o" }"#, ".org_id"),
        (r#"{ cache = "search", org_id = "o", via = "select changed.a" }"#, ".org_id"),
        (r#"{ cache = "search", org_id = "o", on = [] }"#, ".on"),
        (r#"{ cache = "search", org_id = "o", columns = [] }"#, ".columns"),
        (r#"{ cache = "search", org_id = "o", on = ["insert"], columns = ["a"] }"#, ".columns"),
        (r#"{ cache = "search", org_id = "o", columns = ["a", "b c"] }"#, ".columns[1]"),
        (r#"{ cache = "search", org_id = "t.o" }"#, ".org_id"),
        (r#"{ cache = "search", via = "select 1 as org_id" }"#, ".via"),
        (r#"{ cache = "search", org_id = "o", where = "a < 1" }"#, ".where"),
    ] {
        assert_eq!(only_rule(rule).0, path, "{rule}");
    }
}

#[test]
fn a_mistake_within_a_text_is_pointed_at() {
    let found = problems(&format!(
        "{CACHES}[[tables]]\nname = \"a b\"\ninvalidates = [{{ cache = \"search\", org_id = \"o\", \
         where = \"a = b\" }}]"
    ));
    let spans: Vec<_> = found.iter().map(|p| p.span_in_value.clone()).collect();
    assert_eq!(spans, [Some(1..3), Some(4..5)]);
}

#[test]
fn a_table_stands_once_however_it_is_written() {
    let (path, message, _) = only(&format!(
        r#"{CACHES}
        [[tables]]
        name = "Sales.Orders"
        invalidates = [{{ cache = "search", org_id = "o" }}]
        [[tables]]
        name = 'sales."orders"'
        invalidates = [{{ cache = "search", org_id = "o" }}]"#
    ));
    assert_eq!(path, "tables[1].name");
    assert!(message.contains("sales.orders"), "{message}");
}

#[test]
fn a_scoped_cache_has_its_generation_between_scope_and_the_rest() {
    for (cache, path) in [
        ("key = \"s:{o}:{generation}:{q}\"", "caches.c.key"),
        ("key = \"s:{o}:{q}\"\nscope = [\"o\"]", "caches.c.key"),
        ("key = \"s:{o}:{generation}\"\nscope = [\"o\"]", "caches.c.key"),
        ("key = \"s:{o}:{generation}:{q}\"\nscope = [\"x\", \"o\"]", "caches.c.scope[0]"),
        ("key = \"s:{o}:{generation}:{q}\"\nscope = [\"o\", \"q\"]", "caches.c.scope[1]"),
        ("key = \"s:{o}:{generation}:{q}\"\nscope = [\"o\", \"o\"]", "caches.c.scope[1]"),
        ("key = \"s:{o}:{p}:{generation}:{q}\"\nscope = [\"o\"]", "caches.c.scope"),
    ] {
        assert_eq!(only_cache(cache).0, path, "{cache}");
    }
    assert_eq!(problems("[caches.c]\nkey = \"s:{generation}:{q}\"\nscope = []"), []);
}

#[test]
fn enumerations_are_of_the_keys_own_parameters_and_finite() {
    for (cache, path) in [
        ("key = \"s:{o}\"\nparameters = { p = [1] }", "caches.c.parameters.p"),
        ("key = \"s:{o}\"\nparameters = { o = [] }", "caches.c.parameters.o"),
        ("key = \"s:{o}\"\nparameters = { o = [1, \"1\"] }", "caches.c.parameters.o[1]"),
    ] {
        assert_eq!(only_cache(cache).0, path, "{cache}");
    }
    let many = (0..40).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
    let cache = format!("key = \"s:{{a}}:{{b}}\"\nparameters = {{ a = [{many}], b = [{many}] }}");
    assert_eq!(only_cache(&cache).0, "caches.c.parameters");
}

#[test]
fn two_caches_that_could_share_a_key_are_refused() {
    let pair = |a: &str, b: &str| format!("[caches.a]\n{a}\n[caches.b]\n{b}\n");
    let (path, message, _) = only(&pair("key = \"v1:{x}:b\"", "key = \"v1:a:{y}\""));
    assert_eq!(path, "caches.b.key");
    assert!(message.contains("a (v1:{x}:b) and b (v1:a:{y})"), "{message}");
    // A generation's key counts too.
    let scoped = "key = \"s:{o}:{generation}:{q}\"\nscope = [\"o\"]";
    assert_eq!(only(&pair("key = \"s:{o}:generation\"", scoped)).0, "caches.b.key");
    assert_eq!(problems(&pair("key = \"v1:{x}\"", "key = \"v1:{x}:{y}\"")), []);
    let days = "key = \"v1:{d}\"\nparameters = { d = [7, 30] }";
    assert_eq!(problems(&pair(days, "key = \"v1:all\"")), []);
    assert_eq!(problems(&pair(days, "key = \"v1:30\"")).len(), 1);
}

#[test]
fn no_cache_reaches_the_daemons_own_keys() {
    for (prefix, key, wrong) in [
        ("", "unstale:x:{a}", true),
        ("", "un{a}", true),
        ("unstale:", "x:{a}", true),
        ("", "unstale_x:{a}", false),
        ("p:", "unstale:{a}", false),
    ] {
        let mut config = config(&format!("[caches.c]\nkey = \"{key}\""));
        config.redis.key_prefix = prefix.to_owned();
        assert_eq!(Mapping::new(&config).is_err(), wrong, "{prefix}{key}");
    }
}

#[test]
fn a_caches_name_means_that_cache_only() {
    for name in ["all", "strategic", "user", "mine", "\"a b\"", "Stats"] {
        let (path, ..) = only(&format!("[caches.{name}]\nkey = \"k:{{x}}\"\ngroup = \"mine\""));
        assert_eq!(path, format!("caches.{name}"));
    }
}

#[test]
fn purges_that_reach_another_cache_are_known() {
    let text = "[caches.a]\nkey = \"v1:{x}\"\n[caches.b]\nkey = \"v1:b:{x}\"\n[caches.c]\nkey = \"v2:{x}\"";
    let mapping = Mapping::new(&config(text)).expect("nothing collides");
    let names: Vec<(&str, &str)> = mapping
        .overlaps()
        .iter()
        .filter_map(|(a, b)| Some((&*mapping.cache(*a)?.name, &*mapping.cache(*b)?.name)))
        .collect();
    assert_eq!(names, [("a", "b"), ("b", "a")]);
    assert_eq!(mapping.prefixes(), [b"p:v1:".to_vec(), b"p:v1:b:".to_vec(), b"p:v2:".to_vec()]);
}

#[test]
fn the_fingerprint_changes_with_what_decides_keys_and_with_nothing_else() {
    let base = r#"
        [caches.a]
        key = "a:{x}"
        [caches.s]
        key = "s:{x}:{d}"
        parameters = { d = [7, 30] }
        [[tables]]
        name = "t"
        invalidates = [{ cache = "a", x = "x", columns = ["p", "q"] }, { cache = "s", x = "y" }]
        [[tables]]
        name = "u"
        invalidates = [{ cache = "a", x = "x", where = "x = 1", on = ["insert", "delete"] }]
    "#;
    let of =
        |text: &str| Mapping::new(&config(text)).unwrap_or_else(|p| panic!("{p:#?}")).fingerprint();
    let print = of(base);
    assert_eq!(print.to_string().len(), 16);
    for (from, to) in [
        ("key = \"a:{x}\"", "key = \"a:{x}\"\nttl = \"1h\"\npriority = \"low\"\ngroup = \"g\""),
        ("name = \"t\"", "name = 'public.\"t\"'"),
        ("[\"p\", \"q\"]", "[\"Q\", \"p\"]"),
        ("[\"insert\", \"delete\"]", "[\"delete\", \"insert\"]"),
        (
            "{ cache = \"a\", x = \"x\", columns = [\"p\", \"q\"] }, { cache = \"s\", x = \"y\" }",
            "{ cache = \"s\", x = \"y\" }, { cache = \"a\", x = \"x\", columns = [\"p\", \"q\"] }",
        ),
    ] {
        assert!(base.contains(from), "{from}");
        assert_eq!(of(&base.replace(from, to)), print, "{to}");
    }
    for (from, to) in [
        ("key = \"a:{x}\"", "key = \"b:{x}\""),
        ("[7, 30]", "[7, 31]"),
        ("name = \"t\"", "name = \"v\""),
        ("x = \"y\"", "x = \"z\""),
        ("[\"p\", \"q\"]", "[\"p\"]"),
        ("x = 1", "x = 2"),
        ("[\"insert\", \"delete\"]", "[\"insert\"]"),
        ("{ cache = \"s\", x = \"y\" }", "{ cache = \"s\", whole = true }"),
        ("key = \"a:{x}\"", "key = \"a:{x}\"\non_change = \"refresh\"\nmax_staleness = \"1s\""),
    ] {
        assert!(base.contains(from), "{from}");
        assert_ne!(of(&base.replace(from, to)), print, "{to}");
    }
    // A known value: what was stored by an earlier build stays good.
    assert_eq!(print.to_string(), "3ce09599e9daeaf8");
}
