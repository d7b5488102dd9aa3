//! What goes wrong, and when: made from a seed, and nothing else.
//!
//! A plan is a place and some acts. Within an act faults come and go while the load goes on;
//! each occupies what it breaks, so that no two meet in the same thing (a server that is down
//! cannot be restarted) and none needs what another has taken away. All have gone when an act
//! ends: then it is quiet, and everything is compared.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;
use unstale::pipeline::points::Point;

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

/// What the servers are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Commits wait for a standby, as this says (`synchronous_commit`); the daemon reads it.
    pub standby: Option<&'static str>,
    /// Redis keeps everything over a restart.
    pub appends: bool,
    /// Large transactions come while they are in progress.
    pub streaming: bool,
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

/// A way to one of the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    ToRedis,
    ToPostgres,
}

/// What happens on such a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trouble {
    /// All connections are reset, once.
    Cut,
    /// Every chunk of bytes takes longer.
    Slow,
    /// Bytes are held back, connections stay open and new ones are let in.
    Silent,
    /// What is asked for happens, nobody learns; then it is cut.
    AnswersLost,
    /// No new connections, and the old ones are reset.
    Refused,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    DaemonKilled,
    DaemonRestarted,
    DaemonFrozen,
    /// Killed where it does most harm.
    DaemonKilledAt(Point),
    /// A second one has been waiting when the first is killed.
    DaemonReplaced,
    RedisFrozen,
    /// With what it does not keep over that.
    RedisKilled,
    RedisRestarted,
    /// What it held at the beginning is back at the end.
    RedisRestored,
    RedisFlushed,
    StateDeleted,
    ScriptsForgotten,
    ClientsKilled,
    RedisFull,
    RedisReadOnly,
    Network(Way, Trouble),
    PostgresFrozen,
    PostgresRestarted,
    PostgresCrashed,
    WalsenderFrozen,
    WalsenderEnded,
    SlotDropped,
    /// What the walsender writes does not fit on the disk.
    DiskFull,
    StandbyFrozen,
    ReplayPaused,
}

/// What a fault breaks, or cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Daemon,
    Redis,
    RedisWay,
    Postgres,
    PostgresWay,
    Standby,
}

impl Part {
    pub const ALL: [Part; 6] = [
        Part::Daemon,
        Part::Redis,
        Part::RedisWay,
        Part::Postgres,
        Part::PostgresWay,
        Part::Standby,
    ];
}

impl What {
    /// Each list in the order of the parts.
    pub fn occupies(self) -> &'static [Part] {
        use Part::{Daemon, Postgres, PostgresWay, Redis, RedisWay, Standby};
        match self {
            What::DaemonKilled | What::DaemonRestarted | What::DaemonFrozen => &[Daemon],
            // Both must answer for the point to be reached, or for the second one to wait.
            What::DaemonKilledAt(_) | What::DaemonReplaced => &[Daemon, Redis, Postgres],
            What::RedisFrozen
            | What::RedisKilled
            | What::RedisRestarted
            | What::RedisRestored
            | What::RedisFlushed
            | What::StateDeleted
            | What::ScriptsForgotten
            | What::ClientsKilled
            | What::RedisFull
            | What::RedisReadOnly => &[Redis],
            What::Network(Way::ToRedis, _) => &[RedisWay],
            What::Network(Way::ToPostgres, _) => &[PostgresWay],
            // A fast shutdown waits until the daemon has confirmed everything.
            What::PostgresRestarted => &[Daemon, Redis, RedisWay, Postgres, PostgresWay, Standby],
            What::PostgresFrozen
            | What::WalsenderFrozen
            | What::WalsenderEnded
            | What::SlotDropped
            | What::DiskFull => &[Postgres],
            What::PostgresCrashed => &[Postgres, Standby],
            What::StandbyFrozen | What::ReplayPaused => &[Standby],
        }
    }

    /// At least, and at most, in milliseconds.
    fn duration(self) -> (u64, u64) {
        match self {
            What::Network(_, Trouble::Cut)
            | What::DaemonKilled
            | What::DaemonRestarted
            | What::RedisFlushed
            | What::StateDeleted
            | What::ScriptsForgotten
            | What::ClientsKilled
            | What::RedisRestarted
            | What::PostgresRestarted
            | What::WalsenderEnded => (100, 101),
            What::SlotDropped | What::DaemonReplaced => (1000, 1001),
            What::DaemonKilledAt(_) => (2500, 2501),
            What::RedisRestored => (300, 1500),
            What::DiskFull => (1000, 2500),
            _ => (200, 2500),
        }
    }

    /// Any; some that do little less often than those that do much.
    fn any(rng: &mut Rng, place: Place) -> What {
        let trouble = |rng: &mut Rng| match rng.u8(0..5) {
            0 => Trouble::Cut,
            1 => Trouble::Slow,
            2 => Trouble::Silent,
            3 => Trouble::AnswersLost,
            _ => Trouble::Refused,
        };
        loop {
            let what = match rng.u8(0..32) {
                0 | 1 => What::DaemonKilled,
                2 => What::DaemonRestarted,
                3 => What::DaemonFrozen,
                4..9 => What::DaemonKilledAt(Point::ALL[rng.usize(0..Point::ALL.len())]),
                9 => What::DaemonReplaced,
                10 => What::RedisFrozen,
                11 => What::RedisKilled,
                12 => What::RedisRestarted,
                13 | 14 => What::RedisRestored,
                15 => What::RedisFlushed,
                16 => What::StateDeleted,
                17 => What::ScriptsForgotten,
                18 => What::ClientsKilled,
                19 => What::RedisFull,
                20 => What::RedisReadOnly,
                21 | 22 => What::Network(Way::ToRedis, trouble(rng)),
                23 | 24 => What::Network(Way::ToPostgres, trouble(rng)),
                25 => What::PostgresFrozen,
                26 => What::PostgresRestarted,
                27 => What::PostgresCrashed,
                28 => [What::WalsenderFrozen, What::WalsenderEnded][rng.usize(0..2)],
                29 => What::SlotDropped,
                30 => What::DiskFull,
                _ => [What::StandbyFrozen, What::ReplayPaused][rng.usize(0..2)],
            };
            if what.is_possible(place) {
                return what;
            }
        }
    }

    fn is_possible(self, place: Place) -> bool {
        match self {
            What::StandbyFrozen | What::ReplayPaused => place.standby.is_some(),
            // It would not look at the old dump.
            What::RedisRestored => !place.appends,
            _ => true,
        }
    }
}

impl Plan {
    /// The plan of this seed, so many acts long. A longer one begins as a shorter one does.
    pub fn new(seed: u64, acts: usize) -> Plan {
        let mut rng = Rng::with_seed(seed);
        let place = Place {
            standby: [None, None, Some("on"), Some("remote_apply")][rng.usize(0..4)],
            appends: rng.u8(0..4) == 0,
            streaming: rng.u8(0..4) != 0,
        };
        let acts = (0..acts).map(|_| Act::any(&mut rng, place)).collect();
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

    fn excludes(&self, other: &Fault) -> bool {
        let together = self.at < other.ends() && other.at < self.ends();
        let parts = other.what.occupies();
        together && self.what.occupies().iter().any(|part| parts.contains(part))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap()
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { standby, appends, streaming } = self.place;
        write!(
            f,
            "SEED={}: {}",
            self.seed,
            standby
                .map_or("no standby".to_owned(), |commit| format!("synchronous_commit = {commit}"))
        )?;
        write!(f, ", Redis {}", if appends { "keeps its data" } else { "forgets" })?;
        writeln!(f, ", large transactions {}", if streaming { "streamed" } else { "spilled" })?;
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
    use std::collections::BTreeSet;

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
        let mut seen = BTreeSet::new();
        let mut overlaps = 0;
        for seed in 0..2_000 {
            for act in Plan::new(seed, 1).acts {
                seen.extend(act.faults.iter().map(|fault| format!("{:?}", fault.what)));
                let meets = |pair: &[Fault]| pair[1].at < pair[0].ends();
                overlaps += act.faults.windows(2).filter(|pair| meets(pair)).count();
            }
        }
        // Each kind, each point, each trouble of each way.
        assert_eq!(seen.len(), 23 + Point::ALL.len() + 10, "{seen:#?}");
        assert!(overlaps > 1000, "{overlaps}");
    }
}
