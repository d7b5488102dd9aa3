//! How deep a configuration may nest, before anybody reads it by recursion.
//!
//! What parses TOML, merges layers and drops values goes one call deeper a level, and a stack
//! that overflows ends the process without a word: a daemon too, that was told to read its
//! changed file again on a worker's 2 MiB. The parser has a bound of its own, but for each name
//! and each run of brackets alone: `{a.a.a = {a.a.a = …}}` multiplies them, and names of
//! variables never meet it. So levels are counted in the text, which takes no stack.
//!
//! The count trusts that strings and comments are where TOML has them. Where they are not, the
//! parser stops before anything that was counted wrongly.

use super::literal;

/// The most levels that are read: `tables[3].invalidates[0].where` is at the fifth.
pub(super) const DEEPEST: usize = 32;

/// More levels than [`DEEPEST`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooDeep {
    /// How many there are.
    pub(super) levels: usize,
    /// The byte with which the first begins that is one too many.
    pub(super) at: usize,
}

impl TooDeep {
    /// What was found, of what is called `what`.
    pub(super) fn message(&self, what: &str) -> String {
        format!("{what} nests {} levels deep", self.levels)
    }

    /// What is allowed.
    pub(super) fn hint() -> String {
        format!(
            "at most {DEEPEST} levels are allowed, and no setting needs as many: look for a name or a bracket \
             that is repeated by mistake"
        )
    }
}

/// Bounds a TOML document.
pub(super) fn of_document(text: &str) -> Result<(), TooDeep> {
    Scan::default().read(text)
}

/// Bounds a value that is set so many levels deep.
pub(super) fn of_value(levels: usize, text: &str) -> Result<(), TooDeep> {
    let mut scan = Scan { part: Part::Entry, section: levels.saturating_sub(1), ..Scan::default() };
    scan.enter(levels, 0);
    scan.read(text)
}

/// What stands outside of all brackets of values.
#[derive(Default, PartialEq, Eq)]
enum Part {
    /// Nothing yet in this line: a bracket begins a header.
    #[default]
    LineStart,
    /// `[a.b]`.
    Header,
    /// `a.b = …`.
    Entry,
}

#[derive(Default)]
struct Scan {
    part: Part,
    /// The level of the section's name.
    section: usize,
    /// The level of the present entry.
    level: usize,
    /// The levels outside of the brackets that are open.
    open: Vec<usize>,
    /// Dots since the entry began: of its name, if an equals sign follows, else of a number.
    dots: usize,
    found: Option<TooDeep>,
}

impl Scan {
    fn read(mut self, text: &str) -> Result<(), TooDeep> {
        let mut at = 0;
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            at += match rest.as_bytes().first() {
                // The rest is a string that nobody closed.
                Some(b'"' | b'\'') => literal::leading(rest).map_or(rest.len(), str::len),
                Some(b'#') => rest.find('\n').unwrap_or(rest.len()),
                Some(byte) => {
                    self.step(*byte, at);
                    rest.chars().next().map_or(1, char::len_utf8)
                }
                None => break,
            };
        }
        self.found.map_or(Ok(()), Err)
    }

    fn step(&mut self, byte: u8, at: usize) {
        let header = self.part == Part::Header;
        match byte {
            b'[' if self.part == Part::LineStart && self.open.is_empty() => {
                self.part = Part::Header;
                self.section = 1;
            }
            b'[' | b'.' if header => {
                self.section += 1;
                self.enter(self.section, at);
            }
            b']' if header => {}
            b'[' | b'{' => {
                self.open.push(self.level);
                self.dots = 0;
                self.enter(self.level + 1, at);
            }
            b']' | b'}' => self.level = self.open.pop().unwrap_or(self.level),
            b'.' => self.dots += 1,
            b'=' => {
                self.enter(self.around() + 1 + self.dots, at);
                self.dots = 0;
            }
            // No entry goes on behind them, but within brackets that it opened.
            b',' | b'\n' => {
                self.level = self.around() + 1;
                self.dots = 0;
            }
            _ => {}
        }
        match byte {
            b'\n' => self.part = Part::LineStart,
            b' ' | b'\t' | b'\r' => {}
            _ if self.part == Part::LineStart => self.part = Part::Entry,
            _ => {}
        }
    }

    /// The level of what holds the present entry.
    fn around(&self) -> usize {
        self.open.last().map_or(self.section, |level| *level)
    }

    fn enter(&mut self, level: usize, at: usize) {
        self.level = level;
        if level > DEEPEST {
            let found = self.found.get_or_insert(TooDeep { levels: level, at });
            found.levels = found.levels.max(level);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::problem::ConfigPath;
    use crate::config::walk::Walk;
    use proptest::prelude::*;
    use toml_edit::ImDocument;

    fn levels(document: &str) -> Option<usize> {
        of_document(document).err().map(|deep| deep.levels)
    }

    /// `piece` and `end` around `inner`, so many times.
    fn nested(times: usize, piece: &str, inner: &str, end: &str) -> String {
        format!("{}{inner}{}", piece.repeat(times), end.repeat(times))
    }

    #[test]
    fn every_way_to_nest_counts_and_so_does_their_sum() {
        let name = |parts: usize| vec!["a"; parts].join(".");
        for (document, found) in [
            (name(32) + " = 1", None),
            (name(33) + " = 1", Some(33)),
            (format!("[{}]", name(32)), None),
            (format!("[{}]\n", name(33)), Some(33)),
            (format!("[[{}]]", name(32)), Some(33)),
            (format!("[{}]\nb.c = 1", name(31)), Some(33)),
            (format!("a = {}", nested(31, "[", "1.5, 2", "]")), None),
            (format!("a = {}", nested(32, "[", "1.5, 2", "]")), Some(33)),
            (format!("a = {}", nested(9000, "[", "", "")), Some(9001)),
            (format!("a = {}", nested(31, "{ b = ", "1", "}")), None),
            (format!("a = {}", nested(32, "{ b = ", "1", "}")), Some(33)),
            (format!("a = {}", nested(15, "{ b.\"c.d\" = ", "[1]", "}")), None),
            (format!("a = {}", nested(16, "{ b.\"c.d\" = ", "1", "}")), Some(33)),
            (format!("a = {}", nested(79, &format!("{{{} = ", name(79)), "1", "}")), Some(6242)),
        ] {
            assert_eq!(levels(&document), found, "{document}");
        }
    }

    #[test]
    fn what_only_looks_like_nesting_counts_nothing() {
        let brackets = "[{".repeat(50);
        for document in [
            format!("a = \"{brackets}\\\"{brackets}\"\nb = '{brackets}'"),
            format!("a = \"\"\"\n{brackets}\n\"{brackets}\"\"\"\"\n# {brackets}"),
            "[[tables]]\na = [1.5, 2.5]\nb = { c.d = 1.5, e = 1 }\n".repeat(50),
            // A bracket that is not closed is the parser's to tell.
            "a = [1, 2\n[section]\nb.c = 1.5\nd = 1.5\n".repeat(10),
        ] {
            assert_eq!(levels(&document), None, "{document}");
        }
    }

    #[test]
    fn a_value_counts_from_where_it_is_set() {
        assert_eq!(of_value(31, "[1]"), Ok(()));
        assert_eq!(of_value(31, "[[1]]"), Err(TooDeep { levels: 33, at: 1 }));
        assert_eq!(of_value(33, ""), Err(TooDeep { levels: 33, at: 0 }));
        assert_eq!(of_value(30, "{ a.b = 1, c.d.e = 1.5 }"), Err(TooDeep { levels: 33, at: 17 }));
    }

    /// Entries, each a part of those before it or beside them.
    fn document() -> impl Strategy<Value = String> {
        let name = "[a-c](\\.[d-f]){0,3}";
        let value = prop_oneof![Just("1.5".to_owned()), Just("'[.='".to_owned())].prop_recursive(
            5,
            20,
            3,
            move |inner| {
                let pair =
                    (name, inner.clone()).prop_map(|(name, value)| format!("{name} = {value}"));
                prop_oneof![
                    proptest::collection::vec(inner, 1..3)
                        .prop_map(|of| format!("[{}]", of.join(",\n"))),
                    pair.prop_map(|pair| format!("{{ {pair} }}")),
                ]
            },
        );
        let header = prop_oneof![
            Just(String::new()),
            name.prop_map(|name| format!("[{name}]\n")),
            name.prop_map(|name| format!("[[{name}]] # [\n")),
        ];
        (header, proptest::collection::vec(("[g-z]", name, value), 1..4)).prop_map(
            |(header, entries)| {
                let line = |(start, rest, value)| format!("{start}.{rest} = {value}\n");
                header + &entries.into_iter().map(line).collect::<String>()
            },
        )
    }

    proptest! {
        #[test]
        fn counts_the_levels_that_the_parser_makes(document in document()) {
            let Ok(parsed) = ImDocument::parse(document.as_str()) else { return Ok(()) };
            let mut walk = Walk::default();
            walk.table(parsed.as_table(), &ConfigPath::root());
            let made = walk.spans.keys().map(|path| path.0.len()).max().unwrap_or(0);
            // Pushed down, so that all of them are too deep and are counted.
            let below = |line: &str| match line.trim_start_matches('[') {
                name if name.len() < line.len() => line.replacen(name, &format!("{}{name}", "x.".repeat(32)), 1),
                _ => line.to_owned(),
            };
            let (first, rest) = document.split_once('\n').unwrap_or((&document, ""));
            let pushed = match first.starts_with('[') {
                true => format!("{}\n{rest}", below(first)),
                false => format!("[{}x]\n{document}", "x.".repeat(31)),
            };
            prop_assert_eq!(levels(&pushed), Some(32 + made), "{}", pushed);
        }
    }
}
