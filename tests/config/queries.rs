//! A cache's SQL comes from the file that the configuration names, and every file that
//! cannot be used is reported at the setting that names it.

use std::fs;

use unstale::config::{self, File, Layers, Loaded};

const HEAD: &str = "[postgres]\nurl = \"postgres://h/d\"\n[redis]\nurl = \"redis://h\"\n";

/// The configuration in a folder that holds these files beside it.
fn load(folder: &tempfile::TempDir, caches: &str, files: &[(&str, &[u8])]) -> Loaded {
    for (name, content) in files {
        fs::write(folder.path().join(name), content).unwrap();
    }
    let config = folder.path().join("config");
    fs::create_dir_all(&config).unwrap();
    fs::write(config.join("unstale.toml"), format!("{HEAD}{caches}")).unwrap();
    let file = File::At(config.join("unstale.toml"));
    Layers { file, environment: vec![], overrides: vec![] }.load().unwrap()
}

#[test]
fn sql_in_place_and_in_files_beside_the_configuration_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let caches = "[caches.a]\nkey = \"a\"\nquery = \"select 1\"\n\
                  [caches.b]\nkey = \"b\"\nquery = { file = \"../b.sql\" }\n\
                  [caches.composed]\nkey = \"c\"\n";
    let loaded = load(&folder, caches, &[("b.sql", b"select 2\n")]);
    let queries = config::queries(&loaded.config, loaded.source.base_dir()).unwrap();
    let found: Vec<_> = queries.iter().map(|(name, sql)| (name.as_str(), sql.as_str())).collect();
    assert_eq!(found, [("a", "select 1"), ("b", "select 2\n")]);
}

#[test]
fn files_that_cannot_be_used_are_reported_where_they_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let caches = "[caches.a]\nkey = \"a\"\nquery = { file = \"../absent.sql\" }\n\
                  [caches.b]\nkey = \"b\"\nquery = { file = \"../latin1.sql\" }\n\
                  [caches.c]\nkey = \"c\"\nquery = \"\"\n\
                  [caches.d]\nkey = \"d\"\nquery = { file = \"../blank.sql\" }\n";
    let files: [(&str, &[u8]); 2] = [("latin1.sql", b"select 1\n-- \xe9\n"), ("blank.sql", b"\n")];
    let loaded = load(&folder, caches, &files);
    let problems = config::queries(&loaded.config, loaded.source.base_dir()).unwrap_err();
    let shown = loaded.source.diagnostics(problems).to_string();
    insta::assert_snapshot!(shown.replace(&folder.path().display().to_string(), "FOLDER"));
}
