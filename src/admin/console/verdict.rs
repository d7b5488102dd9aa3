//! The big answer: can the cache be trusted now, in few words, and what to do if not.

use std::time::Duration;

use serde::Serialize;

use crate::status::Phase;
use crate::status::readiness::Readiness;

/// From here on a lag is worth a word: below it is what every change takes.
const WORTH_A_WORD: f64 = 1.0;

/// For how long a stale value that the audit found is shown in place of "fresh": as long as its
/// alert stands.
const REMEMBERED: Duration = Duration::from_secs(15 * 60);

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Standing {
    /// Everything is applied; readers may trust the cache.
    Fresh,
    /// The same, but somebody should look after something.
    Attention,
    /// Changes wait, and readers still trust the cache.
    Behind,
    /// Another daemon does it.
    Standby,
    /// It has not been certified yet in this life.
    Starting,
    /// Readers pass the cache over.
    Bypassed,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Verdict {
    pub(super) standing: Standing,
    /// In a line.
    pub(super) headline: String,
    /// What it means for readers.
    pub(super) meaning: String,
    /// What to do next, the first thing first; what `/readyz` says among it.
    pub(super) next: Vec<String>,
}

/// What it is judged by.
pub(super) struct Known<'a> {
    pub(super) readiness: &'a Readiness,
    /// Whether the certificate in Redis lives, as far as this process knows.
    pub(super) certified: bool,
    /// Whether it will be renewed.
    pub(super) may_certify: bool,
    pub(super) redis: bool,
    pub(super) postgres: bool,
    pub(super) has_streamed: bool,
    /// How long ago the audit found a stale value.
    pub(super) stale: Option<Duration>,
}

const READERS_BYPASS: &str =
    "Readers that check the certificate go to the database: right, but slower.";
const STILL_TRUSTED: &str = "The certificate in Redis still stands, for 10 s at the most: until then readers trust what is cached.";

impl Verdict {
    pub(super) fn new(known: &Known<'_>) -> Verdict {
        let Known { readiness, certified, redis, postgres, has_streamed, .. } = *known;
        let problems = &readiness.problems;
        let say = |standing, headline: &str, meaning: &str, first: &[&str]| Verdict {
            standing,
            headline: headline.to_owned(),
            meaning: meaning.to_owned(),
            next: first.iter().map(|text| (*text).to_owned()).chain(problems.clone()).collect(),
        };
        if let Phase::Draining = readiness.phase {
            return say(Standing::Bypassed, "Shutting down", READERS_BYPASS, &[]);
        }
        if readiness.shadow {
            return say(
                Standing::Standby,
                "Shadow mode: only looking on",
                "This daemon removes nothing and certifies nothing. What the application itself failed to invalidate, unstale report --shadow says.",
                &[],
            );
        }
        if !redis {
            let (standing, headline) = match has_streamed {
                true => (Standing::Bypassed, "Bypassed: Redis is down"),
                false => (Standing::Starting, "Starting: Redis is not reachable yet"),
            };
            return say(
                standing,
                headline,
                "Nothing can be read from the cache or stored in it: readers go to the database. No change is lost.",
                &[
                    "Start Redis, or mend the way to it (redis.url). The daemon catches up by itself.",
                ],
            );
        }
        match &readiness.phase {
            Phase::WaitingForSlot { .. } => say(
                Standing::Standby,
                "Standing by: another session holds the slot",
                "This daemon takes over once the slot is free. Whether the cache is fresh now, the console of the other one says.",
                &[],
            ),
            Phase::Purging { .. } => say(
                Standing::Bypassed,
                "Bypassed: everything is being dropped",
                READERS_BYPASS,
                &["Nothing: the cache fills again by itself once this is done."],
            ),
            Phase::Blocked { .. } => say(
                Standing::Bypassed,
                "Bypassed: something must be mended first",
                READERS_BYPASS,
                &[],
            ),
            Phase::Streaming => Verdict::streaming(known, say),
            _ => {
                let mend: &[&str] = match postgres {
                    true => &[],
                    false => &[
                        "Start Postgres, or mend the way to it (postgres.url). The daemon goes on where it was.",
                    ],
                };
                match (certified, has_streamed) {
                    (true, _) => {
                        say(Standing::Behind, "Behind: not streaming", STILL_TRUSTED, mend)
                    }
                    (false, true) if !postgres => say(
                        Standing::Bypassed,
                        "Bypassed: Postgres is not reachable",
                        READERS_BYPASS,
                        mend,
                    ),
                    (false, true) => {
                        say(Standing::Bypassed, "Bypassed: not certified", READERS_BYPASS, mend)
                    }
                    (false, false) => {
                        say(Standing::Starting, "Starting: not certified yet", READERS_BYPASS, mend)
                    }
                }
            }
        }
    }

    fn streaming(
        known: &Known<'_>,
        say: impl Fn(Standing, &str, &str, &[&str]) -> Verdict,
    ) -> Verdict {
        let lag = known.readiness.lag_seconds;
        if !known.certified {
            return say(Standing::Bypassed, "Bypassed: not certified", READERS_BYPASS, &[]);
        }
        if lag >= WORTH_A_WORD {
            let headline = format!("Behind by {}", span(lag));
            return say(
                Standing::Behind,
                &headline,
                "Changes wait to be applied: readers may see what was true before them.",
                &[],
            );
        }
        if !known.may_certify {
            return say(Standing::Behind, "Behind: the stream is silent", STILL_TRUSTED, &[]);
        }
        if known.stale.is_some_and(|ago| ago < REMEMBERED) {
            return say(
                Standing::Attention,
                "Stale values were found",
                "The audit found cached values that the database no longer says. Everything that was streamed is applied.",
                &[
                    "unstale verify --all --repair removes what is stale, at once.",
                    "Then the cause: does anything write the keys but by lease? Does unstale check name a column without a rule?",
                ],
            );
        }
        if !known.readiness.ready {
            return say(
                Standing::Attention,
                "Fresh, but something needs a hand",
                "Everything that was committed is applied: readers may trust what is cached. But this should be mended soon.",
                &[],
            );
        }
        say(
            Standing::Fresh,
            "Fresh",
            "Everything that was committed is applied: readers may trust what is cached.",
            &[],
        )
    }
}

/// As one says it.
fn span(seconds: f64) -> String {
    if seconds < 90.0 {
        return format!("{seconds:.0} s");
    }
    let minutes = (seconds / 60.0).round();
    if minutes < 90.0 { format!("{minutes:.0} min") } else { format!("{:.0} h", seconds / 3600.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readiness(phase: Phase, lag_seconds: f64, problems: &[&str]) -> Readiness {
        Readiness {
            ready: problems.is_empty(),
            problems: problems.iter().map(|text| (*text).to_owned()).collect(),
            phase,
            applied_lsn: "0/1".to_owned(),
            server_lsn: "0/1".to_owned(),
            lag_bytes: 0,
            lag_seconds,
            parked_transactions: 0,
            suspects: 0,
            shadow: false,
            heartbeat_seconds: None,
            proven_seconds_ago: None,
            slot: None,
            last_gap: None,
        }
    }

    fn known(readiness: &Readiness) -> Known<'_> {
        Known {
            readiness,
            certified: true,
            may_certify: true,
            redis: true,
            postgres: true,
            has_streamed: true,
            stale: None,
        }
    }

    fn said(known: &Known<'_>) -> (Standing, String) {
        let verdict = Verdict::new(known);
        assert!(!verdict.meaning.is_empty());
        (verdict.standing, verdict.headline)
    }

    #[test]
    fn fresh_is_said_only_where_everything_is_well() {
        let well = readiness(Phase::Streaming, 0.2, &[]);
        assert_eq!(said(&known(&well)), (Standing::Fresh, "Fresh".to_owned()));
        for (spoilt, expected) in [
            (Known { certified: false, ..known(&well) }, Standing::Bypassed),
            (Known { may_certify: false, ..known(&well) }, Standing::Behind),
            (Known { redis: false, ..known(&well) }, Standing::Bypassed),
            (Known { stale: Some(Duration::from_secs(60)), ..known(&well) }, Standing::Attention),
        ] {
            assert_eq!(said(&spoilt).0, expected);
        }
        for phase in [
            Phase::Connecting,
            Phase::CreatingSlot,
            Phase::Draining,
            Phase::WaitingForSlot { pid: None },
            Phase::Purging { reason: "no_state" },
            Phase::Blocked { reason: "mend this".to_owned() },
        ] {
            let other = readiness(phase, 0.0, &["not streaming"]);
            let (standing, headline) = said(&known(&other));
            assert!(!matches!(standing, Standing::Fresh | Standing::Attention), "{headline}");
            assert_eq!(Verdict::new(&known(&other)).next.last().unwrap(), "not streaming");
        }
        let shadow = Readiness { shadow: true, ..readiness(Phase::Streaming, 0.0, &[]) };
        assert_eq!(said(&known(&shadow)).0, Standing::Standby);
        let other = readiness(Phase::Streaming, 0.0, &["a lookup was refused"]);
        assert_eq!(said(&known(&other)).0, Standing::Attention);
    }

    #[test]
    fn a_lag_is_told_in_words() {
        for (lag, expected) in [
            (3.2, "Behind by 3 s"),
            (75.0, "Behind by 75 s"),
            (600.0, "Behind by 10 min"),
            (10_000.0, "Behind by 3 h"),
        ] {
            let late = readiness(Phase::Streaming, lag, &[]);
            assert_eq!(said(&known(&late)), (Standing::Behind, expected.to_owned()));
        }
    }

    #[test]
    fn until_the_certificate_has_ended_readers_still_trust_the_cache_and_that_is_said() {
        let lost = readiness(Phase::Connecting, 0.0, &["postgres: gone"]);
        let without = Known { postgres: false, ..known(&lost) };
        assert_eq!(said(&without).0, Standing::Behind);
        let later = Known { certified: false, ..without };
        assert_eq!(said(&later).1, "Bypassed: Postgres is not reachable");
        let first = Known { has_streamed: false, ..later };
        assert_eq!(said(&first).0, Standing::Starting);
    }
}
