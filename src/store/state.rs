//! What is known of the cache: the fields of `unstale:<slot>:state`.
//!
//! All of it is one Redis hash, so that eviction, a flush or an old dump takes all or
//! nothing. Positions are written as Postgres writes them.

use std::collections::HashMap;
use std::fmt;

use crate::lsn::Lsn;

/// Names one step of the chain. Never used twice: a random part for the run, a count for
/// the step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nonce(String);

impl Nonce {
    /// As found in Redis.
    #[must_use]
    pub fn found(text: String) -> Self {
        Nonce(text)
    }

    /// As written to Redis.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Makes the nonces of one run.
#[derive(Debug)]
pub struct Nonces {
    run: u128,
    step: u64,
}

impl Nonces {
    /// A new run: its nonces differ from those of every other.
    pub fn new() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(Nonces { run: u128::from_ne_bytes(bytes), step: 0 })
    }

    /// The next one.
    pub fn fresh(&mut self) -> Nonce {
        self.step += 1;
        Nonce(format!("{:032x}-{}", self.run, self.step))
    }
}

/// Which database, which configuration: what must be the same for the state to mean
/// anything (rule 7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Postgres' system identifier: another one is another database.
    pub system_id: String,
    /// The timeline: another one means a promoted standby or a restore.
    pub timeline: u32,
    /// Changes when Postgres recovers from a crash.
    pub incarnation: String,
    /// A fingerprint of the publication: its tables and what it publishes of them.
    pub publication: String,
    /// A fingerprint of the mapping.
    pub mapping: String,
}

/// The state as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Whether leases are given.
    pub valid: bool,
    /// The last step.
    pub nonce: Nonce,
    /// Everything committed below it is applied.
    pub watermark: Lsn,
    /// The greatest commit END ever applied.
    pub frontier: Lsn,
    /// What it belongs to.
    pub identity: Identity,
    /// The literal prefixes of all managed keys: what a purge must reach, also after
    /// the mapping has changed.
    pub prefixes: Vec<String>,
    /// Caches that are being dropped as a whole: no lease is given for them.
    pub closed: Vec<String>,
    /// The files of the mapped tables, as their owner writes them: a table that has another
    /// one was rewritten.
    pub files: String,
    /// Transactions that may never come through the stream (rule 8), as their owner
    /// writes them.
    pub suspects: String,
}

/// A field and its value, as a step writes it.
pub type Field = (&'static str, String);

/// The field for the watermark.
#[must_use]
pub fn watermark(at: Lsn) -> Field {
    ("watermark", at.to_string())
}

/// The field for the frontier.
#[must_use]
pub fn frontier(at: Lsn) -> Field {
    ("frontier", at.to_string())
}

/// The field for the caches that are being dropped.
#[must_use]
pub fn closed(caches: &[&str]) -> Field {
    ("closed", json(caches))
}

/// The field for the tables' files.
#[must_use]
pub fn files(text: String) -> Field {
    ("files", text)
}

/// The field for the suspects.
#[must_use]
pub fn suspects(text: String) -> Field {
    ("suspects", text)
}

fn json<T: serde::Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

impl State {
    /// All fields, for a state that is written as a whole. The nonce is the step's.
    #[must_use]
    pub fn fields(&self) -> Vec<Field> {
        vec![
            ("valid", String::from(if self.valid { "1" } else { "0" })),
            watermark(self.watermark),
            frontier(self.frontier),
            ("system_id", self.identity.system_id.clone()),
            ("timeline", self.identity.timeline.to_string()),
            ("incarnation", self.identity.incarnation.clone()),
            ("publication", self.identity.publication.clone()),
            ("mapping", self.identity.mapping.clone()),
            ("prefixes", json(&self.prefixes)),
            ("closed", json(&self.closed)),
            files(self.files.clone()),
            suspects(self.suspects.clone()),
        ]
    }

    /// Reads what [`State::fields`] wrote. `None`: it is not there, or not what this
    /// program writes, which is the same.
    #[must_use]
    pub fn read(mut fields: HashMap<String, String>) -> Option<Self> {
        let mut take = |name: &str| fields.remove(name);
        Some(State {
            valid: take("valid")? == "1",
            nonce: Nonce(take("nonce")?),
            watermark: take("watermark")?.parse().ok()?,
            frontier: take("frontier")?.parse().ok()?,
            identity: Identity {
                system_id: take("system_id")?,
                timeline: take("timeline")?.parse().ok()?,
                incarnation: take("incarnation")?,
                publication: take("publication")?,
                mapping: take("mapping")?,
            },
            prefixes: serde_json::from_str(&take("prefixes")?).ok()?,
            closed: serde_json::from_str(&take("closed")?).ok()?,
            files: take("files")?,
            suspects: take("suspects")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State {
            valid: true,
            nonce: Nonce("a-1".to_owned()),
            watermark: Lsn(5),
            frontier: Lsn(u64::MAX),
            identity: Identity {
                system_id: "7".to_owned(),
                timeline: 3,
                incarnation: "x".to_owned(),
                publication: "p".to_owned(),
                mapping: "m".to_owned(),
            },
            prefixes: vec!["a:".to_owned(), "b,\"c".to_owned()],
            closed: vec!["org_data".to_owned()],
            files: "{}".to_owned(),
            suspects: "[]".to_owned(),
        }
    }

    fn written(state: &State) -> HashMap<String, String> {
        let nonce = ("nonce".to_owned(), state.nonce.to_string());
        state.fields().into_iter().map(|(k, v)| (k.to_owned(), v)).chain([nonce]).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(State::read(written(&state())), Some(state()));
    }

    #[test]
    fn a_state_that_lacks_a_field_is_no_state() {
        for (missing, _) in state().fields() {
            let mut fields = written(&state());
            fields.remove(missing);
            assert_eq!(State::read(fields), None, "without {missing}");
        }
    }

    #[test]
    fn a_nonce_never_comes_twice() {
        let (mut a, mut b) = (Nonces::new().unwrap(), Nonces::new().unwrap());
        let all = [a.fresh(), a.fresh(), b.fresh(), b.fresh()];
        for (i, x) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|y| x != y));
        }
    }
}
