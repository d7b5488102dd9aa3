//! Keeps secrets out of what diagnostics show of the file.
//!
//! A diagnostic quotes the lines around a mistake, and the mistake may be in the very
//! line that holds a password, under a misspelt name, or in a file that is no TOML at
//! all. So the rule is turned round: of the servers' sections, and of what nobody
//! knows, only values of known and harmless settings are shown.

use std::ops::Range;

use super::problem::{ConfigPath, Segment};
use super::schema;

/// What stands for a secret. Of one length, so that it tells none.
const MASK: &str = "***";

/// How much of a value may be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exposure {
    /// All of it.
    Shown,
    /// All but the password within.
    Url,
    /// Nothing.
    Hidden,
}

/// How much of the value at this path may be shown.
pub(super) fn exposure(path: &ConfigPath) -> Exposure {
    let (Some(Segment::Key(section)), Some(key)) = (path.0.first(), path.last_key()) else {
        return Exposure::Shown;
    };
    match section.as_str() {
        "postgres" | "redis" => match key {
            "url" | "replica_url" => Exposure::Url,
            "password" => Exposure::Hidden,
            _ if path.0.len() == 2 && schema::knows(path) => Exposure::Shown,
            _ => Exposure::Hidden,
        },
        "api" => match path.0.get(1) {
            Some(Segment::Key(jwt)) if jwt == "jwt" && !HARMLESS_OF_KEYS.contains(&key) => {
                Exposure::Hidden
            }
            _ if !sounds_secret(key) && schema::knows(path) => Exposure::Shown,
            _ => Exposure::Hidden,
        },
        "shadow" | "shadow_grace" | "pipeline" | "warm" | "schedule" | "audit" | "admin"
        | "log" | "caches" | "tables" | "endpoints"
            if !sounds_secret(key) =>
        {
            Exposure::Shown
        }
        _ => Exposure::Hidden,
    }
}

/// Of `[api.jwt]` and its keys.
const HARMLESS_OF_KEYS: [&str; 7] =
    ["kid", "algorithm", "secret_file", "public_key_file", "leeway", "audience", "issuer"];

fn sounds_secret(key: &str) -> bool {
    let key = key.to_lowercase();
    !["password_file", "secret_file"].contains(&key.as_str())
        && ["pass", "pwd", "secret", "token", "credential", "dsn", "url"]
            .iter()
            .any(|word| key.contains(word))
}

/// A text without its secrets, and where everything else went.
#[derive(Debug, Clone, Default)]
pub(super) struct Masked {
    text: String,
    /// What was cut from the original; ascending, apart, each within one line.
    cuts: Vec<Range<usize>>,
}

impl Masked {
    /// Masks these ranges of `text`, and whatever looks like a secret anywhere.
    pub(super) fn new(text: &str, secrets: Vec<Range<usize>>) -> Self {
        let mut secrets = secrets;
        for (start, line) in lines(text) {
            secrets.extend(url_passwords(line).map(|range| shift(range, start)));
            // Settings that were commented out are no less secret.
            if let Some((_, comment)) = line.split_once('#') {
                let offset = start + line.len() - comment.len();
                secrets.extend(
                    assignment(comment)
                        .filter(|(key, _)| sounds_secret(key))
                        .map(|(_, value)| shift(value, offset)),
                );
            }
        }
        Self::cut(text, secrets)
    }

    /// Masks a text that is no TOML, where only lines can be told apart.
    pub(super) fn broken(text: &str) -> Self {
        let mut secrets = Vec::new();
        let mut open: Option<&str> = None;
        let mut section = String::new();
        for (start, line) in lines(text) {
            let trimmed = line.trim_start();
            if let Some(quotes) = open {
                // Inside of a hidden text of several lines.
                secrets.push(start..start + line.len());
                if line.contains(quotes) {
                    open = None;
                }
            } else if trimmed.starts_with('[') && !trimmed.contains('=') {
                section = trimmed.trim_matches(|c: char| "[] \"'\t".contains(c)).to_owned();
                if !schema::knows(&section.split('.').collect()) {
                    secrets.push(start..start + line.len());
                }
            } else if let Some((key, value)) = assignment(line) {
                let name = match section.as_str() {
                    "" => key.to_owned(),
                    section => format!("{section}.{key}"),
                };
                let path: ConfigPath = name.split('.').map(str::trim).collect();
                // The value of a section would be a table in braces, secrets among the rest.
                if path.0.len() < 2 || exposure(&path) != Exposure::Shown {
                    let text = line.get(value.clone()).unwrap_or_default();
                    open = ["\"\"\"", "'''"]
                        .into_iter()
                        .find(|quotes| text.matches(quotes).count() % 2 == 1);
                    // Of a key that nobody knows, a value may have become a part.
                    let from = if schema::knows(&path) { value.start } else { 0 };
                    secrets.push(shift(from..value.end, start));
                }
            } else if exposure(&section.split('.').chain(["_"]).collect()) != Exposure::Shown {
                // A value that lost its key, or a comment that may have been one.
                secrets.push(start..start + line.len());
            }
        }
        Self::new(text, secrets)
    }

    fn cut(text: &str, secrets: Vec<Range<usize>>) -> Self {
        let mut cuts: Vec<Range<usize>> = Vec::new();
        let mut pieces: Vec<_> =
            secrets.into_iter().flat_map(|range| by_line(text, range)).collect();
        pieces.sort_by_key(|range| (range.start, range.end));
        for range in pieces {
            match cuts.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => cuts.push(range),
            }
        }
        let mut masked = String::with_capacity(text.len());
        let mut shown_to = 0;
        for cut in &cuts {
            masked.push_str(text.get(shown_to..cut.start).unwrap_or_default());
            masked.push_str(MASK);
            shown_to = cut.end;
        }
        masked.push_str(text.get(shown_to..).unwrap_or_default());
        Masked { text: masked, cuts }
    }

    /// What may be shown.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Where a byte of the original stands now; of a secret's bytes, where its mask begins.
    pub(super) fn offset(&self, original: usize) -> usize {
        let mut now = original;
        for cut in self.cuts.iter().take_while(|cut| cut.start < original) {
            // The original loses the cut's bytes, as far as they lie before, and gains the mask.
            now -= original.min(cut.end) - cut.start;
            if original >= cut.end {
                now += MASK.len();
            }
        }
        now.min(self.text.len())
    }

    /// Where a range of the original stands now.
    pub(super) fn range(&self, original: Range<usize>) -> Range<usize> {
        let start = self.offset(original.start);
        let within = |cut: &&Range<usize>| cut.start < original.end && original.end < cut.end;
        let end = self.cuts.iter().find(within).map_or(original.end, |cut| cut.end);
        start..self.offset(end).max(start)
    }
}

/// What must not be shown of the value of a `url`: the user and the password, and all of it
/// where they cannot be told from the rest.
pub(super) fn url_secrets(value: &str) -> Vec<Range<usize>> {
    let body = value.find("://").map_or(0, |found| found + "://".len());
    let end = value.trim_end_matches(['"', '\'']).len();
    match value.rfind('@') {
        Some(at) if at >= body => std::iter::once(body..at).chain(url_passwords(value)).collect(),
        // Behind the host stands a port, if anything: else it is a user whose `@` is missing.
        _ if body > 0 && is_host(value.get(body..end).unwrap_or_default()) => {
            url_passwords(value).collect()
        }
        _ => std::iter::once(0..value.len()).collect(),
    }
}

/// Whether a URL's text behind its scheme can only be a host and what follows one: without
/// a colon but that of a port, or without any host, as for a socket.
fn is_host(text: &str) -> bool {
    let authority = text.split(['/', '?']).next().unwrap_or_default();
    authority.is_empty() || authority.split_once(':').is_some_and(|(_, port)| is_port(port))
}

/// What of any text with URLs is a password: between a user and its `@`, and `password=…`.
fn url_passwords(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    let users = text.match_indices("://").filter_map(|(found, scheme)| {
        let start = found + scheme.len();
        let token = text.get(start..)?.split(char::is_whitespace).next()?;
        // The last `@`: a password that somebody forgot to escape may hold others.
        Some(start..start + token.rfind('@')?)
    });
    let parameters = text.match_indices("password=").map(|(found, name)| {
        let start = found + name.len();
        let rest = text.get(start..).unwrap_or_default();
        let end = rest.find(|c: char| c.is_whitespace() || "&\"'".contains(c));
        start..start + end.unwrap_or(rest.len())
    });
    users.chain(parameters).filter(|range| !range.is_empty())
}

fn is_port(text: &str) -> bool {
    (1..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
}

/// The key of `key = value`, the last of a dotted one included, and where the value is.
fn assignment(line: &str) -> Option<(&str, Range<usize>)> {
    let equals = line.find('=')?;
    let key = line.get(..equals)?.trim_matches(|c: char| "# \"'\t{,".contains(c));
    let value = line.get(equals + 1..)?;
    let start = equals + 1 + (value.len() - value.trim_start().len());
    let end = line.trim_end().len();
    (!key.is_empty() && start < end).then_some((key, start..end))
}

/// Every line, without its line break, and where it starts.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split_inclusive('\n').scan(0, |offset, line| {
        let start = *offset;
        *offset += line.len();
        Some((start, line.trim_end_matches(['\r', '\n'])))
    })
}

/// The parts of a range, line by line, so that masking moves no line.
fn by_line(text: &str, range: Range<usize>) -> Vec<Range<usize>> {
    let hidden = text.get(range.clone()).unwrap_or_default();
    lines(hidden)
        .filter(|(_, line)| !line.is_empty())
        .map(|(start, line)| shift(start..start + line.len(), range.start))
        .collect()
}

fn shift(range: Range<usize>, by: usize) -> Range<usize> {
    range.start + by..range.end + by
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_password_goes_and_the_rest_stays_in_its_line() {
        for (text, shown) in [
            ("# redis://:pw@h", "# redis://***@h"),
            ("# password = \"pw\"\nslot = 1", "# password = ***\nslot = 1"),
            ("a = 1 # PGPASSWORD=pw", "a = 1 # PGPASSWORD=***"),
            ("a = 1 # see https://toml.io", "a = 1 # see https://toml.io"),
        ] {
            assert_eq!(Masked::new(text, vec![]).text(), shown);
        }
    }

    #[test]
    fn a_url_shows_its_server_and_not_its_user() {
        for (text, shown) in [
            ("postgres://u:pw@h/d", "postgres://***@h/d"),
            ("postgres://u:p@w/x@h/d", "postgres://***@h/d"),
            ("redis://pw@h", "redis://***@h"),
            ("redis://h:6379/1", "redis://h:6379/1"),
            ("redis://pw", "***"),
            ("postgres://u:pwh/d", "***"),
            ("pw", "***"),
            ("host=h password=pw", "***"),
            (
                "postgres:///d?user=u&password=pw&sslmode=require",
                "postgres:///d?user=u&password=***&sslmode=require",
            ),
        ] {
            assert_eq!(Masked::cut(text, url_secrets(text)).text(), shown);
        }
    }

    #[test]
    fn a_file_that_is_no_toml_shows_harmless_values_only() {
        let text = "postgres = { url = \"pw\", oops\n[postgres]\nurl = pw\npasswrd = 'pw\npublication = \"shown\nurl = \"\"\"\npw\npw\"\"\"\n[tables\nname = shown\n[redis]\nkey_prefix = shown\nx = pw";
        insta::assert_snapshot!(Masked::broken(text).text(), @r#"
        postgres = ***
        [postgres]
        url = ***
        ***
        publication = "shown
        url = ***
        ***
        ***
        [tables
        name = shown
        [redis]
        key_prefix = shown
        ***
        "#);
    }

    proptest! {
        #[test]
        fn what_is_shown_is_where_the_map_says(
            text in "[a-c\n\u{e9}]{0,40}",
            cuts in proptest::collection::vec((0_usize..45, 0_usize..9), 0..5),
        ) {
            let cuts: Vec<_> = cuts.into_iter().map(|(start, length)| start..start + length).collect();
            let masked = Masked::cut(&text, cuts);
            for (offset, found) in text.char_indices() {
                if !masked.cuts.iter().any(|cut| cut.contains(&offset)) {
                    let now = masked.offset(offset);
                    prop_assert!(masked.text().get(now..).is_some_and(|rest| rest.starts_with(found)));
                }
            }
            prop_assert_eq!(masked.text().lines().count(), text.lines().count());
        }
    }
}
