//! Defaults, then the file, then the environment, then the command line.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use secrecy::ExposeSecret;
use unstale::config::{Diagnostics, File, Layers, Loaded};

const FILE: &str = r#"
[postgres]
url = "postgres://u@h/d"
slot = "from_file"
[redis]
url = "redis://h"
key_prefix = "from_file:"
[pipeline]
max_keys_ahead = 7
[caches.org_data]
key = "v1:org:data:{org_id}"
ttl = "1h"
"#;

fn load(environment: &[(&str, &str)], flags: &[&str]) -> Result<Loaded, Diagnostics> {
    let mut layers = Layers::text("unstale.toml", FILE);
    layers.environment = environment
        .iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)))
        .collect();
    layers.overrides = flags.iter().map(|flag| flag.parse().unwrap()).collect();
    layers.load()
}

#[test]
fn a_later_layer_wins_setting_by_setting() {
    let config = load(
        &[
            ("UNSTALE_POSTGRES__SLOT", "from_env"),
            ("UNSTALE_PIPELINE__MAX_KEYS_AHEAD", "8"),
            ("UNSTALE_CACHES__ORG_DATA__TTL", "2h"),
            ("UNSTALE_CACHES__ORG_DATA__PARAMETERS", "{ days = [7, 30] }"),
            ("HOME", "/nowhere"),
        ],
        &["pipeline.max_keys_ahead=9", "redis.timeout=3s"],
    )
    .unwrap()
    .config;
    assert_eq!(config.postgres.publication, "unstale"); // by default
    assert_eq!(config.redis.key_prefix, "from_file:");
    assert_eq!(config.postgres.slot, "from_env");
    assert_eq!(config.pipeline.max_keys_ahead, 9);
    assert_eq!(config.redis.timeout.to_string(), "3s");
    let cache = &config.caches.by_name["org_data"];
    assert_eq!(cache.key.as_deref(), Some("v1:org:data:{org_id}"));
    assert_eq!(cache.ttl.unwrap().to_string(), "2h");
    assert_eq!(cache.parameters["days"].len(), 2);
}

#[test]
fn digits_in_the_environment_stay_a_text_where_a_text_is_meant() {
    let config = load(
        &[
            ("UNSTALE_POSTGRES__PASSWORD", "0123456789"),
            ("UNSTALE_REDIS__PASSWORD", "true"),
            ("UNSTALE_POSTGRES__SLOT", "42"),
            ("UNSTALE_REDIS__KEY_PREFIX", "[1]"),
        ],
        &[],
    )
    .unwrap()
    .config;
    assert_eq!(config.postgres.password.unwrap().expose_secret(), "0123456789");
    assert_eq!(config.redis.password.unwrap().expose_secret(), "true");
    assert_eq!(config.postgres.slot, "42");
    assert_eq!(config.redis.key_prefix, "[1]");
}

#[test]
fn an_empty_password_is_none() {
    let config = load(&[("UNSTALE_REDIS__PASSWORD", "")], &[]).unwrap().config;
    assert!(config.redis.password.is_none());
}

#[test]
fn a_mistake_outside_of_the_file_names_the_variable_or_the_flag() {
    let wrong = load(
        &[
            ("UNSTALE_POSTGRES__URLL", "postgres://u:hunter2@h/d"),
            ("UNSTALE_POSTGRES_URL", "postgres://u:hunter2@h/d"),
            ("UNSTALE_CONFGI", "x"),
            ("UNSTALE_POSTGRES", "x"),
            ("UNSTALE_PIPELINE__MAX_KEYS_AHEAD", "many"),
            ("UNSTALE_CACHES__ORG_DATA__TTL", "5"),
            ("UNSTALE_CACHES__NEW__TTL", "5m"),
            ("UNSTALE_TABLES__0__NAME", "x"),
            ("UNSTALE_PORT_9187_TCP_ADDR", "10.0.0.1"),
            ("UNSTALE_LOG", "debug"),
        ],
        &["log.levl=info", "pipeline.max_lag=0s"],
    )
    .unwrap_err();
    insta::assert_snapshot!(wrong);
}

#[test]
fn the_file_is_the_one_named_else_the_one_in_the_environment_else_the_first_found() {
    let folder = tempfile::tempdir().unwrap();
    let file = |slot: &str| {
        let path = folder.path().join(slot).with_extension("toml");
        fs::write(&path, FILE.replace("from_file", slot)).unwrap();
        path
    };
    let (named, variable, second) = (file("named"), file("variable"), file("second"));
    let search = File::FirstOf(vec![folder.path().join("absent.toml"), second]);
    let set: Vec<(OsString, OsString)> = vec![("UNSTALE_CONFIG".into(), variable.into())];
    let slot = |file: File, environment: &[(OsString, OsString)]| {
        let layers = Layers { file, environment: environment.to_vec(), overrides: vec![] };
        let loaded = layers.load().unwrap();
        assert_eq!(loaded.source.base_dir(), folder.path());
        loaded.config.postgres.slot
    };
    assert_eq!(slot(File::At(named), &set), "named");
    assert_eq!(slot(search.clone(), &set), "variable");
    assert_eq!(slot(search, &[]), "second");
}

#[test]
fn a_file_that_is_not_there_or_not_readable_says_where_it_was_looked_for() {
    let load =
        |file: File| Layers { file, environment: vec![], overrides: vec![] }.load().unwrap_err();
    let folder = tempfile::tempdir().unwrap();
    let latin1 = folder.path().join("latin1.toml");
    fs::write(&latin1, b"[postgres]\nurl = \"\xe9\"\n").unwrap();
    let shown = [
        load(File::FirstOf(vec!["absent/a.toml".into(), "absent/b.toml".into()])),
        load(File::At("absent/unstale.toml".into())),
        load(File::At(latin1)),
    ]
    .map(|wrong| wrong.to_string())
    .join("\n");
    insta::assert_snapshot!(shown.replace(&folder.path().display().to_string(), "FOLDER"));
}

#[test]
fn relative_paths_start_from_the_files_folder_even_if_it_is_this_one() {
    let loaded = load(&[], &[]).unwrap();
    assert_eq!(loaded.source.base_dir(), PathBuf::from("."));
}
