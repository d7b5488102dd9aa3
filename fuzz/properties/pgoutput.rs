//! What must hold of the decoder whatever the bytes are. Used by the fuzz target
//! and, on a bounded number of inputs, by `tests/pgoutput` and `tests/fuzzed`.

use unstale::pgoutput::decode::{Context, Protocol, Streaming, decode};
use unstale::pgoutput::encode;
use unstale::pgoutput::message::{Message, Tuple};

/// The contexts that differ in what they let through; an input's first byte chooses.
const CONTEXTS: [Context; 4] = [
    Context { protocol: Protocol::V1, streaming: Streaming::Off, in_stream: false },
    Context { protocol: Protocol::V3, streaming: Streaming::On, in_stream: false },
    Context { protocol: Protocol::V4, streaming: Streaming::Parallel, in_stream: false },
    Context { protocol: Protocol::V4, streaming: Streaming::Parallel, in_stream: true },
];

/// Decodes `input` (the context's number, then a message) and checks the answer.
/// Gives whether it was a message.
///
/// # Panics
/// If the decoder breaks a promise.
pub(crate) fn check(input: &[u8]) -> bool {
    let Some((&choice, bytes)) = input.split_first() else { return false };
    let context = CONTEXTS[usize::from(choice) % CONTEXTS.len()];
    match decode(bytes, context) {
        Ok(decoded) => {
            match &decoded.message {
                Message::Insert(insert) => check_tuple(insert.new),
                Message::Update(update) => {
                    update.old.iter().for_each(|old| check_tuple(old.tuple()));
                    check_tuple(update.new);
                }
                Message::Delete(delete) => check_tuple(delete.old.tuple()),
                _ => {}
            }
            // Bits without a meaning are read and not kept, and pg_catalog has two
            // spellings: so it is the message that comes back, not always the bytes.
            let again = encode::message(&decoded);
            assert_eq!(decode(&again, context).as_ref(), Ok(&decoded), "{bytes:02x?}");
            true
        }
        Err(error) => {
            assert!(error.offset() <= bytes.len(), "{error}");
            assert!(error.excerpt().len() < 4096, "{error}");
            false
        }
    }
}

fn check_tuple(tuple: Tuple<'_>) {
    assert_eq!(tuple.iter().count(), tuple.len());
    let values: Vec<_> = tuple.iter().collect();
    let encoded = encode::tuple(&values);
    let (again, rest) = Tuple::parse(&encoded).unwrap_or_else(|error| panic!("{error}"));
    assert!(again == tuple && rest.is_empty());
}
