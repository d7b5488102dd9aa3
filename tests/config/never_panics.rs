//! Whatever the file holds, loading ends with a configuration or with diagnostics that can
//! be shown, point into the file and give no secret away.

use std::fs;

use proptest::prelude::*;
use unstale::config::{File, Layers, Style};

const GOOD: &str = r#"# A comment.
[postgres]
url = "postgres://u:hunter2@h/d"
password = "hunter2"
slot = "s"
[redis]
url = "redis://:hunter2@h/0"
timeout = "2s"
[log]
level = "info"
[caches.org_data]
key = "v1:org:data:{org_id}"
parameters = { days = [7, 30] }
query = { file = "org_data.sql" }
[[tables]]
name = "deals_deal"
invalidates = [
  { cache = "org_data", org_id = "organization_id", on = ["insert"] },
]
"#;

/// What a slip of the hand puts into a file.
fn slips() -> impl Strategy<Value = Vec<(usize, usize, String)>> {
    let piece = prop_oneof![
        "[a-z_.=\\[\\]{},# \n0-9]{0,3}",
        Just("é".to_owned()),
        Just("\r\n".to_owned()),
        Just("[".to_owned()),
        Just("url = 1\n".to_owned()),
    ];
    proptest::collection::vec((0..GOOD.len(), 0..4_usize, piece), 1..4)
}

fn apply(slips: &[(usize, usize, String)]) -> String {
    let mut text = GOOD.to_owned();
    for (at, length, piece) in slips {
        let (start, end) = (boundary(&text, *at), boundary(&text, at + length));
        text.replace_range(start..end, piece);
    }
    text
}

/// The character's start at or before this byte.
fn boundary(text: &str, at: usize) -> usize {
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

fn outcome(layers: &Layers, text: &str) -> Result<String, TestCaseError> {
    Ok(match layers.load() {
        Ok(loaded) => format!("{loaded:?}"),
        Err(wrong) => {
            prop_assert!(!wrong.findings().is_empty());
            for place in wrong.findings().iter().filter_map(|finding| finding.place()) {
                let line = text.split('\n').nth(place.line - 1);
                prop_assert!(
                    line.is_some_and(|line| place.column <= line.chars().count() + 1),
                    "{place:?} is not in\n{text}"
                );
            }
            format!("{wrong}{wrong:?}{}", wrong.render(80, Style::Plain))
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_good_file_with_slips_is_loaded_or_diagnosed_without_its_secrets(slips in slips()) {
        let text = apply(&slips);
        let shown = outcome(&Layers::text("unstale.toml", &text), &text)?;
        // A slip inside of the secret itself makes another word of it.
        prop_assert!(!shown.contains("hunter2"), "{text}\nis shown as\n{shown}");
    }

    #[test]
    fn any_text_is_loaded_or_diagnosed(text in "\\PC{0,60}|([a-z]{1,3}|[\\[\\]={}\"'.,#\\\\\n\r ]|é|[0-9]|\"\"\"){0,40}") {
        outcome(&Layers::text("unstale.toml", &text), &text)?;
    }

    #[test]
    fn any_value_of_any_setting_is_taken_or_diagnosed(
        path in "(postgres|redis|pipeline|admin|log|caches|tables|x)(\\.(url|listen|level|max_lag|org_data|timezone|query|0)){0,4}",
        value in "\\PC{0,10}|[0-9]{1,30}|\"[a-z]{0,5}\"|\\[[0-9,\"]{0,5}\\]|-?[0-9]{1,3}(ms|s|h)",
    ) {
        let mut layers = Layers::text("unstale.toml", GOOD);
        layers.overrides = vec![format!("{path}={value}").parse().unwrap()];
        outcome(&layers, GOOD)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_are_loaded_or_diagnosed(bytes: Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("unstale.toml");
        fs::write(&path, &bytes).unwrap();
        let layers = Layers { file: File::At(path), environment: vec![], overrides: vec![] };
        outcome(&layers, &String::from_utf8_lossy(&bytes))?;
    }
}
