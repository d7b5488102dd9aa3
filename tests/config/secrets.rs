//! No password is ever shown: not by `Debug`, not by a diagnostic, whatever is wrong with
//! the file that holds it.

use unstale::config::{Layers, Style};

/// No secret may hold any other word of the tests.
const SECRET: &str = "hunter2";

/// Every way in which the outcome of loading `text` can be shown.
fn shown(layers: &Layers) -> String {
    let debug = format!("{layers:?}");
    match layers.load() {
        Ok(loaded) => format!("{debug}{loaded:?}"),
        Err(wrong) => {
            let report = miette::Report::new(wrong.clone());
            [
                debug,
                wrong.to_string(),
                format!("{wrong:?}"),
                format!("{report:?}"),
                wrong.render(80, Style::Plain),
                wrong.render(80, Style::Colour),
            ]
            .concat()
        }
    }
}

#[test]
fn no_outcome_of_loading_shows_a_password() {
    for text in [
        // Good ones.
        "[postgres]\nurl = \"postgres://u:hunter2@h/d\"\npassword = \"hunter2\"\n[redis]\nurl = \"redis://:hunter2@h\"\npassword = \"hunter2\"",
        // A mistake on the next line, in the same line, in the very value.
        "[postgres]\nurl = \"postgres://u:hunter2@h/d\"\nslto = \"s\"\npassword = \"hunter2\"\n[redis]\nurl = \"redis://:hunter2@h\"",
        "postgres = { url = \"postgres://u:hunter2@h/d\", password = \"hunter2\", slto = \"s\" }\nredis = 5",
        "[postgres]\nurl = \"hunter2\"\n[redis]\nurl = \"mysql://:hunter2@h\"",
        "[postgres]\nurl = \"host=h password=hunter2\"\n[redis]\nurl = \"redis://x:y@hunter2:hunter2@h\"",
        "[postgres]\nurl = \"postgres:///d?user=u&password=hunter2\"\nslto = 1\n",
        "[postgres]\nurl = [\"postgres://u:hunter2@h/d\"]\npassword = { value = \"hunter2\" }",
        "[postgres]\nurl = \"\"\"\npostgres://u:hunter2@h/d\"\"\"\nslto = 1",
        "[postgres]\npassword = '''\nhunter2\nhunter2'''\nslto = 1",
        "[postgres]\nurl = \"postgres://u@h/d\"\nreplica_url = \"postgres://u:hunter2@h/d\"\n[redis]\nurl = \"redis://h\"",
        "[postgres]\nurl = \"postgres://u@h/d\"\nreplica_url = \"postgres://u:hunter2@h/d\"\nslto = 1",
        "[postgres]\nreplica_url = \"hunter2\"\nreplica_wait = \"1h\"\nreplica_urll = \"hunter2\"",
        "[postgres]\nreplica_url = 5 # postgres://u:hunter2@h/d\nreplica_wait = 5",
        "[postgres]\nreplica_url = postgres://u:hunter2@h/d",
        // Under a wrong name, in a wrong place.
        "[postgres]\npasword = \"hunter2\"\nurll = \"postgres://u:hunter2@h/d\"\ndsn = \"hunter2\"",
        "password = \"hunter2\"\n[postgress]\npw = \"hunter2\"\n[log]\npassword = \"hunter2\"",
        "postgres = \"hunter2\"\nredis = [\"hunter2\"]",
        "[log]\nfile = \"x\"\nlevle = 1 # was: postgres://u:hunter2@h/d",
        "# password = \"hunter2\"\nx = 1\n#url = \"postgres://u:hunter2@h/d\"",
        "[postgres]\nurl = \"postgres://u:hunter2h/d\"\nslto = 1",
        // Those of the read API.
        "[postgres]\nurl = \"postgres://u@h/d\"\n[redis]\nurl = \"redis://h\"\n[api.jwt]\nsecret = \"hunter2\"",
        "[api.jwt]\nsecret = \"hunter2\"\nslto = 1",
        "[api.jwt]\nsecrt = \"hunter2\"\nkey = \"hunter2\"",
        "[api]\njwt = \"hunter2\"",
        "[api.jwt]\nkeys = \"hunter2\"",
        "[api.jwt]\nkeys = [{ kid = 1, secret = \"hunter2\" }, { key = \"hunter2\" }]",
        "[[api.jwt.keys]]\nsecret = \"hunter2\"\nalgorithm = \"x\"",
        "[api.jwt]\nsecret = hunter2",
        "[api.jwt]\nkeys = [{ secret = \"hunter2\" }",
        // No TOML.
        "[postgres]\npassword =\n  \"hunter2\"",
        "[postgres]\nurl = postgres://u:hunter2@h/d",
        "[postgres]\npassword = hunter2",
        "[postgres]\npassword = \"hunter2\nslot = 1",
        "[postgres]\npassword = \"\"\"\nhunter2\nhunter2\n",
        "[postgres]\npassword = \"hunter2\"\nslot = oops",
        "[postgres]\npassword = \"hunter2\"\npassword = \"hunter2\"",
        "[postgres\npassword = \"hunter2\"",
        "postgres = { password = \"hunter2\", oops }",
        "postgres.password = hunter2",
        "pasword = hunter2",
    ] {
        let shown = shown(&Layers::text("unstale.toml", text));
        assert!(!shown.contains(SECRET), "{text}\nis shown as\n{shown}");
    }
}

#[test]
fn a_password_of_a_wrong_type_is_not_repeated() {
    let layers = Layers::text(
        "unstale.toml",
        "[postgres]\npassword = 31415926\n[redis]\npassword = 3141.5926",
    );
    let shown = shown(&layers);
    assert!(!shown.contains("31415926") && !shown.contains("3141.5926"), "{shown}");
    assert!(shown.contains("expected a text in quotes, found a number"), "{shown}");
}

#[test]
fn no_variable_or_flag_is_shown_with_its_value() {
    for name in [
        "UNSTALE_POSTGRES__URL",
        "UNSTALE_POSTGRES__URLL",
        "UNSTALE_POSTGRES__REPLICA_URL",
        "UNSTALE_POSTGRES_URL",
        "UNSTALE_PASSWORD",
    ] {
        let mut layers = Layers::text("unstale.toml", "[postgres]\n");
        layers.environment = vec![(name.into(), SECRET.into())];
        layers.overrides = vec!["redis.password=hunter2".parse().unwrap()];
        let shown = shown(&layers);
        assert!(!shown.contains(SECRET), "{name} is shown as\n{shown}");
    }
}

#[test]
fn what_stands_around_a_secret_keeps_its_place() {
    let text =
        "[postgres]\nurl = \"postgres://u:hunter2@h/d\"\n[redis]\nurl = \"redis://h\"\n[log]\n";
    let inline = "redis = { password = \"hunter2\", tiemout = \"2s\", url = \"redis://h\" }\n[postgres]\nurl = \"postgres://u@h/d\"";
    assert!(Layers::text("unstale.toml", text).load().is_ok());
    let wrong = Layers::text("unstale.toml", inline).load().unwrap_err();
    insta::assert_snapshot!(wrong.render(100, Style::Plain));
}
