//! A row change costs no memory: decoding it allocates nothing.

#![allow(unsafe_code, reason = "an allocator that counts is unsafe to write down")]
#![allow(clippy::cast_possible_truncation, reason = "a test fails by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

use unstale::pgoutput::decode::{Decoder, Protocol, Streaming};
use unstale::pgoutput::message::{Message, Tuple};

thread_local! {
    /// By thread, for the test harness allocates on its own.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is passed on to the system's allocator; counting touches a
// thread-local without a destructor and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn only_a_relation_allocates() {
    let mut values = 0;
    for (scenario, protocol, streaming) in [
        ("identities", Protocol::V1, Streaming::Off),
        ("values", Protocol::V1, Streaming::Off),
        ("transactions", Protocol::V1, Streaming::Off),
        ("streamed", Protocol::V2, Streaming::On),
        ("prepared", Protocol::V3, Streaming::On),
    ] {
        let golden = crate::golden::read(scenario);
        let mut decoder = Decoder::new(protocol, streaming);
        for captured in &golden.messages {
            let before = ALLOCATIONS.get();
            let decoded = decoder.decode(&captured.bytes);
            let decoded = decoded.unwrap_or_else(|e| panic!("{e}"));
            let count = |tuple: Tuple<'_>| black_box(tuple.iter().map(black_box).count());
            match &decoded.message {
                Message::Insert(insert) => values += count(insert.new),
                Message::Update(update) => {
                    values += update.old.map_or(0, |old| count(old.tuple())) + count(update.new);
                }
                Message::Delete(delete) => values += count(delete.old.tuple()),
                Message::Relation(_) => {
                    assert!(ALLOCATIONS.get() > before, "the counter counts");
                    continue;
                }
                _ => {}
            }
            assert_eq!(ALLOCATIONS.get(), before, "{decoded:?}");
        }
    }
    assert!(values > 100, "{values} values");
}
