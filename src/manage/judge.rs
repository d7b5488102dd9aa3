//! Whether all is well, and what to do where it is not. Pure.

use serde_json::Value;

use super::status::{Covered, Replication, Status};

impl Status {
    /// Decides whether all is well. `failures`: what could not be asked.
    pub(super) fn judge(&mut self, failures: impl Iterator<Item = String>) {
        let mut problems: Vec<String> = failures.collect();
        let redis_answers = self.certificate.is_some();
        if self.shadow {
            self.notes.push(
                "shadow mode: what is cached is the application's, and the daemon only looks on; `unstale report --shadow` tells what it sees".into(),
            );
        }
        match &self.state {
            None if self.shadow => {}
            None if redis_answers => {
                problems.push("no daemon has kept this Redis fresh yet: start `unstale run`".into());
            }
            Some(state) if !state.valid => problems.push(
                "the state is invalid, so nothing is stored: a gap is being dealt with, or the daemon ended in the middle of one; see /readyz and the daemon's log".into(),
            ),
            Some(state) if !state.same_configuration => problems.push(
                "the daemon runs with other caches, tables or queries than this configuration: reload it (SIGHUP), or point --config at its file".into(),
            ),
            _ => {}
        }
        if let Some(state) = &self.state {
            if !state.closed.is_empty() {
                problems.push(format!(
                    "being dropped as a whole just now: {}; if that lasts, see the daemon's log",
                    state.closed.join(", ")
                ));
            }
            if state.suspects > 0 {
                self.notes.push(format!(
                    "{} transactions that were open when the slot was made are still watched",
                    state.suspects
                ));
            }
        }
        let fresh = self.certificate.as_ref().map(|certificate| certificate.fresh);
        if fresh == Some(false) && !self.shadow {
            problems.push(
                "nobody certifies the cache now, so what is in it may be stale: start `unstale run`, or see /readyz and the log of the one that runs".into(),
            );
        }
        if let Some(Covered { organization: Some(given), known: Some(false), .. }) = &self.coverage
        {
            problems.push(format!(
                "the database knows no organization {given:?}: give its exact name or its id"
            ));
        }
        problems.extend(self.replication.iter().flat_map(Replication::problems));
        if let Some(daemon) = &self.daemon {
            match &daemon.readyz {
                Some(readyz) if readyz.get("ready") == Some(&Value::Bool(false)) => {
                    let told = readyz.get("problems").and_then(Value::as_array);
                    let told = told.into_iter().flatten().filter_map(Value::as_str);
                    problems.extend(told.map(|problem| format!("the daemon: {problem}")));
                    if problems.is_empty() {
                        problems.push("the daemon is not ready yet".into());
                    }
                }
                Some(readyz) if readyz["parked_transactions"].as_u64() > Some(0) => self.notes.push(
                    "transactions are committed and not visible yet, since Postgres waits for a synchronous standby (synchronous_standby_names): nobody can see them, and what they change is removed once somebody can".into(),
                ),
                None if fresh == Some(true) => self.notes.push(format!(
                    "a daemon keeps the cache fresh, but none answers at {} (admin.listen)",
                    daemon.address
                )),
                _ => {}
            }
        }
        problems.dedup();
        self.ok = problems.is_empty();
        self.problems = problems;
    }
}

impl Replication {
    fn problems(&self) -> Vec<String> {
        let slot = &self.slot;
        if !self.exists {
            return vec![format!(
                "there is no slot {slot}: `unstale run` makes one, which is a gap"
            )];
        }
        if let Some(reason) = &self.invalidation_reason {
            return vec![format!(
                "the slot {slot} is lost ({reason}): the daemon makes a new one, which is a gap"
            )];
        }
        let mut problems = Vec::new();
        match self.wal_status.as_deref() {
            Some("lost") => problems.push(format!(
                "the slot {slot} is lost: the daemon makes a new one, which is a gap; raise max_slot_wal_keep_size"
            )),
            Some("unreserved") => problems.push(format!(
                "the slot {slot} is about to be lost: let the daemon catch up now, or raise max_slot_wal_keep_size"
            )),
            _ => {}
        }
        if self.active_pid.is_none() {
            problems.push(format!(
                "nobody reads the slot {slot}, and Postgres keeps WAL for it: start `unstale run`"
            ));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manage::status::{Certificate, Daemon, StateSeen};
    use serde_json::json;

    fn good() -> Status {
        Status {
            certificate: Some(Certificate {
                fresh: true,
                watermark: Some("0/1".into()),
                age_seconds: Some(0.5),
            }),
            state: Some(StateSeen {
                valid: true,
                watermark: "0/1".into(),
                frontier: "0/1".into(),
                suspects: 0,
                closed: vec![],
                same_configuration: true,
            }),
            replication: Some(Replication {
                slot: "unstale".into(),
                exists: true,
                active_pid: Some(1),
                wal_status: Some("reserved".into()),
                safe_wal_size: None,
                invalidation_reason: None,
                server_lsn: "0/1".into(),
                confirmed_lsn: Some("0/1".into()),
                lag_bytes: Some(0),
                retained_bytes: Some(0),
            }),
            daemon: Some(Daemon {
                address: "h:1".into(),
                running: true,
                readyz: Some(json!({"ready": true, "problems": []})),
            }),
            ..Status::default()
        }
    }

    fn judged(change: impl FnOnce(&mut Status)) -> Status {
        let mut status = good();
        change(&mut status);
        status.judge(std::iter::empty());
        status
    }

    fn problem(change: impl FnOnce(&mut Status)) -> String {
        let status = judged(change);
        assert!(!status.ok);
        status.problems.join("; ")
    }

    #[test]
    fn each_thing_that_is_not_well_is_told() {
        assert!(judged(|_| {}).ok);
        assert!(problem(|s| s.state = None).contains("start `unstale run`"));
        let state =
            |change: fn(&mut StateSeen)| move |s: &mut Status| s.state.iter_mut().for_each(change);
        assert!(problem(state(|s| s.valid = false)).contains("invalid"));
        assert!(problem(state(|s| s.same_configuration = false)).contains("SIGHUP"));
        assert!(problem(state(|s| s.closed = vec!["org".into()])).contains("org"));
        assert!(
            problem(|s| s.certificate.iter_mut().for_each(|c| c.fresh = false)).contains("stale")
        );
        let slot = |change: fn(&mut Replication)| {
            move |s: &mut Status| s.replication.iter_mut().for_each(change)
        };
        assert!(problem(slot(|s| s.exists = false)).contains("no slot"));
        assert!(problem(slot(|s| s.active_pid = None)).contains("nobody reads"));
        assert!(problem(slot(|s| s.wal_status = Some("lost".into()))).contains("is lost"));
        assert!(problem(slot(|s| s.wal_status = Some("unreserved".into()))).contains("about to"));
        let invalidated = slot(|s| s.invalidation_reason = Some("wal_removed".into()));
        assert!(problem(invalidated).contains("wal_removed"));
        let unready = json!({"ready": false, "problems": ["Redis is away"]});
        let daemon =
            |s: &mut Status| s.daemon.iter_mut().for_each(|d| d.readyz = Some(unready.clone()));
        assert!(problem(daemon).contains("Redis is away"));
    }

    #[test]
    fn in_shadow_mode_nobody_is_expected_to_keep_the_cache() {
        let status = judged(|status| {
            status.shadow = true;
            status.state = None;
            status.certificate.iter_mut().for_each(|certificate| certificate.fresh = false);
        });
        assert!(status.ok, "{:?}", status.problems);
        assert!(status.notes.join("").contains("report --shadow"));
    }

    #[test]
    fn a_daemon_on_another_machine_is_no_problem_while_it_certifies() {
        let silent = |s: &mut Status| s.daemon.iter_mut().for_each(|d| d.readyz = None);
        let status = judged(silent);
        assert!(status.ok);
        assert!(status.notes.join("").contains("admin.listen"));
    }
}
