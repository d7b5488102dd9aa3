//! Who changes the rows.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, SimpleQueryMessage};

use crate::case::Case;
use crate::support::World;
use crate::support::stop::Stop;

/// When each version was known to be visible: its commit had returned.
#[derive(Clone, Default)]
pub struct Acks(Arc<Mutex<HashMap<(String, u64), Instant>>>);

impl Acks {
    fn add(&self, versions: Vec<(String, u64)>) {
        let now = Instant::now();
        self.0.lock().unwrap().extend(versions.into_iter().map(|version| (version, now)));
    }

    /// How long the next of one of these versions was visible at `moment`.
    pub fn overdue(&self, value: &crate::history::Versions, moment: Instant) -> Option<Duration> {
        let acks = self.0.lock().unwrap();
        let visible =
            |(id, version): (&String, &u64)| acks.get(&(id.clone(), version + 1)).copied();
        value.iter().filter_map(visible).filter_map(|at| moment.checked_duration_since(at)).max()
    }
}

pub struct Writer {
    client: Client,
    transaction: Duration,
    acks: Acks,
}

impl Writer {
    /// Where commits wait for a standby, the first writer's do not: its changes overtake.
    pub async fn new(world: &World, case: &Case, number: u32, acks: Acks) -> Writer {
        let client = world.postgres.client().await.unwrap();
        if case.synchronous_commit.is_some() && number == 0 {
            client.batch_execute("set synchronous_commit = local").await.unwrap();
        }
        Writer { client, transaction: case.transaction, acks }
    }

    pub async fn write(mut self, stop: Stop) {
        while !stop.is_set() {
            self.change().await;
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..6))).await;
        }
    }

    /// Raises the versions of one to three rows, in their order so that no two writers
    /// wait for each other.
    async fn change(&mut self) {
        let rows: BTreeSet<u32> = (0..fastrand::u32(1..4)).map(|_| fastrand::u32(1..21)).collect();
        let mut made = Vec::new();
        self.run("begin").await;
        for id in rows {
            let moves = if fastrand::u32(0..10) == 0 { ", grp = (grp + 1) % 4" } else { "" };
            let savepoint = fastrand::u32(0..4) == 0;
            if savepoint {
                self.run("savepoint s").await;
            }
            let sql = format!(
                "update item set version = version + 1{moves} where id = {id} returning id, version"
            );
            made.extend(self.run(&sql).await);
            if savepoint {
                self.run("release savepoint s").await;
            }
            tokio::time::sleep(self.transaction.mul_f64(fastrand::f64() / 3.0)).await;
        }
        if fastrand::u32(0..10) == 0 {
            self.run("rollback").await;
        } else {
            self.run("commit").await;
            self.acks.add(made);
        }
    }

    /// Removes all rows and puts them back, each a version later.
    pub async fn truncate(&mut self) {
        self.run("begin; lock table item; create temp table kept on commit drop as select * from item; truncate item").await;
        let sql = "insert into item select id, grp, version + 1 from kept returning id, version";
        let made = self.run(sql).await;
        self.run("commit").await;
        self.acks.add(made);
    }

    async fn run(&mut self, sql: &str) -> Vec<(String, u64)> {
        let answer = self.client.simple_query(sql).await;
        let answer = answer.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let row = |message: &SimpleQueryMessage| match message {
            SimpleQueryMessage::Row(row) => {
                Some((row.get(0)?.to_owned(), row.get(1)?.parse().ok()?))
            }
            _ => None,
        };
        answer.iter().filter_map(row).collect()
    }
}
