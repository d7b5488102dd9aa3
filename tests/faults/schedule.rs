//! What goes wrong, and when: made from a seed, and nothing else.
//!
//! A plan is a place and some acts. Within an act faults come and go while the load goes on;
//! each occupies what it breaks, so that no two meet in the same thing (a server that is down
//! cannot be restarted) and none needs what another has taken away. All have gone when an act
//! ends: then it is quiet, and everything is compared.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

use crate::what::{Part, What};

/// How long an act is.
pub const ACT: Duration = Duration::from_secs(9);

/// What nothing disturbs at an act's beginning and end.
const CALM: Duration = Duration::from_millis(400);

/// How many faults an act has at most.
const MOST: usize = 7;

/// A whole run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub seed: u64,
    pub place: Place,
    pub acts: Vec<Act>,
}

/// What the servers are like at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Commits wait for a standby, as this says (`synchronous_commit`); the daemon reads it.
    pub standby: Option<&'static str>,
    /// Redis keeps everything over a restart.
    pub appends: bool,
    /// Large transactions come while they are in progress.
    pub streaming: bool,
    /// Event triggers tell of what changes beside the stream: nothing of it is overlooked, not even
    /// for a moment.
    pub announced: bool,
}

/// The faults between two comparisons, by their beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    pub faults: Vec<Fault>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Since the act's beginning.
    pub at: Duration,
    pub lasts: Duration,
    pub what: What,
}

impl Plan {
    /// The plan of this seed, so many acts long. A longer one begins as a shorter one does.
    pub fn new(seed: u64, acts: usize) -> Plan {
        let mut rng = Rng::with_seed(seed);
        let place = Place {
            standby: [None, None, Some("on"), Some("remote_apply")][rng.usize(0..4)],
            appends: rng.u8(0..4) == 0,
            streaming: rng.u8(0..4) != 0,
            announced: !seed.is_multiple_of(4),
        };
        // What is left of it: a standby that has taken over is none any more.
        let mut left = place;
        let act = |_| {
            let act = Act::any(&mut rng, left);
            if act.faults.iter().any(|fault| fault.what == What::PrimaryLost) {
                left.standby = None;
            }
            act
        };
        let acts = (0..acts).map(act).collect();
        Plan { seed, place, acts }
    }
}

impl Act {
    fn any(rng: &mut Rng, place: Place) -> Act {
        let mut faults: Vec<Fault> = Vec::new();
        let wanted = rng.usize(2..=MOST);
        for _ in 0..wanted * 4 {
            let what = What::any(rng, place);
            let (least, most) = what.duration();
            let lasts = rng.u64(least..most);
            let room = millis(ACT - CALM) - lasts;
            let at = Duration::from_millis(rng.u64(millis(CALM)..room));
            let fault = Fault { at, lasts: Duration::from_millis(lasts), what };
            if faults.len() < wanted && !faults.iter().any(|other| other.excludes(&fault)) {
                faults.push(fault);
            }
        }
        faults.sort_by_key(|fault| fault.at);
        Act { faults }
    }
}

impl Fault {
    pub fn ends(&self) -> Duration {
        self.at + self.lasts
    }

    /// When the part is as it was before. There is no standby any more once it has taken over.
    fn frees(&self, part: Part) -> Duration {
        match (self.what, part) {
            (What::PrimaryLost, Part::Standby) => ACT,
            _ => self.ends(),
        }
    }

    fn excludes(&self, other: &Fault) -> bool {
        let parts = other.what.occupies();
        let both = self.what.occupies().iter().filter(|part| parts.contains(part));
        both.into_iter().any(|part| self.at < other.frees(*part) && other.at < self.frees(*part))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap()
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { standby, appends, streaming, announced } = self.place;
        write!(
            f,
            "SEED={}: {}",
            self.seed,
            standby
                .map_or("no standby".to_owned(), |commit| format!("synchronous_commit = {commit}"))
        )?;
        write!(f, ", Redis {}", if appends { "keeps its data" } else { "forgets" })?;
        write!(f, ", large transactions {}", if streaming { "streamed" } else { "spilled" })?;
        writeln!(f, ", {} event triggers", if announced { "with" } else { "without" })?;
        for (number, act) in self.acts.iter().enumerate() {
            writeln!(f, "  act {}", number + 1)?;
            for Fault { at, lasts, what } in &act.faults {
                writeln!(f, "    {:5} ms +{:4} ms  {what:?}", at.as_millis(), lasts.as_millis())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use unstale::pipeline::points::Point;

    use super::*;

    #[test]
    fn a_seed_gives_the_same_plan_each_time_and_a_longer_one_begins_as_a_shorter_one() {
        for seed in 0..500 {
            assert_eq!(Plan::new(seed, 3), Plan::new(seed, 3));
            assert_eq!(Plan::new(seed, 5).acts[..3], Plan::new(seed, 3).acts);
        }
        assert_ne!(Plan::new(1, 3), Plan::new(2, 3));
    }

    #[test]
    fn no_two_faults_meet_in_the_same_part_and_all_are_over_when_the_act_is() {
        for seed in 0..5_000 {
            for act in Plan::new(seed, 3).acts {
                assert!(!act.faults.is_empty() && act.faults.len() <= MOST, "seed {seed}");
                for (i, fault) in act.faults.iter().enumerate() {
                    assert!(fault.what.occupies().is_sorted(), "{:?}", fault.what);
                    assert!(fault.ends() < ACT, "seed {seed}: {fault:?}");
                    for other in &act.faults[i + 1..] {
                        assert!(!fault.excludes(other), "seed {seed}: {fault:?} {other:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn everything_that_can_go_wrong_does_and_faults_do_overlap() {
        let mut left = What::all();
        let mut overlaps = 0;
        for seed in 0..4_000 {
            for act in Plan::new(seed, 1).acts {
                left.retain(|what| act.faults.iter().all(|fault| fault.what != *what));
                let meets = |pair: &[Fault]| pair[1].at < pair[0].ends();
                overlaps += act.faults.windows(2).filter(|pair| meets(pair)).count();
            }
        }
        assert!(left.is_empty(), "{left:#?}");
        assert!(overlaps > 1000, "{overlaps}");
    }

    #[test]
    fn every_named_point_is_one_of_the_things_that_go_wrong() {
        for point in Point::ALL {
            assert!(What::all().contains(&What::DaemonKilledAt(point)), "{point:?}");
        }
    }

    #[test]
    fn a_standby_takes_over_once_and_nothing_happens_to_it_afterwards() {
        let mut lost = 0;
        for seed in 0..2_000 {
            let plan = Plan::new(seed, 3);
            let faults = plan.acts.iter().flat_map(|act| &act.faults).map(|fault| fault.what);
            let mut after = faults.skip_while(|what| *what != What::PrimaryLost);
            lost += usize::from(after.next().is_some());
            for what in after {
                let needs = [What::PrimaryLost, What::StandbyFrozen, What::ReplayPaused];
                assert!(!needs.contains(&what), "seed {seed}: {what:?}");
            }
        }
        assert!(lost > 100, "{lost}");
    }
}
