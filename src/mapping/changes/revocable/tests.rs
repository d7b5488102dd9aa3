use super::super::tests::{Step, check, content, take};
use super::*;
use proptest::prelude::*;

/// What a session does inside of its transaction.
#[derive(Debug, Clone, Copy)]
enum Act {
    Write(Step),
    Truncate,
    Savepoint,
    Release,
    /// As many savepoints as that, each rolled back and gone.
    RollBack(usize),
}

/// What the stream tells of it.
#[derive(Debug, Clone, Copy)]
enum Told {
    Row(Xid, Option<Step>),
    Abort(Xid),
}

/// A transaction as the server sees it, and what a consumer should make of it.
struct Session {
    /// The transaction itself and the subtransactions that are open.
    open: Vec<Subtransaction>,
    next: u32,
    told: Vec<Told>,
}

#[derive(Default)]
struct Subtransaction {
    xid: Option<Xid>,
    /// Released into it.
    released: Vec<Xid>,
    /// `None`: a TRUNCATE.
    wrote: Vec<Option<Step>>,
}

impl Session {
    fn run(first: u32, acts: &[Act]) -> Session {
        let top = Subtransaction { xid: Some(Xid(first)), ..Subtransaction::default() };
        let mut session = Session { open: vec![top], next: first, told: Vec::new() };
        for act in acts {
            match *act {
                Act::Write(step) => session.write(Some(step)),
                Act::Truncate => session.write(None),
                Act::Savepoint => session.open.push(Subtransaction::default()),
                Act::Release => session.release(),
                Act::RollBack(levels) => (0..levels).for_each(|_| session.roll_back()),
            }
        }
        session
    }

    /// Ids are given when something is written, to parents before their children.
    fn write(&mut self, step: Option<Step>) {
        for open in &mut self.open {
            if open.xid.is_none() {
                // Others take ids in between.
                self.next = self.next.wrapping_add(3);
                open.xid = Some(Xid(self.next));
            }
        }
        let writer = self.open.last_mut().unwrap();
        writer.wrote.push(step);
        self.told.push(Told::Row(writer.xid.unwrap(), step));
    }

    fn release(&mut self) {
        if self.open.len() > 1 {
            let ended = self.open.pop().unwrap();
            let parent = self.open.last_mut().unwrap();
            parent.released.extend(ended.released);
            parent.released.extend(ended.xid);
            parent.wrote.extend(ended.wrote);
        }
    }

    fn roll_back(&mut self) {
        if self.open.len() > 1 {
            let ended = self.open.pop().unwrap();
            let mut xids: Vec<Xid> = ended.released.into_iter().chain(ended.xid).collect();
            // An abort record names the children in order, then its own.
            xids.sort_by_key(|xid| xid.since(Xid(self.next).back(1000)));
            self.told.extend(xids.into_iter().map(Told::Abort));
        }
    }

    fn top(&self) -> Xid {
        self.open[0].xid.unwrap()
    }

    /// What of it lives.
    fn truth(&self) -> ChangeSet {
        let mut truth = ChangeSet::default();
        // Open ones committed with the transaction.
        for step in self.open.iter().flat_map(|open| &open.wrote) {
            touch(&mut truth, *step);
        }
        truth
    }

    fn consumed(&self, limit: usize) -> ChangeSet {
        let mut changes = RevocableChanges::new(self.top());
        for told in &self.told {
            match *told {
                Told::Row(xid, step) => {
                    changes.written_by(xid);
                    touch(&mut changes, step);
                    changes.limit(limit);
                    assert!(changes.len() <= limit);
                }
                Told::Abort(xid) => changes.roll_back(xid),
            }
            consistent(&changes);
        }
        changes.committed()
    }
}

impl Xid {
    fn back(self, n: u32) -> Xid {
        Xid(self.0.wrapping_sub(n))
    }
}

fn touch(set: &mut impl ChangeSink, step: Option<Step>) {
    match step {
        Some(step) => {
            set.count(TableId(1), Operation::Update);
            take(set, step);
        }
        None => set.count(TableId(0), Operation::Truncate),
    }
}

/// What is counted must be what is there, and what is there must be found.
fn consistent(changes: &RevocableChanges) {
    let held = changes.log.iter().filter(|entry| !matches!(entry.kind, Kind::Whole(_))).count();
    assert_eq!((held, held), (changes.held, changes.index.len()));
    assert_eq!(held, changes.tallies.iter().map(|(_, tally)| tally.held).sum::<usize>());
    for (at, entry) in changes.log.iter().enumerate() {
        let found = changes.index.find(entry.hash(&changes.hasher), |other| *other == at);
        assert_eq!(found.is_some(), !matches!(entry.kind, Kind::Whole(_)));
    }
    assert!(changes.parts.is_sorted_by_key(|part| part.start));
    assert!(changes.parts.is_sorted_by(|a, b| (1..1 << 31).contains(&b.xid.since(a.xid))));
    assert!(changes.parts.iter().all(|part| part.start <= changes.log.len()));
}

fn counts(set: &ChangeSet) -> Vec<(TableId, Operation, u64)> {
    set.counts().collect()
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let step = prop_oneof![
        12 => (0u16..6, 0u8..6).prop_map(|(rule, value)| Step::Add { rule, value }),
        1 => (0u16..6).prop_map(|rule| Step::Escalate { rule }),
    ];
    let act = prop_oneof![
        8 => step.prop_map(Act::Write),
        1 => Just(Act::Truncate),
        4 => Just(Act::Savepoint),
        2 => Just(Act::Release),
        3 => (1usize..4).prop_map(Act::RollBack),
    ];
    proptest::collection::vec(act, 0..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_was_rolled_back_is_gone_and_all_else_is_there(
        acts in acts(),
        first in prop_oneof![Just(100), Just(u32::MAX - 20)],
    ) {
        let session = Session::run(first, &acts);
        let (truth, consumed) = (session.truth(), session.consumed(usize::MAX));
        check(&consumed);
        prop_assert_eq!(content(&consumed), content(&truth));
        prop_assert_eq!(counts(&consumed), counts(&truth));
    }

    #[test]
    fn past_the_limit_more_is_dropped_never_less(acts in acts(), limit in 1usize..12) {
        let session = Session::run(100, &acts);
        let (mut truth, consumed) = (session.truth(), session.consumed(limit));
        check(&consumed);
        for (_, reason, origin) in consumed.whole() {
            truth.escalate(reason, origin);
        }
        // Of the caches that are not dropped as a whole, exactly what lives.
        prop_assert_eq!(content(&consumed), content(&truth));
    }
}

fn key(changes: &mut RevocableChanges, xid: u32, value: u8) {
    changes.written_by(Xid(xid));
    take(changes, Step::Add { rule: 0, value });
}

fn left(changes: RevocableChanges) -> Vec<String> {
    let changes = changes.committed();
    let mut keys: Vec<String> = changes.keys().map(|(key, _)| key.to_string()).collect();
    keys.sort();
    keys
}

#[test]
fn memory_follows_keys_however_many_subtransactions_there_are() {
    let mut changes = RevocableChanges::new(Xid(1));
    for xid in 2..200_000 {
        key(&mut changes, xid, u8::try_from(xid % 7).unwrap());
    }
    assert_eq!((changes.len(), changes.parts.len()), (7, 8));
    changes.roll_back(Xid(150_000));
    assert_eq!(left(changes).len(), 7, "what it touched, living ones did, too");
}

#[test]
fn a_rollback_that_is_not_told_of_takes_nothing_from_the_living() {
    let mut changes = RevocableChanges::new(Xid(1));
    key(&mut changes, 2, 1); // rolled back, and nobody says so
    key(&mut changes, 5, 1);
    key(&mut changes, 5, 2);
    key(&mut changes, 4, 3); // 5 was released into it
    key(&mut changes, 1, 4); // and that into the transaction
    changes.roll_back(Xid(5));
    assert_eq!(left(changes).len(), 4);
}

#[test]
fn rows_that_come_to_nothing_new_are_counted_in_bounded_room() {
    let mut changes = RevocableChanges::new(Xid(1));
    for xid in 2..3 * u32::try_from(COUNTING_PARTS).unwrap() {
        changes.written_by(Xid(xid));
        changes.count(TableId(0), Operation::Insert);
    }
    assert_eq!(changes.parts.len(), COUNTING_PARTS);
}
