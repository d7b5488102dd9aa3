//! What goes on and on is told once, not each time that it is tried. Pure.

use std::time::{Duration, Instant};

/// When what has not changed is told again: whoever reads the end of a log must find it.
const AGAIN: Duration = Duration::from_secs(600);

/// What was told last.
#[derive(Debug, Default)]
pub(crate) struct Told {
    last: Option<(u64, String, Instant)>,
    untold: u64,
}

impl Told {
    /// Whether `what` is news, or is to be told again; if so, how often it was not told. `era`
    /// changes whenever things were well in between: then the same is news.
    pub(crate) fn news(&mut self, era: u64, what: &str, now: Instant) -> Option<u64> {
        let known = self.last.as_ref().is_some_and(|(before, told, at)| {
            *before == era && told == what && now.saturating_duration_since(*at) < AGAIN
        });
        if known {
            self.untold += 1;
            return None;
        }
        self.last = Some((era, what.to_owned(), now));
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_told_once_and_after_a_while_again() {
        let (mut told, start) = (Told::default(), Instant::now());
        assert_eq!(told.news(0, "refused", start), Some(0));
        for second in 1..600 {
            assert_eq!(told.news(0, "refused", start + Duration::from_secs(second)), None);
        }
        assert_eq!(told.news(0, "refused", start + AGAIN), Some(599));
        assert_eq!(told.news(0, "starting", start + AGAIN), Some(0), "another reason");
        assert_eq!(told.news(1, "starting", start + AGAIN), Some(0), "it was well in between");
    }
}
