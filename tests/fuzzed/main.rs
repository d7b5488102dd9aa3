//! No input makes a parser panic or break a promise: what the fuzzer found worth keeping, and so many
//! inputs made of it, the same ones each time. `fuzz/README.md` has the rest.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

mod mutate;
#[path = "../../fuzz/properties/mod.rs"]
mod properties;

use std::path::{Path, PathBuf};

use mutate::Mutations;

/// Says which input it was.
struct Tried<'a>(&'a [u8]);

impl Drop for Tried<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("by the input b\"{}\"", self.0.escape_ascii());
        }
    }
}

/// Tries all that is kept for a target, and `runs` mutations of it.
fn holds(target: &str, longest: usize, runs: usize, check: impl Fn(&[u8]) -> bool) {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let mut inputs = files(&fuzz.join("corpus").join(target));
    inputs.extend(files(&fuzz.join("seeds").join(target)));
    assert!(inputs.len() > 3, "there is no corpus of {target}");
    let check = |input: &[u8]| {
        let _tried = Tried(input);
        check(input)
    };
    let (well_formed, refused): (Vec<_>, Vec<_>) =
        inputs.into_iter().partition(|input| check(input));
    assert!(!well_formed.is_empty() && !refused.is_empty(), "{target}: one way alone is tried");
    let words = std::fs::read_to_string(fuzz.join(format!("dictionaries/{target}.dict"))).unwrap();
    let mut mutations = Mutations::new([&well_formed, &refused], mutate::words(&words), longest);
    let well_formed = (0..runs).filter(|_| check(mutations.next())).count();
    // Both ways were taken, or the inputs say nothing.
    assert!((runs / 200..runs).contains(&well_formed), "{well_formed} of {runs} were well-formed");
}

fn files(folder: &Path) -> Vec<Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

#[test]
fn any_configuration_is_loaded_or_diagnosed() {
    holds("config", 4096, 1_000, properties::config::check);
}

#[test]
fn any_message_of_the_stream_is_decoded_or_refused() {
    holds("pgoutput", 4096, 50_000, properties::pgoutput::check);
}

#[test]
fn any_request_is_refused_or_asks_for_what_who_asks_may_see() {
    holds("request", 1024, 20_000, properties::request::check);
}

#[test]
fn any_template_is_refused_or_gives_keys_that_give_back_their_values() {
    holds("template", 512, 20_000, properties::template::check);
}

#[test]
fn any_token_is_refused_or_names_who_was_signed_for() {
    holds("token", 1024, 10_000, properties::token::check);
}
