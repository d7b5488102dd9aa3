//! What can go wrong, what it breaks meanwhile, and how long it takes.

use fastrand::Rng;
use unstale::pipeline::points::Point;

use crate::schedule::Place;

/// A way to one of the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    ToRedis,
    ToPostgres,
}

/// What happens on such a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// What a daemon finds in its file when it is told to read it anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edit {
    /// A cache's query is another one (that gives the same): everything is dropped.
    Query,
    /// There is an endpoint more, or less: nothing is dropped.
    Endpoints,
    /// It cannot be used: the old one stays.
    Broken,
}

/// A mapped table: of versions that are followed, or of the default mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    Items,
    Deals,
}

/// What an UPDATE or a DELETE tells of the old row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// The primary key.
    Default,
    /// The same by its index.
    Index,
    /// Nothing: the server refuses both.
    Nothing,
}

impl Table {
    pub fn name(self) -> &'static str {
        match self {
            Table::Items => "item",
            Table::Deals => "deals_deal",
        }
    }
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
    /// A second one waits for a while, and goes.
    DaemonDoubled,
    /// It freezes, loses its slot to a second one, and thaws.
    DaemonOvertaken,
    /// SIGHUP.
    DaemonReloaded(Edit),
    RedisFrozen,
    /// With what it does not keep over that.
    RedisKilled,
    RedisRestarted,
    /// What it held at the beginning is back at the end.
    RedisRestored,
    RedisFlushed,
    /// Somebody swaps the database with another one, and back again.
    RedisSwapped,
    StateDeleted,
    ScriptsForgotten,
    ClientsKilled,
    /// It refuses what needs memory.
    RedisFull,
    /// It makes room by whatever comes to hand.
    RedisEvicts,
    RedisReadOnly,
    Network(Way, Trouble),
    PostgresFrozen,
    PostgresRestarted,
    PostgresCrashed,
    /// A crash, with what was committed and visible and nobody waited for.
    CommitsLost,
    /// It dies for good, and the standby takes over; there is no slot.
    PrimaryLost,
    WalsenderFrozen,
    WalsenderEnded,
    SlotDropped,
    /// What the walsender writes does not fit on the disk.
    DiskFull,
    StandbyFrozen,
    ReplayPaused,
    /// A table leaves the publication, and comes back.
    TableUnpublished(Table),
    /// A table that nobody has mapped comes to the publication, is written, and leaves it.
    StrangerPublished,
    PublicationDropped,
    /// `ALTER TABLE … TYPE … USING`, which changes every row and is in no stream.
    TableRewritten,
    /// Another replica identity for a while, or none.
    IdentityChanged(Table, Identity),
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

const WAYS: [Way; 2] = [Way::ToRedis, Way::ToPostgres];

const TROUBLES: [Trouble; 5] =
    [Trouble::Cut, Trouble::Slow, Trouble::Silent, Trouble::AnswersLost, Trouble::Refused];

const EDITS: [Edit; 3] = [Edit::Query, Edit::Endpoints, Edit::Broken];

const TABLES: [Table; 2] = [Table::Items, Table::Deals];

const IDENTITIES: [Identity; 3] = [Identity::Default, Identity::Index, Identity::Nothing];

impl What {
    /// Everything that can go wrong, each kind in all its forms.
    fn kinds() -> Vec<Vec<What>> {
        use What::*;
        let alone = [
            DaemonKilled,
            DaemonRestarted,
            DaemonFrozen,
            DaemonReplaced,
            DaemonDoubled,
            DaemonOvertaken,
            RedisFrozen,
            RedisKilled,
            RedisRestarted,
            RedisRestored,
            RedisFlushed,
            RedisSwapped,
            StateDeleted,
            ScriptsForgotten,
            ClientsKilled,
            RedisFull,
            RedisEvicts,
            RedisReadOnly,
            PostgresFrozen,
            PostgresRestarted,
            PostgresCrashed,
            CommitsLost,
            PrimaryLost,
            WalsenderFrozen,
            WalsenderEnded,
            SlotDropped,
            DiskFull,
            StandbyFrozen,
            ReplayPaused,
            StrangerPublished,
            PublicationDropped,
            TableRewritten,
        ];
        let mut kinds: Vec<Vec<What>> = alone.into_iter().map(|what| vec![what]).collect();
        kinds.extend(WAYS.map(|way| TROUBLES.map(|trouble| Network(way, trouble)).to_vec()));
        kinds.push(Point::ALL.map(DaemonKilledAt).to_vec());
        kinds.push(EDITS.map(DaemonReloaded).to_vec());
        kinds.push(TABLES.map(TableUnpublished).to_vec());
        let changed = |table| IDENTITIES.map(|identity| IdentityChanged(table, identity));
        kinds.push(TABLES.map(changed).concat());
        kinds
    }

    pub fn all() -> Vec<What> {
        What::kinds().concat()
    }

    /// Any kind that is possible here; those that do much, or come in many forms, more often.
    pub fn any(rng: &mut Rng, place: Place) -> What {
        let kinds = What::kinds();
        let weights: Vec<usize> = kinds.iter().map(|kind| kind[0].weight()).collect();
        loop {
            let mut nth = rng.usize(0..weights.iter().sum());
            let mut kind = 0;
            while nth >= weights[kind] {
                nth -= weights[kind];
                kind += 1;
            }
            let what = kinds[kind][rng.usize(0..kinds[kind].len())];
            if what.is_possible(place) {
                return what;
            }
        }
    }

    fn weight(self) -> usize {
        match self {
            What::DaemonKilledAt(_) => 6,
            What::DaemonKilled
            | What::RedisRestored
            | What::CommitsLost
            | What::PrimaryLost
            | What::Network(..)
            | What::DaemonReloaded(_)
            | What::TableUnpublished(_) => 2,
            _ => 1,
        }
    }

    fn is_possible(self, place: Place) -> bool {
        match self {
            What::StandbyFrozen | What::ReplayPaused | What::PrimaryLost => place.standby.is_some(),
            // It would not look at the old dump.
            What::RedisRestored => !place.appends,
            _ => true,
        }
    }

    /// Each list in the order of the parts.
    pub fn occupies(self) -> &'static [Part] {
        use Part::{Daemon, Postgres, PostgresWay, Redis, RedisWay, Standby};
        match self {
            What::DaemonKilled
            | What::DaemonRestarted
            | What::DaemonFrozen
            | What::DaemonDoubled
            | What::DaemonReloaded(_) => &[Daemon],
            // Both must answer for the point to be reached, or for the second one to wait.
            What::DaemonKilledAt(_) | What::DaemonReplaced | What::DaemonOvertaken => {
                &[Daemon, Redis, Postgres]
            }
            What::RedisFrozen
            | What::RedisKilled
            | What::RedisRestarted
            | What::RedisRestored
            | What::RedisFlushed
            | What::RedisSwapped
            | What::StateDeleted
            | What::ScriptsForgotten
            | What::ClientsKilled
            | What::RedisFull
            | What::RedisEvicts
            | What::RedisReadOnly => &[Redis],
            What::Network(Way::ToRedis, _) => &[RedisWay],
            What::Network(Way::ToPostgres, _) => &[PostgresWay],
            // A fast shutdown waits until the daemon has confirmed everything.
            What::PostgresRestarted => &[Daemon, Redis, RedisWay, Postgres, PostgresWay, Standby],
            What::PostgresFrozen
            | What::WalsenderFrozen
            | What::WalsenderEnded
            | What::SlotDropped
            | What::DiskFull
            | What::StrangerPublished
            | What::TableRewritten
            | What::IdentityChanged(..) => &[Postgres],
            // Who starts while a table is not published says so and ends.
            What::TableUnpublished(_) | What::PublicationDropped => &[Daemon, Postgres],
            What::PostgresCrashed | What::CommitsLost => &[Postgres, Standby],
            What::PrimaryLost => &[Postgres, PostgresWay, Standby],
            What::StandbyFrozen | What::ReplayPaused => &[Standby],
        }
    }

    /// At least, and less than, in milliseconds.
    pub fn duration(self) -> (u64, u64) {
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
            What::DaemonKilledAt(_) | What::DaemonOvertaken => (2500, 2501),
            What::RedisRestored => (300, 1500),
            What::DiskFull => (1000, 2500),
            // Less, and more, than the daemon takes to look.
            What::TableUnpublished(_) | What::PublicationDropped => (50, 1800),
            _ => (200, 2500),
        }
    }
}
