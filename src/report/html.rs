//! A report as one page: no script, nothing from elsewhere, in the dark and on a phone. Pure.
//!
//! Whatever comes from a row (keys, organizations) goes through [`escape`], and there is one place where
//! text becomes HTML: [`Page::text`]. The page forbids scripts and requests to itself, too
//! (`Content-Security-Policy`), should that ever be forgotten.

use std::fmt::Write as _;

use super::model::{Begins, Cache, Finding, Inconsistent, Report};
use super::words::{amount, bytes, ms, part, percent, seconds, signed_bytes, signed_points};

/// The page.
#[must_use]
pub fn html(report: &Report) -> String {
    let mut page = Page(String::with_capacity(32 * 1024));
    page.raw(HEAD);
    page.raw("<title>");
    page.text(&format!("Unstale report {}", report.id));
    page.raw("</title>\n<style>");
    page.raw(STYLE);
    page.raw("</style>\n</head>\n<body>\n<main>\n");
    page.header(report);
    page.findings("Recommendations", "Nothing to change.", &recommendations(report));
    page.findings("Regressions", "Nothing has become worse.", &report.regressions);
    page.findings("Bottlenecks", "Nothing holds things up.", &report.bottlenecks);
    page.caches(report);
    page.coverage(report);
    page.changes(report);
    page.unknown(report);
    page.raw("</main>\n</body>\n</html>\n");
    page.0
}

const HEAD: &str = r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<meta name="color-scheme" content="light dark"/>
<meta name="referrer" content="no-referrer"/>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'"/>
"#;

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1b1f24;--dim:#57606a;--page:#fff;--card:#f6f8fa;--line:#d0d7de;--mark:#0550ae}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--dim:#9da7b1;--page:#0d1117;--card:#161b22;--line:#30363d;--mark:#79b8ff}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:72rem;margin:0 auto;padding:1rem}
h1{font-size:1.5rem;margin:.5rem 0}h2{font-size:1.15rem;margin:2rem 0 .5rem}
p{margin:.4rem 0}.dim{color:var(--dim)}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.75rem;margin:1rem 0}
dl div{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.6rem .8rem}
dt{color:var(--dim);font-size:.85rem}dd{margin:0;font-size:1.25rem;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
ul{padding-left:1.25rem}li{margin:.5rem 0;overflow-wrap:anywhere}
code,pre{font:0.9em ui-monospace,monospace;background:var(--card);border-radius:.25rem;overflow-wrap:anywhere}
code{padding:.1em .3em}pre{border:1px solid var(--line);padding:.5rem .7rem;margin:.3rem 0;white-space:pre-wrap}
.scroll{overflow-x:auto;border:1px solid var(--line);border-radius:.5rem}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.4rem .6rem;text-align:right;white-space:nowrap;border-top:1px solid var(--line)}
thead th{border-top:0;color:var(--dim);font-weight:600}
th:first-child,td:first-child{text-align:left}td.long{white-space:normal;overflow-wrap:anywhere;min-width:12rem;text-align:left}
caption{text-align:left;color:var(--dim);padding:.5rem .6rem}
tbody th{font-weight:600}
";

struct Page(String);

/// What HTML takes for its own, as references.
fn escape(text: &str, to: &mut String) {
    for c in text.chars() {
        match c {
            '&' => to.push_str("&amp;"),
            '<' => to.push_str("&lt;"),
            '>' => to.push_str("&gt;"),
            '"' => to.push_str("&quot;"),
            '\'' => to.push_str("&#39;"),
            // XML has no place for them; none should be left.
            c if c.is_control() => to.push('\u{fffd}'),
            c => to.push(c),
        }
    }
}

fn recommendations(report: &Report) -> Vec<Finding> {
    let all = report.recommendations.iter();
    all.map(|recommendation| {
        let mut text = recommendation.text.clone();
        if let (Some(section), false) = (&recommendation.section, recommendation.set.is_empty()) {
            _ = write!(text, "\n{section}\n{}", recommendation.set.join("\n"));
        }
        let (kind, cache) = (recommendation.kind.clone(), recommendation.cache.clone());
        Finding { kind, cache, text }
    })
    .collect()
}

impl Page {
    /// HTML of this file's own.
    fn raw(&mut self, html: &str) {
        self.0.push_str(html);
    }

    /// Anything else.
    fn text(&mut self, text: &str) {
        escape(text, &mut self.0);
    }

    fn heading(&mut self, text: &str) {
        self.raw("<h2>");
        self.text(text);
        self.raw("</h2>\n");
    }

    fn paragraph(&mut self, text: &str) {
        self.raw("<p class=\"dim\">");
        self.text(text);
        self.raw("</p>\n");
    }

    fn header(&mut self, report: &Report) {
        self.raw("<h1>How the cache did</h1>\n");
        let window = &report.window;
        let begins = match window.begins {
            Begins::Report => "since the report before",
            Begins::Start => "since the start of the daemon; what was before is not in it",
        };
        self.paragraph(&format!(
            "{} to {} ({}, {begins}). Slot {}, unstale {}.",
            window.from,
            window.to,
            seconds(window.seconds),
            report.daemon.slot,
            report.daemon.version
        ));
        let (keys, memory) = totals(report);
        let reads = &report.reads;
        let invalidation = &report.invalidation;
        let facts = [
            ("Hit rate", percent(reads.hit_rate)),
            ("Against the report before", signed_points(reads.hit_rate_points)),
            (
                "Reads by the API",
                (reads.held + reads.hits + reads.misses + reads.bypasses + reads.errors)
                    .to_string(),
            ),
            ("Entries", keys.to_string()),
            ("Memory", memory.map_or_else(|| "–".to_owned(), bytes)),
            ("Transactions applied", invalidation.transactions.to_string()),
            ("Commit to removal, p99", ms(invalidation.commit_to_invalidated.p99_ms)),
            ("Inconsistent, p99", ms(invalidation.inconsistent.latency.p99_ms)),
            (
                "Coverage",
                report
                    .coverage
                    .as_ref()
                    .map_or_else(|| "–".to_owned(), |c| part(c.cached, c.expected)),
            ),
        ];
        self.raw("<dl>\n");
        for (name, value) in facts {
            self.raw("<div><dt>");
            self.text(name);
            self.raw("</dt><dd>");
            self.text(&value);
            self.raw("</dd></div>\n");
        }
        self.raw("</dl>\n");
    }

    fn findings(&mut self, heading: &str, none: &str, findings: &[Finding]) {
        self.heading(heading);
        if findings.is_empty() {
            return self.paragraph(none);
        }
        self.raw("<ul>\n");
        for finding in findings {
            let (text, lines) = finding.text.split_once('\n').unwrap_or((&finding.text, ""));
            self.raw("<li>");
            // What stands between backquotes is code.
            for (at, piece) in text.split('`').enumerate() {
                let code = at % 2 == 1;
                self.raw(if code { "<code>" } else { "" });
                self.text(piece);
                self.raw(if code { "</code>" } else { "" });
            }
            if !lines.is_empty() {
                self.raw("<pre>");
                for (at, line) in lines.lines().enumerate() {
                    self.raw(if at > 0 { "\n" } else { "" });
                    self.text(line);
                }
                self.raw("</pre>");
            }
            self.raw("</li>\n");
        }
        self.raw("</ul>\n");
    }

    fn table(&mut self, caption: &str, head: &[&str], rows: &[Vec<String>]) {
        if rows.is_empty() {
            return self.paragraph(&format!("{caption}: none."));
        }
        self.raw("<div class=\"scroll\" tabindex=\"0\"><table>\n<caption>");
        self.text(caption);
        self.raw("</caption>\n<thead><tr>");
        for cell in head {
            self.raw("<th scope=\"col\">");
            self.text(cell);
            self.raw("</th>");
        }
        self.raw("</tr></thead>\n<tbody>\n");
        for row in rows {
            self.raw("<tr>");
            for (at, cell) in row.iter().enumerate() {
                let long = cell.chars().count() > 24;
                self.raw(match (at, long) {
                    (0, false) => "<th scope=\"row\">",
                    (_, true) => "<td class=\"long\">",
                    (_, false) => "<td>",
                });
                self.text(cell);
                self.raw(if at == 0 && !long { "</th>" } else { "</td>" });
            }
            self.raw("</tr>\n");
        }
        self.raw("</tbody>\n</table></div>\n");
    }

    fn caches(&mut self, report: &Report) {
        self.heading("Caches");
        let own = || report.caches.iter().filter(|(_, cache)| !cache.composed);
        let head = [
            "cache",
            "reads",
            "hit rate",
            "against before",
            "hit",
            "miss",
            "faster by",
            "load",
            "its baseline",
        ];
        let rows: Vec<_> = report.caches.iter().map(|(name, cache)| answers(name, cache)).collect();
        self.table("Reads through the read API, and what a load costs: means", &head, &rows);
        let head = ["cache", "entries", "memory", "growth", "an hour", "TTL"];
        let rows: Vec<_> = own().map(|(name, cache)| memory(name, cache)).collect();
        self.table("What is in Redis", &head, &rows);
        let head = [
            "cache",
            "removed",
            "were there",
            "inconsistent, p50",
            "p99",
            "over 1 s",
            "over 1 min",
        ];
        let rows: Vec<_> =
            own().filter(was_changed).map(|(name, cache)| removed(name, cache)).collect();
        self.table("What changes removed, and for how long it had been inconsistent", &head, &rows);
        let head = [
            "cache",
            "expired: read",
            "unread",
            "not known",
            "by a change: read",
            "unread",
            "not known",
            "refreshed",
            "gone",
        ];
        let rows: Vec<_> = own().filter(has_died).map(|(name, cache)| died(name, cache)).collect();
        self.table("What entries died of, and whether anybody had read them: a sample of those that the daemon filled", &head, &rows);
    }

    fn coverage(&mut self, report: &Report) {
        let Some(coverage) = &report.coverage else { return };
        self.heading("Coverage");
        self.paragraph(&format!(
            "{} of {} entries that populations list are cached; of {} organizations {} have all of theirs.{}",
            coverage.cached,
            coverage.expected,
            coverage.organizations,
            coverage.whole,
            if coverage.sampled { " Not all were looked at." } else { "" }
        ));
        let of = |name: &str, cached, expected| {
            vec![name.to_owned(), amount(cached), amount(expected), part(cached, expected)]
        };
        let rows: Vec<_> =
            coverage.caches.iter().map(|(name, c)| of(name, c.cached, c.expected)).collect();
        self.table("By cache", &["cache", "cached", "of", "part"], &rows);
        if !coverage.least.is_empty() {
            let least = coverage.least.iter();
            let rows: Vec<_> = least.map(|o| of(&o.organization, o.cached, o.expected)).collect();
            self.table(
                "Organizations of which least is cached",
                &["organization", "cached", "of", "part"],
                &rows,
            );
        }
    }

    fn changes(&mut self, report: &Report) {
        let invalidation = &report.invalidation;
        self.heading("What removed entries");
        let counted = seconds(invalidation.counted_for_seconds);
        self.paragraph(&format!("Rules, keys and fan-out are of the last {counted}."));
        let changes = invalidation.changes.iter().map(|changes| {
            let rows =
                |operation: &str| amount(changes.rows.get(operation).copied().unwrap_or_default());
            vec![
                changes.table.clone(),
                rows("insert"),
                rows("update"),
                rows("delete"),
                rows("truncate"),
            ]
        });
        let rows: Vec<_> = changes.collect();
        self.table(
            "Rows that changed",
            &["table", "insert", "update", "delete", "truncate"],
            &rows,
        );
        let rules = invalidation.rules.iter();
        let rows: Vec<_> =
            rules.map(|r| vec![r.rule.clone(), amount(r.keys), amount(r.present)]).collect();
        self.table("Rules", &["rule", "keys", "were there"], &rows);
        let hot = invalidation.hot_keys.iter().map(|hot| {
            let changes = match hot.changes_at_most > hot.changes {
                true => format!("{}–{}", hot.changes, hot.changes_at_most),
                false => amount(hot.changes),
            };
            vec![hot.key.clone(), changes, amount(hot.present), amount(hot.reads), hot.rule.clone()]
        });
        let rows: Vec<_> = hot.collect();
        self.table(
            "Hottest keys",
            &["key", "changes", "was there", "reads by the API", "last by"],
            &rows,
        );
        let classes = invalidation.fan_out.iter().map(|class| {
            let keys = match class.to {
                Some(to) if to == class.from => amount(to),
                Some(to) => format!("{}–{to}", class.from),
                None => format!("{} or more", class.from),
            };
            vec![keys, amount(class.transactions)]
        });
        let rows: Vec<_> = classes.collect();
        self.table("Transactions by the keys that they reached", &["keys", "transactions"], &rows);
        if let Some(largest) = &invalidation.largest {
            self.paragraph(&format!(
                "The largest reached {} keys: transaction {}, commit ends at {}.",
                largest.keys, largest.xid, largest.lsn
            ));
        }
    }

    fn unknown(&mut self, report: &Report) {
        self.heading("What this report does not know");
        self.raw("<ul>\n");
        for unknown in &report.unknown {
            self.raw("<li>");
            self.text(unknown);
            self.raw("</li>\n");
        }
        self.raw("</ul>\n");
        if let Some(redis) = &report.redis
            && let (Some(hits), Some(misses)) = (redis.keyspace_hits, redis.keyspace_misses)
        {
            self.paragraph(&format!(
                "Redis as a whole, all its clients and keys, the daemon's own among them: {hits} look-ups found a key, {misses} did not."
            ));
        }
    }
}

/// Entries, and bytes if they are known of all.
pub(crate) fn totals(report: &Report) -> (u64, Option<u64>) {
    let memory = || report.caches.values().filter_map(|cache| cache.memory);
    let bytes: Option<Vec<u64>> = memory().map(|memory| memory.bytes).collect();
    (memory().map(|memory| memory.keys).sum(), bytes.map(|bytes| bytes.iter().sum()))
}

/// A cache's reads and loads.
pub(crate) fn answers(name: &str, cache: &Cache) -> Vec<String> {
    let reads = &cache.reads;
    vec![
        name.to_owned(),
        amount(reads.held + reads.hits + reads.misses + reads.bypasses + reads.errors),
        percent(reads.hit_rate),
        signed_points(reads.hit_rate_points),
        ms(cache.hit.mean_ms),
        ms(cache.miss.mean_ms),
        cache.speedup.map_or_else(|| "–".to_owned(), |times| format!("{times:.1}×")),
        ms(cache.load.mean_ms),
        ms(cache.load_baseline_ms),
    ]
}

/// What a cache takes.
pub(crate) fn memory(name: &str, cache: &Cache) -> Vec<String> {
    let memory = cache.memory.unwrap_or_default();
    let dash = || "–".to_owned();
    vec![
        name.to_owned(),
        cache.memory.map_or_else(dash, |memory| amount(memory.keys)),
        memory.bytes.map_or_else(dash, bytes),
        signed_bytes(memory.bytes_growth),
        memory.bytes_growth_per_hour.map_or_else(dash, super::words::rate_of_bytes),
        seconds(cache.ttl_seconds),
    ]
}

/// Whether changes reached it.
pub(crate) fn was_changed((_, cache): &(&String, &Cache)) -> bool {
    cache.invalidated.keys > 0
}

/// Whether any of its entries is known to have died.
pub(crate) fn has_died((_, cache): &(&String, &Cache)) -> bool {
    cache.deaths.all() + cache.deaths.gone > 0
}

/// What changes removed of it.
pub(crate) fn removed(name: &str, cache: &Cache) -> Vec<String> {
    let Inconsistent { latency, over_1s, over_1m, .. } = cache.inconsistent;
    vec![
        name.to_owned(),
        amount(cache.invalidated.keys),
        amount(cache.invalidated.present),
        ms(latency.p50_ms),
        ms(latency.p99_ms),
        amount(over_1s),
        amount(over_1m),
    ]
}

/// What became of its entries.
pub(crate) fn died(name: &str, cache: &Cache) -> Vec<String> {
    let deaths = &cache.deaths;
    let (expired, invalidated) = (deaths.expired, deaths.invalidated);
    let mut row = vec![name.to_owned()];
    for fates in [expired, invalidated] {
        row.extend([fates.read, fates.unread, fates.unknown].map(amount));
    }
    row.extend([amount(deaths.replaced.all()), amount(deaths.gone)]);
    row
}

#[cfg(test)]
mod tests {
    use super::super::model::{Coverage, HotKey, OfOrganization, Recommendation};
    use super::*;
    use proptest::prelude::*;

    fn report(evil: &str) -> Report {
        let evil = || evil.to_owned();
        let mut report = Report { id: evil(), unknown: vec![evil()], ..Report::default() };
        report.caches.insert(evil(), Cache::default());
        report.daemon.slot = evil();
        report.invalidation.hot_keys.push(HotKey {
            key: evil(),
            rule: evil(),
            ..HotKey::default()
        });
        let organization = OfOrganization { organization: evil(), expected: 2, cached: 1 };
        report.coverage = Some(Coverage { least: vec![organization], ..Coverage::default() });
        report.regressions.push(Finding { text: evil(), ..Finding::default() });
        report.recommendations.push(Recommendation {
            text: evil(),
            section: Some(evil()),
            set: vec![evil(), evil()],
            ..Recommendation::default()
        });
        report
    }

    /// Takes the page apart as XML: every element that is opened is closed, in order; gives the names of
    /// the elements, and the attributes with their values.
    fn elements(page: &str) -> Vec<String> {
        let body = page.strip_prefix("<!DOCTYPE html>\n").unwrap();
        let (mut open, mut all, mut rest) = (Vec::new(), Vec::new(), body);
        while let Some(start) = rest.find('<') {
            let text = &rest[..start];
            assert!(!text.contains('>'), "{text}");
            let end = start + rest[start..].find('>').expect("a tag ends");
            let tag = &rest[start + 1..end];
            assert!(!tag.contains('<'), "{tag}");
            rest = &rest[end + 1..];
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop().as_deref(), Some(name));
                continue;
            }
            let whole = tag.trim_end_matches('/');
            let name = whole.split_whitespace().next().unwrap().to_owned();
            all.push(whole.to_owned());
            if !tag.ends_with('/') {
                open.push(name);
            }
        }
        assert_eq!(open, Vec::<String>::new());
        all
    }

    /// What the page of harmless texts has, and nothing else.
    fn allowed() -> std::collections::BTreeSet<String> {
        let long = "a text that is longer than the width of a narrow cell";
        ["x", long, "a `b` c"].into_iter().flat_map(|t| elements(&html(&report(t)))).collect()
    }

    #[test]
    fn the_page_is_well_formed_and_asks_for_nothing() {
        let page = html(&report("x"));
        let elements = elements(&page);
        assert!(elements.len() > 50);
        for forbidden in
            ["<script", "src=", "href=", "@import", "url(", "http:", "https:", "javascript"]
        {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
        assert!(page.contains("prefers-color-scheme:dark") && page.contains("width=device-width"));
        assert!(page.contains("default-src 'none'"));
    }

    #[test]
    fn what_a_row_says_stays_text() {
        let allowed = allowed();
        for evil in [
            "<script>alert(1)</script>",
            "\"><img src=x onerror=alert(1)>",
            "' onmouseover='alert(1)",
            "</title><script>",
            "</style><script>",
            "]]>--><script>",
            "`<b>`",
            "a\nb\n<script>\n",
            "&lt;script&gt;",
        ] {
            let page = html(&report(evil));
            for element in elements(&page) {
                assert!(allowed.contains(&element), "{element} by {evil}");
            }
        }
        assert!(html(&report("&lt;")).contains("&amp;lt;"));
    }

    proptest! {
        #[test]
        fn whatever_a_row_says_no_element_comes_of_it(evil in "(?s).{0,40}") {
            let allowed = allowed();
            for element in elements(&html(&report(&evil))) {
                prop_assert!(allowed.contains(&element), "{} by {}", element, evil);
            }
        }
    }
}
