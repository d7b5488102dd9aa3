//! Who writes: at random whatever an application does, and rows whose versions are followed.

use std::fmt::Write as _;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::SinkExt as _;
use redis::AsyncCommands as _;
use tokio::task::JoinSet;
use tokio_postgres::{Client, SimpleQueryMessage};
use unstale::lsn::Lsn;

use crate::raise::raise;
use crate::stage::{ROWS, Stage};
use crate::support::api::bearer;
use crate::support::root;
use crate::writer::Writer;

const VERSION_WRITERS: u32 = 3;
const ANY_WRITERS: u32 = 2;

/// The rows of which each is marked, changed, and must not be there as it was marked.
pub const MARKED: std::ops::Range<u32> = 1001..2000;

/// What no query gives.
pub const MARK: &str = "\"marked\"";

const SIZES: &str =
    "set demo.organizations = 4; set demo.users = 24; set demo.deals = 40; set demo.clients = 5;";

const EMPTY: &str = "truncate organization_organization, authentication_user, permissions_role,
    permissions_role_permissions, auth_permission, django_content_type, deals_deal, deals_payment,
    clients_client, project_project;";

/// Many changes of few rows, some of them taken back: more than the server keeps in memory.
const LARGE: &str = "do $$ begin for i in 1..15 loop begin
    update deals_deal set deal_value = deal_value + 1, deal_remarks = repeat('x', 300);
    update authentication_user set is_superuser = not is_superuser where id % 15 = i;
    if i % 4 = 0 then raise exception 'taken back'; end if;
    exception when raise_exception then null; end; end loop; end $$; ";

/// Grants, without asking anybody's models: those of some role, or of some permission.
const REVOKED: &str = "delete from permissions_role_permissions where role_id =
        (select role_id from permissions_role_permissions order by random() limit 1)
    or permission_id = (select id from auth_permission order by random() limit 1);
    insert into permissions_role_permissions (role_id, permission_id)
        select r.id, p.id from permissions_role r, auth_permission p order by random() limit 5
        on conflict do nothing; ";

/// What another system's replication writes here: no trigger fires, no foreign key is checked.
const AS_REPLICA: &str = "set local session_replication_role = replica;
    update clients_client set client_name = left(client_name, 30) || '~'
        where id = (select id from clients_client order by random() limit 1);
    update deals_deal set deal_value = deal_value + 1, verification_status = 'verified'
        where id = (select id from deals_deal order by random() limit 1);
    update authentication_user set is_active = not is_active
        where id = (select id from authentication_user order by random() limit 1);
    set local session_replication_role = origin; ";

/// Some deals once more, as lines for COPY.
const DEALS: &str = "select concat_ws(E'\\t', gen_random_uuid(), 'C' || gen_random_uuid(),
        organization_id, client_id, replace(deal_name, E'\\t', ' '), deal_value, verification_status,
        payment_status, payment_method, source_type, deal_date, created_at, updated_at)
    from deals_deal order by random() limit 3";

const COPY: &str =
    "copy deals_deal (id, deal_id, organization_id, client_id, deal_name, deal_value,
    verification_status, payment_status, payment_method, source_type, deal_date, created_at,
    updated_at) from stdin";

/// What a nightly synchronization does.
const RELOADED: &str = "create temporary table grants on commit drop as
    select role_id, permission_id from permissions_role_permissions;
    truncate permissions_role_permissions;
    insert into permissions_role_permissions (role_id, permission_id) select * from grants; ";

/// Starts all of them. They end when the stage stops writing.
pub fn start(stage: &Arc<Stage>, seed: u64) -> JoinSet<()> {
    let mut writers = JoinSet::new();
    for number in 0..ANY_WRITERS {
        writers.spawn(write_anything(Arc::clone(stage), seed, number));
    }
    for number in 0..VERSION_WRITERS {
        writers.spawn(write_versions(Arc::clone(stage), number));
    }
    writers.spawn(mark_and_change(Arc::clone(stage)));
    writers
}

/// The demo's rows, few of them.
pub async fn load_rows(stage: &Stage) {
    let rows = std::fs::read_to_string(root().join("sql/demo/data.sql")).unwrap();
    stage.primary().execute(&format!("{SIZES} {EMPTY} {rows}")).await.unwrap();
}

/// A session that is made anew when it is lost.
pub struct Session {
    pub stage: Arc<Stage>,
    client: Option<Client>,
}

impl Session {
    fn new(stage: &Arc<Stage>) -> Session {
        Session { stage: Arc::clone(stage), client: None }
    }

    pub async fn client(&mut self) -> Option<&Client> {
        if self.client.as_ref().is_none_or(Client::is_closed) {
            self.client = None;
            let client = self.stage.primary().client().await.ok()?;
            let prologue = "set lock_timeout = '300ms'; set client_min_messages = error";
            client.batch_execute(prologue).await.ok()?;
            self.client = Some(client);
        }
        self.client.as_ref()
    }

    /// The first row's columns; `None`: it was refused, or nobody knows what came of it.
    pub async fn run(&mut self, sql: &str) -> Option<Vec<String>> {
        let Some(client) = self.client().await else {
            // The server is being restarted.
            tokio::time::sleep(Duration::from_millis(20)).await;
            return None;
        };
        let Ok(messages) = client.simple_query(sql).await else {
            _ = client.batch_execute("rollback").await;
            return None;
        };
        let row = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let columns = row
            .map(|row| (0..row.len()).map(|i| row.get(i).unwrap_or_default().to_owned()).collect());
        Some(columns.unwrap_or_default())
    }
}

async fn write_anything(stage: Arc<Stage>, seed: u64, number: u32) {
    let mut writer = Writer::new(seed ^ u64::from(number), &[], false);
    let mut session = Session::new(&stage);
    let prepared = format!("of writer {number}");
    while !stage.writing.is_set() {
        if writer.chance(15) {
            copy_deals(&mut session).await;
        }
        let hasty = if stage.hasty.is_set() { "set local synchronous_commit = off;" } else { "" };
        let mut sql = format!("begin; {hasty} {}", writer.body());
        if writer.chance(12) {
            sql += LARGE;
        }
        if writer.chance(20) {
            sql += RELOADED;
        }
        if writer.chance(12) {
            sql += REVOKED;
        }
        if writer.chance(12) {
            sql += AS_REPLICA;
        }
        let two_phases = writer.chance(10);
        match (two_phases, writer.chance(8)) {
            (true, _) => write!(sql, "prepare transaction '{prepared}'").unwrap(),
            (false, true) => sql += "rollback",
            (false, false) => sql += "commit",
        }
        let done = session.run(&sql).await.is_some();
        stage.ledger.count(if done { "transactions" } else { "refused" });
        if two_phases {
            finish_prepared(&mut session, &prepared, writer.chance(3)).await;
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(1..20))).await;
    }
}

/// Loads some deals; those of the time before go in one statement.
async fn copy_deals(session: &mut Session) -> Option<()> {
    session.run("delete from deals_deal where deal_id like 'C%' and random() < 0.7").await?;
    let client = session.client().await?;
    let mut lines = String::new();
    for row in client.query(DEALS, &[]).await.ok()? {
        lines += row.get::<_, &str>(0);
        lines += "\n";
    }
    let mut sink = pin!(client.copy_in(COPY).await.ok()?);
    sink.send(Bytes::from(lines)).await.ok()?;
    let copied = sink.finish().await.ok()?;
    session.stage.ledger.note(|tally| *tally.counts.entry("copied").or_default() += copied);
    Some(())
}

/// Ends what was prepared, if it was: it outlives every restart of the server.
pub async fn finish_prepared(session: &mut Session, name: &str, roll_back: bool) {
    tokio::time::sleep(Duration::from_millis(fastrand::u64(0..100))).await;
    let verb = if roll_back { "rollback" } else { "commit" };
    let there = format!("select gid from pg_prepared_xacts where gid = '{name}'");
    loop {
        match session.run(&there).await {
            Some(columns) if columns.is_empty() => return,
            Some(_) => _ = session.run(&format!("{verb} prepared '{name}'")).await,
            None => {}
        }
        session.stage.ledger.count("prepared");
    }
}

/// Raises the versions of rows of its own; now and then it reads by the API what it has
/// written.
async fn write_versions(stage: Arc<Stage>, number: u32) {
    let mut session = Session::new(&stage);
    let rows: Vec<u32> = (1..=ROWS).filter(|row| row % VERSION_WRITERS == number).collect();
    while !stage.writing.is_set() {
        let row = rows[fastrand::usize(0..rows.len())];
        if let Some(committed) = raise(&mut session, row).await {
            stage.ledger.committed(row, committed);
            // A crash may take a hasty one back.
            if committed.heard && committed.hasty.is_none() && fastrand::u8(0..3) == 0 {
                read_own(&stage, row, committed.version, committed.by).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(1..15))).await;
    }
}

async fn read_own(stage: &Stage, row: u32, version: u64, by: Lsn) {
    let (token, lsn) = (bearer(1), by.to_string());
    let headers = [("Authorization", token.as_str()), ("Unstale-Min-LSN", lsn.as_str())];
    let asking = stage.api();
    let path = format!("/items/{row}/");
    let asked = asking.try_get(&path, &headers);
    let answer = tokio::time::timeout(Duration::from_secs(15), asked).await;
    let Ok(Some(answer)) = answer else { return stage.ledger.count("own_unanswered") };
    if answer.status != 200 {
        return stage.ledger.count("own_refused");
    }
    let status = answer.header("cache-status").unwrap_or_default().to_owned();
    stage.ledger.count(if status.contains("bypass") { "own_past_cache" } else { "own_reads" });
    let read = answer.json()["item"].as_u64().unwrap_or_default();
    if read < version {
        let wrong =
            format!("{path} gave {read} ({status}) although {version} was committed by {by}");
        stage.ledger.note(|tally| tally.stale_served.push(wrong));
    }
}

/// Puts into the cache what no query gives, then changes the row: whatever happens, the mark
/// must go.
async fn mark_and_change(stage: Arc<Stage>) {
    let mut session = Session::new(&stage);
    let mut rows = MARKED.cycle();
    while !stage.writing.is_set() {
        let row = rows.next().unwrap_or_default();
        let Ok(mut values) = stage.world.redis.connection_db(1).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let key = format!("prs_cache:1:v1:item:{row}");
        let marked: redis::RedisResult<()> = values.set_ex(key, MARK, 3600).await;
        // Whether or not it was: it must go.
        while raise(&mut session, row).await.is_none() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        if marked.is_ok() {
            stage.ledger.count("marked");
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(1..15))).await;
    }
}
