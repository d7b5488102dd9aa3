//! Doing what the schedule says. What cannot be done just then (a server that is being asked
//! has gone meanwhile, through another fault) is left: the schedule says what is tried.

mod daemons;
mod networks;
mod postgres;
mod publication;
mod redis;

use std::time::Duration;

use unstale::sandbox::Shutdown;

use crate::schedule::{Act, Fault};
use crate::stage::Stage;
use crate::what::{Part, What};

const OFTEN: Duration = Duration::from_millis(20);

impl Stage {
    /// Plays an act: each fault at its time, beside the others.
    pub async fn play(&self, act: &Act) {
        let faults = act.faults.iter().map(|fault| async move {
            tokio::time::sleep(fault.at).await;
            self.inflict(fault).await;
        });
        let whole = tokio::time::sleep(crate::schedule::ACT);
        tokio::join!(futures_util::future::join_all(faults), whole);
        self.mend().await;
    }

    /// On a slow machine the one before may still be under way, against the schedule.
    pub async fn inflict(&self, fault: &Fault) {
        let mut occupied = Vec::new();
        for part in fault.what.occupies() {
            let index = Part::ALL.iter().position(|other| other == part).unwrap();
            occupied.push(self.parts[index].lock().await);
        }
        let Fault { lasts, what, .. } = *fault;
        let (redis, postgres) = (&self.world.redis, self.primary());
        match what {
            What::DaemonKilled => self.kill_daemon(None).await,
            What::DaemonRestarted => self.restart_daemon().await,
            What::DaemonFrozen => self.freeze_daemon(lasts).await,
            What::DaemonKilledAt(point) => self.kill_daemon_at(point, lasts).await,
            What::DaemonReplaced => self.replace_daemon(lasts).await,
            What::DaemonDoubled => self.double_daemon(lasts).await,
            What::DaemonOvertaken => self.overtake_daemon(lasts).await,
            What::DaemonReloaded(edit) => self.reload_daemon(edit, lasts).await,
            What::RedisFrozen => {
                redis.pause().await;
                tokio::time::sleep(lasts).await;
                redis.resume();
            }
            What::RedisKilled => {
                redis.kill9().await.unwrap();
                tokio::time::sleep(lasts).await;
                redis.start_again().await.unwrap();
            }
            What::RedisRestarted => redis.restart().await.unwrap(),
            What::RedisRestored => {
                let dump = redis.save_dump().await.unwrap();
                tokio::time::sleep(lasts).await;
                redis.restore_dump(&dump).await.unwrap();
            }
            What::RedisFlushed => self.redis(&["FLUSHALL"]).await,
            What::RedisSwapped => self.swap_redis(lasts).await,
            What::StateDeleted => self.redis(&["DEL", "unstale:unstale:state"]).await,
            What::ScriptsForgotten => self.redis(&["SCRIPT", "FLUSH", "SYNC"]).await,
            What::ClientsKilled => {
                self.redis(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
            }
            What::RedisFull => self.fill_redis(lasts).await,
            What::RedisEvicts => self.evict(lasts).await,
            What::RedisReadOnly => self.demote_redis(lasts).await,
            What::Network(way, trouble) => self.trouble(way, trouble, lasts).await,
            What::PostgresFrozen => {
                postgres.pause().await;
                tokio::time::sleep(lasts).await;
                postgres.resume();
            }
            What::PostgresRestarted => postgres.restart(Shutdown::Fast).await.unwrap(),
            What::PostgresCrashed => {
                postgres.kill9().await.unwrap();
                tokio::time::sleep(lasts).await;
                postgres.start_again().await.unwrap();
            }
            What::CommitsLost => self.lose_commits(lasts).await,
            What::PrimaryLost => {
                postgres.kill9().await.unwrap();
                tokio::time::sleep(lasts).await;
                self.take_over().await;
                self.ledger.count("taken_over");
            }
            What::WalsenderFrozen => self.freeze_walsender(lasts).await,
            What::WalsenderEnded => self.end_walsender().await,
            What::SlotDropped => self.drop_slot(lasts).await,
            What::DiskFull => self.fill_disk(lasts).await,
            What::StandbyFrozen | What::ReplayPaused => self.hold_standby(what, lasts).await,
            What::TableUnpublished(table) => self.unpublish(table, lasts).await,
            What::StrangerPublished => self.publish_stranger(lasts).await,
            What::PublicationDropped => self.drop_publication(lasts).await,
            What::TableRewritten => self.rewrite_table(lasts).await,
            What::IdentityChanged(table, identity) => {
                self.change_identity(table, identity, lasts).await;
            }
        }
    }
}
