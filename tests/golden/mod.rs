//! Reads what `capture.sh` captured.
#![allow(dead_code, reason = "each test file uses its part of it")]
#![allow(clippy::cast_possible_truncation, reason = "a hexadecimal digit fits")]

use std::collections::HashMap;
use std::path::Path;

use unstale::lsn::Lsn;

/// One scenario's capture.
#[derive(Default)]
pub(crate) struct Golden {
    /// Names of relations and types by their OID.
    pub(crate) names: HashMap<u32, String>,
    /// When the server says that a transaction was committed.
    pub(crate) commit_times: HashMap<u32, i64>,
    pub(crate) messages: Vec<Captured>,
}

/// One message, with what the server said beside it.
pub(crate) struct Captured {
    pub(crate) lsn: Lsn,
    /// The transaction; 0 for none.
    pub(crate) xid: u32,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) const SCENARIOS: [&str; 6] =
    ["identities", "values", "binary_values", "transactions", "streamed", "prepared"];

pub(crate) fn read(scenario: &str) -> Golden {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{scenario}.golden"));
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|e| panic!("{}: {e}; run tests/golden/capture.sh", path.display()));
    let mut golden = Golden::default();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (kind, rest) = line.split_once(' ').expect("a kind of line");
        // A name may hold spaces: split from the right.
        match kind {
            "oid" => {
                let (name, oid) = rest.rsplit_once(' ').expect("a name and an OID");
                golden.names.insert(oid.parse().expect("an OID"), name.to_owned());
            }
            "commit" => {
                let (xid, micros) = rest.split_once(' ').expect("an xid and a time");
                golden
                    .commit_times
                    .insert(xid.parse().expect("an xid"), micros.parse().expect("a time"));
            }
            "message" => {
                let mut fields = rest.split(' ');
                let mut field = || fields.next().expect("a field");
                golden.messages.push(Captured {
                    lsn: field().parse().expect("an LSN"),
                    xid: field().parse().expect("an xid"),
                    bytes: bytes(field()),
                });
            }
            other => panic!("{}: what is a line of kind {other:?}?", path.display()),
        }
    }
    assert!(!golden.messages.is_empty(), "{}: no messages", path.display());
    golden
}

/// Bytes from hexadecimal; spaces are for the reader.
pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        hex.chars().filter(|c| *c != ' ').map(|c| c.to_digit(16).expect("hex") as u8).collect();
    assert!(digits.len().is_multiple_of(2), "half a byte in {hex:?}");
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
