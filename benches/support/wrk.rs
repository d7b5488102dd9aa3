//! wrk: a load of HTTP requests.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

/// What a round gave.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub requests: f64,
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// Percentiles by its own histogram, which is finer than what it prints.
const SCRIPT: &str = r#"
done = function(summary, latency, requests)
    local e = summary.errors
    io.write(string.format("figures %d %d %d %d %d\n", summary.requests, summary.duration,
        latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
"#;

/// Requests the same over and over, on so many connections, by two threads, as wrk has it.
pub async fn run(
    folder: &Path,
    url: &str,
    header: Option<&str>,
    connections: u64,
    seconds: u64,
) -> Load {
    let script = folder.join("figures.lua");
    std::fs::write(&script, SCRIPT).expect("the script is written");
    let mut command = Command::new("wrk");
    command.args(["-t", "2", "-c", &connections.to_string(), "-d", &format!("{seconds}s")]);
    command.arg("-s").arg(&script);
    if let Some(header) = header {
        command.args(["-H", header]);
    }
    let run = command.arg(url).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = run.await.expect("wrk starts (scripts/setup.sh bench installs it)");
    let text = String::from_utf8_lossy(&output.stdout);
    let figures = text.lines().find_map(|line| line.strip_prefix("figures "));
    let figures = figures.unwrap_or_else(|| panic!("wrk gave no figures:\n{text}"));
    let figures: Vec<f64> =
        figures.split(' ').map(|figure| figure.parse().expect("a figure")).collect();
    let [requests, micros, p50, p99, errors] = figures[..] else { panic!("{text}") };
    assert!(errors == 0.0, "{errors} requests failed:\n{text}");
    Load { requests, per_second: requests / micros * 1e6, p50_ms: p50 / 1e3, p99_ms: p99 / 1e3 }
}
