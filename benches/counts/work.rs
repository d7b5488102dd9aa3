//! What is counted: the way of a change through the program, without its system calls and round
//! trips. Each stage does what the ones before it do, too; what one adds is the difference.

use std::borrow::Cow;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use unstale::config::{File, Layers, Loaded};
use unstale::fill::held::Held;
use unstale::lsn::Lsn;
use unstale::metrics::Metrics;
use unstale::pgoutput::decode::{Decoder, Protocol, Streaming};
use unstale::pipeline::account::Account;
use unstale::pipeline::assemble::{Assembler, Bounds, Dialect, Unbelieved};
use unstale::pipeline::batch::Batch;
use unstale::pipeline::touched::Touched;
use unstale::pipeline::transaction::Transaction;
use unstale::pipeline::waiting::{Arrival, Waiting};
use unstale::rules::Rules;
use unstale::series;
use unstale::snapshot::Snapshot;
use unstale::status::Status;
use unstale::store::keys::ControlKeys;
use unstale::store::session::{NOT_THERE, Step};
use unstale::store::state::{self, Nonces};
use unstale::warm::Warming;

use super::allocations;
use super::callgrind::{counting_begins, counting_ends};
use super::shape::Shape;
use super::stream::Stream;

/// How far a change is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Bytes to messages.
    Decode,
    /// Messages to transactions, rows to keys.
    Map,
    /// Through the gate, together with what else waits.
    Gate,
    /// As the bytes that Redis gets.
    Step,
    /// And told of, once Redis has acknowledged it.
    Account,
}

pub(crate) struct Case {
    pub(crate) name: Cow<'static, str>,
    pub(crate) what: Cow<'static, str>,
    /// What is configured; `None`: the default configuration.
    shape: Option<Shape>,
    /// As the server sends them.
    stream: fn(u64) -> Stream,
    rows: u64,
    /// So many transactions at most go through the gate together.
    at_once: usize,
    until: Stage,
}

fn case(name: &'static str, what: &'static str, until: Stage) -> Case {
    let (name, what) = (name.into(), what.into());
    Case { name, what, shape: None, stream: Stream::of_small, rows: 250, at_once: 250, until }
}

/// Of the default configuration.
pub(crate) fn cases() -> [Case; 9] {
    [
        case("drain_decode", "a drain: transactions of one row, to messages", Stage::Decode),
        case("drain_map", "… to keys", Stage::Map),
        case("drain_gate", "… to batches of 250", Stage::Gate),
        case("drain_step", "… to what Redis gets", Stage::Step),
        case("drain", "… and told of: all of it", Stage::Account),
        Case {
            at_once: 1,
            ..case("alone", "one by one, as at a low rate: all of it", Stage::Account)
        },
        Case {
            stream: Stream::of_large,
            rows: 500,
            ..case("large", "a row of a large transaction", Stage::Account)
        },
        Case {
            stream: Stream::of_streamed,
            rows: 500,
            ..case("streamed", "the same, read while it is in progress", Stage::Account)
        },
        Case {
            stream: Stream::of_distinct,
            rows: 500,
            ..case(
                "distinct",
                "a row of a large transaction that has keys of its own",
                Stage::Account,
            )
        },
    ]
}

/// What must cost the same though there is more of it: few rules and many, few tables and many.
pub(crate) const GROWTH: [[Shape; 2]; 2] = [
    [Shape { tables: 1, rules: 10 }, Shape { tables: 1, rules: 500 }],
    [Shape { tables: 1, rules: 5 }, Shape { tables: 64, rules: 5 }],
];

impl Case {
    /// Changes by these rules of these tables, to batches.
    pub(crate) fn of(shape: Shape) -> Case {
        let Shape { tables, rules } = shape;
        let what = format!("to batches of 64: tables {tables}, rules of each {rules}");
        let name = shape.name().into();
        Case {
            name,
            what: what.into(),
            shape: Some(shape),
            rows: 320,
            at_once: 64,
            ..case("", "", Stage::Gate)
        }
    }

    pub(crate) fn named(name: &str) -> Option<Case> {
        let known = cases().into_iter().find(|case| case.name == name);
        known.or_else(|| Shape::named(name).map(Case::of))
    }

    /// How many changes [`measured`] goes through.
    pub(crate) fn changes(&self) -> u64 {
        self.rows
    }

    /// Goes through it, after a first time that does not count. Gives how often it allocated.
    pub(crate) fn run(&self) -> u64 {
        let stream = match self.shape {
            Some(shape) => shape.stream(self.rows),
            None => (self.stream)(self.rows),
        };
        let mut work = Work::new(self);
        work.learn(&stream);
        work.through(&stream);
        let before = allocations::so_far();
        counting_begins();
        work.through(&stream);
        counting_ends();
        allocations::so_far() - before
    }
}

/// Read once for all cases of a process.
static DEFAULT: LazyLock<Loaded> = LazyLock::new(|| {
    load(File::At(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/unstale.toml")))
});

fn load(file: File) -> Loaded {
    let layers = Layers { file, environment: Vec::new(), overrides: Vec::new() };
    layers.load().expect("a configuration")
}

/// The parts of the pipeline, without its tasks.
pub(crate) struct Work {
    until: Stage,
    at_once: usize,
    dialect: Dialect,
    assembler: Assembler,
    waiting: Waiting,
    snapshot: Snapshot,
    control: ControlKeys,
    nonces: Nonces,
    held: Arc<Held>,
    account: Account,
    warming: Warming,
    rules: Rules,
    max_keys_per_script: usize,
    watermark: Lsn,
    _open: unstale::fill::held::Open,
}

impl Work {
    fn new(case: &Case) -> Work {
        let of_shape = case.shape.map(|shape| {
            let (name, base_dir, text) = (PathBuf::new(), PathBuf::new(), shape.config());
            load(File::Text { name, base_dir, text })
        });
        let loaded = of_shape.as_ref().unwrap_or_else(|| &DEFAULT);
        let rules = Rules::compile(loaded).expect("its rules");
        let config = &loaded.config;
        let metrics = Metrics::new().expect("metrics");
        if case.until == Stage::Account {
            series::name_all(&metrics, &rules.mapping);
            metrics.observed.speak(&rules.mapping);
        }
        let warming = Warming::new(config, &rules, &metrics).expect("populations");
        let status = Status::new(metrics, Duration::MAX, config.pipeline.remembered_drops);
        let account = Account::new(Arc::clone(&rules.mapping), Arc::new(status));
        let dialect = Dialect { protocol: Protocol::V4, streaming: Streaming::Parallel };
        let bounds = Bounds {
            transaction: config.pipeline.max_keys_per_transaction,
            in_progress: config.pipeline.max_keys_ahead,
        };
        let held = Arc::<Held>::default();
        Work {
            until: case.until,
            at_once: case.at_once,
            dialect,
            assembler: Assembler::new(
                Arc::clone(&rules.mapping),
                dialect,
                bounds,
                Unbelieved::default(),
            ),
            waiting: Waiting::new(Lsn::ZERO),
            snapshot: "900000:900000:".parse().expect("a snapshot"),
            control: ControlKeys::new("unstale"),
            nonces: Nonces::new().expect("random numbers"),
            _open: held.open(),
            held,
            account,
            warming,
            max_keys_per_script: config.pipeline.max_keys_per_script,
            rules,
            watermark: Lsn::ZERO,
        }
    }

    /// The tables, which the server describes once.
    fn learn(&mut self, stream: &Stream) {
        for described in &stream.described {
            let taken = self.assembler.take(Lsn(1), described).expect("a table");
            assert!(taken.is_none(), "a description is no transaction");
        }
    }

    fn through(&mut self, stream: &Stream) {
        if self.until == Stage::Decode {
            let mut decoder = Decoder::new(self.dialect.protocol, self.dialect.streaming);
            for (_, bytes) in &stream.messages {
                black_box(decoder.decode(bytes).expect("a message"));
            }
            return;
        }
        for (lsn, bytes) in &stream.messages {
            let Some(transaction) = self.assembler.take(*lsn, bytes).expect("a message") else {
                continue;
            };
            self.arrived(transaction);
        }
        self.admit();
    }

    fn arrived(&mut self, transaction: Transaction) {
        if self.until == Stage::Map {
            black_box(transaction);
            return;
        }
        self.waiting.arrive(Arrival::Transaction(transaction));
        if self.waiting.len() >= self.at_once {
            self.admit();
        }
    }

    /// As [`Gate`](unstale::pipeline::gate::Gate) does, without asking.
    fn admit(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let admitted = self.waiting.admit(&self.snapshot);
        let mut batch = Batch { watermark: admitted.watermark, ..Batch::default() };
        for transaction in admitted.transactions {
            assert!(batch.take(transaction).is_none(), "no rule here has a lookup");
        }
        batch.settle();
        match self.until {
            Stage::Gate => drop(black_box(batch)),
            _ => self.apply(batch),
        }
    }

    /// As [`Applier`](unstale::pipeline::apply::Applier) does, without Redis.
    fn apply(&mut self, mut batch: Batch) {
        let before = self.watermark;
        let keys = batch.keys.keys().map(|key| key.as_bytes());
        let closed = self.held.removing(keys, false);
        let frontier = state::frontier(batch.frontier().unwrap_or_default());
        let touched = Touched::new(batch.keys.drain(), &self.rules.mapping);
        let (some, last) = touched.steps(self.max_keys_per_script);
        let mut lives = Vec::with_capacity(touched.causes.len());
        for keys in some.into_iter().chain([last]) {
            let (expected, nonce) = (self.nonces.fresh(), self.nonces.fresh());
            let fields = [frontier.clone(), state::watermark(batch.watermark)];
            let step = Step {
                expected: &expected,
                nonce: &nonce,
                keys: keys.removed,
                refreshed: keys.refreshed,
                fields: &fields,
                certify: Some(batch.watermark),
            };
            black_box(step.command(&self.control).get_packed_command());
            // Every fourth key was there.
            let all = keys.removed.len() + keys.refreshed.len();
            lives.extend((0..all).map(|n| if n % 4 == 0 { 60_000 } else { NOT_THERE }));
        }
        self.watermark = batch.watermark;
        self.held.removed(closed);
        if self.until == Stage::Step {
            return;
        }
        self.account.enter(&batch, before, &touched, &lives);
        for (touch, life) in touched.each().zip(&lives) {
            let cache = touch.cause.origin.cache;
            self.warming.rewarmer.removed(touch.key.as_bytes(), cache, *life);
        }
    }
}
