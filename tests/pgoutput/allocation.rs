//! A row change costs no memory: decoding it allocates nothing.

use std::hint::black_box;

use unstale::pgoutput::decode::{Decoder, Protocol, Streaming};
use unstale::pgoutput::message::{Message, Tuple};

use crate::allocations::so_far;

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
            let before = so_far();
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
                    assert!(so_far() > before, "the counter counts");
                    continue;
                }
                _ => {}
            }
            assert_eq!(so_far(), before, "{decoded:?}");
        }
    }
    assert!(values > 100, "{values} values");
}
