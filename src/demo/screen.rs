//! What the demo says while it runs: columns on a terminal, plain lines elsewhere.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::daemon::{Counters, Daemon};
use super::readers::{Readers, Reads};
use super::writer::Latencies;

/// The names of the columns are repeated after so many lines.
const PAGE: usize = 20;
const COLUMNS: [(&str, usize); 10] = [
    ("second", 6),
    ("transactions", 13),
    ("invalidated", 12),
    ("rewarmed", 9),
    ("reads", 6),
    ("hits", 5),
    ("filled", 7),
    ("voided", 7),
    ("p50", 7),
    ("p99", 7),
];

/// Where lines go.
pub struct Screen {
    print: Box<dyn Fn(&str) + Send + Sync>,
    terminal: bool,
    lines: AtomicUsize,
}

impl Screen {
    /// `print` takes one line. On a terminal lines are for people only.
    pub fn new(terminal: bool, print: impl Fn(&str) + Send + Sync + 'static) -> Screen {
        Screen { print: Box::new(print), terminal, lines: AtomicUsize::new(0) }
    }

    pub(super) fn line(&self, text: &str) {
        (self.print)(text);
    }

    /// A step between the seconds.
    pub(super) fn step(&self, text: &str) {
        self.line(&format!("  · {text}"));
    }

    /// One change, and what it reached.
    pub(super) fn story(&self, what: &str, before: Counters, after: Counters) {
        let keys = after.invalidated.saturating_sub(before.invalidated);
        let present = after.present.saturating_sub(before.present);
        let whole = after.whole_caches.saturating_sub(before.whole_caches);
        let mut reached = Vec::new();
        if keys > 0 {
            reached.push(format!("{keys} {} ({present} cached)", plural(keys, "key")));
        }
        if whole > 0 {
            reached.push(format!("{whole} whole {}", plural(whole, "cache")));
        }
        let reached = if reached.is_empty() { "nothing".to_owned() } else { reached.join(" and ") };
        self.line(&format!("  › {what} → {reached}"));
    }

    /// Says once a second what has happened in it. Never ends by itself.
    pub(super) async fn every_second(
        &self,
        daemon: &Daemon,
        readers: &Readers,
        latencies: &Latencies,
    ) -> std::convert::Infallible {
        let start = Instant::now();
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tick.tick().await;
        let mut before = (daemon.counters().await.unwrap_or_default(), readers.reads());
        loop {
            tick.tick().await;
            // The daemon may be gone: whoever waits for it says so.
            let Ok(counters) = daemon.counters().await else { continue };
            let now = (counters, readers.reads());
            let mut sample = latencies.take();
            sample.sort_unstable();
            let since =
                |f: fn(&Counters) -> u64| f(&now.0).saturating_sub(f(&before.0)).to_string();
            let read = |f: fn(&Reads) -> u64| f(&now.1).saturating_sub(f(&before.1));
            let overtaken = now.0.overtaken.saturating_sub(before.0.overtaken);
            let hits = (read(|r| r.hits) * 100).checked_div(read(|r| r.all));
            self.columns(&[
                start.elapsed().as_secs().to_string(),
                since(|c| c.transactions),
                since(|c| c.invalidated),
                since(|c| c.rewarmed),
                read(|r| r.all).to_string(),
                hits.map_or_else(|| "-".to_owned(), |percent| format!("{percent}%")),
                read(|r| r.filled).to_string(),
                (read(|r| r.voided) + overtaken).to_string(),
                milliseconds(percentile(&sample, 50)),
                milliseconds(percentile(&sample, 99)),
            ]);
            before = now;
        }
    }

    fn columns(&self, values: &[String; COLUMNS.len()]) {
        if !self.terminal {
            let pairs =
                COLUMNS.iter().zip(values).map(|((name, _), value)| format!("{name}={value}"));
            return self.line(&pairs.collect::<Vec<_>>().join(" "));
        }
        if self.lines.fetch_add(1, Ordering::Relaxed).is_multiple_of(PAGE) {
            let names = COLUMNS.iter().map(|(name, width)| format!("{name:>width$}"));
            self.line(&names.collect::<String>());
        }
        let cells =
            COLUMNS.iter().zip(values).map(|((_, width), value)| format!("{value:>width$}"));
        self.line(&cells.collect::<String>());
    }
}

pub(super) fn plural(count: u64, noun: &str) -> String {
    if count == 1 { noun.to_owned() } else { format!("{noun}s") }
}

fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let last = sorted.len().checked_sub(1)?;
    sorted.get(last * percent / 100).copied()
}

fn milliseconds(duration: Option<Duration>) -> String {
    duration.map_or_else(|| "-".to_owned(), |d| format!("{:.1}ms", d.as_secs_f64() * 1e3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_of_the_sample() {
        let sample: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&sample, 50), Some(Duration::from_millis(100)));
        assert_eq!(percentile(&sample, 99), Some(Duration::from_millis(198)));
        assert_eq!(percentile(&[], 50), None);
    }
}
