//! Figures as people read them. Pure.

/// A count.
pub(crate) fn amount(count: u64) -> String {
    count.to_string()
}

/// So often.
pub(crate) fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

/// A part of one as percent; a dash if it is not known.
pub(crate) fn percent(part: Option<f64>) -> String {
    part.map_or_else(dash, |part| format!("{:.1} %", part * 100.0))
}

/// How many of how many.
pub(crate) fn part(some: u64, all: u64) -> String {
    percent(super::assemble::rate(some, all))
}

/// By how many points a rate has grown.
pub(crate) fn signed_points(points: Option<f64>) -> String {
    points.map_or_else(dash, |points| format!("{points:+.1} points"))
}

/// Milliseconds, with as many places as matter.
pub(crate) fn ms(ms: Option<f64>) -> String {
    match ms {
        None => dash(),
        Some(ms) if ms >= 10_000.0 => format!("{:.1} s", ms / 1000.0),
        Some(ms) if ms >= 100.0 => format!("{ms:.0} ms"),
        Some(ms) if ms >= 1.0 => format!("{ms:.1} ms"),
        Some(ms) => format!("{ms:.2} ms"),
    }
}

/// A number of seconds.
pub(crate) fn seconds(seconds: u64) -> String {
    crate::config::duration::Span::seconds(seconds).to_string()
}

/// A number of bytes.
pub(crate) fn bytes(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

/// Bytes more, or fewer.
pub(crate) fn signed_bytes(growth: Option<i64>) -> String {
    growth.map_or_else(dash, |growth| {
        let sign = if growth < 0 { '-' } else { '+' };
        format!("{sign}{}", bytes(growth.unsigned_abs()))
    })
}

/// Bytes more, or fewer, an hour.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a float that is too large is cut to the bounds"
)]
pub(crate) fn rate_of_bytes(growth: f64) -> String {
    signed_bytes(Some(growth as i64))
}

fn dash() -> String {
    "–".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_with_the_places_that_matter() {
        assert_eq!(percent(Some(0.9876)), "98.8 %");
        assert_eq!(percent(None), "–");
        assert_eq!(signed_points(Some(-12.34)), "-12.3 points");
        let shown = [0.1234, 1.26, 123.4, 12_345.0].map(|ms_| ms(Some(ms_)));
        assert_eq!(shown, ["0.12 ms", "1.3 ms", "123 ms", "12.3 s"]);
        assert_eq!(seconds(5400), "1h 30m");
        assert_eq!(signed_bytes(Some(-2048)), "-2.00 KiB");
        assert_eq!(part(1, 3), "33.3 %");
    }
}
