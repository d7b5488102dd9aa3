//! Which tables were rewritten behind the stream's back (rule 9). Pure.
//!
//! A TRUNCATE gives a table another file too, and the stream does tell of it. So a file
//! that is another one is only a *question* at first, put with a WAL position read after
//! it was seen. Once the stream has passed that position, the question is decided: if the
//! transaction that gave the file came through and said so of this table (by a TRUNCATE, or by
//! the message of an event trigger, see [`announce`](crate::postgres::announce)), all that
//! depends on the table went with it; if not, it must go now.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::lsn::Lsn;
use crate::postgres::storage::File;
use crate::snapshot::Xid;

/// How much of what was told is remembered. Past it a rewrite may be seen that was none.
const REMEMBERED: usize = 1000;

/// A file, and what ties it to its table (see [`File`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part(u32, String);

/// The files as they were when all that depends on the tables was last known good.
pub type Known = BTreeMap<u32, BTreeMap<u32, Part>>;

/// What came of a question.
#[derive(Debug)]
pub struct Decided<'a> {
    /// The tables that were rewritten.
    pub rewritten: BTreeSet<u32>,
    /// The files that are known from here on.
    pub known: &'a Known,
    /// A WAL position past the transactions that gave them.
    pub seen: Lsn,
}

/// Compares what is with what was.
#[derive(Debug)]
pub struct Rewrites {
    known: Known,
    question: Option<(Lsn, Vec<File>)>,
    /// By whom, of which table (OID).
    told: VecDeque<(Xid, u32)>,
}

/// The files by table and part.
#[must_use]
pub fn known(files: &[File]) -> Known {
    let mut known = Known::new();
    for file in files {
        let part = Part(file.file, file.ties.clone());
        known.entry(file.table).or_default().insert(file.part, part);
    }
    known
}

/// As stored.
#[must_use]
pub fn write(known: &Known) -> String {
    serde_json::to_string(known).unwrap_or_default()
}

/// As read again; what cannot be read is nothing known: every table differs.
#[must_use]
pub fn read(text: &str) -> Known {
    serde_json::from_str(text).unwrap_or_default()
}

/// The tables whose files are not the known ones.
#[must_use]
pub fn differing(was: &Known, is: &Known) -> BTreeSet<u32> {
    was.keys().chain(is.keys()).filter(|table| was.get(table) != is.get(table)).copied().collect()
}

impl Rewrites {
    /// `known` is what the state in Redis holds.
    #[must_use]
    pub fn new(known: Known) -> Self {
        Rewrites { known, question: None, told: VecDeque::new() }
    }

    /// A transaction came through the stream that told of another file of this table (OID):
    /// all that depends on it was dropped.
    pub fn told(&mut self, xid: Xid, table: u32) {
        self.told.push_back((xid, table));
        if self.told.len() > REMEMBERED {
            self.told.pop_front();
        }
    }

    /// The files as they are; `inserted` is a WAL position read after them. If they differ
    /// from what is known, that is decided later.
    pub fn look(&mut self, files: Vec<File>, inserted: Lsn) {
        if self.question.is_none() && known(&files) != self.known {
            self.question = Some((inserted, files));
        }
    }

    /// The stream has passed `passed`: what was asked about the files, if that can be told
    /// now.
    pub fn decide(&mut self, passed: Lsn) -> Option<Decided<'_>> {
        let (seen, files) = self.question.take_if(|(asked, _)| *asked <= passed)?;
        let is = known(&files);
        let explained = |table: &u32| {
            let (Some(was), Some(now)) = (self.known.get(table), is.get(table)) else {
                return false;
            };
            // The same parts, tied as they were, and each new file told of by who gave it.
            was.keys().eq(now.keys())
                && files.iter().filter(|file| file.table == *table).all(|file| {
                    was.get(&file.part).is_some_and(|Part(number, ties)| {
                        *ties == file.ties
                            && (*number == file.file || self.told.contains(&(file.writer, *table)))
                    })
                })
        };
        let rewritten =
            differing(&self.known, &is).into_iter().filter(|table| !explained(table)).collect();
        self.known = is;
        Some(Decided { rewritten, known: &self.known, seen })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(table: u32, part: u32, file: u32, writer: u32) -> File {
        File { table, part, file, ties: String::new(), writer: Xid(writer) }
    }

    fn tied(ties: &str, file: File) -> File {
        File { ties: ties.to_owned(), ..file }
    }

    fn rewritten(rewrites: &mut Rewrites, files: &[File]) -> Option<Vec<u32>> {
        rewrites.look(files.to_vec(), Lsn(10));
        assert!(rewrites.decide(Lsn(9)).is_none(), "before the stream has passed");
        rewrites.decide(Lsn(10)).map(|decided| {
            assert_eq!(decided.seen, Lsn(10));
            decided.rewritten.into_iter().collect()
        })
    }

    #[test]
    fn another_file_is_a_rewrite_unless_a_truncate_gave_it() {
        let mut rewrites = Rewrites::new(known(&[file(1, 1, 100, 5), file(2, 2, 200, 5)]));
        assert_eq!(rewritten(&mut rewrites, &[file(1, 1, 100, 6), file(2, 2, 200, 5)]), None);
        let after = [file(1, 1, 101, 7), file(2, 2, 200, 5)];
        assert_eq!(rewritten(&mut rewrites, &after), Some(vec![1]));
        assert_eq!(rewritten(&mut rewrites, &after), None, "told once");
        rewrites.told(Xid(8), 1);
        let after = [file(1, 1, 102, 8), file(2, 2, 200, 5)];
        assert_eq!(
            rewritten(&mut rewrites, &after),
            Some(vec![]),
            "known now, and nothing to drop"
        );
    }

    #[test]
    fn a_rewrite_behind_a_truncate_is_not_explained_by_it() {
        let mut rewrites = Rewrites::new(known(&[file(1, 1, 100, 5)]));
        rewrites.told(Xid(8), 1);
        assert_eq!(rewritten(&mut rewrites, &[file(1, 1, 102, 9)]), Some(vec![1]));
    }

    #[test]
    fn a_truncate_explains_no_other_table_of_its_transaction() {
        let mut rewrites = Rewrites::new(known(&[file(1, 1, 100, 5), file(2, 2, 200, 5)]));
        rewrites.told(Xid(8), 1);
        let after = [file(1, 1, 101, 8), file(2, 2, 201, 8)];
        assert_eq!(rewritten(&mut rewrites, &after), Some(vec![2]));
    }

    #[test]
    fn a_partition_that_comes_or_goes_is_a_rewrite() {
        let mut rewrites = Rewrites::new(known(&[file(1, 11, 100, 5)]));
        rewrites.told(Xid(6), 1);
        assert_eq!(
            rewritten(&mut rewrites, &[file(1, 11, 100, 5), file(1, 12, 300, 6)]),
            Some(vec![1])
        );
        assert_eq!(rewritten(&mut rewrites, &[file(1, 12, 300, 6)]), Some(vec![1]));
        assert_eq!(rewritten(&mut rewrites, &[]), Some(vec![1]), "gone altogether");
    }

    #[test]
    fn a_partition_that_was_away_in_between_is_a_rewrite_though_its_file_is_the_same() {
        let is = |tie: &str| [file(1, 1, 0, 5), tied(tie, file(1, 11, 100, 6))];
        let mut rewrites = Rewrites::new(known(&is("1 700")));
        rewrites.told(Xid(6), 1);
        assert_eq!(rewritten(&mut rewrites, &is("1 700")), None);
        assert_eq!(rewritten(&mut rewrites, &is("1 800")), Some(vec![1]));
        assert_eq!(read(&write(&known(&is("1 800")))), known(&is("1 800")));
    }
}
