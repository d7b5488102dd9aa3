//! The alerts and the dashboard: promtool takes them, they name only what the daemon really
//! shows, and each alert fires and is silent where it should and has its page in the runbook.
//!
//! promtool comes with Debian's package `prometheus`, which scripts/setup.sh installs.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use crate::support::{World, root};
use serde_json::{Value, json};

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What promtool prints; fails unless it is content.
fn promtool(arguments: &[&str], input: Stdio) -> String {
    let program = std::env::var("PROMTOOL").unwrap_or_else(|_| "promtool".to_owned());
    let output = Command::new(program)
        .args(arguments)
        .current_dir(root())
        .stdin(input)
        .output()
        .expect("promtool is missing (on Debian: prometheus): run `scripts/setup.sh tests`");
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "promtool {arguments:?}:\n{said}");
    said
}

/// The names of the alerts, in the order of the file.
fn alerts() -> Vec<String> {
    let alerts = text("config/prometheus/alerts.yml");
    let names = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    names.map(str::to_owned).collect()
}

/// Every expression of the dashboard, as Grafana would send it.
fn expressions() -> Vec<String> {
    fn collect(of: &Value, into: &mut Vec<String>) {
        match of {
            Value::Object(fields) => {
                into.extend(fields.get("expr").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|value| collect(value, into));
            }
            Value::Array(values) => values.iter().for_each(|value| collect(value, into)),
            _ => {}
        }
    }
    let dashboard: Value = serde_json::from_str(&text("config/grafana/unstale.json")).unwrap();
    let mut found = Vec::new();
    collect(&dashboard, &mut found);
    assert!(found.len() > 20, "{found:?}");
    for expression in &mut found {
        for (variable, value) in [("$__rate_interval", "5m"), ("$job", ".*"), ("$instance", ".*")] {
            *expression = expression.replace(variable, value);
        }
        assert!(!expression.contains('$'), "an unknown variable: {expression}");
    }
    found
}

/// What the dashboard asks for of maintenance, which has to run first, and of a replica, which
/// has to be configured.
const LATER: [&str; 6] = [
    "unstale_cache_keys",
    "unstale_cache_bytes",
    "unstale_schedule_next_timestamp_seconds",
    "unstale_schedule_last_seconds",
    "unstale_schedule_last_ok",
    "unstale_replica_reads_total",
];

/// The metrics that a daemon shows.
fn shown(metrics: &str) -> BTreeSet<&str> {
    let lines = metrics.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split(['{', ' ']).next()).collect()
}

/// The metrics that a text names.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("unstale_")).map(str::to_owned).collect()
}

#[test]
fn every_alert_fires_and_is_silent_as_its_tests_say() {
    promtool(&["check", "rules", "config/prometheus/alerts.yml"], Stdio::null());
    promtool(&["test", "rules", "config/prometheus/alerts_test.yml"], Stdio::null());
    let tests = text("config/prometheus/alerts_test.yml");
    for alert in alerts() {
        let silent = format!("- {{ alertname: {alert}, eval_time:");
        assert!(tests.contains(&silent), "no test in which {alert} is silent");
        let fires = format!("- alertname: {alert}\n");
        assert!(tests.contains(&fires), "no test in which {alert} fires");
    }
}

#[test]
fn every_alert_has_a_section_in_the_runbook_and_every_section_an_alert() {
    let runbook = text("docs/RUNBOOK.md");
    let sections: BTreeSet<_> =
        runbook.lines().filter_map(|line| line.strip_prefix("## Unstale")).collect();
    let rules = text("config/prometheus/alerts.yml");
    let mut alerts = alerts();
    for alert in &alerts {
        // An anchor is the heading in lower case.
        let url = format!("runbook_url: docs/RUNBOOK.md#{}\n", alert.to_lowercase());
        assert!(rules.contains(&url), "{alert} does not point to its section");
        let section = runbook.split_once(&format!("## {alert}\n"));
        let section = section.unwrap_or_else(|| panic!("no section for {alert}")).1;
        let section = section.split("\n## ").next().unwrap();
        for part in ["**For users.**", "**See.**", "**Do.**", "**Over when.**"] {
            assert!(section.contains(part), "the section of {alert} lacks {part}");
        }
    }
    alerts.sort();
    let alerts: BTreeSet<_> = alerts.iter().filter_map(|a| a.strip_prefix("Unstale")).collect();
    assert_eq!(sections, alerts);
}

#[test]
fn every_expression_of_the_dashboard_parses() {
    let rules: Vec<Value> = expressions()
        .into_iter()
        .enumerate()
        .map(|(n, expression)| json!({ "record": format!("dashboard:{n}"), "expr": expression }))
        .collect();
    // JSON is YAML.
    let file = json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dashboard.yml");
    std::fs::write(&path, file.to_string()).unwrap();
    promtool(&["check", "rules", path.to_str().unwrap()], Stdio::null());

    let dashboard: Value = serde_json::from_str(&text("config/grafana/unstale.json")).unwrap();
    assert_eq!(dashboard["templating"]["list"][0]["type"], "datasource");
    for panel in dashboard["panels"].as_array().unwrap() {
        if panel["type"] != "row" {
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
        }
    }
}

#[tokio::test]
async fn whatever_alerts_and_dashboard_ask_for_is_there_before_anything_has_happened() {
    let mut world = World::new().await;
    world.set(
        r#"schedule=[{ task = "warm", every = "4h" }, { task = "maintenance", every = "1s" }]"#,
    );
    let replica = world.postgres.url();
    world.set(&format!("postgres.replica_url={replica}"));
    let daemon = world.daemon().await;
    let (_, metrics) = daemon.get("/metrics").await.unwrap();

    let file = world.folder.path().join("metrics");
    std::fs::write(&file, &metrics).unwrap();
    promtool(&["check", "metrics"], std::fs::File::open(&file).unwrap().into());

    let mut asked = named(&expressions().join("\n"));
    let rules = text("config/prometheus/alerts.yml");
    let expr = rules.lines().filter(|line| !line.trim().starts_with('#'));
    asked.extend(named(&expr.collect::<Vec<_>>().join("\n")));
    asked.extend(named(&text("config/prometheus/alerts_test.yml")));
    assert!(asked.len() > 20, "{asked:?}");
    asked.retain(|name| !LATER.contains(&&**name));
    let samples = shown(&metrics);
    for name in asked {
        assert!(samples.contains(&*name), "{name} is asked for, and the daemon does not show it");
    }
    assert_eq!(daemon.metric("unstale_certified").await, 1.0);
    assert_eq!(daemon.metric("unstale_slot_safe_wal_bytes").await, -1.0);
    let zero = "unstale_verify_total{cache=\"org_data\",result=\"stale\"} 0";
    assert!(metrics.contains(zero), "a first stale entry would be no increase");

    world.put(&["v1:org:data:1"]).await;
    let done = r#"unstale_schedule_runs_total{result="done",task="maintenance"}"#;
    let before = daemon.metric(done).await;
    daemon.until_at_least(done, before + 2.0).await;
    let (_, metrics) = daemon.get("/metrics").await.unwrap();
    for name in LATER {
        assert!(shown(&metrics).contains(name), "{name} does not come by itself");
    }
}
