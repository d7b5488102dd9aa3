//! Whatever a configuration holds, loading it ends with a configuration or with diagnostics that point
//! into the file, can be shown, and hide the passwords.

use unstale::api::endpoints::Endpoints;
use unstale::config::{Diagnostics, Layers, Loaded, Style};
use unstale::mapping::Mapping;
use unstale::postgres::conninfo::ConnectOptions;

/// How a password begins that is looked for in what is shown. No message has this word.
const PASSWORD: &str = "hunter";

/// Loads `input`: the file, and behind NULs settings of the command line (`a.b=c`) and variables
/// (`UNSTALE_A__B=c`). Queries' files are not read.
///
/// # Panics
/// If loading breaks a promise.
pub(crate) fn check(input: &[u8]) -> bool {
    let Ok(input) = str::from_utf8(input) else { return false };
    let mut pieces = input.split('\0');
    let text = pieces.next().unwrap_or_default();
    let mut layers = Layers::text("unstale.toml", text);
    for piece in pieces {
        match piece.split_once('=') {
            Some((name, value)) if name.starts_with("UNSTALE_") => {
                layers.environment.push((name.into(), value.into()));
            }
            _ => layers.overrides.extend(piece.parse()),
        }
    }
    let loaded = layers.load();
    // What reads by recursion cannot look for the password in a file that nests too deep.
    let secret = if is_too_deep(&loaded) { None } else { password(text) }
        .filter(|secret| input.matches(secret.as_str()).count() == 1);
    let hides = |shown: &str| {
        if let Some(secret) = &secret {
            assert!(!shown.contains(secret.as_str()), "{secret} is shown:\n{shown}");
        }
    };
    match loaded {
        Ok(loaded) => {
            hides(&format!("{loaded:?}"));
            _ = ConnectOptions::parse(secrecy::ExposeSecret::expose_secret(
                &loaded.config.postgres.url,
            ))
            .map(|options| hides(&format!("{options:?}")));
            if let Err(diagnostics) = compile(&loaded) {
                hides(&shown(&diagnostics, text));
                return false;
            }
            true
        }
        Err(diagnostics) => {
            hides(&shown(&diagnostics, text));
            false
        }
    }
}

/// Whether the file was refused before it was parsed.
fn is_too_deep(loaded: &Result<Loaded, Diagnostics>) -> bool {
    loaded.as_ref().is_err_and(|diagnostics| {
        diagnostics
            .findings()
            .iter()
            .any(|finding| finding.place().is_some() && finding.message().ends_with("levels deep"))
    })
}

/// As [`unstale::rules::Rules::compile`], without a look at any file.
fn compile(loaded: &Loaded) -> Result<(), Diagnostics> {
    let mapping =
        Mapping::new(&loaded.config).map_err(|problems| loaded.source.diagnostics(problems))?;
    let again = Mapping::new(&loaded.config).map(|again| again.fingerprint());
    assert_eq!(again.ok(), Some(mapping.fingerprint()), "one configuration, one fingerprint");
    Endpoints::compile(&loaded.config, &mapping, &Default::default())
        .map_err(|problems| loaded.source.diagnostics(problems))?;
    Ok(())
}

/// All that is shown of diagnostics.
fn shown(diagnostics: &Diagnostics, text: &str) -> String {
    assert!(!diagnostics.findings().is_empty(), "refused without a reason");
    for place in diagnostics.findings().iter().filter_map(|finding| finding.place()) {
        let line = text.split('\n').nth(place.line - 1);
        let within = line.is_some_and(|line| place.column <= line.chars().count() + 1);
        assert!(within, "{place:?} is not in the file");
    }
    // Any will do, as long as all are tried.
    let style = [Style::Plain, Style::Unicode, Style::Colour][text.len() % 3];
    format!("{diagnostics}{diagnostics:?}{}", diagnostics.render(80, style))
}

/// The file's password as TOML reads it, if it can be told from other words.
fn password(text: &str) -> Option<String> {
    let document = text.parse::<toml_edit::ImDocument<_>>().ok()?;
    let of = |section: &str| document.get(section)?.get("password")?.as_str().map(str::to_owned);
    let found = of("postgres").or_else(|| of("redis"))?;
    let looked_for =
        found.starts_with(PASSWORD) && found.bytes().all(|b| b.is_ascii_alphanumeric());
    looked_for.then_some(found)
}
