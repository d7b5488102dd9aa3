//! `UNSTALE_…`: settings from the environment, with two underscores between levels.
//!
//! figment's own layer guesses types, which turns a password of digits into a number.
//! Here a variable is a text until the setting that it names says otherwise.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use super::overrides::{Origin, Override};
use super::problem::{ConfigPath, Problem, nearest};
use super::schema;

const PREFIX: &str = "UNSTALE_";

/// Names the configuration file.
pub const CONFIG: &str = "UNSTALE_CONFIG";

/// Variables that are no settings: the command line reads them, and the sandbox.
const OTHERS: [&str; 4] = [CONFIG, "UNSTALE_LOG", "UNSTALE_PG_BIN", "UNSTALE_REDIS_SERVER"];

/// Test only: names a rule to leave out. A release build knows no such variable, and says so.
pub const TEST_WITHOUT: &str = "UNSTALE_TEST_WITHOUT";

/// Test only: the folder where tests say at which point the daemon is to die. A release build
/// knows no such variable, and says so.
pub const TEST_POINTS: &str = "UNSTALE_TEST_POINTS";

/// The file that [`CONFIG`] names; an empty one names none.
pub(super) fn config_file(environment: &[(OsString, OsString)]) -> Option<PathBuf> {
    let (_, file) = environment.iter().find(|(name, _)| name == CONFIG)?;
    (!file.is_empty()).then(|| PathBuf::from(file))
}

/// The settings among the variables, and what is wrong with the rest of ours.
pub(super) fn overrides(
    environment: &[(OsString, OsString)],
) -> (Vec<Override>, Vec<(Problem, Origin)>) {
    let mut settings = Vec::new();
    let mut problems = Vec::new();
    for (name, value) in environment {
        let Some(name) = ours(name) else { continue };
        let origin = Origin::Variable(name.to_owned());
        let path = path_of(name);
        match value.to_str() {
            _ if path.0.len() < 2 => problems.push((unknown(name, path), origin)),
            None => problems.push((
                Problem::new(path, "the value is not UTF-8").hint("set it to UTF-8 text"),
                origin,
            )),
            Some(value) => settings.push(Override::new(path, value.to_owned(), origin)),
        }
    }
    // The environment has no order; diagnostics should.
    settings.sort_by(|a, b| a.path().cmp(b.path()));
    (settings, problems)
}

/// The name, if the variable is meant for us.
fn ours(name: &OsStr) -> Option<&str> {
    let name = name.to_str()?;
    let rest = name.strip_prefix(PREFIX)?;
    let for_tests = cfg!(debug_assertions) && [TEST_WITHOUT, TEST_POINTS].contains(&name);
    (!OTHERS.contains(&name) && !is_service_link(rest) && !for_tests).then_some(name)
}

/// Whether Kubernetes put the variable there: a Service called `unstale` or `unstale-admin`
/// gives every pod beside it `UNSTALE_SERVICE_HOST`, `UNSTALE_PORT_9187_TCP_ADDR` and more.
fn is_service_link(rest: &str) -> bool {
    let name = format!("_{rest}");
    let of_port = name.split_once("_PORT_").is_some_and(|(_, port)| {
        port.split_once('_').is_some_and(|(number, protocol)| {
            number.bytes().all(|b| b.is_ascii_digit())
                && ["TCP", "UDP", "SCTP"].iter().any(|known| protocol.starts_with(known))
        })
    });
    let of_service = name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT");
    !name.contains("__") && (of_service || name.ends_with("_PORT") || of_port)
}

fn path_of(name: &str) -> ConfigPath {
    let rest = name.strip_prefix(PREFIX).unwrap_or(name);
    rest.split("__").map(str::to_ascii_lowercase).collect()
}

fn unknown(name: &str, path: ConfigPath) -> Problem {
    let problem = Problem::new(path.clone(), "no setting has this name");
    if let Some(other) = nearest(name, OTHERS) {
        return problem.hint(format!("did you mean {other}?"));
    }
    // `UNSTALE_POSTGRES_URL`: one underscore where two belong.
    let single = path.last_key().and_then(|rest| {
        rest.match_indices('_').find_map(|(at, _)| {
            let (section, setting) = (rest.get(..at)?, rest.get(at + 1..)?);
            let path = ConfigPath::from_iter([section, setting]);
            schema::knows(&path)
                .then(|| format!("{PREFIX}{}__{}", section.to_uppercase(), setting.to_uppercase()))
        })
    });
    problem.hint(match single {
        Some(name) => format!("did you mean {name}, with two underscores between levels?"),
        None => format!(
            "settings are written like {PREFIX}POSTGRES__URL: the section, two underscores, the name"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_the_sandbox_are_no_settings() {
        for name in ["UNSTALE_PG_BIN", "UNSTALE_REDIS_SERVER", "UNSTALE_CONFIG"] {
            assert_eq!(ours(OsStr::new(name)), None, "{name}");
        }
    }

    #[test]
    fn variables_that_kubernetes_sets_for_a_service_are_not_ours() {
        for link in [
            "UNSTALE_SERVICE_HOST",
            "UNSTALE_SERVICE_PORT",
            "UNSTALE_SERVICE_PORT_ADMIN",
            "UNSTALE_PORT",
            "UNSTALE_PORT_9187_TCP",
            "UNSTALE_PORT_9187_TCP_PROTO",
            "UNSTALE_PORT_9187_TCP_PORT",
            "UNSTALE_PORT_9187_TCP_ADDR",
            "UNSTALE_ADMIN_SERVICE_HOST",
            "UNSTALE_ADMIN_PORT_9187_TCP_ADDR",
        ] {
            assert_eq!(ours(OsStr::new(link)), None, "{link}");
        }
        for setting in ["UNSTALE_POSTGRES__URL", "UNSTALE_POSTGRES_URL", "UNSTALE_CONFG"] {
            assert_eq!(ours(OsStr::new(setting)), Some(setting));
        }
    }
}
