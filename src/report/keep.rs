//! The reports that are kept, in Redis: one list a slot, the newest first, beside the managed keys and
//! out of reach of purges. It is bounded: so many, none larger than so much.

use redis::aio::MultiplexedConnection;

use super::model::{FORMAT, Report};
use crate::store::error::StoreError;
use crate::store::keys::ControlKeys;

/// How many are kept.
pub const KEPT: usize = 30;

/// No report takes more than this, in bytes: its lists are cut first.
const LARGEST: usize = 256 * 1024;

/// Keeps a report, and lets go of the oldest.
///
/// # Errors
/// If Redis did not answer (it may be kept all the same), or is full.
pub async fn keep(
    connection: &mut MultiplexedConnection,
    keys: &ControlKeys,
    report: &Report,
) -> Result<(), StoreError> {
    let text = written(report);
    let last = isize::try_from(KEPT).unwrap_or(isize::MAX) - 1;
    redis::pipe()
        .cmd("LPUSH")
        .arg(&keys.reports)
        .arg(text)
        .cmd("LTRIM")
        .arg(&keys.reports)
        .arg(0)
        .arg(last)
        .exec_async(connection)
        .await
        .map_err(StoreError::from)
}

/// Those that are kept, the newest first. What another version of this program wrote in another
/// form is passed over.
///
/// # Errors
/// If Redis does not answer.
pub async fn kept(
    connection: &mut MultiplexedConnection,
    keys: &ControlKeys,
) -> Result<Vec<Report>, StoreError> {
    range(connection, keys, -1).await
}

/// The newest one.
///
/// # Errors
/// If Redis does not answer.
pub async fn newest(
    connection: &mut MultiplexedConnection,
    keys: &ControlKeys,
) -> Result<Option<Report>, StoreError> {
    Ok(range(connection, keys, 0).await?.pop())
}

async fn range(
    connection: &mut MultiplexedConnection,
    keys: &ControlKeys,
    to: i64,
) -> Result<Vec<Report>, StoreError> {
    let texts: Vec<Vec<u8>> = redis::cmd("LRANGE")
        .arg(&keys.reports)
        .arg(0)
        .arg(to)
        .query_async(connection)
        .await
        .map_err(StoreError::from)?;
    Ok(texts.iter().filter_map(|text| read(text)).collect())
}

fn read(text: &[u8]) -> Option<Report> {
    serde_json::from_slice::<Report>(text).ok().filter(|report| report.format == FORMAT)
}

/// As it is kept: with shorter lists, if it would be too large.
fn written(report: &Report) -> String {
    let text = |report: &Report| serde_json::to_string(report).unwrap_or_default();
    let whole = text(report);
    if whole.len() <= LARGEST {
        return whole;
    }
    let mut less = report.clone();
    less.unknown.push(format!("what did not fit: this report was cut to {LARGEST} bytes"));
    let mut lists = 20;
    while lists > 0 {
        lists /= 2;
        let invalidation = &mut less.invalidation;
        invalidation.hot_keys.truncate(lists);
        invalidation.rules.truncate(lists);
        invalidation.changes.truncate(lists);
        less.regressions.truncate(lists * 2);
        less.bottlenecks.truncate(lists * 2);
        less.recommendations.truncate(lists * 2);
        if let Some(coverage) = &mut less.coverage {
            coverage.least.truncate(lists);
        }
        let shorter = text(&less);
        if shorter.len() <= LARGEST {
            return shorter;
        }
    }
    // Thousands of caches: what is told of each has no place.
    less.caches.clear();
    less.invalidation.whole.clear();
    if let Some(coverage) = &mut less.coverage {
        coverage.caches.clear();
    }
    text(&less)
}

#[cfg(test)]
mod tests {
    use super::super::model::{Cache, HotKey};
    use super::*;

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let mut report = Report { format: FORMAT, id: "a".to_owned(), ..Report::default() };
        report.caches.insert("c".to_owned(), Cache { speedup: Some(0.1), ..Cache::default() });
        assert_eq!(read(written(&report).as_bytes()), Some(report.clone()));
        report.format += 1;
        assert_eq!(read(written(&report).as_bytes()), None);
        assert_eq!(read(b"{"), None);
    }

    #[test]
    fn none_is_larger_than_its_bound() {
        let hot = HotKey { key: "k".repeat(20_000), ..HotKey::default() };
        let mut report = Report { format: FORMAT, ..Report::default() };
        report.invalidation.hot_keys = vec![hot; 20];
        let cut = written(&report);
        assert!(cut.len() <= LARGEST, "{}", cut.len());
        let cut = read(cut.as_bytes()).unwrap();
        assert_eq!(cut.invalidation.hot_keys.len(), 10);
        assert!(cut.unknown[0].starts_with("what did not fit"));
        for n in 0..10_000 {
            report.caches.insert(format!("cache_{n}"), Cache::default());
        }
        assert!(written(&report).len() <= LARGEST);
    }
}
