//! Who reads with the position of his own commit never sees an older value, whatever happens
//! to the daemon meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::support::api::{ADMIN, SUPERUSER, Site, bearer};
use tokio::task::JoinHandle;

const WRITERS: u32 = 4;

/// How often the daemon is killed.
const KILLS: u32 = 6;

/// How many of the reads must have come through the cache: those from the database, while
/// nobody keeps it fresh, prove little.
fn rounds() -> u32 {
    if cfg!(feature = "long-tests") { 10_000 } else { 400 }
}

/// Writers change an organization each, by SQL, and read at once; others read all of them all
/// the time, so that there is always somebody who fills. The daemon is killed and started.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_reads_an_older_value_than_his_own() {
    let mut site = Site::new().await;
    site.world.set("log.level=warn");
    let rows = "insert into organization_organization (id, name, is_active, created_at, updated_at) \
                select i, 'w' || i || '-0', true, now(), now() from generate_series(11, 10 + 4) i";
    site.world.postgres.execute(rows).await.unwrap();
    let site = Arc::new(site);
    let daemon = site.daemon().await;
    let done = Arc::new(AtomicBool::new(false));
    let through_cache = Arc::new(AtomicU32::new(0));
    let readers: Vec<_> = (0..4)
        .map(|reader| {
            let (site, done) = (Arc::clone(&site), Arc::clone(&done));
            tokio::spawn(async move {
                let mut turn = reader;
                while !done.load(Ordering::Relaxed) {
                    turn = (turn + 1) % WRITERS;
                    let path = format!("/api/cached/organizations/{}/info/", 11 + turn);
                    let token = bearer(if turn % 2 == 0 { SUPERUSER } else { ADMIN });
                    if site.try_get(&path, &[("Authorization", &token)]).await.is_none() {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
            })
        })
        .collect();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (site, done) = (Arc::clone(&site), Arc::clone(&done));
            let through_cache = Arc::clone(&through_cache);
            tokio::spawn(async move {
                let client = site.world.postgres.client().await.unwrap();
                let organization = 11 + writer;
                let path = format!("/api/cached/organizations/{organization}/info/");
                let mut round = 0;
                while !done.load(Ordering::Relaxed) {
                    round += 1;
                    let name = format!("w{organization}-{round}");
                    let sql = format!("update organization_organization set name = '{name}' where id = {organization}");
                    client.batch_execute(&sql).await.unwrap();
                    let row = client.query_one("select pg_current_wal_flush_lsn()::text", &[]).await.unwrap();
                    let lsn: String = row.get(0);
                    let token = bearer(SUPERUSER);
                    let headers = [("Authorization", token.as_str()), ("Unstale-Min-LSN", lsn.as_str())];
                    let start = Instant::now();
                    let answer = loop {
                        // While it is being killed and started nobody answers.
                        match site.try_get(&path, &headers).await {
                            Some(answer) if answer.status == 200 => break answer,
                            _ => tokio::time::sleep(Duration::from_millis(5)).await,
                        }
                        assert!(start.elapsed() < crate::support::PATIENCE, "no answer");
                    };
                    let read = answer.json()["organization"]["name"].clone();
                    assert_eq!(read, name, "round {round}, {:?}", answer.headers);
                    if !answer.header("cache-status").unwrap().contains("bypass") {
                        through_cache.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    let mut running = daemon;
    for killed in 1..=KILLS {
        let enough = killed * rounds() / (KILLS + 1);
        until_or_failed(&writers, || through_cache.load(Ordering::Relaxed) >= enough).await;
        running.kill9().await;
        running = site.world.spawn();
    }
    until_or_failed(&writers, || through_cache.load(Ordering::Relaxed) >= rounds()).await;
    done.store(true, Ordering::Relaxed);
    for task in writers.into_iter().chain(readers) {
        task.await.unwrap();
    }
    drop(running);
}

async fn until_or_failed(writers: &[JoinHandle<()>], enough: impl Fn() -> bool) {
    while !enough() && !writers.iter().any(JoinHandle::is_finished) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
